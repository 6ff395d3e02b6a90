//! `storage.files`, `directories` and `links`.
//!
//! Knows Ignition's defaults: what is not given stays as it is on the machine. Refuses paths that are not
//! written as they are meant. Invariant: no path that the machine is reached through is written.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>, `storage.files`, `directories`,
//! `links`.

use crate::cloudconfig::fields::{FieldKey, MappingFields, supported_key};
use crate::cloudconfig::identity::check_host_name as check_hostname;
use crate::plan::step::{AccountRef, DirectoryStep, FileContent, FileOwner, LinkStep, PlacedFile, PlanStep};
use crate::plan::{FirstBootPlan, PlanStage};
use crate::protected::{self, PolicyObjection};
use crate::room::DecompressionBudget;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

use super::readers::{for_each_item, read_flag, read_required, written_path};
use super::{Context, add, resource, tree};

pub(super) const FILE_KEYS: &[FieldKey] = &[
    supported_key("path"),
    supported_key("overwrite"),
    supported_key("contents"),
    supported_key("append"),
    supported_key("mode"),
    supported_key("user"),
    supported_key("group"),
];
pub(super) const DIRECTORY_KEYS: &[FieldKey] = &[
    supported_key("path"),
    supported_key("overwrite"),
    supported_key("mode"),
    supported_key("user"),
    supported_key("group"),
];
pub(super) const LINK_KEYS: &[FieldKey] = &[
    supported_key("path"),
    supported_key("target"),
    supported_key("hard"),
    supported_key("overwrite"),
    supported_key("user"),
    supported_key("group"),
];
pub(super) const ACCOUNT_KEYS: &[FieldKey] = &[supported_key("id"), supported_key("name")];
const HOSTNAME: &str = "/etc/hostname";
/// Where networkd reads from.
const NETWORK_FOLDER: &str = "/etc/systemd/network/";
// Ignition's own bound, with setuid, setgid and sticky.
const MOST_MODE: u32 = 0o7777;

/// Reads all three lists, directories first and outer ones before inner ones, as they are made.
pub(super) fn read(
    storage: &mut MappingFields<'_>,
    context: Context,
    room: &mut DecompressionBudget,
    plan: &mut FirstBootPlan,
    found: &mut Diagnostics,
) {
    let mut directories = FirstBootPlan::default();
    for_each_item(storage, "directories", DIRECTORY_KEYS, found, |fields, path, found| {
        read_directory(fields, path, &mut directories, found);
    });
    // Ignition makes directories before what lies in them, in whatever order they are listed.
    directories.steps.sort_by_key(|planned| match &planned.step {
        PlanStep::MakeDirectory(directory) => directory.path.clone(),
        _ => String::new(),
    });
    plan.steps.extend(directories.steps);
    for_each_item(storage, "files", FILE_KEYS, found, |fields, path, found| {
        read_file(fields, path, context, room, plan, found);
    });
    for_each_item(storage, "links", LINK_KEYS, found, |fields, path, found| {
        read_link(fields, path, plan, found);
    });
}

/// Whether a file is networkd's, which runs already and must be told.
pub(super) fn concerns_network(step: &PlanStep) -> bool {
    matches!(step, PlanStep::PlaceFile(file) if file.path.starts_with(NETWORK_FOLDER))
}

fn read_file(
    fields: &mut MappingFields<'_>,
    path: &str,
    context: Context,
    room: &mut DecompressionBudget,
    plan: &mut FirstBootPlan,
    found: &mut Diagnostics,
) {
    let target = target_path(fields, found);
    let overwrite = read_flag(fields, "overwrite", found);
    let mode = read_mode(fields, found);
    let owner = read_owner(fields, found);
    let contents = fields.field_node("contents");
    let has_source = contents.is_some_and(|node| tree::find_value(node, "source").is_some());
    if overwrite && !has_source {
        let message = "`overwrite` needs `contents` with a `source` to write";
        found
            .push(Diagnostic::error(DiagnosticCode::MissingKey, fields.start_mark(), message).with_key(path));
    }
    let contents = contents.map_or(Ok(None), |node| {
        resource::read_content(node, format!("{path}.contents"), context, room, found)
    });
    let appended: Result<Vec<_>, ()> = tree::list_items(fields.field_node("append"))
        .iter()
        .enumerate()
        .map(|(index, item)| {
            resource::read_content(item, format!("{path}.append[{index}]"), context, room, found)
        })
        .collect();
    let (Some(target), Ok(contents), Ok(appended)) = (target, contents, appended) else { return };
    let append = appended.into_iter().flatten().collect();
    let file = PlacedFile { path: target, contents, append, mode, owner, overwrite };
    set_hostname(&file, fields, path, plan);
    add(plan, PlanStage::Files, fields, path, PlanStep::PlaceFile(file));
}

/// Ignition runs before the system reads `/etc/hostname`; here the machine is up and has a name.
fn set_hostname(file: &PlacedFile, fields: &MappingFields<'_>, path: &str, plan: &mut FirstBootPlan) {
    let (HOSTNAME, Some(FileContent::Inline(bytes))) = (file.path.as_str(), &file.contents) else { return };
    let name = String::from_utf8_lossy(bytes.reveal()).trim().to_owned();
    // What is no name is written to the file all the same, as Ignition does.
    if check_hostname(&name).is_ok() {
        add(plan, PlanStage::Identity, fields, path, PlanStep::SetHostname(name));
    }
}

fn read_directory(
    fields: &mut MappingFields<'_>,
    path: &str,
    plan: &mut FirstBootPlan,
    found: &mut Diagnostics,
) {
    let target = target_path(fields, found);
    let overwrite = read_flag(fields, "overwrite", found);
    let mode = read_mode(fields, found);
    let owner = read_owner(fields, found);
    let Some(target) = target else { return };
    let step = PlanStep::MakeDirectory(DirectoryStep { path: target, mode, owner, overwrite });
    add(plan, PlanStage::Files, fields, path, step);
}

fn read_link(fields: &mut MappingFields<'_>, path: &str, plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    let (place, target) = (target_path(fields, found), read_required(fields, "target", found));
    let overwrite = read_flag(fields, "overwrite", found);
    let hard = read_flag(fields, "hard", found);
    let owner = read_owner(fields, found);
    let (Some(place), Some(target)) = (place, target) else { return };
    let step = PlanStep::MakeLink(LinkStep { path: place, target, hard, owner, overwrite });
    add(plan, PlanStage::Files, fields, path, step);
}

/// `path`, absolute, clean and not one the machine is reached through.
fn target_path(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let path = written_path(fields, "path", found)?;
    let Some(PolicyObjection { message, instead }) = protected::check_path(&path) else {
        return Some(path);
    };
    let at = fields.field_node("path").map_or_else(|| fields.start_mark(), |node| node.at);
    let objection = Diagnostic::error(DiagnosticCode::Protected, at, message).with_help(instead);
    fields.refuse_field("path", objection, found);
    None
}

fn read_owner(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> FileOwner {
    FileOwner { user: read_account(fields, "user", found), group: read_account(fields, "group", found) }
}

fn read_account(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> Option<AccountRef> {
    let mut account =
        MappingFields::read_mapping(fields.field_node(name)?, ACCOUNT_KEYS, fields.child_path(name), found)?;
    let id = account.read_number::<u32>("id", found);
    let name = account.read_text("name", found).filter(|name| !name.value.is_empty());
    if let (Some(_), Some(name)) = (&id, &name) {
        let message = "both `id` and `name` are given, and only one of them can count";
        account.refuse_field("name", Diagnostic::error(DiagnosticCode::Conflict, name.at, message), found);
    }
    id.map(|id| AccountRef::Id(id.value)).or_else(|| name.map(|name| AccountRef::Name(name.value)))
}

/// Ignition's modes are decimal numbers.
fn read_mode(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<u32> {
    let mode = fields.read_number::<u32>("mode", found)?;
    if mode.value > MOST_MODE {
        let message = "`mode` must be a decimal number up to 4095, which is octal 7777";
        fields.refuse_field("mode", Diagnostic::error(DiagnosticCode::BadValue, mode.at, message), found);
    }
    Some(mode.value)
}
