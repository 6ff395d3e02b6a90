//! JSON as the same tree that YAML makes, with a place for every value.
//!
//! Knows RFC 8259. Refuses what it does not allow, comments and trailing commas included. Invariants:
//! size, depth and number of values are bounded; a duplicate key stays in the tree, for its reader to
//! report.
//!
//! Documentation: RFC 8259. `serde_json` was not enough: it gives no place for values, only for errors.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::SourceMark;
use document::yaml::{MappingEntry, Node, Scalar, ScalarStyle, Value};

/// The largest document read.
// Files of Ignition stand in it as base64. MiB of them belong to a server that is referred to.
pub const MOST_BYTES: usize = 4 << 20;
/// The most values read.
// Four MiB of small values would take some hundred MiB of memory.
const MOST_NODES: usize = 100_000;
const MOST_MAPS: usize = 30_000;
// Ignition's schema has eight levels.
const DEEPEST: usize = 32;

/// Whether a document is small enough to be parsed, in bytes and in values. A map of one entry takes
/// eight bytes of a document and six hundred of memory, so their number is looked at first.
#[must_use]
pub fn is_bounded(bytes: &[u8]) -> bool {
    let count = |marks: &[u8]| bytes.iter().filter(|byte| marks.contains(byte)).count();
    bytes.len() <= MOST_BYTES && count(b"{") <= MOST_MAPS && count(b",[") <= 2 * MOST_NODES
}

/// Reads a document; `None` means that there is no tree, and that the reason was reported.
pub fn parse_json(text: &str, part: u16, found: &mut Diagnostics) -> Option<Node> {
    if text.len() > MOST_BYTES {
        let message = format!("this is larger than {} MiB", MOST_BYTES >> 20);
        found.push(Diagnostic::error(DiagnosticCode::LimitExceeded, SourceMark::start_of(part), message));
        return None;
    }
    let mut reader = JsonReader { text, at: 0, line: 1, line_start: 0, part, nodes: 0 };
    let node = reader.read_document();
    node.map_err(|diagnostic| found.push(diagnostic)).ok()
}

struct JsonReader<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    line_start: usize,
    part: u16,
    nodes: usize,
}

impl JsonReader<'_> {
    fn read_document(&mut self) -> Result<Node, Diagnostic> {
        self.skip_blanks();
        let node = self.read_value(0)?;
        self.skip_blanks();
        if self.at < self.text.len() {
            return Err(self.syntax_error("something follows the end of the document"));
        }
        Ok(node)
    }

    fn read_value(&mut self, depth: usize) -> Result<Node, Diagnostic> {
        self.nodes += 1;
        if depth > DEEPEST || self.nodes > MOST_NODES {
            let message =
                format!("this is nested more than {DEEPEST} deep, or has more than {MOST_NODES} values");
            return Err(Diagnostic::error(DiagnosticCode::LimitExceeded, self.current_mark(), message));
        }
        let at = self.current_mark();
        let value = match self.peek_byte() {
            Some(b'{') => Value::Mapping(self.read_mapping(depth)?),
            Some(b'[') => Value::Sequence(self.read_sequence(depth)?),
            Some(b'"') => scalar_value(self.read_string()?, ScalarStyle::Quoted),
            Some(_) => scalar_value(self.read_word()?, ScalarStyle::Plain),
            None => {
                return Err(
                    self.syntax_error("the document ends where a value must stand; it may have been cut off")
                );
            }
        };
        Ok(Node { at, value })
    }

    fn read_mapping(&mut self, depth: usize) -> Result<Vec<MappingEntry>, Diagnostic> {
        let mut entries = Vec::new();
        self.at += 1;
        while self.next_item(b'}', entries.is_empty())? {
            let key_at = self.current_mark();
            if self.peek_byte() != Some(b'"') {
                return Err(self.syntax_error("a key in double quotes must stand here"));
            }
            let key = self.read_string()?;
            self.skip_blanks();
            self.expect_byte(b':', "a colon must follow the key")?;
            self.skip_blanks();
            entries.push(MappingEntry { key, key_at, value: self.read_value(depth + 1)? });
        }
        Ok(entries)
    }

    fn read_sequence(&mut self, depth: usize) -> Result<Vec<Node>, Diagnostic> {
        let mut items = Vec::new();
        self.at += 1;
        while self.next_item(b']', items.is_empty())? {
            items.push(self.read_value(depth + 1)?);
        }
        Ok(items)
    }

    /// Goes to the next item of a list or map; `false` behind its end.
    fn next_item(&mut self, end: u8, first: bool) -> Result<bool, Diagnostic> {
        self.skip_blanks();
        if self.peek_byte() == Some(end) {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            self.expect_byte(b',', "a comma or the end of the list must stand here")?;
            self.skip_blanks();
        }
        Ok(true)
    }

    /// `true`, `false`, `null` or a number.
    fn read_word(&mut self) -> Result<String, Diagnostic> {
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        let word = &rest[..end];
        // Rust's parser takes `inf`, `NaN` and `.5`, which JSON has not, hence the look at the first letter.
        let number =
            word.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && word.parse::<f64>().is_ok();
        if !number && !matches!(word, "true" | "false" | "null") {
            return Err(self.syntax_error(
                "a value must stand here: text in double quotes, a number, true, false or null",
            ));
        }
        self.at += end;
        Ok(word.to_owned())
    }

    fn read_string(&mut self) -> Result<String, Diagnostic> {
        let mut text = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            text.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek_byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.read_escape()?),
                Some(_) => {
                    return Err(self.syntax_error("a line break or control character stands inside a text"));
                }
                None => {
                    return Err(self.syntax_error("a text has no end; the document may have been cut off"));
                }
            }
        }
    }

    fn read_escape(&mut self) -> Result<char, Diagnostic> {
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        self.at += 2;
        let plain = match letter {
            Some(b'u') => return self.read_unicode(),
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(letter),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            _ => {
                self.at -= 2;
                return Err(self.syntax_error("this escape is not one of JSON's"));
            }
        };
        Ok(plain)
    }

    /// Four hexadecimal digits, twice if the first four are half of a pair.
    fn read_unicode(&mut self) -> Result<char, Diagnostic> {
        let high = self.four_digits()?;
        if !(0xd800..0xdc00).contains(&high) {
            // RFC 8259, section 8.2, allows half a pair. A text of Rust cannot hold it.
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !self.text[self.at..].starts_with("\\u") {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        self.at += 2;
        let low = self.four_digits()?;
        let both = 0x10000 + ((high - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff);
        Ok(char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn four_digits(&mut self) -> Result<u32, Diagnostic> {
        let digits =
            self.text.get(self.at..self.at + 4).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let value = value.ok_or_else(|| self.syntax_error("four hexadecimal digits must follow `\\u`"))?;
        self.at += 4;
        Ok(value)
    }

    fn skip_blanks(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek_byte() {
            self.at += 1;
            if byte == b'\n' {
                self.line = self.line.saturating_add(1);
                self.line_start = self.at;
            }
        }
    }

    fn expect_byte(&mut self, byte: u8, message: &str) -> Result<(), Diagnostic> {
        if self.peek_byte() != Some(byte) {
            return Err(self.syntax_error(message));
        }
        self.at += 1;
        Ok(())
    }

    fn peek_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn current_mark(&self) -> SourceMark {
        // A document may be one line of megabytes: its columns count bytes beyond the first thousand.
        let here = &self.text.as_bytes()[self.line_start..self.at];
        let column = match here.len() {
            0..=1000 => here.iter().filter(|byte| **byte & 0xc0 != 0x80).count(),
            long => long,
        };
        SourceMark {
            part: self.part,
            line: self.line,
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
            width: 1,
        }
    }

    fn syntax_error(&self, message: &str) -> Diagnostic {
        Diagnostic::error(DiagnosticCode::Syntax, self.current_mark(), message)
    }
}

fn scalar_value(text: String, style: ScalarStyle) -> Value {
    Value::Scalar(Scalar { text, style, binary: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Node, (u32, u32, String)> {
        let mut found = Diagnostics::default();
        parse_json(text, 0, &mut found).ok_or_else(|| {
            let first = &found.list()[0];
            (first.at.line, first.at.column, first.message.clone())
        })
    }

    fn first_text(text: &str) -> String {
        match parsed(text).unwrap().value {
            Value::Scalar(scalar) => scalar.text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn texts_are_unescaped() {
        assert_eq!(first_text(r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 é""#), "a\"\\/\u{8}\u{c}\n\r\té😀 é");
        assert_eq!(first_text(r#""\ud83d""#), "\u{fffd}");
        assert_eq!(first_text(r#""\ud83d\u0041""#), "\u{1f441}");
    }

    #[test]
    fn values_know_their_places() {
        let Value::Mapping(entries) = parsed("{\n  \"é\": [1,\n 2]}").unwrap().value else { panic!() };

        assert_eq!((entries[0].key_at.line, entries[0].key_at.column), (2, 3));
        let Value::Sequence(items) = &entries[0].value.value else { panic!() };
        assert_eq!((items[0].at.line, items[0].at.column), (2, 9));
        assert_eq!((items[1].at.line, items[1].at.column), (3, 2));
    }

    #[test]
    fn mistakes_are_found_where_they_are() {
        for (text, line, column) in [
            ("{\"a\": 1,}", 1, 9),
            ("{\"a\" 1}", 1, 6),
            ("[1 2]", 1, 4),
            ("{\n a: 1}", 2, 2),
            ("\"a\nb\"", 1, 3),
            ("[\"\\x\"]", 1, 3),
            ("{} {}", 1, 4),
            ("[1", 1, 3),
            ("nul", 1, 1),
            ("// x\n{}", 1, 1),
        ] {
            let (at_line, at_column, message) = parsed(text).unwrap_err();

            assert_eq!((at_line, at_column), (line, column), "{text:?}: {message}");
        }
    }

    #[test]
    fn depth_number_and_size_are_bounded() {
        assert!(parsed(&"[".repeat(100_000)).unwrap_err().2.contains("nested"));
        assert!(parsed(&format!("[{}1]", "1,".repeat(200_000))).unwrap_err().2.contains("values"));
        assert!(parsed(&" ".repeat(MOST_BYTES + 1)).unwrap_err().2.contains("larger"));
    }
}
