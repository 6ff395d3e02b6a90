//! Tells what a partition holds by the words at its beginning, before anything is mounted or repaired.
//!
//! Knows the signatures of what people put on disks, and two fields of ext4's superblock. Refuses to judge a
//! file system further: e2fsck does. Invariant: what is not ext4 is never handed to e2fsck, which would look
//! for old superblocks in another's data.
//!
//! Documentation: <https://docs.kernel.org/filesystems/ext4/super.html>; the other signatures are those of
//! blkid, libblkid/src/superblocks.

use std::io;
use std::path::Path;

use image_format::bytes::Bytes;

use crate::block_device::{AccessMode, BlockDevice};

/// So much covers the signatures below; btrfs has its own the farthest in.
const BEGINNING: usize = 68 << 10;
/// Where ext4's superblock begins: behind room for a boot sector.
const SUPERBLOCK: usize = 1024;
/// `EXT2_ERROR_FS` of `s_state`: the kernel has met an error since the last e2fsck.
const HAS_ERRORS: u8 = 0x2;

/// What others put at the beginning: where, which bytes, and what it is called.
const FOREIGN: [(usize, &[u8], &str); 7] = [
    (0, b"XFSB", "an XFS file system"),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    (512, b"LABELONE", "a physical volume of LVM"),
    (0x36, b"FAT1", "a FAT file system"),
    (0x52, b"FAT32", "a FAT file system"),
    (4086, b"SWAPSPACE2", "swap space"),
    (0x1_0040, b"_BHRfS_M", "a btrfs file system"),
];

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartitionContent {
    /// ext4, with or without errors that the kernel has noted.
    Ext4 {
        /// Whether e2fsck has to look at it first.
        has_errors: bool,
    },
    /// Something of others.
    Foreign(&'static str),
    /// Zeros only, where file systems begin.
    Empty,
    /// No signature that is known.
    Unknown,
}

impl PartitionContent {
    /// Reads the beginning of a partition, past the page cache.
    pub(crate) fn read(device: &Path) -> io::Result<Self> {
        let device = BlockDevice::open_device(device, AccessMode::Read)?;
        let length = usize::try_from(device.byte_size()?.get()).unwrap_or(BEGINNING).min(BEGINNING);
        // Whole sectors of any disk.
        Ok(Self::of_bytes(&device.read(Bytes::new(0), length & !4095)?))
    }

    /// Judges the beginning of a partition.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let superblock = bytes.get(SUPERBLOCK..).unwrap_or_default();
        // `s_magic`, little-endian.
        if superblock.get(0x38..0x3a) == Some(&[0x53, 0xef]) {
            let has_errors = superblock.get(0x3a).is_some_and(|state| state & HAS_ERRORS != 0);
            return Self::Ext4 { has_errors };
        }
        let foreign = |&&(at, signature, _): &&(usize, &[u8], &str)| {
            bytes.get(at..).is_some_and(|rest| rest.starts_with(signature))
        };
        match FOREIGN.iter().find(foreign) {
            Some((_, _, name)) => Self::Foreign(name),
            None if bytes.iter().all(|byte| *byte == 0) => Self::Empty,
            None => Self::Unknown,
        }
    }

    /// What it is called in a sentence.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Ext4 { .. } => "an ext4 file system",
            Self::Foreign(name) => name,
            Self::Empty => "no file system: its beginning is zeros",
            Self::Unknown => "no file system that is known",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(at: usize, signature: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; BEGINNING];
        bytes[at..at + signature.len()].copy_from_slice(signature);
        bytes
    }

    #[test]
    fn ext4_says_whether_it_has_met_errors() {
        let mut bytes = with(SUPERBLOCK + 0x38, &[0x53, 0xef, 0x01]);
        assert_eq!(PartitionContent::of_bytes(&bytes), PartitionContent::Ext4 { has_errors: false });

        bytes[SUPERBLOCK + 0x3a] = 0x03;
        assert_eq!(PartitionContent::of_bytes(&bytes), PartitionContent::Ext4 { has_errors: true });
    }

    #[test]
    fn what_others_put_there_is_named() {
        for (at, signature, name) in FOREIGN {
            let content = PartitionContent::of_bytes(&with(at, signature));
            assert_eq!(content, PartitionContent::Foreign(name));
            assert_eq!(content.describe(), name);
        }
    }

    #[test]
    fn zeros_and_noise_are_told_apart_and_short_ones_are_read() {
        assert_eq!(PartitionContent::of_bytes(&vec![0; BEGINNING]), PartitionContent::Empty);
        assert_eq!(PartitionContent::of_bytes(&vec![7; BEGINNING]), PartitionContent::Unknown);
        assert_eq!(PartitionContent::of_bytes(&[]), PartitionContent::Empty);
        assert_eq!(PartitionContent::of_bytes(b"XFS"), PartitionContent::Unknown);
    }
}
