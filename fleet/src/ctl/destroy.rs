//! `destroy`: units out of the registry, and so off their machines.

use super::arguments::DestroyArguments;
use super::session::{CommandOutcome, CommandSession, error_chain, is_global};
use super::stop::known_units;
use super::waiting::{self, ChangeNotifier, Disappearance, WaitLimit};

/// Runs the verb.
pub fn run_destroy(session: &mut CommandSession<'_>, arguments: &DestroyArguments) -> CommandOutcome {
    let Some(units) = known_units(session, &arguments.units)? else { return Ok(0) };
    let patience = WaitLimit::from(arguments.wait);
    let mut alarm = if patience == WaitLimit::None {
        ChangeNotifier::polling_only()
    } else {
        ChangeNotifier::open(&session.client)
    };
    let mut exit = 0;
    let mut destroyed = Vec::new();
    for unit in &units {
        match session.client.destroy_unit(&unit.name) {
            Ok(true) => destroyed.push(unit),
            Ok(false) => session.print_trace(format_args!("Unit({}) was gone already", unit.name)),
            Err(error) => {
                session.print_warning(format_args!("Error destroying units: {}", error_chain(&error)));
                exit = 1;
            }
        }
    }
    for unit in destroyed {
        if patience != WaitLimit::None && !is_global(unit) {
            match waiting::for_disappearance(session, unit, patience, &mut alarm) {
                Ok(Disappearance::Complete) => {}
                Ok(Disappearance::Resubmitted) => session.print_warning(format_args!(
                    "Unit {} was submitted again by somebody else: not waiting for it to disappear",
                    unit.name
                )),
                Err(complaint) => {
                    session.print_warning(format_args!("Error destroying units: {}", complaint.text));
                    exit = 1;
                    continue;
                }
            }
        }
        session.report_unit(&unit.name, "destroyed", format_args!("Destroyed {}", unit.name))?;
    }
    Ok(exit)
}
