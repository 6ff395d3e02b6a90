//! The slot selector: a GRUB script, the same for BIOS and UEFI, that decides which slot boots.
//!
//! `image_format::slot` holds the same decision as a function; the boot stories run the script. Rules: a try is spent, and saved in both copies of the slot
//! table, before a slot boots; an unproven slot boots only if that was saved; a kernel that cannot be
//! read falls through to the other slot in the same boot; a good slot without tries left is demoted
//! behind the other; when nothing is left, good slots boot uncounted, then anything, then a reboot.

use image_format::layout::{DiskLayout, PartitionRole, PlacedPartition};
use image_format::slot::Slot;

/// Seconds before a machine without a bootable slot tries again.
// Long enough to read the screen, and short enough for a disk that answers late.
const PAUSE: u32 = 30;

/// The script for disks with this layout.
pub(crate) fn selector_script(layout: &DiskLayout) -> String {
    // GRUB's block list, first sector and count: found without the partition table, which may be lost.
    let extent = |role| {
        let PlacedPartition { first_lba, sectors, .. } = layout.partition_of(role);
        format!("{first_lba}+{sectors}")
    };
    include_str!("selector.cfg")
        .replace("@ABSTATE_EXTENT@", &extent(PartitionRole::Abstate))
        .replace("@ROOT_A_EXTENT@", &extent(PartitionRole::Root(Slot::A)))
        .replace("@ROOT_B_EXTENT@", &extent(PartitionRole::Root(Slot::B)))
        .replace("@PAUSE@", &PAUSE.to_string())
}

#[cfg(test)]
mod tests {
    use image_format::bytes::Bytes;
    use image_format::layout::PartitionSizes;

    use super::*;

    #[test]
    fn every_place_and_identifier_is_filled_in() {
        let layout = DiskLayout::plan_layout(
            uuid::Uuid::from_u128(7),
            PartitionSizes { root: Bytes::GIB, state: Bytes::from_mib(64) },
        )
        .unwrap();

        let script = selector_script(&layout);

        assert!(!script.contains('@'), "{script}");
        let root_b = layout.partition_of(PartitionRole::Root(Slot::B));
        assert!(script.contains(&format!("loopback root_b ($disk){}+{}", root_b.first_lba, root_b.sectors)));
    }

    /// Whatever is the same on two disks of one image can only be found on the wrong one of them.
    #[test]
    fn nothing_in_the_script_finds_a_disk_by_what_a_copy_of_it_also_has() {
        let layout = DiskLayout::plan_layout(
            uuid::Uuid::from_u128(7),
            PartitionSizes { root: Bytes::GIB, state: Bytes::from_mib(64) },
        );
        let layout = layout.unwrap();

        let script = selector_script(&layout);

        for line in script.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            assert!(!line.contains("search"), "{line}");
        }
        for partition in layout.partitions() {
            assert!(
                !script.contains(&layout.partition_guid(partition.partition.role).to_string()),
                "{script}"
            );
        }
        assert!(script.contains("catamaran.slot=$name catamaran.disk=$known;"), "{script}");
    }

    /// A copy of the slot table is one sector, so what the script saves is what it loads.
    #[test]
    fn the_variables_that_are_loaded_are_those_that_are_saved() {
        let variables: Vec<&str> = include_str!("selector.cfg")
            .lines()
            .filter_map(|line| line.split_once("_env --file \"($ab)/"))
            .map(|(_, rest)| rest.split_once("\" ").unwrap().1.split(';').next().unwrap())
            .collect();

        assert_eq!(variables, ["prio a_ok a_tries b_ok b_tries tag"; 3]);
    }
}
