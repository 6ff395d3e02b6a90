//! Marks the running slot good once the boot is complete.
//!
//! Knows what a complete boot means for the table. Refuses to decide whether the boot is complete:
//! systemd does, by reaching boot-complete.target. Invariant: a table that already says so is not
//! written again.

use std::path::Path;

use image_format::slot::{Slot, SlotState, SlotTable};

use crate::block_device::Access;
use crate::boot_record::{self, BootRecord, ReadBootRecordError};
use crate::slots::store::{Copies, Store, StoreError};

/// Why the running slot could not be marked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootCompleteError {
    #[error("cannot tell which slot runs")]
    Record(#[from] ReadBootRecordError),
    #[error("cannot mark slot {slot} good")]
    Store { slot: Slot, source: StoreError },
}

/// Marks the running slot good, and says what that changed.
pub(crate) fn run() -> Result<String, BootCompleteError> {
    let record = BootRecord::read(Path::new(boot_record::PATH))?;
    let slot = record.slot;
    mark(&record.devices.abstate, slot).map_err(|source| BootCompleteError::Store { slot, source })
}

fn mark(abstate: &Path, slot: Slot) -> Result<String, StoreError> {
    let store = Store::open(abstate, Access::Write)?;
    let copies = store.read()?;
    store.write(&copies, completed(&copies, slot))?;
    Ok(match copies.table() {
        None => format!("slot {slot} is good; the slot table was lost and is written anew"),
        Some(table) if table.state(slot) == SlotState::GOOD => format!("slot {slot} was good already"),
        Some(table) if table.state(slot).good => format!("slot {slot} is good and has all its tries again"),
        Some(_) => format!("slot {slot} has proven itself and is good"),
    })
}

/// The table after a complete boot. If it was lost, nothing is known of the other slot.
fn completed(copies: &Copies, slot: Slot) -> SlotTable {
    let lost = SlotTable { priority: slot, a: SlotState::EMPTY, b: SlotState::EMPTY };
    copies.table().unwrap_or(lost).mark_good(slot)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use image_format::layout::{ENV0_OFFSET, ENV1_OFFSET};
    use image_format::slot::{BLOCK_BYTES, Tries};

    use super::*;
    use crate::slots::store::tests::{abstate, open};

    #[test]
    fn a_slot_on_trial_is_good_after_its_boot_is_complete() {
        let trial = SlotState { good: false, tries: Tries::new(2).unwrap() };
        let image = abstate(SlotTable { b: trial, ..SlotTable::FRESH.activate(Slot::B) });

        let said = mark(image.path(), Slot::B).unwrap();

        assert_eq!(said, "slot B has proven itself and is good");
        assert_eq!(open(&image).read().unwrap().table().unwrap().b, SlotState::GOOD);
    }

    #[test]
    fn a_spent_try_is_given_back() {
        let spent = SlotState { good: true, tries: Tries::new(2).unwrap() };
        let image = abstate(SlotTable { a: spent, ..SlotTable::FRESH });

        assert_eq!(mark(image.path(), Slot::A).unwrap(), "slot A is good and has all its tries again");
        assert_eq!(mark(image.path(), Slot::A).unwrap(), "slot A was good already");
    }

    #[test]
    fn a_table_that_was_lost_is_written_anew() {
        let image = abstate(SlotTable::FRESH);
        image.as_file().write_all_at(b"ABSTATE    FAT12   ", 43).unwrap();
        for offset in [ENV0_OFFSET, ENV1_OFFSET] {
            image.as_file().write_all_at(&[0; BLOCK_BYTES], offset.get()).unwrap();
        }

        mark(image.path(), Slot::B).unwrap();

        let table = open(&image).read().unwrap().table().unwrap();
        assert_eq!(table, SlotTable { priority: Slot::B, a: SlotState::EMPTY, b: SlotState::GOOD });
    }
}
