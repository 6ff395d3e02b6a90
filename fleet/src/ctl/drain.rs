//! `drain` and `undrain`: a machine emptied for work on it, and taken back.

use super::arguments::{DrainArguments, UndrainArguments};
use super::client::ApiError;
use super::remote_unit::by_prefix;
use super::session::{Complaint, Outcome, Session, chain};
use super::waiting::{self, Alarm};
use std::time::Duration;

/// Runs `drain`.
pub fn drain(session: &mut Session<'_>, arguments: &DrainArguments) -> Outcome {
    let machine = find(session, &arguments.machine)?;
    let mut alarm = if arguments.no_block { Alarm::silent() } else { Alarm::open(&session.client) };
    session.client.drain(&machine).map_err(|error| refused(&error, "drain"))?;
    let legend = session.machine_legend(&machine, false);
    if arguments.no_block {
        session.say(format_args!("Triggered drain of machine {legend}"))?;
        return Ok(0);
    }
    let limit = (arguments.timeout != 0).then(|| Duration::from_secs(arguments.timeout));
    waiting::for_empty_machine(session, &machine, limit, &mut alarm)?;
    session.say(format_args!("Drained machine {legend}"))?;
    Ok(0)
}

/// Runs `undrain`.
pub fn undrain(session: &mut Session<'_>, arguments: &UndrainArguments) -> Outcome {
    let machine = find(session, &arguments.machine)?;
    session.client.undrain(&machine).map_err(|error| refused(&error, "undrain"))?;
    let legend = session.machine_legend(&machine, false);
    session.say(format_args!("Undrained machine {legend}"))?;
    Ok(0)
}

fn find(session: &Session<'_>, prefix: &str) -> Result<String, Complaint> {
    let machine = by_prefix(&session.client.machines()?, prefix).map_err(|complaint| {
        Complaint::new(format_args!("Unable to proceed: {}: {prefix}", complaint.text))
    })?;
    Ok(machine.id)
}

fn refused(error: &ApiError, verb: &str) -> Complaint {
    if error.is_not_found() {
        return Complaint::new(format_args!("Unable to {verb}: this fleet is too old to know how"));
    }
    Complaint::new(format_args!("Unable to {verb}: {}", chain(error)))
}
