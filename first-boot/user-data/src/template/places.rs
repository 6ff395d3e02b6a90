//! From a place in what a template became to the place in the template that made it.
//!
//! Knows which bytes were copied and which an expression wrote. Refuses to know what they mean. Invariant: a place
//! in copied text keeps its line and column in the author's file; one in an expression's output is the
//! expression's.

use document::source::SourceMark;
use minijinja::{OutputSpan, OutputSpanKind};

/// A plan may have ten thousand places on one line: characters of longer lines count as one byte each.
// Columns count characters, which must be walked through. Bytes stand for them behind this, so that time
// stays bounded.
const COUNTED: usize = 4096;

/// Where the places of an expanded text come from.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pieces: Vec<Piece>,
    output: Text,
    template: Text,
}

/// A text and the offset of each of its lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Text {
    text: String,
    lines: Vec<usize>,
}

/// A row of bytes that came from one place.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Where it starts in what came out.
    output: usize,
    /// Where it comes from.
    source: usize,
    /// How long the expression is that wrote it; `None` of copied text.
    expression: Option<usize>,
}

impl Places {
    /// Of a text in which nothing was expanded.
    pub(super) fn unmoved() -> Self {
        Self::default()
    }

    /// `template` is the author's text with its header, which ends at `start`; `head` stands for the header.
    pub(super) fn new(template: &str, start: usize, head: &str, output: &str, spans: &[OutputSpan]) -> Self {
        let piece = |span: &OutputSpan| {
            let (output, source) = (span.output_range(), span.source_range());
            let expression = (span.kind() == OutputSpanKind::Expression).then(|| source.len());
            Piece { output: head.len() + output.start, source: start + source.start, expression }
        };
        Self {
            pieces: spans.iter().map(piece).collect(),
            output: Text::new(format!("{head}{output}")),
            template: Text::new(template.to_owned()),
        }
    }

    /// Where a place in the expanded text comes from.
    #[must_use]
    pub fn original_mark(&self, mark: SourceMark) -> SourceMark {
        let Some(offset) = self.output.offset_of(mark) else { return mark };
        // minijinja gives the spans in the order of the output, so a binary search finds the piece.
        let after = self.pieces.partition_point(|piece| piece.output <= offset);
        // What is before the first piece stands for the header, which kept its lines.
        let Some(piece) = after.checked_sub(1).and_then(|index| self.pieces.get(index)) else { return mark };
        let (source, width) = match piece.expression {
            None => (piece.source + offset - piece.output, mark.width),
            Some(length) => (piece.source, u32::try_from(length).unwrap_or(1)),
        };
        self.template.mark_of(source, mark.part, width)
    }
}

impl Text {
    pub(super) fn new(text: String) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        Self { text, lines }
    }

    fn offset_of(&self, mark: SourceMark) -> Option<usize> {
        let index = usize::try_from(mark.line).ok()?.checked_sub(1)?;
        let start = *self.lines.get(index)?;
        let end = self.lines.get(index + 1).map_or(self.text.len(), |next| next - 1);
        let column = usize::try_from(mark.column.saturating_sub(1)).ok()?;
        let counted = self.text.get(start..end)?.char_indices().nth(column.min(COUNTED));
        let counted = counted.map_or(end, |(at, _)| start + at);
        Some((counted + column.saturating_sub(COUNTED)).min(end))
    }

    /// The place of an offset; of one inside a character, that of the character.
    pub(super) fn mark_of(&self, offset: usize, part: u16, width: u32) -> SourceMark {
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let before = &self.text[self.lines.get(line - 1).copied().unwrap_or_default()..offset];
        let near = &before[..before.floor_char_boundary(before.len().min(COUNTED))];
        let column = near.chars().count() + (before.len() - near.len()) + 1;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        SourceMark { part, line: number(line), column: number(column), width }
    }
}
