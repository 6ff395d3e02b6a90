//! `rebalance` and `release-brake`: what the engine does only when a person asks for it.

use super::arguments::RebalanceArguments;
use super::session::{Complaint, Outcome, Session, chain};
use crate::api::schema::RebalanceRequest;

/// Runs `rebalance`.
pub fn rebalance(session: &mut Session<'_>, arguments: &RebalanceArguments) -> Outcome {
    let request = RebalanceRequest { dry_run: arguments.dry_run, max_moves: arguments.max_moves };
    let answer = session.client.rebalance(&request).map_err(|error| {
        if error.is_not_found() {
            return Complaint::new("Unable to rebalance: this fleet is too old to know how");
        }
        Complaint::new(format_args!("Unable to rebalance: {}", chain(&error)))
    })?;
    if session.is_json() {
        session.json(&answer)?;
        return Ok(0);
    }
    if answer.moves.is_empty() {
        session.say("The machines are balanced: nothing to move")?;
    }
    for step in &answer.moves {
        let (from, to) = (session.machine_legend(&step.from, false), session.machine_legend(&step.to, false));
        let verb = if arguments.dry_run { "Would move" } else { "Moving" };
        session.say(format_args!("{verb} unit {} from {from} to {to}", step.unit))?;
    }
    Ok(0)
}

/// Runs `release-brake`.
pub fn release_brake(session: &mut Session<'_>) -> Outcome {
    session
        .client
        .release_brake()
        .map_err(|error| Complaint::new(format_args!("Unable to release the brake: {}", chain(&error))))?;
    session.say("Released the brake: units of vanished machines move now")?;
    Ok(0)
}
