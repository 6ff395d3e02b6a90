//! Settings of the system that need more than a file written.
//!
//! Knows hosts, host name, time zone, environment files and the trust store. Refuses to lose lines
//! that somebody else wrote there. Invariant: doing it twice is doing it once.
//!
//! Documentation: hosts(5), hostname(5), localtime(5), cloud-init's modules "Update Etc Hosts" and "CA
//! Certificates".

use std::fs;

use user_data::address;
use user_data::plan::step::HostsStyle;
use user_data::secret::Secret;

use super::ApplyContext;
use crate::files::{self, FileChange, FileRights};
use crate::step_error::StepError;

const HOSTNAME: &str = "/etc/hostname";
const KERNEL_HOSTNAME: &str = "/proc/sys/kernel/hostname";
const HOSTS: &str = "/etc/hosts";
const LOCALTIME: &str = "/etc/localtime";
const TRUST_STORE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Names the machine, now and from now on.
pub(crate) fn set_hostname(name: &str, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let change =
        // The file first: if the kernel refuses the name, the next boot still has it. hostnamectl(1) would
        // need a D-Bus daemon.
        files::write(&host.root.path_of(HOSTNAME), format!("{name}\n").as_bytes(), FileRights::PUBLIC)?;
    let kernel = host.root.path_of(KERNEL_HOSTNAME);
    let known = fs::read_to_string(&kernel).unwrap_or_default();
    if known.trim_end() == name {
        return Ok(change);
    }
    fs::write(&kernel, name).map_err(|source| StepError::Write { path: kernel, source })?;
    Ok(FileChange::Made)
}

/// Puts the machine's names into the hosts file.
pub(crate) fn set_hosts(
    fqdn: Option<&str>,
    hostname: Option<&str>,
    style: HostsStyle,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let path = host.root.path_of(HOSTS);
    let own = fs::read_to_string(host.root.path_of(KERNEL_HOSTNAME)).unwrap_or_default();
    let (fqdn, hostname) = match hostname {
        Some(hostname) => (fqdn, hostname),
        None => {
            (own.trim().contains('.').then(|| own.trim()), own.trim().split('.').next().unwrap_or_default())
        }
    };
    if hostname.is_empty() {
        return Err(StepError::Said("this machine has no name that /etc/hosts could hold".to_owned()));
    }
    let names = fqdn.map_or_else(|| hostname.to_owned(), |fqdn| format!("{fqdn} {hostname}"));
    // Debian's address for a name that has none of its own: the name must not lead to localhost, nor to an
    // address that DHCP may take away. <https://www.debian.org/doc/manuals/debian-reference/ch05.en.html>.
    let own = format!("127.0.1.1 {names}");
    let text = match style {
        HostsStyle::Full => {
            format!(
                "{own}\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
            )
        }
        HostsStyle::Localhost => with_own_line(&fs::read_to_string(&path).unwrap_or_default(), &own),
    };
    files::write(&path, text.as_bytes(), FileRights::PUBLIC)
}

/// The file with this machine's line replaced, or added at its end.
fn with_own_line(known: &str, own: &str) -> String {
    let is_own = |line: &&str| line.split_ascii_whitespace().next() == Some("127.0.1.1");
    let mut lines: Vec<&str> = known.lines().filter(|line| !is_own(line)).collect();
    lines.push(own);
    lines.join("\n") + "\n"
}

/// Links the zone.
pub(crate) fn set_timezone(zone: &str, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let place = format!("/usr/share/zoneinfo/{zone}");
    if !host.root.path_of(&place).is_file() {
        return Err(StepError::Said(format!("the image knows no time zone {zone}")));
    }
    // Relative, as timedatectl(1) makes it: it holds below any root, and localtime(5) reads the zone's name
    // from it.
    files::replace_link(&host.root.path_of(LOCALTIME), &format!("..{place}"))
}

/// Sets variables in a file and keeps its other lines and their order.
pub(crate) fn merge_environment(
    path: &str,
    template: Option<&str>,
    variables: &[(String, Secret<String>)],
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let place = host.root.path_of(path);
    let known = fs::read_to_string(&place)
        .ok()
        .or_else(|| fs::read_to_string(host.root.path_of(template?)).ok())
        .unwrap_or_default();
    let text = merge_variables(&known, variables);
    // Such as the server of updates, whose readers are root's. What its author closed stays closed.
    let rights = match files::existing_rights(&place) {
        _ if address::has_password(&text) => FileRights::PRIVATE,
        Some(known) => known,
        None => FileRights::PUBLIC,
    };
    files::write(&place, text.as_bytes(), rights)
}

fn merge_variables(known: &str, variables: &[(String, Secret<String>)]) -> String {
    let name_of = |line: &str| line.split_once('=').map(|(name, _)| name.trim().to_owned());
    let line = |name: &str, value: &Secret<String>| format!("{name}={}", value.reveal());
    let mut lines: Vec<String> = Vec::new();
    for known in known.lines() {
        let new = name_of(known).and_then(|name| variables.iter().find(|(set, _)| *set == name));
        lines.push(new.map_or_else(|| known.to_owned(), |(name, value)| line(name, value)));
    }
    for (name, value) in variables {
        if !lines.iter().any(|line| name_of(line).as_ref() == Some(name)) {
            lines.push(line(name, value));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat()
}

/// Adds certificates to the trust store, or makes it of them alone.
pub(crate) fn trust_certificates(
    trusted: &[String],
    remove_defaults: bool,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let path = host.root.path_of(TRUST_STORE);
    let mut text = if remove_defaults {
        String::new()
    } else {
        fs::read_to_string(&path).map_err(|source| StepError::Read { path: path.clone(), source })?
    };
    for certificate in trusted.iter().filter(|certificate| !certificate.is_empty()) {
        if !text.contains(certificate.as_str()) {
            text += certificate;
        }
    }
    files::write(&path, text.as_bytes(), FileRights::PUBLIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, Secret<String>)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned()))).collect()
    }

    #[test]
    fn variables_are_set_by_their_whole_name_and_other_lines_stay() {
        let known = "# a comment\nGROUP=alpha\nGROUP_X=1\n";

        let text = merge_variables(known, &variables(&[("GROUP", "stable"), ("SERVER", "x")]));

        assert_eq!(text, "# a comment\nGROUP=stable\nGROUP_X=1\nSERVER=x\n");
        assert_eq!(merge_variables(&text, &variables(&[("GROUP", "stable"), ("SERVER", "x")])), text);
    }

    #[test]
    fn the_machines_own_line_is_replaced() {
        let text = with_own_line("127.0.0.1 localhost\n127.0.1.1 old\n", "127.0.1.1 new");

        assert_eq!(text, "127.0.0.1 localhost\n127.0.1.1 new\n");
    }
}
