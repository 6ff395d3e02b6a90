//! `storage.disks` and their partitions.
//!
//! Knows what Ignition refuses of a table before it has seen the disk. Refuses to know what is on the disk:
//! that is compared where the step is carried out. Invariant: in what is planned, no two partitions have the
//! same number, the same label or the same sectors.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>, `storage.disks`, and the UEFI
//! Specification, section 5.3, for the table.

use std::collections::HashSet;

use crate::cloudconfig::fields::{FieldKey, MappingFields, supported_key};
use crate::plan::step::{PartitionRule, Partitions, PlanStep, WantedPartition};
use crate::plan::{FirstBootPlan, PlanStage};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;

use super::add;
use super::readers::{for_each_item, is_guid, read_device, read_flag};

pub(super) const DISK_KEYS: &[FieldKey] =
    &[supported_key("device"), supported_key("wipeTable"), supported_key("partitions")];
pub(super) const PARTITION_KEYS: &[FieldKey] = &[
    supported_key("label"),
    supported_key("number"),
    supported_key("sizeMiB"),
    supported_key("startMiB"),
    supported_key("typeGuid"),
    supported_key("guid"),
    supported_key("wipePartitionEntry"),
    supported_key("shouldExist"),
    supported_key("resize"),
];
/// A name in a GPT has 36 UTF-16 units; Ignition counts bytes.
const LONGEST_LABEL: usize = 36;
/// A GPT as every tool makes it has so many entries.
// UEFI asks for room for 128 entries at least, and sgdisk and sfdisk make no more by themselves.
const MOST_NUMBER: u32 = 128;

pub(super) fn read(storage: &mut MappingFields<'_>, plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    for_each_item(storage, "disks", DISK_KEYS, found, |fields, path, found| {
        read_disk(fields, path, plan, found);
    });
}

fn read_disk(fields: &mut MappingFields<'_>, path: &str, plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    let device = read_device(fields, found);
    let wipe_table = read_flag(fields, "wipeTable", found);
    let mut partitions = Vec::new();
    for_each_item(fields, "partitions", PARTITION_KEYS, found, |fields, _, found| {
        partitions.push(read_partition(fields, found));
    });
    check_table(fields, &partitions, wipe_table, found);
    let Some(device) = device else { return };
    if !partitions.is_empty() || wipe_table {
        let step = PlanStep::EditPartitions(Partitions { device, wipe_table, wanted: partitions });
        add(plan, PlanStage::Storage, fields, path, step);
    }
}

/// What only all partitions of a disk together can get wrong.
fn check_table(
    fields: &mut MappingFields<'_>,
    partitions: &[WantedPartition],
    wipe_table: bool,
    found: &mut Diagnostics,
) {
    let removes = partitions.iter().any(|one| one.rule.is_removal());
    let message = if has_duplicates(partitions.iter().map(|one| one.number).filter(|number| *number != 0)) {
        "two of these partitions have the same number"
    } else if has_duplicates(partitions.iter().filter_map(|one| one.label.as_ref())) {
        "two of these partitions have the same label"
    // A partition without a number takes the next free one, which would be that of the removed one or not, by
    // the order.
    } else if removes && partitions.iter().any(|one| one.number == 0) {
        "where a partition must not exist, all others need a number"
    } else if has_overlap(partitions) {
        "two of these partitions overlap"
    // On a table that is kept, there may be several gaps.
    } else if wipe_table && partitions.iter().filter(|one| takes_the_rest(one)).count() > 1 {
        "two of these partitions take all that is left of the disk, so that one of them gets nothing"
    } else {
        return;
    };
    let at = fields.field_node("partitions").map_or_else(|| fields.start_mark(), |node| node.at);
    fields.refuse_field("partitions", Diagnostic::error(DiagnosticCode::Conflict, at, message), found);
}

fn has_duplicates<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    items.into_iter().any(|item| !seen.insert(item))
}

fn takes_the_rest(partition: &WantedPartition) -> bool {
    let is_open = |size: Option<u64>| size.unwrap_or_default() == 0;
    !partition.rule.is_removal() && is_open(partition.size_mib) && is_open(partition.start_mib)
}

/// Of those with a start. One without a size is its start and nothing else, since its end is not known.
fn has_overlap(partitions: &[WantedPartition]) -> bool {
    let range = |one: &WantedPartition| {
        let start = one.start_mib.filter(|start| *start > 0)?;
        Some((start, start.saturating_add(one.size_mib.unwrap_or_default().max(1)) - 1))
    };
    let mut ranges: Vec<(u64, u64)> = partitions.iter().filter_map(range).collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| pair[1].0 <= pair[0].1)
}

fn read_partition(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> WantedPartition {
    let number = fields.read_number::<u32>("number", found);
    if let Some(number) = number.as_ref().filter(|number| number.value > MOST_NUMBER) {
        let message = "`number` must be at most 128, as many as a GPT has";
        fields.refuse_field("number", Diagnostic::error(DiagnosticCode::BadValue, number.at, message), found);
    }
    let label = fields.read_text("label", found);
    check_label(fields, label.as_ref(), found);
    let partition = WantedPartition {
        number: number.map_or(0, |number| number.value),
        label: label.map(|label| label.value),
        start_mib: fields.read_number::<u64>("startMiB", found).map(|start| start.value),
        size_mib: fields.read_number::<u64>("sizeMiB", found).map(|size| size.value),
        type_guid: read_guid(fields, "typeGuid", found),
        guid: read_guid(fields, "guid", found),
        rule: partition_rule(fields, found),
    };
    check_partition(fields, &partition, found);
    partition
}

/// What becomes of an entry of the table.
fn partition_rule(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> PartitionRule {
    let absent = fields.read_flag("shouldExist", found).is_some_and(|flag| !flag.value);
    let (wipe, resize) = (read_flag(fields, "wipePartitionEntry", found), read_flag(fields, "resize", found));
    match (absent, wipe, resize) {
        (true, true, _) => PartitionRule::Absent,
        (true, false, _) => PartitionRule::Forbidden,
        (false, _, true) => PartitionRule::Resized { replace: wipe },
        (false, true, false) => PartitionRule::Replaced,
        (false, false, false) => PartitionRule::Kept,
    }
}

fn check_label(fields: &mut MappingFields<'_>, label: Option<&Located<String>>, found: &mut Diagnostics) {
    let Some(label) = label else { return };
    let message = if label.value.len() > LONGEST_LABEL {
        "`label` must be at most 36 bytes long"
    } else if label.value.contains(':') {
        // Ignition's sgdisk would cut it there.
        "`label` must be without a colon"
    } else if label.value.contains(char::is_control) {
        "`label` must be without control characters"
    } else {
        return;
    };
    fields.refuse_field("label", Diagnostic::error(DiagnosticCode::BadValue, label.at, message), found);
}

fn check_partition(fields: &mut MappingFields<'_>, partition: &WantedPartition, found: &mut Diagnostics) {
    let is_gone = partition.rule.is_removal();
    let is_described = partition.label.is_some()
        || partition.type_guid.is_some()
        || partition.guid.is_some()
        || partition.start_mib.is_some()
        || partition.size_mib.is_some();
    let message = if is_gone && is_described {
        "with `shouldExist: false` only `number` and `wipePartitionEntry` may be given"
    } else if partition.number == 0 && partition.label.is_none() {
        "a partition needs a `number` or a `label`"
    } else {
        return;
    };
    fields.refuse_field(
        "number",
        Diagnostic::error(DiagnosticCode::BadValue, fields.start_mark(), message),
        found,
    );
}

/// A GUID in capitals; an empty one is none.
fn read_guid(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> Option<String> {
    let guid = fields.read_text(name, found).filter(|guid| !guid.value.is_empty())?;
    if !is_guid(&guid.value) {
        let message = format!("`{name}` must be a GUID such as 0FC63DAF-8483-4772-8E79-3D69D8477DE4");
        fields.refuse_field(name, Diagnostic::error(DiagnosticCode::BadValue, guid.at, message), found);
    }
    // sfdisk prints GUIDs in capitals, and they are compared as texts.
    Some(guid.value.to_ascii_uppercase())
}
