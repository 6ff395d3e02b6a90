//! Prints diagnostics in rustc's manner, or as JSON.
//!
//! Knows texts and marks. Refuses to know what is right or wrong. Invariant: a shown line never
//! shows the value of a key that may hold a secret, and JSON shows no line at all.
//!
//! Documentation: rustc's manner is described in <https://rustc-dev-guide.rust-lang.org/diagnostics.html>.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics, Severity};
use crate::source::{SourceMark, SourceTexts};

/// Keys whose values stay hidden when their line is shown.
// Of cloud-config, Ignition, CoreOS' cloud-config and etcd's part of it. `list` is `chpasswd`'s, and `data`
// and `contents` hold files, in which people keep keys.
const SECRET_KEYS: [&str; 13] = [
    "content",
    "contents",
    "data",
    "etcd_password",
    "hashed_passwd",
    "list",
    "passwd",
    "password",
    "password_hash",
    "passwordhash",
    "plain_text_passwd",
    "secret",
    "token",
];
/// Keys of lists and mappings that hold contents or credentials. `append: true` is none of them.
// Only as a list or mapping: cloud-init's `append` is a flag, while Ignition's is a list of contents.
const SECRET_COLLECTIONS: [&str; 3] = ["append", "headers", "httpheaders"];
/// Ignition's key for what a header says.
const HEADER_VALUE: &str = "value";
/// Of a longer line nothing is shown: nobody wrote it by hand.
const LONGEST_LINE: usize = 4096;
/// A longer line is cut around the mark.
// Twice as wide as the terminals of old, so that a window around a mark is still read at one look.
const WIDEST_LINE: usize = 160;

/// Whether the lines of the document may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excerpts {
    /// To a journal or a console: places only.
    Hidden,
    /// To the person who wrote the document.
    Shown,
}

/// Whether the value of a key of this name may be a secret; the name has underscores.
#[must_use]
pub fn may_hold_secret(name: &str) -> bool {
    SECRET_KEYS.contains(&name)
}

/// All findings as text, each ended by an empty line, and a count at the end.
///
/// ```
/// use document::caret::{Excerpts, render_diagnostics};
/// use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
/// use document::source::{SourceMark, SourceTexts};
///
/// let (mut sources, mut found) = (SourceTexts::default(), Diagnostics::default());
/// let part = sources.add("web.yaml", "hostname: web_1!\n");
/// let at = SourceMark { part, line: 1, column: 11, width: 6 };
/// found.push(Diagnostic::error(DiagnosticCode::BadValue, at, "`hostname` is not a host name"));
///
/// let expected = concat!(
///     "error[bad-value]: `hostname` is not a host name\n",
///     " --> web.yaml:1:11\n",
///     "  |\n",
///     "1 | hostname: web_1!\n",
///     "  |           ^^^^^^\n",
///     "\n",
///     "1 error, 0 warnings\n",
/// );
/// assert_eq!(render_diagnostics(&found, &sources, Excerpts::Shown), expected);
/// ```
#[must_use]
pub fn render_diagnostics(found: &Diagnostics, sources: &SourceTexts, excerpts: Excerpts) -> String {
    let mut out = String::new();
    for diagnostic in found.list() {
        out += &render_one(diagnostic, sources, excerpts);
        out.push('\n');
    }
    if found.left_out() > 0 {
        let _ = write!(out, "… and {} more\n\n", found.left_out());
    }
    out + &summary_line(found)
}

/// One finding as text.
#[must_use]
pub fn render_one(diagnostic: &Diagnostic, sources: &SourceTexts, excerpts: Excerpts) -> String {
    let diagnostic = &redact_diagnostic(diagnostic, excerpts);
    let mut out = format!("{diagnostic}\n");
    let gutter = " ".repeat(digit_count(sources.place_of(diagnostic.at).line));
    let _ = writeln!(out, "{gutter}--> {}", sources.place_of(diagnostic.at));
    let excerpt = match excerpts {
        Excerpts::Hidden => None,
        Excerpts::Shown => source_excerpt(diagnostic, sources, &gutter),
    };
    out += &excerpt.unwrap_or_default();
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "{gutter} = help: {help}");
    }
    out
}

/// The finding as its reader may see it.
fn redact_diagnostic(diagnostic: &Diagnostic, excerpts: Excerpts) -> Diagnostic {
    match excerpts {
        Excerpts::Hidden => diagnostic.without_secrets(),
        Excerpts::Shown => diagnostic.clone(),
    }
}

/// All findings as one JSON value.
#[must_use]
pub fn to_json(found: &Diagnostics, sources: &SourceTexts, excerpts: Excerpts) -> Value {
    let list: Vec<Value> =
        found.list().iter().map(|one| one_to_json(&redact_diagnostic(one, excerpts), sources)).collect();
    json!({ "diagnostics": list, "left_out": found.left_out() })
}

/// One finding as JSON.
#[must_use]
pub fn one_to_json(diagnostic: &Diagnostic, sources: &SourceTexts) -> Value {
    let place = sources.place_of(diagnostic.at);
    json!({
        "severity": diagnostic.severity.severity_word(),
        "code": diagnostic.code.code_word(),
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "key": diagnostic.key,
        "message": diagnostic.message,
        "help": diagnostic.help,
    })
}

fn summary_line(found: &Diagnostics) -> String {
    let count = |severity| found.list().iter().filter(|one| one.severity == severity).count();
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => String::new(),
        (errors, warnings) => format!("{}, {}\n", count_of(errors, "error"), count_of(warnings, "warning")),
    }
}

fn count_of(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn digit_count(number: u32) -> usize {
    number.to_string().len()
}

fn source_excerpt(diagnostic: &Diagnostic, sources: &SourceTexts, gutter: &str) -> Option<String> {
    let mark = diagnostic.at;
    let line = sources.line_text(mark).filter(|line| line.len() <= LONGEST_LINE)?;
    let shown = match diagnostic.code {
        DiagnosticCode::UnknownToken if marks_token(line, mark) => only_marked(line, mark),
        _ => without_secret(line),
    };
    let (shown, column) = window_around(&shown, mark.column);
    let carets = "^".repeat(usize::try_from(mark.width).unwrap_or(1).clamp(1, WIDEST_LINE));
    let room = shown.chars().count().saturating_sub(column - 1).max(1);
    // The mark may reach beyond what is shown of the line.
    let carets: String = carets.chars().take(room).collect();
    let number = sources.place_of(mark).line;
    let pad = " ".repeat(column - 1);
    Some(format!("{gutter} |\n{number} | {shown}\n{gutter} | {pad}{carets}\n"))
}

/// The line with control characters as blanks and the values of secret keys as dots, column by column.
fn without_secret(line: &str) -> String {
    // A terminal would obey escape sequences of the document, and a tab would move the carets.
    let line: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut shown = line.clone();
    let plain: String = line.iter().collect::<String>().replace('-', "_").to_ascii_lowercase();
    let plain: Vec<char> = plain.chars().collect();
    // Every colon and not the first only: a line of JSON or of a flow mapping has many keys.
    for colon in (0..plain.len()).filter(|index| plain[*index] == ':') {
        let name: String = plain[..colon].iter().collect();
        let name = name.trim_end_matches([' ', '"', '\'']);
        let start = name.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |end| end + 1);
        let name = name.get(start..).unwrap_or_default().trim_start_matches('_');
        let Some(value) = (colon + 1..line.len()).find(|index| line[*index] != ' ') else { continue };
        // cloud-init's `ssh_keys` has `rsa_private` and its like.
        let is_secret = SECRET_KEYS.contains(&name) || name.ends_with("_private");
        let is_filled = SECRET_COLLECTIONS.contains(&name) && matches!(line[value], '[' | '{');
        if is_secret || is_filled || name == HEADER_VALUE {
            let end = value_end(&line, value);
            shown[value..end].fill('•');
        }
    }
    shown.into_iter().collect()
}

/// Where a value ends: at its closing quote or bracket, at the end of its flow entry, or with the line. Rather too
/// late than too early: an apostrophe in a plain text is taken for a quote.
fn value_end(line: &[char], start: usize) -> usize {
    let rest: String = line[start..].iter().collect();
    // The text stands on the lines below, which are not shown.
    if matches!(rest.trim(), "|" | "|-" | "|+" | ">" | ">-" | ">+" | "!!binary |") {
        return start;
    }
    let in_flow = line[..start].contains(&'{');
    let end = match line[start] {
        quote @ ('"' | '\'') => quote_end(line, start + 1, quote),
        '[' | '{' => bracket_end(line, start),
        _ if in_flow => {
            let end = (start..line.len()).find(|index| matches!(line[*index], ',' | '}' | ']'));
            end.unwrap_or(line.len())
        }
        _ => line.len(),
    };
    // A data address is no key, but its content ends with the text that it stands in.
    open_quote(&line[..start]).map_or(end, |quote| end.max(quote_end(line, start, quote)))
}

/// Where a quoted text ends whose inside begins at `start`; YAML doubles single quotes in it.
fn quote_end(line: &[char], start: usize, quote: char) -> usize {
    let mut index = start;
    while index < line.len() {
        match (line[index], line.get(index + 1)) {
            // YAML 1.2.2, 7.3.1 and 7.3.2: only double quotes know the backslash.
            ('\\', _) if quote == '"' => index += 2,
            ('\'', Some('\'')) if quote == '\'' => index += 2,
            (mark, _) if mark == quote => return index,
            _ => index += 1,
        }
    }
    line.len()
}

/// Where the bracket at `start` is closed; those in quoted texts do not count.
fn bracket_end(line: &[char], start: usize) -> usize {
    let (mut index, mut depth) = (start, 0_usize);
    while index < line.len() {
        match line[index] {
            // A bracket in quotes closes nothing. Values were once hidden only up to the first comma or
            // brace, and what stood behind it was shown.
            quote @ ('"' | '\'') => index = quote_end(line, index + 1, quote),
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
        index += 1;
    }
    line.len()
}

/// The quote that is open at the end of a text.
fn open_quote(line: &[char]) -> Option<char> {
    let mut index = 0;
    while index < line.len() {
        let quote = line[index];
        if matches!(quote, '"' | '\'') {
            index = quote_end(line, index + 1, quote);
            if index >= line.len() {
                return Some(quote);
            }
        }
        index += 1;
    }
    None
}

/// Whether the mark covers a token and nothing else.
fn marks_token(line: &str, mark: SourceMark) -> bool {
    line.chars().nth(mark.column.saturating_sub(1) as usize) == Some('$')
}

/// Only the marked characters: the rest of the line belongs to a content.
fn only_marked(line: &str, mark: SourceMark) -> String {
    let (start, width) = (mark.column.saturating_sub(1) as usize, mark.width as usize);
    let blank: String = line.chars().take(start).map(|_| ' ').collect();
    blank + &line.chars().skip(start).take(width).collect::<String>()
}

/// A window of the line that shows the column, and the column in it.
fn window_around(line: &str, column: u32) -> (String, usize) {
    let column = usize::try_from(column).unwrap_or(1).max(1);
    let start = if column > WIDEST_LINE { column - WIDEST_LINE / 2 } else { 0 };
    let shown: String = line.chars().skip(start).take(WIDEST_LINE).collect();
    let column = (column - start).min(shown.chars().count() + 1);
    (shown, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, at: SourceMark) -> String {
        let mut sources = SourceTexts::default();
        sources.add("user-data", text);
        let diagnostic = Diagnostic::error(DiagnosticCode::UnknownKey, at, "`usrs` is not a key here");
        render_one(&diagnostic.with_help("did you mean `users`?"), &sources, Excerpts::Shown)
    }

    #[test]
    fn the_line_stands_over_its_caret() {
        let text = rendered("#cloud-config\nusrs:\n", SourceMark { part: 0, line: 2, column: 1, width: 4 });

        assert_eq!(
            text,
            "error[unknown-key]: `usrs` is not a key here\n --> user-data:2:1\n  |\n2 | usrs:\n  | ^^^^\n  = help: did you mean `users`?\n"
        );
    }

    #[test]
    fn secrets_in_the_line_are_not_shown() {
        for line in
            ["  passwd: hunter2", "- {name: a, plain-text-passwd: hunter2}", "ed25519_private: hunter2"]
        {
            let text = rendered(line, SourceMark { part: 0, line: 1, column: 1, width: 3 });

            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_secret_is_hidden_to_the_end_of_its_value_and_no_further() {
        for line in [
            r#"{"contents": {"source": "data:,a,hunter2"}, "b": "shown"}"#,
            r#"{"contents": {"source": "data:,a}hunter2"}, "b": "shown"}"#,
            r#"{"source": "data:,a,hunter2", "b": "shown"}"#,
            r#"{"contents": "[Service]\nEnvironment=\"A=hunter2\"", "b": "shown"}"#,
            r#"{"append": [{"source": "data:,a"}, {"source": "data:,hunter2"}], "b": "shown"}"#,
            r#"{"httpHeaders": [{"name": "X", "value": "hunter2"}], "b": "shown"}"#,
            r#"{"value": "hunter2", "b": "shown"}"#,
            "{source: {headers: {A: x, Authorization: hunter2}}, b: shown}",
            "{content: [a, [b], hunter2], b: shown}",
            "{passwd: 'it''s, hunter2', b: shown}",
            "{append: true, passwd: hunter2, b: shown}",
        ] {
            let text = rendered(line, SourceMark { part: 0, line: 1, column: 1, width: 3 });

            assert!(!text.contains("hunter2") && text.contains("shown"), "{text}");
        }
    }

    #[test]
    fn a_secret_that_goes_on_in_the_next_line_is_hidden_to_the_end_of_this_one() {
        for line in [
            r#"  "source": "data:,hunter2"#,
            r#"  "contents": {"source": "data:,a", "verification": {}, "hunter2": ["#,
            "content: \"a, hunter2",
            "  headers: {A: x, B: hunter2",
        ] {
            let text = rendered(line, SourceMark { part: 0, line: 1, column: 1, width: 3 });

            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_mark() {
        let text = rendered(&"x".repeat(4000), SourceMark { part: 0, line: 1, column: 3000, width: 50_000 });

        assert!(text.len() < 1000, "{}", text.len());
    }

    #[test]
    fn a_line_that_no_hand_wrote_is_not_shown() {
        let text = rendered(&":".repeat(1 << 20), SourceMark { part: 0, line: 1, column: 9, width: 1 });

        assert!(!text.contains("::"), "{text}");
    }

    #[test]
    fn hidden_excerpts_show_only_places() {
        let mut sources = SourceTexts::default();
        sources.add("user-data", "hunter2");
        let one = Diagnostic::error(DiagnosticCode::Syntax, SourceMark::start_of(0), "broken");

        assert!(!render_one(&one, &sources, Excerpts::Hidden).contains("hunter2"));
    }
}
