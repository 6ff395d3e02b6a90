//! Disks, file systems, mounts and swap.
//!
//! Knows the image's tools for them. Refuses to write over what is there unless it was asked to.
//! Invariant: the disk that the machine runs from is never divided or formatted.
//!
//! Documentation: fstab(5), systemd-fstab-generator(8), sfdisk(8), swapon(8), mkswap(8).

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use user_data::plan::step::{MountStep, PartitionSize, PartitioningStep, SwapSize, UnitVerb};
use user_data::systemd::mount_unit;

use super::ApplyContext;
use super::filesystems::{self, DeviceContent};
use super::own_disk::refuse_own_disk;
use crate::files::{self, FileChange, FileRights};
use crate::folder::{Folder, Holder};
use crate::programs::ProgramCall;
use crate::step_error::StepError;
use crate::systemd::UnitRequest;

const FSTAB: &str = "/etc/fstab";
/// cloud-init's rule: twice the memory up to 2 GiB, as much up to 8, then less.
const GIB: u64 = 1 << 30;

/// Adds lines to fstab and starts what they mean.
pub(crate) fn add_mounts(mounts: &[MountStep], host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let is_allowed = |mount: &MountStep| match mount.fields[1].as_str() {
        place if place.starts_with('/') => super::files::allow_mount(place, host),
        _ => Ok(()),
    };
    let (mounts, refused): (Vec<&MountStep>, Vec<&MountStep>) =
        mounts.iter().partition(|mount| is_allowed(mount).is_ok());
    let change = mount_all(&mounts, host)?;
    // The others are mounted all the same.
    refused.first().map_or(Ok(change), |mount| is_allowed(mount).map(|()| change))
}

fn mount_all(mounts: &[&MountStep], host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let lines: Vec<String> = mounts
        .iter()
        .map(|mount| mount.fields.each_ref().map(|field| escape_field(field)).join(" "))
        .collect();
    let change = add_to_fstab(&lines, host)?;
    let places = mounts.iter().map(|mount| &mount.fields[1]).filter(|place| place.starts_with('/'));
    let units: Vec<String> = places.map(|place| mount_unit(place)).collect();
    let starts = units.iter().map(|unit| UnitRequest::Job { unit, verb: UnitVerb::Start });
    // systemd-fstab-generator(8) makes units of the lines, and generators run at a reload only.
    let reload = (change == FileChange::Made).then_some(UnitRequest::Reload);
    let requests: Vec<UnitRequest<'_>> = reload.into_iter().chain(starts).collect();
    host.manager.send_requests(&requests).into_iter().collect::<Result<(), _>>()?;
    Ok(change)
}

/// fstab's escapes for what would end a field.
fn escape_field(field: &str) -> String {
    // Octal, as fstab(5) has it for blanks. The backslash first, else it would escape what the others made.
    field.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('#', "\\043")
}

/// Adds lines; one for the same place is replaced.
fn add_to_fstab(lines: &[String], host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let path = host.root.path_of(FSTAB);
    let known = fs::read_to_string(&path).unwrap_or_default();
    let key = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            // Swap has no place, so its device names it.
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
    files::write_durably(&path, text.as_bytes(), FileRights::PUBLIC)
}

/// Divides a disk, unless it is divided.
pub(crate) fn partition_disk(
    partitioning: &PartitioningStep,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let device = &partitioning.device;
    refuse_own_disk(device, host)?;
    if !partitioning.overwrite {
        match filesystems::probe_device(device, host)? {
            DeviceContent::Nothing => {}
            DeviceContent::Table(_) => return Ok(FileChange::None),
            DeviceContent::Several => return Err(filesystems::ambiguous_error(device)),
            DeviceContent::Filesystem(known) => {
                return Err(StepError::Said(format!(
                    "{device} holds {known} already, and `overwrite` is off"
                )));
            }
        }
    }
    let sectors = disk_sectors(device, host)?;
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
    host.programs.run_program(
        // What was on the disk begins anew at the same sectors, so old file systems would be found again.
        &ProgramCall::new("sfdisk", ["--quiet", "--wipe", "always", device]).with_input(table),
    )?;
    // The next step may name a partition by its label, whose link udev makes afterwards. udevadm's own 120
    // seconds would hold up the boot.
    host.programs.run_program(&ProgramCall::new("udevadm", ["settle", "--timeout=10"]))?;
    Ok(FileChange::Made)
}

/// The disk's size in sectors of 512 bytes, as the kernel says it.
// The kernel counts so whatever the disk's own sectors are: Documentation/ABI/stable/sysfs-block.
pub(super) fn disk_sectors(device: &str, host: &ApplyContext<'_>) -> Result<u64, StepError> {
    let path = host.root.path_of(&format!("/sys/class/block/{}/size", kernel_name(device, host)));
    let text = fs::read_to_string(&path).map_err(|source| StepError::Read { path: path.clone(), source })?;
    text.trim().parse().map_err(|_| StepError::Said(format!("the size of {device} is not known")))
}

/// The size of the disk's own sectors; 512 bytes where the kernel does not say it.
pub(super) fn sector_size(device: &str, host: &ApplyContext<'_>) -> u64 {
    let name = kernel_name(device, host);
    let path = host.root.path_of(&format!("/sys/class/block/{name}/queue/logical_block_size"));
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(512)
}

fn kernel_name(device: &str, host: &ApplyContext<'_>) -> String {
    let real = host.root.real_path(&host.root.path_of(device)).unwrap_or_else(|| device.to_owned());
    Path::new(&real).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Makes a swap file, uses it, and has it used at each boot.
pub(crate) fn make_swap(
    path: &str,
    size: SwapSize,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let place = host.root.path_of(path);
    // mkswap(8) counts in pages.
    let bytes = swap_bytes(size, memory_bytes(host)) / 4096 * 4096;
    if bytes == 0 {
        return Ok(FileChange::None);
    }
    let known = fs::metadata(&place).is_ok_and(|meta| meta.len() == bytes);
    if !known {
        files::make_parents(&place, FileRights::PRIVATE)?;
        refuse_users_folder(&place)?;
        allocate_file(&place, bytes)?;
        host.programs.run_program(&ProgramCall::new("mkswap", [path]))?;
        host.programs.run_program(&ProgramCall::new("swapon", [path]))?;
    }
    let change = add_to_fstab(&[format!("{} none swap sw,nofail 0 0", escape_field(path))], host)?;
    Ok(if known { change } else { FileChange::Made })
}

/// A swap file is opened by its name again and again, so nobody but root may change what that stands for.
fn refuse_users_folder(path: &Path) -> Result<(), StepError> {
    let parent = path.parent().unwrap_or(path);
    let folder =
        Folder::open_path(parent).map_err(|source| StepError::Read { path: parent.to_owned(), source })?;
    if folder.holder() == Holder::Root {
        return Ok(());
    }
    let reason = "is in a directory that others than root may change; put the swap file elsewhere".to_owned();
    Err(StepError::Path { path: path.display().to_string(), reason })
}

fn allocate_file(path: &Path, bytes: u64) -> Result<(), StepError> {
    let act = || -> std::io::Result<()> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        // swapon(8) takes no file with holes, and gigabytes of zeros would take as long as the disk takes to
        // write them.
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, length)?;
        file.sync_all()
    };
    act().map_err(|source| {
        // Half a swap file only takes room.
        let _ = fs::remove_file(path);
        StepError::Write { path: path.to_owned(), source }
    })
}

fn memory_bytes(host: &ApplyContext<'_>) -> u64 {
    let text = fs::read_to_string(host.root.path_of("/proc/meminfo")).unwrap_or_default();
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
    fn blanks_in_a_field_of_fstab_are_escaped() {
        assert_eq!(escape_field("/my disk#1"), "/my\\040disk\\0431");
    }
}
