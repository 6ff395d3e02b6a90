//! Where things are on a machine's disk, for stories that damage them.
//!
//! Reads the partition table the way any other tool would and knows the contract of `image_format`; what the
//! damage means is the story's business.

use std::ops::Range;

use image_format::bytes::Bytes;
use image_format::gpt::{self, PartitionTable};
use image_format::layout::{ENV0_OFFSET, ENV1_OFFSET};
use image_format::slot::{BLOCK_BYTES, Slot, SlotTable};
use image_format::trailer::{self, TRAILER_BYTES};
use vm::disk::DiskEditor;

const BLOCK: usize = 4096;

/// A disk, open, with its partition table.
pub(crate) struct DiskMap {
    edit: DiskEditor,
    table: PartitionTable,
}

impl DiskMap {
    pub(crate) fn of(edit: DiskEditor) -> Self {
        let size = Bytes::new(edit.file().metadata().unwrap().len());
        let copy = |offset: Bytes| edit.read(offset.get(), gpt::COPY_BYTES).unwrap();
        let backup = copy(gpt::backup_offset(size).unwrap());
        let table = gpt::read(&copy(gpt::PRIMARY_OFFSET), &backup, size).unwrap();
        Self { edit, table }
    }

    pub(crate) fn edit(&self) -> &DiskEditor {
        &self.edit
    }

    /// The bytes a partition has on the disk.
    pub(crate) fn partition(&self, label: &str) -> Range<u64> {
        let entry = self.table.find_label(label).unwrap_or_else(|| panic!("no partition {label}"));
        entry.byte_offset().get()..entry.byte_offset().get() + entry.byte_size().get()
    }

    pub(crate) fn root(&self, slot: Slot) -> Range<u64> {
        self.partition(match slot {
            Slot::A => "ROOT-A",
            Slot::B => "ROOT-B",
        })
    }

    /// Both copies of the slot table, as blocks.
    pub(crate) fn slot_table_blocks(&self) -> [Vec<u8>; 2] {
        self.slot_table_offsets().map(|offset| self.edit.read(offset, BLOCK_BYTES).unwrap())
    }

    /// What the machine last wrote into both copies.
    pub(crate) fn slot_table(&self) -> SlotTable {
        let [env0, env1] = self.slot_table_blocks();
        let table = SlotTable::from_block(&env0).unwrap();
        assert_eq!(env0, env1, "the two copies of the slot table differ");
        table
    }

    pub(crate) fn slot_table_offsets(&self) -> [u64; 2] {
        let start = self.partition("ABSTATE").start;
        [start + ENV0_OFFSET.get(), start + ENV1_OFFSET.get()]
    }

    pub(crate) fn write_slot_table(&self, table: SlotTable) {
        for offset in self.slot_table_offsets() {
            self.edit.write(offset, &table.to_block()).unwrap();
        }
    }

    /// The manifest's envelope in a slot, and where its trailer is.
    pub(crate) fn envelope(&self, slot: Slot) -> (Vec<u8>, u64) {
        let at = self.root(slot).end - TRAILER_BYTES as u64;
        let bytes = self.edit.read(at, TRAILER_BYTES).unwrap();
        (trailer::decode_trailer(&bytes).unwrap().to_vec(), at)
    }

    /// Where the kernel begins in a slot: a block that starts with Linux' setup header.
    pub(crate) fn kernel(&self, slot: Slot) -> u64 {
        let is_kernel = |block: &[u8]| block[0x1fe..0x200] == [0x55, 0xaa] && &block[0x202..0x206] == b"HdrS";
        self.find(slot, is_kernel).unwrap_or_else(|| panic!("no kernel in slot {slot}"))
    }

    /// Where block number `block` of a file is on the disk, found by its bytes.
    pub(crate) fn file_block(&self, slot: Slot, path: &str, block: usize) -> u64 {
        let file = self.root_files(slot).read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let wanted = &file[block * BLOCK..(block + 1) * BLOCK];
        self.find(slot, |block| block == wanted).unwrap_or_else(|| panic!("{path} is nowhere on the disk"))
    }

    /// Where a file that fits into a block is on the disk.
    pub(crate) fn first_block(&self, slot: Slot, path: &str) -> u64 {
        let file = self.root_files(slot).read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(file.len() <= BLOCK, "{path} has {} bytes", file.len());
        self.find(slot, |block| block.starts_with(&file))
            .unwrap_or_else(|| panic!("{path} is nowhere on the disk"))
    }

    fn root_files(&self, slot: Slot) -> ext4_view::Ext4 {
        let root = self.root(slot);
        let bytes = self.edit.read(root.start, usize::try_from(root.end - root.start).unwrap()).unwrap();
        ext4_view::Ext4::load(Box::new(bytes)).unwrap()
    }

    fn find(&self, slot: Slot, wanted: impl Fn(&[u8]) -> bool) -> Option<u64> {
        let root = self.root(slot);
        let bytes = self.edit.read(root.start, usize::try_from(root.end - root.start).unwrap()).unwrap();
        let index = bytes.chunks_exact(BLOCK).position(wanted)?;
        Some(root.start + (index * BLOCK) as u64)
    }
}
