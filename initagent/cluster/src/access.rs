//! One file by which a person commands the cluster from another computer.
//!
//! Knows what fleetctl and etcdctl want. Refuses to keep a copy. Invariants: a certificate for a person has an end;
//! who may only look has a certificate of an authority that etcd does not know.
//!
//! The file is a script that becomes the command behind it, with itself as the file of certificates: PEM readers pass
//! over what is not theirs, and a shell that has become another program reads no further.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use user_data::cluster::ClusterDefinition;

use crate::authority::{AuthorityRole, CertificateError, CertificateSubject, ClusterAuthority};
use crate::voters::CLIENT_PORT;

/// Where fleetd answers other computers, with certificates: the port of fleet's documentation.
pub const FLEET_PORT: u16 = 49153;
/// As long as browsers believe a certificate; who needs more makes a new one.
pub const MOST_DAYS: u16 = 398;
/// A month of trust is easily renewed, and a lost laptop soon forgotten.
pub const DEFAULT_DAYS: u16 = 30;
/// A common name has 64 characters (RFC 5280, ub-common-name).
const LONGEST_NAME: usize = 64;

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLevel {
    /// Everything, as root of every machine.
    Admin,
    /// Look at fleet's units and machines.
    Reader,
}

/// For whom a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessOrder {
    /// The person, or the computer.
    pub name: String,
    /// What it may do.
    pub level: AccessLevel,
    /// For how many days.
    pub days: u16,
}

impl AccessLevel {
    /// The word for it.
    #[must_use]
    pub const fn level_name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Reader => "reader",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse_name(word: &str) -> Option<Self> {
        [Self::Admin, Self::Reader].into_iter().find(|level| level.level_name() == word)
    }

    const fn authority_role(self) -> AuthorityRole {
        match self {
            Self::Admin => AuthorityRole::Client,
            Self::Reader => AuthorityRole::Reader,
        }
    }
}

/// Whether a name fits into a certificate and a line of a script.
#[must_use]
pub fn is_access_name(name: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_.@".contains(letter);
    // Machines come as root: who reads a log must be able to tell a person from them.
    (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(is_part) && name != "root"
}

/// Makes the file. `now` is the time since 1970; `machines` answer fleetctl, and `voters` etcdctl.
pub fn format_access(
    definition: &ClusterDefinition,
    order: &AccessOrder,
    (machines, voters): (&[IpAddr], &[IpAddr]),
    now: Duration,
) -> Result<String, CertificateError> {
    let end = now + Duration::from_hours(24 * u64::from(order.days));
    let authority = ClusterAuthority::derive_authority(definition, order.level.authority_role())?;
    let servers = ClusterAuthority::derive_authority(definition, AuthorityRole::Client)?;
    let subject = CertificateSubject {
        common_name: order.name.clone(),
        expires_at: Some(end),
        ..CertificateSubject::default()
    };
    let certified = authority.issue_certificate(&subject)?;
    let etcd = match order.level {
        AccessLevel::Admin => format_urls(voters, CLIENT_PORT),
        AccessLevel::Reader => String::new(),
    };
    Ok(format!(
        "\
#!/bin/sh
# Access to the cluster {cluster} for {name} ({level}), until {end}. Whoever has this file has it.
#   sh THIS-FILE fleetctl list-machines
#   sh THIS-FILE etcdctl member list        (admin only)
file=$(CDPATH='' cd -- \"$(dirname -- \"$0\")\" && pwd)/$(basename -- \"$0\")
export FLEETCTL_ENDPOINT='{fleet}'
export FLEETCTL_CA_FILE=\"$file\" FLEETCTL_CERT_FILE=\"$file\" FLEETCTL_KEY_FILE=\"$file\"
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS='{etcd}'
export ETCDCTL_CACERT=\"$file\" ETCDCTL_CERT=\"$file\" ETCDCTL_KEY=\"$file\"
if [ $# = 0 ]; then
  echo \"usage: sh $0 fleetctl|etcdctl ...\" >&2
  exit 2
fi
exec \"$@\"
exit 1
{certificate}{authority}{key}",
        cluster = definition.name,
        name = order.name,
        level = order.level.level_name(),
        end = format_date(end),
        fleet = format_urls(machines, FLEET_PORT),
        certificate = certified.certificate,
        authority = servers.certificate_pem(),
        key = certified.private_key,
    ))
}

fn format_urls(addresses: &[IpAddr], port: u16) -> String {
    let urls = addresses.iter().map(|address| format!("https://{}", SocketAddr::new(*address, port)));
    urls.collect::<Vec<_>>().join(",")
}

fn format_date(time: Duration) -> String {
    let time =
        i64::try_from(time.as_secs()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "the end of time".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive::tests::definition;

    fn access(level: AccessLevel) -> String {
        let order = AccessOrder { name: "anna".to_owned(), level, days: 30 };
        let addresses = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let now = Duration::from_secs(1_790_000_000);
        format_access(&definition("harbour", 0), &order, (&addresses, &addresses), now).unwrap()
    }

    #[test]
    fn a_file_says_whose_it_is_where_to_and_until_when() {
        let text = access(AccessLevel::Admin);

        assert!(text.contains("cluster harbour for anna (admin), until 2026-10-21"), "{text}");
        assert!(text.contains("FLEETCTL_ENDPOINT='https://10.0.0.1:49153,https://10.0.0.2:49153'\n"));
        assert!(text.contains("ETCDCTL_ENDPOINTS='https://10.0.0.1:2379,https://10.0.0.2:2379'\n"));
        assert!(access(AccessLevel::Reader).contains("ETCDCTL_ENDPOINTS=''\n"));
    }

    #[test]
    fn names_are_no_script() {
        assert!(is_access_name("anna@laptop.example") && is_access_name("ci-1"));
        for bad in ["", "root", "a b", "a\nb", "$(reboot)", "a'b", &"a".repeat(65)] {
            assert!(!is_access_name(bad), "{bad}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the file is a script")]
    fn the_script_becomes_the_command_with_itself_as_the_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("anna's access");
        std::fs::write(&path, access(AccessLevel::Admin)).unwrap();

        let output = std::process::Command::new("sh")
            .arg(&path)
            .args(["sh", "-c", "echo $FLEETCTL_ENDPOINT; head -1 \"$ETCDCTL_KEY\"; echo \"$1\"", "x", "a b"])
            .output()
            .unwrap();

        let said = String::from_utf8(output.stdout).unwrap();
        let expected = "https://10.0.0.1:49153,https://10.0.0.2:49153\n#!/bin/sh\na b\n";
        assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
}
