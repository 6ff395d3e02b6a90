//! Fields as Ignition has them: required texts, flags that are false unless given, devices, paths as they are meant.
//!
//! Stands below all sections of `storage`, and knows none of them.
//!
//! Documentation: `storage` in <https://coreos.github.io/ignition/configuration-v3_5/>.

use crate::cloudconfig::fields::{FieldKey, MappingFields};
use crate::cloudconfig::files::clean_path;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

/// Opens each item of a list.
pub(super) fn for_each_item(
    fields: &mut MappingFields<'_>,
    name: &str,
    table: &'static [FieldKey],
    found: &mut Diagnostics,
    mut read: impl FnMut(&mut MappingFields<'_>, &str, &mut Diagnostics),
) {
    let path = fields.child_path(name);
    for (index, item) in fields.read_list(name, found).iter().enumerate() {
        let path = format!("{path}[{index}]");
        if let Some(mut item) = MappingFields::read_mapping(item, table, path.clone(), found) {
            read(&mut item, &path, found);
        }
    }
}

/// A device: a path below /dev that is written as it is meant.
pub(super) fn read_device(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let device = written_path(fields, "device", found)?;
    if device.starts_with("/dev/") {
        return Some(device);
    }
    // mkfs on a file would destroy it, and no disk of Linux is elsewhere.
    let message = "`device` must be a path below /dev";
    let at = fields.field_node("device").map_or_else(|| fields.start_mark(), |node| node.at);
    fields.refuse_field("device", Diagnostic::error(DiagnosticCode::BadValue, at, message), found);
    None
}

/// A text that must be there.
pub(super) fn read_required(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<String> {
    let text = fields.read_text(name, found).filter(|text| !text.value.is_empty());
    if text.is_none() && !fields.has_broken_field() {
        let message = format!("`{name}` is missing");
        found.push(
            Diagnostic::error(DiagnosticCode::MissingKey, fields.start_mark(), message)
                .with_key(fields.child_path(name)),
        );
    }
    text.map(|text| text.value)
}

/// A text; an empty one is none, as Ignition has it.
pub(super) fn filled_text(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<String> {
    fields.read_text(name, found).map(|text| text.value).filter(|text| !text.is_empty())
}

/// A boolean that is false when it is not given.
pub(super) fn read_flag(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> bool {
    fields.read_flag(name, found).is_some_and(|flag| flag.value)
}

/// The texts of a list.
pub(super) fn read_texts(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> Vec<String> {
    fields.read_texts(name, found).into_iter().map(|text| text.value).collect()
}

/// An absolute path that is written as it is meant: Ignition takes no doubled slashes, dots or slash at the
/// end, since two spellings of one path would be two entries.
pub(super) fn written_path(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<String> {
    let path = fields.read_text(name, found).filter(|path| !path.value.is_empty());
    let Some(path) = path else {
        let message = format!("`{name}` is missing");
        found.push(
            Diagnostic::error(DiagnosticCode::MissingKey, fields.start_mark(), message)
                .with_key(fields.child_path(name)),
        );
        return None;
    };
    let error = |message: String| Diagnostic::error(DiagnosticCode::BadValue, path.at, message);
    let flaw = match clean_path(&path.value) {
        _ if !path.value.starts_with('/') => error(format!("`{name}` must begin with a slash")),
        Ok(clean) if clean == path.value => return Some(clean),
        Ok(clean) => error(format!("`{name}` has doubled slashes, dots or a slash at its end"))
            .with_help(format!("write {clean}")),
        Err(flaw) => error(format!("`{name}` {flaw}")),
    };
    fields.refuse_field(name, flaw, found);
    None
}

/// 8, 4, 4, 4 and 12 hexadecimal digits.
pub(super) fn is_guid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}
