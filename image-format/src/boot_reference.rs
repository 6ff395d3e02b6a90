//! The copies of the boot loaders that a release brings in its root: what a machine repairs its own by.
//!
//! Knows their names, and the places on a disk that two of them go by. Refuses to compare or write anything. Invariant:
//! the places are those that the selector was made for; on a disk with others, it would start nothing.

use std::fmt::Write as _;

use crate::gpt::PartitionTable;

/// Where they lie in the root, whose signature covers them.
pub const FOLDER: &str = "/usr/lib/catamaran/boot-loader";
/// The shim that firmware starts.
pub const SHIM: &str = "shimx64.efi";
/// The GRUB that shim starts.
pub const GRUB: &str = "grubx64.efi";
/// The MOK manager that shim starts when a signature does not fit.
pub const MOK_MANAGER: &str = "mmx64.efi";
/// The slot selector for UEFI.
pub const SELECTOR: &str = "grub.cfg";
/// GRUB's core image for BIOS, with the same selector in it, for no place yet.
pub const CORE: &str = "core.img";
/// GRUB's boot code for BIOS, for no place yet.
pub const BOOT_CODE: &str = "boot.img";
/// What [`describe_places`] says of the image's table.
pub const PLACES: &str = "places";

/// The places that selector and boot code name: those of all partitions but STATE, which grows.
#[must_use]
pub fn describe_places(table: &PartitionTable) -> String {
    let mut text = String::new();
    for entry in table.entries.iter().filter(|entry| entry.label != "STATE") {
        // A line for each, since people compare them by eye.
        let _ = writeln!(text, "{} {}+{}", entry.label, entry.first_lba, entry.byte_size().get() / 512);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::layout::{DiskLayout, PartitionSizes};

    #[test]
    fn the_places_do_not_depend_on_the_disk_or_on_state() {
        let layout = |guid: u128, root: u64, state: u64| {
            let sizes = PartitionSizes { root: Bytes::from_mib(root), state: Bytes::from_mib(state) };
            DiskLayout::plan_layout(uuid::Uuid::from_u128(guid), sizes).unwrap().partition_table()
        };

        let places = describe_places(&layout(1, 64, 8));

        assert_eq!(places, describe_places(&layout(2, 64, 900)));
        assert_ne!(places, describe_places(&layout(1, 65, 8)));
        assert_eq!(places.lines().count(), 5, "{places}");
        assert!(places.starts_with("BIOS "), "{places}");
    }
}
