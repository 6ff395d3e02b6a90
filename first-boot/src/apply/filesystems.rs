//! File systems: what a device holds, and what is made on it.
//!
//! Knows blkid, wipefs and the programs that make file systems. Refuses to write over what is there unless it was
//! asked to. Invariant: after mkfs a device has one signature, so that everybody sees the same on it.
//!
//! Documentation: blkid(8), wipefs(8), mke2fs(8), mkfs.xfs(8), mkfs.btrfs(8), mkfs.fat(8), mkswap(8).

use user_data::plan::step::FilesystemStep;

use super::ApplyContext;
use super::own_disk::refuse_own_disk;
use crate::files::FileChange;
use crate::programs::{ProgramCall, RunError};
use crate::step_error::StepError;

/// Ignition's word for a device that gets no file system.
const NO_FORMAT: &str = "none";
/// blkid's code for a device with more than one signature; see its manual page.
const AMBIVALENT: i32 = 8;
/// Makes a file system, unless there is one.
pub(crate) fn make_filesystem(
    filesystem: &FilesystemStep,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let device = &filesystem.device;
    refuse_own_disk(device, host)?;
    if filesystem.overwrite {
        // mkfs does not remove what other file systems left behind its own first sectors, and with two
        // signatures nothing recognizes the device any more.
        wipe_device(device, host)?;
    } else if is_reused(filesystem, probe_device(device, host)?, host)? {
        return Ok(FileChange::None);
    }
    if filesystem.format == NO_FORMAT {
        return Ok(if filesystem.overwrite { FileChange::Made } else { FileChange::None });
    }
    host.programs.run_program(&mkfs_call(filesystem))?;
    Ok(FileChange::Made)
}

/// Removes every signature of a device that is not in use.
pub(super) fn wipe_device(device: &str, host: &ApplyContext<'_>) -> Result<(), StepError> {
    host.programs.run_program(&ProgramCall::new("wipefs", ["--quiet", "--all", device]))?;
    // Of partition tables it wants to be told twice. That nothing of the disk is in use it has looked at by now;
    // with `--force` it would not.
    if matches!(probe_device(device, host)?, DeviceContent::Table(_)) {
        host.programs.run_program(&ProgramCall::new("wipefs", ["--quiet", "--all", "--force", device]))?;
    }
    Ok(())
}

/// Whether a device that may not be overwritten holds what is wanted; an error if it holds something else.
fn is_reused(
    filesystem: &FilesystemStep,
    content: DeviceContent,
    host: &ApplyContext<'_>,
) -> Result<bool, StepError> {
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
                let found = blkid_tag(device, tag, host)?.unwrap_or_default();
                Ok(comparable_tag(&known, tag, &found) == comparable_tag(&known, tag, wanted))
            };
            // mke2fs(8) and mkswap(8) take `random`, `time` and `clear` in the place of a UUID. There is
            // nothing to compare then.
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
fn comparable_tag(format: &str, tag: &str, text: &str) -> String {
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
fn mkfs_call(filesystem: &FilesystemStep) -> ProgramCall {
    let uuid = filesystem.uuid.as_ref();
    // Each was run by hand: mkfs.xfs takes `-m uuid=`, and mkfs.fat a number without its hyphen. The force is
    // needed since they ask or refuse otherwise, and there is nobody to answer. What is on the device was
    // looked at before.
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
    ProgramCall::new(program, arguments)
}

/// What a device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
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
pub(super) fn probe_device(device: &str, host: &ApplyContext<'_>) -> Result<DeviceContent, StepError> {
    match blkid_tag(device, "TYPE", host) {
        Ok(Some(kind)) => Ok(DeviceContent::Filesystem(kind)),
        Ok(None) => {
            Ok(blkid_tag(device, "PTTYPE", host)?.map_or(DeviceContent::Nothing, DeviceContent::Table))
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

/// What blkid finds on a device; nothing is no error.
fn blkid_tag(device: &str, tag: &str, host: &ApplyContext<'_>) -> Result<Option<String>, StepError> {
    // `-p` reads the device itself. Without it blkid answers from a cache, which may be older than the last
    // mkfs.
    let call = ProgramCall::new("blkid", ["-p", "-o", "value", "-s", tag, device]);
    match host.programs.run_program(&call) {
        Ok(answer) => {
            Ok(Some(String::from_utf8_lossy(&answer).trim().to_owned()).filter(|kind| !kind.is_empty()))
        }
        // blkid(8): 2 means no signature, and also that there is no such device.
        Err(RunError::Failed { code: Some(2), .. }) if host.root.path_of(device).exists() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let filesystem = FilesystemStep {
                device: "/dev/vdb1".to_owned(),
                format: format.to_owned(),
                label: Some("l".to_owned()),
                uuid: Some(uuid.to_owned()),
                overwrite: false,
                options: vec!["-O".to_owned(), "x".to_owned()],
            };

            assert_eq!(mkfs_call(&filesystem).to_string(), call);
        }
    }
}
