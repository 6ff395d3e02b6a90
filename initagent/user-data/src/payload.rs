//! What the bytes are that a user handed over, told by their content.
//!
//! Knows first lines and magic numbers. Refuses to unpack or parse: containers and documents have
//! modules of their own. Invariant: looking takes no longer for a long payload than for a short one,
//! except for JSON, whose version must be found.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::json;

/// How far base64 is looked into to see what it wraps.
const PEEK: usize = 4096;

/// A format, by content.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
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
    /// MIME multipart.
    Multipart,
    /// `#part-handler`: Python.
    PartHandler,
    /// `#!`.
    Script,
    /// None of these.
    Unknown,
}

/// Tells what a payload is.
#[must_use]
pub fn detect(payload: &[u8]) -> Kind {
    if payload.starts_with(&[0x1f, 0x8b]) {
        return Kind::Gzip;
    }
    let text = without_bom(payload).trim_ascii_start();
    if text.is_empty() || text.iter().all(|byte| *byte == 0) {
        return Kind::Empty;
    }
    let kind = by_first_line(first_line(text));
    match kind {
        Kind::Unknown if text.starts_with(b"{") && is_ignition(text) => Kind::Ignition,
        Kind::Unknown if is_multipart(text) => Kind::Multipart,
        Kind::Unknown if wraps_something_known(text) => Kind::Base64,
        kind => kind,
    }
}

/// The payload without the mark that Windows editors put before UTF-8.
#[must_use]
pub fn without_bom(payload: &[u8]) -> &[u8] {
    payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload)
}

fn first_line(text: &[u8]) -> &[u8] {
    let line = text.iter().take(PEEK).position(|byte| *byte == b'\n').map_or(text, |end| &text[..end]);
    line[..line.len().min(PEEK)].trim_ascii_end()
}

/// As cloud-init does, without regard to case and to a colon behind the word: people have files with
/// `#Cloud-Config` and `#cloud-config:`. A no-break space, which editors and web pages leave, is a space.
fn by_first_line(line: &[u8]) -> Kind {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0xa0 | 0xc2 | 0xe2 | 0xef);
    let word = line.split(is_space).next().unwrap_or_default().to_ascii_lowercase();
    let word = word.strip_suffix(b":").unwrap_or(&word);
    match word {
        b"#cloud-boothook" => Kind::Boothook,
        b"#cloud-config" => Kind::CloudConfig,
        b"#cloud-config-archive" => Kind::CloudConfigArchive,
        b"#cloud-config-jsonp" => Kind::CloudConfigJsonPatch,
        b"#include" | b"#include-once" => Kind::Include,
        b"#part-handler" => Kind::PartHandler,
        b"##" if line.to_ascii_lowercase().starts_with(b"## template:") => Kind::Jinja,
        word if word.starts_with(b"#!") => Kind::Script,
        _ => Kind::Unknown,
    }
}

fn is_ignition(text: &[u8]) -> bool {
    let parsed = json::is_bounded(text).then(|| serde_json::from_slice::<serde_json::Value>(text));
    let Some(Ok(document)) = parsed else {
        return contains(&text[..text.len().min(PEEK)], b"\"ignition\"");
    };
    document.get("ignition").is_some() || document.get("ignitionVersion").is_some()
}

fn is_multipart(text: &[u8]) -> bool {
    let head = text[..text.len().min(PEEK)].to_ascii_lowercase();
    let header = head.first().is_some_and(u8::is_ascii_alphabetic);
    header && (contains(&head, b"mime-version:") || head.starts_with(b"content-type: multipart/"))
}

fn wraps_something_known(text: &[u8]) -> bool {
    let head = &text[..text.len().min(PEEK)];
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\r\n \t".contains(byte);
    if head.len() < 8 || !head.iter().all(known) {
        return false;
    }
    let mut digits: Vec<u8> = head.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if text.len() > head.len() {
        digits.truncate(digits.len() / 4 * 4);
    }
    STANDARD.decode(digits).is_ok_and(|inner| !matches!(detect(&inner), Kind::Unknown | Kind::Empty))
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_tell() {
        for (payload, kind) in [
            ("", Kind::Empty),
            (" \r\n\t", Kind::Empty),
            ("#cloud-config\na: b", Kind::CloudConfig),
            ("\u{feff}#cloud-config\r\na: b", Kind::CloudConfig),
            ("#cloud-config # a comment", Kind::CloudConfig),
            ("#cloud-config-archive\n", Kind::CloudConfigArchive),
            ("#Cloud-Config\nhostname: a", Kind::CloudConfig),
            ("#CLOUD-CONFIG:\nhostname: a", Kind::CloudConfig),
            ("#cloud-config\u{a0}\nhostname: a", Kind::CloudConfig),
            ("#cloud-config\u{200b}\r\nhostname: a", Kind::CloudConfig),
            ("#cloud-config-archive:\n", Kind::CloudConfigArchive),
            ("#Include: \nhttp://x", Kind::Include),
            ("#cloud-configuration\n", Kind::Unknown),
            ("#!/bin/bash\n", Kind::Script),
            ("#include-once\nhttp://x", Kind::Include),
            ("## template: jinja\n#cloud-config", Kind::Jinja),
            ("{\"ignition\": {\"version\": \"3.4.0\"}}", Kind::Ignition),
            ("{\"ignition\": {", Kind::Ignition),
            ("{\"hostname\": 1}", Kind::Unknown),
            ("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n", Kind::Multipart),
            ("Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n", Kind::Multipart),
            ("hostname: no-header", Kind::Unknown),
        ] {
            assert_eq!(detect(payload.as_bytes()), kind, "{payload:?}");
        }
    }

    #[test]
    fn gzip_and_base64_of_known_things_tell() {
        let wrapped = |inner: &[u8]| detect(STANDARD.encode(inner).as_bytes());

        assert_eq!(detect(&[0x1f, 0x8b, 8]), Kind::Gzip);
        assert_eq!(wrapped(b"#cloud-config\nhostname: a\n"), Kind::Base64);
        assert_eq!(wrapped(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]), Kind::Base64);
        assert_eq!(wrapped(format!("#!/bin/sh\n{}", "x".repeat(10_000)).as_bytes()), Kind::Base64);
        assert_eq!(wrapped(b"nothing that is known"), Kind::Unknown);
    }
}
