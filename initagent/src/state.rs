//! What the machine keeps, and whether it can: the words about STATE that outlast the initramfs.
//!
//! Knows the record that the initramfs leaves, and what people must read of it. Refuses to mount or to
//! repair: the initramfs does the one, a person's order (`order`) or the initramfs the other.
//! Invariant: a machine whose STATE is not in use says so wherever somebody looks, with what to do next.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Tells what a partition holds.
pub(crate) mod content;
/// Looks at STATE on the running machine.
pub(crate) mod inspection;
/// `initagent state`.
pub(crate) mod order;

/// Where STATE is mounted, in the initramfs and afterwards.
pub(crate) const MOUNT_POINT: &str = "/run/catamaran/state";

/// Where the record lies, on a file system that a reboot empties.
pub(crate) const RECORD: &str = "/run/catamaran/state.json";

/// There while STATE is in memory: units have it as a condition, and the first boot goes by it.
pub(crate) const VOLATILE_MARK: &str = "/run/catamaran/volatile-state";

/// In the root of STATE: the next boot makes the file system anew.
// A file, and not a bit elsewhere: only who may write to STATE can order its end, and it ends with it.
pub(crate) const RESET_MARK: &str = ".catamaran-reset";

/// How STATE was found at this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StateCondition {
    /// It was mounted as it was.
    Healthy,
    /// e2fsck mended it before it was mounted.
    Repaired,
    /// A person ordered it, and this boot made it anew.
    Reset,
    /// It cannot be used: the machine runs with an empty one in memory.
    Volatile,
}

/// What the initramfs found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    /// The partition; empty if there is none.
    pub(crate) device: PathBuf,
    /// How it was found.
    pub(crate) condition: StateCondition,
    /// Why it is not simply healthy: what failed, and what e2fsck said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl StateRecord {
    /// The record of this boot, if an initramfs of ours has left one.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    /// What stands at the console and at each login; nothing if all is well.
    pub(crate) fn greeting(&self) -> Option<String> {
        let Self { device, condition, reason } = self;
        let reason = reason.as_deref().unwrap_or("no reason is known");
        let device = if device.as_os_str().is_empty() { "it" } else { &device.to_string_lossy() };
        (*condition == StateCondition::Volatile).then(|| {
            format!(
                "STATE IS NOT IN USE: {reason}.\n\
                 This machine runs with an empty STATE in memory. A restart loses what is written now.\n\
                 Only network, users and keys were configured.\n  \
                   to see what is wrong:    sudo initagent state check\n  \
                   to keep what is there:   sudo e2fsck {device}, then restart\n  \
                   to begin with an empty:  sudo initagent state reset, then restart\n\n"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volatile_state_says_why_and_what_to_do() {
        let record = StateRecord {
            device: "/dev/vda6".into(),
            condition: StateCondition::Volatile,
            reason: Some("/dev/vda6 holds no file system".into()),
        };

        let greeting = record.greeting().unwrap();

        assert!(greeting.starts_with("STATE IS NOT IN USE: /dev/vda6 holds no file system.\n"), "{greeting}");
        for words in ["initagent state check", "sudo e2fsck /dev/vda6", "initagent state reset"] {
            assert!(greeting.contains(words), "{words}: {greeting}");
        }
        let healthy = StateRecord { condition: StateCondition::Repaired, ..record };
        assert_eq!(healthy.greeting(), None);
    }

    #[test]
    fn a_record_survives_its_file() {
        let record = StateRecord {
            device: "/dev/vda6".into(),
            condition: StateCondition::Repaired,
            reason: Some("e2fsck mended it".into()),
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), serde_json::to_string(&record).unwrap()).unwrap();

        assert_eq!(StateRecord::read(file.path()), Some(record));
        assert_eq!(StateRecord::read(Path::new("/nonexistent")), None);
    }
}
