//! Disks, file systems, mounts and swap.
//!
//! Knows cloud-init's notations. Refuses a mount over the system itself. Invariant: no mount can keep
//! the machine from booting: each gets `nofail`.
//!
//! Documentation: cloud-init's modules "Disk Setup" and "Mounts" in
//! <https://docs.cloud-init.io/en/latest/reference/modules.html>, fstab(5), sfdisk(8), and the Discoverable
//! Partitions Specification
//! <https://uapi-group.org/specifications/specs/discoverable_partitions_specification/>.

mod disks;
pub(crate) mod mounts;
mod swap;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::{Node, Value};

use super::fields::{FieldKey, MappingFields, no_effect, supported_key, text_of, wrong_type};
use crate::plan::step::{FilesystemStep, MountStep, PartitioningStep, SwapSize};
use disks::read_disks;
use mounts::read_mounts;
use swap::read_swap;

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

/// Storage of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
}
