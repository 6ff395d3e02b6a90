//! The parameters that the selector puts on the kernel command line.
//!
//! Knows `catamaran.slot` and `.disk`, each in the one spelling that the selector has. Leaves all other words to
//! the check against the manifest, which is not known yet when these are needed.
//! Invariant: each is there, or the machine does not start on a guess.

use std::io;

use image_format::command_line::{GivenLine, PREFIX};
use image_format::disk_tag::{DiskTag, ParseDiskTagError};
use image_format::slot::{ParseSlotError, Slot};

/// Bytes of the longest command line that is read; the kernel's own limit is smaller.
// x86's `COMMAND_LINE_SIZE` is 2048.
const MAX_BYTES: usize = 16 << 10;

/// What to start: a slot, and the disk it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BootParameters {
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
pub(crate) enum ParseParametersError {
    #[error("{PREFIX}disk={given:?} is not written:TAG, read:TAG or unknown")]
    Disk { given: String },
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

/// Reads this machine's line. What is no text in it stays something that nobody signed.
pub(super) fn read() -> Result<String, ParseParametersError> {
    let bytes = std::fs::read("/proc/cmdline").map_err(|source| ParseParametersError::Read { source })?;
    if bytes.len() > MAX_BYTES {
        return Err(ParseParametersError::TooLong { given: bytes.len() });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Finds the parameters.
pub(super) fn parse_parameters(line: &GivenLine<'_>) -> Result<BootParameters, ParseParametersError> {
    let value =
        |name: &'static str| line.selector_parameter(name).ok_or(ParseParametersError::Missing { name });
    Ok(BootParameters {
        slot: value("slot")?.parse().map_err(|source| ParseParametersError::Slot { source })?,
        disk: known_disk(value("disk")?)?,
    })
}

fn known_disk(given: &str) -> Result<KnownDisk, ParseParametersError> {
    let tag = |text: &str| text.parse().map_err(|source| ParseParametersError::Tag { source });
    match given.split_once(':') {
        // The word says what the selector did, and the tag alone would not: a copy has the same one until the
        // next write.
        Some(("written", text)) => Ok(KnownDisk::Written(tag(text)?)),
        Some(("read", text)) => Ok(KnownDisk::Read(tag(text)?)),
        None if given == "unknown" => Ok(KnownDisk::Unknown),
        _ => Err(ParseParametersError::Disk { given: given.chars().take(64).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "BOOT_IMAGE=(hd0,gpt4)/boot/vmlinuz quiet console=ttyS0 catamaran.future catamaran.slot=a \
        catamaran.disk=written:395a7af1528959f9b3f0c9b9a7ace73c.4\n";

    fn parsed(line: &str) -> Result<BootParameters, String> {
        parse_parameters(&GivenLine::parse(line)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_selectors_parameters_are_found_behind_all_others() {
        let parameters = parsed(LINE).unwrap();

        assert_eq!(parameters.slot, Slot::A);
        let tag = "395a7af1528959f9b3f0c9b9a7ace73c.4".parse().unwrap();
        assert_eq!(parameters.disk, KnownDisk::Written(tag));
        assert_eq!(parsed(&LINE.replace("written", "read")).unwrap().disk, KnownDisk::Read(tag));
        assert_eq!(parsed(&LINE.replace("quiet", "catamaran.slot=b")).unwrap().slot, Slot::A);
    }

    #[test]
    fn a_command_line_that_leaves_a_doubt_is_refused() {
        let said = |line: &str| parsed(line).unwrap_err();

        assert_eq!(said("quiet"), "catamaran.slot= is missing on the kernel command line");
        assert_eq!(said("catamaran.slot=a"), "catamaran.disk= is missing on the kernel command line");
        // What stands before a word that is not the selector's is not the selector's either.
        assert_eq!(said(&format!("{LINE} single")), "catamaran.slot= is missing on the kernel command line");
        assert_eq!(said(&LINE.replace("slot=a", "slot=c")), "catamaran.slot is not understood");
        assert_eq!(said(&LINE.replace(".4", ".40")), "catamaran.disk is not understood");
        for given in ["", "written", "unknown:", "seen:395a7af1528959f9b3f0c9b9a7ace73c.4"] {
            assert_eq!(
                said(&format!("catamaran.slot=a catamaran.disk={given}")),
                format!("catamaran.disk={given:?} is not written:TAG, read:TAG or unknown")
            );
        }
    }
}
