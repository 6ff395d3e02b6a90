//! The power goes at a random moment of the first boot: the next boot is well.
//!
//! One first boot is recorded; each story takes a moment of it and makes the disk that a power cut then could
//! have left: flushed writes are there, later ones by chance, the last one torn.

use vm::seeded_random::SeededRandom;
use vm::write_log::WriteLog;

use crate::scene::{Scene, run, throw_away, wait_until_up};

/// Each is a seed; the same seeds in each run.
pub(crate) const MOMENTS: std::ops::RangeInclusive<u64> = 1..=20;

pub(crate) fn at(scene: &Scene, moment: u64) {
    let log = WriteLog::read_log(&scene.settling().writes).unwrap();
    let machine = scene.fresh(&format!("cut-{moment}")).build().unwrap();
    let mut chance = SeededRandom::from_seed(moment);
    let cut = usize::try_from(chance.number_below(log.write_events().len() as u64)).unwrap();
    log.cut_power(&machine.edit_disk().unwrap(), cut, &mut chance).unwrap();

    let mut running = machine.start_machine().unwrap();
    wait_until_up(&mut running);
    let said = run(&running, "hostname; cat /etc/story /home/core/story; stat -c %U /home/core/story");

    assert_eq!(said, "settled\nonce upon a time\nby the fire\ncore\n", "cut before event {cut}");
    throw_away(running);
}
