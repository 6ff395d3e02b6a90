//! Where each record lies in etcd.
//!
//! Knows the layout and nothing of the values. Invariant: [`Keys::parse`] reads back whatever a method
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
pub const DEFAULT_PREFIX: &str = "/_coreos.com/fleet/";

/// The meaning of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the layout in the module documentation says it")]
pub enum Key {
    Admission(MachineId, UnitName),
    Assignment(MachineId, UnitName),
    Brake,
    File(UnitHash),
    Leader,
    Lock(GroupName),
    Drain(MachineId),
    Metadata(MachineId, String),
    Presence(MachineId),
    Order(Order),
    Schema,
    State(MachineId, UnitName),
    Unit(UnitName),
}

/// What a person can tell the engine to do once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Move units from crowded to idle machines.
    Rebalance,
    /// Give up the machines that are lost now, however many.
    ReleaseBrake,
}

impl Order {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Rebalance => "rebalance",
            Self::ReleaseBrake => "release-brake",
        }
    }
}

/// The keys under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// The keys under `prefix`.
    #[must_use]
    pub fn under(prefix: &str) -> Self {
        Self { prefix: format!("/{}/", prefix.trim_matches('/')) }
    }

    /// What all keys begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where a record lies.
    #[must_use]
    pub fn path(&self, key: &Key) -> String {
        let prefix = &self.prefix;
        match key {
            Key::Admission(machine, unit) => format!("{prefix}admit/{machine}/{unit}"),
            Key::Assignment(machine, unit) => format!("{prefix}assign/{machine}/{unit}"),
            Key::Brake => format!("{prefix}brake"),
            Key::File(hash) => format!("{prefix}files/{hash}"),
            Key::Leader => format!("{prefix}leader"),
            Key::Lock(group) => format!("{prefix}locks/{group}"),
            Key::Drain(machine) => format!("{prefix}machines/{machine}/drain"),
            Key::Metadata(machine, key) => format!("{prefix}machines/{machine}/metadata/{key}"),
            Key::Presence(machine) => format!("{prefix}machines/{machine}/presence"),
            Key::Order(order) => format!("{prefix}orders/{}", order.as_str()),
            Key::Schema => format!("{prefix}schema"),
            Key::State(machine, unit) => format!("{prefix}states/{machine}/{unit}"),
            Key::Unit(unit) => format!("{prefix}units/{unit}"),
        }
    }

    /// The meaning of a key in etcd; `None` for keys of nobody here.
    #[must_use]
    pub fn parse(&self, path: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(path).ok()?.strip_prefix(&self.prefix)?;
        let parts: Vec<&str> = rest.splitn(4, '/').collect();
        let machine = |id: &str| MachineId::parse(id).ok();
        let unit = |name: &str| UnitName::parse(name).ok();
        Some(match parts.as_slice() {
            ["admit", id, name] => Key::Admission(machine(id)?, unit(name)?),
            ["assign", id, name] => Key::Assignment(machine(id)?, unit(name)?),
            ["brake"] => Key::Brake,
            ["files", hash] => Key::File(UnitHash::parse(hash)?),
            ["leader"] => Key::Leader,
            ["locks", group] => Key::Lock(GroupName::parse(group).ok()?),
            ["machines", id, "drain"] => Key::Drain(machine(id)?),
            ["machines", id, "metadata", key] if is_metadata_key(key) => {
                Key::Metadata(machine(id)?, (*key).to_owned())
            }
            ["machines", id, "presence"] => Key::Presence(machine(id)?),
            ["orders", order] => {
                let known = [Order::Rebalance, Order::ReleaseBrake];
                Key::Order(known.into_iter().find(|known| known.as_str() == *order)?)
            }
            ["schema"] => Key::Schema,
            ["states", id, name] => Key::State(machine(id)?, unit(name)?),
            ["units", name] => Key::Unit(unit(name)?),
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
        let keys = Keys::under("x/y");
        let machine = MachineId::parse("m1").unwrap();
        let unit = UnitName::parse("a@1.service").unwrap();
        for key in [
            Key::Admission(machine.clone(), unit.clone()),
            Key::Assignment(machine.clone(), unit.clone()),
            Key::Brake,
            Key::File(UnitHash::of("x")),
            Key::Leader,
            Key::Lock(GroupName::default()),
            Key::Drain(machine.clone()),
            Key::Metadata(machine.clone(), "zone".to_owned()),
            Key::Presence(machine.clone()),
            Key::Order(Order::Rebalance),
            Key::Order(Order::ReleaseBrake),
            Key::Schema,
            Key::State(machine, unit.clone()),
            Key::Unit(unit),
        ] {
            assert_eq!(keys.parse(keys.path(&key).as_bytes()), Some(key));
        }
    }

    #[test]
    fn foreign_keys_mean_nothing() {
        let keys = Keys::under(DEFAULT_PREFIX);
        for path in [
            "/_coreos.com/fleet/units/a",
            "/other/units/a.service",
            "/_coreos.com/fleet/units/a.service/b",
            "/_coreos.com/fleet/machines/m1/metadata/a/b",
            "\u{0}",
        ] {
            assert_eq!(keys.parse(path.as_bytes()), None, "{path}");
        }
    }
}
