//! `disk_setup`: the partitions of disks.
//!
//! Knows the layouts that cloud-init takes. Refuses to look at a disk. Invariant: a layout that cannot be made as a whole
//! is not made in part.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::yaml::{Node, Value};

use super::super::fields::{MappingFields, by_name, text_of, wrong_type};
use super::{DISK_KEYS, DeviceAliases, NAME_A_DISK, is_platforms, resolve_device};
use crate::plan::step::{PartitionSize, PartitionStep, PartitioningStep};

// "Linux filesystem data", as sgdisk's 8300. Types that systemd mounts by themselves would be mounted without
// a line.
pub(super) const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";

pub(super) const SWAP: &str = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F";

pub(super) const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

pub(super) fn read_disks(
    fields: &mut MappingFields<'_>,
    aliases: &DeviceAliases,
    found: &mut Diagnostics,
) -> Vec<Located<PartitioningStep>> {
    let Some(node) = fields.field_node("disk_setup") else { return Vec::new() };
    let Value::Mapping(entries) = &node.value else {
        fields.refuse_field("disk_setup", wrong_type("a mapping from devices to their layout", node), found);
        return Vec::new();
    };
    let path = fields.child_path("disk_setup");
    let one = |entry: &document::yaml::MappingEntry, found: &mut Diagnostics| {
        if is_platforms(&entry.key, aliases) {
            let message = format!(
                "`{}` is no disk here: no platform is asked for such a name; nothing is made",
                entry.key
            );
            found.push(
                Diagnostic::warning(DiagnosticCode::NoEffect, entry.key_at, message)
                    .with_key(path.clone())
                    .with_help(NAME_A_DISK),
            );
            return None;
        }
        let disk = resolve_device(&entry.key, aliases);
        disk_setup(&entry.value, disk, entry.key_at, format!("{path}.{}", entry.key), found)
    };
    by_name(entries).filter_map(|entry| one(entry, found)).collect()
}

pub(super) fn disk_setup(
    node: &Node,
    device: String,
    at: SourceMark,
    path: String,
    found: &mut Diagnostics,
) -> Option<Located<PartitioningStep>> {
    let mut fields = MappingFields::read_mapping(node, DISK_KEYS, path, found)?;
    if let Some(kind) = fields.read_choice("table_type", &["gpt", "mbr"], found)
        && kind.value == "mbr"
    {
        // One way of writing tables is enough, and the kernel needs no MBR.
        let message = "a GPT is written: it does all an MBR does";
        found.push(
            Diagnostic::note(DiagnosticCode::Translated, kind.at, message)
                .with_key(fields.child_path("table_type")),
        );
    }
    let overwrite = fields.read_flag("overwrite", found).is_some_and(|flag| flag.value);
    let partitions = read_layout(&mut fields, found)?;
    if fields.has_broken_field() || partitions.is_empty() {
        return None;
    }
    Some(Located { value: PartitioningStep { device, overwrite, partitions }, at })
}

/// `true`: one partition; a list: shares of the disk, or `[share, type]`.
pub(super) fn read_layout(
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Option<Vec<PartitionStep>> {
    let node = fields.field_node("layout")?;
    let whole = PartitionStep { size: PartitionSize::Rest, type_guid: LINUX.to_owned(), label: None };
    match &node.value {
        Value::Scalar(scalar) if scalar.as_bool() == Some(true) => Some(vec![whole]),
        Value::Scalar(scalar) if scalar.as_bool() == Some(false) => None,
        Value::Sequence(items) => {
            let mut partitions: Vec<PartitionStep> =
                items.iter().map(|item| read_partition(item, fields, found)).collect::<Option<_>>()?;
            let sum: u32 = partitions.iter().map(disk_share).sum();
            if sum > 100 {
                let message = format!("the partitions want {sum} % of the disk");
                fields.refuse_field(
                    "layout",
                    Diagnostic::error(DiagnosticCode::BadValue, node.at, message),
                    found,
                );
                return None;
            }
            // Shares are cut to whole MiB. The last one takes what that left over.
            if let Some(last) = partitions.last_mut().filter(|_| sum == 100) {
                last.size = PartitionSize::Rest;
            }
            Some(partitions)
        }
        _ => {
            let message = "`layout` must be true or a list of shares of the disk, like [50, 50]";
            fields.refuse_field(
                "layout",
                Diagnostic::error(DiagnosticCode::BadValue, node.at, message),
                found,
            );
            None
        }
    }
}

pub(super) fn disk_share(partition: &PartitionStep) -> u32 {
    match partition.size {
        PartitionSize::Percent(percent) => u32::from(percent),
        _ => 0,
    }
}

pub(super) fn read_partition(
    item: &Node,
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Option<PartitionStep> {
    let (share, kind) = match &item.value {
        Value::Sequence(pair) => (pair.first().and_then(text_of), pair.get(1).and_then(text_of)),
        _ => (text_of(item), None),
    };
    let percent =
        share.and_then(|share| share.value.parse::<u8>().ok()).filter(|share| (1..=100).contains(share));
    let type_guid = kind.map_or_else(|| Some(LINUX.to_owned()), |kind| partition_type(&kind.value));
    if let (Some(percent), Some(type_guid)) = (percent, type_guid) {
        return Some(PartitionStep { size: PartitionSize::Percent(percent), type_guid, label: None });
    }
    let message = "a partition is a share of 1 to 100 %, or `[share, type]`";
    fields.refuse_field("layout", Diagnostic::error(DiagnosticCode::BadValue, item.at, message), found);
    None
}

/// MBR's and sgdisk's codes, or a GUID.
pub(super) fn partition_type(text: &str) -> Option<String> {
    let is_guid = text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    match text.to_ascii_lowercase().as_str() {
        // cloud-init hands these codes to sfdisk and sgdisk.
        "82" | "8200" | "swap" => Some(SWAP.to_owned()),
        "83" | "8300" | "linux" => Some(LINUX.to_owned()),
        "ef" | "ef00" | "esp" => Some(ESP.to_owned()),
        _ if is_guid => Some(text.to_ascii_uppercase()),
        _ => None,
    }
}
