//! `storage`: what is on disks, and what may be named there.
//!
//! Knows the sections and who reads them. Refuses RAID and LUKS by name: the image has no program for them.
//! Invariant: disks come before file systems, and both before files.

use crate::cloudconfig::fields::{FieldKey, MappingFields, refused_key, supported_key};
use crate::plan::FirstBootPlan;
use crate::room::DecompressionBudget;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::yaml::Node;

use super::{Context, disks, filesystems, nodes};

const NO_LUKS: &str = "the image holds no cryptsetup; use a disk that its platform encrypts";
const STORAGE_KEYS: &[FieldKey] = &[
    supported_key("directories"),
    supported_key("disks"),
    supported_key("files"),
    supported_key("filesystems"),
    supported_key("links"),
    refused_key("luks", NO_LUKS),
    refused_key("raid", "the image holds no mdadm; use a disk that its platform mirrors"),
];

pub(super) fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
    vec![
        ("storage", STORAGE_KEYS),
        ("storage.directories[]", nodes::DIRECTORY_KEYS),
        ("storage.disks[]", disks::DISK_KEYS),
        ("storage.disks[].partitions[]", disks::PARTITION_KEYS),
        ("storage.files[]", nodes::FILE_KEYS),
        ("storage.files[].user", nodes::ACCOUNT_KEYS),
        ("storage.filesystems[]", filesystems::FILESYSTEM_KEYS),
        ("storage.links[]", nodes::LINK_KEYS),
    ]
}

pub(super) fn read(
    node: &Node,
    path: String,
    context: Context,
    room: &mut DecompressionBudget,
    plan: &mut FirstBootPlan,
    found: &mut Diagnostics,
) {
    let Some(mut fields) = MappingFields::read_mapping(node, STORAGE_KEYS, path, found) else { return };
    disks::read(&mut fields, plan, found);
    filesystems::read(&mut fields, plan, found);
    nodes::read(&mut fields, context, room, plan, found);
}

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
    let device = nodes::written_path(fields, "device", found)?;
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
pub(super) fn filled(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> Option<String> {
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
