//! `load` and `start`: units onto machines, and there into systemd.
//!
//! Both submit what is missing, say what is wanted, and wait until it is so; `start` then waits until
//! systemd calls the units active.

use super::arguments::LaunchArguments;
use super::creation::{self, CreatingVerb};
use super::parallel::map_parallel;
use super::session::{
    CommandError, CommandOutcome, CommandSession, is_global, printable_chain, unit_file, unit_name,
};
use super::waiting::{WaitLimit, activity, content, lookup, notifier::ChangeNotifier, unit_state};
use crate::api::schema::ApiUnit;
use std::collections::{BTreeMap, BTreeSet};

/// Which of the two verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchVerb {
    /// `load`
    Load,
    /// `start`
    Start,
}

impl LaunchVerb {
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

    const fn creating_verb(self) -> CreatingVerb {
        match self {
            Self::Load => CreatingVerb::Load,
            Self::Start => CreatingVerb::Start,
        }
    }

    const fn target_state(self) -> &'static str {
        match self {
            Self::Load => "loaded",
            Self::Start => "launched",
        }
    }
}

/// Runs the verb.
pub fn run_launch(
    session: &mut CommandSession<'_>,
    launch: LaunchVerb,
    arguments: &LaunchArguments,
) -> CommandOutcome {
    if arguments.units.is_empty() {
        session.print_warning("No units given");
        return Ok(0);
    }
    let limit = WaitLimit::from(arguments.wait);
    let mut notifier = ChangeNotifier::for_limit(&session.client, limit);
    let replaced = creation::ensure_units(
        session,
        launch.creating_verb(),
        &arguments.units,
        arguments.create.into(),
        limit,
    )
    .map_err(|complaint| CommandError::new(format_args!("Error creating units: {}", complaint.text)))?;
    let triggered =
        set_desired(session, launch.target_state(), &arguments.units, &replaced).map_err(|complaint| {
            CommandError::new(format_args!("Error {} units: {}", launch.gerund(), complaint.text))
        })?;
    let (global, single): (Vec<ApiUnit>, Vec<ApiUnit>) = triggered.into_iter().partition(is_global);
    for unit in &global {
        session.report_unit(
            &unit.name,
            "triggered",
            format_args!("Triggered global unit {} {}", unit.name, launch.verb()),
        )?;
    }
    if limit == WaitLimit::None {
        for unit in &single {
            session.report_unit(
                &unit.name,
                "triggered",
                format_args!("Triggered unit {} {}", unit.name, launch.verb()),
            )?;
        }
        return Ok(0);
    }
    let names: Vec<String> = single.iter().map(|unit| unit.name.clone()).collect();
    unit_state::for_state(session, &names, launch.target_state(), limit, &mut notifier).map_err(
        |complaint| {
            CommandError::new(format_args!("Error waiting for unit states, exit status: {}", complaint.text))
        },
    )?;
    if launch == LaunchVerb::Start {
        let changed = single.iter().chain(&global).filter(|unit| replaced.contains(&unit.name));
        let contents: Vec<ApiUnit> = changed.cloned().collect();
        content::for_content(session, &contents, limit, &mut notifier)
            .and_then(|()| activity::for_active(session, &single, limit, &mut notifier))
            .map_err(|complaint| {
                CommandError::new(format_args!(
                    "Error waiting for systemd unit states, err: {}",
                    complaint.text
                ))
            })?;
    }
    Ok(0)
}

/// Sets what is wanted of each unit; those for which that changed anything, or whose content changed.
fn set_desired(
    session: &mut CommandSession<'_>,
    state: &str,
    arguments: &[String],
    replaced: &[String],
) -> Result<Vec<ApiUnit>, CommandError> {
    let names: Vec<String> = arguments.iter().map(|argument| unit_name(argument)).collect();
    let units = lookup::current_units(&session.client, &names).map_err(|error| {
        let name = names.first().map_or("", String::as_str);
        CommandError::new(format_args!(
            "error retrieving unit {name} from registry: {}",
            printable_chain(&error)
        ))
    })?;
    let units: BTreeMap<String, ApiUnit> = units.into_iter().map(|unit| (unit.name.clone(), unit)).collect();
    let (mut triggered, mut seen) = (Vec::new(), BTreeSet::new());
    for name in names.iter().filter(|name| seen.insert(*name)) {
        let unit =
            units.get(name).ok_or_else(|| CommandError::new(format_args!("unable to find unit {name}")))?;
        // An option list that is no unit file would fail on its machine; say so here.
        unit_file(unit)?;
        if unit.desired_state == state && !replaced.contains(name) {
            session.print_trace(format_args!("Unit({name}) already {state}, skipping."));
        } else {
            triggered.push(unit.clone());
        }
    }
    let client = &session.client;
    let wanted: Vec<&ApiUnit> = triggered.iter().filter(|unit| unit.desired_state != state).collect();
    for outcome in map_parallel(&wanted, |unit| client.set_desired_state(&unit.name, state)) {
        outcome?;
    }
    Ok(triggered)
}
