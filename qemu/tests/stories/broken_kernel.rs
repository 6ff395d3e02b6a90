//! The active slot's kernel is gone: the selector takes the other slot in the same boot.

use image_format::slot::Slot;
use vm::firmware::Firmware;

use crate::scene::{Scene, slot, throw_away, wait_until_back};

pub(crate) fn bios(scene: &Scene) {
    falls_through(scene, Firmware::Bios);
}

pub(crate) fn uefi(scene: &Scene) {
    falls_through(scene, Firmware::Uefi);
}

fn falls_through(scene: &Scene, firmware: Firmware) {
    let name = format!("no-kernel-{firmware:?}").to_lowercase();
    let mut running = scene.damaged(&name, firmware, |map| {
        map.edit().write_zeros(map.kernel(Slot::A), 1 << 20).unwrap();
    });
    wait_until_back(&mut running);

    assert_eq!(slot(&running), Slot::B);
    let kernels = running.console().console_text().unwrap().matches("Linux version ").count();
    assert!(kernels <= 1, "{kernels} kernels started, so it took more than one boot");

    throw_away(running);
}
