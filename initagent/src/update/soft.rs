//! Whether a release can be tried without a restart of the kernel, and the way there and back.
//!
//! Deciding is pure. A soft-reboot keeps the kernel and everything the boot loader chose, so it is no trial of a release
//! that brings another kernel, initramfs or command line. Refuses to put the next root together
//! ([`crate::initramfs::next_root`] does). Invariant: while a slot is on a soft trial, the slot table starts the other
//! one, so that a panic, a hang or a mains cut ends on what has proven itself from the disk.

use std::fs;
use std::path::Path;
use std::time::Duration;

use first_boot::{ProgramCall, ProgramRunner};
use image_format::manifest::Manifest;
use image_format::slot::{Slot, SlotTable, Tries};

use super::journal::Journal;
use super::machine::UpdateMachine;
use super::phase::{BootEnd, Phase, TrialKind};
use super::settings::SoftTrials;
use crate::boot_record::BootRecord;
use crate::initramfs::next_root::{self, NextRootError};
use error_text::error_chain;

/// What systemd reaches on the way to another root under the same kernel.
const SOFT_REBOOT: &str = "soft-reboot.target";
/// Restarts a machine whose soft trial came to no verdict. It survives the soft-reboot.
const GUARD: &str = "catamaran-update-guard.service";
/// There as long as an attempt to switch has not ended in the new root; it may say why.
const ATTEMPT: &str = "soft-attempt";
/// The trial has a deadline of its own in the new root. The guard comes after it, and only where nothing else did.
pub(crate) const GUARD_GRACE: Duration = Duration::from_mins(2);

/// How a release is tried that the idle slot holds.
pub(crate) fn choose_trial(
    setting: SoftTrials,
    running: Option<&Manifest>,
    release: &Manifest,
    standing: Option<(Slot, SlotTable)>,
) -> TrialKind {
    // Without a slot that has started from the disk and goes first, an accident would not end on it.
    let ends_well = standing.is_some_and(|(slot, table)| {
        let state = table.slot_state(slot);
        table.priority == slot && state.good && state.tries != Tries::NONE
    });
    let same_kernel = running.is_some_and(|running| {
        (&running.kernel, &running.initrd, &running.command_line)
            == (&release.kernel, &release.initrd, &release.command_line)
    });
    if setting == SoftTrials::Auto && ends_well && same_kernel { TrialKind::Soft } else { TrialKind::Restart }
}

/// How the machine is about to end, by what systemd has been told to do.
pub(crate) fn boot_end(programs: &dyn ProgramRunner) -> BootEnd {
    let call = ProgramCall::new("systemctl", ["list-jobs", "--plain", "--no-legend", "--full"]);
    let jobs = programs.run_program(&call).unwrap_or_default();
    let jobs = String::from_utf8_lossy(&jobs);
    // What cannot be told is taken for a restart: a slot that is armed for nothing is tried at the next boot.
    let is_soft = jobs.lines().any(|job| job.split_whitespace().nth(1) == Some(SOFT_REBOOT));
    if is_soft { BootEnd::SoftReboot } else { BootEnd::Restart }
}

/// Puts together what systemd switches to: the slot that waits for its soft trial, else the one that runs. Without
/// it, a soft-reboot would leave the machine without /home and whatever else the initramfs mounts.
pub(crate) fn prepare_switch(machine: &UpdateMachine, phase: &Phase) -> Result<String, NextRootError> {
    let running = &machine.record;
    let waiting = match phase {
        Phase::Armed(armed) if armed.kind == TrialKind::Soft => {
            Some(armed.target.slot).filter(|slot| *slot != running.slot)
        }
        _ => None,
    };
    if let Some(slot) = waiting {
        // Before the attempt, since it may end in a root that finds nothing else.
        let _ = machine.write_run_file(ATTEMPT, "systemd did not switch to its root\n");
        match next_root::assemble_next_root(running, slot) {
            Ok(()) => return Ok(format!("the root of slot {slot} comes next")),
            Err(error) => drop(machine.write_run_file(ATTEMPT, &error_chain(&error))),
        }
    }
    next_root::assemble_next_root(running, running.slot)?;
    Ok(format!("the root of slot {} comes again", running.slot))
}

/// Why an attempt to switch did not end in the new root, if there was one. Asked once.
pub(crate) fn failed_attempt(machine: &UpdateMachine) -> Option<String> {
    let path = machine.run_file(ATTEMPT);
    let said = fs::read_to_string(&path).ok()?;
    let _ = fs::remove_file(path);
    Some(said.trim().to_owned())
}

/// Ends the watch: there is a verdict.
pub(crate) fn stop_guard(programs: &dyn ProgramRunner) {
    // It finds no trial when its time comes, so it does no harm if it goes on.
    let _ = programs.run_program(&ProgramCall::new("systemctl", ["stop", "--no-block", GUARD]));
}

/// Whether a slot is on a soft trial, or about to be.
pub(crate) fn is_soft_trial(root: &Path) -> bool {
    // A journal that cannot be read says that nothing is as it should be.
    Journal::read(root).map_or(true, |journal| match &journal.phase {
        Phase::Armed(armed) => armed.kind == TrialKind::Soft,
        Phase::Trial(trial) => trial.kind == TrialKind::Soft,
        _ => false,
    })
}

/// The slot table and the slot it is asked about.
pub(crate) fn standing_of(record: &BootRecord, table: Option<SlotTable>) -> Option<(Slot, SlotTable)> {
    table.map(|table| (record.slot, table))
}

#[cfg(test)]
mod tests {
    use first_boot::RunError;
    use image_format::slot::SlotState;
    use image_format::version::Version;

    use super::super::tests::{data, manifest};
    use super::*;

    fn release(version: u32) -> Manifest {
        manifest(Version::new(version, 0, 0), &data(9)).0
    }

    #[test]
    fn only_what_a_soft_reboot_can_try_is_tried_so() {
        let (running, newer) = (release(1), release(2));
        let fresh = Some((Slot::A, SlotTable::FRESH));
        let choose = |newer: &Manifest| choose_trial(SoftTrials::Auto, Some(&running), newer, fresh);
        assert_eq!(choose(&newer), TrialKind::Soft);

        let other_kernel = Manifest { kernel: newer.initrd.clone(), ..newer.clone() };
        let other_initrd = Manifest { initrd: newer.kernel.clone(), ..newer.clone() };
        let other_line = Manifest { command_line: "debug".parse().unwrap(), ..newer.clone() };
        for other in [other_kernel, other_initrd, other_line] {
            assert_eq!(choose(&other), TrialKind::Restart);
        }
        assert_eq!(choose_trial(SoftTrials::Off, Some(&running), &newer, fresh), TrialKind::Restart);
        assert_eq!(choose_trial(SoftTrials::Auto, None, &newer, fresh), TrialKind::Restart);
    }

    /// The accident must end on a slot that goes first by itself.
    #[test]
    fn without_a_slot_to_fall_back_to_the_boot_loader_tries() {
        let (running, newer) = (release(1), release(2));
        let spent = SlotState { good: true, tries: Tries::NONE };
        let unproven = SlotState { good: false, tries: Tries::FULL };
        for table in [
            SlotTable { priority: Slot::B, ..SlotTable::FRESH },
            SlotTable { a: spent, ..SlotTable::FRESH },
            SlotTable { a: unproven, ..SlotTable::FRESH },
        ] {
            let kind = choose_trial(SoftTrials::Auto, Some(&running), &newer, Some((Slot::A, table)));

            assert_eq!(kind, TrialKind::Restart, "{table:?}");
        }
        assert_eq!(choose_trial(SoftTrials::Auto, Some(&running), &newer, None), TrialKind::Restart);
    }

    /// systemd with these jobs.
    #[derive(Debug)]
    struct Jobs(&'static str);

    impl ProgramRunner for Jobs {
        fn run_program(&self, _: &ProgramCall) -> Result<Vec<u8>, RunError> {
            Ok(self.0.as_bytes().to_vec())
        }
    }

    #[test]
    fn systemd_is_asked_how_the_machine_ends() {
        let soft = "201 soft-reboot.target start waiting\n202 ssh.service stop running\n";
        assert_eq!(boot_end(&Jobs(soft)), BootEnd::SoftReboot);
        assert_eq!(boot_end(&Jobs("201 reboot.target start waiting\n")), BootEnd::Restart);
        assert_eq!(boot_end(&Jobs("7 not-soft-reboot.target start waiting\n")), BootEnd::Restart);
        assert_eq!(boot_end(&Jobs("")), BootEnd::Restart);
    }
}
