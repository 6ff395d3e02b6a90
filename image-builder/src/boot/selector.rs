//! The slot selector: a GRUB script, the same for BIOS and UEFI, that decides which slot boots.
//!
//! `image_format::slot` holds the same decision as a function; the boot stories run the script. Rules: a try is spent, and saved in both copies of the slot
//! table, before a slot boots; an unproven slot boots only if that was saved; a kernel that cannot be
//! read falls through to the other slot in the same boot; a good slot without tries left is demoted
//! behind the other; when nothing is left, good slots boot uncounted, then anything, then a reboot.

use image_format::layout::{Layout, Partition, Placed, Role};
use image_format::slot::Slot;
use uuid::Uuid;

/// Seconds before a machine without a bootable slot tries again.
const PAUSE: u32 = 30;

/// The script for the disk with this GUID and layout.
pub(crate) fn script(disk: Uuid, layout: &Layout) -> String {
    let extent = |role| {
        let Placed { first_lba, sectors, .. } = layout.place(role);
        format!("{first_lba}+{sectors}")
    };
    let guid = |role| Partition::of(role).guid(disk).to_string();
    include_str!("selector.cfg")
        .replace("@ABSTATE_EXTENT@", &extent(Role::Abstate))
        .replace("@ROOT_A_EXTENT@", &extent(Role::Root(Slot::A)))
        .replace("@ROOT_B_EXTENT@", &extent(Role::Root(Slot::B)))
        .replace("@ROOT_A_GUID@", &guid(Role::Root(Slot::A)))
        .replace("@ROOT_B_GUID@", &guid(Role::Root(Slot::B)))
        .replace("@ABSTATE_GUID@", &guid(Role::Abstate))
        .replace("@STATE_GUID@", &guid(Role::State))
        .replace("@PAUSE@", &PAUSE.to_string())
}

#[cfg(test)]
mod tests {
    use image_format::bytes::Bytes;
    use image_format::layout::Sizes;

    use super::*;

    #[test]
    fn every_place_and_identifier_is_filled_in() {
        let disk = Uuid::from_u128(7);
        let layout = Layout::plan(disk, Sizes { root: Bytes::GIB, state: Bytes::mib(64) }).unwrap();

        let script = script(disk, &layout);

        assert!(!script.contains('@'), "{script}");
        let root_b = layout.place(Role::Root(Slot::B));
        assert!(script.contains(&format!("loopback root_b ($disk){}+{}", root_b.first_lba, root_b.sectors)));
        assert!(script.contains(&format!("catamaran.root={}", root_b.partition.guid(disk))));
    }
}
