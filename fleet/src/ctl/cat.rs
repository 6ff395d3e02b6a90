//! `cat`: the text of a submitted unit, to the byte, unless a terminal would obey it.

use super::arguments::UnitNames;
use super::session::{Complaint, Outcome, Session, chain, unit_file, unit_name};
use super::table::printable_lines;

/// Runs the verb.
pub fn run(session: &mut Session<'_>, arguments: &UnitNames, is_terminal: bool) -> Outcome {
    let [argument] = arguments.units.as_slice() else {
        return Err(Complaint::new("One unit file must be provided"));
    };
    let name = unit_name(argument);
    let unit = session
        .client
        .unit(&name)
        .map_err(|error| Complaint::new(format_args!("Error retrieving Unit {name}: {}", chain(&error))))?
        .ok_or_else(|| Complaint::new(format_args!("Unit {name} not found")))?;
    if session.is_json() {
        session.json(&unit)?;
    } else {
        let text = unit_file(&unit)?.text();
        // A file or a pipe gets every byte, so that the text can be submitted again.
        session.print(&if is_terminal { printable_lines(&text) } else { text })?;
    }
    Ok(0)
}
