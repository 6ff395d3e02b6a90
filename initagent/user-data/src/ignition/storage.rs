//! `storage`: files, directories, links, file systems and disks.
//!
//! Knows which of a disk's options can be done with what is in the image. Refuses the others by name.
//! Invariant: no path that the machine is reached through is written.

use crate::cloudconfig::fields::{Fields, Key, key, refused};
use crate::cloudconfig::files::clean_path;
use crate::cloudconfig::identity::check as check_hostname;
use crate::cloudconfig::storage::place_flaw;
use crate::plan::step::{
    Account, Content, Directory, Existing, File, Filesystem, Link, Mount, Owner, Partition, PartitionSize,
    Partitioning, Step,
};
use crate::plan::{Plan, Stage};
use crate::protected::{self, Objection};
use crate::room::Room;
use crate::secret::Secret;
use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::yaml::{Node, Value};

use super::{add, resource};

const NO_LUKS: &str = "the image holds no cryptsetup; use a disk that its platform encrypts";
const STORAGE_KEYS: &[Key] = &[
    key("directories"),
    key("disks"),
    key("files"),
    key("filesystems"),
    key("links"),
    refused("luks", NO_LUKS),
    refused("raid", "the image holds no mdadm; use a disk that its platform mirrors"),
];
const FILE_KEYS: &[Key] =
    &[key("path"), key("overwrite"), key("contents"), key("append"), key("mode"), key("user"), key("group")];
const DIRECTORY_KEYS: &[Key] = &[key("path"), key("overwrite"), key("mode"), key("user"), key("group")];
const LINK_KEYS: &[Key] =
    &[key("path"), key("target"), key("hard"), key("overwrite"), key("user"), key("group")];
const ACCOUNT_KEYS: &[Key] = &[key("id"), key("name")];
const FILESYSTEM_KEYS: &[Key] = &[
    key("device"),
    key("format"),
    key("path"),
    key("wipeFilesystem"),
    key("label"),
    key("uuid"),
    key("options"),
    key("mountOptions"),
];
const DISK_KEYS: &[Key] = &[key("device"), key("wipeTable"), key("partitions")];
const PARTITION_KEYS: &[Key] = &[
    key("label"),
    key("number"),
    key("sizeMiB"),
    key("typeGuid"),
    key("shouldExist"),
    refused("guid", "partitions get their own GUIDs; find them by label"),
    refused("resize", "existing partitions are not resized"),
    refused("startMiB", "partitions follow one another"),
    refused("wipePartitionEntry", "use `wipeTable` on the whole disk"),
];
const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
const MOST_LABEL: usize = 36;
const HOSTNAME: &str = "/etc/hostname";

pub(super) fn tables() -> Vec<(&'static str, &'static [Key])> {
    vec![
        ("storage", STORAGE_KEYS),
        ("storage.directories[]", DIRECTORY_KEYS),
        ("storage.disks[]", DISK_KEYS),
        ("storage.disks[].partitions[]", PARTITION_KEYS),
        ("storage.files[]", FILE_KEYS),
        ("storage.files[].user", ACCOUNT_KEYS),
        ("storage.filesystems[]", FILESYSTEM_KEYS),
        ("storage.links[]", LINK_KEYS),
    ]
}

pub(super) fn read(node: &Node, path: String, room: &mut Room, plan: &mut Plan, found: &mut Diagnostics) {
    let Some(mut fields) = Fields::open(node, STORAGE_KEYS, path, found) else { return };
    each(&mut fields, "disks", DISK_KEYS, found, |fields, path, found| disk(fields, path, plan, found));
    each(&mut fields, "filesystems", FILESYSTEM_KEYS, found, |fields, path, found| {
        filesystem(fields, path, plan, found);
    });
    each(&mut fields, "directories", DIRECTORY_KEYS, found, |fields, path, found| {
        directory(fields, path, plan, found);
    });
    each(&mut fields, "files", FILE_KEYS, found, |fields, path, found| file(fields, path, room, plan, found));
    each(&mut fields, "links", LINK_KEYS, found, |fields, path, found| link(fields, path, plan, found));
}

/// Opens each item of a list.
pub(super) fn each(
    fields: &mut Fields<'_>,
    name: &str,
    table: &'static [Key],
    found: &mut Diagnostics,
    mut read: impl FnMut(&mut Fields<'_>, &str, &mut Diagnostics),
) {
    let path = fields.child(name);
    for (index, item) in fields.list(name, found).iter().enumerate() {
        let path = format!("{path}[{index}]");
        if let Some(mut item) = Fields::open(item, table, path.clone(), found) {
            read(&mut item, &path, found);
        }
    }
}

fn file(fields: &mut Fields<'_>, path: &str, room: &mut Room, plan: &mut Plan, found: &mut Diagnostics) {
    let Some(target) = target_path(fields, found) else { return };
    let overwrite = flag(fields, "overwrite", found);
    let mode = mode(fields, 0o644, found);
    let owner = owner(fields, found);
    let contents = fields.node("contents");
    if overwrite && contents.is_none() {
        let message = "`overwrite` needs `contents` to write";
        return found.push(Diagnostic::error(Code::MissingKey, fields.at(), message).key(path));
    }
    let mut write = |content: Content, existing| {
        if let (HOSTNAME, Content::Inline(bytes)) = (target.as_str(), &content) {
            set_hostname(bytes.reveal(), fields, path, plan);
        }
        let file = File { path: target.clone(), content, mode: Some(mode), owner: owner.clone(), existing };
        add(plan, Stage::Files, fields, path, Step::WriteFile(file));
    };
    let appended = match fields.node("append").map(|node| &node.value) {
        Some(Value::Sequence(items)) => items.as_slice(),
        _ => &[],
    };
    match contents.map(|node| resource::content(node, format!("{path}.contents"), room, found)) {
        Some(Some(content)) => write(content, if overwrite { Existing::Replace } else { Existing::Refuse }),
        Some(None) => {}
        // Without contents the file stays as it is, or is made empty.
        None if !appended.is_empty() => {}
        None => write(Content::Inline(Secret::default()), Existing::Append),
    }
    for (index, item) in appended.iter().enumerate() {
        if let Some(content) = resource::content(item, format!("{path}.append[{index}]"), room, found) {
            write(content, Existing::Append);
        }
    }
}

/// Ignition runs before the system reads `/etc/hostname`; here the machine is up and has a name.
fn set_hostname(content: &[u8], fields: &Fields<'_>, path: &str, plan: &mut Plan) {
    let name = String::from_utf8_lossy(content).trim().to_owned();
    if check_hostname(&name).is_ok() {
        add(plan, Stage::Identity, fields, path, Step::SetHostname(name));
    }
}

fn directory(fields: &mut Fields<'_>, path: &str, plan: &mut Plan, found: &mut Diagnostics) {
    let Some(target) = target_path(fields, found) else { return };
    let overwrite = flag(fields, "overwrite", found);
    let mode = mode(fields, 0o755, found);
    let owner = owner(fields, found);
    let step = Step::MakeDirectory(Directory { path: target, mode, owner, overwrite });
    add(plan, Stage::Files, fields, path, step);
}

fn link(fields: &mut Fields<'_>, path: &str, plan: &mut Plan, found: &mut Diagnostics) {
    let (place, target) = (target_path(fields, found), required(fields, "target", found));
    let (Some(place), Some(target)) = (place, target) else { return };
    let overwrite = flag(fields, "overwrite", found);
    let hard = flag(fields, "hard", found);
    let owner = owner(fields, found);
    let step = Step::MakeLink(Link { path: place, target, hard, owner, overwrite });
    add(plan, Stage::Files, fields, path, step);
}

/// `path`, absolute, clean and not one the machine is reached through.
fn target_path(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<String> {
    let Some(path) = fields.text("path", found) else {
        found.push(
            Diagnostic::error(Code::MissingKey, fields.at(), "`path` is missing").key(fields.child("path")),
        );
        return None;
    };
    let error = |code, message: String| Diagnostic::error(code, path.at, message);
    let trimmed = path.value.trim_end_matches('/');
    let flaw = match clean_path(trimmed) {
        _ if !path.value.starts_with('/') => {
            error(Code::BadValue, "`path` must begin with a slash".to_owned())
        }
        Err(flaw) => error(Code::BadValue, format!("`path` {flaw}")),
        Ok(clean) => match protected::at(&clean) {
            Some(Objection { message, instead }) => error(Code::Protected, message).help(instead),
            None => return Some(clean),
        },
    };
    fields.refuse("path", flaw, found);
    None
}

fn owner(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Owner {
    Owner { user: account(fields, "user", found), group: account(fields, "group", found) }
}

fn account(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> Option<Account> {
    let mut account = Fields::open(fields.node(name)?, ACCOUNT_KEYS, fields.child(name), found)?;
    let id = account.number::<u32>("id", found).map(|id| Account::Id(id.value));
    id.or_else(|| account.text("name", found).map(|name| Account::Name(name.value)))
}

/// Ignition's modes are decimal numbers.
fn mode(fields: &mut Fields<'_>, default: u32, found: &mut Diagnostics) -> u32 {
    let Some(mode) = fields.number::<u32>("mode", found) else { return default };
    if mode.value > 0o7777 {
        let message = "`mode` must be a decimal number up to 4095, which is octal 7777";
        fields.refuse("mode", Diagnostic::error(Code::BadValue, mode.at, message), found);
    }
    mode.value
}

fn filesystem(fields: &mut Fields<'_>, path: &str, plan: &mut Plan, found: &mut Diagnostics) {
    const FORMATS: &[&str] = &["ext4", "vfat", "swap", "xfs", "btrfs", "none"];
    let (device, format) = (device(fields, found), fields.choice("format", FORMATS, found));
    let (Some(device), false) = (device, fields.broken()) else { return };
    let mount_point = fields.text("path", found);
    if let Some(place) = &mount_point
        && let Some(flaw) = place_flaw(&place.value)
    {
        let diagnostic = Diagnostic::error(Code::Protected, place.at, format!("`path` {flaw}"));
        return fields.refuse("path", diagnostic, found);
    }
    let format = format.map_or("none", |format| format.value);
    let text = |fields: &mut Fields<'_>, name, found: &mut Diagnostics| {
        fields.text(name, found).map(|text: document::source::At<String>| text.value)
    };
    let filesystem = Filesystem {
        device: device.clone(),
        format: format.to_owned(),
        label: text(fields, "label", found),
        uuid: text(fields, "uuid", found),
        overwrite: flag(fields, "wipeFilesystem", found),
        options: texts(fields, "options", found),
    };
    if format != "none" {
        add(plan, Stage::Storage, fields, path, Step::MakeFilesystem(filesystem));
    }
    let mut options = texts(fields, "mountOptions", found);
    options.push("nofail".to_owned());
    if let Some(place) = mount_point {
        let kind = if format == "none" { "auto" } else { format };
        let words = [&device, place.value.as_str(), kind, &options.join(","), "0", "2"].map(str::to_owned);
        add(plan, Stage::Storage, fields, path, Step::AddMounts(vec![Mount { fields: words }]));
    }
}

fn disk(fields: &mut Fields<'_>, path: &str, plan: &mut Plan, found: &mut Diagnostics) {
    let Some(device) = device(fields, found) else { return };
    let overwrite = flag(fields, "wipeTable", found);
    let mut partitions = Vec::new();
    each(fields, "partitions", PARTITION_KEYS, found, |fields, _, found| {
        let expected = partitions.len() + 1;
        partitions.push(partition(fields, expected, found));
    });
    if !partitions.is_empty() || overwrite {
        let step = Step::PartitionDisk(Partitioning { device, overwrite, partitions });
        add(plan, Stage::Storage, fields, path, step);
    }
}

fn partition(fields: &mut Fields<'_>, expected: usize, found: &mut Diagnostics) -> Partition {
    let number = fields.number::<u32>("number", found);
    if let Some(number) = number.filter(|number| number.value != 0 && number.value as usize != expected) {
        let message = "partitions are made in order, so their numbers must be 1, 2, 3 and so on, or 0";
        fields.refuse("number", Diagnostic::error(Code::Refused, number.at, message), found);
    }
    if let Some(absent) = fields.flag("shouldExist", found).filter(|flag| !flag.value) {
        let message = "existing partitions are not removed one by one; use `wipeTable`";
        fields.refuse("shouldExist", Diagnostic::error(Code::Refused, absent.at, message), found);
    }
    let size = fields.number::<u64>("sizeMiB", found).map_or(0, |size| size.value);
    let type_guid = fields.text("typeGuid", found);
    if let Some(guid) = type_guid.as_ref().filter(|guid| !is_guid(&guid.value)) {
        let message = "`typeGuid` must be a GUID such as 0FC63DAF-8483-4772-8E79-3D69D8477DE4";
        fields.refuse("typeGuid", Diagnostic::error(Code::BadValue, guid.at, message), found);
    }
    let label = fields.text("label", found);
    if let Some(label) = label.as_ref().filter(|label| label.value.chars().count() > MOST_LABEL) {
        let message = "`label` must be at most 36 characters long";
        fields.refuse("label", Diagnostic::error(Code::BadValue, label.at, message), found);
    }
    Partition {
        size: if size == 0 { PartitionSize::Rest } else { PartitionSize::MiB(size) },
        type_guid: type_guid.map_or_else(|| LINUX.to_owned(), |guid| guid.value.to_ascii_uppercase()),
        label: label.map(|label| label.value),
    }
}

fn is_guid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn device(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<String> {
    let device = required(fields, "device", found)?;
    if device.starts_with("/dev/") && clean_path(&device).is_ok() {
        return Some(device);
    }
    let message = "`device` must be a path below /dev";
    fields.refuse("device", Diagnostic::error(Code::BadValue, fields.at(), message), found);
    None
}

/// A text that must be there.
pub(super) fn required(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> Option<String> {
    let text = fields.text(name, found).filter(|text| !text.value.is_empty());
    if text.is_none() && !fields.broken() {
        let message = format!("`{name}` is missing");
        found.push(Diagnostic::error(Code::MissingKey, fields.at(), message).key(fields.child(name)));
    }
    text.map(|text| text.value)
}

/// A boolean that is false when it is not given.
pub(super) fn flag(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> bool {
    fields.flag(name, found).is_some_and(|flag| flag.value)
}

/// The texts of a list.
pub(super) fn texts(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> Vec<String> {
    fields.texts(name, found).into_iter().map(|text| text.value).collect()
}
