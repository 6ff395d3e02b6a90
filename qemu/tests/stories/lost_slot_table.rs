//! One copy of the slot table is garbage, or both are.

use image_format::slot::{Slot, SlotState, SlotTable};
use vm::firmware::Firmware;
use vm::seeded_random::SeededRandom;

use crate::disk_map::DiskMap;
use crate::scene::{Scene, discard, slot, switch_off, wait_until_up};

pub(crate) fn first_copy(scene: &Scene) {
    let mut running = scene.damaged("env0-garbage", Firmware::Bios, |map| {
        // Only the second copy knows that slot B goes first.
        map.write_slot_table(SlotTable { priority: Slot::B, ..map.slot_table() });
        spoil(map, 0);
    });
    wait_until_up(&mut running);

    assert_eq!(slot(&running), Slot::B);

    let (machine, map) = switch_off(running);
    let table = map.slot_table();
    assert_eq!((table.priority, table.a, table.b), (Slot::B, SlotState::GOOD, SlotState::GOOD));
    assert!(!table.tag.is_used(), "a complete boot renews the tag");
    discard(&machine);
}

pub(crate) fn both_copies(scene: &Scene) {
    let mut running = scene.damaged("envs-garbage", Firmware::Uefi, |map| {
        spoil(map, 0);
        spoil(map, 1);
    });
    wait_until_up(&mut running);

    let booted = slot(&running);

    let (machine, map) = switch_off(running);
    let table = map.slot_table();
    assert_eq!((table.priority, table.slot_state(booted)), (booted, SlotState::GOOD));
    discard(&machine);
}

fn spoil(map: &DiskMap, copy: usize) {
    let mut chance = SeededRandom::from_seed(copy as u64);
    let garbage: Vec<u8> = (0..128).flat_map(|_| chance.next_number().to_le_bytes()).collect();
    map.edit().write(map.slot_table_offsets()[copy], &garbage).unwrap();
}
