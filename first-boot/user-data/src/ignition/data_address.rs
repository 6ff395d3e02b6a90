//! Addresses that hold their content themselves.
//!
//! Knows RFC 2397 and which other schemes Ignition reads. Refuses to fetch. Invariant: what comes out was unpacked
//! and has the hash that it must have.
//!
//! Documentation: RFC 2397 (data), RFC 3986, section 2 (characters and escapes).

use crate::cloudconfig::files;
use crate::room::DecompressionBudget;
use document::diagnostic::DiagnosticCode;

use super::verification::digest_matches;

/// Addresses that people with Ignition use and that are not read here, and what to do instead.
// Each needs a client with the cloud's own signatures, and has an address by https for what is public.
const OTHER_SCHEMES: [(&str, &str); 4] = [
    ("arn:", "an object that all may read is at https://BUCKET.s3.amazonaws.com/KEY"),
    ("gs:", "an object that all may read is at https://storage.googleapis.com/BUCKET/KEY"),
    ("s3:", "an object that all may read is at https://BUCKET.s3.amazonaws.com/KEY"),
    ("tftp:", "serve it by https"),
];
/// What a data address may hold besides letters and digits, by RFC 3986. Ignition's reader knows the same
/// set; a shell script pasted as it is breaks it, and the `#` of its first line ends the address.
const DATA_MARKS: &[u8] = b"$-_.+!*'(),;/?:@&=[]~%";

/// Why an address cannot be used, and what to write instead.
pub(super) type Flaw = (DiagnosticCode, String, &'static str);

/// The bytes of an address that is not fetched. An empty one means an empty content.
pub(super) fn inline_bytes(
    source: &str,
    gzip: bool,
    room: &mut DecompressionBudget,
    hash: Option<&str>,
) -> Result<Vec<u8>, Flaw> {
    if let Some((_, help)) = OTHER_SCHEMES.iter().find(|(scheme, _)| source.starts_with(scheme)) {
        return Err((
            DiagnosticCode::Refused,
            "only data, http and https addresses are read here".to_owned(),
            help,
        ));
    }
    let broken = |message: String, help| (DiagnosticCode::Encoding, message, help);
    let bytes = match source.strip_prefix("data:") {
        // Ignition takes an empty source for an empty file.
        _ if source.is_empty() => Vec::new(),
        Some(data) => {
            decode_data(data).map_err(|(flaw, help)| broken(format!("this data address {flaw}"), help))?
        }
        None => {
            return Err((
                DiagnosticCode::BadValue,
                "`source` must be a data, http or https address".to_owned(),
                "",
            ));
        }
    };
    // The hash is that of the unpacked content, as Ignition has it.
    let bytes = if gzip && !source.is_empty() {
        room.unpack_gzip(&bytes).map_err(|flaw| broken(format!("this data address {flaw}"), ""))?
    } else {
        bytes
    };
    match hash {
        Some(hash) if !digest_matches(&bytes, hash) => {
            Err(broken("the content does not have the hash it must have".to_owned(), ""))
        }
        _ => Ok(bytes),
    }
}

/// What stands behind `data:`, as RFC 2397 has it.
fn decode_data(data: &str) -> Result<Vec<u8>, (&'static str, &'static str)> {
    let (kind, payload) =
        data.split_once(',').ok_or(("has no comma before its data", "write `data:,` and the text"))?;
    // RFC 2397 puts the word last.
    let (kind, is_base64) = match kind.strip_suffix(";base64") {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    if !is_media_type(kind) {
        return Err((
            "has something before its comma that is no media type",
            "write `data:,` or `data:;base64,`",
        ));
    }
    if payload.bytes().any(|byte| !byte.is_ascii_alphanumeric() && !DATA_MARKS.contains(&byte)) {
        return Err((
            "has characters that no address may have",
            "write them as `%20` and so on, or use base64",
        ));
    }
    let damaged = ("is damaged", "after `%` stand two hexadecimal digits, and base64 ends with its padding");
    let bytes = percent_decoded(payload).ok_or(damaged)?;
    if is_base64 { files::decode_base64(&bytes).ok_or(damaged) } else { Ok(bytes) }
}

/// `type/subtype` and `;name=value`, or nothing.
fn is_media_type(text: &str) -> bool {
    let mut parts = text.split(';');
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
    let is_pair =
        |text: &str, mark| text.split_once(mark).is_some_and(|(one, two)| is_word(one) && is_word(two));
    let kind = parts.next().unwrap_or_default();
    (kind.is_empty() || is_pair(kind, '/')) && parts.all(|parameter| is_pair(parameter, '='))
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
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
            ("data:;charset=utf-8,a", "a"),
            ("", ""),
        ] {
            assert_eq!(
                inline_bytes(source, false, &mut DecompressionBudget::default(), None).unwrap(),
                bytes.as_bytes(),
                "{source}"
            );
        }
        for source in [
            "data:hello",
            "data:,%2",
            "data:,%+1",
            "data:text,hello",
            "data:;foo,hello",
            "data:,hello world",
            "data:,#!/bin/sh",
            "data:,gr\u{fc}n",
            "data:;base64,*",
            "file:///etc/passwd",
            "s3://bucket/x",
            "arn:aws:s3:::bucket/x",
            "gs://bucket/x",
            "tftp://host/x",
            "HTTP:x",
        ] {
            assert!(
                inline_bytes(source, false, &mut DecompressionBudget::default(), None).is_err(),
                "{source}"
            );
        }
    }
}
