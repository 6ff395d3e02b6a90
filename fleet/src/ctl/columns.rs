//! The columns of a list: which there are, which are wanted, what stands in a cell.

use super::arguments::TableArguments;
use super::session::{CommandError, CommandOutcome, CommandSession, IdLength};
use super::table::render_table;
use serde::Serialize;

/// A column of a list of `T`.
pub struct ListColumn<T> {
    /// The name, as `--fields` takes it; the legend shows it in capitals.
    pub name: &'static str,
    /// What stands in a row; nothing is shown as `-`.
    pub cell: fn(&mut CommandSession<'_>, &T, IdLength) -> String,
}

impl<T> std::fmt::Debug for ListColumn<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Prints a list as a table, or as JSON. The columns are chosen before anything is asked of the server.
pub fn print_table<T: Serialize>(
    session: &mut CommandSession<'_>,
    arguments: &TableArguments,
    default: &str,
    columns: &[ListColumn<T>],
    rows: impl FnOnce(&mut CommandSession<'_>) -> Result<Vec<T>, CommandError>,
) -> CommandOutcome {
    let chosen = choose_columns(arguments.fields.as_deref().unwrap_or(default), columns)?;
    for column in &chosen {
        if column.name == "tmachine" {
            session.print_warning("WARNING: The \"tmachine\" field is deprecated. Use \"target\" instead");
        }
    }
    let rows = rows(session)?;
    if session.is_json() {
        session.print_json(&rows)?;
        return Ok(0);
    }
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if !arguments.no_legend {
        lines.push(chosen.iter().map(|column| column.name.to_uppercase()).collect());
    }
    let length = if arguments.full { IdLength::Full } else { IdLength::Short };
    for row in &rows {
        let cells = chosen.iter().map(|column| or_dash((column.cell)(session, row, length)));
        lines.push(cells.collect());
    }
    session.print_text(&render_table(&lines))?;
    Ok(0)
}

fn choose_columns<'a, T>(
    fields: &str,
    columns: &'a [ListColumn<T>],
) -> Result<Vec<&'a ListColumn<T>>, CommandError> {
    if fields.is_empty() {
        return Err(CommandError::new("Must define output format"));
    }
    let find = |field: &str| {
        columns.iter().find(|column| column.name == field).ok_or_else(|| {
            let valid: Vec<_> = columns.iter().map(|column| column.name).collect();
            CommandError::new(format_args!(
                "Invalid key in output format: {field:?}\nValid fields are {:?}",
                valid.join(",")
            ))
        })
    };
    fields.split(',').map(find).collect()
}

fn or_dash(cell: String) -> String {
    if cell.is_empty() { "-".to_owned() } else { cell }
}
