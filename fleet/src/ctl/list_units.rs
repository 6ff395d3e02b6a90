//! `list-units`: what systemd says of every unit, on every machine.

use super::arguments::TableArguments;
use super::columns::{ListColumn, print_table};
use super::session::{CommandError, CommandOutcome, CommandSession, IdLength, printable_chain};
use crate::api::schema::UnitState;

const DEFAULT: &str = "unit,machine,active,sub";

const COLUMNS: &[ListColumn<UnitState>] = &[
    ListColumn { name: "active", cell: |_, state, _| state.systemd_active_state.clone() },
    ListColumn { name: "hash", cell: |_, state, length| short_hash(&state.hash, length) },
    ListColumn { name: "load", cell: |_, state, _| state.systemd_load_state.clone() },
    ListColumn { name: "machine", cell: machine_column },
    ListColumn { name: "sub", cell: |_, state, _| state.systemd_sub_state.clone() },
    ListColumn { name: "unit", cell: |_, state, _| state.name.clone() },
];

/// Runs the verb.
pub fn run_list_units(session: &mut CommandSession<'_>, arguments: &TableArguments) -> CommandOutcome {
    let states = |session: &mut CommandSession<'_>| {
        session.client.unit_states().map_err(|error| {
            CommandError::new(format_args!(
                "Error retrieving list of units from repository: {}",
                printable_chain(&error)
            ))
        })
    };
    print_table(session, arguments, DEFAULT, COLUMNS, states)
}

fn machine_column(session: &mut CommandSession<'_>, state: &UnitState, length: IdLength) -> String {
    if state.machine_id.is_empty() {
        String::new()
    } else {
        session.machine_legend(&state.machine_id, length)
    }
}

/// A hash as lists show it.
#[must_use]
pub fn short_hash(hash: &str, length: IdLength) -> String {
    match length {
        IdLength::Full => hash.to_owned(),
        IdLength::Short => hash.chars().take(7).collect(),
    }
}
