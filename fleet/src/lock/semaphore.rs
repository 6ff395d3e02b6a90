//! Counting reboot slots.
//!
//! Pure: the time is an argument, the store keeps the value. Invariant: holders are sorted by ID and
//! each is there once.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The group of who names none.
pub const DEFAULT_GROUP: &str = "default";

/// The name of a group: letters, digits, dots and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(String);

/// A text that names no group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("group {0:?} must be 1 to 128 letters, digits, dots or hyphens")]
pub struct GroupNameError(String);

impl GroupName {
    /// Reads a name.
    pub fn parse(name: &str) -> Result<Self, GroupNameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if name.is_empty() || name.len() > 128 || !name.chars().all(allowed) {
            return Err(GroupNameError(name.chars().take(128).collect()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for GroupName {
    fn default() -> Self {
        Self(DEFAULT_GROUP.to_owned())
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for GroupName {
    type Error = GroupNameError;

    fn try_from(name: String) -> Result<Self, GroupNameError> {
        Self::parse(&name)
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> Self {
        name.0
    }
}

/// Who holds a slot, since when, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The machine, as it calls itself.
    pub id: String,
    /// Seconds since the epoch.
    pub since: u64,
    /// What for; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// The slots of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSemaphore {
    /// How many there are.
    pub max: u32,
    /// Who holds one, sorted by ID. More than `max` after it was lowered.
    #[serde(default)]
    pub holders: Vec<LockHolder>,
}

impl Default for GroupSemaphore {
    fn default() -> Self {
        Self { max: 1, holders: Vec::new() }
    }
}

/// No slot is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoFreeSlot;

// Free slots are counted from the holders and never stored. The original stored both, and a smaller maximum
// left a negative number.
impl GroupSemaphore {
    /// How many slots are free.
    #[must_use]
    pub fn available_slots(&self) -> u32 {
        self.max.saturating_sub(u32::try_from(self.holders.len()).unwrap_or(u32::MAX))
    }

    /// The slot of `id`.
    #[must_use]
    pub fn slot_holder(&self, id: &str) -> Option<&LockHolder> {
        self.holders.iter().find(|holder| holder.id == id)
    }

    /// With a slot for `holder`; unchanged when it has one already, even if none is free.
    pub fn acquire_slot(mut self, holder: LockHolder) -> Result<Self, NoFreeSlot> {
        match self.holders.binary_search_by(|held| held.id.cmp(&holder.id)) {
            Ok(_) => Ok(self),
            Err(_) if self.available_slots() == 0 => Err(NoFreeSlot),
            Err(at) => {
                self.holders.insert(at, holder);
                Ok(self)
            }
        }
    }

    /// Without the slot of `id`; unchanged when it has none.
    #[must_use]
    pub fn release_slot(mut self, id: &str) -> Self {
        self.holders.retain(|holder| holder.id != id);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holder(id: &str) -> LockHolder {
        LockHolder { id: id.to_owned(), since: 1, reason: String::new() }
    }

    #[test]
    fn a_holder_may_take_its_slot_again_when_none_is_free() {
        let full = GroupSemaphore::default().acquire_slot(holder("a")).unwrap();

        assert_eq!(full.clone().acquire_slot(holder("a")), Ok(full.clone()));
        assert_eq!(full.clone().acquire_slot(holder("b")), Err(NoFreeSlot));
        assert_eq!(full.release_slot("b").release_slot("a").release_slot("a"), GroupSemaphore::default());
    }

    #[test]
    fn lowering_the_maximum_frees_nothing() {
        let mut two = GroupSemaphore { max: 2, holders: vec![holder("a"), holder("b")] };
        two.max = 1;

        assert_eq!(two.available_slots(), 0);
        assert_eq!(two.release_slot("a").acquire_slot(holder("c")), Err(NoFreeSlot));
    }

    proptest! {
        #[test]
        fn never_more_holders_than_slots(max in 0_u32..4, steps in proptest::collection::vec((any::<bool>(), 0_u8..6), 0..40)) {
            let mut slots = GroupSemaphore { max, holders: Vec::new() };
            for (take, id) in steps {
                slots = if take {
                    slots.clone().acquire_slot(holder(&id.to_string())).unwrap_or(slots)
                } else {
                    slots.release_slot(&id.to_string())
                };
                prop_assert!(slots.holders.len() <= max as usize);
                prop_assert!(slots.holders.is_sorted_by(|a, b| a.id < b.id));
            }
        }
    }
}
