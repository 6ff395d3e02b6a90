//! `storage.disks` and their partitions.
//!
//! Knows what Ignition refuses of a table before it has seen the disk. Refuses to know what is on the disk:
//! that is compared where the step is carried out. Invariant: in what is planned, no two partitions have the
//! same number, the same label or the same sectors.

use std::collections::HashSet;

use crate::cloudconfig::fields::{Fields, Key, key};
use crate::plan::step::{PartitionRule, Partitions, Step, WantedPartition};
use crate::plan::{Plan, Stage};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;

use super::add;
use super::filesystems::is_guid;
use super::storage::{device, each, flag};

pub(super) const DISK_KEYS: &[Key] = &[key("device"), key("wipeTable"), key("partitions")];
pub(super) const PARTITION_KEYS: &[Key] = &[
    key("label"),
    key("number"),
    key("sizeMiB"),
    key("startMiB"),
    key("typeGuid"),
    key("guid"),
    key("wipePartitionEntry"),
    key("shouldExist"),
    key("resize"),
];
/// A name in a GPT has 36 UTF-16 units; Ignition counts bytes.
const LONGEST_LABEL: usize = 36;
/// A GPT as every tool makes it has so many entries.
const MOST_NUMBER: u32 = 128;

pub(super) fn read(storage: &mut Fields<'_>, plan: &mut Plan, found: &mut Diagnostics) {
    each(storage, "disks", DISK_KEYS, found, |fields, path, found| disk(fields, path, plan, found));
}

fn disk(fields: &mut Fields<'_>, path: &str, plan: &mut Plan, found: &mut Diagnostics) {
    let device = device(fields, found);
    let wipe_table = flag(fields, "wipeTable", found);
    let mut partitions = Vec::new();
    each(fields, "partitions", PARTITION_KEYS, found, |fields, _, found| {
        partitions.push(partition(fields, found));
    });
    check_table(fields, &partitions, wipe_table, found);
    let Some(device) = device else { return };
    if !partitions.is_empty() || wipe_table {
        let step = Step::EditPartitions(Partitions { device, wipe_table, wanted: partitions });
        add(plan, Stage::Storage, fields, path, step);
    }
}

/// What only all partitions of a disk together can get wrong.
fn check_table(
    fields: &mut Fields<'_>,
    partitions: &[WantedPartition],
    wipe_table: bool,
    found: &mut Diagnostics,
) {
    let removes = partitions.iter().any(|one| one.rule.is_removal());
    let message = if repeats(partitions.iter().map(|one| one.number).filter(|number| *number != 0)) {
        "two of these partitions have the same number"
    } else if repeats(partitions.iter().filter_map(|one| one.label.as_ref())) {
        "two of these partitions have the same label"
    } else if removes && partitions.iter().any(|one| one.number == 0) {
        "where a partition must not exist, all others need a number"
    } else if overlap(partitions) {
        "two of these partitions overlap"
    } else if wipe_table && partitions.iter().filter(|one| takes_the_rest(one)).count() > 1 {
        "two of these partitions take all that is left of the disk, so that one of them gets nothing"
    } else {
        return;
    };
    let at = fields.node("partitions").map_or_else(|| fields.at(), |node| node.at);
    fields.refuse("partitions", Diagnostic::error(DiagnosticCode::Conflict, at, message), found);
}

fn repeats<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    items.into_iter().any(|item| !seen.insert(item))
}

fn takes_the_rest(partition: &WantedPartition) -> bool {
    let is_open = |size: Option<u64>| size.unwrap_or_default() == 0;
    !partition.rule.is_removal() && is_open(partition.size_mib) && is_open(partition.start_mib)
}

/// Of those with a start. One without a size is its start and nothing else, since its end is not known.
fn overlap(partitions: &[WantedPartition]) -> bool {
    let range = |one: &WantedPartition| {
        let start = one.start_mib.filter(|start| *start > 0)?;
        Some((start, start.saturating_add(one.size_mib.unwrap_or_default().max(1)) - 1))
    };
    let mut ranges: Vec<(u64, u64)> = partitions.iter().filter_map(range).collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| pair[1].0 <= pair[0].1)
}

fn partition(fields: &mut Fields<'_>, found: &mut Diagnostics) -> WantedPartition {
    let number = fields.number::<u32>("number", found);
    if let Some(number) = number.as_ref().filter(|number| number.value > MOST_NUMBER) {
        let message = "`number` must be at most 128, as many as a GPT has";
        fields.refuse("number", Diagnostic::error(DiagnosticCode::BadValue, number.at, message), found);
    }
    let label = fields.text("label", found);
    check_label(fields, label.as_ref(), found);
    let partition = WantedPartition {
        number: number.map_or(0, |number| number.value),
        label: label.map(|label| label.value),
        start_mib: fields.number::<u64>("startMiB", found).map(|start| start.value),
        size_mib: fields.number::<u64>("sizeMiB", found).map(|size| size.value),
        type_guid: guid(fields, "typeGuid", found),
        guid: guid(fields, "guid", found),
        rule: rule(fields, found),
    };
    check_partition(fields, &partition, found);
    partition
}

/// What becomes of an entry of the table.
fn rule(fields: &mut Fields<'_>, found: &mut Diagnostics) -> PartitionRule {
    let absent = fields.flag("shouldExist", found).is_some_and(|flag| !flag.value);
    let (wipe, resize) = (flag(fields, "wipePartitionEntry", found), flag(fields, "resize", found));
    match (absent, wipe, resize) {
        (true, true, _) => PartitionRule::Absent,
        (true, false, _) => PartitionRule::Forbidden,
        (false, _, true) => PartitionRule::Resized { replace: wipe },
        (false, true, false) => PartitionRule::Replaced,
        (false, false, false) => PartitionRule::Kept,
    }
}

fn check_label(fields: &mut Fields<'_>, label: Option<&Located<String>>, found: &mut Diagnostics) {
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
    fields.refuse("label", Diagnostic::error(DiagnosticCode::BadValue, label.at, message), found);
}

fn check_partition(fields: &mut Fields<'_>, partition: &WantedPartition, found: &mut Diagnostics) {
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
    fields.refuse("number", Diagnostic::error(DiagnosticCode::BadValue, fields.at(), message), found);
}

/// A GUID in capitals; an empty one is none.
fn guid(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> Option<String> {
    let guid = fields.text(name, found).filter(|guid| !guid.value.is_empty())?;
    if !is_guid(&guid.value) {
        let message = format!("`{name}` must be a GUID such as 0FC63DAF-8483-4772-8E79-3D69D8477DE4");
        fields.refuse(name, Diagnostic::error(DiagnosticCode::BadValue, guid.at, message), found);
    }
    Some(guid.value.to_ascii_uppercase())
}
