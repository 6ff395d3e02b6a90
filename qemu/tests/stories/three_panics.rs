//! A good slot whose kernel panics in each boot gives way to the other after its tries.

use std::ffi::OsString;

use image_format::slot::Slot;

use crate::scene::{PATIENCE, Scene, slot, start_damaged, throw_away, wait_until_back};

/// By this the unit of [`crate::scene::SETTLED_USER_DATA`] knows its machine.
const PANICS: [&str; 2] = ["-smbios", "type=2,version=panics"];

pub(crate) fn change_the_slot(scene: &Scene) {
    let machine = scene.two_slots("panics").extra(PANICS.map(OsString::from)).build();
    let mut running = start_damaged(machine.unwrap(), |_| {});

    for _ in 0..3 {
        for words in ["starting slot A", "Kernel panic"] {
            running.wait_for_words(words, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    wait_until_back(&mut running);

    assert_eq!(slot(&running), Slot::B);
    let panics = running.console().console_text().unwrap().matches("Kernel panic - ").count();
    assert_eq!(panics, 3);
    throw_away(running);
}
