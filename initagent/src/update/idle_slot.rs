//! The slot that may be written: the one of this machine's own disk that does not run.
//!
//! Two disks of one machine can be the same to the last byte, so nothing that stands on a disk chooses here. The
//! initramfs noted in this boot which partitions it came from; what it noted is compared with what the kernel says
//! of them now, and the kernel is asked to refuse a device that it uses itself. Refuses to write anything.
//! Invariant: an `IdleSlot` never is the partition under the running root, nor one of another disk.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use image_format::layout::{Partition, PartitionRole};
use nix::sys::stat::{major, minor};

use super::slot_device::{Purpose, SlotDevice};
use crate::boot_record::BootRecord;
use crate::initramfs::device_mapper;

/// Where the kernel lists disks and partitions.
const BLOCK_CLASS: &str = "/sys/class/block";

/// The slot that does not run, claimed for writing.
#[derive(Debug)]
pub(crate) struct IdleSlot {
    /// Its device.
    pub(crate) device: SlotDevice,
}

/// Why no slot may be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenIdleSlotError {
    #[error(
        "{path} is in use: a slot that runs, is mounted, or has a program running from it is never written"
    )]
    Busy { path: PathBuf, source: io::Error },
    #[error("cannot tell what the kernel knows of {path}")]
    Kernel { path: PathBuf, source: io::Error },
    #[error("{path} is not the device that the kernel calls {name}: nothing is written to it")]
    Node { path: PathBuf, name: String },
    #[error("cannot open the idle slot {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{path} is of another disk than the running slot {running}: nothing is written to it")]
    OtherDisk { path: PathBuf, running: PathBuf },
    #[error("{path} is not the partition {label}, but {found}: nothing is written to it")]
    Partition { path: PathBuf, label: &'static str, found: String },
    #[error("the running root lies on {found}, not on {path} as the boot noted: nothing is written")]
    RunningRoot { path: PathBuf, found: String },
}

impl IdleSlot {
    /// Opens the slot that did not start in this boot.
    pub(crate) fn open_idle(record: &BootRecord) -> Result<Self, OpenIdleSlotError> {
        let path = &record.devices.other_root;
        let metadata =
            fs::metadata(path).map_err(|source| OpenIdleSlotError::Open { path: path.clone(), source })?;
        // An image of a slot, as tests and rescue systems have, is nothing that the kernel lists.
        if metadata.file_type().is_block_device() {
            let number = metadata.st_rdev();
            check_place(Path::new(BLOCK_CLASS), record, (major(number), minor(number)))?;
            // After a soft-reboot the device of the root before is still there, and keeps the partition busy. While
            // a program that outlived the switch runs from it, it stays, and so does the slot.
            device_mapper::close_root(!record.slot)
                .map_err(|source| OpenIdleSlotError::Busy { path: path.clone(), source })?;
        }
        let device = SlotDevice::open_slot(path, Purpose::Replace).map_err(|source| {
            let path = path.clone();
            match source.kind() {
                io::ErrorKind::ResourceBusy => OpenIdleSlotError::Busy { path, source },
                _ => OpenIdleSlotError::Open { path, source },
            }
        })?;
        Ok(Self { device })
    }
}

/// Compares what the boot noted with what the kernel lists below `class`.
fn check_place(class: &Path, record: &BootRecord, node: (u64, u64)) -> Result<(), OpenIdleSlotError> {
    let (idle, running) = (&record.devices.other_root, &record.devices.root);
    let found = under_running_root(class, &record.devices.verity)?;
    if found != [device_name(running)] {
        let found = found.join(" and ");
        return Err(OpenIdleSlotError::RunningRoot { path: running.clone(), found });
    }
    let name = device_name(idle);
    let listed = read_attribute(class, idle, "dev")?;
    if listed != format!("{}:{}", node.0, node.1) {
        return Err(OpenIdleSlotError::Node { path: idle.clone(), name });
    }
    // Where the kernel lists a partition below its disk, whatever the disk is called.
    if disk_of(class, idle)? != disk_of(class, running)? {
        return Err(OpenIdleSlotError::OtherDisk { path: idle.clone(), running: running.clone() });
    }
    let wanted = Partition::of_role(PartitionRole::Root(!record.slot));
    let number = read_attribute(class, idle, "partition")?;
    if number != wanted.number.to_string() {
        let found = format!("partition {number}");
        return Err(OpenIdleSlotError::Partition { path: idle.clone(), label: wanted.label, found });
    }
    Ok(())
}

/// The partitions under the device-mapper device of the running root.
fn under_running_root(class: &Path, verity: &Path) -> Result<Vec<String>, OpenIdleSlotError> {
    let folder = class.join(device_name(verity)).join("slaves");
    let unread = |source| OpenIdleSlotError::Kernel { path: folder.clone(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(unread)? {
        names.push(entry.map_err(unread)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn disk_of(class: &Path, device: &Path) -> Result<PathBuf, OpenIdleSlotError> {
    let path = class.join(device_name(device));
    let listed = fs::canonicalize(&path).map_err(|source| OpenIdleSlotError::Kernel { path, source })?;
    Ok(listed.parent().map(Path::to_owned).unwrap_or_default())
}

fn read_attribute(class: &Path, device: &Path, attribute: &str) -> Result<String, OpenIdleSlotError> {
    let path = class.join(device_name(device)).join(attribute);
    let text = fs::read_to_string(&path).map_err(|source| OpenIdleSlotError::Kernel { path, source })?;
    Ok(text.trim().to_owned())
}

fn device_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use image_format::slot::Slot;

    use super::super::tests::record;
    use super::*;

    /// What the kernel lists of a machine with a disk and its clone: same numbers, same names of partitions.
    fn sysfs() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (devices, class) = (folder.path().join("devices"), folder.path().join("class"));
        fs::create_dir_all(&class).unwrap();
        for (disk, major) in [("vda", 254), ("vdb", 255)] {
            for number in 1..=6 {
                let name = format!("{disk}{number}");
                let path = devices.join(disk).join(&name);
                fs::create_dir_all(&path).unwrap();
                fs::write(path.join("dev"), format!("{major}:{number}\n")).unwrap();
                fs::write(path.join("partition"), format!("{number}\n")).unwrap();
                std::os::unix::fs::symlink(&path, class.join(&name)).unwrap();
            }
        }
        fs::create_dir_all(class.join("dm-0/slaves/vda4")).unwrap();
        folder
    }

    fn check(other_root: &str, node: (u64, u64)) -> Result<(), OpenIdleSlotError> {
        let folder = sysfs();
        let mut record = record(Slot::A);
        record.devices.root = "/dev/vda4".into();
        record.devices.verity = "/dev/dm-0".into();
        record.devices.other_root = other_root.into();
        check_place(&folder.path().join("class"), &record, node)
    }

    #[test]
    fn the_other_slot_of_the_running_disk_may_be_written() {
        check("/dev/vda5", (254, 5)).unwrap();
    }

    /// Case 28: a clone has the same identifiers, so it must not count what they are.
    #[test]
    fn the_slot_of_a_cloned_disk_is_refused() {
        let refused = check("/dev/vdb5", (255, 5)).unwrap_err();

        assert!(matches!(refused, OpenIdleSlotError::OtherDisk { .. }), "{refused}");
    }

    #[test]
    fn every_other_partition_is_refused() {
        for number in [1, 2, 3, 4, 6] {
            let refused = check(&format!("/dev/vda{number}"), (254, number)).unwrap_err();

            assert!(matches!(refused, OpenIdleSlotError::Partition { .. }), "{refused}");
        }
    }

    #[test]
    fn a_node_that_leads_elsewhere_is_refused() {
        let refused = check("/dev/vda5", (254, 4)).unwrap_err();

        assert!(matches!(refused, OpenIdleSlotError::Node { .. }), "{refused}");
    }

    #[test]
    fn a_note_of_another_running_root_is_refused() {
        let folder = sysfs();
        let mut record = record(Slot::B);
        record.devices.root = "/dev/vda5".into();
        record.devices.other_root = "/dev/vda4".into();
        record.devices.verity = "/dev/dm-0".into();

        let refused = check_place(&folder.path().join("class"), &record, (254, 4)).unwrap_err();

        assert!(matches!(refused, OpenIdleSlotError::RunningRoot { .. }), "{refused}");
    }
}
