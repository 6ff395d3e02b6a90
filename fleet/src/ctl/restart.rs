//! `restart`: units stopped and started where they are.
//!
//! A unit is taken to `loaded`, which stops it and keeps its machine, and from there to `launched`.
//! Global units are restarted by their machines' agents; a fleet that can't order that gets
//! `systemctl restart` over ssh, on every machine that runs the unit (the original chose one).

use super::arguments::RestartArguments;
use super::creation::{self, Creator};
use super::remote_unit::{self, Place};
use super::session::{Complaint, Outcome, Session, chain, is_global};
use super::stop::known_units;
use super::waiting::{self, Alarm, Patience};
use crate::api::schema::Unit;

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &RestartArguments) -> Outcome {
    let patience = Patience::of_attempts(arguments.block_attempts);
    let Some(units) = known_units(session, &arguments.units)? else { return Ok(0) };
    creation::ensure(session, Creator::Restart, &arguments.units, false, patience)
        .map_err(|complaint| Complaint::new(format_args!("Error creating units: {}", complaint.text)))?;
    let mut alarm = if patience == Patience::None { Alarm::silent() } else { Alarm::open(&session.client) };
    let (global, single): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(is_global);
    for unit in &single {
        let states: &[&str] = match unit.current_state.as_str() {
            "launched" => &["loaded", "launched"],
            "loaded" => &["launched"],
            _ => {
                session.warn(format_args!("Unable to restart unit {} in state inactive", unit.name));
                continue;
            }
        };
        for state in states {
            set_and_wait(session, &unit.name, state, patience, &mut alarm)?;
        }
        if patience == Patience::None {
            session.report(&unit.name, "triggered", format_args!("Triggered unit {} restart", unit.name))?;
        }
    }
    for unit in &global {
        restart_global(session, unit, arguments.ssh_port)?;
    }
    Ok(0)
}

fn set_and_wait(
    session: &mut Session<'_>,
    name: &String,
    state: &str,
    patience: Patience,
    alarm: &mut Alarm,
) -> Result<(), Complaint> {
    session.client.set_desired_state(name, state).map_err(|error| {
        Complaint::new(format_args!("Error setting target state for unit {name}: {}", chain(&error)))
    })?;
    if patience == Patience::None && state != "loaded" {
        return Ok(());
    }
    // A stop that is not waited for would be overtaken by the start.
    let patience = if patience == Patience::None { Patience::Attempts(15) } else { patience };
    waiting::for_state(session, std::slice::from_ref(name), state, patience, alarm).map_err(|complaint| {
        Complaint::new(format_args!("Error waiting for unit states, exit status: {}", complaint.text))
    })
}

fn restart_global(session: &mut Session<'_>, unit: &Unit, ssh_port: u16) -> Result<(), Complaint> {
    let name = &unit.name;
    let failed =
        |words: String| Complaint::new(format_args!("Error restarting global units [{name}] err:{words}"));
    match session.client.restart(name) {
        Ok(()) => session.report(name, "triggered", format_args!("Triggered global unit {name} restart")),
        Err(error) if error.is_not_found() => {
            let states = session.client.states_of(name)?;
            for state in states {
                let place = Place { machine: &state.machine_id, ssh_port };
                let words = ["systemctl", "restart", "--", name].map(str::to_owned);
                let exit = remote_unit::run(session, place, &words)?;
                if exit != 0 {
                    return Err(failed(format!(
                        "Error running systemctl restart. machine id={}, unit name={name}",
                        state.machine_id
                    )));
                }
            }
            Ok(())
        }
        Err(error) => Err(failed(chain(&error))),
    }
}
