//! `destroy`: units out of the registry, and so off their machines.

use super::arguments::DestroyArguments;
use super::session::{Outcome, Session, chain, is_global};
use super::stop::known_units;
use super::waiting::{self, Alarm, Disappearance, Patience};

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &DestroyArguments) -> Outcome {
    let Some(units) = known_units(session, &arguments.units)? else { return Ok(0) };
    let patience = Patience::from(arguments.wait);
    let mut alarm = if patience == Patience::None { Alarm::silent() } else { Alarm::open(&session.client) };
    let mut exit = 0;
    let mut destroyed = Vec::new();
    for unit in &units {
        match session.client.destroy(&unit.name) {
            Ok(true) => destroyed.push(unit),
            Ok(false) => session.trace(format_args!("Unit({}) was gone already", unit.name)),
            Err(error) => {
                session.warn(format_args!("Error destroying units: {}", chain(&error)));
                exit = 1;
            }
        }
    }
    for unit in destroyed {
        if patience != Patience::None && !is_global(unit) {
            match waiting::for_disappearance(session, unit, patience, &mut alarm) {
                Ok(Disappearance::Complete) => {}
                Ok(Disappearance::Resubmitted) => session.warn(format_args!(
                    "Unit {} was submitted again by somebody else: not waiting for it to disappear",
                    unit.name
                )),
                Err(complaint) => {
                    session.warn(format_args!("Error destroying units: {}", complaint.text));
                    exit = 1;
                    continue;
                }
            }
        }
        session.report(&unit.name, "destroyed", format_args!("Destroyed {}", unit.name))?;
    }
    Ok(exit)
}
