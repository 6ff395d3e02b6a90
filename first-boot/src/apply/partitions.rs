//! Partition tables, edited entry by entry.
//!
//! Knows Ignition's table of what is done with an entry that is there, that must not be there, or that
//! differs: <https://coreos.github.io/ignition/operator-notes/#partition-reuse-semantics>. Refuses to move what is
//! kept. Invariant: a new table is worked out whole before the first sector is written, and then written at once.
//!
//! Documentation: sfdisk(8), and UEFI's specification, section 5.3, for the table itself.

mod layout;
mod table;

use user_data::plan::step::Partitions;

use super::ApplyContext;
use super::filesystems::{self, DeviceContent};
use super::{own_disk, storage};
use crate::files::FileChange;
use crate::programs::ProgramCall;
use crate::step_error::StepError;
use layout::Flaw;
use table::Table;

/// Brings a disk's table to what is asked for.
pub(crate) fn edit_table(wanted: &Partitions, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let device = &wanted.device;
    own_disk::refuse_own_disk(device, host)?;
    if wanted.wipe_table {
        return write_anew(wanted, host);
    }
    let before = match filesystems::probe_device(device, host)? {
        DeviceContent::Table(kind) if kind == "gpt" => read(device, host)?,
        DeviceContent::Table(kind) => {
            let reason =
                format!("has a partition table of the kind {kind}; set `wipeTable` to have a GPT instead");
            return Err(StepError::Path { path: device.clone(), reason });
        }
        DeviceContent::Nothing if wanted.wanted.iter().all(|one| one.rule.is_removal()) => {
            return Ok(FileChange::None);
        }
        DeviceContent::Nothing => {
            Table::new(storage::disk_sectors(device, host)?, storage::sector_size(device, host))
        }
        DeviceContent::Several => return Err(filesystems::ambiguous_error(device)),
        DeviceContent::Filesystem(kind) => {
            let reason = format!("holds {kind} already; set `wipeTable` to have a partition table instead");
            return Err(StepError::Path { path: device.clone(), reason });
        }
    };
    let after = layout::edit_table(&before, wanted).map_err(|flaw| refusal_error(device, &flaw))?;
    if after == before {
        return Ok(FileChange::None);
    }
    // What other tools left in the first sectors of a kept table is not ours to remove.
    let wipe = if before.is_new() { "always" } else { "never" };
    write(device, &after, wipe, host)
}

/// Forgets the table that is there.
fn write_anew(wanted: &Partitions, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let device = &wanted.device;
    let new = Table::new(storage::disk_sectors(device, host)?, storage::sector_size(device, host));
    let after = layout::edit_table(&new, wanted).map_err(|flaw| refusal_error(device, &flaw))?;
    if after.entries.is_empty() {
        // An empty table would be in the way of a file system on the whole disk.
        filesystems::wipe_device(device, host)?;
        return Ok(FileChange::Made);
    }
    write(device, &after, "always", host)
}

fn read(device: &str, host: &ApplyContext<'_>) -> Result<Table, StepError> {
    let printed = host.programs.run_program(&ProgramCall::new("sfdisk", ["--json", device]))?;
    let unread =
        || StepError::Said(format!("cannot read the partition table of {device}: sfdisk prints no table"));
    Table::parse(&printed).ok_or_else(unread)
}

fn write(device: &str, table: &Table, wipe: &str, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    // Said each time: sfdisk(8) wipes by itself only when somebody sits at its terminal.
    let call = ProgramCall::new("sfdisk", ["--quiet", "--wipe", wipe, device]);
    host.programs.run_program(&call.with_input(table.sfdisk_script()))?;
    host.programs.run_program(&ProgramCall::new("udevadm", ["settle", "--timeout=10"]))?;
    Ok(FileChange::Made)
}

fn refusal_error(device: &str, flaw: &Flaw) -> StepError {
    StepError::Path { path: device.to_owned(), reason: flaw.to_string() }
}
