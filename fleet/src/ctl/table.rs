//! Text in columns, to the byte as Go's `tabwriter` sets it (minimum 0, tab width 8, padding 1, tabs).
//!
//! A column is as wide as its widest cell plus one, rounded up to a multiple of eight, and filled with
//! tabs; the last cell of a line is never padded. Cells come from a cluster, hence control characters are
//! escaped: no unit name moves a terminal's cursor.

use std::fmt::Write as _;

// Go's tabwriter as the original set it: scripts cut these tables at tabs.
const TAB: usize = 8;

/// Sets the rows in columns, a line each.
#[must_use]
pub fn render_table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable_text(cell)).collect()).collect();
    let widths = column_widths(&rows);
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
pub fn printable_text(text: &str) -> String {
    escape_characters(text, controls_terminal)
}

/// Escapes what would steer a terminal, but for the ends of lines and the tabs of tables.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    escape_characters(text, |character| controls_terminal(character) && !matches!(character, '\n' | '\t'))
}

/// Escapes, in JSON, what would steer a terminal: JSON itself escapes only what is below the space.
#[must_use]
pub fn printable_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        // Outside of its texts there is nothing that steers, so this is an escape inside one.
        if controls_terminal(character) && !character.is_ascii_whitespace() {
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    safe
}

fn escape_characters(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) { safe.extend(character.escape_default()) } else { safe.push(character) }
    }
    safe
}

/// Whether a character moves the cursor, starts an escape sequence, or changes the direction in which the
/// others are shown, so that what is read is not what is there (<https://trojansource.codes>).
fn controls_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn column_widths(rows: &[Vec<String>]) -> Vec<usize> {
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
        let table = render_table(&rows(&[
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
        assert_eq!(render_table(&rows(&[&["12345678", "x"], &["1", "x"]])), "12345678\tx\n1\t\tx\n");
        assert_eq!(render_table(&rows(&[&["1234567", "x"], &["", "x"]])), "1234567\tx\n\tx\n");
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(render_table(&rows(&[&["a\x1b[2J\tb"]])), "a\\u{1b}[2J\\tb\n");
    }

    #[test]
    fn whatever_is_printed_steers_no_terminal() {
        let hostile = "a\x1b]0;OWNED\x07\u{9b}2J\r\u{202e}\x7f\n\tb";

        assert_eq!(printable_lines(hostile), "a\\u{1b}]0;OWNED\\u{7}\\u{9b}2J\\r\\u{202e}\\u{7f}\n\tb");
        assert!(!printable_text(hostile).contains(['\n', '\t', '\x1b']));
        let json = printable_json(&serde_json::to_string(hostile).unwrap());
        assert!(!json.contains(['\x1b', '\u{9b}', '\x7f', '\u{202e}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }
}
