//! The machine as an update sees it: its journal, its slot table, its slots, and who else is at work.
//!
//! Carries out what [`crate::update::phase`] and [`crate::update::resume`] decide, in an order that a cut cannot turn into a loss.
//! Refuses to decide. Invariant: one process changes the journal and the slots at a time.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use image_format::digest::Sha256;
use image_format::manifest::{Manifest, ManifestError};
use image_format::signed::{Keyring, ParseEnvelopeError, Signed, VerifyError};
use image_format::slot::{LastGoodSlotError, Slot, SlotTable};

use super::idle_slot::{IdleSlot, OpenIdleSlotError};
use super::install::{Progress, RootContent, Stage, TrustedRelease, WriteReleaseError, write_release};
use super::journal::{Journal, JournalError};
use super::kept_trust::{KeepTrustError, read_trust, record_good_release};
use super::phase::{
    Action, Cause, Failure, Fetching, ManifestDigest, Outcome, Phase, Steady, Target, TrialPlan,
};
use super::resume::{BootFacts, resume_phase};
use crate::block_device::AccessMode;
use crate::boot_record::{self, BootRecord, ReadBootRecordError};
use crate::slots::store::{SlotStore, StoreError};

/// What the kernel calls this boot.
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
/// What a reboot forgets.
const RUN: &str = "run/catamaran/update";
/// What a reboot of Debian's packages leaves, and tools such as kured read.
const REBOOT_REQUIRED: &str = "run/reboot-required";
/// Attempts at one release whose failure is the disk's: more would wear it out.
const MAX_DISK_ATTEMPTS: u32 = 3;

/// The machine that this is.
#[derive(Debug, Clone)]
pub(crate) struct UpdateMachine {
    /// Where its files are: `/`, or a folder of a test.
    pub(crate) root: PathBuf,
    /// What runs, from which devices.
    pub(crate) record: BootRecord,
    /// What the kernel calls this boot.
    pub(crate) boot: String,
}

/// Keeps other processes from changing what this one changes.
#[derive(Debug)]
pub(crate) struct UpdateLock {
    _file: File,
}

/// Why a step of an update was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateStepError {
    #[error("cannot tell this boot from others by /{BOOT_ID}")]
    BootId { source: io::Error },
    #[error("the manifest is not in its envelope")]
    Envelope(#[from] ParseEnvelopeError),
    #[error("the update went through {steps} phases without an end, so it is given up")]
    GoesRound { steps: u32 },
    #[error("cannot open the idle slot")]
    IdleSlot(#[from] OpenIdleSlotError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    LastGood(#[from] LastGoodSlotError),
    #[error("cannot lock {path}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("another update is at work (process {process}); 'initagent update status' shows it")]
    Locked { process: String },
    #[error("neither copy of the slot table on {path} can be read; a complete boot writes it anew")]
    NoTable { path: PathBuf },
    #[error("cannot tell which slot runs")]
    Record(#[from] ReadBootRecordError),
    #[error("cannot write {path}")]
    Run { path: PathBuf, source: io::Error },
    #[error("cannot change the slot table")]
    Table(#[from] StoreError),
    #[error(transparent)]
    Trust(#[from] KeepTrustError),
    #[error("the manifest of the release is not trusted")]
    Verify(#[from] VerifyError<ManifestError>),
    #[error("cannot bring {version} into slot {slot}")]
    Write { version: String, slot: Slot, source: WriteReleaseError },
}

impl UpdateMachine {
    /// The machine that this program runs on.
    pub(crate) fn this_machine() -> Result<Self, UpdateStepError> {
        let root = PathBuf::from("/");
        let record = BootRecord::read(Path::new(boot_record::PATH))?;
        let boot =
            fs::read_to_string(root.join(BOOT_ID)).map_err(|source| UpdateStepError::BootId { source })?;
        Ok(Self { root, record, boot: boot.trim().to_owned() })
    }

    /// Keeps others out until the lock is dropped.
    pub(crate) fn lock_updates(&self) -> Result<UpdateLock, UpdateStepError> {
        let path = self.root.join(RUN).join("lock");
        let failed = |source| UpdateStepError::Lock { path: path.clone(), source };
        self.make_run_folder().map_err(failed)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(UpdateStepError::Locked { process });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        noted.map_err(failed)?;
        Ok(UpdateLock { _file: file })
    }

    /// The slot table, if a copy of it can be read.
    pub(crate) fn slot_table(&self) -> Result<Option<SlotTable>, UpdateStepError> {
        let store = SlotStore::open_store(&self.record.devices.abstate, AccessMode::Read)?;
        Ok(store.read()?.current_table())
    }

    /// What is true of this boot.
    pub(crate) fn boot_facts(&self) -> Result<BootFacts, UpdateStepError> {
        Ok(BootFacts {
            boot: self.boot.clone(),
            running: self.record.slot,
            running_root: self.record.root_hash,
            table: self.slot_table()?,
        })
    }

    /// Goes on after a cut, a kill or a restart. The caller holds the lock. Says what has ended by it;
    /// `find_evidence` is asked what is left of boots that were lost.
    pub(crate) fn resume_update(
        &self,
        now: u64,
        find_evidence: &dyn Fn(&Phase) -> String,
    ) -> Result<(Journal, Option<(Target, Outcome)>), UpdateStepError> {
        let (journal, _) = Journal::recover_journal(&self.root)?;
        let before = journal.phase.clone();
        let resumed = resume_phase(before.clone(), &self.boot_facts()?);
        let Some((target, outcome)) = resumed.ended else {
            if resumed.phase == before && resumed.actions.is_empty() {
                return Ok((journal, None));
            }
            // The reason must not be lost if the power goes between the journal and the slot table.
            let journal = self.save_journal(journal.enter_phase(resumed.phase))?;
            for action in resumed.actions.into_iter().filter(|action| *action != Action::Restart) {
                self.change_table(action)?;
            }
            return Ok((journal, None));
        };
        // The other way round: a steady journal would not disarm the slot any more.
        for action in resumed.actions {
            self.change_table(action)?;
        }
        let outcome = with_evidence(outcome, || find_evidence(&before));
        let ended = (target.clone(), outcome.clone());
        let journal = self.end_update(journal, now, target, outcome)?;
        Ok((journal, Some(ended)))
    }

    /// The highest security epoch of what has proven itself here, and of what runs: the first release of a machine is
    /// never on trial.
    pub(crate) fn security_epoch(&self) -> u32 {
        read_trust(&self.root).security_epoch.max(self.record.security_epoch)
    }

    /// Journals how an update ended. A good one raises the security epoch to that of the release that runs.
    pub(crate) fn end_update(
        &self,
        journal: Journal,
        now: u64,
        target: Target,
        outcome: Outcome,
    ) -> Result<Journal, UpdateStepError> {
        // Before the journal: after a cut between the two, the trial ends once more. The other way round, nothing
        // would ever raise the epoch.
        if outcome == Outcome::Succeeded {
            record_good_release(&self.root, self.record.security_epoch)?;
        }
        self.save_journal(journal.end_update(now, self.record.version.clone(), target, outcome))
    }

    /// Writes the journal, and gives it back.
    pub(crate) fn save_journal(&self, journal: Journal) -> Result<Journal, UpdateStepError> {
        journal.write(&self.root)?;
        Ok(journal)
    }

    /// Carries an action on the slot table out; a restart is not one.
    pub(crate) fn change_table(&self, action: Action) -> Result<(), UpdateStepError> {
        let store = SlotStore::open_store(&self.record.devices.abstate, AccessMode::Write)?;
        let copies = store.read()?;
        let path = || self.record.devices.abstate.clone();
        let table = copies.current_table().ok_or_else(|| UpdateStepError::NoTable { path: path() })?;
        let changed = match action {
            Action::Arm(slot) => table.activate_slot(slot),
            Action::Disarm(slot) => table.disarm_slot(slot)?,
            Action::MarkGood(slot) => table.mark_good(slot),
            Action::Restart => table,
        };
        Ok(store.write(&copies, changed)?)
    }

    /// Brings a release into the idle slot and lets the boot loader start it. The caller holds the lock and has
    /// resumed; `plan` is asked for only when the slot is whole.
    pub(crate) fn install_release(
        &self,
        journal: Journal,
        release: &TrustedRelease,
        source: &str,
        content: &mut dyn RootContent,
        plan: &dyn Fn() -> TrialPlan,
    ) -> Result<Journal, UpdateStepError> {
        let target = self.update_target(release, source);
        let journal = self.begin_fetching(journal, target.clone())?;
        let idle = IdleSlot::open_idle(&self.record)?;
        let written = write_release(&idle.device, release, content, self);
        let journal = match written {
            Ok(()) => journal,
            Err(error) => return Err(self.note_write_error(journal, error, &target)?),
        };
        let Phase::Fetching(fetching) = journal.phase.clone() else { return Ok(journal) };
        let journal =
            self.save_journal(journal.enter_phase(Phase::Written(fetching.complete_write(plan()))))?;
        self.arm_slot(journal)
    }

    /// Lets the boot loader start what was written: the commit point.
    pub(crate) fn arm_slot(&self, journal: Journal) -> Result<Journal, UpdateStepError> {
        let Phase::Written(written) = journal.phase.clone() else { return Ok(journal) };
        let (armed, action) = written.arm_slot(self.boot.clone());
        action.map_or(Ok(()), |action| self.change_table(action))?;
        let journal = self.save_journal(journal.enter_phase(Phase::Armed(armed)))?;
        self.require_reboot()?;
        Ok(journal)
    }

    /// What a release would be here.
    pub(crate) fn update_target(&self, release: &TrustedRelease, source: &str) -> Target {
        Target {
            slot: !self.record.slot,
            version: release.manifest.version.clone(),
            root_hash: release.manifest.root.root_hash,
            manifest: ManifestDigest {
                bytes: release.envelope.len() as u64,
                sha256: Sha256::digest_of(&release.envelope),
            },
            source: source.to_owned(),
        }
    }

    /// Enters the fetching phase, unless it lasts already for the same release.
    fn begin_fetching(&self, journal: Journal, target: Target) -> Result<Journal, UpdateStepError> {
        let is_same = |one: &Target| (one.slot, one.root_hash) == (target.slot, target.root_hash);
        if matches!(&journal.phase, Phase::Fetching(fetching) if is_same(&fetching.target)) {
            return Ok(journal);
        }
        if journal.goes_round() {
            return Err(UpdateStepError::GoesRound { steps: journal.steps });
        }
        let (fetching, disarm) = Steady::default().begin_fetching(target);
        let journal = self.save_journal(journal.enter_phase(Phase::Fetching(fetching)))?;
        self.change_table(disarm)?;
        Ok(journal)
    }

    /// Journals a failed attempt: the next one goes on from what is written, unless the disk is at fault.
    fn note_write_error(
        &self,
        journal: Journal,
        error: WriteReleaseError,
        target: &Target,
    ) -> Result<UpdateStepError, UpdateStepError> {
        let said = error_text::error_chain(&error);
        let fetching = match &journal.phase {
            Phase::Fetching(fetching) => fetching.clone(),
            _ => Steady::default().begin_fetching(target.clone()).0,
        };
        let fetching: Fetching = fetching.note_error(said.clone());
        if error.is_about_disk() && fetching.attempts >= MAX_DISK_ATTEMPTS {
            let failure = Failure::new(Cause::Write, said);
            let running = self.record.version.clone();
            self.save_journal(journal.end_update(0, running, target.clone(), Outcome::Failed(failure)))?;
        } else {
            self.save_journal(journal.enter_phase(Phase::Fetching(fetching)))?;
        }
        Ok(UpdateStepError::Write { version: target.version.to_string(), slot: target.slot, source: error })
    }

    /// Says to people and programs that a restart is due.
    pub(crate) fn require_reboot(&self) -> Result<(), UpdateStepError> {
        let path = self.root.join(REBOOT_REQUIRED);
        fs::write(&path, "*** System restart required ***\n")
            .map_err(|source| UpdateStepError::Run { path, source })
    }

    /// A restart is not due any more.
    pub(crate) fn withdraw_reboot(&self) {
        // It is gone, or a reader sees a restart too many.
        let _ = fs::remove_file(self.root.join(REBOOT_REQUIRED));
    }

    /// Whether a restart is due.
    pub(crate) fn reboot_is_required(&self) -> bool {
        self.root.join(REBOOT_REQUIRED).exists()
    }

    /// A file that a reboot forgets.
    pub(crate) fn run_file(&self, name: &str) -> PathBuf {
        self.root.join(RUN).join(name)
    }

    /// Makes the folder of such files.
    pub(crate) fn make_run_folder(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(self.root.join(RUN))
    }

    /// Replaces a file that a reboot forgets, whole, so that a reader never sees half of it.
    pub(crate) fn write_run_file(&self, name: &str, text: &str) -> Result<(), UpdateStepError> {
        let path = self.run_file(name);
        let unfinished = path.with_extension("new");
        let written = self
            .make_run_folder()
            .and_then(|()| fs::write(&unfinished, text))
            .and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|source| UpdateStepError::Run { path, source })
    }
}

/// A slot that never came to a verdict left its reason, if any, where the next boot finds it.
fn with_evidence(outcome: Outcome, find_evidence: impl FnOnce() -> String) -> Outcome {
    match outcome {
        Outcome::Failed(failure) if matches!(failure.cause, Cause::LostBoots | Cause::NotStarted) => {
            let evidence = find_evidence();
            let details = format!("{}\n{evidence}", failure.details).trim_end().to_owned();
            Outcome::Failed(Failure { details, ..failure })
        }
        other => other,
    }
}

/// Believes a manifest if the keys that this image trusts signed it.
pub(crate) fn trust_release(keyring: &Keyring, envelope: Vec<u8>) -> Result<TrustedRelease, UpdateStepError> {
    let signed = Signed::<Manifest>::from_envelope(&envelope)?;
    Ok(TrustedRelease { manifest: keyring.verify_signed(&signed)?, envelope })
}

impl Progress for UpdateMachine {
    fn advance(&self, stage: Stage, done: u64, total: u64) -> ControlFlow<()> {
        let word = match stage {
            Stage::Verifying => "verifying",
            Stage::Writing => "writing",
        };
        // A progress that nobody can read is no reason to stop.
        let text = format!("{{\"stage\": \"{word}\", \"done\": {done}, \"total\": {total}}}\n");
        let _ = self.write_run_file("progress.json", &text);
        if self.run_file("cancel").exists() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests;
