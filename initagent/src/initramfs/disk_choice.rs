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
pub(super) fn choose(known: KnownDisk, disks: &[Tags], arrivals: Arrivals) -> Choice {
    // The selector writes env1 and then env0: when only one could be written, one copy holds the tag.
    let holds = |tags: &Tags| match known {
        KnownDisk::Read(tag) | KnownDisk::Written(tag) => tags.contains(&Some(tag)),
        // What GRUB could not read may still be readable here, so every disk could be meant.
        KnownDisk::Unknown => true,
    };
    let fitting: Vec<usize> = (0..disks.len()).filter(|index| holds(&disks[*index])).collect();
    let unique = matches!(known, KnownDisk::Written(_));
    match fitting[..] {
        [only] if unique || arrivals == Arrivals::Over => Choice::Only(only),
        [] | [_] => Choice::Nothing,
        _ => Choice::Ambiguous(fitting),
    }
}

#[cfg(test)]
mod tests {
    use image_format::slot::{Condition, SlotTable, boot_decision};

    use super::*;

    const SETTLED: DiskTag = DiskTag::new([7; 16]);
    const FRESH: DiskTag = DiskTag::UNSET;

    fn both(tag: DiskTag) -> Tags {
        [Some(tag), Some(tag)]
    }

    /// What the selector does to the tags of its disk, and what it hands on.
    fn started(tag: DiskTag) -> (KnownDisk, Tags) {
        let block = SlotTable::FRESH.with_tag(tag).to_block();
        let Condition::Saves(table) = boot_decision(&block, &block).attempts[0].condition else { panic!() };
        (KnownDisk::Written(table.tag), both(table.tag))
    }

    #[test]
    fn the_disk_that_was_started_is_chosen_beside_every_other_in_every_order() {
        for (own, other) in [(SETTLED, SETTLED), (SETTLED, FRESH), (FRESH, SETTLED), (FRESH, FRESH)] {
            let (known, own) = started(own);
            for arrivals in [Arrivals::Expected, Arrivals::Over] {
                assert_eq!(choose(known, &[own, both(other)], arrivals), Choice::Only(0));
                assert_eq!(choose(known, &[both(other), own], arrivals), Choice::Only(1));
                assert_eq!(choose(known, &[both(other)], arrivals), Choice::Nothing);
                assert_eq!(choose(known, &[both(other), own, both(other)], arrivals), Choice::Only(1));
            }
        }
    }

    #[test]
    fn one_written_copy_of_the_table_is_enough() {
        let (known, [_, written]) = started(SETTLED);
        for tags in [[None, written], [written, None], [Some(SETTLED), written]] {
            let disks = [both(SETTLED), tags];

            assert_eq!(choose(known, &disks, Arrivals::Expected), Choice::Only(1), "{tags:?}");
        }
    }

    /// Two copies that were each started alone and never came so far as to get tags of their own.
    #[test]
    fn disks_that_were_counted_up_to_the_same_tag_stop_the_machine() {
        let (known, own) = started(FRESH);
        let disks = [own, both(SETTLED), own];

        assert_eq!(choose(known, &disks, Arrivals::Expected), Choice::Ambiguous(vec![0, 2]));
    }

    #[test]
    fn a_tag_that_could_not_be_written_counts_only_when_no_more_disks_come() {
        let known = KnownDisk::Read(SETTLED);
        let alone = [both(FRESH), both(SETTLED)];
        assert_eq!(choose(known, &alone, Arrivals::Expected), Choice::Nothing);
        assert_eq!(choose(known, &alone, Arrivals::Over), Choice::Only(1));

        let copied = [both(SETTLED), both(SETTLED)];
        for arrivals in [Arrivals::Expected, Arrivals::Over] {
            assert_eq!(choose(known, &copied, arrivals), Choice::Ambiguous(vec![0, 1]));
        }
    }

    #[test]
    fn without_a_slot_table_only_a_disk_that_is_alone_is_chosen() {
        for tags in [both(SETTLED), both(FRESH), [None, None]] {
            assert_eq!(choose(KnownDisk::Unknown, &[tags], Arrivals::Expected), Choice::Nothing);
            assert_eq!(choose(KnownDisk::Unknown, &[tags], Arrivals::Over), Choice::Only(0));
            let two = [tags, both(SETTLED)];
            assert_eq!(choose(KnownDisk::Unknown, &two, Arrivals::Over), Choice::Ambiguous(vec![0, 1]));
        }
    }
}
