//! The primary partition table is gone: there is another at the disk's end.

use image_format::gpt;
use vm::firmware::Firmware;

use crate::scene::{Scene, throw_away, wait_until_back};

pub(crate) fn bios(scene: &Scene) {
    boots(scene, Firmware::Bios);
}

pub(crate) fn uefi(scene: &Scene) {
    boots(scene, Firmware::Uefi);
}

fn boots(scene: &Scene, firmware: Firmware) {
    let name = format!("no-gpt-{firmware:?}").to_lowercase();

    let mut running = scene.damaged(&name, firmware, |map| {
        map.edit().zero(gpt::PRIMARY_OFFSET.get(), gpt::COPY_BYTES as u64).unwrap();
    });

    wait_until_back(&mut running);
    throw_away(running);
}
