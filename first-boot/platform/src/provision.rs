//! What a platform knows of a machine, as one value.
//!
//! Knows the facts every platform is asked for. Refuses to know how they were got or what is made
//! of them. Invariant: printing a [`InstanceMetadata`] never shows user-data, which may hold secrets.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde_json::{Map, Value};

use crate::{Platform, keys};

/// What is no metadata, but lies in the same document as they do, and may be large.
const PAYLOADS: [&str; 6] =
    ["user-data", "user_data", "userdata", "vendor-data", "vendor_data", "customdata"];
/// As EC2 and OpenStack call which of the machines this is that were started together.
const LAUNCH_INDEX: [&str; 3] = ["ami-launch-index", "launch_index", "launch-index"];
// sshd reads the whole file at each login, and a document of one MiB could hold tens of thousands.
/// No person has more keys than this.
const MAX_KEYS: usize = 1000;

/// Everything a platform said about this machine.
///
/// Any of it may be missing: an empty field means the platform does not say, a [`MetadataProblem`] means
/// it could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceMetadata {
    /// The platform that answered.
    pub platform: Platform,
    /// Changes when the machine is a new one, such as a clone of a disk image.
    pub instance_id: Option<String>,
    /// As the platform says it: maybe short, maybe fully qualified.
    pub hostname: Option<String>,
    /// Lines for `authorized_keys` of the image's own user.
    pub ssh_keys: Vec<String>,
    /// What the owner of this machine handed over.
    pub user_data: Option<Payload>,
    /// What the platform's operator wants done; user-data overrides it.
    pub vendor_data: Option<Payload>,
    /// Files that the owner handed over beside user-data, as a cloud-config that writes them.
    pub files: Option<Payload>,
    /// cloud-init network configuration (version 1 or 2), OpenStack's `network_data.json` or Debian's
    /// interfaces file.
    pub network_config: Option<Payload>,
    /// The addresses that `$public_ipv4` and its siblings stand for.
    pub addresses: MachineAddresses,
    /// Such as `eu-central-1`.
    pub region: Option<String>,
    /// Such as `eu-central-1a`.
    pub zone: Option<String>,
    /// Such as `m5.large`.
    pub instance_type: Option<String>,
    /// afterburn's attributes without their `AFTERBURN_` prefix, such as `AWS_IPV4_LOCAL`.
    pub attributes: BTreeMap<String, String>,
    /// The platform's own document, by its own names, which templates in user-data may use.
    pub meta_data: MetaData,
    /// What could not be had, and why; never with values.
    pub problems: Vec<MetadataProblem>,
    /// Whether user-data came on a volume beside the platform's own answer. At a later boot anybody may have
    /// attached that volume.
    pub is_by_volume: bool,
}

/// The four addresses that templates and units ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineAddresses {
    /// Reachable from the Internet.
    pub public_ipv4: Option<Ipv4Addr>,
    /// Reachable from the machine's own network.
    pub private_ipv4: Option<Ipv4Addr>,
    /// Reachable from the Internet.
    pub public_ipv6: Option<Ipv6Addr>,
    /// Reachable from the machine's own network.
    pub private_ipv6: Option<Ipv6Addr>,
}

/// Bytes from outside, not yet looked at; printed as their length only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload(Vec<u8>);

/// What a platform's document says, by its names; printed as their number only, since passwords may be among it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MetaData(Map<String, Value>);

/// One item that the platform has, or should have, but that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataProblem {
    /// Such as `user-data`.
    pub item: String,
    /// What was done, to what, and why it failed.
    pub cause: String,
}

impl InstanceMetadata {
    /// Nothing known yet of a machine on `platform`.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self { platform, ..Self::default() }
    }

    /// Whether something that the platform has could not be had, so that a later try may do better.
    #[must_use]
    pub fn lacks_item(&self, item: &str) -> bool {
        self.problems.iter().any(|problem| problem.item == item)
    }

    /// Whether keys that the platform has could not be asked for; one that was refused is none of them.
    #[must_use]
    pub fn lacks_keys(&self) -> bool {
        ["ssh keys", "metadata", "meta-data"].into_iter().any(|item| self.lacks_item(item))
    }

    /// Which of the machines it is that were started together.
    #[must_use]
    pub fn launch_index(&self) -> Option<u32> {
        let number = |value: &Value| match value {
            Value::Number(number) => number.as_u64().and_then(|number| number.try_into().ok()),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        LAUNCH_INDEX.iter().find_map(|name| number(self.meta_data.0.get(*name)?))
    }

    /// Everything that is obeyed at some boot, as bytes that differ whenever it does: the fields and their
    /// lengths. A name and addresses let nobody in, and change when a person renames a machine.
    ///
    /// `elsewhere` is the address that the rest is fetched from.
    pub(crate) fn obeyed_content(&self, elsewhere: Option<&str>) -> Vec<u8> {
        let payload = |payload: &Option<Payload>| payload.as_ref().map(|payload| payload.0.clone());
        let fields = [
            self.instance_id.as_ref().map(|id| id.as_bytes().to_vec()),
            Some(self.ssh_keys.join("\n").into_bytes()),
            payload(&self.user_data),
            payload(&self.vendor_data),
            payload(&self.network_config),
            elsewhere.map(|address| address.as_bytes().to_vec()),
        ];
        let mut bytes = Vec::new();
        for field in fields {
            // An absent field differs from an empty one, and lengths keep two fields from being shifted into
            // each other.
            bytes.extend(field.as_ref().map_or(u64::MAX, |field| field.len() as u64).to_le_bytes());
            bytes.extend(field.unwrap_or_default());
        }
        bytes
    }

    /// Notes that `item` could not be had.
    pub(crate) fn report_problem(&mut self, item: &str, cause: &dyn fmt::Display) {
        self.problems.push(MetadataProblem { item: item.to_owned(), cause: cause.to_string() });
    }

    /// Notes what may be wrong many times in one document.
    pub(crate) fn report_once(&mut self, item: &str, cause: &str) {
        if !self.problems.iter().any(|known| known.item == item && known.cause == cause) {
            self.report_problem(item, &cause);
        }
    }

    /// Takes what was fetched, or notes why it could not be.
    pub(crate) fn value_or_report<T>(
        &mut self,
        item: &str,
        fetched: Result<Option<T>, impl fmt::Display>,
    ) -> Option<T> {
        fetched.unwrap_or_else(|cause| {
            self.report_problem(item, &cause);
            None
        })
    }

    /// Takes the user-data that was fetched, or notes why there is none.
    pub(crate) fn take_user_data(&mut self, fetched: Result<Option<Vec<u8>>, impl fmt::Display>) {
        self.user_data = self.value_or_report("user-data", fetched).and_then(Payload::from_bytes);
    }

    /// Adds the keys in `text`, one a line; a line that is no key is reported, the others stay.
    pub(crate) fn add_keys(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if !keys::is_public_key(line) {
                self.report_once("an ssh key", "a line that is not an SSH public key was left out");
            } else if self.ssh_keys.len() >= MAX_KEYS {
                self.report_once("an ssh key", "there are more than a thousand; the others were left out");
            } else if !self.ssh_keys.iter().any(|known| known == line) {
                self.ssh_keys.push(line.to_owned());
            }
        }
    }

    /// Takes the first word of `name`, because some platforms list several names.
    pub(crate) fn set_hostname(&mut self, name: Option<impl AsRef<str>>) {
        // EC2 lists a name for each domain of its DHCP options.
        let first = name.and_then(|name| name.as_ref().split_whitespace().next().map(str::to_owned));
        if first.is_some() {
            self.hostname = first;
        }
    }

    /// Sets an attribute when it has a value.
    pub(crate) fn set_attribute(&mut self, name: &str, value: Option<impl fmt::Display>) {
        let Some(value) = value.map(|value| value.to_string()).filter(|value| !value.is_empty()) else {
            return;
        };
        self.attributes.insert(name.to_owned(), value);
    }
}

/// Facts of a document that holds nothing but keys.
pub(crate) fn keys_only(document: &[u8]) -> InstanceMetadata {
    let mut provision = InstanceMetadata::default();
    provision.add_keys(&String::from_utf8_lossy(document));
    provision
}

impl Payload {
    /// Bytes that the platform handed over; `None` when there are none.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// The bytes, to be parsed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl MetaData {
    /// The names of a map; anything else has none.
    #[must_use]
    pub fn from_value(value: Value) -> Self {
        let Value::Object(mut names) = value else { return Self::default() };
        names.retain(|name, _| !PAYLOADS.contains(&name.as_str()));
        Self(names)
    }

    /// The names, with what they stand for.
    #[must_use]
    pub fn names(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Adds what has an address of its own.
    pub(crate) fn insert_text(&mut self, name: &str, text: Option<String>) {
        if let Some(text) = text {
            self.0.insert(name.to_owned(), text.into());
        }
    }
}

impl fmt::Debug for MetaData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetaData({} names)", self.0.len())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for MetadataProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.item, self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_a_provision_shows_no_user_data() {
        let provision = InstanceMetadata {
            user_data: Payload::from_bytes(b"password: hunter2".to_vec()),
            ..InstanceMetadata::default()
        };

        let printed = format!("{provision:?}");

        assert!(printed.contains("Payload(17 bytes)"), "{printed}");
        assert!(!printed.contains("hunter2"));
    }

    #[test]
    fn a_line_that_is_no_key_is_reported_and_its_neighbours_stay() {
        let mut provision = InstanceMetadata::default();

        provision
            .add_keys("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA a\n# note\nrubbish\r\nssh-rsa AAAAB3Nza b\r\n");

        assert_eq!(provision.ssh_keys, ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA a", "ssh-rsa AAAAB3Nza b"]);
        assert!(provision.lacks_item("an ssh key") && !provision.lacks_keys());
    }

    #[test]
    fn what_is_obeyed_differs_when_any_of_it_does_and_not_by_a_name() {
        let provision = |edit: fn(&mut InstanceMetadata)| {
            let mut provision = InstanceMetadata {
                user_data: Payload::from_bytes(b"a".to_vec()),
                ..InstanceMetadata::default()
            };
            edit(&mut provision);
            provision.obeyed_content(None)
        };
        let plain = provision(|_| {});

        assert_eq!(provision(|one| one.hostname = Some("renamed".to_owned())), plain);
        let others: [fn(&mut InstanceMetadata); 5] = [
            |one| one.instance_id = Some("i-1".to_owned()),
            |one| one.ssh_keys.push("ssh-rsa AAAAB3Nza".to_owned()),
            |one| one.user_data = Payload::from_bytes(b"b".to_vec()),
            |one| one.vendor_data = one.user_data.take(),
            |one| one.network_config = Payload::from_bytes(b"a".to_vec()),
        ];
        for other in others {
            assert_ne!(provision(other), plain);
        }
    }

    #[test]
    fn of_several_host_names_the_first_is_taken() {
        let mut provision = InstanceMetadata::default();

        provision.set_hostname(Some("a.example.com b.example.com\n".to_owned()));

        assert_eq!(provision.hostname.as_deref(), Some("a.example.com"));
    }
}
