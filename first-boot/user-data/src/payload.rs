//! What the bytes are that a user handed over, told by their content.
//!
//! Knows first lines and magic numbers. Refuses to unpack or parse: containers and documents have
//! modules of their own. Invariant: looking takes no longer for a long payload than for a short one,
//! except for JSON, whose version must be found.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/explanation/format/index.html>, RFC 1952 for gzip.

use crate::cloudconfig::files;
use crate::json;

/// How far base64 is looked into to see what it wraps.
// cloud-init looks for `mime-version:` in as many bytes.
const PEEK: usize = 4096;

/// The bytes that editors and web pages leave before a first line, and that nobody sees: a no-break space
/// (also in Latin-1), a space without width, a byte order mark.
const UNSEEN: [&[u8]; 4] = [b"\xc2\xa0", b"\xa0", b"\xe2\x80\x8b", b"\xef\xbb\xbf"];

/// A format, by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadKind {
    /// Base64 of one of the other kinds.
    Base64,
    /// `#cloud-boothook`: a script for every boot.
    Boothook,
    /// `#cloud-config`.
    CloudConfig,
    /// `#cloud-config-archive`: a YAML list of parts.
    CloudConfigArchive,
    /// `#cloud-config-jsonp`: a JSON patch of what was merged so far.
    CloudConfigJsonPatch,
    /// Nothing but blanks.
    Empty,
    /// gzip.
    Gzip,
    /// JSON with an Ignition version.
    Ignition,
    /// `#include` or `#include-once`: a list of addresses.
    Include,
    /// `## template: jinja`.
    Jinja,
    /// A MIME message, of one part or of several.
    Multipart,
    /// `#part-handler`: Python.
    PartHandler,
    /// `#!`.
    Script,
    /// A script for each boot, as only a container can say.
    ScriptPerBoot,
    /// A script that runs once, whatever instance the machine is, as only a container can say.
    ScriptPerOnce,
    /// None of these.
    Unknown,
}

/// Tells what a payload is.
///
/// ```
/// use user_data::payload::{PayloadKind, detect_kind};
///
/// assert_eq!(detect_kind(b"#cloud-config\nhostname: node1\n"), PayloadKind::CloudConfig);
/// assert_eq!(detect_kind(b"#!/bin/sh\necho hello\n"), PayloadKind::Script);
/// assert_eq!(detect_kind(b"{\"ignition\": {\"version\": \"3.4.0\"}}"), PayloadKind::Ignition);
/// ```
#[must_use]
pub fn detect_kind(payload: &[u8]) -> PayloadKind {
    if payload.starts_with(&[0x1f, 0x8b]) {
        return PayloadKind::Gzip;
    }
    let text = without_marks(payload).trim_ascii_start();
    if text.is_empty() || text.iter().all(|byte| *byte == 0) {
        return PayloadKind::Empty;
    }
    let kind = by_first_line(first_line(text));
    match kind {
        PayloadKind::Unknown if text.starts_with(b"{") && is_ignition(text) => PayloadKind::Ignition,
        // Base64 is looked for last: many a short text could be it, and decoding costs the most.
        PayloadKind::Unknown if is_message(text) => PayloadKind::Multipart,
        PayloadKind::Unknown if wraps_something_known(text) => PayloadKind::Base64,
        kind => kind,
    }
}

/// The payload without what nobody sees before its first letter, such as the mark that Windows editors put
/// before UTF-8. Line ends stay, so that places keep their lines.
#[must_use]
pub fn without_marks(payload: &[u8]) -> &[u8] {
    let mut rest = payload;
    while let Some(after) = UNSEEN.iter().find_map(|mark| rest.strip_prefix(*mark)) {
        rest = after;
    }
    rest
}

fn first_line(text: &[u8]) -> &[u8] {
    let line = text.iter().take(PEEK).position(|byte| *byte == b'\n').map_or(text, |end| &text[..end]);
    line[..line.len().min(PEEK)].trim_ascii_end()
}

/// As cloud-init does, without regard to case and to what stands behind the word: people have files with
/// `#Cloud-Config`, `#cloud-config:` and `#cloud-config, of the web servers`. A longer word is another word.
fn by_first_line(line: &[u8]) -> PayloadKind {
    let line = line.to_ascii_lowercase();
    if line.starts_with(b"#!") {
        return PayloadKind::Script;
    }
    if is_template(&line) {
        return PayloadKind::Jinja;
    }
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let end = line.iter().skip(1).position(|byte| !is_of_word(byte)).map_or(line.len(), |end| end + 1);
    match &line[..end] {
        b"#cloud-boothook" => PayloadKind::Boothook,
        b"#cloud-config" => PayloadKind::CloudConfig,
        b"#cloud-config-archive" => PayloadKind::CloudConfigArchive,
        b"#cloud-config-jsonp" => PayloadKind::CloudConfigJsonPatch,
        b"#include" | b"#include-once" => PayloadKind::Include,
        b"#part-handler" => PayloadKind::PartHandler,
        _ => PayloadKind::Unknown,
    }
}

/// `## template: jinja`, with or without the blanks, in small letters already.
fn is_template(line: &[u8]) -> bool {
    line.strip_prefix(b"##").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"template:"))
}

fn is_ignition(text: &[u8]) -> bool {
    let parsed = json::is_bounded(text).then(|| serde_json::from_slice::<serde_json::Value>(text));
    let Some(Ok(document)) = parsed else {
        // JSON that is broken or too large is still told as Ignition's, so that the message is about what its
        // author wrote.
        return contains_bytes(&text[..text.len().min(PEEK)], b"\"ignition\"");
    };
    document.get("ignition").is_some() || document.get("ignitionVersion").is_some()
}

/// cloud-init asks for `MIME-Version:`; where the type comes first, what else it could be is nothing known.
fn is_message(text: &[u8]) -> bool {
    let head = text[..text.len().min(PEEK)].to_ascii_lowercase();
    let begins_with_type = head.strip_prefix(b"content-type:").is_some_and(|rest| {
        let kind = rest.trim_ascii_start();
        [b"multipart/".as_slice(), b"text/", b"application/"].iter().any(|one| kind.starts_with(one))
    });
    let header = head.first().is_some_and(u8::is_ascii_alphabetic);
    begins_with_type || (header && contains_bytes(&head, b"mime-version:"))
}

fn wraps_something_known(text: &[u8]) -> bool {
    let head = &text[..text.len().min(PEEK)];
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\r\n \t".contains(byte);
    if head.len() < 8 || !head.iter().all(known) {
        return false;
    }
    let mut digits: Vec<u8> = head.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if text.len() > head.len() {
        // Base64 is decoded by groups of four, and the look ends in the middle of one.
        digits.truncate(digits.len() / 4 * 4);
    }
    files::decode_base64(&digits)
        .is_some_and(|inner| !matches!(detect_kind(&inner), PayloadKind::Unknown | PayloadKind::Empty))
}

fn contains_bytes(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

    use super::*;

    #[test]
    fn first_lines_tell() {
        for (payload, kind) in [
            ("", PayloadKind::Empty),
            (" \r\n\t", PayloadKind::Empty),
            ("#cloud-config\na: b", PayloadKind::CloudConfig),
            ("\u{feff}#cloud-config\r\na: b", PayloadKind::CloudConfig),
            ("#cloud-config # a comment", PayloadKind::CloudConfig),
            ("#cloud-config-archive\n", PayloadKind::CloudConfigArchive),
            ("#Cloud-Config\nhostname: a", PayloadKind::CloudConfig),
            ("#CLOUD-CONFIG:\nhostname: a", PayloadKind::CloudConfig),
            ("#cloud-config\u{a0}\nhostname: a", PayloadKind::CloudConfig),
            ("#cloud-config\u{200b}\r\nhostname: a", PayloadKind::CloudConfig),
            ("#cloud-config-archive:\n", PayloadKind::CloudConfigArchive),
            ("#Include: \nhttp://x", PayloadKind::Include),
            ("#cloud-config, of the web servers\n", PayloadKind::CloudConfig),
            ("\u{a0}\u{feff}#cloud-config\nhostname: a", PayloadKind::CloudConfig),
            ("#CLOUD-BOOTHOOK:\n#!/bin/sh", PayloadKind::Boothook),
            ("#Part-Handler:\n", PayloadKind::PartHandler),
            ("#cloud-config-jsonp:\n", PayloadKind::CloudConfigJsonPatch),
            ("#cloud-configuration\n", PayloadKind::Unknown),
            ("#!/bin/bash\n", PayloadKind::Script),
            ("#include-once\nhttp://x", PayloadKind::Include),
            ("## template: jinja\n#cloud-config", PayloadKind::Jinja),
            ("##Template:Jinja\n#cloud-config", PayloadKind::Jinja),
            ("## templates\n", PayloadKind::Unknown),
            ("{\"ignition\": {\"version\": \"3.4.0\"}}", PayloadKind::Ignition),
            ("{\"ignition\": {", PayloadKind::Ignition),
            ("{\"hostname\": 1}", PayloadKind::Unknown),
            ("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n", PayloadKind::Multipart),
            ("Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n", PayloadKind::Multipart),
            ("Content-Type: text/cloud-config\nMIME-Version: 1.0\n\nhostname: a", PayloadKind::Multipart),
            ("Content-Type: text/x-shellscript\n\n#!/bin/sh\n", PayloadKind::Multipart),
            ("content-type: of no kind\n", PayloadKind::Unknown),
            ("hostname: no-header", PayloadKind::Unknown),
        ] {
            assert_eq!(detect_kind(payload.as_bytes()), kind, "{payload:?}");
        }
    }

    #[test]
    fn gzip_and_base64_of_known_things_tell() {
        let wrapped = |inner: &[u8]| detect_kind(STANDARD.encode(inner).as_bytes());

        assert_eq!(detect_kind(&[0x1f, 0x8b, 8]), PayloadKind::Gzip);
        assert_eq!(wrapped(b"#cloud-config\nhostname: a\n"), PayloadKind::Base64);
        assert_eq!(wrapped(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]), PayloadKind::Base64);
        assert_eq!(wrapped(format!("#!/bin/sh\n{}", "x".repeat(10_000)).as_bytes()), PayloadKind::Base64);
        let bare = STANDARD_NO_PAD.encode(b"#cloud-config\nhostname: abc\n");
        assert_eq!(detect_kind(bare.as_bytes()), PayloadKind::Base64);
        assert_eq!(wrapped(b"nothing that is known"), PayloadKind::Unknown);
    }
}
