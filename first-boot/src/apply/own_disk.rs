//! The disk that this machine runs from, which no step may format or part.
//!
//! Knows it by the record that the initramfs left, not by labels: a clone has the same ones.

use platform::{BOOT_RECORD, RunningDisk};

use super::ApplyContext;
use crate::step_error::StepError;

/// The disk with the slots and the state is not for users' partitions.
pub(super) fn refuse_own_disk(device: &str, host: &ApplyContext<'_>) -> Result<(), StepError> {
    let real = |path: &str| host.root.real_path(&host.root.path_of(path));
    let Some(wanted) = real(device) else {
        return Err(StepError::Said(format!("there is no device {device}")));
    };
    // By what the initramfs recorded. Labels were tried: with a copy of the disk attached they lead to either
    // of the two.
    let running = RunningDisk::read(&host.root.path_of(BOOT_RECORD));
    if running.is_some_and(|running| running.holds_device(&wanted)) {
        return Err(StepError::Said(format!("{device} is the disk that this machine runs from")));
    }
    Ok(())
}
