//! From what was asked for to steps in their order.
//!
//! Knows the order of a first boot and which file takes which setting. Refuses to look at the
//! machine: everything it must know of it comes as [`PlanFacts`]. Invariants: access comes first and
//! depends on nothing else; the same configuration and facts make the same plan.
//!
//! Documentation: `sshd_config(5)`, sudoers(5), and for the paths that are cloud-init's or CoreOS's, their
//! manuals.

mod accounts;
mod settings;
mod units;

use std::collections::HashSet;

use document::source::SourceMark;

use super::CloudConfig;
use super::commands::Frequency;
use crate::plan::step::{DEFAULT_USER, FileContent, FileStep, HostKeys, PlanStep, ScriptStep};
use crate::plan::{FirstBootPlan, PlanStage, PlannedStep, StepFrequency, StepOrigin, script_folders};
use crate::protected;
use crate::secret::Secret;
use crate::template::InstanceData;
use crate::tokens::TokenAddresses;
use accounts::plan_accounts;
use settings::{plan_settings, settings_file};
use units::plan_units;

/// What the machine's platform and history say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanFacts {
    /// Its addresses.
    pub addresses: TokenAddresses,
    /// The name the platform gives it.
    pub hostname: Option<String>,
    /// The keys the platform gives it, checked.
    pub keys: Vec<String>,
    /// Whether this disk was another instance before, so that its host keys are not its own.
    pub is_clone: bool,
    /// Which of the machines it is that were started together.
    pub launch_index: Option<u32>,
    /// What templates may name.
    pub instance: InstanceData,
}

/// A script among the parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartScript {
    /// Its text.
    pub body: Secret<Vec<u8>>,
    /// Where it came from.
    pub at: SourceMark,
    /// When it runs.
    pub occasion: Occasion,
}

/// When a script of user-data runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Early, at each boot.
    Boothook,
    /// At each boot.
    EachBoot,
    /// Once in the life of an instance, unless the document says that scripts always run.
    Instance,
    /// Once, whatever instance the machine is.
    Once,
}

/// How long `bootcmd` may hold up the boot.
// cloud-init waits for ever. Here the network and sshd come after, so a command that hangs must end.
const BOOTCMD_SECONDS: u32 = 60;
/// RSA is left out: it takes seconds to make, and every client of today knows the others.
const KEY_TYPES: [&str; 2] = ["ed25519", "ecdsa"];
/// The file that says whether the machine may be configured again.
pub const SWITCH: &str = "/etc/catamaran/provision";
/// What PAM gives each login.
const ENVIRONMENT: &str = "/etc/environment";
/// Where the services' passwords are. Not in a service's own directory of /run, which goes when it stops.
const SECRETS: &str = "/run/cloudinit";
/// The whole plan.
#[must_use]
pub fn plan_config(config: &CloudConfig, scripts: &[PartScript], facts: &PlanFacts) -> FirstBootPlan {
    let mut plan = FirstBootPlan::default();
    // The stages sort the steps. The calls stand in the same order, so that steps of one stage do, too.
    plan_identity(&mut plan, config, facts);
    plan_access(&mut plan, config, facts);
    plan_early_commands(&mut plan, config);
    plan_storage(&mut plan, config);
    plan_accounts(&mut plan, config);
    plan_settings(&mut plan, config, facts);
    plan_files(&mut plan, config);
    plan_units(&mut plan, config);
    scripts_of(&mut plan, config, scripts);
    plan_closing(&mut plan, config);
    plan.sort_by_stage();
    plan
}

fn plan_identity(plan: &mut FirstBootPlan, config: &CloudConfig, facts: &PlanFacts) {
    let identity = &config.identity;
    // The document's name goes before the platform's.
    let names = identity.resolve_names(facts.hostname.as_deref());
    let origin = match identity.hostname.as_ref().or(identity.fqdn.as_ref()) {
        Some(name) => {
            StepOrigin::from_mark(name.at, if identity.hostname.is_some() { "hostname" } else { "fqdn" })
        }
        None => StepOrigin::from("platform"),
    };
    if let Some(names) = names.as_ref().filter(|_| !identity.preserve) {
        plan.push_once(PlanStage::Identity, origin, PlanStep::SetHostname(names.hostname.clone()));
    }
    if let Some(style) = &identity.hosts {
        // Without a name in the document or from the platform, it is the one that the machine has.
        let short = names.as_ref().and_then(|names| names.hostname.split('.').next()).map(str::to_owned);
        let fqdn = names.and_then(|names| names.fqdn);
        let step = PlanStep::SetHosts { fqdn, hostname: short, style: style.value };
        plan.every_boot(PlanStage::Identity, StepOrigin::from_mark(style.at, "manage_etc_hosts"), step);
    }
}

fn plan_access(plan: &mut FirstBootPlan, config: &CloudConfig, facts: &PlanFacts) {
    let access = &config.access;
    let user = || DEFAULT_USER.to_owned();
    let types = if access.key_types.is_empty() {
        KEY_TYPES.map(str::to_owned).to_vec()
    } else {
        access.key_types.clone()
    };
    let host_keys =
        HostKeys { renew: facts.is_clone && !access.keep_host_keys, types, given: access.host_keys.clone() };
    let origin = access
        .host_keys_at
        .map_or_else(|| StepOrigin::from("agent"), |at| StepOrigin::from_mark(at, "ssh_keys"));
    plan.push_once(PlanStage::Identity, origin, PlanStep::PrepareHostKeys(host_keys));
    platform_keys(plan, config, facts);
    if let Some(first) = access.keys.first() {
        let keys = access.keys.iter().map(|key| key.value.clone()).collect();
        let origin = StepOrigin::from_mark(first.at, "ssh_authorized_keys");
        plan.push_once(PlanStage::Identity, origin, PlanStep::AuthorizeKeys { user: user(), keys });
    }
}

/// At each boot, since a key may have been taken away or have come; for the image's own user, and for the one
/// who has its place. They are not added to a user's own, where nothing would ever take them away.
fn platform_keys(plan: &mut FirstBootPlan, config: &CloudConfig, facts: &PlanFacts) {
    if facts.keys.is_empty() || config.access.without_platform_keys {
        return;
    }
    let default = config.accounts.people.iter().filter(|person| person.value.is_default);
    let mut users = vec![DEFAULT_USER];
    users.extend(default.map(|person| person.value.user.name.as_str()).filter(|name| *name != DEFAULT_USER));
    for user in users {
        let step = PlanStep::SetPlatformKeys { user: user.to_owned(), keys: facts.keys.clone() };
        plan.every_boot(PlanStage::Identity, StepOrigin::from("platform"), step);
    }
}

fn plan_early_commands(plan: &mut FirstBootPlan, config: &CloudConfig) {
    if let Some(script) = &config.commands.boot {
        let body = Secret::new(script.value.reveal().clone().into_bytes());
        let step =
            PlanStep::RunScript(ScriptStep { name: "bootcmd".to_owned(), body, wait: Some(BOOTCMD_SECONDS) });
        plan.every_boot(PlanStage::Early, StepOrigin::from_mark(script.at, "bootcmd"), step);
    }
}

fn plan_storage(plan: &mut FirstBootPlan, config: &CloudConfig) {
    let storage = &config.storage;
    for disk in &storage.disks {
        let step = PlanStep::PartitionDisk(disk.value.clone());
        plan.push_once(PlanStage::Storage, StepOrigin::from_mark(disk.at, "disk_setup"), step);
    }
    for fs in &storage.filesystems {
        plan.push_once(
            PlanStage::Storage,
            StepOrigin::from_mark(fs.at, "fs_setup"),
            PlanStep::MakeFilesystem(fs.value.clone()),
        );
    }
    if let Some(first) = storage.mounts.first() {
        let mounts = storage.mounts.iter().map(|mount| mount.value.clone()).collect();
        plan.push_once(
            PlanStage::Storage,
            StepOrigin::from_mark(first.at, "mounts"),
            PlanStep::AddMounts(mounts),
        );
    }
    if let Some(swap) = &storage.swap {
        let (path, size) = swap.value.clone();
        plan.push_once(
            PlanStage::Storage,
            StepOrigin::from_mark(swap.at, "swap"),
            PlanStep::MakeSwap { path, size },
        );
    }
}

/// Leaves /etc/environment to its author, by whichever document: with the platform's addresses in it before,
/// Ignition would find a file that it may not replace.
pub(crate) fn leave_environment(plan: &mut FirstBootPlan) {
    if plan.steps.iter().any(|planned| planned.step.written_path() == Some(ENVIRONMENT)) {
        let is_ours =
            |step: &PlanStep| matches!(step, PlanStep::MergeEnvironment { path, .. } if path == ENVIRONMENT);
        plan.steps.retain(|planned| !is_ours(&planned.step));
    }
}

/// Leaves out what others than the user put where the user's Ignition puts something itself. Ignition replaces
/// nothing unless it was told to, and nobody tells it of files that the platform brings.
pub(crate) fn leave_places(
    plan: &mut FirstBootPlan,
    user: &FirstBootPlan,
    is_users: impl Fn(&PlannedStep) -> bool,
) {
    let adds_only = |step: &PlanStep| matches!(step, PlanStep::PlaceFile(file) if file.contents.is_none());
    let places: HashSet<&str> = user
        .steps
        .iter()
        .filter(|planned| !adds_only(&planned.step))
        .filter_map(|planned| planned.step.written_path())
        .collect();
    plan.steps.retain(|planned| {
        is_users(planned) || !planned.step.written_path().is_some_and(|path| places.contains(path))
    });
}

/// The files that were asked for.
fn plan_files(plan: &mut FirstBootPlan, config: &CloudConfig) {
    for written in &config.files {
        let stage = if written.value.defer { PlanStage::DeferredFiles } else { PlanStage::Files };
        let origin = StepOrigin::from_mark(written.at, &written.value.key);
        let step = PlanStep::WriteFile(written.value.file.clone());
        // What lies in /run is gone after a boot.
        if written.value.file.path.starts_with("/run/") {
            plan.every_boot(stage, origin, step);
        } else {
            plan.push_once(stage, origin, step);
        }
    }
}

/// What is written may concern access, by whichever document: keys are added again, then sshd is asked.
pub(crate) fn add_access_checks(plan: &mut FirstBootPlan) {
    let concerns = |planned: &PlannedStep| match &planned.step {
        PlanStep::PrepareHostKeys(keys) => keys.renew || !keys.given.is_empty(),
        step => step.written_path().is_some_and(protected::paths::concerns_access),
    };
    if !plan.steps.iter().any(concerns) {
        return;
    }
    let homes =
        |planned: &PlannedStep| planned.step.written_path().is_some_and(|path| path.contains("/.ssh"));
    if plan.steps.iter().any(homes) {
        let is_key = |planned: &&PlannedStep| matches!(planned.step, PlanStep::AuthorizeKeys { .. });
        let again: Vec<PlanStep> =
            plan.steps.iter().filter(is_key).map(|planned| planned.step.clone()).collect();
        for step in again {
            plan.push_once(PlanStage::DeferredFiles, StepOrigin::from("agent"), step);
        }
    }
    plan.push_once(PlanStage::DeferredFiles, StepOrigin::from("agent"), PlanStep::GuardAccess);
    plan.sort_by_stage();
}

fn scripts_of(plan: &mut FirstBootPlan, config: &CloudConfig, scripts: &[PartScript]) {
    // cloud-init runs `runcmd` among the user's scripts, so `scripts-user: always` is for both.
    let usual = match config.commands.scripts {
        Frequency::Always => StepFrequency::EveryBoot,
        Frequency::Instance => StepFrequency::FirstBoot,
    };
    for (index, script) in scripts.iter().enumerate() {
        let step =
            |name: String, wait| PlanStep::RunScript(ScriptStep { name, body: script.body.clone(), wait });
        let origin = StepOrigin::from_mark(script.at, "script");
        // Unit and file are called so. Names of the author's could collide or be no names at all.
        let name = format!("script-{index}");
        match script.occasion {
            Occasion::Boothook => {
                let step = step(format!("boothook-{index}"), Some(BOOTCMD_SECONDS));
                plan.every_boot(PlanStage::Early, origin, step);
            }
            Occasion::EachBoot => plan.every_boot(PlanStage::Scripts, origin, step(name, None)),
            Occasion::Instance => plan.add(PlanStage::Scripts, usual, origin, step(name, None)),
            // As cloud-init does, so that the folder's marks hold for it, too.
            Occasion::Once => {
                let path = format!("{}part-{index}", script_folders::PER_ONCE);
                let content = FileContent::Inline(script.body.clone());
                let file =
                    FileStep { content, mode: Some(0o700), ..settings_file(&path, String::new(), 0o700) };
                plan.push_once(PlanStage::Files, origin, PlanStep::WriteFile(file));
            }
        }
    }
    if let Some(script) = &config.commands.run {
        let body = Secret::new(script.value.reveal().clone().into_bytes());
        let step = PlanStep::RunScript(ScriptStep { name: "runcmd".to_owned(), body, wait: None });
        plan.add(PlanStage::Scripts, usual, StepOrigin::from_mark(script.at, "runcmd"), step);
    }
}

fn plan_closing(plan: &mut FirstBootPlan, config: &CloudConfig) {
    let commands = &config.commands;
    if let Some(home) = &commands.phone_home {
        let step = PlanStep::PhoneHome(home.value.clone());
        plan.push_once(PlanStage::Closing, StepOrigin::from_mark(home.at, "phone_home"), step);
    }
    if let Some(message) = &commands.message {
        let step = PlanStep::ShowMessage(message.value.clone());
        plan.every_boot(PlanStage::Closing, StepOrigin::from_mark(message.at, "final_message"), step);
    }
    if let Some(power) = &commands.power {
        let step = PlanStep::ChangePower(power.value.clone());
        plan.push_once(PlanStage::Closing, StepOrigin::from_mark(power.at, "power_state"), step);
    }
}
