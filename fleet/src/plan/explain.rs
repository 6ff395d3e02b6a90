//! Says, machine by machine, whether a unit could run there, and why not.
//!
//! Knows what each machine of a cluster holds; the rules are those of [`super::rules`]. Invariant: asking
//! changes nothing.

use std::collections::BTreeMap;

use crate::{
    model::{machine::MachineId, unit_name::UnitName},
    plan::{
        globals,
        rules::{MachineGuests, PlacementRefusal, check_placement, is_wanted},
    },
    store::cluster::{Cluster, SubmittedUnit},
};

/// What one machine says to a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementVerdict {
    /// The machine.
    pub machine: MachineId,
    /// How many units it holds.
    pub load: usize,
    /// Whether the unit is scheduled there.
    pub chosen: bool,
    /// Why it cannot be there; `None` when it could.
    pub refusal: Option<PlacementRefusal>,
}

/// The verdict of every present machine on a unit, by machine ID. `None` for an unknown unit.
#[must_use]
pub fn explain_unit(cluster: &Cluster, unit: &str) -> Option<Vec<PlacementVerdict>> {
    let unit = cluster.units.get(unit)?;
    let target = cluster.target_of(unit.name.as_str());
    let guests = guests_by_machine(cluster, &unit.name);
    let none = MachineGuests::default();
    let verdicts = cluster.machines.values().map(|machine| {
        let guests = guests.get(&machine.id).unwrap_or(&none);
        PlacementVerdict {
            machine: machine.id.clone(),
            load: guests.units.len(),
            chosen: target == Some(&machine.id),
            refusal: check_placement(&unit.name, &unit.requirements, machine, guests).err(),
        }
    });
    Some(verdicts.collect())
}

/// The units of each present machine, without `except`.
#[must_use]
pub fn guests_by_machine<'a>(
    cluster: &'a Cluster,
    except: &UnitName,
) -> BTreeMap<MachineId, MachineGuests<'a>> {
    let mut guests: BTreeMap<MachineId, MachineGuests<'a>> = BTreeMap::new();
    for (name, assignment) in &cluster.assignments {
        if let Some(unit) = cluster.units.get(name).filter(|unit| is_wanted(unit) && !unit.is_global()) {
            let guests = guests.entry(assignment.machine.clone()).or_default();
            guests.units.push((&unit.name, &unit.requirements));
        }
    }
    let all_globals: Vec<&SubmittedUnit> =
        cluster.units.values().filter(|unit| unit.is_global() && is_wanted(unit)).collect();
    for machine in cluster.machines.values() {
        let here = guests.entry(machine.id.clone()).or_default();
        let globals = globals::globals_on(machine, &all_globals, here);
        here.units.extend(globals.into_iter().map(|unit| (&unit.name, &*unit.requirements)));
        here.units.retain(|(name, _)| *name != except);
    }
    guests
}
