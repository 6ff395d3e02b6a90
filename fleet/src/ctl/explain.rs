//! `explain`: why a unit is where it is, or nowhere, machine by machine.

use super::arguments::UnitNames;
use super::session::{CommandError, CommandOutcome, CommandSession, IdLength, printable_chain, unit_name};
use super::table::render_table;
use crate::api::schema::{MachineVerdict, UnitExplanation};

/// Runs the verb.
pub fn run_explain(session: &mut CommandSession<'_>, arguments: &UnitNames) -> CommandOutcome {
    if arguments.units.is_empty() {
        return Err(CommandError::new("One unit file must be provided."));
    }
    for (index, argument) in arguments.units.iter().enumerate() {
        let name = unit_name(argument);
        let explanation = session.client.explain_unit(&name).map_err(|error| {
            if error.is_not_found() {
                return CommandError::new(format_args!(
                    "Unit {name} does not exist, or this fleet is too old to explain."
                ));
            }
            CommandError::new(format_args!("Error explaining unit {name}: {}", printable_chain(&error)))
        })?;
        if session.is_json() {
            session.print_json(&explanation)?;
            continue;
        }
        if index != 0 {
            session.print_text("\n")?;
        }
        print_explanation(session, &explanation)?;
    }
    Ok(0)
}

fn print_explanation(
    session: &mut CommandSession<'_>,
    explanation: &UnitExplanation,
) -> Result<(), CommandError> {
    session.print_line(format_args!("{}: {}", explanation.name, explanation.summary))?;
    if explanation.machines.is_empty() {
        return Ok(());
    }
    let mut rows = vec![["MACHINE", "UNITS", "VERDICT"].map(str::to_owned).to_vec()];
    for verdict in &explanation.machines {
        let legend = session.machine_legend(&verdict.id, IdLength::Short);
        rows.push(vec![legend, verdict.load.to_string(), verdict_words(explanation, verdict)]);
    }
    session.print_text(&render_table(&rows))
}

fn verdict_words(explanation: &UnitExplanation, verdict: &MachineVerdict) -> String {
    match (verdict.id == explanation.machine_id, verdict.able) {
        (true, true) => "chosen".to_owned(),
        (true, false) => format!("chosen, but: {}", verdict.reason),
        (false, true) => "able".to_owned(),
        (false, false) => verdict.reason.clone(),
    }
}
