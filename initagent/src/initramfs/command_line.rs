//! The parameters that the selector puts on the kernel command line.
//!
//! Knows `catamaran.slot`, `.root`, `.state` and `.abstate`, each in the one spelling that the selector has.
//! Leaves all other words to the check against the manifest, which is not known yet when these are needed.
//! Invariant: each is there, or the machine does not start on a guess.

use std::io;

use image_format::command_line::{GivenLine, PREFIX};
use image_format::slot::{ParseSlotError, Slot};
use uuid::Uuid;

/// Bytes of the longest command line that is read; the kernel's own limit is smaller.
const MAX_BYTES: usize = 16 << 10;

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
    #[error("{PREFIX}{name}= is missing on the kernel command line")]
    Missing { name: &'static str },
    #[error("{PREFIX}{name}={given:?} is not the GUID of a partition, in small letters")]
    Partition { name: &'static str, given: String },
    #[error("cannot read /proc/cmdline")]
    Read { source: io::Error },
    #[error("{PREFIX}slot is not understood")]
    Slot { source: ParseSlotError },
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
pub(super) fn parse(line: &GivenLine<'_>) -> Result<Parameters, ParseParametersError> {
    let value = |name: &'static str| line.parameter(name).ok_or(ParseParametersError::Missing { name });
    let partition = |name: &'static str| {
        let given = value(name)?;
        let known = Uuid::try_parse(given).ok().filter(|guid| guid.hyphenated().to_string() == given);
        known.ok_or_else(|| ParseParametersError::Partition { name, given: given.chars().take(64).collect() })
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

    const LINE: &str = "BOOT_IMAGE=(hd0,gpt4)/boot/vmlinuz quiet console=ttyS0 catamaran.future catamaran.slot=a \
        catamaran.root=d058d7ee-b7ed-5fe1-b285-0431601e3658 \
        catamaran.state=395a7af1-5289-59f9-b3f0-c9b9a7ace73c \
        catamaran.abstate=51d79fdf-c815-5fd1-be6d-6affa21d2d61\n";

    fn parsed(line: &str) -> Result<Parameters, String> {
        parse(&GivenLine::parse(line)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_selectors_parameters_are_found_behind_all_others() {
        let parameters = parsed(LINE).unwrap();

        assert_eq!(parameters.slot, Slot::A);
        assert_eq!(parameters.root.to_string(), "d058d7ee-b7ed-5fe1-b285-0431601e3658");
        assert_eq!(parsed(&LINE.replace("quiet", "catamaran.slot=b")).unwrap().slot, Slot::A);
    }

    #[test]
    fn a_command_line_that_leaves_a_doubt_is_refused() {
        let said = |line: &str| parsed(line).unwrap_err();

        assert_eq!(said("quiet"), "catamaran.slot= is missing on the kernel command line");
        // What stands before a word that is not the selector's is not the selector's either.
        assert_eq!(said(&format!("{LINE} single")), "catamaran.slot= is missing on the kernel command line");
        assert_eq!(said(&LINE.replace("slot=a", "slot=c")), "catamaran.slot is not understood");
        for other in [
            "395a7af1-59f9-b3f0-c9b9a7ace73c",
            "395A7AF1-5289-59F9-B3F0-C9B9A7ACE73C",
            "395a7af1528959f9b3f0c9b9a7ace73c",
            "",
        ] {
            assert_eq!(
                said(&LINE.replace("395a7af1-5289-59f9-b3f0-c9b9a7ace73c", other)),
                format!("catamaran.state={other:?} is not the GUID of a partition, in small letters")
            );
        }
    }
}
