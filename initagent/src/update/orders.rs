//! The verbs of `initagent update`: what was typed, and what comes of it.
//!
//! Knows words. What they do is [`crate::update::service`]'s. Refuses to keep anything back: an order that was not carried
//! out says why and what to do. Invariant: a verb that only shows something takes no lock.

use std::fs;
use std::path::{Path, PathBuf};

use image_format::release::rollout::{AskedBy, ReleaseChoice};
use image_format::slot::SlotState;
use image_format::version::Version;

use super::bus::{self, ServeBusError, UpdateEngine};
use super::journal::Journal;
use super::machine::UpdateStepError;
use super::payload_content::PayloadContent;
use super::phase::{Action, Cause, Failure, Outcome, Phase, Steady, Target, TrialKind};
use super::repository::Repository;
use super::service::{UpdateError, UpdateService, describe_armed, unix_time};
use super::status::{EngineStatus, UpdateStatus, channel_name, history_text};
use super::transport::Mirrors;
use crate::initramfs::next_root;
use error_text::error_chain;
use first_boot::OutputFormat;

/// What to do about updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpdateRequest {
    /// What to do.
    pub(crate) order: UpdateOrder,
    /// How to say what came of it.
    pub(crate) format: OutputFormat,
}

/// What may be ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UpdateOrder {
    /// Give up what is under way.
    Cancel,
    /// Follow another channel.
    Channel(String),
    /// Ask what there is.
    Check,
    /// The machine is shut down in order.
    EndBoot,
    /// Show how it stands as CoreOS' program did.
    EngineStatus,
    /// The time of a trial is up.
    Expire,
    /// Restart the machine if a soft trial comes to no verdict.
    Guard,
    /// Show what was done.
    History,
    /// Install what there is, or what is named.
    Install(Option<InstallSource>),
    /// Bring data into the form of the release that runs.
    Migrate,
    /// Put together what a soft-reboot switches to.
    NextRoot,
    /// Stay at a version, or go to it.
    Pin(Version),
    /// Do by oneself what is to be done now.
    Poll,
    /// Go on after a boot.
    Resume,
    /// Go back to the other slot.
    Rollback,
    /// Answer on the system's bus.
    ServeBus,
    /// Show how it stands.
    Status,
    /// Judge the slot on trial.
    Trial,
    /// Follow the channel again.
    Unpin,
}

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InstallSource {
    /// A repository in a folder, or the image of a disk or slot.
    Path(PathBuf),
    /// A release of the channel.
    Version(Version),
}

/// Carries an order out.
pub(crate) fn run_request(request: &UpdateRequest) -> Result<String, UpdateError> {
    if request.order == UpdateOrder::Resume {
        // Before anything reads the record of the boot: a soft-reboot made another one true.
        next_root::adopt_next_root()?;
    }
    let service = UpdateService::of_this_machine()?;
    Ok(match &request.order {
        UpdateOrder::Cancel => cancel_update(&service)?,
        UpdateOrder::Channel(name) => change_journal(&service, |journal| {
            journal.channel = Some(name.clone());
            format!("the machine follows the channel {name} from now on")
        })?,
        UpdateOrder::Check => check_channel(&service)?,
        UpdateOrder::EndBoot => service.end_boot()?,
        UpdateOrder::EngineStatus => {
            let journal = read_journal(&service)?;
            UpdateStatus::gather_status(&service.machine, &journal, service.settings.clone()).to_engine_text()
        }
        UpdateOrder::Expire => service.expire_trial()?,
        UpdateOrder::Guard => service.guard_trial().to_owned(),
        UpdateOrder::History => show_history(&service, request.format)?,
        UpdateOrder::Install(source) => install_update(&service, source.as_ref())?,
        UpdateOrder::Migrate => service.migrate_data()?,
        UpdateOrder::NextRoot => service.prepare_switch()?,
        UpdateOrder::Pin(version) => change_journal(&service, |journal| {
            journal.pinned = Some(version.clone());
            format!("the machine stays at release {version}, or goes to it")
        })?,
        UpdateOrder::Poll => poll(&service)?,
        UpdateOrder::Resume => service.begin_boot()?,
        UpdateOrder::Rollback => roll_back(&service)?,
        UpdateOrder::ServeBus => serve_bus(&service)?,
        UpdateOrder::Status => show_status(&service, request.format)?,
        UpdateOrder::Trial => service.run_trial()?,
        UpdateOrder::Unpin => change_journal(&service, |journal| {
            journal.pinned = None;
            "the machine follows its channel again".to_owned()
        })?,
    })
}

fn show_status(service: &UpdateService, format: OutputFormat) -> Result<String, UpdateError> {
    let journal = read_journal(service)?;
    let status = UpdateStatus::gather_status(&service.machine, &journal, service.settings.clone());
    Ok(match format {
        OutputFormat::Json => status.to_json(),
        OutputFormat::Text => status.to_text(),
    })
}

fn show_history(service: &UpdateService, format: OutputFormat) -> Result<String, UpdateError> {
    let journal = read_journal(service)?;
    Ok(match format {
        OutputFormat::Json => serde_json::to_string_pretty(&journal.history).unwrap_or_default(),
        OutputFormat::Text => history_text(&journal.history),
    })
}

fn read_journal(service: &UpdateService) -> Result<Journal, UpdateError> {
    Ok(Journal::read(&service.machine.root).map_err(UpdateStepError::from)?)
}

fn change_journal(
    service: &UpdateService,
    change: impl FnOnce(&mut Journal) -> String,
) -> Result<String, UpdateError> {
    let _lock = service.machine.lock_updates()?;
    let mut journal = service.resume_update()?;
    let said = change(&mut journal);
    let journal = service.machine.save_journal(journal)?;
    service.publish_status(&journal);
    Ok(said)
}

/// Asks the channel, installs nothing.
fn check_channel(service: &UpdateService) -> Result<String, UpdateError> {
    let _lock = service.machine.lock_updates()?;
    let journal = service.resume_update()?;
    let mut repository = Repository::open_trusted(&service.machine, &service.mirrors, unix_time())?;
    let seen = repository.ask_channel(&channel_name(&service.machine, &journal, &service.settings))?;
    let said = repository.choose_release(&seen.metadata.metadata, &journal, AskedBy::Service).to_string();
    note_check(service, &said);
    Ok(said)
}

fn note_check(service: &UpdateService, said: &str) {
    let note = serde_json::json!({ "at": unix_time(), "said": said }).to_string();
    // `status` shows the last check that could be noted.
    let _ = service.machine.write_run_file("check.json", &note);
}

fn install_update(service: &UpdateService, source: Option<&InstallSource>) -> Result<String, UpdateError> {
    match source {
        None => install_offered(service, &service.mirrors, AskedBy::Person, None),
        Some(InstallSource::Version(version)) => {
            install_offered(service, &service.mirrors, AskedBy::Person, Some(version))
        }
        Some(InstallSource::Path(path)) if path.is_dir() => {
            let folder = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            let folder = Mirrors::new(&[folder.display().to_string()], &service.settings.proxies)?;
            install_offered(service, &folder, AskedBy::Person, None)
        }
        Some(InstallSource::Path(path)) => service.install_file(path),
    }
}

/// Installs what the channel has for this machine.
fn install_offered(
    service: &UpdateService,
    mirrors: &Mirrors,
    asked_by: AskedBy,
    wanted: Option<&Version>,
) -> Result<String, UpdateError> {
    let _lock = service.machine.lock_updates()?;
    let journal = service.resume_update()?;
    let mut repository = Repository::open_trusted(&service.machine, mirrors, unix_time())?;
    let seen = repository.ask_channel(&channel_name(&service.machine, &journal, &service.settings))?;
    let channel = &seen.metadata.metadata;
    // A version that a person names is chosen as a pin is, for this once.
    let asked = Journal { pinned: wanted.cloned().or_else(|| journal.pinned.clone()), ..journal.clone() };
    let choice = repository.choose_release(channel, &asked, asked_by);
    note_check(service, &choice.to_string());
    let ReleaseChoice::Install { release: offered, .. } = &choice else { return Ok(choice.to_string()) };
    if is_ready(&journal, &offered.version) {
        return Ok(describe_armed(&journal));
    }
    let release = repository.fetch_manifest(channel, offered)?;
    let mut content = PayloadContent::fetch_index(
        &repository,
        mirrors,
        offered,
        &service.machine,
        service.held_releases(),
    )?;
    let journal =
        service.install_release(journal, &release, &mirrors.mirror_name(seen.mirror), &mut content)?;
    Ok(describe_armed(&journal))
}

fn is_ready(journal: &Journal, version: &Version) -> bool {
    matches!(&journal.phase, Phase::Armed(armed) if armed.target.version == *version)
}

/// What the timer calls: one thing at a time, whatever is due.
fn poll(service: &UpdateService) -> Result<String, UpdateError> {
    let lock = service.machine.lock_updates()?;
    let journal = service.resume_update()?;
    if service.machine.run_file("release-lock").exists() {
        service.release_lock();
        let _ = fs::remove_file(service.machine.run_file("release-lock"));
    }
    let journal = match &journal.phase {
        Phase::Written(_) => service.machine.arm_slot(journal)?,
        _ => journal,
    };
    if let Phase::Trial(trial) = &journal.phase {
        return Ok(format!("release {} is on trial", trial.target.version));
    }
    drop(lock);
    let mut owes_restart = false;
    let said = if service.mirrors.count_mirrors() == 0 {
        "no update server is configured".to_owned()
    } else {
        match install_offered(service, &service.mirrors, AskedBy::Service, None) {
            Ok(said) => said,
            Err(error) => {
                owes_restart = matches!(error, UpdateError::OwesRestart { .. });
                error_chain(&error)
            }
        }
    };
    let _lock = service.machine.lock_updates()?;
    let journal = service.resume_update()?;
    if let Phase::Armed(armed) = &journal.phase {
        // What has proven itself already restarts only to make room for the next release.
        let is_due = armed.kind != TrialKind::AfterSoft || owes_restart;
        return if is_due { service.consider_reboot(armed) } else { Ok(said) };
    }
    let copied = service.fill_idle_slot(&journal)?;
    Ok([Some(said), copied].into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

/// Gives up what is under way, or tells the process that installs to.
fn cancel_update(service: &UpdateService) -> Result<String, UpdateError> {
    service.machine.write_run_file("cancel", "")?;
    let _lock = match service.machine.lock_updates() {
        Ok(lock) => lock,
        Err(UpdateStepError::Locked { process }) => {
            return Ok(format!("process {process} is told to stop; what it has written is used again"));
        }
        Err(other) => return Err(other.into()),
    };
    let journal = service.resume_update()?;
    let _ = fs::remove_file(service.machine.run_file("cancel"));
    let target = match &journal.phase {
        Phase::Steady(_) => return Ok("nothing is under way".to_owned()),
        Phase::Trial(trial) => return Err(UpdateError::OnTrial { version: trial.target.version.clone() }),
        Phase::Armed(armed) if armed.kind == TrialKind::AfterSoft => {
            let why = format!(
                "release {} has proven itself already; 'initagent update rollback' goes back",
                armed.target.version
            );
            return Err(UpdateError::Nothing(why));
        }
        Phase::Armed(_) | Phase::Fetching(_) | Phase::Written(_) => journal.phase.update_target().cloned(),
    };
    let Some(target) = target else { return Ok("nothing is under way".to_owned()) };
    service.machine.change_table(Action::Disarm(target.slot))?;
    service.machine.withdraw_reboot();
    let running = service.machine.record.version.clone();
    let why = Outcome::Abandoned("a person cancelled it".to_owned());
    let journal =
        service.machine.save_journal(journal.end_update(unix_time(), running, target.clone(), why))?;
    service.publish_status(&journal);
    Ok(format!("the update to {} is given up; slot {} does not start", target.version, target.slot))
}

/// Goes back: from a trial by a verdict, else to the release that was good before.
fn roll_back(service: &UpdateService) -> Result<String, UpdateError> {
    let _lock = service.machine.lock_updates()?;
    let journal = service.resume_update()?;
    let record = &service.machine.record;
    let failure = Failure::new(Cause::Person, "'initagent update rollback'");
    if let Phase::Trial(trial) = journal.phase.clone() {
        return service.fail_trial(journal, trial, failure);
    }
    let (running, other) = (record.slot, !record.slot);
    let table = service.machine.slot_table()?;
    let state = table.map_or(SlotState::EMPTY, |table| table.slot_state(other));
    let is_after_soft = matches!(&journal.phase, Phase::Armed(armed) if armed.kind == TrialKind::AfterSoft);
    if !state.good || !(is_after_soft || matches!(journal.phase, Phase::Steady(_))) {
        let why = format!(
            "slot {other} holds nothing that is good; 'initagent update status' shows what is under way"
        );
        return Err(UpdateError::Nothing(why));
    }
    // Noted before the slot table changes: a release that a person left must not be installed again by itself.
    let target = left_release(&journal, service, running);
    let journal = Journal { phase: Phase::Steady(Steady::default()), ..journal };
    let journal = journal.end_update(unix_time(), record.version.clone(), target, Outcome::Failed(failure));
    service.machine.save_journal(journal.clone())?;
    // A slot that never started from the disk must not be what the machine falls back to.
    if is_after_soft {
        service.machine.change_table(Action::Disarm(running))?;
    }
    service.machine.change_table(Action::Arm(other))?;
    service.machine.require_reboot()?;
    service.publish_status(&journal);
    Ok(format!(
        "slot {other} starts at the next restart ('systemctl reboot'); {} is not installed again by itself",
        record.version
    ))
}

/// Answers on the system's bus until that ends.
fn serve_bus(service: &UpdateService) -> Result<String, UpdateError> {
    service.machine.make_run_folder().map_err(ServeBusError::from)?;
    bus::serve_system_bus(service, &service.machine.run_file(""))?;
    Ok("the bus has ended".to_owned())
}

impl UpdateEngine for UpdateService {
    fn read_status(&self) -> Result<EngineStatus, String> {
        let journal = read_journal(self).map_err(|error| error_chain(&error))?;
        Ok(UpdateStatus::gather_status(&self.machine, &journal, self.settings.clone()).to_engine_status())
    }

    fn attempt_update(&self) -> Result<(), String> {
        self.start_poll().map_err(|error| error_chain(&error))
    }

    fn reset_status(&self) -> Result<(), String> {
        cancel_update(self).map(drop).map_err(|error| error_chain(&error))
    }
}

/// The release that runs, as the update that brought it noted it.
fn left_release(journal: &Journal, service: &UpdateService, slot: image_format::slot::Slot) -> Target {
    let record = &service.machine.record;
    let brought = journal.history.iter().rev().map(|entry| &entry.target);
    let known = brought.into_iter().find(|target| target.root_hash == record.root_hash).cloned();
    known.unwrap_or_else(|| Target {
        slot,
        version: record.version.clone(),
        root_hash: record.root_hash,
        manifest: super::phase::ManifestDigest { bytes: 0, sha256: record.root_hash },
        source: "the image".to_owned(),
    })
}

/// What a word after `install` names.
pub(crate) fn parse_source(word: &std::ffi::OsStr) -> InstallSource {
    let version = word.to_str().and_then(|text| text.parse().ok());
    match version.filter(|_| !Path::new(word).exists()) {
        Some(version) => InstallSource::Version(version),
        None => InstallSource::Path(word.into()),
    }
}
