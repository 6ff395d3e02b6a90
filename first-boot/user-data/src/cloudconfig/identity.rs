//! Host name and the hosts file.
//!
//! Knows `hostname`, `fqdn` and their relatives. Refuses to cut a name short in silence. Invariant: a
//! name that the kernel would refuse never becomes part of a plan.
//!
//! Documentation: cloud-init's modules "Set Hostname" and "Update Etc Hosts" in
//! <https://docs.cloud-init.io/en/latest/reference/modules.html>, hostname(7), hosts(5).

use super::fields::{FieldKey, MappingFields, no_effect, supported_key};
use crate::plan::step::HostsStyle;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;

/// The keys of the top level that this module reads.
pub const KEYS: &[FieldKey] = &[
    supported_key("hostname"),
    supported_key("fqdn"),
    supported_key("prefer_fqdn_over_hostname"),
    supported_key("preserve_hostname"),
    supported_key("manage_etc_hosts"),
    no_effect("create_hostname_file", "/etc/hostname is what makes the name last, so it is always written"),
];

/// The kernel's bound.
// `HOST_NAME_MAX` of Linux. A longer name would be refused by sethostname(2).
const LONGEST: usize = 64;
// RFC 1035, section 2.3.4.
const LONGEST_LABEL: usize = 63;

/// What a document says of the machine's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentityConfig {
    /// `hostname`.
    pub hostname: Option<Located<String>>,
    /// `fqdn`.
    pub fqdn: Option<Located<String>>,
    /// Whether the kernel gets the long name.
    pub prefer_fqdn: bool,
    /// Whether the name stays what it is.
    pub preserve: bool,
    /// What becomes of /etc/hosts.
    pub hosts: Option<Located<HostsStyle>>,
}

/// The names a machine goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNames {
    /// What the kernel gets.
    pub hostname: String,
    /// The long name, if there is one.
    pub fqdn: Option<String>,
}

impl IdentityConfig {
    pub(crate) fn read(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Self {
        fields.warn_if_empty("hostname", "the platform's name is used", found);
        Self {
            hostname: read_name(fields, "hostname", found),
            fqdn: read_name(fields, "fqdn", found),
            prefer_fqdn: fields.read_flag("prefer_fqdn_over_hostname", found).is_some_and(|flag| flag.value),
            preserve: fields.read_flag("preserve_hostname", found).is_some_and(|flag| flag.value),
            hosts: read_hosts_style(fields, found),
        }
    }

    /// The names that result, with what the platform says below what the document says.
    #[must_use]
    pub fn resolve_names(&self, platform: Option<&str>) -> Option<HostNames> {
        // cloud-init leaves out `localhost` as well, which some platforms say for want of a name.
        let platform = platform.filter(|name| check_host_name(name).is_ok() && *name != "localhost");
        let written = self.hostname.as_ref().map(|name| name.value.as_str());
        let long = self.fqdn.as_ref().map(|name| name.value.as_str());
        let short = written.or(long).or(platform)?;
        let fqdn = long.or_else(|| short.contains('.').then_some(short));
        let hostname = match (self.prefer_fqdn, fqdn, written) {
            (true, Some(fqdn), _) => fqdn,
            (false, _, Some(written)) => written,
            // As cloud-init does with an `fqdn`. A `hostname` with dots stays as it is written, as with
            // CoreOS.
            (_, _, None) if self.fqdn.is_some() => short.split('.').next().unwrap_or(short),
            _ => short,
        };
        Some(HostNames { hostname: hostname.to_owned(), fqdn: fqdn.map(str::to_owned) })
    }
}

fn read_name(fields: &mut MappingFields<'_>, key: &str, found: &mut Diagnostics) -> Option<Located<String>> {
    let text = fields.read_text(key, found)?.map_value(|text| text.trim().trim_end_matches('.').to_owned());
    match check_host_name(&text.value) {
        Ok(()) => Some(text),
        Err(flaw) => {
            let diagnostic = Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("`{key}` {flaw}"));
            fields.refuse_field(
                key,
                diagnostic.with_help("letters, digits and hyphens, with dots between the labels"),
                found,
            );
            None
        }
    }
}

/// Whether a name can be given to a machine.
pub fn check_host_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > LONGEST {
        return Err(format!("must have 1 to {LONGEST} characters, but has {}", name.len()));
    }
    let good = |label: &str| {
        !label.is_empty()
            && label.len() <= LONGEST_LABEL
            && !label.starts_with('-')
            && !label.ends_with('-')
            // RFC 1123 has no underscore. Platforms give such names, the kernel takes them, and systemd does,
            // too.
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if name.split('.').all(good) { Ok(()) } else { Err("is not a host name".to_owned()) }
}

fn read_hosts_style(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<HostsStyle>> {
    let text = fields.read_text("manage_etc_hosts", found)?;
    let style = match text.value.to_ascii_lowercase().as_str() {
        "localhost" => HostsStyle::Localhost,
        // `template` is what older versions of cloud-init called it.
        "true" | "yes" | "on" | "template" => HostsStyle::Full,
        "false" | "no" | "off" => return None,
        _ => {
            let diagnostic = super::fields::bad_choice(
                "manage_etc_hosts",
                &text.value,
                text.at,
                &["true", "false", "localhost"],
            );
            fields.refuse_field("manage_etc_hosts", diagnostic, found);
            return None;
        }
    };
    Some(Located { value: style, at: text.at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(hostname: Option<&str>, fqdn: Option<&str>, prefer_fqdn: bool) -> IdentityConfig {
        let at = |name: &str| Located { value: name.to_owned(), at: document::source::SourceMark::default() };
        IdentityConfig {
            hostname: hostname.map(at),
            fqdn: fqdn.map(at),
            prefer_fqdn,
            ..IdentityConfig::default()
        }
    }

    #[test]
    fn the_document_wins_over_the_platform() {
        let names = |identity: IdentityConfig| {
            identity.resolve_names(Some("cloud.example.org")).map(|names| (names.hostname, names.fqdn))
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), Some(b.to_owned())));

        assert_eq!(names(identity(None, None, false)), pair("cloud.example.org", "cloud.example.org"));
        assert_eq!(names(identity(Some("web"), None, false)), Some(("web".to_owned(), None)));
        assert_eq!(names(identity(None, Some("a.b.c"), false)), pair("a", "a.b.c"));
        assert_eq!(names(identity(Some("web"), Some("a.b.c"), false)), pair("web", "a.b.c"));
        assert_eq!(names(identity(Some("web"), Some("a.b.c"), true)), pair("a.b.c", "a.b.c"));
    }

    #[test]
    fn names_that_the_kernel_refuses_are_refused() {
        for bad in ["", "a b", "-a", "a..b", "ä", &"x".repeat(65)] {
            assert!(check_host_name(bad).is_err(), "{bad}");
        }
    }
}
