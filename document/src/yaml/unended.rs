//! A text whose last line has no end.
//!
//! Knows that a block of text keeps the line's end that its author wrote, and no other. Refuses to touch any but the
//! last value. Invariant: what the parser added to a text is taken away again, so that a file has the bytes that
//! every other reader of YAML gives it.
//!
//! Documentation: YAML 1.2.2, rule 166 (`b-chomped-last`): the last break is a line feed, or the end of the input.

use granit_parser::{ScalarStyle, Span};

/// The end of a text that ends inside a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnendedText {
    lines: usize,
}

impl UnendedText {
    pub(super) fn of_text(text: &str) -> Option<Self> {
        // A line of white space alone ends the one before it.
        let is_inside = text.rsplit('\n').next().is_some_and(|last| !last.trim().is_empty());
        is_inside.then(|| Self { lines: text.lines().count() })
    }

    /// Whether a value is the block that ends with the text; the parser then has added a line feed to it.
    pub(super) fn ends_block(self, value: &str, style: ScalarStyle, span: &Span) -> bool {
        // A block that ends before a comment ends at the start of its line.
        matches!(style, ScalarStyle::Folded | ScalarStyle::Literal)
            && value.ends_with('\n')
            && span.end.line() == self.lines
            && span.end.col() > 0
    }
}
