//! The verbs of `initagent update`, and what the units call.
//!
//! Gathers facts, lets the pure parts decide, and carries out what they say. Refuses to know devices and networks
//! itself. Invariant: whatever changes the journal or a slot holds the lock and has resumed first.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use first_boot::{ProgramCall, ProgramRunner, RealPrograms, RunError};
use image_format::digest::Sha256;
use image_format::manifest::Manifest;
use image_format::payload::survey::InstalledRelease;
use image_format::slot::{SlotState, Tries};
use image_format::version::Version;

use super::acceptance::MachineStanding;
use super::bus::ServeBusError;
use super::evidence::find_evidence;
use super::file_trust::{KEYS, TrustFileError, trust_file};
use super::health::{CheckResult, compare_health, run_scripts};
use super::idle_slot::IdleSlot;
use super::install::{RootContent, TrustedRelease, write_release};
use super::journal::Journal;
use super::machine::{UpdateMachine, UpdateStepError, trust_release};
use super::migration::{MigrateError, Migrations, NoCut};
use super::notices;
use super::observe::Observer;
use super::payload_content::FetchPayloadError;
use super::phase::{
    Action, Armed, Baseline, Cause, Failure, Outcome, Phase, Target, Trial, TrialKind, TrialPlan,
};
use super::reboot::{LockCall, RebootDecision, ask_lock, decide_reboot};
use super::repository::{AskChannelError, machine_architecture};
use super::settings::UpdateSettings;
use super::slot_image::{OpenImageError, SlotImage};
use super::soft;
use super::status::{METRICS, UpdateStatus, channel_name};
use super::transport::{FetchFileError, Mirrors};
use super::trial::{TrialVerdict, TrialWorld, judge_trial};
use super::watchdog;
use super::window::WeekTime;
use crate::boot_complete::{self, BootCompleteError};
use crate::initramfs::next_root::NextRootError;
use crate::initramfs::verified_root::{ReadRootError, read_keyring};
use crate::release_floor::{Release, ReleaseFloor, ReleaseFloorError};
use error_text::error_chain;

const MACHINE_ID: &str = "etc/machine-id";
const UPTIME: &str = "proc/uptime";
/// A machine that has been up for so long is settled: `catamaran-boot-settled.timer` says the same.
const SETTLED_AFTER: f64 = 600.0;

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    #[error(transparent)]
    Ask(#[from] AskChannelError),
    #[error(transparent)]
    Bus(#[from] ServeBusError),
    #[error("the slot is marked good, but not everything that follows could be done")]
    BootComplete(#[from] BootCompleteError),
    #[error("cannot use the update servers")]
    Fetch(#[from] FetchFileError),
    #[error(transparent)]
    Floor(#[from] ReleaseFloorError),
    #[error(transparent)]
    Image(#[from] OpenImageError),
    #[error(transparent)]
    FileTrust(Box<TrustFileError>),
    #[error("cannot read the keys that this image trusts")]
    Keys(#[from] ReadRootError),
    #[error("the trial of {version} runs: wait for its verdict, or go back by 'initagent update rollback'")]
    OnTrial { version: Version },
    #[error(
        "{version} has proven itself without a restart, and still has to start from the disk before another release \
         may take the place of the old one: restart the machine by 'systemctl reboot'"
    )]
    OwesRestart { version: Version },
    #[error("{version} is refused: {why}")]
    Refused { version: Version, why: String },
    #[error("{0}")]
    Nothing(String),
    #[error("cannot restart the machine")]
    Restart(#[from] RunError),
    #[error("the data of the machine cannot be brought into the form of its release")]
    Migrate(#[source] Box<MigrateError>),
    #[error("there is no root to switch to")]
    NextRoot(#[source] Box<NextRootError>),
    #[error(transparent)]
    Payload(#[from] FetchPayloadError),
    #[error(transparent)]
    Step(#[from] UpdateStepError),
}

// Boxed, since every verb would carry room for their paths.
impl From<MigrateError> for UpdateError {
    fn from(error: MigrateError) -> Self {
        Self::Migrate(Box::new(error))
    }
}

impl From<TrustFileError> for UpdateError {
    fn from(error: TrustFileError) -> Self {
        Self::FileTrust(Box::new(error))
    }
}

impl From<NextRootError> for UpdateError {
    fn from(error: NextRootError) -> Self {
        Self::NextRoot(Box::new(error))
    }
}

/// Everything that an order needs.
#[derive(Debug)]
pub(crate) struct UpdateService {
    /// The machine.
    pub(crate) machine: UpdateMachine,
    /// Its settings.
    pub(crate) settings: UpdateSettings,
    /// Its update servers.
    pub(crate) mirrors: Mirrors,
    programs: RealPrograms,
}

impl UpdateService {
    /// The service of this machine.
    pub(crate) fn of_this_machine() -> Result<Self, UpdateError> {
        let machine = UpdateMachine::this_machine()?;
        let settings = UpdateSettings::read(&machine.root);
        let mirrors = Mirrors::new(&settings.mirrors, &settings.proxies)?;
        Ok(Self { machine, settings, mirrors, programs: RealPrograms })
    }

    /// The journal after going on from wherever a cut left it. The caller holds the lock.
    pub(crate) fn resume_update(&self) -> Result<Journal, UpdateError> {
        let evidence = |phase: &Phase| find_evidence(&self.machine.root, &self.programs, phase);
        let (journal, ended) = self.machine.resume_update(unix_time(), &evidence)?;
        if let Some((target, outcome)) = ended {
            self.tell_end(&target, &outcome);
        }
        self.publish_status(&journal);
        Ok(journal)
    }

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

    /// Has systemd look for a release now, as the timer does.
    pub(crate) fn start_poll(&self) -> Result<(), RunError> {
        let call = ProgramCall::new("systemctl", ["start", "--no-block", "catamaran-update.service"]);
        self.programs.run_program(&call).map(drop)
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
                self.fail_trial(journal, trial, Failure::new(check, error_chain(&error)))?;
                drop(lock);
                // Else the programs of the new release would start on data that they do not understand. The restart
                // ends this wait.
                std::thread::sleep(Duration::from_mins(10));
                Ok("the machine goes back".to_owned())
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

    /// Installs from a file: the image of a disk, or of a slot.
    pub(crate) fn install_file(&self, path: &Path) -> Result<String, UpdateError> {
        let lock = self.machine.lock_updates()?;
        let journal = self.resume_update()?;
        let mut image = SlotImage::open_image(path)?;
        let envelope = image
            .read_envelope()
            .map_err(|_| UpdateError::Nothing("the file ends without a manifest".to_owned()))?;
        let release = trust_file(&self.machine.root, envelope)?;
        let journal = self.install_release(journal, &release, &path.display().to_string(), &mut image)?;
        drop(lock);
        Ok(describe_armed(&journal))
    }

    /// Brings a release into the idle slot, after what speaks against it. A person's word ends older failures.
    pub(crate) fn install_release(
        &self,
        mut journal: Journal,
        release: &TrustedRelease,
        source: &str,
        content: &mut dyn RootContent,
    ) -> Result<Journal, UpdateError> {
        match &journal.phase {
            Phase::Trial(trial) => {
                return Err(UpdateError::OnTrial { version: trial.target.version.clone() });
            }
            Phase::Armed(armed) if armed.kind == TrialKind::AfterSoft => {
                return Err(UpdateError::OwesRestart { version: armed.target.version.clone() });
            }
            _ => {}
        }
        self.check_release(&release.manifest)?;
        journal.failed.retain(|failed| failed.root_hash != release.manifest.root.root_hash);
        // An order to stop was about an earlier install.
        let _ = fs::remove_file(self.machine.run_file("cancel"));
        let observer = self.health_observer(&journal);
        let kind = self.choose_trial(&release.manifest)?;
        let plan = || TrialPlan { baseline: observer.note_baseline(), kind };
        let journal = self.machine.install_release(journal, release, source, content, &plan)?;
        self.publish_status(&journal);
        Ok(journal)
    }

    /// How the release is to be tried on this machine.
    fn choose_trial(&self, release: &Manifest) -> Result<TrialKind, UpdateError> {
        let record = &self.machine.record;
        // What cannot be read of the running slot is compared with nothing: the boot loader tries the release.
        let keyring = read_keyring(&self.machine.root.join(KEYS)).ok();
        let envelope =
            SlotImage::of_running(&record.devices.root).ok().and_then(|slot| slot.read_envelope().ok());
        let running = keyring.zip(envelope).and_then(|(keyring, bytes)| trust_release(&keyring, bytes).ok());
        let standing = soft::standing_of(record, self.machine.slot_table()?);
        let running = running.as_ref().map(|running| &*running.manifest);
        Ok(soft::choose_trial(self.settings.soft_trials, running, release, standing))
    }

    /// What speaks against a release on this machine, whoever signed it.
    fn check_release(&self, manifest: &Manifest) -> Result<(), UpdateError> {
        let standing = MachineStanding {
            record: &self.machine.record,
            architecture: machine_architecture(),
            floor: ReleaseFloor::read(&self.machine.root)?,
            security_epoch: self.machine.security_epoch(),
        };
        match standing.find_objection(manifest) {
            Some(why) => Err(UpdateError::Refused { version: manifest.version.clone(), why }),
            None => Ok(()),
        }
    }

    /// What each slot holds, the running one first, as far as trusted keys say so.
    pub(crate) fn held_releases(&self) -> [Option<InstalledRelease>; 2] {
        let devices = &self.machine.record.devices;
        [&devices.root, &devices.other_root].map(|path| {
            let envelope = SlotImage::of_running(path).ok()?.read_envelope().ok()?;
            let keyring = read_keyring(&self.machine.root.join(KEYS)).ok()?;
            let root = &trust_release(&keyring, envelope).ok()?.manifest.root;
            let data_blocks = u32::try_from(root.data_blocks()).ok()?;
            Some(InstalledRelease { root_hash: root.root_hash, data_blocks })
        })
    }

    /// Restarts into an armed slot, when strategy, window and lock server allow it.
    pub(crate) fn consider_reboot(&self, armed: &Armed) -> Result<String, UpdateError> {
        let version = &armed.target.version;
        let decision = decide_reboot(&self.settings, self.week_time());
        // Before the lock, for which the machine is emptied.
        let is_due = matches!(decision, RebootDecision::AskLock(_) | RebootDecision::Restart);
        if let Some(why) = is_due.then(|| self.etcd_objection()).flatten() {
            return Ok(format!("release {version} is ready; {why}"));
        }
        match decision {
            RebootDecision::Leave(why) => Ok(format!("release {version} is ready; {why}")),
            RebootDecision::Wait(time) => {
                Ok(format!("release {version} is ready; the window opens in {} minutes", time.as_secs() / 60))
            }
            RebootDecision::Restart => self.restart_into(armed),
            RebootDecision::AskLock(server) => {
                match ask_lock(&server, LockCall::PreReboot, &self.machine_id()) {
                    Ok(()) => {
                        // Another voter may have had its slot, or fallen, while this machine was emptied.
                        if let Some(why) = self.etcd_objection() {
                            self.release_lock();
                            return Ok(format!("release {version} is ready; {why}"));
                        }
                        self.machine.write_run_file("lock-held", "")?;
                        self.restart_into(armed)
                    }
                    Err(error) => Ok(format!("release {version} is ready; {}", error_chain(&error))),
                }
            }
        }
    }

    /// Why etcd of the cluster cannot do without this machine now.
    fn etcd_objection(&self) -> Option<String> {
        cluster::restart::find_objection(&cluster::site::Site::at_root(&self.machine.root))
    }

    fn restart_into(&self, armed: &Armed) -> Result<String, UpdateError> {
        let version = &armed.target.version;
        let (said, verb) = match armed.kind {
            TrialKind::Soft => {
                (format!("the machine switches to release {version} without a restart"), "soft-reboot")
            }
            TrialKind::AfterSoft | TrialKind::Restart => {
                (format!("the machine restarts into release {version}"), "reboot")
            }
        };
        notices::print_to_console(&self.machine.root, &said);
        self.programs.run_program(&ProgramCall::new("systemctl", [verb]))?;
        Ok(said)
    }

    fn restart_machine(&self) -> Result<(), UpdateError> {
        self.programs
            .run_program(&ProgramCall::new("systemctl", ["reboot"]))
            .map(drop)
            .map_err(UpdateError::from)
    }

    /// Lets other machines restart. Asked at each end of an update: the server forgives a lock that was not held.
    pub(crate) fn release_lock(&self) {
        let Some(server) = &self.settings.lock_server else { return };
        if let Err(error) = ask_lock(server, LockCall::SteadyState, &self.machine_id()) {
            notices::print_to_console(&self.machine.root, &error_chain(&error));
        }
    }

    /// Copies the running slot into an empty one, once the machine has settled: a slot that rots needs somewhere to
    /// fall. The slot has no manifest until all of it was read back, so a copy that was cut off is no slot.
    pub(crate) fn fill_idle_slot(&self, journal: &Journal) -> Result<Option<String>, UpdateError> {
        let record = &self.machine.record;
        let idle = !record.slot;
        let Some(table) = self.machine.slot_table()? else { return Ok(None) };
        let running = table.slot_state(record.slot);
        let has_settled =
            running.good && running.tries == Tries::FULL && self.uptime_seconds() >= SETTLED_AFTER;
        let is_steady = matches!(journal.phase, Phase::Steady(_));
        if !(is_steady && has_settled && table.slot_state(idle) == SlotState::EMPTY) {
            return Ok(None);
        }
        let path = &record.devices.root;
        let mut image = SlotImage::of_running(path)
            .map_err(|source| OpenImageError::Read { path: path.clone(), source })?;
        let envelope = image
            .read_envelope()
            .map_err(|_| UpdateError::Nothing("the running slot has no manifest".to_owned()))?;
        let release = trust_release(&read_keyring(&self.machine.root.join(KEYS))?, envelope)?;
        let device = IdleSlot::open_idle(record).map_err(UpdateStepError::from)?.device;
        write_release(&device, &release, &mut image, &self.machine).map_err(|source| {
            UpdateStepError::Write { version: record.version.to_string(), slot: idle, source }
        })?;
        self.machine.change_table(Action::MarkGood(idle))?;
        let copied = Release { slot: idle, version: &record.version, root_hash: record.root_hash };
        let floor = ReleaseFloor::read(&self.machine.root)?;
        ReleaseFloor::raise_floor(floor, copied).write(&self.machine.root)?;
        Ok(Some(format!("slot {idle} was empty, and holds a verified copy of {} now", record.version)))
    }

    /// Who looks at this machine.
    pub(crate) fn health_observer(&self, journal: &Journal) -> Observer<'_> {
        Observer {
            machine: &self.machine,
            programs: &self.programs,
            settings: &self.settings,
            mirrors: &self.mirrors,
            channel: channel_name(&self.machine, journal, &self.settings),
        }
    }

    /// Writes what people and programs read.
    pub(crate) fn publish_status(&self, journal: &Journal) {
        notices::write_login_notice(&self.machine.root, journal);
        let status = UpdateStatus::gather_status(&self.machine, journal, self.settings.clone());
        // Whoever reads them misses a change; an update does not stop for that.
        let _ = self.machine.write_run_file("status.json", &status.to_json());
        let metrics = self.machine.root.join(METRICS);
        if metrics.parent().is_some_and(Path::is_dir) {
            let unfinished = metrics.with_extension("new");
            let _ =
                fs::write(&unfinished, status.to_metrics()).and_then(|()| fs::rename(&unfinished, &metrics));
        }
    }

    /// Says on the console and to other units how an update ended.
    fn tell_end(&self, target: &Target, outcome: &Outcome) {
        let (version, slot) = (&target.version, target.slot);
        let (sentence, event) = match outcome {
            Outcome::Abandoned(why) => (format!("the update to {version} is given up: {why}"), None),
            Outcome::Failed(failure) => {
                let said = failure.failure_sentence();
                (
                    format!("the update to {version} in slot {slot} failed: {said}"),
                    Some(notices::FAILED_TARGET),
                )
            }
            Outcome::Succeeded => {
                (format!("the update to {version} in slot {slot} is done"), Some(notices::SUCCEEDED_TARGET))
            }
        };
        self.machine.withdraw_reboot();
        notices::print_to_console(&self.machine.root, &sentence);
        if let Some(event) = event {
            notices::start_target(&self.programs, event);
        }
    }

    /// A verdict must not be lost because somebody asked for the lock at that moment.
    fn lock_patiently(&self) -> Result<super::machine::UpdateLock, UpdateError> {
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

    fn machine_id(&self) -> String {
        fs::read_to_string(self.machine.root.join(MACHINE_ID)).unwrap_or_default().trim().to_owned()
    }

    fn uptime_seconds(&self) -> f64 {
        let text = fs::read_to_string(self.machine.root.join(UPTIME)).unwrap_or_default();
        text.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
    }

    /// The time of the week where the machine is, which only the C library's time zones know.
    fn week_time(&self) -> Option<WeekTime> {
        let said = self.programs.run_program(&ProgramCall::new("date", ["+%w %H %M %S"])).ok()?;
        WeekTime::parse(&String::from_utf8_lossy(&said))
    }
}

/// Restarts the machine without asking systemd, which may be what hangs.
fn restart_at_once() {
    nix::unistd::sync();
    // It fails only for who may not, and then nothing else helps either.
    let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
}

/// What is said when a slot is armed.
pub(crate) fn describe_armed(journal: &Journal) -> String {
    match &journal.phase {
        Phase::Armed(Armed { target, kind: TrialKind::Soft, .. }) => format!(
            "release {} is in slot {}, and starts at the next restart: 'systemctl soft-reboot' keeps the kernel, \
             'systemctl reboot' does not",
            target.version, target.slot
        ),
        Phase::Armed(armed) => format!(
            "release {} is in slot {}, and starts at the next restart ('systemctl reboot')",
            armed.target.version, armed.target.slot
        ),
        phase => format!("updates are {}", phase.phase_word()),
    }
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

/// Seconds since 1970, as the machine's clock has it.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
