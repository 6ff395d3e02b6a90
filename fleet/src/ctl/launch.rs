//! `load` and `start`: units onto machines, and there into systemd.
//!
//! Both submit what is missing, say what is wanted, and wait until it is so; `start` then waits until
//! systemd calls the units active.

use super::arguments::LaunchArguments;
use super::creation::{self, Creator};
use super::parallel::each;
use super::session::{Complaint, Outcome, Session, chain, is_global, unit_file, unit_name};
use super::waiting::{self, Alarm, Patience};
use crate::api::schema::Unit;
use std::collections::{BTreeMap, BTreeSet};

/// Which of the two verbs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Launch {
    /// `load`
    Load,
    /// `start`
    Start,
}

impl Launch {
    const fn verb(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Start => "start",
        }
    }

    const fn gerund(self) -> &'static str {
        match self {
            Self::Load => "loading",
            Self::Start => "starting",
        }
    }

    const fn creator(self) -> Creator {
        match self {
            Self::Load => Creator::Load,
            Self::Start => Creator::Start,
        }
    }

    const fn state(self) -> &'static str {
        match self {
            Self::Load => "loaded",
            Self::Start => "launched",
        }
    }
}

/// Runs the verb.
pub fn run(session: &mut Session<'_>, launch: Launch, arguments: &LaunchArguments) -> Outcome {
    if arguments.units.is_empty() {
        session.warn("No units given");
        return Ok(0);
    }
    let patience = Patience::from(arguments.wait);
    let mut alarm = if patience == Patience::None { Alarm::silent() } else { Alarm::open(&session.client) };
    let replaced = creation::ensure(session, launch.creator(), &arguments.units, arguments.replace, patience)
        .map_err(|complaint| Complaint::new(format_args!("Error creating units: {}", complaint.text)))?;
    let triggered = trigger(session, launch.state(), &arguments.units, &replaced).map_err(|complaint| {
        Complaint::new(format_args!("Error {} units: {}", launch.gerund(), complaint.text))
    })?;
    let (global, single): (Vec<Unit>, Vec<Unit>) = triggered.into_iter().partition(is_global);
    for unit in &global {
        session.report(
            &unit.name,
            "triggered",
            format_args!("Triggered global unit {} {}", unit.name, launch.verb()),
        )?;
    }
    if patience == Patience::None {
        for unit in &single {
            session.report(
                &unit.name,
                "triggered",
                format_args!("Triggered unit {} {}", unit.name, launch.verb()),
            )?;
        }
        return Ok(0);
    }
    let names: Vec<String> = single.iter().map(|unit| unit.name.clone()).collect();
    waiting::for_state(session, &names, launch.state(), patience, &mut alarm).map_err(|complaint| {
        Complaint::new(format_args!("Error waiting for unit states, exit status: {}", complaint.text))
    })?;
    if launch == Launch::Start {
        let changed = single.iter().chain(&global).filter(|unit| replaced.contains(&unit.name));
        let contents: Vec<Unit> = changed.cloned().collect();
        waiting::for_content(session, &contents, patience, &mut alarm)
            .and_then(|()| waiting::for_active(session, &single, patience, &mut alarm))
            .map_err(|complaint| {
                Complaint::new(format_args!("Error waiting for systemd unit states, err: {}", complaint.text))
            })?;
    }
    Ok(0)
}

/// Sets what is wanted of each unit; those for which that changed anything, or whose content changed.
fn trigger(
    session: &mut Session<'_>,
    state: &str,
    arguments: &[String],
    replaced: &[String],
) -> Result<Vec<Unit>, Complaint> {
    let names: Vec<String> = arguments.iter().map(|argument| unit_name(argument)).collect();
    let units = waiting::current_units(&session.client, &names).map_err(|error| {
        let name = names.first().map_or("", String::as_str);
        Complaint::new(format_args!("error retrieving unit {name} from registry: {}", chain(&error)))
    })?;
    let units: BTreeMap<String, Unit> = units.into_iter().map(|unit| (unit.name.clone(), unit)).collect();
    let (mut triggered, mut seen) = (Vec::new(), BTreeSet::new());
    for name in names.iter().filter(|name| seen.insert(*name)) {
        let unit =
            units.get(name).ok_or_else(|| Complaint::new(format_args!("unable to find unit {name}")))?;
        // An option list that is no unit file would fail on its machine; say so here.
        unit_file(unit)?;
        if unit.desired_state == state && !replaced.contains(name) {
            session.trace(format_args!("Unit({name}) already {state}, skipping."));
        } else {
            triggered.push(unit.clone());
        }
    }
    let client = &session.client;
    let wanted: Vec<&Unit> = triggered.iter().filter(|unit| unit.desired_state != state).collect();
    for outcome in each(&wanted, |unit| client.set_desired_state(&unit.name, state)) {
        outcome?;
    }
    Ok(triggered)
}
