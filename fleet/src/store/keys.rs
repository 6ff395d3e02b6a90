//! Where each record lies in etcd.
//!
//! Knows the layout and nothing of the values. Invariant: [`KeySpace::parse_key`] reads back whatever a method
//! here wrote, and refuses all else.
//!
//! ```text
//! {prefix}/admit/{machine}/{unit}         the machine may change the global unit
//! {prefix}/assign/{machine}/{unit}        the machine holds the unit
//! {prefix}/brake                          why the engine moves nothing       (leader's lease)
//! {prefix}/files/{sha1}                   content of unit files, once each
//! {prefix}/leader                         whose engine decides              (leader's lease)
//! {prefix}/locks/{group}                  reboot slots
//! {prefix}/machines/{id}/drain            the machine is being emptied
//! {prefix}/machines/{id}/metadata/{key}   metadata set through the API
//! {prefix}/machines/{id}/presence         the machine is there              (machine's lease)
//! {prefix}/orders/{order}                 what a person wants of the engine, once
//! {prefix}/schema                         who may read this tree
//! {prefix}/states/{machine}/{unit}        what a machine says of a unit     (machine's lease)
//! {prefix}/units/{unit}                   units as submitted
//! ```

use crate::{
    lock::semaphore::GroupName,
    model::{machine::MachineId, unit_file::UnitHash, unit_name::UnitName},
};

/// Where fleet's keys lie unless told otherwise.
// The original's default. A v2 tree of its own cannot be in the way: etcd v3 keeps its keys apart from
// those of v2.
pub const DEFAULT_PREFIX: &str = "/_coreos.com/fleet/";

/// The meaning of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the layout in the module documentation says it")]
pub enum StoreKey {
    Admission(MachineId, UnitName),
    Assignment(MachineId, UnitName),
    Brake,
    File(UnitHash),
    Leader,
    Lock(GroupName),
    Drain(MachineId),
    Metadata(MachineId, String),
    Presence(MachineId),
    Order(OperatorOrder),
    Schema,
    State(MachineId, UnitName),
    Unit(UnitName),
}

/// What a person can tell the engine to do once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperatorOrder {
    /// Move units from crowded to idle machines.
    Rebalance,
    /// Give up the machines that are lost now, however many.
    ReleaseBrake,
}

impl OperatorOrder {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Rebalance => "rebalance",
            Self::ReleaseBrake => "release-brake",
        }
    }
}

/// The keys under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpace {
    prefix: String,
}

impl KeySpace {
    /// The keys under `prefix`.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        // People write it with and without slashes at its ends. Two spellings must not be two clusters.
        Self { prefix: format!("/{}/", prefix.trim_matches('/')) }
    }

    /// What all keys begin with.
    #[must_use]
    pub fn key_prefix(&self) -> &str {
        &self.prefix
    }

    /// Where a record lies.
    #[must_use]
    pub fn key_path(&self, key: &StoreKey) -> String {
        let prefix = &self.prefix;
        match key {
            StoreKey::Admission(machine, unit) => format!("{prefix}admit/{machine}/{unit}"),
            StoreKey::Assignment(machine, unit) => format!("{prefix}assign/{machine}/{unit}"),
            StoreKey::Brake => format!("{prefix}brake"),
            StoreKey::File(hash) => format!("{prefix}files/{hash}"),
            StoreKey::Leader => format!("{prefix}leader"),
            StoreKey::Lock(group) => format!("{prefix}locks/{group}"),
            StoreKey::Drain(machine) => format!("{prefix}machines/{machine}/drain"),
            StoreKey::Metadata(machine, key) => format!("{prefix}machines/{machine}/metadata/{key}"),
            StoreKey::Presence(machine) => format!("{prefix}machines/{machine}/presence"),
            StoreKey::Order(order) => format!("{prefix}orders/{}", order.as_str()),
            StoreKey::Schema => format!("{prefix}schema"),
            StoreKey::State(machine, unit) => format!("{prefix}states/{machine}/{unit}"),
            StoreKey::Unit(unit) => format!("{prefix}units/{unit}"),
        }
    }

    /// The meaning of a key in etcd; `None` for keys of nobody here.
    #[must_use]
    pub fn parse_key(&self, path: &[u8]) -> Option<StoreKey> {
        let rest = std::str::from_utf8(path).ok()?.strip_prefix(&self.prefix)?;
        let parts: Vec<&str> = rest.splitn(4, '/').collect();
        let machine = |id: &str| MachineId::parse(id).ok();
        let unit = |name: &str| UnitName::parse(name).ok();
        Some(match parts.as_slice() {
            ["admit", id, name] => StoreKey::Admission(machine(id)?, unit(name)?),
            ["assign", id, name] => StoreKey::Assignment(machine(id)?, unit(name)?),
            ["brake"] => StoreKey::Brake,
            ["files", hash] => StoreKey::File(UnitHash::parse(hash)?),
            ["leader"] => StoreKey::Leader,
            ["locks", group] => StoreKey::Lock(GroupName::parse(group).ok()?),
            ["machines", id, "drain"] => StoreKey::Drain(machine(id)?),
            ["machines", id, "metadata", key] if is_metadata_key(key) => {
                StoreKey::Metadata(machine(id)?, (*key).to_owned())
            }
            ["machines", id, "presence"] => StoreKey::Presence(machine(id)?),
            ["orders", order] => {
                let known = [OperatorOrder::Rebalance, OperatorOrder::ReleaseBrake];
                StoreKey::Order(known.into_iter().find(|known| known.as_str() == *order)?)
            }
            ["schema"] => StoreKey::Schema,
            ["states", id, name] => StoreKey::State(machine(id)?, unit(name)?),
            ["units", name] => StoreKey::Unit(unit(name)?),
            _ => return None,
        })
    }
}

/// Whether metadata may be set under this key through the API.
#[must_use]
pub fn is_metadata_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 256
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back() {
        let keys = KeySpace::with_prefix("x/y");
        let machine = MachineId::parse("m1").unwrap();
        let unit = UnitName::parse("a@1.service").unwrap();
        for key in [
            StoreKey::Admission(machine.clone(), unit.clone()),
            StoreKey::Assignment(machine.clone(), unit.clone()),
            StoreKey::Brake,
            StoreKey::File(UnitHash::of_text("x")),
            StoreKey::Leader,
            StoreKey::Lock(GroupName::default()),
            StoreKey::Drain(machine.clone()),
            StoreKey::Metadata(machine.clone(), "zone".to_owned()),
            StoreKey::Presence(machine.clone()),
            StoreKey::Order(OperatorOrder::Rebalance),
            StoreKey::Order(OperatorOrder::ReleaseBrake),
            StoreKey::Schema,
            StoreKey::State(machine, unit.clone()),
            StoreKey::Unit(unit),
        ] {
            assert_eq!(keys.parse_key(keys.key_path(&key).as_bytes()), Some(key));
        }
    }

    #[test]
    fn foreign_keys_mean_nothing() {
        let keys = KeySpace::with_prefix(DEFAULT_PREFIX);
        for path in [
            "/_coreos.com/fleet/units/a",
            "/other/units/a.service",
            "/_coreos.com/fleet/units/a.service/b",
            "/_coreos.com/fleet/machines/m1/metadata/a/b",
            "\u{0}",
        ] {
            assert_eq!(keys.parse_key(path.as_bytes()), None, "{path}");
        }
    }
}
