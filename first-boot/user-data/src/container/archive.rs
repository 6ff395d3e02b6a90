//! `#cloud-config-archive`: a YAML list of parts.
//!
//! Knows an entry's `type`, `content`, `filename` and the headers that MIME has, too. Refuses to choose among
//! entries. Invariant: an entry that cannot be read costs itself only.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/explanation/format/cloud-config-archive.html>.

use super::mime;
use crate::cloudconfig::files;
use crate::part::PayloadPart;
use crate::payload::PayloadKind;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::SourceMark;
use document::yaml::{self, Node, Scalar, Value};

/// The entries of an archive.
pub(super) fn archive_parts(whole: &PayloadPart) -> Result<Vec<PayloadPart>, Diagnostic> {
    let text = String::from_utf8_lossy(&whole.content);
    let mut found = Diagnostics::default();
    let document = yaml::parse_yaml(&text, 0, &mut found);
    match document.map(|node| node.value) {
        Some(Value::Sequence(entries)) => Ok(entries
            .iter()
            .enumerate()
            .map(|(index, entry)| archive_part(whole, index + 1, entry))
            .collect()),
        _ => Err(Diagnostic::error(
            DiagnosticCode::Syntax,
            SourceMark::default(),
            "an archive must be a YAML list of parts",
        )),
    }
}

fn archive_part(whole: &PayloadPart, number: usize, entry: &Node) -> PayloadPart {
    let name = match entry_text(entry, "filename") {
        Some(file) => format!("{} part {number} ({file})", whole.name),
        None => format!("{} part {number}", whole.name),
    };
    let content = match &entry.value {
        Value::Scalar(scalar) => Some((scalar, entry.at)),
        _ => entry_field(entry, "content").and_then(|node| match &node.value {
            Value::Scalar(scalar) => Some((scalar, node.at)),
            _ => None,
        }),
    };
    let mut part = PayloadPart::whole(name, Vec::new());
    match content.map(|(scalar, at)| (scalar_bytes(scalar), at)) {
        Some((Some(content), at)) => {
            part.content = content;
            part.first_line = whole.first_line.saturating_add(at.line.saturating_sub(1));
        }
        _ => part.flaws.push(Diagnostic::error(
            DiagnosticCode::MissingKey,
            SourceMark::default(),
            "this entry of the archive has no `content` that can be read",
        )),
    }
    match entry_text(entry, "type").filter(|written| !written.trim().is_empty()) {
        Some(written) => mime::classify_part(&mut part, &mime::type_essence(&written)),
        // As cloud-init has it; what the bytes say goes before it.
        None => part.kind = Some(PayloadKind::CloudConfig),
    }
    part.merge_how =
        // The headers' names and the document's keys, since an entry may be written after either.
        ["merge_how", "merge_type", "x_merge_type"].iter().find_map(|name| entry_text(entry, name));
    mime::set_launch_index(&mut part, entry_text(entry, "launch_index"));
    part
}

fn scalar_bytes(scalar: &Scalar) -> Option<Vec<u8>> {
    if !scalar.binary {
        return Some(scalar.text.clone().into_bytes());
    }
    files::decode_base64(scalar.text.as_bytes())
}

/// cloud-init makes headers of an entry's keys, so their letters may be capitals, and hyphens stand in them.
fn entry_field<'n>(entry: &'n Node, name: &str) -> Option<&'n Node> {
    match &entry.value {
        Value::Mapping(entries) => {
            let is_named = |key: &str| key.replace('-', "_").eq_ignore_ascii_case(name);
            entries.iter().find(|one| is_named(&one.key)).map(|one| &one.value)
        }
        _ => None,
    }
}

fn entry_text(entry: &Node, name: &str) -> Option<String> {
    match &entry_field(entry, name)?.value {
        Value::Scalar(scalar) => Some(scalar.text.clone()),
        _ => None,
    }
}
