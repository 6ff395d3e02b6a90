//! The bare-metal flavour, on the devices of a real computer.
//!
//! An image of its own, which takes minutes to make: told only where `CATAMARAN_METAL_IMAGE` names one.

use std::path::PathBuf;

use vm::firmware::Firmware;
use vm::options::DeviceSet;

use crate::runner::Story;
use crate::scene::{Scene, run, throw_away, wait_until_up};

/// The stories, if there is an image to tell them of.
pub(crate) fn stories() -> Vec<Story> {
    let Some(image) = std::env::var_os("CATAMARAN_METAL_IMAGE").map(PathBuf::from) else { return Vec::new() };
    [("metal_uefi", Firmware::Uefi), ("metal_bios", Firmware::Bios)]
        .map(|(name, firmware)| {
            let image = image.clone();
            Story::every_time(name, move |_| comes_up(&Scene::new(image.clone()), firmware))
        })
        .into()
}

fn comes_up(scene: &Scene, firmware: Firmware) {
    let machine = scene.fresh("metal").firmware(firmware).devices(DeviceSet::Physical).memory(2048).build();
    let mut running = machine.unwrap().start_machine().unwrap();
    wait_until_up(&mut running);

    let said = run(&running, "hostname; findmnt -no SOURCE /var; uname -r; sudo initagent slots");
    assert!(said.starts_with("settled\n/dev/nvme0n1p6"), "{said}");
    assert!(!said.contains("cloud"), "it runs the clouds' kernel: {said}");
    assert!(said.contains("3 of 3"), "its slot was not marked good: {said}");
    throw_away(running);
}
