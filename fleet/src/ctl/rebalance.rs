//! `rebalance` and `release-brake`: what the engine does only when a person asks for it.

use super::arguments::RebalanceArguments;
use super::session::{CommandError, CommandOutcome, CommandSession, IdLength, printable_chain};
use crate::api::schema::RebalanceRequest;

/// Runs `rebalance`.
pub fn run_rebalance(session: &mut CommandSession<'_>, arguments: &RebalanceArguments) -> CommandOutcome {
    let request = RebalanceRequest { dry_run: arguments.dry_run, max_moves: arguments.max_moves };
    let answer = session.client.rebalance_units(&request).map_err(|error| {
        if error.is_not_found() {
            return CommandError::new("Unable to rebalance: this fleet is too old to know how");
        }
        CommandError::new(format_args!("Unable to rebalance: {}", printable_chain(&error)))
    })?;
    if session.is_json() {
        session.print_json(&answer)?;
        return Ok(0);
    }
    if answer.moves.is_empty() {
        session.print_line("The machines are balanced: nothing to move")?;
    }
    for step in &answer.moves {
        let (from, to) = (
            session.machine_legend(&step.from, IdLength::Short),
            session.machine_legend(&step.to, IdLength::Short),
        );
        let verb = if arguments.dry_run { "Would move" } else { "Moving" };
        session.print_line(format_args!("{verb} unit {} from {from} to {to}", step.unit))?;
    }
    Ok(0)
}

/// Runs `release-brake`.
pub fn release_brake(session: &mut CommandSession<'_>) -> CommandOutcome {
    session.client.release_brake().map_err(|error| {
        CommandError::new(format_args!("Unable to release the brake: {}", printable_chain(&error)))
    })?;
    session.print_line("Released the brake: units of vanished machines move now")?;
    Ok(0)
}
