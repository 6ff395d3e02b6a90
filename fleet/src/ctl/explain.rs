//! `explain`: why a unit is where it is, or nowhere, machine by machine.

use super::arguments::UnitNames;
use super::session::{Complaint, Outcome, Session, chain, unit_name};
use super::table::render;
use crate::api::schema::{Explanation, MachineVerdict};

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &UnitNames) -> Outcome {
    if arguments.units.is_empty() {
        return Err(Complaint::new("One unit file must be provided."));
    }
    for (index, argument) in arguments.units.iter().enumerate() {
        let name = unit_name(argument);
        let explanation = session.client.explain(&name).map_err(|error| {
            if error.is_not_found() {
                return Complaint::new(format_args!(
                    "Unit {name} does not exist, or this fleet is too old to explain."
                ));
            }
            Complaint::new(format_args!("Error explaining unit {name}: {}", chain(&error)))
        })?;
        if session.is_json() {
            session.json(&explanation)?;
            continue;
        }
        if index != 0 {
            session.print("\n")?;
        }
        show(session, &explanation)?;
    }
    Ok(0)
}

fn show(session: &mut Session<'_>, explanation: &Explanation) -> Result<(), Complaint> {
    session.say(format_args!("{}: {}", explanation.name, explanation.summary))?;
    if explanation.machines.is_empty() {
        return Ok(());
    }
    let mut rows = vec![["MACHINE", "UNITS", "VERDICT"].map(str::to_owned).to_vec()];
    for verdict in &explanation.machines {
        let legend = session.machine_legend(&verdict.id, false);
        rows.push(vec![legend, verdict.load.to_string(), words(explanation, verdict)]);
    }
    session.print(&render(&rows))
}

fn words(explanation: &Explanation, verdict: &MachineVerdict) -> String {
    match (verdict.id == explanation.machine_id, verdict.able) {
        (true, true) => "chosen".to_owned(),
        (true, false) => format!("chosen, but: {}", verdict.reason),
        (false, true) => "able".to_owned(),
        (false, false) => verdict.reason.clone(),
    }
}
