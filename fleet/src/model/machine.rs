//! Machines: who they are, what they say of themselves, what they can hold.
//!
//! Knows identity, metadata and capacity; refuses to know whether a machine is alive, which is a fact of
//! the store, not of the machine. Invariant: a [`MachineId`] can stand in a store key.

use std::{borrow::Borrow, collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The length of the short form of an ID.
// As the original shows and accepts it in `MachineID=`.
pub const SHORT_ID: usize = 8;

/// A machine's ID, as in /etc/machine-id. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(Arc<str>);

/// A text that cannot name a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("machine ID {0:?} must be 1 to 64 letters, digits, '-', '_' or '.'")]
pub struct MachineIdError(String);

impl MachineId {
    /// Reads an ID.
    pub fn parse(id: &str) -> Result<Self, MachineIdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.is_empty() || id.len() > 64 || !id.chars().all(allowed) || id.starts_with('.') {
            return Err(MachineIdError(id.chars().take(64).collect()));
        }
        Ok(Self(id.into()))
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight characters.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.0.get(..SHORT_ID).unwrap_or(&self.0)
    }

    /// Whether a `MachineID=` names this machine: the full ID or its short form.
    #[must_use]
    pub fn is_named_by(&self, required: &str) -> bool {
        self.as_str() == required || self.short_id() == required
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for MachineId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MachineId {
    type Error = MachineIdError;

    fn try_from(id: String) -> Result<Self, MachineIdError> {
        Self::parse(&id)
    }
}

impl From<MachineId> for String {
    fn from(id: MachineId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// Metadata of a machine: `region=us-east`.
pub type MachineMetadata = BTreeMap<String, String>;

/// What a machine offers to units, or what a unit asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// CPU in hundredths of a core: 100 is one core, as in `CPUQuota=100%`.
    #[serde(default)]
    pub cpu_percent: u64,
}

impl Resources {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.memory_mib == 0 && self.cpu_percent == 0
    }
}

/// What a machine tells the cluster of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its ID.
    pub id: MachineId,
    /// The address that people and programs reach it by; empty when unknown.
    #[serde(default)]
    pub public_ip: String,
    /// Metadata from its own configuration, overlaid by what was set through the API.
    #[serde(default)]
    pub metadata: MachineMetadata,
    /// The version of its fleetd.
    #[serde(default)]
    pub version: String,
    /// What its units may reserve; `None` when it does not say, which means without limit.
    #[serde(default)]
    pub capacity: Option<Resources>,
    /// The most units it takes; `None` means without limit.
    #[serde(default)]
    pub max_units: Option<u32>,
    /// Whether it is being emptied: no unit is placed on it and those on it move away.
    #[serde(default)]
    pub draining: bool,
}

impl Machine {
    /// A machine about which only its ID is known.
    #[must_use]
    pub fn new(id: MachineId) -> Self {
        Self {
            id,
            public_ip: String::new(),
            metadata: MachineMetadata::new(),
            version: String::new(),
            capacity: None,
            max_units: None,
            draining: false,
        }
    }
}

/// Reads `k=v,k2=v2`: trimmed, the last of equal keys wins, a value may hold `=`.
#[must_use]
pub fn parse_metadata(text: &str) -> MachineMetadata {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_trimmed_and_the_last_of_equal_keys_wins() {
        let metadata = parse_metadata(" a = 1 ,b=x=y,a=2,,c");

        assert_eq!(
            metadata.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), "2".to_owned()), ("b".to_owned(), "x=y".to_owned())]
        );
    }

    #[test]
    fn an_id_that_could_leave_its_key_is_refused() {
        for bad in ["", "a/b", "..", "a b", "\u{e9}"] {
            assert!(MachineId::parse(bad).is_err(), "{bad:?}");
        }
        let id = MachineId::parse("2e8da9b5c0484f0a9a3bb2a1e9c0ffee").unwrap();
        assert!(id.is_named_by("2e8da9b5") && !id.is_named_by("2e8da9"));
    }
}
