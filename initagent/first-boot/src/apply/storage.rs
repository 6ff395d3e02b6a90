//! Disks, file systems, mounts and swap.
//!
//! Knows the image's tools for them. Refuses to write over what is there unless it was asked to.
//! Invariant: the disk that the machine runs from is never divided or formatted.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use platform::{BOOT_RECORD, RunningDisk};
use user_data::plan::step::{Filesystem, Mount, PartitionSize, Partitioning, SwapSize, Verb};
use user_data::systemd::mount_unit;

use super::Host;
use crate::files::{self, Change, Rights};
use crate::folder::{Folder, Holder};
use crate::programs::{Call, RunError};
use crate::step_error::StepError;
use crate::systemd::Request;

const FSTAB: &str = "/etc/fstab";
/// Ignition's word for a device that gets no file system.
const NO_FORMAT: &str = "none";
/// blkid's code for a device with more than one signature; see its manual page.
const AMBIVALENT: i32 = 8;
/// cloud-init's rule: twice the memory up to 2 GiB, as much up to 8, then less.
const GIB: u64 = 1 << 30;

/// Adds lines to fstab and starts what they mean.
pub(crate) fn add_mounts(mounts: &[Mount], host: &Host<'_>) -> Result<Change, StepError> {
    let is_allowed = |mount: &Mount| match mount.fields[1].as_str() {
        place if place.starts_with('/') => super::files::allow_mount(place, host),
        _ => Ok(()),
    };
    let (mounts, refused): (Vec<&Mount>, Vec<&Mount>) =
        mounts.iter().partition(|mount| is_allowed(mount).is_ok());
    let change = mount_all(&mounts, host)?;
    // The others are mounted all the same.
    refused.first().map_or(Ok(change), |mount| is_allowed(mount).map(|()| change))
}

fn mount_all(mounts: &[&Mount], host: &Host<'_>) -> Result<Change, StepError> {
    let lines: Vec<String> =
        mounts.iter().map(|mount| mount.fields.each_ref().map(|field| escaped(field)).join(" ")).collect();
    let change = add_to_fstab(&lines, host)?;
    let places = mounts.iter().map(|mount| &mount.fields[1]).filter(|place| place.starts_with('/'));
    let units: Vec<String> = places.map(|place| mount_unit(place)).collect();
    let starts = units.iter().map(|unit| Request::Job { unit, verb: Verb::Start });
    let reload = (change == Change::Made).then_some(Request::Reload);
    let requests: Vec<Request<'_>> = reload.into_iter().chain(starts).collect();
    host.manager.ask(&requests).into_iter().collect::<Result<(), _>>()?;
    Ok(change)
}

/// fstab's escapes for what would end a field.
fn escaped(field: &str) -> String {
    field.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('#', "\\043")
}

/// Adds lines; one for the same place is replaced.
fn add_to_fstab(lines: &[String], host: &Host<'_>) -> Result<Change, StepError> {
    let path = host.root.path(FSTAB);
    let known = fs::read_to_string(&path).unwrap_or_default();
    let key = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [device, place, ..] => Some(if place == "none" { device.to_owned() } else { place.to_owned() }),
            _ => None,
        }
    };
    let mut text = String::new();
    for line in
        known.lines().filter(|old| !lines.iter().any(|new| key(new) == key(old) && key(old).is_some()))
    {
        text.extend([line, "\n"]);
    }
    for line in lines {
        text.extend([line.as_str(), "\n"]);
    }
    files::write_durably(&path, text.as_bytes(), Rights::PUBLIC)
}

/// Makes a file system, unless there is one.
pub(crate) fn make_filesystem(filesystem: &Filesystem, host: &Host<'_>) -> Result<Change, StepError> {
    let device = &filesystem.device;
    refuse_own_disk(device, host)?;
    if filesystem.overwrite {
        // mkfs does not remove what other file systems left behind its own first sectors, and with two
        // signatures nothing recognizes the device any more.
        wipe_device(device, host)?;
    } else if is_reused(filesystem, probe_device(device, host)?, host)? {
        return Ok(Change::None);
    }
    if filesystem.format == NO_FORMAT {
        return Ok(if filesystem.overwrite { Change::Made } else { Change::None });
    }
    host.programs.run(&mkfs(filesystem))?;
    Ok(Change::Made)
}

/// Removes every signature of a device that is not in use.
pub(super) fn wipe_device(device: &str, host: &Host<'_>) -> Result<(), StepError> {
    host.programs.run(&Call::new("wipefs", ["--quiet", "--all", device]))?;
    // Of partition tables it wants to be told twice. That nothing of the disk is in use it has looked at by now;
    // with `--force` it would not.
    if matches!(probe_device(device, host)?, DeviceContent::Table(_)) {
        host.programs.run(&Call::new("wipefs", ["--quiet", "--all", "--force", device]))?;
    }
    Ok(())
}

/// Whether a device that may not be overwritten holds what is wanted; an error if it holds something else.
fn is_reused(filesystem: &Filesystem, content: DeviceContent, host: &Host<'_>) -> Result<bool, StepError> {
    let device = &filesystem.device;
    let refusal =
        |what: &str| Err(StepError::Said(format!("{device} holds {what} already, and `overwrite` is off")));
    match content {
        DeviceContent::Nothing => Ok(false),
        DeviceContent::Several => Err(ambiguous_error(device)),
        DeviceContent::Table(kind) => refusal(&format!("a partition table ({kind})")),
        DeviceContent::Filesystem(known) if known != filesystem.format => refusal(&known),
        DeviceContent::Filesystem(known) => {
            let has = |tag, wanted: &Option<String>| -> Result<bool, StepError> {
                let Some(wanted) = wanted else { return Ok(true) };
                let found = signature(device, tag, host)?.unwrap_or_default();
                Ok(comparable(&known, tag, &found) == comparable(&known, tag, wanted))
            };
            let is_word =
                filesystem.uuid.as_ref().is_some_and(|uuid| !uuid.contains(|c: char| c.is_ascii_digit()));
            match (has("LABEL", &filesystem.label)?, is_word || has("UUID", &filesystem.uuid)?) {
                (false, _) => refusal(&format!("{known} with another label")),
                (true, false) => refusal(&format!("{known} with another UUID")),
                (true, true) => Ok(true),
            }
        }
    }
}

/// A label or UUID as blkid and mkfs both could write it.
fn comparable(format: &str, tag: &str, text: &str) -> String {
    match (format, tag) {
        // blkid puts a hyphen into the 32 bits that FAT has for a UUID.
        ("vfat", "UUID") => text.replace('-', "").to_ascii_lowercase(),
        (_, "UUID") => text.to_ascii_lowercase(),
        // FAT keeps labels in capitals and fills them up with blanks.
        ("vfat", _) => text.trim_end().to_ascii_uppercase(),
        _ => text.to_owned(),
    }
}

/// The program that makes a file system. Each takes its label and UUID in its own way.
fn mkfs(filesystem: &Filesystem) -> Call {
    let uuid = filesystem.uuid.as_ref();
    let (program, label, uuid, force): (_, _, _, &[&str]) = match filesystem.format.as_str() {
        "vfat" => ("mkfs.vfat", "-n", uuid.map(|uuid| ["-i".to_owned(), uuid.replace('-', "")]), &["-I"]),
        "swap" => ("mkswap", "-L", uuid.map(|uuid| ["-U".to_owned(), uuid.clone()]), &["-f"]),
        "xfs" => ("mkfs.xfs", "-L", uuid.map(|uuid| ["-m".to_owned(), format!("uuid={uuid}")]), &["-f"]),
        "btrfs" => ("mkfs.btrfs", "-L", uuid.map(|uuid| ["-U".to_owned(), uuid.clone()]), &["-f"]),
        "ext3" => ("mkfs.ext3", "-L", uuid.map(|uuid| ["-U".to_owned(), uuid.clone()]), &["-F", "-q"]),
        "ext2" => ("mkfs.ext2", "-L", uuid.map(|uuid| ["-U".to_owned(), uuid.clone()]), &["-F", "-q"]),
        _ => ("mkfs.ext4", "-L", uuid.map(|uuid| ["-U".to_owned(), uuid.clone()]), &["-F", "-q"]),
    };
    let mut arguments: Vec<String> = force.iter().map(|option| (*option).to_owned()).collect();
    if let Some(text) = &filesystem.label {
        arguments.extend([label.to_owned(), text.clone()]);
    }
    arguments.extend(uuid.into_iter().flatten());
    arguments.extend(filesystem.options.iter().cloned());
    arguments.push(filesystem.device.clone());
    Call::new(program, arguments)
}

/// What a device holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum DeviceContent {
    /// A file system, or another thing that fills the device.
    Filesystem(String),
    /// Nothing that blkid knows.
    Nothing,
    /// More than one of them, so that nobody can say which one counts.
    Several,
    /// A partition table.
    Table(String),
}

/// What blkid finds on a device.
pub(super) fn probe_device(device: &str, host: &Host<'_>) -> Result<DeviceContent, StepError> {
    match signature(device, "TYPE", host) {
        Ok(Some(kind)) => Ok(DeviceContent::Filesystem(kind)),
        Ok(None) => {
            Ok(signature(device, "PTTYPE", host)?.map_or(DeviceContent::Nothing, DeviceContent::Table))
        }
        Err(StepError::Run(RunError::Failed { code: Some(AMBIVALENT), .. })) => Ok(DeviceContent::Several),
        Err(error) => Err(error),
    }
}

/// Why a device with several signatures is left alone.
pub(super) fn ambiguous_error(device: &str) -> StepError {
    StepError::Said(format!(
        "{device} holds signatures of more than one file system, and `overwrite` is off; wipe it to have one of them"
    ))
}

/// Divides a disk, unless it is divided.
pub(crate) fn partition(partitioning: &Partitioning, host: &Host<'_>) -> Result<Change, StepError> {
    let device = &partitioning.device;
    refuse_own_disk(device, host)?;
    if !partitioning.overwrite {
        if signature(device, "PTTYPE", host)?.is_some() {
            return Ok(Change::None);
        }
        if let Some(known) = signature(device, "TYPE", host)? {
            return Err(StepError::Said(format!("{device} holds {known} already, and `overwrite` is off")));
        }
    }
    let sectors = sectors(device, host)?;
    let mut table = "label: gpt\n".to_owned();
    for partition in &partitioning.partitions {
        let size = match partition.size {
            PartitionSize::MiB(size) => format!("size={size}MiB, "),
            PartitionSize::Percent(percent) => format!("size={}, ", sectors * u64::from(percent) / 100),
            PartitionSize::Rest => String::new(),
        };
        let name = partition.label.as_ref().map(|label| format!(", name=\"{label}\"")).unwrap_or_default();
        let _ = writeln!(table, "{size}type={}{name}", partition.type_guid);
    }
    host.programs.run(&Call::new("sfdisk", ["--quiet", "--wipe", "always", device]).input(table))?;
    host.programs.run(&Call::new("udevadm", ["settle", "--timeout=10"]))?;
    Ok(Change::Made)
}

/// What blkid finds on a device; nothing is no error.
fn signature(device: &str, tag: &str, host: &Host<'_>) -> Result<Option<String>, StepError> {
    let call = Call::new("blkid", ["-p", "-o", "value", "-s", tag, device]);
    match host.programs.run(&call) {
        Ok(answer) => {
            Ok(Some(String::from_utf8_lossy(&answer).trim().to_owned()).filter(|kind| !kind.is_empty()))
        }
        Err(RunError::Failed { code: Some(2), .. }) if host.root.path(device).exists() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The disk's size in sectors of 512 bytes, as the kernel says it.
pub(super) fn sectors(device: &str, host: &Host<'_>) -> Result<u64, StepError> {
    let path = host.root.path(&format!("/sys/class/block/{}/size", kernel_name(device, host)));
    let text = fs::read_to_string(&path).map_err(|source| StepError::Read { path: path.clone(), source })?;
    text.trim().parse().map_err(|_| StepError::Said(format!("the size of {device} is not known")))
}

/// The size of the disk's own sectors; 512 bytes where the kernel does not say it.
pub(super) fn sector_size(device: &str, host: &Host<'_>) -> u64 {
    let name = kernel_name(device, host);
    let path = host.root.path(&format!("/sys/class/block/{name}/queue/logical_block_size"));
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(512)
}

fn kernel_name(device: &str, host: &Host<'_>) -> String {
    let real = host.root.real_path(&host.root.path(device)).unwrap_or_else(|| device.to_owned());
    Path::new(&real).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The disk with the slots and the state is not for users' partitions.
pub(super) fn refuse_own_disk(device: &str, host: &Host<'_>) -> Result<(), StepError> {
    let real = |path: &str| host.root.real_path(&host.root.path(path));
    let Some(wanted) = real(device) else {
        return Err(StepError::Said(format!("there is no device {device}")));
    };
    let running = RunningDisk::read(&host.root.path(BOOT_RECORD));
    if running.is_some_and(|running| running.holds(&wanted)) {
        return Err(StepError::Said(format!("{device} is the disk that this machine runs from")));
    }
    Ok(())
}

/// Makes a swap file, uses it, and has it used at each boot.
pub(crate) fn make_swap(path: &str, size: SwapSize, host: &Host<'_>) -> Result<Change, StepError> {
    let place = host.root.path(path);
    let bytes = swap_bytes(size, memory(host)) / 4096 * 4096;
    if bytes == 0 {
        return Ok(Change::None);
    }
    let known = fs::metadata(&place).is_ok_and(|meta| meta.len() == bytes);
    if !known {
        files::make_parents(&place, Rights::PRIVATE)?;
        refuse_users_folder(&place)?;
        allocate(&place, bytes)?;
        host.programs.run(&Call::new("mkswap", [path]))?;
        host.programs.run(&Call::new("swapon", [path]))?;
    }
    let change = add_to_fstab(&[format!("{} none swap sw,nofail 0 0", escaped(path))], host)?;
    Ok(if known { change } else { Change::Made })
}

/// A swap file is opened by its name again and again, so nobody but root may change what that stands for.
fn refuse_users_folder(path: &Path) -> Result<(), StepError> {
    let parent = path.parent().unwrap_or(path);
    let folder =
        Folder::open(parent).map_err(|source| StepError::Read { path: parent.to_owned(), source })?;
    if folder.holder() == Holder::Root {
        return Ok(());
    }
    let reason = "is in a directory that others than root may change; put the swap file elsewhere".to_owned();
    Err(StepError::Path { path: path.display().to_string(), reason })
}

fn allocate(path: &Path, bytes: u64) -> Result<(), StepError> {
    let act = || -> std::io::Result<()> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, length)?;
        file.sync_all()
    };
    act().map_err(|source| {
        // Half a swap file only takes room.
        let _ = fs::remove_file(path);
        StepError::Write { path: path.to_owned(), source }
    })
}

fn memory(host: &Host<'_>) -> u64 {
    let text = fs::read_to_string(host.root.path("/proc/meminfo")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

fn swap_bytes(size: SwapSize, memory: u64) -> u64 {
    match size {
        SwapSize::Bytes(bytes) => bytes,
        SwapSize::Automatic { most } => {
            let fitting = match memory {
                0..=2_147_483_648 => memory * 2,
                memory if memory <= 8 * GIB => memory,
                memory if memory <= 16 * GIB => 8 * GIB,
                _ => 4 * GIB,
            };
            fitting.min(most.unwrap_or(u64::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_fits_the_memory_and_the_bound() {
        assert_eq!(swap_bytes(SwapSize::Automatic { most: None }, GIB), 2 * GIB);
        assert_eq!(swap_bytes(SwapSize::Automatic { most: Some(GIB) }, 4 * GIB), GIB);
        assert_eq!(swap_bytes(SwapSize::Bytes(5), GIB), 5);
    }

    #[test]
    fn each_program_gets_label_and_uuid_as_it_wants_them() {
        for (format, uuid, call) in [
            ("btrfs", "0cc1", "mkfs.btrfs -f -L l -U 0cc1 -O x /dev/vdb1"),
            ("ext3", "0cc1", "mkfs.ext3 -F -q -L l -U 0cc1 -O x /dev/vdb1"),
            ("ext4", "0cc1", "mkfs.ext4 -F -q -L l -U 0cc1 -O x /dev/vdb1"),
            ("swap", "0cc1", "mkswap -f -L l -U 0cc1 -O x /dev/vdb1"),
            ("vfat", "1234-ABCD", "mkfs.vfat -I -n l -i 1234ABCD -O x /dev/vdb1"),
            ("xfs", "0cc1", "mkfs.xfs -f -L l -m uuid=0cc1 -O x /dev/vdb1"),
        ] {
            let filesystem = Filesystem {
                device: "/dev/vdb1".to_owned(),
                format: format.to_owned(),
                label: Some("l".to_owned()),
                uuid: Some(uuid.to_owned()),
                overwrite: false,
                options: vec!["-O".to_owned(), "x".to_owned()],
            };

            assert_eq!(mkfs(&filesystem).to_string(), call);
        }
    }

    #[test]
    fn blanks_in_a_field_of_fstab_are_escaped() {
        assert_eq!(escaped("/my disk#1"), "/my\\040disk\\0431");
    }
}
