//! Decides which of the disks that hold a Catamaran system is the one the machine was started from.
//!
//! Pure. The selector has counted up the tag of its own disk and handed it on, so the disk with that
//! tag is the one, and no copy of it is. Where the selector could not write, or not even read, only
//! being alone makes a disk the one; that is known once no more disks come.
//! Also considered: GUIDs, which a copy has too; the path that the firmware started from, which GRUB
//! does not hand on for BIOS and which the kernel numbers otherwise; asking which disk is larger or
//! comes first, which is a guess.
//! Invariant: where two disks could be meant, none is chosen.

use image_format::disk_tag::DiskTag;

use super::command_line::KnownDisk;

/// The tags in the two copies of a disk's slot table, as far as they can be read.
pub(super) type Tags = [Option<DiskTag>; 2];

/// Whether more disks may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrivals {
    /// Some driver is not loaded yet, or a disk came a moment ago.
    Expected,
    /// Every driver is loaded, and nothing has come for a while.
    Over,
}

/// What is known of the disks so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// Any of these could be meant.
    Ambiguous(Vec<usize>),
    /// None yet.
    Nothing,
    /// This one.
    Only(usize),
}

/// Chooses among disks by their tags.
pub(super) fn choose_disk(known: KnownDisk, disks: &[Tags], arrivals: Arrivals) -> Choice {
    let those = |fits: &dyn Fn(&Tags) -> bool| -> Vec<usize> {
        (0..disks.len()).filter(|index| fits(&disks[*index])).collect()
    };
    // What GRUB could not read may still be readable here, so without a tag every disk could be meant.
    let (tag, written) = match known {
        KnownDisk::Read(tag) => (Some(tag), vec![]),
        KnownDisk::Unknown => (None, vec![]),
        KnownDisk::Written(tag) => (Some(tag), those(&|tags| *tags == [Some(tag); 2])),
    };
    // Only a tag in both copies is sure: a copy of the disk that was made between the two writes has it in
    // one.
    let sure = !written.is_empty();
    // The selector writes env1 and then env0. A disk with the tag in one copy is the one where only one
    // could be written, or else a copy that was made after the power failed between the two writes.
    let fitting = if sure { written } else { those(&|tags| tag.is_none() || tags.contains(&tag)) };
    match fitting[..] {
        [only] if sure || arrivals == Arrivals::Over => Choice::Only(only),
        [] | [_] => Choice::Nothing,
        _ => Choice::Ambiguous(fitting),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use image_format::slot::{
        BLOCK_BYTES, LoadCondition, SECTOR_BYTES, SlotTable, TableSource, boot_decision, selector_reads,
    };

    use super::*;

    /// Both copies of a slot table, as blocks.
    pub(in crate::initramfs) type Blocks = [[u8; BLOCK_BYTES]; 2];

    /// What the selector does to the blocks of its disk, and what it hands on: the twin of the script.
    pub(in crate::initramfs) fn select(blocks: &mut Blocks) -> KnownDisk {
        let decision = boot_decision(&blocks[0], &blocks[1]);
        let read = match decision.source {
            TableSource::Env0 => selector_reads(&blocks[0]).unwrap(),
            TableSource::Env1 => selector_reads(&blocks[1]).unwrap(),
            TableSource::Nothing => return KnownDisk::Unknown,
        };
        let table = match decision.attempts[0].condition {
            LoadCondition::Saves(table) | LoadCondition::MustSave(table) => table,
            LoadCondition::LastResort => read.with_tag(read.tag.next_boot()),
        };
        // GRUB's save_env refuses a file that does not begin as a block.
        let is_block = |block: &[u8]| block.starts_with(b"# GRUB Environment Block\n");
        if !is_block(&blocks[1]) {
            return KnownDisk::Read(read.tag);
        }
        blocks[1] = table.to_block();
        if is_block(&blocks[0]) {
            blocks[0] = table.to_block();
        }
        KnownDisk::Written(table.tag)
    }

    pub(in crate::initramfs) fn tags_in(blocks: &Blocks) -> Tags {
        blocks.map(|block| selector_reads(&block).map(|table| table.tag))
    }

    const SETTLED: DiskTag = DiskTag::new([7; 16]);
    const FRESH: DiskTag = DiskTag::UNSET;

    fn both(tag: DiskTag) -> Tags {
        [Some(tag), Some(tag)]
    }

    /// What the selector does to the tags of its disk, and what it hands on.
    fn started(tag: DiskTag) -> (KnownDisk, Tags) {
        let mut blocks = [SlotTable::FRESH.with_tag(tag).to_block(); 2];
        let known = select(&mut blocks);
        (known, tags_in(&blocks))
    }

    #[test]
    fn the_disk_that_was_started_is_chosen_beside_every_other_in_every_order() {
        for (own, other) in [(SETTLED, SETTLED), (SETTLED, FRESH), (FRESH, SETTLED), (FRESH, FRESH)] {
            let (known, own) = started(own);
            for arrivals in [Arrivals::Expected, Arrivals::Over] {
                assert_eq!(choose_disk(known, &[own, both(other)], arrivals), Choice::Only(0));
                assert_eq!(choose_disk(known, &[both(other), own], arrivals), Choice::Only(1));
                assert_eq!(choose_disk(known, &[both(other)], arrivals), Choice::Nothing);
                assert_eq!(choose_disk(known, &[both(other), own, both(other)], arrivals), Choice::Only(1));
            }
        }
    }

    #[test]
    fn in_a_last_resort_the_disk_is_known_too() {
        let table = SlotTable::replace_lost(image_format::slot::Slot::A).with_tag(SETTLED).to_block();
        let mut blocks = [table; 2];

        let known = select(&mut blocks);

        let disks = [both(SETTLED), tags_in(&blocks)];
        assert_eq!(choose_disk(known, &disks, Arrivals::Expected), Choice::Only(1));
    }

    #[test]
    fn one_written_copy_of_the_table_is_enough_when_no_more_disks_come() {
        let (known, [_, written]) = started(SETTLED);
        for tags in [[None, written], [written, None], [Some(SETTLED), written]] {
            let disks = [both(SETTLED), tags];

            assert_eq!(choose_disk(known, &disks, Arrivals::Expected), Choice::Nothing, "{tags:?}");
            assert_eq!(choose_disk(known, &disks, Arrivals::Over), Choice::Only(1), "{tags:?}");
        }
    }

    /// Two copies that were each started alone and never came so far as to get tags of their own.
    #[test]
    fn disks_that_were_counted_up_to_the_same_tag_stop_the_machine() {
        let (known, own) = started(FRESH);
        let disks = [own, both(SETTLED), own];

        assert_eq!(choose_disk(known, &disks, Arrivals::Expected), Choice::Ambiguous(vec![0, 2]));
    }

    #[test]
    fn a_tag_that_could_not_be_written_counts_only_when_no_more_disks_come() {
        let known = KnownDisk::Read(SETTLED);
        let alone = [both(FRESH), both(SETTLED)];
        assert_eq!(choose_disk(known, &alone, Arrivals::Expected), Choice::Nothing);
        assert_eq!(choose_disk(known, &alone, Arrivals::Over), Choice::Only(1));

        let copied = [both(SETTLED), both(SETTLED)];
        for arrivals in [Arrivals::Expected, Arrivals::Over] {
            assert_eq!(choose_disk(known, &copied, arrivals), Choice::Ambiguous(vec![0, 1]));
        }
    }

    /// Writes env1 and then env0, and leaves so many bytes of a write undone.
    fn cut_write(blocks: &Blocks, new: SlotTable, write: usize, reached: usize) -> Blocks {
        let (new, mut blocks) = (new.to_block(), *blocks);
        blocks[1][..if write == 0 { reached } else { SECTOR_BYTES }]
            .copy_from_slice(&new[..if write == 0 { reached } else { SECTOR_BYTES }]);
        if write == 1 {
            blocks[0][..reached].copy_from_slice(&new[..reached]);
        }
        blocks
    }

    /// Cut the power in any write of a tag, tear any sector: the next boot finds its own disk beside
    /// the copy that was made before, beside the one that was made just then, and beside an image.
    #[test]
    fn after_every_cut_of_a_tags_write_the_machine_finds_itself_and_no_copy() {
        let image = SlotTable::FRESH;
        let own = image.with_tag(DiskTag::new([0xc4; 16]));
        let counted = own.with_tag(own.tag.next_boot());
        let renewed = own.with_tag(DiskTag::new([0x39; 16]));
        for (old, new) in [(image, own), (own, counted), (counted, renewed), (image, renewed)] {
            let before = [old.to_block(), old.to_block()];
            for (write, reached) in (0..2).flat_map(|write| (0..=SECTOR_BYTES).map(move |at| (write, at))) {
                let cut = cut_write(&before, new, write, reached);
                let mut blocks = cut;

                let known = select(&mut blocks);

                let others = [tags_in(&before), tags_in(&cut), tags_in(&[image.to_block(); 2])];
                for other in others {
                    let disks = [other, tags_in(&blocks)];
                    let chosen = choose_disk(known, &disks, Arrivals::Over);
                    assert_eq!(chosen, Choice::Only(1), "{old:?} -> {new:?}, write {write} at {reached}");
                }
            }
        }
    }

    /// The selector cannot write to a copy that is garbage; then being alone decides.
    #[test]
    fn with_one_or_both_copies_garbage_no_other_disk_is_ever_chosen() {
        let table = SlotTable::FRESH.with_tag(SETTLED).to_block();
        let garbage = [0xa5; BLOCK_BYTES];
        for (mut blocks, expected) in [
            ([garbage, table], [Choice::Only(1), Choice::Only(1)]),
            ([table, garbage], [Choice::Ambiguous(vec![0, 1]), Choice::Only(1)]),
            ([garbage, garbage], [Choice::Ambiguous(vec![0, 1]), Choice::Ambiguous(vec![0, 1])]),
        ] {
            let copy = tags_in(&blocks);
            let known = select(&mut blocks);
            let own = tags_in(&blocks);

            let beside = [copy, both(FRESH)].map(|other| choose_disk(known, &[other, own], Arrivals::Over));

            assert_eq!(beside, expected);
            assert_eq!(choose_disk(known, &[own], Arrivals::Over), Choice::Only(0));
        }
    }

    #[test]
    fn without_a_slot_table_only_a_disk_that_is_alone_is_chosen() {
        for tags in [both(SETTLED), both(FRESH), [None, None]] {
            assert_eq!(choose_disk(KnownDisk::Unknown, &[tags], Arrivals::Expected), Choice::Nothing);
            assert_eq!(choose_disk(KnownDisk::Unknown, &[tags], Arrivals::Over), Choice::Only(0));
            let two = [tags, both(SETTLED)];
            assert_eq!(choose_disk(KnownDisk::Unknown, &two, Arrivals::Over), Choice::Ambiguous(vec![0, 1]));
        }
    }
}
