//! The partition table of an image, from whichever copy is whole.

use std::io;

use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, PRIMARY_OFFSET, PartitionTable};

use crate::disk::DiskImage;

/// Reads the table.
pub(crate) fn read(disk: &DiskImage) -> Result<PartitionTable, ReadTableError> {
    let size = disk.byte_size()?;
    let length = Bytes::new(COPY_BYTES as u64);
    let backup = gpt::backup_offset(size).ok_or(ReadTableError::Small { size })?;
    let (primary, backup) = (disk.read(PRIMARY_OFFSET, length)?, disk.read(backup, length)?);
    Ok(gpt::read(&primary, &backup, size)?)
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadTableError {
    #[error(transparent)]
    Damaged(#[from] gpt::ReadTableError),
    #[error("cannot read it")]
    Read(#[from] io::Error),
    #[error("it has {size}, which is no room for a partition table")]
    Small { size: Bytes },
}
