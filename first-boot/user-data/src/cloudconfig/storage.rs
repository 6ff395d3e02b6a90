//! Disks, file systems, mounts and swap.
//!
//! Knows cloud-init's notations. Refuses a mount over the system itself. Invariant: no mount can keep
//! the machine from booting: each gets `nofail`.
//!
//! Documentation: cloud-init's modules "Disk Setup" and "Mounts" in
//! <https://docs.cloud-init.io/en/latest/reference/modules.html>, fstab(5), sfdisk(8), and the Discoverable
//! Partitions Specification
//! <https://uapi-group.org/specifications/specs/discoverable_partitions_specification/>.

use super::fields::{FieldKey, MappingFields, by_name, no_effect, supported_key, text_of, wrong_type};
use crate::plan::step::{
    FilesystemStep, MountStep, PartitionSize, PartitionStep, PartitioningStep, SwapSize,
};
use crate::protected::{self, PolicyObjection};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::yaml::{Node, Value};

/// The keys of the top level that this module reads.
pub const KEYS: &[FieldKey] = &[
    supported_key("mounts"),
    supported_key("mount_default_fields"),
    supported_key("swap"),
    supported_key("disk_setup"),
    supported_key("fs_setup"),
    supported_key("device_aliases"),
    no_effect("growpart", "the last partition always grows to the end of its disk"),
    no_effect(
        "resize_rootfs",
        "the root is verified and read-only; what can be written always grows with its disk",
    ),
];
/// The keys of `swap`.
pub const SWAP_KEYS: &[FieldKey] =
    &[supported_key("filename"), supported_key("size"), supported_key("maxsize")];
/// The keys of a disk in `disk_setup`.
pub const DISK_KEYS: &[FieldKey] =
    &[supported_key("table_type"), supported_key("layout"), supported_key("overwrite")];
/// The keys of an item of `fs_setup`.
pub const FS_KEYS: &[FieldKey] = &[
    supported_key("label"),
    supported_key("filesystem"),
    supported_key("device"),
    supported_key("partition"),
    supported_key("overwrite"),
    no_effect("replace_fs", "`overwrite` alone decides whether what is there is replaced"),
    supported_key("extra_opts"),
    super::fields::refused_key("cmd", "name the `filesystem`; commands belong into `bootcmd`"),
];

// cloud-init's, without its `x-systemd.after=` and `_netdev`, which name or concern what is not here.
const DEFAULT_FIELDS: [&str; 6] = ["", "", "auto", "defaults,nofail", "0", "2"];
// cloud-init's is /swap.img, on the root, which is read-only here.
const DEFAULT_SWAP: &str = "/var/swap.img";
// "Linux filesystem data", as sgdisk's 8300. Types that systemd mounts by themselves would be mounted without
// a line.
const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
const SWAP: &str = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F";
const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
/// Storage of a document.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StorageConfig {
    /// Disks to divide.
    pub disks: Vec<Located<PartitioningStep>>,
    /// File systems to make.
    pub filesystems: Vec<Located<FilesystemStep>>,
    /// Lines of fstab.
    pub mounts: Vec<Located<MountStep>>,
    /// Path and size of a swap file.
    pub swap: Option<Located<(String, SwapSize)>>,
}

impl StorageConfig {
    pub(crate) fn read(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Self {
        let aliases = read_aliases(fields, found);
        Self {
            disks: read_disks(fields, &aliases, found),
            filesystems: read_filesystems(fields, &aliases, found),
            mounts: read_mounts(fields, &aliases, found),
            swap: read_swap(fields, found),
        }
    }
}

const NAME_A_DISK: &str =
    "name the disk, such as /dev/vdb or LABEL=data, or give the name a device by `device_aliases`";

/// Whether a word is one of cloud-init's names for disks that the platform says: `ephemeral0`, `ebs1`,
/// also with a partition behind it. They are left to nobody's guess: such a disk is often empty and lost
/// with the machine, or somebody's data.
fn is_platforms(name: &str, aliases: &DeviceAliases) -> bool {
    let disk = name.split('.').next().unwrap_or_default();
    let numbered = |kind: &str| {
        disk.strip_prefix(kind).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_known = aliases.iter().any(|(alias, _)| alias == disk);
    !is_known && (["ephemeral", "ebs"].into_iter().any(numbered) || matches!(disk, "ami" | "root" | "swap"))
}

type DeviceAliases = Vec<(String, String)>;

fn read_aliases(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> DeviceAliases {
    let Some(node) = fields.field_node("device_aliases") else { return Vec::new() };
    let Value::Mapping(entries) = &node.value else {
        fields.refuse_field("device_aliases", wrong_type("a mapping", node), found);
        return Vec::new();
    };
    entries.iter().filter_map(|entry| Some((entry.key.clone(), text_of(&entry.value)?.value))).collect()
}

/// The device that a short name means.
fn resolve_device(name: &str, aliases: &DeviceAliases) -> String {
    match aliases.iter().find(|(alias, _)| alias == name) {
        Some((_, device)) => device.clone(),
        None if is_disk(name) => format!("/dev/{name}"),
        None => match name.split_once('.') {
            Some((disk, partition)) if is_disk(disk) || aliases.iter().any(|(alias, _)| alias == disk) => {
                partition_of(&resolve_device(disk, aliases), partition)
            }
            _ => name.to_owned(),
        },
    }
}

/// Whether a word is the kernel's name of a disk or partition; `tmpfs` and `server:/export` are not.
fn is_disk(word: &str) -> bool {
    // Xen's disks are `xvda`.
    let letters = word.strip_prefix('x').unwrap_or(word);
    let scsi = ["sd", "hd", "vd"].iter().any(|kind| {
        letters.strip_prefix(kind).is_some_and(|rest| {
            let number = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
            number.len() < rest.len() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    });
    let numbered = ["nvme", "mmcblk", "sr"].iter().any(|kind| {
        word.strip_prefix(kind).is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_digit())
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
    });
    scsi || numbered
}

/// `sda` and `1` make `sda1`; `nvme0n1` and `1` make `nvme0n1p1`.
fn partition_of(disk: &str, number: &str) -> String {
    match disk {
        disk if disk.starts_with("/dev/disk/") => format!("{disk}-part{number}"),
        // The kernel does so: `nvme0n1p1`.
        disk if disk.ends_with(|c: char| c.is_ascii_digit()) => format!("{disk}p{number}"),
        disk => format!("{disk}{number}"),
    }
}

fn read_mounts(
    fields: &mut MappingFields<'_>,
    aliases: &DeviceAliases,
    found: &mut Diagnostics,
) -> Vec<Located<MountStep>> {
    let mut defaults = DEFAULT_FIELDS.map(str::to_owned);
    for (slot, item) in defaults.iter_mut().zip(fields.read_list("mount_default_fields", found)) {
        if let Some(text) = text_of(item).filter(|_| !item.is_null()) {
            *slot = text.value;
        }
    }
    let path = fields.child_path("mounts");
    let items = fields.read_list("mounts", found).iter().enumerate();
    items
        .filter_map(|(index, item)| read_mount(item, &defaults, aliases, format!("{path}[{index}]"), found))
        .collect()
}

fn read_mount(
    item: &Node,
    defaults: &[String; 6],
    aliases: &DeviceAliases,
    path: String,
    found: &mut Diagnostics,
) -> Option<Located<MountStep>> {
    let Value::Sequence(written) = &item.value else {
        found.push(wrong_type("a list like [ /dev/vdb1, /data ]", item).with_key(path));
        return None;
    };
    let mut fields = defaults.clone();
    for (slot, value) in fields.iter_mut().zip(written) {
        match text_of(value) {
            Some(text) if !value.is_null() => *slot = text.value,
            Some(_) => {}
            None => {
                found.push(wrong_type("text", value).with_key(path));
                return None;
            }
        }
    }
    // `[ephemeral0]` and `[ephemeral0, null]` say that a default mount is not wanted: there is none.
    if written.len() < 2 || written[1].is_null() {
        if written.len() < 2 && !is_platforms(&fields[0], aliases) {
            let message = "this names no directory, so nothing is mounted";
            found.push(
                Diagnostic::warning(DiagnosticCode::NoEffect, item.at, message)
                    .with_key(path)
                    .with_help("write [ /dev/vdb1, /srv/data ]"),
            );
        }
        return None;
    }
    if is_platforms(&fields[0], aliases) {
        let message = format!(
            "`{}` is no disk here: no platform is asked for such a name; nothing is mounted",
            fields[0]
        );
        found.push(
            Diagnostic::warning(DiagnosticCode::NoEffect, written[0].at, message)
                .with_key(path)
                .with_help(NAME_A_DISK),
        );
        return None;
    }
    fields[0] = resolve_device(&fields[0], aliases);
    let options = || protected::fstab::check_options(&fields[3]);
    if let Some(PolicyObjection { message, instead }) = objection_to(&fields[1]).or_else(options) {
        let diagnostic = Diagnostic::error(DiagnosticCode::Protected, written[1].at, message);
        found.push(diagnostic.with_help(instead).with_key(path));
        return None;
    }
    if fields.iter().any(|field| field.contains(['\n', '\0'])) {
        found.push(
            Diagnostic::error(
                DiagnosticCode::BadValue,
                item.at,
                "a field of this mount has a line break in it",
            )
            .with_key(path),
        );
        return None;
    }
    // Without it local-fs.target requires the mount, and a disk that is missing ends in the emergency shell.
    if !fields[3].split(',').any(|option| option == "nofail") {
        fields[3] += ",nofail";
        let message = "`nofail` is added: the machine must boot without this mount too";
        found.push(Diagnostic::note(DiagnosticCode::Translated, item.at, message).with_key(path));
    }
    Some(Located { value: MountStep { fields }, at: item.at })
}

/// Why nothing can be mounted on a place, in one sentence.
pub(crate) fn place_flaw(place: &str) -> Option<String> {
    let PolicyObjection { message, instead } = objection_to(place)?;
    Some(format!("{message}; {instead}"))
}

/// As [`place_flaw`], in two; swap is mounted nowhere.
fn objection_to(place: &str) -> Option<PolicyObjection> {
    if matches!(place, "none" | "swap") { None } else { protected::mounts::mount_objection(place) }
}

fn read_swap(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<(String, SwapSize)>> {
    let node = fields.field_node("swap")?;
    let mut inner = MappingFields::read_mapping(node, SWAP_KEYS, fields.child_path("swap"), found)?;
    let path = inner.read_text("filename", found);
    let most = read_size(&mut inner, "maxsize", found);
    let automatic = SwapSize::Automatic { most };
    let wanted = match inner.field_node("size").and_then(text_of) {
        Some(text) if text.value == "auto" => automatic,
        Some(_) => SwapSize::Bytes(read_size(&mut inner, "size", found)?),
        None => return None,
    };
    if inner.has_broken_field() || wanted == SwapSize::Bytes(0) {
        return None;
    }
    let path = path.map_or_else(|| Ok(DEFAULT_SWAP.to_owned()), |text| swap_path(&text, &inner, found));
    Some(Located { value: (path.ok()?, wanted), at: node.at })
}

/// The root of this system cannot be written, so a file directly below it goes to /var.
fn swap_path(
    text: &Located<String>,
    fields: &MappingFields<'_>,
    found: &mut Diagnostics,
) -> Result<String, ()> {
    let report = |diagnostic: Diagnostic, found: &mut Diagnostics| {
        found.push(diagnostic.with_key(fields.child_path("filename")));
    };
    let path = super::files::clean_path(&text.value).map_err(|flaw| {
        report(Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("`filename` {flaw}")), found);
    })?;
    // /swapfile and /swap.img are what most documents say.
    if path.rfind('/') == Some(0) {
        let moved = format!("/var{path}");
        report(
            Diagnostic::note(
                DiagnosticCode::Translated,
                text.at,
                format!("the root is read-only; {moved} is used"),
            ),
            found,
        );
        return Ok(moved);
    }
    // The file is cut to its size and filled, so that whatever lies there would be lost.
    if protected::mounts::mount_objection(&path).is_some() {
        let message = format!("{path} cannot be a swap file");
        let diagnostic = Diagnostic::error(DiagnosticCode::Protected, text.at, message);
        report(diagnostic.with_help("use a file below /var or /srv"), found);
        return Err(());
    }
    Ok(path)
}

fn read_size(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> Option<u64> {
    let text = fields.read_text(name, found)?;
    let bytes = parse_size(&text.value);
    if bytes.is_none() {
        let message = format!("`{name}` must be a size like 512M or 4G");
        fields.refuse_field(name, Diagnostic::error(DiagnosticCode::BadValue, text.at, message), found);
    }
    bytes
}

/// Bytes, with K, M, G or T for powers of 1024.
fn parse_size(text: &str) -> Option<u64> {
    // cloud-init takes `B`, `K`, `M`, `G` and `T`. People write `GiB` and `GB`, too.
    let text = text.trim().trim_end_matches(['B', 'b']).trim_end_matches('i');
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        "T" | "t" => 1_u64 << 40,
        _ => return None,
    };
    let (whole, fraction) = digits.trim().split_once('.').unwrap_or_else(|| (digits.trim(), ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { parse_digits(whole)? };
    whole.checked_mul(unit)?.checked_add(part_of(unit, fraction)?)
}

fn parse_digits(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `5` of a GiB is half of it. More digits than nine are less than a byte of a GiB.
fn part_of(unit: u64, fraction: &str) -> Option<u64> {
    // Before it is cut: a text of other letters has other places to cut at.
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = &fraction[..fraction.len().min(9)];
    // Whole numbers: a fraction of bytes in binary floating point would be another size on another day.
    let part = u128::from(if digits.is_empty() { 0 } else { parse_digits(digits)? });
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    u64::try_from(u128::from(unit) * part / scale).ok()
}

fn read_disks(
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

fn disk_setup(
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
fn read_layout(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Vec<PartitionStep>> {
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

fn disk_share(partition: &PartitionStep) -> u32 {
    match partition.size {
        PartitionSize::Percent(percent) => u32::from(percent),
        _ => 0,
    }
}

fn read_partition(
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
fn partition_type(text: &str) -> Option<String> {
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

fn read_filesystems(
    fields: &mut MappingFields<'_>,
    aliases: &DeviceAliases,
    found: &mut Diagnostics,
) -> Vec<Located<FilesystemStep>> {
    let path = fields.child_path("fs_setup");
    let items = fields.read_list("fs_setup", found).iter().enumerate();
    items
        .filter_map(|(index, item)| read_filesystem(item, aliases, format!("{path}[{index}]"), found))
        .collect()
}

fn read_filesystem(
    item: &Node,
    aliases: &DeviceAliases,
    path: String,
    found: &mut Diagnostics,
) -> Option<Located<FilesystemStep>> {
    const FORMATS: &[&str] = &["ext4", "ext3", "ext2", "vfat", "swap", "xfs", "btrfs"];
    let mut fields = MappingFields::read_mapping(item, FS_KEYS, path, found)?;
    let format = fields.read_choice("filesystem", FORMATS, found);
    let disk = fields.read_text("device", found);
    let partition = fields.read_text("partition", found).map(|text| text.value);
    let overwrite = fields.read_flag("overwrite", found).is_some_and(|flag| flag.value);
    let label = fields
        .read_text("label", found)
        .map(|text| text.value)
        // cloud-init's own examples write `label: None`, which is Python's word.
        .filter(|label| !label.is_empty() && label != "None");
    let options = fields.read_texts("extra_opts", found).into_iter().map(|text| text.value).collect();
    if fields.has_broken_field() {
        return None;
    }
    let (Some(format), Some(disk)) = (format, disk) else {
        let diagnostic = Diagnostic::error(
            DiagnosticCode::MissingKey,
            item.at,
            "a file system needs `filesystem` and `device`",
        );
        fields.refuse_field("device", diagnostic, found);
        return None;
    };
    if is_platforms(&disk.value, aliases) {
        let message = format!(
            "`{}` is no disk here: no platform is asked for such a name; nothing is made",
            disk.value
        );
        let diagnostic =
            Diagnostic::warning(DiagnosticCode::NoEffect, disk.at, message).with_help(NAME_A_DISK);
        found.push(diagnostic.with_key(fields.child_path("device")));
        return None;
    }
    let disk = resolve_device(&disk.value, aliases);
    let device = match partition.as_deref() {
        // cloud-init looks for a matching file system with `any`. One of the same kind is kept here whatever
        // is asked.
        None | Some("none" | "any") => disk,
        Some("auto") => partition_of(&disk, "1"),
        Some(number) => partition_of(&disk, number),
    };
    let format = format.value.to_owned();
    Some(Located {
        value: FilesystemStep { device, format, label, uuid: None, overwrite, options },
        at: item.at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_as_the_kernel_does() {
        assert_eq!(partition_of("/dev/vdb", "1"), "/dev/vdb1");
        assert_eq!(partition_of("/dev/nvme0n1", "2"), "/dev/nvme0n1p2");
        assert_eq!(partition_of("/dev/disk/by-id/x", "2"), "/dev/disk/by-id/x-part2");
    }

    #[test]
    fn only_disks_are_looked_for_among_devices() {
        let data = vec![("data".to_owned(), "/dev/sdc".to_owned())];
        for (name, expected) in [
            ("vdb", "/dev/vdb"),
            ("xvda1", "/dev/xvda1"),
            ("nvme1n1", "/dev/nvme1n1"),
            ("data.2", "/dev/sdc2"),
            ("vdb.1", "/dev/vdb1"),
            ("tmpfs", "tmpfs"),
            ("server:/export", "server:/export"),
            ("LABEL=a", "LABEL=a"),
            ("10.0.0.1:/a", "10.0.0.1:/a"),
        ] {
            assert_eq!(resolve_device(name, &data), expected);
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4G"), Some(4 << 30));
        assert_eq!(parse_size("512MiB"), Some(512 << 20));
        assert_eq!(parse_size("1.5G"), Some(3 << 29));
        assert_eq!(parse_size(".5T"), Some(1 << 39));
        assert_eq!(parse_size("2.G"), Some(2 << 30));
        assert_eq!(parse_size("0.123456789012345K"), Some(126));
        for bad in [".", ".G", "1.\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", "1.5.2G", "1,5G", "-1G", "1.xG", "+1G"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!(parse_size("1024"), Some(1024));
        assert_eq!(parse_size("four"), None);
        assert_eq!(parse_size("99999999999T"), None);
    }

    #[test]
    fn nothing_is_mounted_over_the_system() {
        for bad in ["/", "/usr/", "/etc", "/usr/lib", "data", "/a/../etc"] {
            assert!(place_flaw(bad).is_some(), "{bad}");
        }
        assert!(place_flaw("/data").is_some() && place_flaw("/mnt/data").is_some());
        assert_eq!(place_flaw("/mnt"), None);
        assert_eq!(place_flaw("/srv/data"), None);
        assert_eq!(place_flaw("/var/lib/docker"), None);
    }
}
