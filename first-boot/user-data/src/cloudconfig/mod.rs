//! `#cloud-config`: CoreOS's keys and cloud-init's, from a tree to a checked configuration.
//!
//! Knows every key by name, in one table per mapping. Refuses to act, and to know the machine.
//! Invariants: each key is honoured, translated, or named with the reason why not; one bad field
//! drops one item.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/modules.html>, and coreos-cloudinit's
//! `Documentation/cloud-config.md` for `coreos` and the first meaning of the other keys.

pub mod access;
pub mod accounts;
pub mod cluster;
pub mod commands;
pub mod fields;
pub mod files;
pub mod identity;
pub mod merge;
pub mod order;
pub mod refused;
pub mod services;
pub mod storage;
pub mod system;
pub mod units;

use std::sync::OnceLock;

use crate::room::DecompressionBudget;
use crate::tokens::{self, TokenAddresses};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::{self, MappingEntry, Node, Value};
use fields::{FieldKey, MappingFields, supported_key, translated_key};

/// What a user needs to get in and mend a broken document.
// The fewest keys with which an author gets in and finds the machine. Everything else of a broken text is
// guesswork.
const ACCESS: [&str; 4] = ["hostname", "fqdn", "ssh_authorized_keys", "users"];

const OWN_KEYS: &[FieldKey] = &[
    supported_key("coreos"),
    // Flatcar renamed the section and kept its keys.
    translated_key("flatcar", "`coreos`"),
    supported_key("launch_index"),
    supported_key("merge_how"),
    supported_key("merge_type"),
    supported_key("vendor_data"),
];

/// Every mapping whose keys are known, by the path it has in a document.
#[must_use]
pub fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
    vec![
        ("", top_level()),
        ("users[]", accounts::USER_KEYS),
        ("write_files[]", files::FILE_KEYS),
        ("write_files[].source", files::SOURCE_KEYS),
        ("chpasswd", access::CHPASSWD_KEYS),
        ("chpasswd.users[]", access::CHPASSWD_USER_KEYS),
        ("ssh_keys", access::HOST_KEY_KEYS),
        ("cluster", cluster::CLUSTER_KEYS),
        ("coreos", services::COREOS_KEYS),
        ("coreos.units[]", units::UNIT_KEYS),
        ("coreos.units[].drop_ins[]", units::DROP_IN_KEYS),
        ("coreos.update", services::UPDATE_KEYS),
        ("coreos.oem", services::OEM_KEYS),
        ("coreos.etcd2", services::keys_of(services::ETCD2)),
        ("coreos.etcd", services::keys_of(services::ETCD)),
        ("coreos.fleet", services::keys_of(services::FLEET)),
        ("coreos.flannel", services::keys_of(services::FLANNEL)),
        ("coreos.locksmith", services::keys_of(services::LOCKSMITH)),
        ("phone_home", commands::PHONE_HOME_KEYS),
        ("power_state", commands::POWER_KEYS),
        ("ntp", system::NTP_KEYS),
        ("ca_certs", system::CA_KEYS),
        ("resolv_conf", system::RESOLV_KEYS),
        ("swap", storage::SWAP_KEYS),
        ("disk_setup.*", storage::DISK_KEYS),
        ("fs_setup[]", storage::FS_KEYS),
    ]
}

/// The keys of the top level.
#[must_use]
pub fn top_level() -> &'static [FieldKey] {
    // The tables stand beside what reads them. Joined by hand they would be written twice.
    static KEYS: OnceLock<Vec<FieldKey>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let tables = [
            identity::KEYS,
            access::KEYS,
            accounts::KEYS,
            files::KEYS,
            commands::KEYS,
            cluster::KEYS,
            system::KEYS,
            storage::KEYS,
            OWN_KEYS,
            refused::KEYS,
        ];
        tables.concat()
    })
}

/// Everything that a document asks for, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudConfig {
    /// Host name and hosts.
    pub identity: identity::IdentityConfig,
    /// Keys and passwords of the top level.
    pub access: access::AccessConfig,
    /// Users and groups.
    pub accounts: accounts::AccountsConfig,
    /// Files.
    pub files: Vec<Located<files::WrittenFile>>,
    /// Units.
    pub units: Vec<Located<units::UnitConfig>>,
    /// The cluster that the machine belongs to.
    pub cluster: cluster::ClusterConfig,
    /// CoreOS's services.
    pub services: services::ServicesConfig,
    /// Disks and mounts.
    pub storage: storage::StorageConfig,
    /// Time, language, trust, name servers.
    pub system: system::SystemConfig,
    /// Commands and endings.
    pub commands: commands::CommandsConfig,
}

impl CloudConfig {
    /// Checks a tree. What cannot be used is reported and left out.
    ///
    /// ```
    /// use document::diagnostic::Diagnostics;
    /// use user_data::cloudconfig::{self, CloudConfig};
    /// use user_data::room::DecompressionBudget;
    /// use user_data::tokens::TokenAddresses;
    ///
    /// let text = "users:\n  - name: ana\n    uid: many\n";
    /// let mut found = Diagnostics::default();
    /// let tree = cloudconfig::read(text, 0, &TokenAddresses::example_addresses(), &mut found).unwrap();
    /// let config = CloudConfig::check_document(&tree, &mut DecompressionBudget::default(), &mut found);
    ///
    /// // The number that is none costs itself, and the user is made all the same.
    /// assert_eq!(config.accounts.people[0].value.user.name, "ana");
    /// assert_eq!(found.list()[0].key, "users[0].uid");
    /// assert_eq!((found.list()[0].at.line, found.list()[0].at.column), (3, 10));
    /// ```
    #[must_use]
    pub fn check_document(document: &Node, room: &mut DecompressionBudget, found: &mut Diagnostics) -> Self {
        let Some(mut fields) = MappingFields::read_with_hints(document, top_level(), "", hint_at_top, found)
        else {
            return Self::default();
        };
        let mut config = Self {
            identity: identity::IdentityConfig::read(&mut fields, found),
            access: access::AccessConfig::read(&mut fields, found),
            accounts: accounts::AccountsConfig::read(&mut fields, found),
            files: files::read(&mut fields, room, found),
            cluster: cluster::ClusterConfig::read(&mut fields, found),
            storage: storage::StorageConfig::read(&mut fields, found),
            system: system::SystemConfig::read(&mut fields, found),
            commands: commands::CommandsConfig::read(&mut fields, found),
            ..Self::default()
        };
        let name = if fields.field_node("coreos").is_some() { "coreos" } else { "flatcar" };
        if let (Some(_), Some(_), Some(at)) =
            (fields.field_node("coreos"), fields.field_node("flatcar"), fields.key_at("flatcar"))
        {
            let message = "`flatcar` is not used, since `coreos` is there too, which means the same";
            found.push(
                Diagnostic::error(DiagnosticCode::Conflict, at, message)
                    .with_key("flatcar")
                    .with_help("write all of it below one"),
            );
        }
        let coreos = fields.field_node(name).and_then(|node| {
            MappingFields::read_with_hints(node, services::COREOS_KEYS, name, hint_below_coreos, found)
        });
        if let Some(mut coreos) = coreos {
            config.units = units::read(&mut coreos, found);
            config.services = services::ServicesConfig::read(&coreos, found);
        }
        config
    }
}

/// Reads the text of one document into a tree with this machine's addresses in it.
///
/// Of a text that is no YAML, what lets people in is kept where it can be read on its own.
#[must_use]
pub fn read(text: &str, part: u16, addresses: &TokenAddresses, found: &mut Diagnostics) -> Option<Node> {
    let mut node = yaml::parse_yaml(text, part, found).or_else(|| salvage_access(text, part, found))?;
    if node.is_null() {
        return None;
    }
    // Behind the parser, so that an address with colons cannot change the document's structure.
    tokens::substitute_tokens(&mut node, addresses, found);
    Some(node)
}

/// The entries that let people in, out of a text that as a whole cannot be read.
pub(crate) fn salvage_access(text: &str, part: u16, found: &mut Diagnostics) -> Option<Node> {
    let entries: Vec<MappingEntry> =
        if text.len() > yaml::MOST_BYTES { Vec::new() } else { yaml::salvage_entries(text, part, &ACCESS) };
    let first = entries.first()?;
    let names: Vec<String> = entries.iter().map(|entry| format!("`{}`", entry.key)).collect();
    found.push(
        Diagnostic::warning(
            DiagnosticCode::Salvaged,
            first.key_at,
            format!("of the broken document only {} could be read; nothing else is done", names.join(", ")),
        )
        .with_help("mend the document: these are used so that you can get in and do so"),
    );
    Some(Node { at: first.key_at, value: Value::Mapping(entries) })
}

/// Where a key belongs that stands at the top and is none of there.
fn hint_at_top(name: &str) -> Option<String> {
    match name {
        "variant" | "ignition" | "passwd" | "storage" | "systemd" => {
            Some("it belongs to a Butane config: run `butane` on that, and hand over the JSON".to_owned())
        }
        "ethernets" | "bonds" | "bridges" | "vlans" | "wifis" | "tunnels" => {
            Some("it belongs into `network-config`, which lies beside user-data".to_owned())
        }
        _ if services::COREOS_KEYS.iter().any(|key| key.name == name) => {
            Some(format!("it belongs below `coreos`: write `coreos: {{{name}: ...}}`"))
        }
        _ => None,
    }
}

/// The same for one below `coreos` or `flatcar`.
fn hint_below_coreos(name: &str) -> Option<String> {
    let is_known = top_level().iter().any(|key| key.name == name);
    is_known.then(|| "it belongs to the top level, without `coreos` above it".to_owned())
}
