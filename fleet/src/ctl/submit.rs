//! `submit`: units into the registry, and no further.

use super::arguments::SubmitArguments;
use super::creation::{self, CreatingVerb};
use super::session::{CommandError, CommandOutcome, CommandSession};
use super::waiting::WaitLimit;

/// Runs the verb.
pub fn run_submit(session: &mut CommandSession<'_>, arguments: &SubmitArguments) -> CommandOutcome {
    if arguments.units.is_empty() {
        session.print_warning("No units given");
        return Ok(0);
    }
    creation::ensure_units(
        session,
        CreatingVerb::Submit,
        &arguments.units,
        arguments.create.into(),
        WaitLimit::Endless,
    )
    .map_err(|complaint| CommandError::new(format_args!("Error creating units: {}", complaint.text)))?;
    Ok(0)
}
