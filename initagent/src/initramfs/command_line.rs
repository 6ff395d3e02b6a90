//! The parameters that the selector puts on the kernel command line.
//!
//! Knows `catamaran.slot` and `.disk`. Leaves all others to whom they concern.
//! Invariant: each is there once, or the machine does not start on a guess.

use std::collections::BTreeMap;
use std::io;

use image_format::disk_tag::{DiskTag, ParseDiskTagError};
use image_format::slot::{ParseSlotError, Slot};

/// Bytes of the longest command line that is read; the kernel's own limit is smaller.
const MAX_BYTES: usize = 16 << 10;
const PREFIX: &str = "catamaran.";

/// What to start: a slot, and the disk it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameters {
    /// The slot.
    pub(super) slot: Slot,
    /// What the selector knows of the disk that it runs from.
    pub(super) disk: KnownDisk,
}

/// What the selector knows of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownDisk {
    /// It read this tag, but could not count it up: a copy of the disk may have the same.
    Read(DiskTag),
    /// It could read no copy of the slot table.
    Unknown,
    /// It has just written this tag, so only its disk has it.
    Written(DiskTag),
}

/// Why the command line does not say what to start.
#[derive(Debug, thiserror::Error)]
pub(super) enum ParseParametersError {
    #[error("{PREFIX}disk={given:?} is not written:TAG, read:TAG or unknown")]
    Disk { given: String },
    #[error("{PREFIX}{name} stands twice on the kernel command line")]
    Duplicate { name: String },
    #[error("{PREFIX}{name}= is missing on the kernel command line")]
    Missing { name: &'static str },
    #[error("cannot read /proc/cmdline")]
    Read { source: io::Error },
    #[error("{PREFIX}slot is not understood")]
    Slot { source: ParseSlotError },
    #[error("{PREFIX}disk is not understood")]
    Tag { source: ParseDiskTagError },
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
    Ok(Parameters {
        slot: value("slot")?.parse().map_err(|source| ParseParametersError::Slot { source })?,
        disk: known_disk(value("disk")?)?,
    })
}

fn known_disk(given: &str) -> Result<KnownDisk, ParseParametersError> {
    let tag = |text: &str| text.parse().map_err(|source| ParseParametersError::Tag { source });
    match given.split_once(':') {
        Some(("written", text)) => Ok(KnownDisk::Written(tag(text)?)),
        Some(("read", text)) => Ok(KnownDisk::Read(tag(text)?)),
        None if given == "unknown" => Ok(KnownDisk::Unknown),
        _ => Err(ParseParametersError::Disk { given: given.chars().take(64).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "BOOT_IMAGE=(hd0,gpt4)/boot/vmlinuz quiet console=ttyS0 catamaran.slot=a catamaran.future \
        catamaran.disk=written:395a7af1528959f9b3f0c9b9a7ace73c.4\n";

    #[test]
    fn the_selectors_parameters_are_found_among_all_others() {
        let parameters = parse(LINE).unwrap();

        assert_eq!(parameters.slot, Slot::A);
        let tag = "395a7af1528959f9b3f0c9b9a7ace73c.4".parse().unwrap();
        assert_eq!(parameters.disk, KnownDisk::Written(tag));
        assert_eq!(parse(&LINE.replace("written", "read")).unwrap().disk, KnownDisk::Read(tag));
    }

    #[test]
    fn a_command_line_that_leaves_a_doubt_is_refused() {
        let said = |line: &str| parse(line).unwrap_err().to_string();

        assert_eq!(said("quiet"), "catamaran.slot= is missing on the kernel command line");
        assert_eq!(said("catamaran.slot=a quiet"), "catamaran.disk= is missing on the kernel command line");
        assert_eq!(
            said(&format!("{LINE} catamaran.slot=b")),
            "catamaran.slot stands twice on the kernel command line"
        );
        assert_eq!(
            said(&format!("{LINE} catamaran.disk=unknown")),
            "catamaran.disk stands twice on the kernel command line"
        );
        assert_eq!(said(&LINE.replace("slot=a", "slot=c")), "catamaran.slot is not understood");
        assert_eq!(said(&LINE.replace(".4", ".40")), "catamaran.disk is not understood");
        for given in ["", "written", "unknown:", "seen:395a7af1528959f9b3f0c9b9a7ace73c.4"] {
            assert_eq!(
                said(&format!("catamaran.slot=a catamaran.disk={given}")),
                format!("catamaran.disk={given:?} is not written:TAG, read:TAG or unknown")
            );
        }
        assert!(said(&"x".repeat(MAX_BYTES + 1)).starts_with("the kernel command line has 16385 bytes"));
    }
}
