//! One run, from the platform to the result.
//!
//! Knows what happens once and what at each boot. Refuses to know any format. Invariant: the instance
//! is remembered as configured only after its files are on the disk and its scripts were started.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use error_text::error_chain;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use platform::{BootKind, DetectedPlatform, InstanceMetadata, WebTiming};
use user_data::cloudconfig::order::PlanFacts;
use user_data::plan::step::PlanStep;
use user_data::plan::{FirstBootPlan, PlanStage, PlannedStep, StepFrequency};
use user_data::reading::{self, UserDataInput};

use crate::apply::{self, ApplyContext, StepResult};
use crate::chooser::{Chooser, platform_host};
use crate::files::{self, FileRights};
use crate::instance_data::Names;
use crate::machine::MachineAccess;
use crate::outcome::{self, ResultItem, RunOutcome, Verdict};
use crate::root::MachineRoot;
use crate::source::Switch;
use crate::{facts, record, way_in};

const RESULT: &str = "/run/catamaran/first-boot.json";
const LOCK: &str = "/run/catamaran/first-boot.lock";
const LOCK_MODE: u32 = 0o600;
/// Longer than a whole run with a silent platform; after it the boot goes on, since nothing of it is worse
/// than a machine that never comes up.
const LOCK_PATIENCE: Duration = Duration::from_mins(6);
/// Says that whoever may log in can: sshd waits for it on a machine that nobody had before.
const LOGINS: &str = "/run/catamaran/logins";
// /run/metadata is the folder of afterburn and coreos-metadata, which units of users name in
// `EnvironmentFile=`.
const METADATA: &str = "/run/metadata/catamaran";
const MOST: u64 = 64 << 20;
/// How long a platform that is known to be there may take, its network included.
const TIMING: WebTiming = WebTiming {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(20),
    total: Duration::from_mins(4),
    first_pause: Duration::from_millis(200),
    longest_pause: Duration::from_secs(5),
};

/// How long a document that names an address may wait for an interface to have one.
const NETWORK_PATIENCE: Duration = Duration::from_secs(30);

/// How long a platform may take to hear that the machine is up.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(30);

/// How a run is meant.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RunOptions {
    /// Configures again what was configured before.
    pub force: bool,
}

/// The verb of each boot: finds the platform, asks it, does what is asked for.
#[must_use]
pub fn run_first_boot(options: RunOptions, machine: &MachineAccess) -> RunOutcome {
    let root = &machine.root;
    let mut outcome = RunOutcome::default();
    let _lock = lock_run(root, LOCK_PATIENCE, &mut outcome);
    let place = platform_host(root);
    let chooser = Chooser::of(root, &place, options.force.then_some(Switch::Always), &mut outcome);
    let detected = chooser.ask(&place, &mut outcome);
    let current = ask_platform(root, &place, detected.as_ref(), &chooser, &mut outcome);
    let Some(Current { mut provision, is_fresh }) = current else {
        outcome.instance_id = record::configured_instance(root).unwrap_or_else(|| "unknown".to_owned());
        keep_access(machine, &mut outcome);
        open_logins(root, &mut outcome);
        return write_result(root, outcome);
    };
    let known = record::configured_instance(root);
    let instance = facts::instance_identity(&provision);
    let is_same = known.as_deref() == Some(instance.id.as_str());
    outcome.is_first = options.force || !is_same;
    outcome.instance_id.clone_from(&instance.id);
    // A disk that was another instance is a clone, unless nobody but us gave the instances names.
    let was_named = known.as_ref().is_some_and(|known| !known.starts_with("unnamed"));
    let host = ApplyContext::new(machine, &instance.id);
    // Before user-data is read: an `#include` or Ignition's `merge` fetches what it is made of.
    let network = bring_up_network(&provision, &host);
    let handed = facts::gather_input(&provision, machine);
    if root.is_running() && facts::ask_for_addresses(&handed) {
        provision.addresses = provision.addresses.or_interfaces(NETWORK_PATIENCE);
        store_metadata(root, &provision, &mut outcome);
    }
    let names = names_of(&provision, root, &mut outcome);
    let facts = facts::plan_facts(&provision, !is_same && was_named && instance.is_named, &names);
    let reading = reading::read(&handed, &facts);
    outcome.found = reading.found;
    outcome.sources = reading.sources;
    let when = if outcome.is_first { None } else { Some(StepFrequency::EveryBoot) };
    let [plan, closing] = way_in::limit_steps(root, split_plan(reading.plan, when).into(), &mut outcome);
    let (done, plan): (Vec<_>, Vec<_>) = plan.into_iter().partition(|one| one.stage == PlanStage::Network);
    outcome.items.extend(done.into_iter().zip(network).map(|(planned, done)| ResultItem { planned, done }));
    let (way_in, plan): (Vec<_>, Vec<_>) = plan.into_iter().partition(|one| one.stage < PlanStage::Units);
    // Before keys are written: who is not named any more must be out, also if the run fails behind this.
    apply::retain_platform_keys(root, &users_of_platform(&way_in));
    carry_out(way_in, &host, &mut outcome);
    open_logins(root, &mut outcome);
    carry_out(plan, &host, &mut outcome);
    // What could not be had is asked for again at the next boot.
    let is_whole = !provision.lacks("user-data");
    if let Some(detected) = detected.as_ref().filter(|_| is_whole && is_fresh) {
        chooser.remember(detected, &mut outcome);
    }
    if outcome.is_first && is_whole {
        mark_configured(root, &instance.id, &mut outcome);
    }
    if let Some(detected) = detected.filter(|_| root.is_running()) {
        check_in(&detected, &mut outcome);
    }
    chooser.report_late(&mut outcome);
    carry_out(closing, &host, &mut outcome);
    write_result(root, outcome)
}

/// What templates may name: of an instance that is configured, as it was then.
fn names_of(provision: &InstanceMetadata, root: &MachineRoot, outcome: &mut RunOutcome) -> Names {
    if let Some(kept) = Names::kept(root).filter(|_| !outcome.is_first) {
        return kept;
    }
    let names = Names::of(provision, &outcome.instance_id, root);
    if let Err(error) = names.keep(root) {
        outcome
            .problems
            .push(format!("cannot keep the names that templates may use: {}", error.error_chain()));
    }
    names
}

/// The network before anything that may need it: what user-data refers to, addresses, keys elsewhere.
///
/// The fates are in the order of the network steps of any plan of the same provision. At each boot,
/// since a platform may attach an interface meanwhile; what runs is left alone if nothing changed.
fn bring_up_network(provision: &InstanceMetadata, host: &ApplyContext<'_>) -> Vec<StepResult> {
    let handed = UserDataInput { network: facts::network_part(provision), ..UserDataInput::default() };
    let mut plan = reading::read(&handed, &PlanFacts::default()).plan;
    plan.steps.retain(|planned| planned.stage == PlanStage::Network);
    let mut fates = Vec::new();
    for planned in &plan.steps {
        let is_idle = planned.step == PlanStep::RestartNetwork && !fates.contains(&StepResult::Changed);
        let one =
            if is_idle { vec![StepResult::Unchanged] } else { apply::carry_out(from_ref(planned), host) };
        fates.extend(one);
    }
    fates
}

/// For whom the platform has keys at this boot.
fn users_of_platform(steps: &[PlannedStep]) -> Vec<&str> {
    let mut users = Vec::new();
    for planned in steps {
        if let PlanStep::SetPlatformKeys { user, .. } = &planned.step {
            users.push(user.as_str());
        }
    }
    users
}

/// Tells the platform that the machine is up.
fn check_in(detected: &DetectedPlatform, outcome: &mut RunOutcome) {
    let boot = if outcome.is_first { BootKind::First } else { BootKind::Later };
    let timing = WebTiming { total: RECEIPT_PATIENCE, ..TIMING };
    if let Err(error) = detected.check_in(boot, &platform::MetadataWeb::new(timing, jitter_seed())) {
        outcome.problems.push(format!(
            "the platform did not take the report that this machine is up: {}",
            error_chain(&error)
        ));
    }
}

/// `apply --from-file`: does what a file asks for, now.
#[must_use]
pub fn apply_file(file: &Path, machine: &MachineAccess) -> RunOutcome {
    let root = &machine.root;
    let mut outcome = RunOutcome { platform: "a file".to_owned(), is_first: true, ..RunOutcome::default() };
    let _lock = lock_run(root, LOCK_PATIENCE, &mut outcome);
    let kept = record::load_metadata(root).unwrap_or_default();
    outcome.instance_id = facts::instance_identity(&kept).id;
    let bytes = match read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            outcome.failures.push(format!("cannot read {}: {error}", file.display()));
            return outcome;
        }
    };
    let name = file.display().to_string();
    let user = facts::unpack_with(&name, &bytes, machine);
    let handed = UserDataInput { user, ..UserDataInput::default() };
    let names = Names::kept(root).unwrap_or_else(|| Names::of(&kept, &outcome.instance_id, root));
    let facts = PlanFacts { hostname: None, keys: Vec::new(), ..facts::plan_facts(&kept, false, &names) };
    let reading = reading::read(&handed, &facts);
    outcome.found = reading.found;
    outcome.sources = reading.sources;
    let id = outcome.instance_id.clone();
    let host = ApplyContext::new(machine, &id);
    carry_out(reading.plan.steps, &host, &mut outcome);
    record::sync_file_systems(root);
    outcome
}

/// The result of the last run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunStatus {
    /// How it went; `None` if there was no run.
    pub verdict: Option<Verdict>,
    /// For people.
    pub text: String,
    /// The result file.
    pub json: String,
}

/// What the last run left.
#[must_use]
pub fn last_status(root: &MachineRoot) -> RunStatus {
    let kept = format!("{}/result.json", record::FOLDER);
    let text =
        [RESULT, kept.as_str()].into_iter().find_map(|path| fs::read_to_string(root.path_of(path)).ok());
    let Some(result) = text.and_then(|text| serde_json::from_str(&text).ok()) else {
        let text = "no first boot has ended yet\n".to_owned();
        return RunStatus { verdict: None, text, json: "null\n".to_owned() };
    };
    RunStatus {
        verdict: outcome::verdict_of(&result),
        text: outcome::describe_result(&result),
        json: format!("{result:#}\n"),
    }
}

/// What the run of this boot left, once it has ended; what an earlier boot left is another's, if the disk is
/// a clone's.
#[must_use]
pub fn ended_status(root: &MachineRoot) -> Option<RunStatus> {
    root.path_of(RESULT).exists().then(|| last_status(root))
}

/// Waits until the run of this boot has done everything that logins need, and says whether it came so far
/// in time.
#[must_use]
pub fn await_logins(root: &MachineRoot, patience: Duration) -> bool {
    let began = Instant::now();
    while !root.path_of(LOGINS).exists() {
        if began.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

fn open_logins(root: &MachineRoot, outcome: &mut RunOutcome) {
    if let Err(error) = files::write(&root.path_of(LOGINS), b"", FileRights::PUBLIC) {
        outcome.failures.push(format!("cannot tell sshd that it may start: {}", error.error_chain()));
    }
}

/// Two runs must not meet; the second one waits for the first.
fn lock_run(root: &MachineRoot, patience: Duration, outcome: &mut RunOutcome) -> Option<File> {
    let path = root.path_of(LOCK);
    let locked = files::make_parents(&path, FileRights::PUBLIC)
        .map_err(|error| error.error_chain())
        .and_then(|()| locked(&path, patience).map_err(|error| error.to_string()));
    locked.map_err(|error| outcome.failures.push(format!("cannot lock {LOCK}: {error}"))).ok()
}

/// Only root can open the file: whoever can open it can lock it, and keep us out.
fn locked(path: &Path, patience: Duration) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(LOCK_MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(LOCK_MODE))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let reason = format!("another run has held it for {} s", patience.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
        }
    }
}

/// What a machine goes by at this boot.
struct Current {
    provision: InstanceMetadata,
    /// Whether the platform said so now; else it is what was said before.
    is_fresh: bool,
}

impl Current {
    fn before(provision: InstanceMetadata) -> Self {
        Self { provision, is_fresh: false }
    }
}

/// What the platform says, or said last time if it is silent now or turned away.
fn ask_platform(
    root: &MachineRoot,
    place: &platform::Host,
    detected: Option<&DetectedPlatform>,
    chooser: &Chooser<'_>,
    outcome: &mut RunOutcome,
) -> Option<Current> {
    let Some(detected) = detected else {
        // Whatever configured it is gone, or there never was anything.
        let before = record::source(root).map(|remembered| remembered.source.platform);
        outcome.platform = before.unwrap_or_else(|| "metal".to_owned());
        return Some(Current::before(record::load_metadata(root).unwrap_or_default()));
    };
    outcome.platform = detected.platform.to_string();
    match detected.fetch_metadata(place, &platform::MetadataWeb::new(TIMING, jitter_seed())) {
        Ok(provision) => {
            let told = |problem| format!("the platform did not hand over {problem}");
            outcome.problems.extend(provision.problems.iter().map(told));
            if let Some(kept) = chooser.turn_away_instance(&provision, outcome) {
                return Some(Current::before(kept));
            }
            let provision = completed(root, provision);
            store_metadata(root, &provision, outcome);
            Some(Current { provision, is_fresh: true })
        }
        Err(error) => use_last_metadata(root, detected, &error, outcome).map(Current::before),
    }
}

/// What the platform says, with what it said before in the place of what cannot be trusted or had now.
///
/// User-data that comes beside its own answer, on a volume, may be gone or anybody's by now. Keys that could
/// not be asked for are those of the last boot: else a service that is out of breath would keep people out.
fn completed(root: &MachineRoot, provision: InstanceMetadata) -> InstanceMetadata {
    let is_same = record::configured_instance(root)
        .is_some_and(|known| known == facts::instance_identity(&provision).id);
    let Some(kept) = record::load_metadata(root).filter(|_| is_same) else { return provision };
    let mut provision = provision;
    if provision.is_by_volume {
        provision.user_data = kept.user_data;
    }
    if provision.lacks_keys() {
        let known = provision.ssh_keys.clone();
        provision.ssh_keys.extend(kept.ssh_keys.into_iter().filter(|key| !known.contains(key)));
    }
    provision
}

fn use_last_metadata(
    root: &MachineRoot,
    detected: &DetectedPlatform,
    error: &platform::FetchError,
    outcome: &mut RunOutcome,
) -> Option<InstanceMetadata> {
    let text = format!("cannot ask {} ({}): {}", detected.platform, detected.evidence, error_chain(error));
    let kept = record::load_metadata(root);
    if kept.is_some() {
        outcome
            .problems
            .push(format!("the platform said nothing, so what it said last time is used: {text}"));
    } else {
        outcome.failures.push(text);
    }
    kept
}

fn store_metadata(root: &MachineRoot, provision: &InstanceMetadata, outcome: &mut RunOutcome) {
    let metadata = provision.metadata_file();
    let written = files::write(&root.path_of(METADATA), metadata.as_bytes(), FileRights::PUBLIC);
    if let Err(error) = written.map(drop).and_then(|()| record::store_metadata(root, provision)) {
        outcome
            .problems
            .push(format!("cannot keep what the platform said for later boots: {}", error.error_chain()));
    }
}

/// Nobody says what to do: the machine still gets its host keys.
fn keep_access(machine: &MachineAccess, outcome: &mut RunOutcome) {
    let plan = reading::read(&UserDataInput::default(), &PlanFacts::default()).plan;
    let host = ApplyContext::new(machine, "unknown");
    carry_out(plan.steps, &host, outcome);
}

/// The steps of this boot, and those of them that come after it is remembered.
fn split_plan(plan: FirstBootPlan, only: Option<StepFrequency>) -> (Vec<PlannedStep>, Vec<PlannedStep>) {
    let wanted = |planned: &PlannedStep| {
        planned.stage == PlanStage::Network || only.is_none_or(|when| planned.when == when)
    };
    let steps = plan.steps.into_iter().filter(wanted);
    steps.partition(|planned| planned.stage != PlanStage::Closing)
}

fn carry_out(steps: Vec<PlannedStep>, host: &ApplyContext<'_>, outcome: &mut RunOutcome) {
    let fates = apply::carry_out(&steps, host);
    outcome.items.extend(steps.into_iter().zip(fates).map(|(planned, done)| ResultItem { planned, done }));
}

fn mark_configured(root: &MachineRoot, instance: &str, outcome: &mut RunOutcome) {
    if let Err(error) = record::mark_configured(root, instance) {
        outcome
            .failures
            .push(format!("cannot remember that instance {instance} is configured: {}", error.error_chain()));
    }
}

/// Leaves the result where people and programs look.
fn write_result(root: &MachineRoot, mut outcome: RunOutcome) -> RunOutcome {
    let result = outcome.to_json().to_string();
    // What the first boot did stays to be read after the second.
    let kept = if outcome.is_first { record::write(root, "result.json", result.as_bytes()) } else { Ok(()) };
    let shown = files::write(&root.path_of(RESULT), result.as_bytes(), FileRights::PUBLIC).map(drop);
    for error in [kept, shown].into_iter().filter_map(Result::err) {
        outcome.failures.push(format!("cannot leave the result: {}", error.error_chain()));
    }
    outcome
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let path: PathBuf = file.to_owned();
    File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Decides the jitter of pauses only.
fn jitter_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::from(now.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_beside_the_platforms_answer_is_that_of_the_first_boot() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        let said = |user_data: &[u8], instance: &str| InstanceMetadata {
            user_data: platform::Payload::from_bytes(user_data.to_vec()),
            instance_id: Some(instance.to_owned()),
            is_by_volume: true,
            ..InstanceMetadata::default()
        };
        let now = |user_data, instance| completed(&root, said(user_data, instance)).user_data;
        let first = said(b"first", "i-1");
        assert_eq!(now(b"first", "i-1"), first.user_data);
        record::store_metadata(&root, &first).unwrap();
        record::mark_configured(&root, "i-1").unwrap();

        assert_eq!(now(b"evil", "i-1"), first.user_data);
        assert_eq!(now(b"", "i-1"), first.user_data);
        assert_eq!(now(b"second", "i-2"), said(b"second", "i-2").user_data);
    }

    #[test]
    fn keys_that_cannot_be_asked_for_are_those_of_the_last_boot() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        let said = |keys: &[&str], item: &str| {
            let problem = platform::MetadataProblem { item: item.to_owned(), cause: "503".to_owned() };
            InstanceMetadata {
                instance_id: Some("i-1".to_owned()),
                ssh_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
                problems: vec![problem],
                ..InstanceMetadata::default()
            }
        };
        record::store_metadata(&root, &said(&["a", "b"], "zone")).unwrap();
        record::mark_configured(&root, "i-1").unwrap();
        let now = |keys, item| completed(&root, said(keys, item)).ssh_keys;

        assert_eq!(now(&["c", "b"], "ssh keys"), ["c", "b", "a"]);
        assert_eq!(now(&[], "metadata"), ["a", "b"]);
        // Taken away, or refused for its date.
        assert_eq!(now(&["b"], "zone"), ["b"]);
        assert_eq!(now(&[], "an ssh key"), [""; 0]);
    }

    #[test]
    fn a_lock_that_is_held_does_not_stop_the_run_and_is_roots_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        let mut outcome = RunOutcome::default();
        let held = lock_run(&root, Duration::ZERO, &mut outcome).unwrap();
        assert_eq!(held.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        assert!(lock_run(&root, Duration::from_millis(50), &mut outcome).is_none());

        assert_eq!(
            outcome.failures,
            ["cannot lock /run/catamaran/first-boot.lock: another run has held it for 0 s"]
        );
    }
}
