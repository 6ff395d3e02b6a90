//! `submit`: units into the registry, and no further.

use super::arguments::SubmitArguments;
use super::creation::{self, Creator};
use super::session::{Complaint, Outcome, Session};
use super::waiting::Patience;

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &SubmitArguments) -> Outcome {
    if arguments.units.is_empty() {
        session.warn("No units given");
        return Ok(0);
    }
    creation::ensure(session, Creator::Submit, &arguments.units, arguments.replace, Patience::Endless)
        .map_err(|complaint| Complaint::new(format_args!("Error creating units: {}", complaint.text)))?;
    Ok(0)
}
