//! The two copies of the slot table on their partition, and the sector writes that change them.
//!
//! Knows where the copies are and in what order they are written: env1 and then env0, each read
//! back before the next. Refuses to know what a table means, and to write where no table is.
//! Invariant: each write is one sector, so that at every moment one copy is whole.
//!
//! Documentation: "Environment block" in <https://www.gnu.org/software/grub/manual/grub/grub.html>, and
//! Microsoft's FAT specification, section 3.

use std::io;
use std::path::{Path, PathBuf};

use image_format::bytes::Bytes;
use image_format::layout::{ENV0_OFFSET, ENV1_OFFSET};
use image_format::slot::{BLOCK_BYTES, ParseSlotTableError, SECTOR_BYTES, SlotTable};

use crate::block_device::{AccessMode, BlockDevice};

/// The copies in the order in which the selector reads them.
const OFFSETS: [Bytes; 2] = [ENV0_OFFSET, ENV1_OFFSET];
const NAMES: [&str; 2] = ["env0", "env1"];
/// Where a FAT12 volume says its label and its kind.
const FAT_LABEL: std::ops::Range<usize> = 43..62;

/// The partition that holds the copies, locked against other programs while it is open for writing.
#[derive(Debug)]
pub(crate) struct SlotStore {
    device: BlockDevice,
}

/// Both copies, as they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableCopies {
    blocks: [Vec<u8>; 2],
    /// Whether the partition is the volume that image-builder made for the copies.
    place_is_right: bool,
}

/// One sector to write.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SectorWrite {
    name: &'static str,
    offset: Bytes,
    bytes: Vec<u8>,
}

/// Why the copies could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot lock {device} against other programs")]
    Lock { device: PathBuf, source: io::Error },
    #[error("cannot open {device} for the slot table")]
    Open { device: PathBuf, source: io::Error },
    #[error("{device} is not the partition of the slot table, so nothing is written there")]
    Place { device: PathBuf },
    #[error("cannot read {name} of the slot table on {device}")]
    Read { device: PathBuf, name: &'static str, source: io::Error },
    #[error("{device} kept something else than what was written to {name} of the slot table")]
    ReadBack { device: PathBuf, name: &'static str },
    #[error("cannot write {name} of the slot table on {device}")]
    Write { device: PathBuf, name: &'static str, source: io::Error },
}

impl SlotStore {
    /// Opens the partition, or an image of it. For writing, waits until no other program writes.
    pub(crate) fn open_store(path: &Path, access: AccessMode) -> Result<Self, StoreError> {
        let device = BlockDevice::open_device(path, access)
            .map_err(|source| StoreError::Open { device: path.to_owned(), source })?;
        if access == AccessMode::Write {
            // flock(2): the kernel ends it with the program, so no crash leaves it.
            let locked = device.file().lock();
            locked.map_err(|source| StoreError::Lock { device: path.to_owned(), source })?;
        }
        Ok(Self { device })
    }

    /// Reads both copies.
    pub(crate) fn read(&self) -> Result<TableCopies, StoreError> {
        let block = |index: usize| {
            let read = self.device.read(OFFSETS[index], BLOCK_BYTES);
            read.map_err(|source| StoreError::Read { device: self.path(), name: NAMES[index], source })
        };
        let boot_sector = self.device.read(Bytes::default(), SECTOR_BYTES);
        let boot_sector = boot_sector.map_err(|source| StoreError::Read {
            device: self.path(),
            name: "the volume",
            source,
        })?;
        // Either is enough: a damaged table is mended by its volume's label, and a damaged volume by its
        // table.
        let labelled = &boot_sector[FAT_LABEL] == b"ABSTATE    FAT12   ";
        let blocks = [block(0)?, block(1)?];
        let place_is_right = labelled || blocks.iter().any(|block| SlotTable::from_block(block).is_ok());
        Ok(TableCopies { blocks, place_is_right })
    }

    /// Brings both copies to this table, writing only what differs.
    pub(crate) fn write(&self, copies: &TableCopies, table: SlotTable) -> Result<(), StoreError> {
        if !copies.place_is_right {
            return Err(StoreError::Place { device: self.path() });
        }
        for SectorWrite { name, offset, bytes } in sector_writes(copies, table) {
            let failed = |source| StoreError::Write { device: self.path(), name, source };
            self.device.write(offset, &bytes).and_then(|()| self.device.sync_all()).map_err(failed)?;
            let read = self.device.read(offset, bytes.len());
            let read = read.map_err(|source| StoreError::Read { device: self.path(), name, source })?;
            if read != bytes {
                return Err(StoreError::ReadBack { device: self.path(), name });
            }
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.device.path().to_owned()
    }
}

impl TableCopies {
    /// What each copy says, env0 first.
    pub(crate) fn both_tables(&self) -> [Result<SlotTable, ParseSlotTableError>; 2] {
        [0, 1].map(|index| SlotTable::from_block(&self.blocks[index]))
    }

    /// What the selector goes by: env0, or else env1.
    pub(crate) fn current_table(&self) -> Option<SlotTable> {
        self.both_tables().into_iter().find_map(Result::ok)
    }
}

/// The sectors to write, in order: env1 and then env0, of each first the second sector, which only
/// ever differs after damage, and then the one that counts.
fn sector_writes(copies: &TableCopies, table: SlotTable) -> Vec<SectorWrite> {
    let block = table.to_block();
    let mut writes = Vec::new();
    for index in [1, 0] {
        for sector in [1, 0] {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            if copies.blocks[index][range.clone()] != block[range.clone()] {
                let offset = Bytes::new(OFFSETS[index].get() + range.start as u64);
                writes.push(SectorWrite { name: NAMES[index], offset, bytes: block[range].to_vec() });
            }
        }
    }
    writes
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::FileExt as _;

    use image_format::layout::ABSTATE_SIZE;
    use image_format::slot::{BootAttempt, LoadCondition, Slot, boot_decision};
    use tempfile::NamedTempFile;

    use super::*;

    /// An image of the partition with both copies of a table.
    pub(crate) fn abstate(table: SlotTable) -> NamedTempFile {
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(ABSTATE_SIZE.get()).unwrap();
        for offset in OFFSETS {
            image.as_file().write_all_at(&table.to_block(), offset.get()).unwrap();
        }
        image
    }

    pub(crate) fn open(image: &NamedTempFile) -> SlotStore {
        SlotStore::open_store(image.path(), AccessMode::Write).unwrap()
    }

    fn damage(image: &NamedTempFile, offset: Bytes, length: usize) {
        image.as_file().write_all_at(&vec![0xa5; length], offset.get()).unwrap();
    }

    fn label(image: &NamedTempFile) {
        image.as_file().write_all_at(b"ABSTATE    FAT12   ", 43).unwrap();
    }

    #[test]
    fn a_change_is_one_sector_in_each_copy_env1_first() {
        let image = abstate(SlotTable::FRESH);
        let copies = open(&image).read().unwrap();

        let writes = sector_writes(&copies, SlotTable::FRESH.activate_slot(Slot::B));

        let order: Vec<_> =
            writes.iter().map(|write| (write.name, write.offset, write.bytes.len())).collect();
        assert_eq!(order, [("env1", ENV1_OFFSET, SECTOR_BYTES), ("env0", ENV0_OFFSET, SECTOR_BYTES)]);
    }

    #[test]
    fn what_does_not_change_is_not_written() {
        let image = abstate(SlotTable::FRESH);
        let copies = open(&image).read().unwrap();

        assert_eq!(sector_writes(&copies, SlotTable::FRESH), []);
    }

    #[test]
    fn a_damaged_copy_is_mended_from_the_other() {
        for offset in OFFSETS {
            let image = abstate(SlotTable::FRESH);
            damage(&image, offset, BLOCK_BYTES);
            let store = open(&image);
            let copies = store.read().unwrap();
            assert_eq!(copies.current_table(), Some(SlotTable::FRESH));

            store.write(&copies, SlotTable::FRESH).unwrap();

            assert_eq!(store.read().unwrap().both_tables(), [Ok(SlotTable::FRESH), Ok(SlotTable::FRESH)]);
        }
    }

    #[test]
    fn nothing_is_written_where_no_table_is() {
        let image = abstate(SlotTable::FRESH);
        for offset in OFFSETS {
            damage(&image, offset, BLOCK_BYTES);
        }
        let before = std::fs::read(image.path()).unwrap();
        let store = open(&image);

        let refused = store.write(&store.read().unwrap(), SlotTable::FRESH).unwrap_err();

        assert!(matches!(refused, StoreError::Place { .. }), "{refused}");
        assert_eq!(std::fs::read(image.path()).unwrap(), before);
    }

    #[test]
    fn the_labelled_volume_gets_its_table_back_when_both_copies_are_garbage() {
        let image = abstate(SlotTable::FRESH);
        label(&image);
        for offset in OFFSETS {
            damage(&image, offset, BLOCK_BYTES);
        }
        let store = open(&image);

        store.write(&store.read().unwrap(), SlotTable::FRESH).unwrap();

        assert_eq!(store.read().unwrap().both_tables(), [Ok(SlotTable::FRESH), Ok(SlotTable::FRESH)]);
    }

    /// Invariant 1, over the very bytes that are written: cut the power in any of the writes. A disk
    /// writes a sector or does not; even if it tore one, the good slot would still get its turn.
    #[test]
    fn after_every_prefix_and_torn_sector_the_selector_starts_a_good_slot() {
        let (old, new) = (SlotTable::FRESH, SlotTable::FRESH.activate_slot(Slot::B));
        let image = abstate(old);
        let copies = open(&image).read().unwrap();
        let writes = sector_writes(&copies, new);
        let expected = [old, new].map(|table| boot_decision(&table.to_block(), &[]).attempts);
        for cut in 0..writes.len() {
            for torn in 0..=SECTOR_BYTES {
                let mut blocks = copies.blocks.clone();
                for (index, write) in writes.iter().enumerate().take(cut + 1) {
                    let copy = usize::from(write.name == "env1");
                    let reached = if index == cut { torn } else { SECTOR_BYTES };
                    blocks[copy][..reached].copy_from_slice(&write.bytes[..reached]);
                }

                let attempts = boot_decision(&blocks[0], &blocks[1]).attempts;

                let good = |attempt: &BootAttempt| {
                    attempt.slot == Slot::A && attempt.condition != LoadCondition::LastResort
                };
                assert!(attempts.iter().any(good), "cut {cut} at {torn}: {attempts:?}");
                let whole = torn == 0 || torn == SECTOR_BYTES;
                assert!(!whole || expected.contains(&attempts), "cut {cut} at {torn}: {attempts:?}");
            }
        }
    }

    #[test]
    fn the_two_programs_that_write_at_once_wait_for_each_other() {
        let image = abstate(SlotTable::FRESH);
        let first = open(&image);
        let second = std::fs::File::open(image.path()).unwrap();

        assert!(second.try_lock().is_err());
        drop(first);
        assert!(second.try_lock().is_ok());
    }
}
