//! The root that a soft-reboot switches to: put together on a running machine by the steps of the initramfs.
//!
//! systemd takes what it finds at /run/nextroot (systemd-soft-reboot.service(8)), after it has ended everything else.
//! Knows that /run outlives the switch, and so does the note of what will run. Refuses to know why another root is
//! wanted. Invariant: nothing runs from a slot whose manifest no trusted key signed, or under a command line that it
//! does not name, by this way as by a cold boot.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use image_format::command_line::GivenLine;
use image_format::slot::Slot;
use nix::mount::{MntFlags, umount2};

use super::command_line::{self, ParseParametersError};
use super::device_mapper::{self, OpenVerityError};
use super::handover::{self, HandoverError};
use super::mounts::{self, MountError};
use super::state::{self, OpenStateError};
use super::verified_root::{self, ReadRootError};
use crate::boot_record::{BootDevices, BootRecord};
use crate::state::{StateCondition, StateRecord};

/// Where systemd looks for it.
const NEXT_ROOT: &str = "/run/nextroot";
/// What will run after the switch. The record of the boot is about what runs, and systemd may still fail to switch.
const NEXT_RECORD: &str = "/run/catamaran/next-boot.json";
/// The keys that the running release trusts. Those of the initramfs are gone; a soft-reboot is offered only to a
/// release with the same initramfs, in which they are the same.
const KEYS: &str = "/usr/lib/catamaran/release-keys";

/// Why there is no root to switch to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NextRootError {
    #[error("cannot close the root that slot {slot} had before; does a program still use it?")]
    Close { slot: Slot, source: io::Error },
    #[error("cannot read the kernel command line")]
    CommandLine(#[from] ParseParametersError),
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error("cannot mount the verified root")]
    Mount(#[from] MountError),
    #[error("slot {slot} cannot be trusted")]
    Read { slot: Slot, source: ReadRootError },
    #[error("the machine's own data on STATE cannot be used")]
    State(#[from] OpenStateError),
    #[error("cannot open the verified root")]
    Verity(#[from] OpenVerityError),
}

/// Puts the root of a slot together at /run/nextroot, and notes what will run.
pub(crate) fn assemble_next_root(running: &BootRecord, slot: Slot) -> Result<(), NextRootError> {
    discard_next_root();
    let device = device_of(running, slot);
    let line = command_line::read()?;
    let manifest = verified_root::read(device, Path::new(KEYS), slot, &GivenLine::parse(&line))
        .map_err(|source| NextRootError::Read { slot, source })?;
    let verity = if slot == running.slot {
        running.devices.verity.clone()
    } else {
        device_mapper::close_root(slot).map_err(|source| NextRootError::Close { slot, source })?;
        device_mapper::open_root(device, slot, &manifest)?
    };
    let root = Path::new(NEXT_ROOT);
    mounts::mount_root(&verity, root)?;
    state::mount_again(&running.devices.state)?;
    // The overlay of /etc has the upper folder of the one that is still mounted. The kernel warns of it: changes by
    // both would be undefined. At this point nothing runs any more that changes /etc, and the old one goes with its
    // root. To unmount it first would leave a machine whose switch fails without what is its own in /etc.
    state::lay_folders(root)?;
    let record = super::record_release(slot, &manifest, next_devices(running, slot, verity));
    // Strings, paths and flags only: there is nothing that JSON could not hold.
    let text = serde_json::to_string_pretty(&record).unwrap_or_default();
    Ok(handover::write(Path::new(NEXT_RECORD), &text)?)
}

/// After a soft-reboot: what was noted of the next root is the record of this boot. Says whether there was one.
pub(crate) fn adopt_next_root() -> Result<bool, NextRootError> {
    let Ok(record) = BootRecord::read(Path::new(NEXT_RECORD)) else { return Ok(false) };
    let runs = is_root_on(Path::new("/"), &record.devices.verity).unwrap_or(false);
    if runs {
        // STATE is what it was: the initramfs found it so, and only a restart of the machine asks again.
        let device = record.devices.state.clone();
        let found = StateRecord::read(Path::new(crate::state::RECORD));
        let unasked = || StateRecord { device, condition: StateCondition::Healthy, reason: None };
        handover::leave_records(&record, &found.unwrap_or_else(unasked))?;
        state::mount_again(&record.devices.state)?;
    }
    // What was noted for a switch that did not come to be is not for the next one.
    let _ = fs::remove_file(NEXT_RECORD);
    Ok(runs)
}

/// Takes away what an earlier attempt left there.
fn discard_next_root() {
    let _ = fs::remove_file(NEXT_RECORD);
    // Each mount lies on the one before; the folder may be none, which ends it, too.
    while umount2(NEXT_ROOT, MntFlags::MNT_DETACH).is_ok() {}
}

fn device_of(running: &BootRecord, slot: Slot) -> &Path {
    if slot == running.slot { &running.devices.root } else { &running.devices.other_root }
}

fn next_devices(running: &BootRecord, slot: Slot, verity: PathBuf) -> BootDevices {
    let devices = running.devices.clone();
    if slot == running.slot {
        return BootDevices { verity, ..devices };
    }
    BootDevices { root: devices.other_root, other_root: devices.root, verity, ..devices }
}

/// Whether a folder lies on this device.
fn is_root_on(folder: &Path, device: &Path) -> io::Result<bool> {
    Ok(fs::metadata(folder)?.dev() == fs::metadata(device)?.rdev())
}

#[cfg(test)]
mod tests {
    use image_format::digest::Sha256;
    use image_format::version::Version;

    use super::*;

    fn record(slot: Slot) -> BootRecord {
        BootRecord {
            slot,
            name: "cloud".into(),
            version: Version::new(1, 0, 0),
            channel: "stable".into(),
            root_hash: Sha256::digest_of(b""),
            development: false,
            built: 1,
            security_epoch: 0,
            below: None,
            devices: BootDevices {
                disk: "/dev/vda".into(),
                esp: "/dev/vda2".into(),
                abstate: "/dev/vda3".into(),
                root: "/dev/vda4".into(),
                other_root: "/dev/vda5".into(),
                state: "/dev/vda6".into(),
                verity: "/dev/dm-0".into(),
            },
        }
    }

    #[test]
    fn the_slots_change_places_and_nothing_else_does() {
        let running = record(Slot::A);

        let next = next_devices(&running, Slot::B, "/dev/dm-1".into());

        assert_eq!((next.root.to_str(), next.other_root.to_str()), (Some("/dev/vda5"), Some("/dev/vda4")));
        assert_eq!(next.verity, Path::new("/dev/dm-1"));
        assert_eq!((&next.abstate, &next.state), (&running.devices.abstate, &running.devices.state));
        assert_eq!(device_of(&running, Slot::B), Path::new("/dev/vda5"));
    }

    #[test]
    fn a_soft_reboot_of_the_same_slot_keeps_its_devices() {
        let running = record(Slot::A);

        assert_eq!(next_devices(&running, Slot::A, "/dev/dm-0".into()), running.devices);
        assert_eq!(device_of(&running, Slot::A), Path::new("/dev/vda4"));
    }
}
