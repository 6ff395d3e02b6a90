//! Contents: where they come from, how they are packed and what they must hash to.
//!
//! Knows data, http and https addresses. Refuses the stores of single clouds. Invariant: bytes that
//! are here already are unpacked and checked before anything is planned with them.

use sha2::{Digest, Sha256, Sha512};

use crate::address;
use crate::cloudconfig::fields::{Fields, Key, key, text_of};
use crate::cloudconfig::files;
use crate::plan::step::{Content, Fetch};
use crate::room::Room;
use crate::secret::Secret;
use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::source::At;
use document::yaml::Node;

pub(super) const RESOURCE_KEYS: &[Key] =
    &[key("source"), key("compression"), key("httpHeaders"), key("verification")];
const HEADER_KEYS: &[Key] = &[key("name"), key("value")];
const VERIFICATION_KEYS: &[Key] = &[key("hash")];
/// Addresses that people with Ignition use and that are not read here.
const OTHER_SCHEMES: [&str; 4] = ["arn:", "gs:", "s3:", "tftp:"];

pub(super) fn tables() -> Vec<(&'static str, &'static [Key])> {
    vec![
        ("*.contents", RESOURCE_KEYS),
        ("*.contents.httpHeaders[]", HEADER_KEYS),
        ("*.contents.verification", VERIFICATION_KEYS),
    ]
}

/// The content that `contents` or an item of `append` describes.
pub(super) fn content(
    node: &Node,
    path: String,
    room: &mut Room,
    found: &mut Diagnostics,
) -> Option<Content> {
    let mut fields = Fields::open(node, RESOURCE_KEYS, path, found)?;
    let gzip = compression(&mut fields, found)?;
    let headers = headers(&mut fields, found);
    let hash = verification(&fields, found);
    if fields.broken() {
        return None;
    }
    let Some(source) = fields.text("source", found).filter(|source| !source.value.is_empty()) else {
        return Some(Content::Inline(Secret::default()));
    };
    if address::is_web(&source.value) {
        let hash = hash.map(|hash| hash.value);
        return Some(Content::Fetched(Fetch { url: source.value, headers, hash, gzip, fallback: None }));
    }
    match inline(&source.value, gzip, room, hash.as_ref().map(|hash| hash.value.as_str())) {
        Ok(bytes) => Some(Content::Inline(Secret::new(bytes))),
        Err((code, message)) => {
            fields.refuse("source", Diagnostic::error(code, source.at, message), found);
            None
        }
    }
}

/// The bytes of a data address.
pub(super) fn inline(
    source: &str,
    gzip: bool,
    room: &mut Room,
    hash: Option<&str>,
) -> Result<Vec<u8>, (Code, String)> {
    let refused = |message: &str| Err((Code::Refused, message.to_owned()));
    if OTHER_SCHEMES.iter().any(|scheme| source.starts_with(scheme)) {
        return refused("only data, http and https addresses are read here");
    }
    let Some(data) = source.strip_prefix("data:") else {
        return refused("`source` must be a data, http or https address");
    };
    let broken = |message: &str| (Code::Encoding, message.to_owned());
    let bytes = decode(data).ok_or_else(|| broken("this data address is damaged"))?;
    let bytes = if gzip {
        room.unpack(&bytes).map_err(|flaw| (Code::Encoding, format!("this data address {flaw}")))?
    } else {
        bytes
    };
    match hash {
        Some(hash) if !matches(&bytes, hash) => {
            Err(broken("the content does not have the hash it must have"))
        }
        _ => Ok(bytes),
    }
}

/// What stands behind `data:`, as RFC 2397 has it.
fn decode(data: &str) -> Option<Vec<u8>> {
    let (kind, payload) = data.split_once(',')?;
    let bytes = percent_decoded(payload)?;
    if kind.ends_with(";base64") { files::decode(&bytes) } else { Some(bytes) }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

/// Whether bytes have a hash such as `sha256-…`.
pub(super) fn matches(bytes: &[u8], hash: &str) -> bool {
    let hex = |digest: &[u8]| digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let wanted = hash.to_ascii_lowercase();
    match wanted.split_once('-') {
        Some(("sha256", wanted)) => hex(&Sha256::digest(bytes)) == wanted,
        Some(("sha512", wanted)) => hex(&Sha512::digest(bytes)) == wanted,
        _ => false,
    }
}

fn compression(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<bool> {
    let word = match fields.node("compression").and_then(text_of) {
        Some(text) if text.value.is_empty() => return Some(false),
        _ => fields.choice("compression", &["gzip"], found),
    };
    (!fields.broken()).then_some(word.is_some())
}

fn headers(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<(String, Secret<String>)> {
    let path = fields.child("httpHeaders");
    let items = fields.list("httpHeaders", found).iter().enumerate();
    let header = |(index, item)| {
        let mut header = Fields::open(item, HEADER_KEYS, format!("{path}[{index}]"), found)?;
        let (name, value) = (header.text("name", found)?, header.text("value", found)?);
        Some((name.value, Secret::new(value.value)))
    };
    items.filter_map(header).collect()
}

fn verification(fields: &Fields<'_>, found: &mut Diagnostics) -> Option<At<String>> {
    let node = fields.node("verification")?;
    let mut verification = Fields::open(node, VERIFICATION_KEYS, fields.child("verification"), found)?;
    let hash = verification.text("hash", found)?;
    if is_hash(&hash.value) {
        return Some(hash);
    }
    let message = "`hash` must be `sha256-` or `sha512-` and as many hexadecimal digits as that has";
    verification.refuse("hash", Diagnostic::error(Code::BadValue, hash.at, message), found);
    None
}

/// Whether a text is a hash that can be checked.
pub(super) fn is_hash(text: &str) -> bool {
    let digits =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.split_once('-') {
        Some(("sha256", hex)) => digits(hex, 64),
        Some(("sha512", hex)) => digits(hex, 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_addresses_are_decoded() {
        for (source, bytes) in [
            ("data:,hello%20world%0A", "hello world\n"),
            ("data:text/plain;charset=utf-8;base64,aGVsbG8=", "hello"),
            ("data:;base64,aGVsbG8%3D", "hello"),
            ("data:,", ""),
        ] {
            assert_eq!(
                inline(source, false, &mut Room::default(), None).unwrap(),
                bytes.as_bytes(),
                "{source}"
            );
        }
        for source in ["data:hello", "data:,%2", "data:;base64,*", "file:///etc/passwd", "s3://bucket/x"] {
            assert!(inline(source, false, &mut Room::default(), None).is_err(), "{source}");
        }
    }

    #[test]
    fn a_hash_is_checked_after_unpacking() {
        let hash = "sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

        assert_eq!(inline("data:,hello", false, &mut Room::default(), Some(hash)).unwrap(), b"hello");
        assert!(inline("data:,hellO", false, &mut Room::default(), Some(hash)).is_err());
        assert!(is_hash(hash) && !is_hash("sha256-12") && !is_hash("md5-2cf24dba"));
    }
}
