//! The parameters that the selector puts on the kernel command line.
//!
//! Knows `catamaran.slot`, `.root`, `.state` and `.abstate`. Leaves all others to whom they concern.
//! Invariant: each is there once, or the machine does not start on a guess.

use std::collections::BTreeMap;
use std::io;

use image_format::slot::{ParseSlotError, Slot};
use uuid::Uuid;

/// Bytes of the longest command line that is read; the kernel's own limit is smaller.
const MAX_BYTES: usize = 16 << 10;
const PREFIX: &str = "catamaran.";

/// What to start: a slot, and the partitions it starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameters {
    /// The slot.
    pub(super) slot: Slot,
    /// Its root partition.
    pub(super) root: Uuid,
    /// The partition that is kept.
    pub(super) state: Uuid,
    /// The partition of the slot table.
    pub(super) abstate: Uuid,
}

/// Why the command line does not say what to start.
#[derive(Debug, thiserror::Error)]
pub(super) enum ParseParametersError {
    #[error("{PREFIX}{name} stands twice on the kernel command line")]
    Duplicate { name: String },
    #[error("{PREFIX}{name}= is missing on the kernel command line")]
    Missing { name: &'static str },
    #[error("{PREFIX}{name}={given:?} is not the GUID of a partition")]
    Partition { name: &'static str, given: String, source: uuid::Error },
    #[error("cannot read /proc/cmdline")]
    Read { source: io::Error },
    #[error("{PREFIX}slot is not understood")]
    Slot { source: ParseSlotError },
    #[error("the kernel command line has {given} bytes, at most {MAX_BYTES} are read")]
    TooLong { given: usize },
}

/// Reads this machine's.
pub(super) fn read() -> Result<Parameters, ParseParametersError> {
    let text = std::fs::read_to_string("/proc/cmdline");
    parse(&text.map_err(|source| ParseParametersError::Read { source })?)
}

fn parse(text: &str) -> Result<Parameters, ParseParametersError> {
    if text.len() > MAX_BYTES {
        return Err(ParseParametersError::TooLong { given: text.len() });
    }
    let mut ours = BTreeMap::new();
    for word in text.split_ascii_whitespace() {
        let Some((name, value)) = word.strip_prefix(PREFIX).and_then(|word| word.split_once('=')) else {
            continue;
        };
        if ours.insert(name, value).is_some() {
            return Err(ParseParametersError::Duplicate { name: name.to_owned() });
        }
    }
    let value = |name: &'static str| ours.get(name).copied().ok_or(ParseParametersError::Missing { name });
    let partition = |name: &'static str| {
        let given = value(name)?;
        let refused = |source| ParseParametersError::Partition { name, given: given.to_owned(), source };
        Uuid::try_parse(given).map_err(refused)
    };
    Ok(Parameters {
        slot: value("slot")?.parse().map_err(|source| ParseParametersError::Slot { source })?,
        root: partition("root")?,
        state: partition("state")?,
        abstate: partition("abstate")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "BOOT_IMAGE=(hd0,gpt4)/boot/vmlinuz quiet console=ttyS0 catamaran.slot=a \
        catamaran.root=D058D7EE-b7ed-5fe1-b285-0431601e3658 \
        catamaran.state=395a7af1-5289-59f9-b3f0-c9b9a7ace73c catamaran.future \
        catamaran.abstate=51d79fdf-c815-5fd1-be6d-6affa21d2d61\n";

    #[test]
    fn the_selectors_parameters_are_found_among_all_others() {
        let parameters = parse(LINE).unwrap();

        assert_eq!(parameters.slot, Slot::A);
        assert_eq!(parameters.root.to_string(), "d058d7ee-b7ed-5fe1-b285-0431601e3658");
    }

    #[test]
    fn a_command_line_that_leaves_a_doubt_is_refused() {
        let said = |line: &str| parse(line).unwrap_err().to_string();

        assert_eq!(said("quiet"), "catamaran.slot= is missing on the kernel command line");
        assert_eq!(
            said(&format!("{LINE} catamaran.slot=b")),
            "catamaran.slot stands twice on the kernel command line"
        );
        assert_eq!(said(&LINE.replace("slot=a", "slot=c")), "catamaran.slot is not understood");
        assert_eq!(
            said(&LINE.replace("395a7af1-5289", "395a7af1")),
            "catamaran.state=\"395a7af1-59f9-b3f0-c9b9a7ace73c\" is not the GUID of a partition"
        );
        assert!(said(&"x".repeat(MAX_BYTES + 1)).starts_with("the kernel command line has 16385 bytes"));
    }
}
