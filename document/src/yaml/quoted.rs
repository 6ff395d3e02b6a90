//! Quoted texts whose later lines are indented less than their key.
//!
//! YAML forbids them (1.2.2, 7.3: each line of a flow scalar in a block is indented); libyaml, and with it
//! every reader of cloud-configs so far, takes them, so that files in use have them. Blanks at the
//! start of such a line never belong to the text, so it is given more of them, and the places of what
//! stands on it are counted without. Refuses to touch any other line. Invariant: the work is bounded by
//! the length of the text.
//!
//! Documentation: YAML 1.2.2, 7.3, and for what libyaml takes <https://github.com/yaml/libyaml>.

use std::collections::BTreeSet;

use granit_parser::{ErrorKind, Parser};

/// The parser names one such line at a time, so that a text is read again for each; no more bytes than
/// these, which are read in some tens of milliseconds.
const MOST_READ: usize = 8 << 20;
/// Lines beyond this are not written by people.
const DEEPEST_COLUMN: usize = 512;

/// A text with such lines indented, and which they are.
pub(super) struct Padded {
    pub(super) text: String,
    /// Counted from 1.
    pub(super) lines: BTreeSet<usize>,
    /// By how many columns.
    pub(super) width: usize,
}

/// Whether a mistake is one of these lines.
pub(super) fn is_one(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidQuotedScalarIndent | ErrorKind::TabInIndentation)
}

/// The text with all such lines indented; `None` if there are none, or too many.
pub(super) fn indent_lines(text: &str) -> Option<Padded> {
    let blanks = |line: &str| line.len() - line.trim_start_matches(' ').len();
    // One column further than any line of the text, so that it is deeper than whichever key it belongs to.
    let width = text.lines().map(blanks).max().unwrap_or(0) + 1;
    if width > DEEPEST_COLUMN {
        return None;
    }
    let mut padded = Padded { text: text.to_owned(), lines: BTreeSet::new(), width };
    let mut read = 0;
    // The parser was looked at first: it has no option for it.
    while let Some(line) = next(&padded.text) {
        read += padded.text.len();
        if read > MOST_READ || !padded.indent_line(line, text) {
            return None;
        }
    }
    (!padded.lines.is_empty()).then_some(padded)
}

/// The next such line.
fn next(text: &str) -> Option<usize> {
    let mut events = Parser::new_from_str_with_options(text, super::parser_options());
    let error = events.find_map(Result::err)?;
    is_one(error.kind()).then(|| error.marker().line())
}

impl Padded {
    /// Indents a line, and those behind it up to one with a quote in it: none of them ends the text. Says
    /// whether there was anything to do.
    fn indent_line(&mut self, first: usize, text: &str) -> bool {
        let before = self.lines.len();
        for (index, line) in text.lines().enumerate().skip(first.saturating_sub(1)) {
            self.lines.insert(index + 1);
            if line.contains(['"', '\'']) {
                break;
            }
        }
        let blanks = " ".repeat(self.width);
        let lines = text.split_inclusive('\n').enumerate();
        self.text = lines
            .flat_map(|(index, line)| {
                [if self.lines.contains(&(index + 1)) { blanks.as_str() } else { "" }, line]
            })
            .collect();
        self.lines.len() > before
    }

    /// The column of the original text.
    pub(super) fn source_column(&self, line: usize, column: usize) -> usize {
        if self.lines.contains(&line) { column.saturating_sub(self.width) } else { column }
    }
}
