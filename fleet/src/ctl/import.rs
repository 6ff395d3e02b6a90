//! `import`: the units of another fleet, copied through its API; an old fleet's too.
//!
//! Reads only what every fleet since v0.8 serves, and never writes to the other side. Units arrive
//! inactive, since they probably still run over there; `--start` also asks for the states they have there.

use super::arguments::ImportArguments;
use super::client::ApiClient;
use super::dial;
use super::endpoint::ApiEndpoint;
use super::session::{CommandError, CommandOutcome, CommandSession, printable_chain, unit_file, unit_name};
use super::settings::ClientSettings;
use super::table::printable_text;
use crate::api::schema::ApiUnit;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// What is done with one unit of the other fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ImportStep {
    /// Nothing: it is here already, the same.
    Keep,
    /// Nothing: it is here already, with another text, and that stays.
    Differs,
    /// It is created, or its text replaced.
    Put(ApiUnit),
    /// It is here, the same, but another state is wanted.
    Want(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImportMode {
    CarryOut,
    DryRun,
}

/// Runs the verb.
pub fn run_import(session: &mut CommandSession<'_>, arguments: &ImportArguments) -> CommandOutcome {
    let theirs = other_units(session, arguments)?;
    let ours: BTreeMap<String, ApiUnit> =
        session.client.list_units()?.into_iter().map(|unit| (unit.name.clone(), unit)).collect();
    let mode = if arguments.dry_run { ImportMode::DryRun } else { ImportMode::CarryOut };
    let mut exit = 0;
    for unit in &theirs {
        let step = plan_import(unit, ours.get(&unit.name), arguments);
        if step == ImportStep::Differs {
            session.print_warning(format_args!(
                "Unit {} is here already with another text. Add --replace to override.",
                printable_text(&unit.name)
            ));
        }
        if let Err(words) = carry_out(session, unit, &step, mode) {
            session
                .print_warning(format_args!("Error importing unit {}: {words}", printable_text(&unit.name)));
            exit = 1;
            continue;
        }
        report_step(session, unit, &step, mode)?;
    }
    if theirs.is_empty() {
        session.print_warning(format_args!("No units at {}", arguments.from));
    }
    Ok(exit)
}

fn other_units(
    session: &CommandSession<'_>,
    arguments: &ImportArguments,
) -> Result<Vec<ApiUnit>, CommandError> {
    let endpoint = ApiEndpoint::parse(&arguments.from).map_err(|error| {
        CommandError::new(format_args!("Unable to import from {}: {error}", arguments.from))
    })?;
    // A tunnel leads to our own cluster.
    let mut settings: ClientSettings = session.settings.clone();
    settings.ssh.tunnel = None;
    let agent =
        dial::http_agent(&endpoint, &settings).map_err(|error| CommandError::new(printable_chain(&error)))?;
    let other = ApiClient::new(agent, &endpoint);
    let all = other
        .list_units()
        .map_err(|error| CommandError::new(format_args!("Unable to import: {}", printable_chain(&error))))?;
    let wanted: BTreeSet<String> = arguments.units.iter().map(|argument| unit_name(argument)).collect();
    if let Some(missing) = wanted.iter().find(|name| !all.iter().any(|unit| &unit.name == *name)) {
        return Err(CommandError::new(format_args!("Unit {missing} does not exist at {}", arguments.from)));
    }
    Ok(all.into_iter().filter(|unit| wanted.is_empty() || wanted.contains(&unit.name)).collect())
}

/// What to do with a unit of theirs, given ours of the same name.
fn plan_import(theirs: &ApiUnit, ours: Option<&ApiUnit>, arguments: &ImportArguments) -> ImportStep {
    let desired = if arguments.start { theirs.desired_state.clone() } else { String::new() };
    let put = |desired_state: String| {
        ImportStep::Put(ApiUnit {
            name: theirs.name.clone(),
            options: theirs.options.clone(),
            desired_state,
            ..ApiUnit::default()
        })
    };
    let Some(ours) = ours else { return put(desired) };
    if ours.options != theirs.options {
        // A replaced unit goes on as it is unless --start says otherwise.
        let goes_on = if desired.is_empty() { ours.desired_state.clone() } else { desired };
        return if arguments.replace { put(goes_on) } else { ImportStep::Differs };
    }
    if desired.is_empty() || desired == ours.desired_state {
        ImportStep::Keep
    } else {
        ImportStep::Want(desired)
    }
}

fn carry_out(
    session: &CommandSession<'_>,
    theirs: &ApiUnit,
    step: &ImportStep,
    mode: ImportMode,
) -> Result<(), String> {
    match step {
        ImportStep::Put(unit) => {
            unit_file(unit).map_err(|complaint| complaint.text)?;
            if mode == ImportMode::DryRun {
                return Ok(());
            }
            session.client.put_unit(unit).map_err(|error| printable_chain(&error))
        }
        ImportStep::Want(state) if mode == ImportMode::CarryOut => {
            session.client.set_desired_state(&theirs.name, state).map_err(|error| printable_chain(&error))
        }
        ImportStep::Want(_) | ImportStep::Keep | ImportStep::Differs => Ok(()),
    }
}

fn report_step(
    session: &mut CommandSession<'_>,
    theirs: &ApiUnit,
    step: &ImportStep,
    mode: ImportMode,
) -> Result<(), CommandError> {
    let name = printable_text(&theirs.name);
    let (word, state) = match step {
        ImportStep::Put(unit) => ("imported", unit.desired_state.as_str()),
        ImportStep::Want(state) => ("wanted", state.as_str()),
        ImportStep::Keep => ("same", ""),
        ImportStep::Differs => ("differs", ""),
    };
    if session.is_json() {
        return session
            .print_json(&json!({ "unit": name, "result": word, "desiredState": state, "dryRun": mode == ImportMode::DryRun }));
    }
    let would = match mode {
        ImportMode::CarryOut => "Imported",
        ImportMode::DryRun => "Would import",
    };
    let state = if state.is_empty() { "inactive" } else { state };
    match step {
        ImportStep::Put(_) => session.print_line(format_args!("{would} unit {name}, wanted {state}")),
        ImportStep::Want(_) => session.print_line(format_args!("Found same unit {name}, wanted {state}")),
        ImportStep::Keep => session.print_line(format_args!("Found same unit {name}, nothing to do")),
        ImportStep::Differs => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::UnitOption;

    fn unit(value: &str, desired: &str) -> ApiUnit {
        let option = UnitOption { name: "ExecStart".into(), section: "Service".into(), value: value.into() };
        ApiUnit {
            name: "a.service".into(),
            options: vec![option],
            desired_state: desired.into(),
            ..ApiUnit::default()
        }
    }

    fn decide(theirs: &ApiUnit, ours: Option<&ApiUnit>, start: bool, replace: bool) -> ImportStep {
        let arguments =
            ImportArguments { dry_run: false, from: "http://old".into(), replace, start, units: vec![] };
        plan_import(theirs, ours, &arguments)
    }

    #[test]
    fn units_arrive_inactive_unless_they_are_to_be_started() {
        let theirs = unit("x", "launched");

        assert_eq!(decide(&theirs, None, false, false), ImportStep::Put(unit("x", "")));
        assert_eq!(decide(&theirs, None, true, false), ImportStep::Put(unit("x", "launched")));
    }

    #[test]
    fn what_is_here_stays_unless_it_is_to_be_replaced() {
        let (theirs, ours) = (unit("x", "launched"), unit("y", "loaded"));

        assert_eq!(decide(&theirs, Some(&ours), false, false), ImportStep::Differs);
        assert_eq!(decide(&theirs, Some(&ours), false, true), ImportStep::Put(unit("x", "loaded")));
        assert_eq!(decide(&theirs, Some(&theirs), false, false), ImportStep::Keep);
        assert_eq!(
            decide(&theirs, Some(&unit("x", "inactive")), true, false),
            ImportStep::Want("launched".into())
        );
    }
}
