//! `storage.filesystems`.
//!
//! Knows the formats that the image can make, how long their labels are and what their UUIDs look like.
//! Refuses what mkfs would refuse, before anything is done. Invariant: nothing is mounted over the system.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>, `storage.filesystems`, and
//! mkfs.btrfs(8), mkfs.ext4(8), mkswap(8), mkfs.fat(8), mkfs.xfs(8).

use crate::cloudconfig::fields::{FieldKey, MappingFields, supported_key};
use crate::cloudconfig::storage::mounts::place_flaw;
use crate::plan::step::{FilesystemStep, MountStep, PlanStep};
use crate::plan::{FirstBootPlan, PlanStage};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;

use super::add;
use super::readers::{filled_text, for_each_item, is_guid, read_device, read_flag, read_texts, written_path};

pub(super) const FILESYSTEM_KEYS: &[FieldKey] = &[
    supported_key("device"),
    supported_key("format"),
    supported_key("path"),
    supported_key("wipeFilesystem"),
    supported_key("label"),
    supported_key("uuid"),
    supported_key("options"),
    supported_key("mountOptions"),
];
// `virtiofs` of newer specifications is mounted only, which a `.mount` unit does as well.
const FORMATS: &[&str] = &["btrfs", "ext4", "none", "swap", "vfat", "xfs"];
/// What mkfs of each format takes as a label, in bytes; by their manual pages.
const LONGEST_LABELS: [(&str, usize); 5] =
    [("btrfs", 256), ("ext4", 16), ("swap", 15), ("vfat", 11), ("xfs", 12)];
/// Words that mkfs.ext4 takes instead of a UUID.
const UUID_WORDS: [&str; 3] = ["clear", "random", "time"];

pub(super) fn read(storage: &mut MappingFields<'_>, plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    for_each_item(storage, "filesystems", FILESYSTEM_KEYS, found, |fields, path, found| {
        read_filesystem(fields, path, plan, found);
    });
}

fn read_filesystem(
    fields: &mut MappingFields<'_>,
    path: &str,
    plan: &mut FirstBootPlan,
    found: &mut Diagnostics,
) {
    let device = read_device(fields, found);
    let format = read_format(fields, found);
    let place = read_mount_point(fields, found);
    let label = fields.read_text("label", found).filter(|label| !label.value.is_empty());
    let uuid = fields.read_text("uuid", found).filter(|uuid| !uuid.value.is_empty());
    let overwrite = read_flag(fields, "wipeFilesystem", found);
    let (options, mount_options) =
        (read_texts(fields, "options", found), read_texts(fields, "mountOptions", found));
    let Some(format) = format else {
        let others = [place.is_some(), label.is_some(), uuid.is_some(), overwrite];
        let has_options = !options.is_empty() || !mount_options.is_empty();
        return require_format(fields, others.contains(&true) || has_options, found);
    };
    check_label(fields, format, label.as_ref(), found);
    check_uuid(fields, format, uuid.as_ref(), found);
    let (Some(device), false) = (device, fields.has_broken_field()) else { return };
    let format = format.to_owned();
    let (label, uuid) = (label.map(|label| label.value), uuid.map(|uuid| uuid.value));
    let filesystem =
        FilesystemStep { device: device.clone(), format: format.clone(), label, uuid, overwrite, options };
    add(plan, PlanStage::Storage, fields, path, PlanStep::MakeFilesystem(filesystem));
    if let Some(place) = place {
        plan_mount(plan, fields, path, [device, place, format], mount_options);
    }
}

/// A file system of which nothing but its device is said asks for nothing.
fn require_format(fields: &MappingFields<'_>, is_described: bool, found: &mut Diagnostics) {
    if is_described && !fields.has_broken_field() {
        let message = "`format` is missing, which all that is said of a file system needs";
        let diagnostic = Diagnostic::error(DiagnosticCode::MissingKey, fields.start_mark(), message)
            .with_key(fields.child_path("format"));
        found.push(diagnostic.with_help("write the format, or \"none\" for the one there is"));
    }
}

/// The format, if one is given.
fn read_format(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<&'static str> {
    filled_text(fields, "format", found)?;
    fields.read_choice("format", FORMATS, found).map(|format| format.value)
}

/// Where it is mounted.
fn read_mount_point(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    filled_text(fields, "path", found)?;
    let place = written_path(fields, "path", found)?;
    let Some(flaw) = place_flaw(&place) else { return Some(place) };
    let at = fields.field_node("path").map_or_else(|| fields.start_mark(), |node| node.at);
    fields.refuse_field(
        "path",
        Diagnostic::error(DiagnosticCode::Protected, at, format!("`path` {flaw}")),
        found,
    );
    None
}

fn check_label(
    fields: &mut MappingFields<'_>,
    format: &str,
    label: Option<&Located<String>>,
    found: &mut Diagnostics,
) {
    let Some(label) = label else { return };
    let longest = LONGEST_LABELS.iter().find(|(known, _)| *known == format).map(|(_, longest)| *longest);
    if longest.is_some_and(|longest| label.value.len() > longest) {
        let message = format!("a label of {format} has at most {} bytes", longest.unwrap_or_default());
        fields.refuse_field("label", Diagnostic::error(DiagnosticCode::BadValue, label.at, message), found);
    }
}

fn check_uuid(
    fields: &mut MappingFields<'_>,
    format: &str,
    uuid: Option<&Located<String>>,
    found: &mut Diagnostics,
) {
    let Some(uuid) = uuid else { return };
    let (is_right, looks) = match format {
        // FAT has a number of 32 bits; blkid prints it with a hyphen, and mkfs.vfat takes it without.
        "vfat" => (is_volume_id(&uuid.value), "\"1234-ABCD\""),
        "ext4" if UUID_WORDS.contains(&uuid.value.as_str()) => return,
        "none" => return,
        _ => (is_guid(&uuid.value), "\"0cc175b9-c0f1-46b6-a31c-399e26977266\""),
    };
    if !is_right {
        let message = format!("the UUID of {format} must look like {looks}");
        fields.refuse_field("uuid", Diagnostic::error(DiagnosticCode::BadValue, uuid.at, message), found);
    }
}

fn is_volume_id(text: &str) -> bool {
    let digits = match text.split_once('-') {
        Some((one, two)) if one.len() == 4 => [one, two].concat(),
        Some(_) => return false,
        None => text.to_owned(),
    };
    digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Ignition itself mounts only while it writes; here the file system stays mounted, as its authors expect
/// who write no unit for it.
fn plan_mount(
    plan: &mut FirstBootPlan,
    fields: &MappingFields<'_>,
    path: &str,
    [device, place, format]: [String; 3],
    options: Vec<String>,
) {
    // Swap is used, not mounted.
    let place = if format == "swap" { "none".to_owned() } else { place };
    // `none` says that a file system is there, and mount(8) finds out which.
    let kind = if format == "none" { "auto".to_owned() } else { format };
    // As for `mounts`: the machine must boot without it.
    let options = [options, vec!["nofail".to_owned()]].concat().join(",");
    // Field five is for dump(8), which the image has not. Two checks the file system after the root.
    let words = [device, place, kind, options, "0".to_owned(), "2".to_owned()];
    add(plan, PlanStage::Storage, fields, path, PlanStep::AddMounts(vec![MountStep { fields: words }]));
}
