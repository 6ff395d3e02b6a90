//! Where a value stood: the texts a user handed over, and marks into them.
//!
//! Knows lines and columns. Refuses to know formats. Invariant: a [`SourceMark`] stays valid when trees
//! of several parts are merged, because it names its part.

use std::fmt::{self, Display, Formatter};

/// A place in one of the [`SourceTexts`]; lines and columns count characters from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SourceMark {
    /// Which of the sources.
    pub part: u16,
    /// Line, from 1; 0 when only the part is known.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// How many characters of that line are meant.
    pub width: u32,
}

impl SourceMark {
    /// The start of a part, for what concerns it as a whole.
    #[must_use]
    pub fn start_of(part: u16) -> Self {
        Self { part, line: 1, column: 1, width: 0 }
    }
}

/// A value and the place where it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub at: SourceMark,
}

impl<T> Located<T> {
    /// The same place with another value.
    pub fn map_value<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: change(self.value), at: self.at }
    }
}

/// One text that was handed over.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceText {
    /// What people call it: a file name, `user-data`, `user-data part 2`.
    pub name: String,
    /// The text, when it is text.
    pub text: String,
    /// The number of the text's first line in the file that people edit.
    pub first_line: u32,
    /// The offset of each line, since every diagnostic asks for one.
    lines: Vec<usize>,
}

/// Prints the name only: the text may hold secrets.
impl fmt::Debug for SourceText {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "Source({}, {} bytes)", self.name, self.text.len())
    }
}

/// All texts that one run reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceTexts {
    parts: Vec<SourceText>,
}

impl SourceTexts {
    /// Adds a text; its number goes into the marks of what is parsed from it.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> u16 {
        self.add_at(name, text, 1)
    }

    /// Adds a text that begins at a later line of the file that people edit.
    pub fn add_at(&mut self, name: impl Into<String>, text: impl Into<String>, first_line: u32) -> u16 {
        // Parts are bounded far below by who opens the payload.
        let number = u16::try_from(self.parts.len()).unwrap_or(u16::MAX);
        let text = text.into();
        // Once, here: to count lines again for each of 200 findings would read a large text 200 times.
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        self.parts.push(SourceText { name: name.into(), text, first_line, lines });
        number
    }

    /// How many texts there are, which is the number of the next one.
    #[must_use]
    pub fn count_texts(&self) -> usize {
        self.parts.len()
    }

    /// The text with this number.
    #[must_use]
    pub fn source_text(&self, number: u16) -> Option<&SourceText> {
        self.parts.get(usize::from(number))
    }

    /// `file:line:column` of a mark.
    #[must_use]
    pub fn place_of(&self, mark: SourceMark) -> NamedPlace<'_> {
        let source = self.source_text(mark.part);
        let shift = source.map_or(0, |source| source.first_line.saturating_sub(1));
        NamedPlace {
            file: source.map_or("user-data", |source| &source.name),
            line: if mark.line == 0 { 0 } else { mark.line.saturating_add(shift) },
            column: mark.column,
        }
    }

    /// The text of the marked line.
    #[must_use]
    pub fn line_text(&self, mark: SourceMark) -> Option<&str> {
        let index = usize::try_from(mark.line).ok()?.checked_sub(1)?;
        let source = self.source_text(mark.part)?;
        // `lines` also takes a carriage return away, which texts of Windows have.
        source.text[*source.lines.get(index)?..].lines().next()
    }
}

/// A mark with the name people know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedPlace<'a> {
    /// File or part name.
    pub file: &'a str,
    /// Line in that file, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl Display for NamedPlace<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}", self.file),
            line => write!(out, "{}:{line}:{}", self.file, self.column),
        }
    }
}
