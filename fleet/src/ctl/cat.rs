//! `cat`: the text of a submitted unit, to the byte, unless a terminal would obey it.

use super::arguments::UnitNames;
use super::session::{
    CommandError, CommandOutcome, CommandSession, OutputKind, printable_chain, unit_file, unit_name,
};
use super::table::printable_lines;

/// Runs the verb.
pub fn run_cat(
    session: &mut CommandSession<'_>,
    arguments: &UnitNames,
    output: OutputKind,
) -> CommandOutcome {
    let [argument] = arguments.units.as_slice() else {
        return Err(CommandError::new("One unit file must be provided"));
    };
    let name = unit_name(argument);
    let unit = session
        .client
        .find_unit(&name)
        .map_err(|error| {
            CommandError::new(format_args!("Error retrieving Unit {name}: {}", printable_chain(&error)))
        })?
        .ok_or_else(|| CommandError::new(format_args!("Unit {name} not found")))?;
    if session.is_json() {
        session.print_json(&unit)?;
    } else {
        let text = unit_file(&unit)?.canonical_text();
        // A file or a pipe gets every byte, so that the text can be submitted again.
        session.print_text(&match output {
            OutputKind::Terminal => printable_lines(&text),
            OutputKind::File => text,
        })?;
    }
    Ok(0)
}
