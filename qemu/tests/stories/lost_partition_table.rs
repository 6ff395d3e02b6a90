//! The primary partition table is gone: there is another at the disk's end.

use image_format::gpt;
use vm::firmware::Firmware;
use vm::options::Bus;

use crate::disk_map::DiskMap;
use crate::scene::{PATIENCE, Scene, assert_runs_from_own_disk, start_damaged, throw_away, wait_until_back};

/// GRUB cannot write without a partition table, so nothing tells the disk from a copy of it: the machine
/// waits for a person, who detaches the copy.
pub(crate) fn bios(scene: &Scene) {
    let copy = scene.two_slots_copy();
    let machine = scene.two_slots("no-gpt-bios").beside(copy.path(), Bus::Scsi).build().unwrap();
    let mut running = start_damaged(machine, lose_table);
    let doubt = running.wait_for_words("the machine was started from one of", PATIENCE).unwrap();
    assert!(doubt.contains("/dev/sda and /dev/vda") && doubt.contains("Detach"), "{doubt}");

    running.detach_disk(0).unwrap();

    wait_until_back(&mut running);
    assert_runs_from_own_disk(&running);
    throw_away(running);
    copy.assert_untouched();
}

pub(crate) fn uefi(scene: &Scene) {
    let mut running = scene.damaged("no-gpt-uefi", Firmware::Uefi, lose_table);
    wait_until_back(&mut running);
    throw_away(running);
}

fn lose_table(map: &DiskMap) {
    map.edit().write_zeros(gpt::PRIMARY_OFFSET.get(), gpt::COPY_BYTES as u64).unwrap();
}
