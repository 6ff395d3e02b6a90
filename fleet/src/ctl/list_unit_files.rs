//! `list-unit-files`: every submitted unit, loaded anywhere or not.

use super::arguments::TableArguments;
use super::columns::{ListColumn, print_table};
use super::list_units::short_hash;
use super::session::{
    CommandError, CommandOutcome, CommandSession, IdLength, is_global, printable_chain, unit_file,
};
use crate::api::schema::ApiUnit;

const DEFAULT: &str = "unit,hash,dstate,state,target";

const COLUMNS: &[ListColumn<ApiUnit>] = &[
    ListColumn { name: "desc", cell: description_column },
    ListColumn { name: "dstate", cell: |_, unit, _| unit.desired_state.clone() },
    ListColumn { name: "global", cell: |_, unit, _| is_global(unit).to_string() },
    ListColumn { name: "hash", cell: |_, unit, length| hash(unit, length) },
    ListColumn { name: "note", cell: |_, unit, _| unit.note.clone() },
    ListColumn { name: "reason", cell: reason_column },
    ListColumn { name: "state", cell: state_column },
    ListColumn { name: "target", cell: target_column },
    ListColumn { name: "tmachine", cell: target_column },
    ListColumn { name: "unit", cell: |_, unit, _| unit.name.clone() },
];

/// Runs the verb.
pub fn run_list_unit_files(session: &mut CommandSession<'_>, arguments: &TableArguments) -> CommandOutcome {
    let units = |session: &mut CommandSession<'_>| {
        session.client.list_units().map_err(|error| {
            CommandError::new(format_args!(
                "Error retrieving list of units from repository: {}",
                printable_chain(&error)
            ))
        })
    };
    print_table(session, arguments, DEFAULT, COLUMNS, units)
}

fn description_column(_: &mut CommandSession<'_>, unit: &ApiUnit, _: IdLength) -> String {
    unit_file(unit).map(|file| file.description().to_owned()).unwrap_or_default()
}

fn hash(unit: &ApiUnit, length: IdLength) -> String {
    unit_file(unit).map(|file| short_hash(&file.hash().to_string(), length)).unwrap_or_default()
}

/// Why a unit that should be somewhere is nowhere.
fn reason_column(session: &mut CommandSession<'_>, unit: &ApiUnit, _: IdLength) -> String {
    let waits = unit.machine_id.is_empty()
        && !is_global(unit)
        && !matches!(unit.desired_state.as_str(), "" | "inactive");
    if !waits {
        return String::new();
    }
    session.client.explain_unit(&unit.name).map(|explanation| explanation.summary).unwrap_or_default()
}

fn state_column(_: &mut CommandSession<'_>, unit: &ApiUnit, _: IdLength) -> String {
    if is_global(unit) { String::new() } else { unit.current_state.clone() }
}

fn target_column(session: &mut CommandSession<'_>, unit: &ApiUnit, length: IdLength) -> String {
    if is_global(unit) {
        return "global".to_owned();
    }
    if unit.machine_id.is_empty() { String::new() } else { session.machine_legend(&unit.machine_id, length) }
}
