//! One bit of the active root is not what was signed: the machine comes back on the other slot.

use image_format::slot::{Slot, SlotState, SlotTable, Tries};
use vm::firmware::Firmware;

use crate::disk_map::DiskMap;
use crate::scene::{Scene, discard, slot, switch_off, wait_until_up};

/// Where ext4 keeps the volume's name: in every mount's way, and of no meaning to the boot loader.
const VOLUME_NAME: u64 = 1024 + 0x78;

pub(crate) fn superblock(scene: &Scene) {
    changes_the_slot(scene, "superblock", |map| map.root(Slot::A).start + VOLUME_NAME);
}

pub(crate) fn program(scene: &Scene) {
    // Found by the initramfs' check of nothing, but by the kernel when it runs the program.
    changes_the_slot(scene, "program", |map| {
        // The kernel panics each time, and that three times are enough is told by another story.
        let last_try = SlotState { good: true, tries: Tries::new(1).unwrap() };
        map.write_slot_table(SlotTable { a: last_try, ..map.slot_table() });
        map.file_block(Slot::A, "/usr/lib/systemd/systemd", 2)
    });
}

fn changes_the_slot(scene: &Scene, name: &str, place: impl Fn(&DiskMap) -> u64) {
    let mut running = scene.damaged(&format!("damaged-{name}"), Firmware::Bios, |map| {
        map.edit().flip_bit(place(map)).unwrap();
    });
    wait_until_up(&mut running);

    assert_eq!(slot(&running), Slot::B);

    let (machine, map) = switch_off(running);
    assert!(map.slot_table().b.good);
    discard(&machine);
}
