//! Which global units a machine runs: all that its metadata allows and nothing on it conflicts with; and
//! in which content, while another one is on its way to it.
//!
//! Knows that nobody schedules them: every agent decides for itself, so the rule must give all of them
//! the same answer. Invariant: of two global units that conflict, the first by name wins.

use crate::{
    model::{
        machine::Machine,
        state::JobState,
        unit_file::{UnitFile, UnitHash},
    },
    plan::rules::{MachineGuests, check_placement},
    store::cluster::{ChangeDirection, Cluster, SubmittedUnit},
};

/// The ones of `globals` (by name) that `machine` runs beside the units scheduled on it. A draining
/// machine keeps them: they go down with it and come up with it.
#[must_use]
pub fn globals_on<'a>(
    machine: &Machine,
    globals: &[&'a SubmittedUnit],
    scheduled: &MachineGuests<'a>,
) -> Vec<&'a SubmittedUnit> {
    let mut guests = scheduled.clone();
    let mut running = Vec::new();
    // Only metadata and company decide: a global unit is meant for every machine, full or not.
    // Nobody schedules a global unit, so no limit of the scheduler holds for it.
    let roomy = Machine { max_units: None, capacity: None, draining: false, ..machine.clone() };
    for unit in globals {
        if check_placement(&unit.name, &unit.requirements, &roomy, &guests).is_ok() {
            guests.units.push((&unit.name, &unit.requirements));
            running.push(*unit);
        }
    }
    running
}

/// The content in which a machine runs a global unit. While a change is being rolled out, a machine keeps
/// what it holds until it is admitted to the new one; who comes new gets the content that proved well.
#[must_use]
pub fn content_for<'a>(
    cluster: &'a Cluster,
    unit: &'a SubmittedUnit,
    machine: &Machine,
    held: Option<UnitHash>,
) -> &'a UnitFile {
    let wanted = unit.file.hash();
    let (Some(direction), JobState::Launched) = (unit.rollout, unit.desired) else { return &unit.file };
    let stays = held != Some(wanted) && !cluster.is_admitted(unit, &machine.id);
    let former = unit.previous.filter(|former| match direction {
        ChangeDirection::Back => stays && held == Some(*former),
        ChangeDirection::Forward => stays,
    });
    former.and_then(|former| cluster.files.get(&former)).unwrap_or(&unit.file)
}
