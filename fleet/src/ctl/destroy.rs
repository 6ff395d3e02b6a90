//! `destroy`: units out of the registry, and so off their machines.

use super::arguments::DestroyArguments;
use super::session::{CommandOutcome, CommandSession, is_global, printable_chain};
use super::stop::known_units;
use super::waiting::{
    WaitLimit,
    disappearance::{self, Disappearance},
    notifier::ChangeNotifier,
};

/// Runs the verb.
pub fn run_destroy(session: &mut CommandSession<'_>, arguments: &DestroyArguments) -> CommandOutcome {
    let Some(units) = known_units(session, &arguments.units)? else { return Ok(0) };
    let limit = WaitLimit::from(arguments.wait);
    let mut notifier = ChangeNotifier::for_limit(&session.client, limit);
    let mut exit = 0;
    let mut destroyed = Vec::new();
    for unit in &units {
        match session.client.destroy_unit(&unit.name) {
            Ok(true) => destroyed.push(unit),
            Ok(false) => session.print_trace(format_args!("Unit({}) was gone already", unit.name)),
            Err(error) => {
                session.print_warning(format_args!("Error destroying units: {}", printable_chain(&error)));
                exit = 1;
            }
        }
    }
    for unit in destroyed {
        if limit != WaitLimit::None && !is_global(unit) {
            match disappearance::for_disappearance(session, unit, limit, &mut notifier) {
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
