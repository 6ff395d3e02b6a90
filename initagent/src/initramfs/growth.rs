//! Makes the partition table cover the whole disk and have GUIDs of its own, and mends a broken copy.
//!
//! Knows how to carry out the plan of [`image_format::gpt::plan_growth`], step by step, past the
//! page cache. Refuses to plan. Invariant: a step begins only when the device has stored the one
//! before it.

use std::io;

use image_format::gpt::{
    COPY_BYTES, GrowthStep, PRIMARY_OFFSET, PartitionTable, PlanGrowthError, ReadTableError, backup_offset,
    plan_growth, read,
};
use image_format::layout::{Partition, PartitionRole};

use crate::block_device::BlockDevice;

/// Why the table does not cover the disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum GrowError {
    #[error("cannot plan it")]
    Plan(#[from] PlanGrowthError),
    #[error("cannot read the partition table")]
    Read { source: io::Error },
    #[error("the partition table is not whole after writing it")]
    Reread(#[from] ReadTableError),
    #[error("cannot write the partition table")]
    Write { source: io::Error },
}

/// Grows STATE to the end of the disk, if it does not reach there, replaces the GUIDs of the image by
/// ones that follow from random bytes, and says what the table is now.
pub(super) fn grow_state(
    disk: &BlockDevice,
    random: [u8; 16],
) -> Result<(PartitionTable, GrowthOutcome), GrowError> {
    let size = disk.byte_size().map_err(|source| GrowError::Read { source })?;
    let copies = || {
        let backup = backup_offset(size).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((disk.read(PRIMARY_OFFSET, COPY_BYTES)?, disk.read(backup, COPY_BYTES)?))
    };
    let (primary, backup) = copies().map_err(|source| GrowError::Read { source })?;
    let steps = plan_growth(size, &primary, &backup, Partition::of_role(PartitionRole::State).label, random)?;
    carry_out(disk, &steps).map_err(|source| GrowError::Write { source })?;
    let (primary, backup) = copies().map_err(|source| GrowError::Read { source })?;
    let outcome = if steps.is_empty() { GrowthOutcome::Unchanged } else { GrowthOutcome::Written };
    Ok((read(&primary, &backup, size)?, outcome))
}

/// What growing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrowthOutcome {
    /// The table covered the disk, in both copies.
    Unchanged,
    /// It does now.
    Written,
}

fn carry_out(disk: &BlockDevice, steps: &[GrowthStep]) -> io::Result<()> {
    steps.iter().try_for_each(|step| match step {
        GrowthStep::Sync => disk.sync_all(),
        GrowthStep::Write { offset, bytes } => disk.write(*offset, bytes),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use image_format::bytes::Bytes;
    use image_format::gpt::{encode_table, read_backup, read_primary};
    use image_format::layout::{DiskLayout, PartitionSizes};
    use uuid::uuid;

    use super::*;
    use crate::block_device::AccessMode;

    #[test]
    fn an_image_on_a_larger_disk_is_grown_once() {
        let guid = uuid!("a2f3c1d0-0000-4000-8000-000000000001");
        let layout = DiskLayout::plan_layout(
            guid,
            PartitionSizes { root: Bytes::from_mib(64), state: Bytes::from_mib(8) },
        )
        .unwrap();
        let image = tempfile::NamedTempFile::new().unwrap();
        let copies = encode_table(&layout.partition_table(), layout.disk_size()).unwrap();
        image.as_file().set_len(3 * layout.disk_size().get()).unwrap();
        image.as_file().write_all_at(&copies.primary, PRIMARY_OFFSET.get()).unwrap();
        let backup = backup_offset(layout.disk_size()).unwrap();
        image.as_file().write_all_at(&copies.backup, backup.get()).unwrap();
        let disk = BlockDevice::open_device(image.path(), AccessMode::Write).unwrap();

        let (table, outcome) = grow_state(&disk, [7; 16]).unwrap();

        assert_eq!(outcome, GrowthOutcome::Written);
        let size = disk.byte_size().unwrap();
        let state = table.find_label("STATE").unwrap();
        assert_eq!(state.byte_offset().get() + state.byte_size().get(), size.get() - Bytes::MIB.get());
        let primary = read_primary(&disk.read(PRIMARY_OFFSET, COPY_BYTES).unwrap(), size).unwrap();
        let backup = disk.read(backup_offset(size).unwrap(), COPY_BYTES).unwrap();
        assert_eq!(read_backup(&backup, size).unwrap().table, primary.table);
        assert_eq!(grow_state(&disk, [7; 16]).unwrap(), (table, GrowthOutcome::Unchanged));
    }
}
