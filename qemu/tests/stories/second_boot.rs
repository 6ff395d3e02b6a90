//! A machine that boots again is the machine it was, also with copies of its disk beside it.

use vm::arguments::Bus;

use crate::scene::{Scene, assert_calm, assert_runs_from_own_disk, facts, run, throw_away, wait_until_up};

pub(crate) fn changes_nothing(scene: &Scene) {
    let before = &scene.settling().facts;
    let (copy, fresh) = (scene.settled_copy(), scene.fresh_copy());
    let machine = scene.settled("second").beside(copy.path(), Bus::Virtio).beside(fresh.path(), Bus::Scsi);
    let mut running = machine.build().unwrap().start().unwrap();
    wait_until_up(&mut running);

    assert_runs_from_own_disk(&running);

    assert_eq!(&facts(&running), before);
    assert_calm(&running);
    // Otherwise udev finds it in the end, and nobody sees why the machine is slow.
    let log = run(&running, "sudo dmesg");
    let told =
        log.lines().find_map(|line| line.split_once("network cards: told udev of ")).map(|(_, cards)| cards);
    assert!(told.is_some_and(|cards| cards.split(", ").any(|card| card.starts_with('e'))), "{told:?}: {log}");

    throw_away(running);
    copy.assert_untouched();
    fresh.assert_untouched();
}
