//! Text in columns, to the byte as Go's `tabwriter` sets it (minimum 0, tab width 8, padding 1, tabs).
//!
//! A column is as wide as its widest cell plus one, rounded up to a multiple of eight, and filled with
//! tabs; the last cell of a line is never padded. Cells come from a cluster, hence control characters are
//! escaped: no unit name moves a terminal's cursor.

const TAB: usize = 8;

/// Sets the rows in columns, a line each.
#[must_use]
pub fn render(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let widths = widths(&rows);
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let missing = widths[column] - cell.chars().count();
                text.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB)));
            }
        }
        text.push('\n');
    }
    text
}

/// Escapes what would steer a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { safe.extend(character.escape_default()) } else { safe.push(character) }
    }
    safe
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    (0..columns).map(|column| (widest(column).unwrap_or(0) + 1).next_multiple_of(TAB)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[&[&str]]) -> Vec<Vec<String>> {
        text.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_are_padded_with_tabs_to_the_next_stop() {
        let table = render(&rows(&[
            &["UNIT", "MACHINE", "ACTIVE", "SUB"],
            &["mongo@1.service", "148a18ff.../10.10.1.1", "active", "running"],
            &["a.service", "-", "inactive", "dead"],
        ]));

        assert_eq!(
            table,
            "UNIT\t\tMACHINE\t\t\tACTIVE\t\tSUB\n\
             mongo@1.service\t148a18ff.../10.10.1.1\tactive\t\trunning\n\
             a.service\t-\t\t\tinactive\tdead\n"
        );
    }

    #[test]
    fn a_cell_that_fills_its_stop_moves_the_column() {
        assert_eq!(render(&rows(&[&["12345678", "x"], &["1", "x"]])), "12345678\tx\n1\t\tx\n");
        assert_eq!(render(&rows(&[&["1234567", "x"], &["", "x"]])), "1234567\tx\n\tx\n");
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(render(&rows(&[&["a\x1b[2J\tb"]])), "a\\u{1b}[2J\\tb\n");
    }
}
