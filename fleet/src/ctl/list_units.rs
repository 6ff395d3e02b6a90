//! `list-units`: what systemd says of every unit, on every machine.

use super::arguments::TableArguments;
use super::columns::{Column, table};
use super::session::{Complaint, Outcome, Session, chain};
use crate::api::schema::UnitState;

const DEFAULT: &str = "unit,machine,active,sub";

const COLUMNS: &[Column<UnitState>] = &[
    Column { name: "active", cell: |_, state, _| state.systemd_active_state.clone() },
    Column { name: "hash", cell: |_, state, full| short_hash(&state.hash, full) },
    Column { name: "load", cell: |_, state, _| state.systemd_load_state.clone() },
    Column { name: "machine", cell: machine },
    Column { name: "sub", cell: |_, state, _| state.systemd_sub_state.clone() },
    Column { name: "unit", cell: |_, state, _| state.name.clone() },
];

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &TableArguments) -> Outcome {
    let states = |session: &mut Session<'_>| {
        session.client.unit_states().map_err(|error| {
            Complaint::new(format_args!("Error retrieving list of units from repository: {}", chain(&error)))
        })
    };
    table(session, arguments, DEFAULT, COLUMNS, states)
}

fn machine(session: &mut Session<'_>, state: &UnitState, full: bool) -> String {
    if state.machine_id.is_empty() { String::new() } else { session.machine_legend(&state.machine_id, full) }
}

/// A hash as lists show it.
#[must_use]
pub fn short_hash(hash: &str, full: bool) -> String {
    if full { hash.to_owned() } else { hash.chars().take(7).collect() }
}
