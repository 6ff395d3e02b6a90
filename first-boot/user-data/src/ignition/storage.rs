//! `storage`: what is on disks, and what may be named there.
//!
//! Knows the sections and who reads them. Refuses RAID and LUKS by name: the image has no program for them.
//! Invariant: disks come before file systems, and both before files.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>, `storage`.

use crate::cloudconfig::fields::{FieldKey, MappingFields, refused_key, supported_key};
use crate::plan::FirstBootPlan;
use crate::room::DecompressionBudget;
use document::diagnostic::Diagnostics;
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
    // Ignition's stages: disks, then file systems, then files.
    disks::read(&mut fields, plan, found);
    filesystems::read(&mut fields, plan, found);
    nodes::read(&mut fields, context, room, plan, found);
}
