//! Which disk this machine runs from.
//!
//! Knows the record that the initramfs leaves (`/run/catamaran/boot.json`). Refuses to find the disk
//! by labels: a copy of it that is attached has the same ones, and udev's links lead to either.
//! Invariant: without a record no disk is the machine's own.

use std::fs::File;
use std::path::Path;

use crate::host::read_all;

/// Where the record lies on a machine.
pub const BOOT_RECORD: &str = "/run/catamaran/boot.json";

// The initramfs writes some hundred bytes. Anything larger was not written by it.
const MAX_RECORD: u64 = 64 << 10;

/// The device nodes of the disk, as the machine names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningDisk {
    /// The whole disk, such as `/dev/vda`.
    pub disk: String,
    /// Its EFI system partition.
    pub esp: String,
}

impl RunningDisk {
    /// Reads the record at `path`, which is [`BOOT_RECORD`] below a machine's root.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        let bytes = read_all(File::open(path).ok()?, MAX_RECORD).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let node = |name: &str| record["devices"][name].as_str().filter(|node| !node.is_empty());
        Some(Self { disk: node("disk")?.to_owned(), esp: node("esp")?.to_owned() })
    }

    /// Whether a device is the disk or one of its partitions.
    #[must_use]
    pub fn holds_device(&self, device: &str) -> bool {
        let Some(rest) = device.strip_prefix(&self.disk) else { return false };
        // The kernel puts a `p` between a name that ends in a digit and the number.
        let number = if self.disk.ends_with(|end: char| end.is_ascii_digit()) {
            rest.strip_prefix('p')
        } else {
            Some(rest)
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        rest.is_empty() || number.is_some_and(is_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(disk: &str) -> RunningDisk {
        RunningDisk { disk: disk.into(), esp: String::new() }
    }

    #[test]
    fn a_disk_holds_itself_and_its_partitions_and_no_other_disk() {
        for device in ["/dev/vda", "/dev/vda6", "/dev/vda12"] {
            assert!(disk("/dev/vda").holds_device(device), "{device}");
        }
        for device in ["/dev/vdaa", "/dev/vdaa1", "/dev/vdb1", "/dev/vd", "/dev/vda1x", ""] {
            assert!(!disk("/dev/vda").holds_device(device), "{device}");
        }
        assert!(disk("/dev/nvme0n1").holds_device("/dev/nvme0n1p6"));
        assert!(!disk("/dev/nvme0n1").holds_device("/dev/nvme0n12"));
    }

    #[test]
    fn without_a_record_of_this_boot_no_disk_is_the_machines_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot.json");
        assert_eq!(RunningDisk::read(&path), None);

        for text in ["", "{}", r#"{"devices": {"disk": "/dev/vda", "esp": ""}}"#, r#"{"devices": []}"#] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(RunningDisk::read(&path), None, "{text}");
        }
        std::fs::write(&path, r#"{"slot": "A", "devices": {"disk": "/dev/vdb", "esp": "/dev/vdb2"}}"#)
            .unwrap();
        assert_eq!(
            RunningDisk::read(&path),
            Some(RunningDisk { disk: "/dev/vdb".into(), esp: "/dev/vdb2".into() })
        );
    }
}
