//! Which global units a machine runs: all that its metadata allows and nothing on it conflicts with.
//!
//! Knows that nobody schedules them: every agent decides for itself, so the rule must give all of them
//! the same answer. Invariant: of two global units that conflict, the first by name wins.

use crate::{
    model::machine::Machine,
    plan::explain::{Guests, check},
    store::cluster::Unit,
};

/// The ones of `globals` (by name) that `machine` runs beside the units scheduled on it. A draining
/// machine keeps them: they go down with it and come up with it.
#[must_use]
pub fn on<'a>(machine: &Machine, globals: &[&'a Unit], scheduled: &Guests<'a>) -> Vec<&'a Unit> {
    let mut guests = scheduled.clone();
    let mut running = Vec::new();
    // Only metadata and company decide: a global unit is meant for every machine, full or not.
    let roomy = Machine { max_units: None, capacity: None, draining: false, ..machine.clone() };
    for unit in globals {
        if check(&unit.name, &unit.requirements, &roomy, &guests).is_ok() {
            guests.units.push((&unit.name, &unit.requirements));
            running.push(*unit);
        }
    }
    running
}
