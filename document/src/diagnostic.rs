//! What is wrong with a document, and what to write instead.
//!
//! Knows severities, codes and places. Refuses to know terminals. Invariants: no diagnostic holds
//! the value of a content, password or key; the list is bounded, however long the input.

use std::fmt::{self, Display, Formatter};

use crate::source::SourceMark;

/// More than this many are counted, not kept.
// A file of another kind has a finding on each line. Nobody mends more than these before the next try, and
// the result file and the journal hold them all.
const KEPT: usize = 200;
/// A longer message is cut: names that users choose stand in it.
const MESSAGE_CHARACTERS: usize = 300;

/// How bad it is.
// The derived order goes by the lines, so the worst is the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is lost; something was understood in a way worth knowing.
    Note,
    /// What was written has no effect, or another one than its author may think.
    Warning,
    /// Something that was asked for will not be done.
    Error,
}

impl Severity {
    /// The word that starts the printed diagnostic.
    #[must_use]
    pub fn severity_word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Note => "note",
            Self::Warning => "warning",
        }
    }
}

/// The kind of mistake, stable for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the word it prints as")]
pub enum DiagnosticCode {
    BadValue,
    Conflict,
    Deprecated,
    DuplicateKey,
    Empty,
    Encoding,
    LimitExceeded,
    MissingKey,
    NoEffect,
    Protected,
    Refused,
    Salvaged,
    Syntax,
    Translated,
    UnknownFormat,
    UnknownKey,
    UnknownToken,
    WrongType,
}

impl DiagnosticCode {
    /// The word in brackets.
    #[must_use]
    pub fn code_word(self) -> &'static str {
        match self {
            Self::BadValue => "bad-value",
            Self::Conflict => "conflict",
            Self::Deprecated => "deprecated",
            Self::DuplicateKey => "duplicate-key",
            Self::Empty => "empty",
            Self::Encoding => "encoding",
            Self::LimitExceeded => "limit-exceeded",
            Self::MissingKey => "missing-key",
            Self::NoEffect => "no-effect",
            Self::Protected => "protected",
            Self::Refused => "refused",
            Self::Salvaged => "salvaged",
            Self::Syntax => "syntax",
            Self::Translated => "translated",
            Self::UnknownFormat => "unknown-format",
            Self::UnknownKey => "unknown-key",
            Self::UnknownToken => "unknown-token",
            Self::WrongType => "wrong-type",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The kind of mistake.
    pub code: DiagnosticCode,
    /// Where.
    pub at: SourceMark,
    /// The path of keys to it, like `users[2].uid`; empty at the top level.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// What others than the author may read of it, if the message repeats what could be a secret.
    pub public: Option<Box<Public>>,
}

/// A finding without the words of the document: a secret that is indented wrongly becomes a key, and one
/// that begins with a star becomes a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    /// What is wrong.
    pub message: String,
    /// The path of keys to it, as far as their names are known ones.
    pub key: String,
}

impl Diagnostic {
    /// Something asked for will not be done.
    pub fn error(code: DiagnosticCode, at: SourceMark, message: impl Display) -> Self {
        Self::with_severity(Severity::Error, code, at, message)
    }

    /// Something has no effect, or not the one its author may think.
    pub fn warning(code: DiagnosticCode, at: SourceMark, message: impl Display) -> Self {
        Self::with_severity(Severity::Warning, code, at, message)
    }

    /// Something was understood in a way worth knowing.
    pub fn note(code: DiagnosticCode, at: SourceMark, message: impl Display) -> Self {
        Self::with_severity(Severity::Note, code, at, message)
    }

    /// Says what to write instead.
    #[must_use]
    pub fn with_help(mut self, help: impl Display) -> Self {
        self.help = Some(shorten_message(&help.to_string()));
        self
    }

    /// Names the path of keys.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// Says what others than the author may read.
    #[must_use]
    pub fn in_public(mut self, message: impl Display, key: impl Into<String>) -> Self {
        let public = Public { message: shorten_message(&message.to_string()), key: key.into() };
        // Boxed, since findings are handed about and few have one.
        self.public = Some(Box::new(public));
        self
    }

    /// The finding as others than the author may read it.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        match self.public.as_deref() {
            None => self.clone(),
            Some(Public { message, key }) => {
                Self { message: message.clone(), key: key.clone(), public: None, ..self.clone() }
            }
        }
    }

    fn with_severity(
        severity: Severity,
        code: DiagnosticCode,
        at: SourceMark,
        message: impl Display,
    ) -> Self {
        let message = shorten_message(&message.to_string());
        Self { severity, code, at, key: String::new(), message, help: None, public: None }
    }
}

impl Display for Diagnostic {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}[{}]: {}", self.severity.severity_word(), self.code.code_word(), self.message)
    }
}

/// Everything that was found, in the order it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics {
    kept: Vec<Diagnostic>,
    left_out: usize,
    worst: Option<Severity>,
}

impl Diagnostics {
    /// Adds a finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.worst = self.worst.max(Some(diagnostic.severity));
        if self.kept.len() < KEPT {
            self.kept.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    /// Adds the findings of another list.
    pub fn append(&mut self, other: Self) {
        self.left_out += other.left_out;
        self.worst = self.worst.max(other.worst);
        other.kept.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// The findings that were kept.
    #[must_use]
    pub fn list(&self) -> &[Diagnostic] {
        &self.kept
    }

    /// Whether further findings are only counted, so that no thought need go into them.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kept.len() >= KEPT
    }

    /// How many were only counted.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The worst severity among all of them.
    #[must_use]
    pub fn worst_severity(&self) -> Option<Severity> {
        self.worst
    }

    /// Leaves out what its reader could do nothing about. What was only counted stays counted.
    pub fn retain(&mut self, keep: impl FnMut(&Diagnostic) -> bool) {
        self.kept.retain(keep);
        // What was only counted may have been the worst of all, so then the word stays.
        if self.left_out == 0 {
            self.worst = self.kept.iter().map(|diagnostic| diagnostic.severity).max();
        }
    }

    /// Moves each finding to where its place came from, when the text was made from another one.
    pub fn replace_marks(&mut self, origin: impl Fn(SourceMark) -> SourceMark) {
        for diagnostic in &mut self.kept {
            diagnostic.at = origin(diagnostic.at);
        }
    }

    /// Orders the findings by place, as people read.
    pub fn sort_by_place(&mut self) {
        self.kept.sort_by_key(|diagnostic| diagnostic.at);
    }
}

fn shorten_message(text: &str) -> String {
    let shown: String = text.chars().map(printable_character).take(MESSAGE_CHARACTERS).collect();
    if text.chars().nth(MESSAGE_CHARACTERS).is_some() { shown + "…" } else { shown }
}

/// A terminal must not obey what stands in a document.
fn printable_character(character: char) -> char {
    // U+FFFD, which Unicode has for what cannot be shown.
    if character.is_control() { '\u{fffd}' } else { character }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_findings_are_counted_but_not_all_kept() {
        let mut found = Diagnostics::default();

        for _ in 0..1000 {
            found.push(Diagnostic::warning(DiagnosticCode::UnknownKey, SourceMark::default(), "x"));
        }

        assert_eq!((found.list().len(), found.left_out()), (KEPT, 1000 - KEPT));
        assert_eq!(found.worst_severity(), Some(Severity::Warning));
    }

    #[test]
    fn what_could_be_a_secret_is_not_published() {
        let diagnostic =
            Diagnostic::warning(DiagnosticCode::UnknownKey, SourceMark::default(), "`hunter2` is unknown")
                .with_key("users[0].hunter2")
                .in_public("a key is unknown", "users[0]");

        let published = diagnostic.without_secrets();

        assert!(!format!("{published:?}").contains("hunter2"), "{published:?}");
        assert_eq!((published.severity, published.at), (diagnostic.severity, diagnostic.at));
    }

    #[test]
    fn messages_are_short_and_send_no_control_codes_to_a_terminal() {
        let message =
            Diagnostic::note(DiagnosticCode::Empty, SourceMark::default(), "\u{1b}[31m".repeat(500)).message;

        assert!(message.chars().count() <= MESSAGE_CHARACTERS + 1 && !message.contains('\u{1b}'));
    }
}
