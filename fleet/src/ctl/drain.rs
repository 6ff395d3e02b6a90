//! `drain` and `undrain`: a machine emptied for work on it, and taken back.

use super::arguments::{DrainArguments, UndrainArguments};
use super::client::ApiError;
use super::remote_unit::by_prefix;
use super::session::{CommandError, CommandOutcome, CommandSession, IdLength, printable_chain};
use super::waiting::{WaitLimit, disappearance, notifier::ChangeNotifier};
use std::time::Duration;

/// Runs `drain`.
pub fn run_drain(session: &mut CommandSession<'_>, arguments: &DrainArguments) -> CommandOutcome {
    let machine = find_machine(session, &arguments.machine)?;
    let timeout = (arguments.timeout != 0).then(|| Duration::from_secs(arguments.timeout));
    let limit = if arguments.no_block {
        WaitLimit::None
    } else {
        timeout.map_or(WaitLimit::Endless, WaitLimit::AtMost)
    };
    let mut notifier = ChangeNotifier::for_limit(&session.client, limit);
    session.client.drain_machine(&machine).map_err(|error| refused_error(&error, "drain"))?;
    let legend = session.machine_legend(&machine, IdLength::Short);
    if arguments.no_block {
        session.print_line(format_args!("Triggered drain of machine {legend}"))?;
        return Ok(0);
    }
    disappearance::for_empty_machine(session, &machine, limit, &mut notifier)?;
    session.print_line(format_args!("Drained machine {legend}"))?;
    Ok(0)
}

/// Runs `undrain`.
pub fn run_undrain(session: &mut CommandSession<'_>, arguments: &UndrainArguments) -> CommandOutcome {
    let machine = find_machine(session, &arguments.machine)?;
    session.client.undrain_machine(&machine).map_err(|error| refused_error(&error, "undrain"))?;
    let legend = session.machine_legend(&machine, IdLength::Short);
    session.print_line(format_args!("Undrained machine {legend}"))?;
    Ok(0)
}

fn find_machine(session: &CommandSession<'_>, prefix: &str) -> Result<String, CommandError> {
    let machine = by_prefix(&session.client.list_machines()?, prefix).map_err(|complaint| {
        CommandError::new(format_args!("Unable to proceed: {}: {prefix}", complaint.text))
    })?;
    Ok(machine.id)
}

fn refused_error(error: &ApiError, verb: &str) -> CommandError {
    if error.is_not_found() {
        return CommandError::new(format_args!("Unable to {verb}: this fleet is too old to know how"));
    }
    CommandError::new(format_args!("Unable to {verb}: {}", printable_chain(error)))
}
