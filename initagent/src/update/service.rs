//! The verbs of `initagent update`, and what the units call.
//!
//! Gathers facts, lets the pure parts decide, and carries out what they say. Refuses to know devices and networks
//! itself. Invariant: whatever changes the journal or a slot holds the lock and has resumed first.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use first_boot::{ProgramCall, ProgramRunner, RealPrograms, RunError};
use image_format::manifest::Manifest;
use image_format::payload::survey::InstalledRelease;
use image_format::version::Version;

use super::acceptance::MachineStanding;
use super::bus::ServeBusError;
use super::evidence::find_evidence;
use super::file_trust::{KEYS, TrustFileError, trust_file};
use super::install::{RootContent, TrustedRelease};
use super::journal::Journal;
use super::machine::{UpdateMachine, UpdateStepError, trust_release};
use super::migration::MigrateError;
use super::notices;
use super::observe::Observer;
use super::payload_content::FetchPayloadError;
use super::phase::{Armed, Outcome, Phase, Target, TrialKind, TrialPlan};
use super::repository::{AskChannelError, machine_architecture};
use super::settings::UpdateSettings;
use super::slot_image::{OpenImageError, SlotImage};
use super::soft;
use super::status::{METRICS, UpdateStatus, channel_name};
use super::transport::{FetchFileError, Mirrors};
use crate::boot_complete::BootCompleteError;
use crate::initramfs::next_root::NextRootError;
use crate::initramfs::verified_root::{ReadRootError, read_keyring};
use crate::release_floor::{ReleaseFloor, ReleaseFloorError};

mod restarts;
mod slot_copy;
mod trials;

const MACHINE_ID: &str = "etc/machine-id";

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

    /// Has systemd look for a release now, as the timer does.
    pub(crate) fn start_poll(&self) -> Result<(), RunError> {
        let call = ProgramCall::new("systemctl", ["start", "--no-block", "catamaran-update.service"]);
        self.programs.run_program(&call).map(drop)
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

    fn machine_id(&self) -> String {
        fs::read_to_string(self.machine.root.join(MACHINE_ID)).unwrap_or_default().trim().to_owned()
    }
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

/// Seconds since 1970, as the machine's clock has it.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
