//! Moves the backup copy to the real end of a grown disk, extends the last partition, mends what
//! is broken, and replaces the GUIDs that every disk of the image has.
//!
//! Knows the order of writes that survives a power cut: first both copies are made whole again,
//! then backup, sync, primary array, sync, primary header, sync. At each moment the copy that is
//! not being written is whole and on the disk. Refuses to do anything else to the table.

use crate::bytes::Bytes;

use super::{
    ALIGNMENT, EncodeError, FoundCopy, PRIMARY_OFFSET, PartitionTable, ReadTableError, SECTOR, SECTOR_BYTES,
    TableCopies, backup_offset, encode_table, last_usable, read_backup, read_primary,
};

/// One step of a change of the partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrowthStep {
    /// Everything written so far must be on the disk before the next step.
    Sync,
    /// These bytes go there.
    Write {
        /// Where, from the start of the disk.
        offset: Bytes,
        /// What: whole sectors.
        bytes: Vec<u8>,
    },
}

/// Plans how the table comes to cover a disk of that size: both copies whole, the backup in the
/// last sector, the last partition, which must have the label `grow`, up to the end. GUIDs of the
/// image are replaced by ones that follow from `random`, in the same writes: a first boot has no
/// more of them than growing alone. The plan is empty when nothing is to be done; carried out in
/// part, planning again finishes it, with the same random bytes or others.
pub fn plan_growth(
    disk: Bytes,
    primary: &[u8],
    backup: &[u8],
    grow: &str,
    random: [u8; 16],
) -> Result<Vec<GrowthStep>, PlanGrowthError> {
    let sectors = disk.get() / SECTOR.get();
    let offset = backup_offset(disk).ok_or(EncodeError::Disk { disk })?;
    let mut plan = GrowthPlan { steps: Vec::new(), backup_offset: offset };
    let (table, now) = match (read_primary(primary, disk), read_backup(backup, disk)) {
        // UEFI 5.3.2: the primary counts while it is whole, so the two are never merged.
        (Ok(FoundCopy { table, .. }), _) => {
            let now = TableCopies { primary: primary.to_vec(), backup: backup.to_vec() };
            (table, now)
        }
        (Err(_), Ok(FoundCopy { table, .. })) => {
            let mended =
                TableCopies { primary: encode_table(&table, disk)?.primary, backup: backup.to_vec() };
            plan.rewrite_primary(primary, &mended.primary);
            (table, mended)
        }
        (Err(primary), Err(backup)) => return Err(ReadTableError { backup, primary }.into()),
    };
    // Labels and GUIDs change in the same writes. Two changes would be twice as many moments at which power
    // can fail.
    let target = encode_table(&extend_last(table, sectors, grow)?.with_own_guids(random), disk)?;
    plan.rewrite_backup(&now.backup, &target.backup);
    plan.rewrite_primary(&now.primary, &target.primary);
    Ok(plan.steps)
}

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum PlanGrowthError {
    #[error("cannot compose the new partition table")]
    Encode(#[from] EncodeError),
    #[error("the last partition is {found:?}, not {grow:?}, which alone may grow")]
    Last { found: String, grow: String },
    #[error("the partition table can not be read")]
    Read(#[from] ReadTableError),
}

/// The table with its last partition reaching to the last aligned sector that is free.
fn extend_last(
    mut table: PartitionTable,
    disk_sectors: u64,
    grow: &str,
) -> Result<PartitionTable, PlanGrowthError> {
    let last = table.entries.iter_mut().max_by_key(|entry| entry.last_lba);
    let last = match last {
        Some(entry) if entry.label == grow => entry,
        other => {
            let found = other.map_or_else(String::new, |entry| entry.label.clone());
            return Err(PlanGrowthError::Last { found, grow: grow.to_owned() });
        }
    };
    let unit = ALIGNMENT.get() / SECTOR.get();
    let end = (last_usable(disk_sectors) + 1) / unit * unit;
    // Never shorter: STATE's file system may reach to the end that it has.
    last.last_lba = last.last_lba.max(end.saturating_sub(1));
    Ok(table)
}

#[derive(Debug)]
struct GrowthPlan {
    steps: Vec<GrowthStep>,
    backup_offset: Bytes,
}

impl GrowthPlan {
    fn rewrite_backup(&mut self, now: &[u8], then: &[u8]) {
        if now != then {
            self.write(self.backup_offset, then);
        }
    }

    fn rewrite_primary(&mut self, now: &[u8], then: &[u8]) {
        let (old_header, old_array) = now.split_at(now.len().min(SECTOR_BYTES));
        let (header, array) = then.split_at(SECTOR_BYTES);
        // The array before the header, whose checksum covers it: with the old header the new array counts as
        // broken, and then the backup is read.
        if old_array != array {
            self.write(Bytes::new(PRIMARY_OFFSET.get() + SECTOR.get()), array);
        }
        if old_header != header {
            self.write(PRIMARY_OFFSET, header);
        }
    }

    /// What was read may still be on its way to the disk after a warm reset, so a plan that writes
    /// anything begins with a sync.
    fn write(&mut self, offset: Bytes, bytes: &[u8]) {
        if self.steps.is_empty() {
            self.steps.push(GrowthStep::Sync);
        }
        self.steps.extend([GrowthStep::Write { offset, bytes: bytes.to_vec() }, GrowthStep::Sync]);
    }
}
