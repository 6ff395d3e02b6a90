//! The columns of a list: which there are, which are wanted, what stands in a cell.

use super::arguments::TableArguments;
use super::session::{Complaint, Outcome, Session};
use super::table::render;
use serde::Serialize;

/// A column of a list of `T`.
pub struct Column<T> {
    /// The name, as `--fields` takes it; the legend shows it in capitals.
    pub name: &'static str,
    /// What stands in a row; nothing is shown as `-`.
    pub cell: fn(&mut Session<'_>, &T, bool) -> String,
}

impl<T> std::fmt::Debug for Column<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Prints a list as a table, or as JSON. The columns are chosen before anything is asked of the server.
pub fn table<T: Serialize>(
    session: &mut Session<'_>,
    arguments: &TableArguments,
    default: &str,
    columns: &[Column<T>],
    rows: impl FnOnce(&mut Session<'_>) -> Result<Vec<T>, Complaint>,
) -> Outcome {
    let chosen = choose(arguments.fields.as_deref().unwrap_or(default), columns)?;
    for column in &chosen {
        if column.name == "tmachine" {
            session.warn("WARNING: The \"tmachine\" field is deprecated. Use \"target\" instead");
        }
    }
    let rows = rows(session)?;
    if session.is_json() {
        session.json(&rows)?;
        return Ok(0);
    }
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if !arguments.no_legend {
        lines.push(chosen.iter().map(|column| column.name.to_uppercase()).collect());
    }
    for row in &rows {
        let cells = chosen.iter().map(|column| or_dash((column.cell)(session, row, arguments.full)));
        lines.push(cells.collect());
    }
    session.print(&render(&lines))?;
    Ok(0)
}

fn choose<'a, T>(fields: &str, columns: &'a [Column<T>]) -> Result<Vec<&'a Column<T>>, Complaint> {
    if fields.is_empty() {
        return Err(Complaint::new("Must define output format"));
    }
    let find = |field: &str| {
        columns.iter().find(|column| column.name == field).ok_or_else(|| {
            let valid: Vec<_> = columns.iter().map(|column| column.name).collect();
            Complaint::new(format_args!(
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
