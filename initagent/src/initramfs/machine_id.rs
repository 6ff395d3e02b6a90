//! What the machine is known by: 32 hexadecimal digits, made once and then kept.
//!
//! Knows the file's form and how systemd marks such numbers as random. Refuses to take an id from
//! the image, which all its copies would share.
//! Invariant: the file is whole or not there, whenever the power goes.
//!
//! Documentation: machine-id(5).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image_format::digest::to_hex;

use crate::durable_file::replace_durably;

const NAME: &str = "machine-id";

/// Why the machine has no name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepMachineIdError {
    #[error("cannot get random bytes for the machine id: {reason}")]
    Random { reason: String },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// Makes the id in this folder if there is none yet.
pub(super) fn ensure_machine_id(folder: &Path) -> Result<(), KeepMachineIdError> {
    let path = folder.join(NAME);
    if fs::read_to_string(&path).is_ok_and(|text| is_id(&text)) {
        return Ok(());
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| KeepMachineIdError::Random { reason: error.to_string() })?;
    // As systemd writes it: all may read it, and nobody is to change it.
    replace_durably(&path, text_of(random).as_bytes(), 0o444)
        .map_err(|source| KeepMachineIdError::Write { path, source })
}

/// The text of an id, marked as a random one of version 4.
fn text_of(mut bytes: [u8; 16]) -> String {
    // RFC 9562, section 5.4, as systemd makes its own.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    format!("{}\n", to_hex(&bytes))
}

fn is_id(text: &str) -> bool {
    let digits = text.trim_end_matches('\n');
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    // machine-id(5): all zeros are no id.
    digits.len() == 32 && digits.bytes().all(hex) && digits.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        ensure_machine_id(folder.path()).unwrap();
        let first = fs::read_to_string(folder.path().join(NAME)).unwrap();
        assert!(is_id(&first), "{first}");

        ensure_machine_id(folder.path()).unwrap();

        assert_eq!(fs::read_to_string(folder.path().join(NAME)).unwrap(), first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_id_is_replaced() {
        for broken in
            ["", "uninitialized\n", "0000000000000000000000000000000\n", &"0".repeat(32), &"G".repeat(32)]
        {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(NAME), broken).unwrap();

            ensure_machine_id(folder.path()).unwrap();

            assert!(is_id(&fs::read_to_string(folder.path().join(NAME)).unwrap()), "{broken:?} was kept");
        }
    }

    #[test]
    fn an_id_is_marked_as_random() {
        assert_eq!(text_of([0xff; 16]), "ffffffffffff4fffbfffffffffffffff\n");
    }
}
