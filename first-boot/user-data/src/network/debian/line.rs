//! The lines of an interfaces file.
//!
//! Knows comments and that a backslash continues a line. Refuses to know options. Invariant: each line
//! that is given back has a first word.
//!
//! Documentation: interfaces(5).

use document::source::{Located, SourceMark};

/// A line: its first word, and what is behind it.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) rest: String,
    pub(super) at: SourceMark,
}

impl Line {
    /// The words behind the first one.
    pub(super) fn more_words(&self) -> impl Iterator<Item = &str> {
        self.rest.split_whitespace()
    }

    /// The name with underscores; ifupdown's packages have both spellings.
    pub(super) fn option_name(&self) -> String {
        self.name.replace('-', "_")
    }

    /// What is behind the first word, with its place.
    pub(super) fn option_value(&self) -> Located<String> {
        Located { value: self.rest.clone(), at: self.at }
    }

    fn parse_line(text: &str, at: SourceMark) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        Some(Self { name: name.to_owned(), rest: rest.trim().to_owned(), at })
    }
}

/// The lines that say something; what a backslash continues is one line.
pub(super) fn logical_lines(text: &str, part: u16) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut begun: Option<(String, SourceMark)> = None;
    for (number, line) in (1_u32..).zip(text.lines()) {
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        let column = u32::try_from(indent + 1).unwrap_or(1);
        let width = u32::try_from(line.trim().chars().count()).unwrap_or(0);
        let (mut joined, at) =
            begun.take().unwrap_or_else(|| (String::new(), SourceMark { part, line: number, column, width }));
        joined.push_str(line.trim_end_matches('\\'));
        if line.ends_with('\\') {
            begun = Some((joined, at));
        } else {
            lines.extend(Line::parse_line(&joined, at));
        }
    }
    lines.extend(begun.and_then(|(joined, at)| Line::parse_line(&joined, at)));
    lines
}
