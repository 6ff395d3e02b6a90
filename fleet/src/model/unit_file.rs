//! Unit files: text to options and back, and the hash that names a content.
//!
//! Knows the lexical rules of the original, byte for byte, because two programs must agree on the hash
//! of a text; refuses to know what an option means. Invariant: parsing the canonical text of a unit
//! file gives the same unit file, if no value holds what only a file cannot express.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// The longest line, in bytes.
// Where go-systemd, the reader of the original, stopped. A file that it refused is refused here, and one
// that it took has the same hash.
pub const MAX_LINE: usize = 2048;
/// The largest unit file, in bytes: the store takes values of this size with room to spare.
// Far above any unit file, and with the fields around it well below what etcd takes in one request.
pub const MAX_SIZE: usize = 512 * 1024;

/// Why a text is no unit file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseUnitError {
    #[error("unit file of {0} bytes is too large (max {MAX_SIZE} bytes)")]
    TooLarge(usize),
    #[error("unable to find end of section")]
    OpenSection,
    #[error("found garbage after section name {section}: {garbage:?}")]
    GarbageAfterSection { section: String, garbage: String },
    #[error("unexpected newline encountered while parsing option name")]
    NewlineInName,
    #[error("unexpected end of file encountered while parsing option name")]
    EndInName,
    #[error("line too long (max {MAX_LINE} bytes)")]
    LineTooLong,
    #[error("option {name:?} of section {section:?} cannot be written to a unit file")]
    Unwritable { section: String, name: String },
}

/// A text as the store can keep it, made of the bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedText {
    /// The text; each byte that is no UTF-8 is U+FFFD.
    pub text: String,
    /// The line and the column, in bytes and from 1, of the first such byte, and the byte.
    pub first_foreign: Option<(usize, usize, u8)>,
}

impl DecodedText {
    /// Reads the bytes of a file. The original kept them as they were until they went through JSON, where
    /// Go puts U+FFFD for each byte that is no UTF-8 (encoding/json, "Marshal"). One for each, where Rust
    /// puts one for several: else the hash would be another one.
    #[must_use]
    pub fn decode_bytes(bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(bytes.len());
        let mut first_foreign = None;
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if let (None, Some(byte)) = (first_foreign, chunk.invalid().first()) {
                let line = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
                let column = text.len() - text.rfind('\n').map_or(0, |end| end + 1) + 1;
                first_foreign = Some((line, column, *byte));
            }
            text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
        }
        Self { text, first_foreign }
    }
}

/// One `Name=Value` of a section.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnitOption {
    /// The section, without brackets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub section: String,
    /// The part before `=`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The part after `=`; continuation lines are kept as they were typed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// SHA-1 of a canonical unit text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitHash([u8; 20]);

impl UnitHash {
    /// The hash of a canonical text.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self(Sha1::digest(text.as_bytes()).into())
    }

    /// Reads 40 hexadecimal digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 40 || !hex.is_ascii() {
            return None;
        }
        let mut bytes = [0; 20];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The first seven digits, as lists show them.
    #[must_use]
    pub fn short_hash(&self) -> String {
        self.to_string()[..7].to_owned()
    }
}

impl fmt::Display for UnitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for UnitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for UnitHash {
    type Error = String;

    fn try_from(hex: String) -> Result<Self, String> {
        Self::parse(&hex).ok_or_else(|| format!("{hex:?} is not the SHA-1 of a unit file"))
    }
}

impl From<UnitHash> for String {
    fn from(hash: UnitHash) -> Self {
        hash.to_string()
    }
}

/// The content of a unit file. Cheap to clone: machines and records share one copy of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    options: Arc<[UnitOption]>,
    hash: UnitHash,
}

impl UnitFile {
    /// Reads the text of a unit file.
    ///
    /// ```
    /// use fleet::model::unit_file::UnitFile;
    ///
    /// let file = UnitFile::parse("# a comment\n[Service]\nExecStart=/bin/true\n\n[X-Fleet]\nGlobal=true\n")?;
    ///
    /// assert_eq!(file.values_of("Service", "ExecStart").collect::<Vec<_>>(), ["/bin/true"]);
    /// // Comments are not stored: the hash names what systemd is given.
    /// assert_eq!(file.canonical_text(), "[Service]\nExecStart=/bin/true\n\n[X-Fleet]\nGlobal=true\n");
    /// assert!(UnitFile::parse("[Service\n").is_err());
    /// # Ok::<(), fleet::model::unit_file::ParseUnitError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ParseUnitError> {
        if text.len() > MAX_SIZE {
            return Err(ParseUnitError::TooLarge(text.len()));
        }
        Ok(Self::with_hash(UnitLexer { rest: text }.lex_options()?))
    }

    /// Takes options as the API carries them.
    ///
    /// ```
    /// use fleet::model::unit_file::{UnitFile, UnitOption};
    ///
    /// let option = |value: &str| UnitOption {
    ///     section: "Service".into(),
    ///     name: "ExecStart".into(),
    ///     value: value.into(),
    /// };
    ///
    /// let file = UnitFile::from_options(vec![option("/bin/true")])?;
    /// assert_eq!(file.hash(), UnitFile::parse("[Service]\nExecStart=/bin/true\n")?.hash());
    ///
    /// // A line break could smuggle in a section.
    /// assert!(UnitFile::from_options(vec![option("/bin/true\n[Install]")]).is_err());
    /// # Ok::<(), fleet::model::unit_file::ParseUnitError>(())
    /// ```
    ///
    /// What no file can express is refused, because the agent
    /// will have to write one.
    pub fn from_options(options: Vec<UnitOption>) -> Result<Self, ParseUnitError> {
        let size: usize = options.iter().map(|o| o.section.len() + o.name.len() + o.value.len() + 4).sum();
        if size > MAX_SIZE {
            return Err(ParseUnitError::TooLarge(size));
        }
        match options.iter().find(|option| !is_writable(option)) {
            Some(bad) => {
                Err(ParseUnitError::Unwritable { section: bad.section.clone(), name: bad.name.clone() })
            }
            None => Ok(Self::with_hash(options)),
        }
    }

    fn with_hash(options: Vec<UnitOption>) -> Self {
        let hash = UnitHash::of_text(&canonical_text(&options));
        Self { options: options.into(), hash }
    }

    /// The options in the order of the text.
    #[must_use]
    pub fn options(&self) -> &[UnitOption] {
        &self.options
    }

    /// The canonical text: what is stored, hashed, shown by `cat` and written to disk.
    #[must_use]
    pub fn canonical_text(&self) -> String {
        canonical_text(&self.options)
    }

    /// The hash of the canonical text.
    #[must_use]
    pub fn hash(&self) -> UnitHash {
        self.hash
    }

    /// The values of an option, in order.
    pub fn values_of<'a>(&'a self, section: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |o| o.section == section && o.name == name).map(|o| o.value.as_str())
    }

    /// Whether the file has options in this section.
    #[must_use]
    pub fn has_section(&self, section: &str) -> bool {
        self.options.iter().any(|option| option.section == section)
    }

    /// `Description=` of `[Unit]`, or nothing.
    #[must_use]
    pub fn description(&self) -> &str {
        self.values_of("Unit", "Description").next().unwrap_or_default()
    }
}

fn canonical_text(options: &[UnitOption]) -> String {
    let mut sections: Vec<&str> = Vec::new();
    for option in options {
        if !sections.contains(&option.section.as_str()) {
            sections.push(&option.section);
        }
    }
    let blocks = sections.iter().map(|section| {
        let mut block = format!("[{section}]\n");
        for option in options.iter().filter(|option| option.section == *section) {
            block.push_str(&option.name);
            block.push('=');
            block.push_str(&option.value);
            block.push('\n');
        }
        block
    });
    blocks.collect::<Vec<_>>().join("\n")
}

/// Whether the option survives a round trip through a file: otherwise a value could smuggle in
/// sections that nobody validated.
fn is_writable(option: &UnitOption) -> bool {
    let single = |text: &str| !text.contains(['\n', '\r', '\0']);
    single(&option.section)
        && !option.section.contains(']')
        && single(&option.name)
        && !option.name.is_empty()
        && !option.name.contains('=')
        && !option.name.starts_with(['[', '#', ';'])
        && option.name.trim() == option.name
        && !option.value.contains('\0')
        && survives_canonical(option)
}

fn survives_canonical(option: &UnitOption) -> bool {
    let text = canonical_text(std::slice::from_ref(option));
    UnitLexer { rest: &text }
        .lex_options()
        .is_ok_and(|options| options.as_slice() == std::slice::from_ref(option))
}

struct UnitLexer<'a> {
    rest: &'a str,
}

impl UnitLexer<'_> {
    fn lex_options(mut self) -> Result<Vec<UnitOption>, ParseUnitError> {
        let mut options = Vec::new();
        let Some(mut section) = self.first_section()? else { return Ok(options) };
        while let Some(next) = self.rest.chars().next() {
            if next.is_whitespace() {
                self.rest = &self.rest[next.len_utf8()..];
            } else if next == '[' {
                section = self.lex_section()?;
            } else if is_comment(next) {
                self.skip_comment()?;
            } else {
                let name = self.option_name()?;
                let value = self.option_value()?;
                options.push(UnitOption { section: section.clone(), name, value });
            }
        }
        Ok(options)
    }

    /// Text before the first section is skipped, rune by rune; a comment there by line.
    fn first_section(&mut self) -> Result<Option<String>, ParseUnitError> {
        while let Some(next) = self.rest.chars().next() {
            if next == '[' {
                return self.lex_section().map(Some);
            }
            if is_comment(next) {
                self.skip_comment()?;
            } else {
                self.rest = &self.rest[next.len_utf8()..];
            }
        }
        Ok(None)
    }

    fn lex_section(&mut self) -> Result<String, ParseUnitError> {
        let end = self.rest.find(']').ok_or(ParseUnitError::OpenSection)?;
        let section = self.rest[1..end].to_owned();
        self.rest = &self.rest[end + 1..];
        let garbage = self.lex_line()?.trim();
        if garbage.is_empty() {
            return Ok(section);
        }
        Err(ParseUnitError::GarbageAfterSection { section, garbage: garbage.to_owned() })
    }

    fn skip_comment(&mut self) -> Result<(), ParseUnitError> {
        while self.lex_line()?.trim_end_matches(' ').ends_with('\\') && !self.rest.is_empty() {}
        Ok(())
    }

    fn option_name(&mut self) -> Result<String, ParseUnitError> {
        let end = self.rest.find(['=', '\n', '\r']).ok_or(ParseUnitError::EndInName)?;
        if !self.rest[end..].starts_with('=') {
            return Err(ParseUnitError::NewlineInName);
        }
        let name = self.rest[..end].trim().to_owned();
        self.rest = &self.rest[end + 1..];
        Ok(name)
    }

    /// A continuation, its backslash and its newline stay in the value.
    fn option_value(&mut self) -> Result<String, ParseUnitError> {
        let mut value = String::new();
        loop {
            let line = self.lex_line()?;
            if line.trim().is_empty() {
                break;
            }
            value.push_str(line);
            if !line.ends_with('\\') || self.rest.is_empty() {
                break;
            }
            value.push('\n');
        }
        Ok(value.trim().to_owned())
    }

    fn lex_line(&mut self) -> Result<&str, ParseUnitError> {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        if end >= MAX_LINE {
            return Err(ParseUnitError::LineTooLong);
        }
        let line = &self.rest[..end];
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        Ok(line.strip_suffix('\r').unwrap_or(line))
    }
}

fn is_comment(c: char) -> bool {
    matches!(c, '#' | ';')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HELLO: &str =
        "[Service]\nExecStart=/bin/bash -c \"while true; do echo Hello, World!; sleep 1; done\"\n";

    #[test]
    fn bytes_that_are_no_utf_8_become_what_go_made_of_them() {
        let latin = DecodedText::decode_bytes(b"[Unit]\nDescription=caf\xe9 cr\xe8me\n");

        assert_eq!(latin.text, "[Unit]\nDescription=caf\u{fffd} cr\u{fffd}me\n");
        assert_eq!(latin.first_foreign, Some((2, 16, 0xe9)));
        // The beginning of a character that is cut off: Go counts bytes.
        assert_eq!(DecodedText::decode_bytes(b"a=\xf0\x9f\x98").text, "a=\u{fffd}\u{fffd}\u{fffd}");
        let plain = "[Unit]\nDescription=café\n";
        assert_eq!(
            DecodedText::decode_bytes(plain.as_bytes()),
            DecodedText { text: plain.into(), first_foreign: None }
        );
    }

    #[test]
    fn the_hash_is_the_one_the_original_computes() {
        for (text, hash) in [
            (HELLO, "3750b3e9f3962a56c7582929426e9abb012754cf"),
            ("[Service]\nExecStart=/bin/sleep 100\n", "1c6fb6f3684bafb0c173d8b8b957ceff031180c1"),
        ] {
            assert_eq!(UnitFile::parse(text).unwrap().hash().to_string(), hash);
        }
    }

    #[test]
    fn the_canonical_text_merges_sections_and_drops_comments() {
        let text = "This=ignored\n[Unit]\n;no\nDescription = Foo\n\n[Service]\nExecStart=a\\\n  # b\n\n# no\\\nneither\n[Unit]\nAfter=x\r\n<<<=bar\n";

        let file = UnitFile::parse(text).unwrap();

        assert_eq!(
            file.canonical_text(),
            "[Unit]\nDescription=Foo\nAfter=x\n<<<=bar\n\n[Service]\nExecStart=a\\\n  # b\n"
        );
        assert_eq!(file.description(), "Foo");
    }

    #[test]
    fn what_the_original_refuses_is_refused() {
        let long = format!("[A]\nx={}\n", "y".repeat(MAX_LINE));
        for (text, message) in [
            ("[Unit]\n\n[Service]\n<<<<<<\n", "unexpected newline encountered while parsing option name"),
            ("[Unit]\nnonsense", "unexpected end of file encountered while parsing option name"),
            ("[Unit", "unable to find end of section"),
            ("[Unit] x\n", "found garbage after section name Unit: \"x\""),
            (long.as_str(), "line too long (max 2048 bytes)"),
        ] {
            assert_eq!(UnitFile::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_option_cannot_smuggle_a_section() {
        let option = |section: &str, name: &str, value: &str| UnitOption {
            section: section.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        for bad in [
            option("Service", "ExecStart", "x\n[Install]\nWantedBy=multi-user.target"),
            option("Service]\n[X", "a", "b"),
            option("Service", "#a", "b"),
            option("Service", "a=b", "c"),
        ] {
            assert!(UnitFile::from_options(vec![bad.clone()]).is_err(), "{bad:?}");
        }
        assert!(UnitFile::from_options(vec![option("Service", "ExecStart", "a \\\n b")]).is_ok());
    }

    proptest! {
        #[test]
        fn canonical_text_is_a_fixed_point(text in "(\\[[A-Z]{1,3}\\]\n)?([a-zA-Z]{1,4} ?= ?[ -~]{0,12}(\\\\\n[ -~]{0,5})?\n|#[ -~]{0,8}\n|\n|\\[[A-Z]\\]\n){0,12}") {
            if let Ok(file) = UnitFile::parse(&text) {
                let canonical = file.canonical_text();
                if let Ok(again) = UnitFile::parse(&canonical)
                    && file.options().iter().all(is_writable) && !file.options().iter().any(|o| o.value.ends_with('\\')) {
                    prop_assert_eq!(again.canonical_text(), canonical);
                }
            }
        }

        #[test]
        fn no_text_makes_the_parser_fall_over(text in "\\PC{0,200}") {
            let _ = UnitFile::parse(&text);
        }
    }
}
