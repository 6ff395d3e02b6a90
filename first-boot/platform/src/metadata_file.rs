//! Writes what is known of the machine as a file of environment variables.
//!
//! Knows the names that unit files of afterburn's and coreos-metadata's users expect. Refuses to
//! write the file: the text is handed to the caller.
//! Invariant: a value from outside stays one value, whatever characters it holds.
//!
//! Documentation: systemd.exec(5), `EnvironmentFile=`, and
//! <https://coreos.github.io/afterburn/usage/attributes/>.

use std::fmt::Write as _;

use crate::InstanceMetadata;

/// coreos-metadata called these two clouds by other names than afterburn does.
// Units written for coreos-metadata expect these. afterburn renamed both clouds when it took over.
const OLDER_NAMES: [(&str, &str); 2] = [("AWS_", "EC2_"), ("GCP_", "GCE_")];

impl InstanceMetadata {
    /// The content of `/run/metadata/catamaran`, for `EnvironmentFile=`.
    #[must_use]
    pub fn metadata_file(&self) -> String {
        let mut lines = String::new();
        for (name, value) in self.to_variables() {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{name}={}", quote_value(&value));
        }
        lines
    }

    fn to_variables(&self) -> Vec<(String, String)> {
        let mut variables = self.general_variables();
        for (name, value) in &self.attributes {
            variables.push((format!("AFTERBURN_{name}"), value.clone()));
            variables.push((format!("COREOS_{}", older_name(name)), value.clone()));
        }
        variables.sort();
        variables
    }

    /// What is the same on every platform.
    fn general_variables(&self) -> Vec<(String, String)> {
        let addresses = &self.addresses;
        let known = [
            ("COREOS_PUBLIC_IPV4", addresses.public_ipv4.map(|address| address.to_string())),
            ("COREOS_PRIVATE_IPV4", addresses.private_ipv4.map(|address| address.to_string())),
            ("COREOS_PUBLIC_IPV6", addresses.public_ipv6.map(|address| address.to_string())),
            ("COREOS_PRIVATE_IPV6", addresses.private_ipv6.map(|address| address.to_string())),
            ("CATAMARAN_PLATFORM", Some(self.platform.name().to_owned())),
            ("CATAMARAN_INSTANCE_ID", self.instance_id.clone()),
            ("CATAMARAN_HOSTNAME", self.hostname.clone()),
            ("CATAMARAN_REGION", self.region.clone()),
            ("CATAMARAN_ZONE", self.zone.clone()),
            ("CATAMARAN_INSTANCE_TYPE", self.instance_type.clone()),
        ];
        known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

fn older_name(name: &str) -> String {
    let renamed = OLDER_NAMES.iter().find_map(|(new, old)| Some(format!("{old}{}", name.strip_prefix(new)?)));
    renamed.unwrap_or_else(|| name.to_owned())
}

/// As systemd reads it: plain when it needs nothing, else in double quotes with escapes. Control
/// characters, line ends among them, have no place in any fact, so they go.
fn quote_value(value: &str) -> String {
    // A whitelist, since systemd gives a meaning to more than quotes: `#` and `;` begin comments, `\` goes
    // on.
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._:/@+,=%".contains(letter);
    if value.chars().all(plain) {
        return value.to_owned();
    }
    let mut quoted = String::from("\"");
    for letter in value.chars().filter(|letter| !letter.is_control()) {
        if matches!(letter, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Platform;

    #[test]
    fn both_generations_of_names_are_there() {
        let mut provision = InstanceMetadata::new(Platform::Ec2);
        provision.set_attribute("AWS_IPV4_LOCAL", Some("10.0.0.5"));
        provision.addresses.private_ipv4 = Some([10, 0, 0, 5].into());

        assert_eq!(
            provision.metadata_file(),
            "AFTERBURN_AWS_IPV4_LOCAL=10.0.0.5\nCATAMARAN_PLATFORM=ec2\n\
             COREOS_EC2_IPV4_LOCAL=10.0.0.5\nCOREOS_PRIVATE_IPV4=10.0.0.5\n"
        );
    }

    #[test]
    fn a_value_cannot_become_a_second_variable() {
        assert_eq!(quote_value("a b\nLD_PRELOAD=/x"), "\"a bLD_PRELOAD=/x\"");
        assert_eq!(quote_value("say \"$HOME\""), "\"say \\\"\\$HOME\\\"\"");
    }
}
