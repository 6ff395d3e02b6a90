//! `list-unit-files`: every submitted unit, loaded anywhere or not.

use super::arguments::TableArguments;
use super::columns::{Column, table};
use super::list_units::short_hash;
use super::session::{Complaint, Outcome, Session, chain, is_global, unit_file};
use crate::api::schema::Unit;

const DEFAULT: &str = "unit,hash,dstate,state,target";

const COLUMNS: &[Column<Unit>] = &[
    Column { name: "desc", cell: description },
    Column { name: "dstate", cell: |_, unit, _| unit.desired_state.clone() },
    Column { name: "global", cell: |_, unit, _| is_global(unit).to_string() },
    Column { name: "hash", cell: |_, unit, full| hash(unit, full) },
    Column { name: "note", cell: |_, unit, _| unit.note.clone() },
    Column { name: "reason", cell: reason },
    Column { name: "state", cell: state },
    Column { name: "target", cell: target },
    Column { name: "tmachine", cell: target },
    Column { name: "unit", cell: |_, unit, _| unit.name.clone() },
];

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &TableArguments) -> Outcome {
    let units = |session: &mut Session<'_>| {
        session.client.units().map_err(|error| {
            Complaint::new(format_args!("Error retrieving list of units from repository: {}", chain(&error)))
        })
    };
    table(session, arguments, DEFAULT, COLUMNS, units)
}

fn description(_: &mut Session<'_>, unit: &Unit, _: bool) -> String {
    unit_file(unit).map(|file| file.description().to_owned()).unwrap_or_default()
}

fn hash(unit: &Unit, full: bool) -> String {
    unit_file(unit).map(|file| short_hash(&file.hash().to_string(), full)).unwrap_or_default()
}

/// Why a unit that should be somewhere is nowhere.
fn reason(session: &mut Session<'_>, unit: &Unit, _: bool) -> String {
    let waits = unit.machine_id.is_empty()
        && !is_global(unit)
        && !matches!(unit.desired_state.as_str(), "" | "inactive");
    if !waits {
        return String::new();
    }
    session.client.explain(&unit.name).map(|explanation| explanation.summary).unwrap_or_default()
}

fn state(_: &mut Session<'_>, unit: &Unit, _: bool) -> String {
    if is_global(unit) { String::new() } else { unit.current_state.clone() }
}

fn target(session: &mut Session<'_>, unit: &Unit, full: bool) -> String {
    if is_global(unit) {
        return "global".to_owned();
    }
    if unit.machine_id.is_empty() { String::new() } else { session.machine_legend(&unit.machine_id, full) }
}
