//! Contents: where they come from, how they are packed and what they must hash to.
//!
//! Knows data, http and https addresses. Refuses the stores of single clouds. Invariant: bytes that
//! are here already are unpacked and checked before anything is planned with them.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>, `contents`.

use crate::address;
use crate::cloudconfig::fields::{FieldKey, MappingFields, supported_key, text_of};
use crate::plan::step::{FetchRequest, FileContent, Timeouts};
use crate::room::DecompressionBudget;
use crate::secret::Secret;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::Node;

use super::{Context, Scope, data_address, tree};

pub(super) const RESOURCE_KEYS: &[FieldKey] = &[
    supported_key("source"),
    supported_key("compression"),
    supported_key("httpHeaders"),
    supported_key("verification"),
];
const HEADER_KEYS: &[FieldKey] = &[supported_key("name"), supported_key("value")];
const VERIFICATION_KEYS: &[FieldKey] = &[supported_key("hash")];
pub(super) fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
    vec![
        ("*.contents", RESOURCE_KEYS),
        ("*.contents.httpHeaders[]", HEADER_KEYS),
        ("*.contents.verification", VERIFICATION_KEYS),
    ]
}

/// The content that `contents` or an item of `append` describes. `Ok(None)` means that no source is given, so
/// that what is there stays; an error was reported.
pub(super) fn read_content(
    node: &Node,
    path: String,
    context: Context,
    room: &mut DecompressionBudget,
    found: &mut Diagnostics,
) -> Result<Option<FileContent>, ()> {
    let Some(mut fields) = MappingFields::read_mapping(node, RESOURCE_KEYS, path, found) else {
        return Ok(None);
    };
    let gzip = read_compression(&mut fields, found);
    let headers = read_headers(&mut fields, context.scope, found);
    let hash = read_verification(&mut fields, found);
    let source = fields.read_text("source", found);
    check_headers(&mut fields, source.as_ref(), context.scope, found);
    check_hash(&mut fields, source.as_ref(), context.scope, found);
    if fields.has_broken_field() {
        return Err(());
    }
    let Some(source) = source else { return Ok(None) };
    let hash = hash.map(|hash| hash.value);
    if address::is_web(&source.value) {
        let Context { timeouts, .. } = context;
        let fetch = FetchRequest { url: source.value, headers, hash, gzip, fallback: None, timeouts };
        return Ok(Some(FileContent::Fetched(fetch)));
    }
    match data_address::inline_bytes(&source.value, gzip, room, hash.as_deref()) {
        Ok(bytes) => Ok(Some(FileContent::Inline(Secret::new(bytes)))),
        Err((code, message, help)) => {
            let diagnostic = Diagnostic::error(code, source.at, message);
            fields.refuse_field(
                "source",
                if help.is_empty() { diagnostic } else { diagnostic.with_help(help) },
                found,
            );
            Err(())
        }
    }
}

/// The content of a reference, which must have a source.
pub(super) fn required_content(
    node: &Node,
    path: String,
    timeouts: Timeouts,
    room: &mut DecompressionBudget,
    found: &mut Diagnostics,
) -> Option<FileContent> {
    if tree::text_of(node, "source").is_none() {
        let message = "`source` is missing";
        found.push(Diagnostic::error(DiagnosticCode::MissingKey, node.at, message).with_key(path));
        return None;
    }
    read_content(node, path, Context { scope: Scope::Alone, timeouts }, room, found).ok().flatten()
}

/// Headers are sent by http and https only.
fn check_headers(
    fields: &mut MappingFields<'_>,
    source: Option<&Located<String>>,
    scope: Scope,
    found: &mut Diagnostics,
) {
    let Some(node) = fields.field_node("httpHeaders").filter(|node| !tree::list_items(Some(node)).is_empty())
    else {
        return;
    };
    let is_web = |source: &Located<String>| {
        source.value.starts_with("http://") || source.value.starts_with("https://")
    };
    let message = match (source, scope) {
        (Some(source), _) if is_web(source) => return,
        // A child may name only what it adds to its parent's headers.
        (None, Scope::Part) => return,
        // Merged from two documents that are right by themselves: the content is here, so nothing is asked for.
        (Some(_), Scope::Merged) => {
            let message = "these headers are not sent: `source` is neither http nor https";
            let diagnostic = Diagnostic::warning(DiagnosticCode::NoEffect, node.at, message);
            return found.push(diagnostic.with_key(fields.child_path("httpHeaders")));
        }
        (Some(_), _) => "headers are sent by http and https only, and `source` is neither",
        (None, _) => "headers need a `source` that they are sent to",
    };
    fields.refuse_field("httpHeaders", Diagnostic::error(DiagnosticCode::BadValue, node.at, message), found);
}

/// Nothing has no hash.
fn check_hash(
    fields: &mut MappingFields<'_>,
    source: Option<&Located<String>>,
    scope: Scope,
    found: &mut Diagnostics,
) {
    let hash = fields.field_node("verification").and_then(|node| tree::find_value(node, "hash"));
    if let (Some(hash), None, Scope::Alone | Scope::Merged) = (hash, source, scope) {
        let message = "a hash needs a `source` whose hash it is";
        fields.refuse_field(
            "verification",
            Diagnostic::error(DiagnosticCode::BadValue, hash.at, message),
            found,
        );
    }
}

fn read_compression(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> bool {
    match fields.field_node("compression").and_then(text_of) {
        // Tools write an empty text for no compression.
        Some(text) if text.value.is_empty() => false,
        _ => fields.read_choice("compression", &["gzip"], found).is_some(),
    }
}

fn read_headers(
    fields: &mut MappingFields<'_>,
    scope: Scope,
    found: &mut Diagnostics,
) -> Vec<(String, Secret<String>)> {
    let path = fields.child_path("httpHeaders");
    let mut headers = Vec::new();
    for (index, item) in fields.read_list("httpHeaders", found).iter().enumerate() {
        let Some(mut header) =
            MappingFields::read_mapping(item, HEADER_KEYS, format!("{path}[{index}]"), found)
        else {
            continue;
        };
        let filled = |text: Option<Located<String>>| text.filter(|text| !text.value.is_empty());
        let is_given = header.field_node("value").is_some();
        let (name, value) =
            (filled(header.read_text("name", found)), filled(header.read_text("value", found)));
        match (name, value) {
            (Some(name), Some(value)) => headers.push((name.value, Secret::new(value.value))),
            // By leaving the value out, a child takes a header of its parent away.
            (Some(_), None) if scope == Scope::Part && !is_given => {}
            (name, _) => {
                let missing = if name.is_none() { "name" } else { "value" };
                let message = format!("a header needs a `{missing}` that is not empty");
                fields.refuse_field(
                    "httpHeaders",
                    Diagnostic::error(DiagnosticCode::MissingKey, item.at, message),
                    found,
                );
            }
        }
    }
    headers
}

fn read_verification(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<String>> {
    let node = fields.field_node("verification")?;
    let mut verification =
        MappingFields::read_mapping(node, VERIFICATION_KEYS, fields.child_path("verification"), found)?;
    let hash = verification.read_text("hash", found)?;
    if is_hash(&hash.value) {
        return Some(hash);
    }
    let message = "`hash` must be `sha256-` or `sha512-` and as many hexadecimal digits as that has";
    fields.refuse_field("verification", Diagnostic::error(DiagnosticCode::BadValue, hash.at, message), found);
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
    fn a_hash_is_checked_after_unpacking() {
        let hash = "sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

        assert_eq!(
            data_address::inline_bytes("data:,hello", false, &mut DecompressionBudget::default(), Some(hash))
                .unwrap(),
            b"hello"
        );
        assert!(
            data_address::inline_bytes("data:,hellO", false, &mut DecompressionBudget::default(), Some(hash))
                .is_err()
        );
        assert!(is_hash(hash) && !is_hash("sha256-12") && !is_hash("md5-2cf24dba"));
    }
}
