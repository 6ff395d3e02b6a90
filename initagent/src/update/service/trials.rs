//! A release on trial: from the boot that begins it to the verdict and what follows from it.
//!
//! Knows the order of effects: the slot table first where a slot is armed, the journal first where one is given up.
//! Refuses to judge health (`trial` does) and to fetch or write a release.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::time::{Duration, Instant};

use error_text::error_chain;
use first_boot::{ProgramCall, ProgramRunner as _};
use image_format::digest::Sha256;

use super::super::health::{CheckResult, compare_health, run_scripts};
use super::super::journal::Journal;
use super::super::machine::{UpdateLock, UpdateStepError};
use super::super::migration::{Migrations, NoCut};
use super::super::observe::Observer;
use super::super::phase::{Action, Baseline, Cause, Failure, Outcome, Phase, Target, Trial, TrialKind};
use super::super::trial::{TrialVerdict, TrialWorld, judge_trial};
use super::super::{notices, soft, watchdog};
use super::{UpdateError, UpdateService, unix_time};
use crate::boot_complete;

impl UpdateService {
    /// At each boot: goes on, and begins or continues a trial.
    pub(crate) fn begin_boot(&self) -> Result<String, UpdateError> {
        let _lock = self.machine.lock_updates()?;
        let journal = self.end_attempt(self.resume_update()?)?;
        match &journal.phase {
            Phase::Trial(trial) if trial.failure.is_some() => {
                self.restart_machine()?;
                Ok("the release on trial has failed: the machine restarts into the other slot".to_owned())
            }
            Phase::Trial(trial) => {
                // /run outlives a soft-reboot, and the restart that it asks for is over.
                self.machine.withdraw_reboot();
                watchdog::start_deadline(&self.programs, self.settings.deadline)?;
                let start =
                    ProgramCall::new("systemctl", ["start", "--no-block", "catamaran-update-trial.service"]);
                self.programs.run_program(&start)?;
                Ok(format!("release {} is on trial in slot {}", trial.target.version, trial.target.slot))
            }
            phase => Ok(format!("updates are {}", phase.phase_word())),
        }
    }

    /// When the machine is shut down in order: that is no verdict against a slot on trial.
    pub(crate) fn end_boot(&self) -> Result<String, UpdateError> {
        let _lock = self.machine.lock_updates()?;
        let (journal, _) = Journal::recover_journal(&self.machine.root).map_err(UpdateStepError::from)?;
        let end = soft::boot_end(&self.programs);
        let (phase, action) = match journal.phase.clone() {
            Phase::Armed(armed) => {
                let (armed, action) = armed.end_boot(end);
                (Phase::Armed(armed), action)
            }
            Phase::Trial(trial) => {
                let (trial, action) = trial.end_boot(end);
                (Phase::Trial(trial), action)
            }
            _ => return Ok("no trial runs".to_owned()),
        };
        self.machine.save_journal(journal.enter_phase(phase))?;
        action.map_or(Ok(()), |action| self.machine.change_table(action))?;
        Ok("the slot on trial keeps its tries".to_owned())
    }

    /// At the end of a soft-reboot's first half: what systemd is to switch to.
    pub(crate) fn prepare_switch(&self) -> Result<String, UpdateError> {
        let journal = Journal::read(&self.machine.root).map_err(UpdateStepError::from)?;
        Ok(soft::prepare_switch(&self.machine, &journal.phase)?)
    }

    /// Beside a soft trial, from before the switch on: restarts the machine if it comes to no verdict. A deadline that
    /// only a unit of the new root kept would be of no use where that root does not come so far.
    pub(crate) fn guard_trial(&self) -> &'static str {
        let root = &self.machine.root;
        if soft::is_soft_trial(root) {
            std::thread::sleep(self.settings.deadline + soft::GUARD_GRACE);
            if soft::is_soft_trial(root) {
                notices::print_to_console(root, "the soft trial came to no verdict: the machine restarts");
                restart_at_once();
            }
        }
        "there is no soft trial to watch"
    }

    /// A soft-reboot that came back to the old root: a restart does instead.
    fn end_attempt(&self, journal: Journal) -> Result<Journal, UpdateError> {
        let said = soft::failed_attempt(&self.machine);
        let (Phase::Armed(armed), Some(said)) = (journal.phase.clone(), said) else { return Ok(journal) };
        if armed.kind != TrialKind::Soft {
            return Ok(journal);
        }
        let version = &armed.target.version;
        notices::print_to_console(
            &self.machine.root,
            &format!("release {version} cannot be tried without a restart: {said}"),
        );
        let (armed, action) = armed.give_up_soft();
        // The table first, as always when a slot is armed.
        action.map_or(Ok(()), |action| self.machine.change_table(action))?;
        let journal = self.machine.save_journal(journal.enter_phase(Phase::Armed(armed)))?;
        self.machine.require_reboot()?;
        self.publish_status(&journal);
        Ok(journal)
    }

    /// Judges the slot on trial, and carries the verdict out.
    pub(crate) fn run_trial(&self) -> Result<String, UpdateError> {
        let journal = Journal::read(&self.machine.root).map_err(UpdateStepError::from)?;
        let Phase::Trial(trial) = journal.phase else { return Ok("no trial runs".to_owned()) };
        let world = LiveTrial {
            service: self,
            baseline: &trial.baseline,
            channel: String::new(),
            began: Instant::now(),
        };
        // Here and not at the boot: systemd is asked by way of D-Bus, which is there by now.
        watchdog::arm_watchdog(&self.machine.root, &self.programs);
        // The lock is not held meanwhile: `status`, `cancel` and `rollback` work during a trial.
        let verdict = judge_trial(&world, self.settings.check_patience, self.settings.soak);
        self.carry_out(verdict, &trial.target)
    }

    /// The time of the trial is up.
    pub(crate) fn expire_trial(&self) -> Result<String, UpdateError> {
        let failure = Failure::new(Cause::NoVerdict, "the deadline of the trial passed");
        let journal = Journal::read(&self.machine.root).map_err(UpdateStepError::from)?;
        let Phase::Trial(trial) = journal.phase else { return Ok("no trial runs".to_owned()) };
        self.carry_out(TrialVerdict::Bad(failure), &trial.target)
    }

    fn carry_out(&self, verdict: TrialVerdict, judged: &Target) -> Result<String, UpdateError> {
        let _lock = self.lock_patiently()?;
        let journal = self.resume_update()?;
        let trial = match journal.phase.clone() {
            Phase::Trial(trial) if trial.target == *judged && trial.failure.is_none() => trial,
            _ => return Ok("the trial has ended meanwhile".to_owned()),
        };
        match verdict {
            TrialVerdict::Bad(failure) => self.fail_trial(journal, trial, failure),
            TrialVerdict::Good { remarks } => self.pass_trial(journal, &trial, &remarks),
        }
    }

    fn pass_trial(&self, journal: Journal, trial: &Trial, remarks: &[String]) -> Result<String, UpdateError> {
        let target = trial.target.clone();
        let journal = if trial.kind == TrialKind::Soft {
            // The slot table first, as always when a slot is armed. Floor and epoch wait for the boot from the disk.
            let (armed, action) = trial.clone().pass_soft(self.machine.boot.clone());
            self.machine.change_table(action)?;
            self.machine.save_journal(journal.enter_phase(Phase::Armed(armed)))?
        } else {
            // Marks the slot good and raises the floor, as every complete boot does.
            boot_complete::complete_boot()?;
            self.machine.end_update(journal, unix_time(), target.clone(), Outcome::Succeeded)?
        };
        watchdog::stop_deadline(&self.programs);
        watchdog::disarm_watchdog(&self.programs);
        soft::stop_guard(&self.programs);
        if matches!(journal.phase, Phase::Steady(_)) {
            self.drop_old_data(target.root_hash);
        }
        self.tell_end(&target, &Outcome::Succeeded);
        self.publish_status(&journal);
        self.release_lock();
        let remarks: Vec<String> =
            remarks.iter().map(|remark| format!("\nnot well, and not required: {remark}")).collect();
        Ok(format!(
            "release {} has proven itself in slot {}{}",
            target.version,
            target.slot,
            remarks.concat()
        ))
    }

    /// Before the programs of the machine start: brings their data into the form of the release on trial, or back.
    pub(crate) fn migrate_data(&self) -> Result<String, UpdateError> {
        let lock = self.lock_patiently()?;
        let (journal, _) = Journal::recover_journal(&self.machine.root).map_err(UpdateStepError::from)?;
        let running = self.machine.record.root_hash;
        match journal.phase.clone() {
            Phase::Trial(trial) if trial.target.root_hash == running && trial.failure.is_none() => {
                let Err(error) = self.migrations().migrate(running) else {
                    return Ok("the data has the form of the release on trial".to_owned());
                };
                let check = Cause::Check("migration".to_owned());
                let said = self.fail_trial(journal, trial, Failure::new(check, error_chain(&error)))?;
                drop(lock);
                let journal = Journal::read(&self.machine.root).map_err(UpdateStepError::from)?;
                if matches!(journal.phase, Phase::Trial(_)) {
                    // Else the programs of the new release would start on data that they do not understand. The
                    // restart ends this wait. A machine with nothing to go back to does not wait.
                    std::thread::sleep(Duration::from_mins(10));
                }
                Ok(said)
            }
            // The release has failed, or its first boot from the disk is to come.
            Phase::Armed(_) | Phase::Trial(_) => {
                self.migrations().restore(running)?;
                Ok("the data waits for a verdict".to_owned())
            }
            _ => {
                self.migrations().restore(running)?;
                self.migrations().keep(running)?;
                Ok("the data is that of the release that runs".to_owned())
            }
        }
    }

    fn migrations(&self) -> Migrations<'_> {
        Migrations { root: &self.machine.root, programs: &self.programs, gate: &NoCut }
    }

    /// The old form of the data is of no use any more. What cannot be removed now is removed at the next boot.
    fn drop_old_data(&self, release: Sha256) {
        if let Err(error) = self.migrations().keep(release) {
            notices::print_to_console(&self.machine.root, &error_chain(&error));
        }
    }

    pub(crate) fn fail_trial(
        &self,
        journal: Journal,
        trial: Trial,
        failure: Failure,
    ) -> Result<String, UpdateError> {
        let (target, sentence) = (trial.target.clone(), failure.failure_sentence());
        let (failed, actions) = trial.fail_check(failure);
        self.machine.save_journal(journal.enter_phase(Phase::Trial(failed)))?;
        let said = format!("release {} goes back: {sentence}", target.version);
        notices::print_to_console(&self.machine.root, &said);
        for action in actions {
            match action {
                Action::Restart => self.restart_machine()?,
                other => {
                    if let Err(error) = self.machine.change_table(other) {
                        return self.stay_for_want(target, &sentence, &error);
                    }
                }
            }
        }
        Ok(said)
    }

    /// The slot on trial has failed, but there is no other to go back to: a machine that runs can be mended.
    fn stay_for_want(
        &self,
        target: Target,
        sentence: &str,
        error: &UpdateStepError,
    ) -> Result<String, UpdateError> {
        let (journal, _) = Journal::recover_journal(&self.machine.root).map_err(UpdateStepError::from)?;
        let said =
            format!("release {} failed ({sentence}), and stays: {}", target.version, error_chain(error));
        let failure = Failure::new(Cause::Check("way back".to_owned()), said.clone());
        let running = self.machine.record.version.clone();
        let journal = self.machine.save_journal(journal.end_update(
            unix_time(),
            running,
            target,
            Outcome::Failed(failure),
        ))?;
        watchdog::stop_deadline(&self.programs);
        watchdog::disarm_watchdog(&self.programs);
        notices::print_to_console(&self.machine.root, &said);
        self.publish_status(&journal);
        Ok(said)
    }

    /// A verdict must not be lost because somebody asked for the lock at that moment.
    fn lock_patiently(&self) -> Result<UpdateLock, UpdateError> {
        let began = Instant::now();
        loop {
            match self.machine.lock_updates() {
                Err(UpdateStepError::Locked { .. }) if began.elapsed() < Duration::from_secs(30) => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                other => return Ok(other?),
            }
        }
    }
}

/// Restarts the machine without asking systemd, which may be what hangs.
fn restart_at_once() {
    nix::unistd::sync();
    // It fails only for who may not, and then nothing else helps either.
    let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
}

/// A trial on this machine.
struct LiveTrial<'a> {
    service: &'a UpdateService,
    baseline: &'a Baseline,
    channel: String,
    began: Instant,
}

impl TrialWorld for LiveTrial<'_> {
    fn check(&self) -> Vec<CheckResult> {
        let observer =
            Observer { channel: self.channel.clone(), ..self.service.health_observer(&Journal::default()) };
        let mut results = compare_health(self.baseline, &observer.observe_machine(self.baseline));
        results.extend(run_scripts(&self.service.machine.root, &self.service.programs));
        results
    }

    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
