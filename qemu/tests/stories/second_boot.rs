//! A machine that boots again is the machine it was.

use crate::scene::{Scene, assert_calm, facts, throw_away, wait_until_up};

pub(crate) fn changes_nothing(scene: &Scene) {
    let before = &scene.settling().facts;
    let mut running = scene.settled("second").build().unwrap().start().unwrap();
    wait_until_up(&mut running);

    assert_eq!(&facts(&running), before);
    assert_calm(&running);

    throw_away(running);
}
