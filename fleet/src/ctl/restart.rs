//! `restart`: units stopped and started where they are.
//!
//! A unit is taken to `loaded`, which stops it and keeps its machine, and from there to `launched`.
//! Global units are restarted by their machines' agents; a fleet that cannot order that gets
//! `systemctl restart` over ssh, on every machine that runs the unit (the original chose one).

use super::arguments::RestartArguments;
use super::creation::{self, CreateMode, CreatingVerb};
use super::remote_unit::{self, RemoteMachine};
use super::session::{CommandError, CommandOutcome, CommandSession, is_global, printable_chain};
use super::stop::known_units;
use super::waiting::{WaitLimit, notifier::ChangeNotifier, unit_state};
use crate::api::schema::ApiUnit;

/// Runs the verb.
pub fn run_restart(session: &mut CommandSession<'_>, arguments: &RestartArguments) -> CommandOutcome {
    let limit = WaitLimit::of_attempts(arguments.block_attempts);
    let Some(units) = known_units(session, &arguments.units)? else { return Ok(0) };
    creation::ensure_units(session, CreatingVerb::Restart, &arguments.units, CreateMode::KeepExisting, limit)
        .map_err(|complaint| CommandError::new(format_args!("Error creating units: {}", complaint.text)))?;
    let mut notifier = ChangeNotifier::for_limit(&session.client, limit);
    let (global, single): (Vec<ApiUnit>, Vec<ApiUnit>) = units.into_iter().partition(is_global);
    for unit in &single {
        let states: &[&str] = match unit.current_state.as_str() {
            "launched" => &["loaded", "launched"],
            "loaded" => &["launched"],
            _ => {
                session.print_warning(format_args!("Unable to restart unit {} in state inactive", unit.name));
                continue;
            }
        };
        for state in states {
            set_and_wait(session, &unit.name, state, limit, &mut notifier)?;
        }
        if limit == WaitLimit::None {
            session.report_unit(
                &unit.name,
                "triggered",
                format_args!("Triggered unit {} restart", unit.name),
            )?;
        }
    }
    for unit in &global {
        restart_global(session, unit, arguments.ssh_port)?;
    }
    Ok(0)
}

fn set_and_wait(
    session: &mut CommandSession<'_>,
    name: &String,
    state: &str,
    limit: WaitLimit,
    notifier: &mut ChangeNotifier,
) -> Result<(), CommandError> {
    session.client.set_desired_state(name, state).map_err(|error| {
        CommandError::new(format_args!(
            "Error setting target state for unit {name}: {}",
            printable_chain(&error)
        ))
    })?;
    if limit == WaitLimit::None && state != "loaded" {
        return Ok(());
    }
    // A stop that is not waited for would be overtaken by the start.
    let limit = if limit == WaitLimit::None { WaitLimit::Attempts(15) } else { limit };
    unit_state::for_state(session, std::slice::from_ref(name), state, limit, notifier).map_err(|complaint| {
        CommandError::new(format_args!("Error waiting for unit states, exit status: {}", complaint.text))
    })
}

fn restart_global(
    session: &mut CommandSession<'_>,
    unit: &ApiUnit,
    ssh_port: u16,
) -> Result<(), CommandError> {
    let name = &unit.name;
    let failed =
        |words: String| CommandError::new(format_args!("Error restarting global units [{name}] err:{words}"));
    match session.client.restart_unit(name) {
        Ok(()) => {
            session.report_unit(name, "triggered", format_args!("Triggered global unit {name} restart"))
        }
        Err(error) if error.is_not_found() => {
            let states = session.client.states_of(name)?;
            for state in states {
                let place = RemoteMachine { machine: &state.machine_id, ssh_port };
                let words = ["systemctl", "restart", "--", name].map(str::to_owned);
                let exit = remote_unit::run_on_machine(session, place, &words)?;
                if exit != 0 {
                    return Err(failed(format!(
                        "Error running systemctl restart. machine id={}, unit name={name}",
                        state.machine_id
                    )));
                }
            }
            Ok(())
        }
        Err(error) => Err(failed(printable_chain(&error))),
    }
}
