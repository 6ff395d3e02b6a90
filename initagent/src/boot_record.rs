//! What the initramfs leaves behind for the rest of the boot: which slot runs, from which devices.
//!
//! Knows the file and its form. Refuses to know how its facts were found.
//! Invariant: the file exists only on a machine whose root was verified in this very boot.

use std::io;
use std::path::{Path, PathBuf};

use image_format::digest::Sha256;
use image_format::slot::Slot;
use image_format::version::Version;
use serde::{Deserialize, Serialize};

/// Where it lies, on a file system that a reboot empties.
pub(crate) const PATH: &str = "/run/catamaran/boot.json";

const MAX_BYTES: u64 = 64 << 10;

/// What boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootRecord {
    /// The slot that runs.
    pub(crate) slot: Slot,
    /// The name of the image in it.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: Version,
    /// Its channel.
    pub(crate) channel: String,
    /// The root hash that was signed.
    pub(crate) root_hash: Sha256,
    /// Whether it was signed by a development key.
    pub(crate) development: bool,
    /// When it was built: seconds since 1970.
    // No default: a record without it would let a clock of 1970 believe what has expired.
    pub(crate) built: u64,
    /// The security epoch that was signed.
    pub(crate) security_epoch: u32,
    /// The version that this machine has proven already, if this one is older and starts for want of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) below: Option<Version>,
    /// The devices it boots from.
    pub(crate) devices: BootDevices,
}

/// Device nodes, all of the same disk but the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootDevices {
    /// The whole disk.
    pub(crate) disk: PathBuf,
    /// The EFI system partition.
    pub(crate) esp: PathBuf,
    /// The two copies of the slot table.
    pub(crate) abstate: PathBuf,
    /// The running slot.
    pub(crate) root: PathBuf,
    /// The slot that does not run.
    pub(crate) other_root: PathBuf,
    /// What is kept.
    pub(crate) state: PathBuf,
    /// The verified view of the running slot.
    pub(crate) verity: PathBuf,
}

/// Why there is no record to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadBootRecordError {
    #[error("{PATH} is not the JSON it should be")]
    Json { source: serde_json::Error },
    #[error("cannot read {PATH}, which the initramfs of a Catamaran machine writes")]
    Read { source: io::Error },
}

impl BootRecord {
    /// Reads the record of this boot.
    pub(crate) fn read(path: &Path) -> Result<Self, ReadBootRecordError> {
        let mut text = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, MAX_BYTES), &mut text))
            .map_err(|source| ReadBootRecordError::Read { source })?;
        serde_json::from_slice(&text).map_err(|source| ReadBootRecordError::Json { source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file() {
        let record = BootRecord {
            slot: Slot::B,
            name: "cloud".into(),
            version: Version::new(1, 2, 3),
            channel: "stable".into(),
            root_hash: Sha256::digest_of(b"root"),
            development: true,
            built: 1_700_000_000,
            security_epoch: 2,
            below: None,
            devices: BootDevices {
                disk: "/dev/vda".into(),
                esp: "/dev/vda2".into(),
                abstate: "/dev/vda3".into(),
                root: "/dev/vda5".into(),
                other_root: "/dev/vda4".into(),
                state: "/dev/vda6".into(),
                verity: "/dev/dm-0".into(),
            },
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = serde_json::to_string_pretty(&record).unwrap();
        std::fs::write(file.path(), &text).unwrap();

        assert_eq!(BootRecord::read(file.path()).unwrap(), record);
        assert!(text.contains("\"slot\": \"B\""), "{text}");
    }

    #[test]
    fn a_machine_without_a_record_is_told_so() {
        let error = BootRecord::read(Path::new("/nonexistent")).unwrap_err();

        assert_eq!(
            error.to_string(),
            "cannot read /run/catamaran/boot.json, which the initramfs of a Catamaran machine writes"
        );
    }
}
