//! `stop` and `unload`: units out of systemd's running set, and off their machines.

use super::arguments::StopArguments;
use super::session::{CommandError, CommandOutcome, CommandSession, go_list, is_global, unit_name};
use super::waiting::{WaitLimit, notifier::ChangeNotifier, unit_state};
use crate::api::schema::ApiUnit;
use std::collections::BTreeMap;

/// Which of the two verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopVerb {
    /// `stop`
    Stop,
    /// `unload`
    Unload,
}

impl StopVerb {
    const fn verb(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Unload => "unload",
        }
    }

    const fn participle(self) -> &'static str {
        match self {
            Self::Stop => "stopped",
            Self::Unload => "unloaded",
        }
    }

    const fn target_state(self) -> &'static str {
        match self {
            Self::Stop => "loaded",
            Self::Unload => "inactive",
        }
    }
}

/// Runs the verb.
pub fn run_stop(
    session: &mut CommandSession<'_>,
    stop: StopVerb,
    arguments: &StopArguments,
) -> CommandOutcome {
    let Some(units) = known_units(session, &arguments.units)? else { return Ok(0) };
    let limit = WaitLimit::from(arguments.wait);
    let mut notifier = ChangeNotifier::for_limit(&session.client, limit);
    let mut waiting = Vec::new();
    for unit in &units {
        let name = &unit.name;
        if !is_global(unit) {
            if stop == StopVerb::Stop && matches!(unit.current_state.as_str(), "" | "inactive") {
                return Err(CommandError::new(format_args!("Unable to stop unit {name} in state inactive")));
            }
            if is_reached(unit, stop) {
                session.print_trace(format_args!("Unit({name}) already {}, skipping.", stop.target_state()));
                continue;
            }
        }
        session.print_trace(format_args!("Setting target state of Unit({name}) to {}", stop.target_state()));
        session.client.set_desired_state(name, stop.target_state())?;
        if is_global(unit) {
            session.report_unit(
                name,
                "triggered",
                format_args!("Triggered global unit {name} {}", stop.verb()),
            )?;
        } else {
            waiting.push(name.clone());
        }
    }
    if limit == WaitLimit::None {
        for name in &waiting {
            session.report_unit(name, "triggered", format_args!("Triggered unit {name} {}", stop.verb()))?;
        }
    } else {
        unit_state::for_state(session, &waiting, stop.target_state(), limit, &mut notifier).map_err(
            |complaint| {
                CommandError::new(format_args!(
                    "Failed to {} units {}. err: {}",
                    stop.verb(),
                    go_list(&waiting),
                    complaint.text
                ))
            },
        )?;
    }
    session.print_warning(format_args!("Successfully {} units {}.", stop.participle(), go_list(&waiting)));
    Ok(0)
}

/// Whether the unit is there already and nobody wants it elsewhere: a start in flight can be called off.
fn is_reached(unit: &ApiUnit, stop: StopVerb) -> bool {
    let current = if unit.current_state.is_empty() { "inactive" } else { &unit.current_state };
    current == stop.target_state() && matches!(unit.desired_state.as_str(), "" | "inactive" | "loaded")
}

/// The named units that are in the registry; `None`, and a line on stderr, if there is nothing to do.
pub fn known_units(
    session: &mut CommandSession<'_>,
    arguments: &[String],
) -> Result<Option<Vec<ApiUnit>>, CommandError> {
    if arguments.is_empty() {
        session.print_warning("No units given");
        return Ok(None);
    }
    let all = session.client.list_units()?;
    let mut by_name: BTreeMap<String, ApiUnit> =
        all.into_iter().map(|unit| (unit.name.clone(), unit)).collect();
    let units: Vec<ApiUnit> =
        arguments.iter().filter_map(|argument| by_name.remove(&unit_name(argument))).collect();
    if units.is_empty() {
        session.print_warning("Units not found in registry");
        return Ok(None);
    }
    Ok(Some(units))
}
