//! `import`: the units of another fleet, copied through its API; an old fleet's too.
//!
//! Reads only what every fleet since v0.8 serves, and never writes to the other side. Units arrive
//! inactive, since they probably still run over there; `--start` also asks for the states they have there.

use super::arguments::ImportArguments;
use super::client::Client;
use super::dial;
use super::endpoint::Endpoint;
use super::session::{Complaint, Outcome, Session, chain, unit_file, unit_name};
use super::settings::Settings;
use super::table::printable;
use crate::api::schema::Unit;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// What is done with one unit of the other fleet.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    /// Nothing: it is here already, the same.
    Keep,
    /// Nothing: it is here already, with another text, and that stays.
    Differs,
    /// It is created, or its text replaced.
    Put(Unit),
    /// It is here, the same, but another state is wanted.
    Want(String),
}

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &ImportArguments) -> Outcome {
    let theirs = other_units(session, arguments)?;
    let ours: BTreeMap<String, Unit> =
        session.client.units()?.into_iter().map(|unit| (unit.name.clone(), unit)).collect();
    let mut exit = 0;
    for unit in &theirs {
        let step = step(unit, ours.get(&unit.name), arguments);
        if step == Step::Differs {
            session.warn(format_args!(
                "Unit {} is here already with another text. Add --replace to override.",
                printable(&unit.name)
            ));
        }
        if let Err(words) = carry_out(session, unit, &step, arguments.dry_run) {
            session.warn(format_args!("Error importing unit {}: {words}", printable(&unit.name)));
            exit = 1;
            continue;
        }
        report(session, unit, &step, arguments.dry_run)?;
    }
    if theirs.is_empty() {
        session.warn(format_args!("No units at {}", arguments.from));
    }
    Ok(exit)
}

fn other_units(session: &Session<'_>, arguments: &ImportArguments) -> Result<Vec<Unit>, Complaint> {
    let endpoint = Endpoint::parse(&arguments.from)
        .map_err(|error| Complaint::new(format_args!("Unable to import from {}: {error}", arguments.from)))?;
    // A tunnel leads to our own cluster.
    let mut settings: Settings = session.settings.clone();
    settings.ssh.tunnel = None;
    let agent = dial::agent(&endpoint, &settings).map_err(|error| Complaint::new(chain(&error)))?;
    let other = Client::new(agent, &endpoint);
    let all =
        other.units().map_err(|error| Complaint::new(format_args!("Unable to import: {}", chain(&error))))?;
    let wanted: BTreeSet<String> = arguments.units.iter().map(|argument| unit_name(argument)).collect();
    if let Some(missing) = wanted.iter().find(|name| !all.iter().any(|unit| &unit.name == *name)) {
        return Err(Complaint::new(format_args!("Unit {missing} does not exist at {}", arguments.from)));
    }
    Ok(all.into_iter().filter(|unit| wanted.is_empty() || wanted.contains(&unit.name)).collect())
}

/// What to do with a unit of theirs, given ours of the same name.
fn step(theirs: &Unit, ours: Option<&Unit>, arguments: &ImportArguments) -> Step {
    let desired = if arguments.start { theirs.desired_state.clone() } else { String::new() };
    let put = |desired_state: String| {
        Step::Put(Unit {
            name: theirs.name.clone(),
            options: theirs.options.clone(),
            desired_state,
            ..Unit::default()
        })
    };
    let Some(ours) = ours else { return put(desired) };
    if ours.options != theirs.options {
        // A replaced unit goes on as it is unless --start says otherwise.
        let goes_on = if desired.is_empty() { ours.desired_state.clone() } else { desired };
        return if arguments.replace { put(goes_on) } else { Step::Differs };
    }
    if desired.is_empty() || desired == ours.desired_state { Step::Keep } else { Step::Want(desired) }
}

fn carry_out(session: &Session<'_>, theirs: &Unit, step: &Step, dry_run: bool) -> Result<(), String> {
    match step {
        Step::Put(unit) => {
            unit_file(unit).map_err(|complaint| complaint.text)?;
            if dry_run {
                return Ok(());
            }
            session.client.put(unit).map_err(|error| chain(&error))
        }
        Step::Want(state) if !dry_run => {
            session.client.set_desired_state(&theirs.name, state).map_err(|error| chain(&error))
        }
        Step::Want(_) | Step::Keep | Step::Differs => Ok(()),
    }
}

fn report(session: &mut Session<'_>, theirs: &Unit, step: &Step, dry_run: bool) -> Result<(), Complaint> {
    let name = printable(&theirs.name);
    let (word, state) = match step {
        Step::Put(unit) => ("imported", unit.desired_state.as_str()),
        Step::Want(state) => ("wanted", state.as_str()),
        Step::Keep => ("same", ""),
        Step::Differs => ("differs", ""),
    };
    if session.is_json() {
        return session
            .json(&json!({ "unit": name, "result": word, "desiredState": state, "dryRun": dry_run }));
    }
    let would = if dry_run { "Would import" } else { "Imported" };
    let state = if state.is_empty() { "inactive" } else { state };
    match step {
        Step::Put(_) => session.say(format_args!("{would} unit {name}, wanted {state}")),
        Step::Want(_) => session.say(format_args!("Found same unit {name}, wanted {state}")),
        Step::Keep => session.say(format_args!("Found same unit {name}, nothing to do")),
        Step::Differs => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::UnitOption;

    fn unit(value: &str, desired: &str) -> Unit {
        let option = UnitOption { name: "ExecStart".into(), section: "Service".into(), value: value.into() };
        Unit {
            name: "a.service".into(),
            options: vec![option],
            desired_state: desired.into(),
            ..Unit::default()
        }
    }

    fn decide(theirs: &Unit, ours: Option<&Unit>, start: bool, replace: bool) -> Step {
        let arguments =
            ImportArguments { dry_run: false, from: "http://old".into(), replace, start, units: vec![] };
        step(theirs, ours, &arguments)
    }

    #[test]
    fn units_arrive_inactive_unless_they_are_to_be_started() {
        let theirs = unit("x", "launched");

        assert_eq!(decide(&theirs, None, false, false), Step::Put(unit("x", "")));
        assert_eq!(decide(&theirs, None, true, false), Step::Put(unit("x", "launched")));
    }

    #[test]
    fn what_is_here_stays_unless_it_is_to_be_replaced() {
        let (theirs, ours) = (unit("x", "launched"), unit("y", "loaded"));

        assert_eq!(decide(&theirs, Some(&ours), false, false), Step::Differs);
        assert_eq!(decide(&theirs, Some(&ours), false, true), Step::Put(unit("x", "loaded")));
        assert_eq!(decide(&theirs, Some(&theirs), false, false), Step::Keep);
        assert_eq!(decide(&theirs, Some(&unit("x", "inactive")), true, false), Step::Want("launched".into()));
    }
}
