//! From what was asked for to steps in their order.
//!
//! Knows the order of a first boot and which file takes which setting. Refuses to look at the
//! machine: everything it must know of it comes as [`PlanFacts`]. Invariants: access comes first and
//! depends on nothing else; the same configuration and facts make the same plan.
//!
//! Documentation: `sshd_config(5)`, sudoers(5), and for the paths that are cloud-init's or CoreOS's, their
//! manuals.

use std::collections::HashSet;
use std::iter;

use super::CloudConfig;
use super::accounts::UserConfig;
use super::commands::Frequency;
use super::services::ServiceSettings;
use super::units::UnitConfig;
use crate::cluster::DEFINITION;
use crate::plan::step::{
    AccountRef, DEFAULT_USER, ExistingFile, FileContent, FileOwner, FileStep, GroupStep, HostKeys, PlanStep,
    ScriptStep, UnitVerb,
};
use crate::plan::{FirstBootPlan, PlanStage, PlannedStep, StepFrequency, StepOrigin, script_folders};
use crate::protected;
use crate::secret::Secret;
use crate::systemd::UnitClass;
use crate::template::InstanceData;
use crate::tokens::TokenAddresses;
use document::source::{Located, SourceMark};

/// What the machine's platform and history say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
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
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartScript {
    /// Its text.
    pub body: Secret<Vec<u8>>,
    /// Where it came from.
    pub at: SourceMark,
    /// When it runs.
    pub occasion: Occasion,
}

/// When a script of user-data runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
/// What runs on each machine of a cluster. On a worker etcd's unit skips itself.
const CLUSTER_UNITS: [&str; 2] = ["etcd.service", "fleet.service"];
/// What PAM gives each login.
const ENVIRONMENT: &str = "/etc/environment";
/// Where the services' passwords are. Not in a service's own directory of /run, which goes when it stops.
const SECRETS: &str = "/run/cloudinit";
// cloud-init's name for it, which documents write to and tools look for.
const SUDOERS: &str = "/etc/sudoers.d/90-cloud-init-users";

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

fn plan_accounts(plan: &mut FirstBootPlan, config: &CloudConfig) {
    // useradd fails without a group that exists, by which coreos-cloudinit lost all that came after.
    for group in bare_groups(config) {
        plan.push_once(
            PlanStage::Accounts,
            StepOrigin::from_mark(group.at, "groups"),
            PlanStep::CreateGroup(group.value),
        );
    }
    let mut rules = Vec::new();
    for person in &config.accounts.people {
        one_person(plan, config, person);
        let user = &person.value.user;
        rules.extend(user.sudo.iter().map(|rule| format!("{} {rule}\n", user.name)));
    }
    // Members can be added only once they exist.
    for group in config.accounts.groups.iter().filter(|group| !group.value.members.is_empty()) {
        plan.push_once(
            PlanStage::Accounts,
            StepOrigin::from_mark(group.at, "groups"),
            PlanStep::CreateGroup(group.value.clone()),
        );
    }
    if let Some(first) = config.accounts.people.iter().find(|person| !person.value.user.sudo.is_empty()) {
        // sudo refuses a file that others can write, and 0440 is the mode of sudoers(5).
        let step = PlanStep::WriteFile(settings_file(SUDOERS, rules.concat(), 0o440));
        plan.push_once(PlanStage::Accounts, StepOrigin::from_mark(first.at, "users"), step);
    }
    plan_passwords(plan, config);
}

/// Groups before their members: those asked for, then those that users need and that may be made.
fn bare_groups(config: &CloudConfig) -> Vec<Located<GroupStep>> {
    let bare = |name: &str, gid| GroupStep { name: name.to_owned(), gid, ..GroupStep::default() };
    let mut groups: Vec<Located<GroupStep>> = Vec::new();
    let mut seen = HashSet::new();
    for group in &config.accounts.groups {
        if seen.insert(group.value.name.clone()) {
            groups.push(Located {
                value: GroupStep { members: Vec::new(), ..group.value.clone() },
                at: group.at,
            });
        }
    }
    for person in config.accounts.people.iter().filter(|person| person.value.make_groups) {
        for name in person.value.user.groups.iter().chain(&person.value.user.primary_group) {
            if name.parse::<u32>().is_err() && *name != person.value.user.name && seen.insert(name.clone()) {
                groups.push(Located { value: bare(name, None), at: person.at });
            }
        }
    }
    groups
}

fn one_person(plan: &mut FirstBootPlan, config: &CloudConfig, person: &Located<UserConfig>) {
    let UserConfig { user, keys, imports, is_default, key, .. } = &person.value;
    let origin = |at: SourceMark| StepOrigin::from_mark(at, key);
    plan.push_once(PlanStage::Accounts, origin(person.at), PlanStep::CreateUser(user.clone()));
    let mut lines: Vec<String> = keys.iter().map(|key| key.value.clone()).collect();
    if *is_default {
        lines.extend(config.access.keys.iter().map(|key| key.value.clone()));
    }
    if !lines.is_empty() {
        let at = keys.first().map_or(person.at, |key| key.at);
        let step = PlanStep::AuthorizeKeys { user: user.name.clone(), keys: lines };
        plan.push_once(PlanStage::Accounts, origin(at), step);
    }
    for source in imports {
        let step = PlanStep::ImportKeys { user: user.name.clone(), from: source.value.clone() };
        plan.push_once(PlanStage::Accounts, origin(source.at), step);
    }
}

fn plan_passwords(plan: &mut FirstBootPlan, config: &CloudConfig) {
    let access = &config.access;
    let renamed = config.accounts.people.iter().find(|person| person.value.is_default);
    let renamed = renamed.map(|person| person.value.user.name.as_str());
    let default = renamed.unwrap_or(DEFAULT_USER);
    // As the listed keys are: `core` is always there, the renamed one is whom the author means.
    for source in &access.imports {
        for user in iter::once(DEFAULT_USER).chain(renamed) {
            let step = PlanStep::ImportKeys { user: user.to_owned(), from: source.value.clone() };
            plan.push_once(PlanStage::Accounts, StepOrigin::from_mark(source.at, "ssh_import_id"), step);
        }
    }
    if let Some(password) = &access.password {
        let step = PlanStep::SetPassword {
            user: default.to_owned(),
            password: password.value.clone(),
            expire: access.expire,
        };
        plan.push_once(PlanStage::Accounts, StepOrigin::from_mark(password.at, "password"), step);
    }
    for entry in &access.passwords {
        let (user, password) = entry.value.clone();
        let step = PlanStep::SetPassword { user, password, expire: access.expire };
        plan.push_once(PlanStage::Accounts, StepOrigin::from_mark(entry.at, "chpasswd"), step);
    }
}

/// Settings that are files.
fn plan_settings(plan: &mut FirstBootPlan, config: &CloudConfig, facts: &PlanFacts) {
    let mut write = |at: SourceMark, key: &str, path: &str, text: String| {
        plan.push_once(
            PlanStage::Files,
            StepOrigin::from_mark(at, key),
            PlanStep::WriteFile(settings_file(path, text, 0o644)),
        );
    };
    let system = &config.system;
    if let Some(word) = &system.provision {
        write(word.at, "provision", SWITCH, format!("{}\n", word.value));
    }
    if let Some(locale) = &system.locale {
        write(locale.at, "locale", "/etc/locale.conf", format!("LANG={}\n", locale.value));
    }
    if let Some(ntp) = &system.ntp {
        let text = format!("[Time]\nNTP={}\n", ntp.value.join(" "));
        write(ntp.at, "ntp", "/etc/systemd/timesyncd.conf.d/cloud-init.conf", text);
    }
    if let Some(resolver) = &system.resolver {
        let (servers, domains) = &resolver.value;
        let text = format!("[Resolve]\nDNS={}\nDomains={}\n", servers.join(" "), domains.join(" "));
        write(resolver.at, "resolv_conf", "/etc/systemd/resolved.conf.d/50-cloud-init.conf", text);
    }
    if let Some((at, key, text)) = sshd_settings(config) {
        write(at, key, "/etc/ssh/sshd_config.d/50-cloud-init.conf", text);
    }
    if let Some(oem) = &config.services.oem {
        write(oem.at, "coreos.oem", "/etc/oem-release", oem.value.clone());
    }
    if let Some(zone) = &system.timezone {
        plan.push_once(
            PlanStage::Files,
            StepOrigin::from_mark(zone.at, "timezone"),
            PlanStep::SetTimezone(zone.value.clone()),
        );
    }
    if let Some(authorities) = &system.authorities {
        let (trusted, remove_defaults) = authorities.value.clone();
        let step = PlanStep::TrustCertificates { trusted, remove_defaults };
        plan.push_once(PlanStage::Files, StepOrigin::from_mark(authorities.at, "ca_certs"), step);
    }
    environment_files(plan, config, facts);
    plan_cluster_file(plan, config);
}

/// The machine's cluster, for the programs that form it at each boot.
fn plan_cluster_file(plan: &mut FirstBootPlan, config: &CloudConfig) {
    if let Some(definition) = &config.cluster.definition {
        let step = PlanStep::WriteFile(settings_file(DEFINITION, definition.value.definition_text(), 0o600));
        plan.push_once(PlanStage::Files, StepOrigin::from_mark(definition.at, "cluster"), step);
    }
}

/// Settings of sshd, in a file that comes before the image's own: of each, sshd takes the first.
fn sshd_settings(config: &CloudConfig) -> Option<(SourceMark, &'static str, String)> {
    let word = |flag: bool| if flag { "yes" } else { "no" };
    let access = &config.access;
    let (login, root) = (access.password_login, access.close_root);
    let rsa = access.key_types.iter().any(|kind| kind == "rsa")
        || access.host_keys.iter().any(|(name, _)| name == "ssh_host_rsa_key");
    let mut text = String::new();
    if let Some(login) = login {
        text.extend(["PasswordAuthentication ", word(login.value), "\n"]);
    }
    if let Some(root) = root {
        // `prohibit-password` is sshd's own default, so `disable_root: false` lets in by key alone.
        text.extend(["PermitRootLogin ", if root.value { "no" } else { "prohibit-password" }, "\n"]);
    }
    if rsa {
        // The image's sshd_config names ed25519 and ecdsa only, and the first `HostKey` of all ends the
        // built-in list.
        text.push_str("HostKey /etc/ssh/ssh_host_rsa_key\n");
    }
    let places = [
        login.map(|flag| (flag.at, "ssh_pwauth")),
        root.map(|flag| (flag.at, "disable_root")),
        access.key_types_at.filter(|_| rsa).map(|at| (at, "ssh_genkeytypes")),
        access.host_keys_at.filter(|_| rsa).map(|at| (at, "ssh_keys")),
    ];
    let (at, key) = places.into_iter().flatten().next()?;
    Some((at, key, text))
}

fn environment_files(plan: &mut FirstBootPlan, config: &CloudConfig, facts: &PlanFacts) {
    if let Some(update) = &config.services.update {
        let step = PlanStep::MergeEnvironment {
            path: "/etc/coreos/update.conf".to_owned(),
            template: Some("/usr/share/coreos/update.conf".to_owned()),
            variables: update.variables.clone(),
        };
        plan.push_once(PlanStage::Files, StepOrigin::from_mark(update.at, "coreos.update"), step);
    }
    let lines = facts.addresses.environment_lines();
    if !lines.is_empty() {
        let variables = lines.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        let step = PlanStep::MergeEnvironment { path: ENVIRONMENT.to_owned(), template: None, variables };
        plan.every_boot(PlanStage::Files, StepOrigin::from("platform"), step);
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
        step => step.written_path().is_some_and(protected::concerns_access),
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

/// Contents first, then one reload, then masks and enables, then commands: none waits for another.
fn plan_units(plan: &mut FirstBootPlan, config: &CloudConfig) {
    let units = &config.units;
    for unit in units {
        unit_files(plan, unit);
    }
    service_files(plan, config);
    let wrote = plan.steps.iter().any(|one| one.stage == PlanStage::Units);
    for unit in units {
        unit_links(plan, unit);
    }
    if wrote || units.iter().any(|unit| unit.value.mask) {
        // One reload for all: it runs every generator, which took a third of an apply.
        plan.every_boot(PlanStage::Units, StepOrigin::from("agent"), PlanStep::ReloadUnits);
    }
    // A drop-in alone changes the network too: of the image's own file, or of one that is there.
    let changes_network = |unit: &Located<UnitConfig>| {
        let UnitConfig { class, content, drop_ins, .. } = &unit.value;
        *class == UnitClass::Network && (content.is_some() || !drop_ins.is_empty())
    };
    if units.iter().any(changes_network) {
        plan.every_boot(PlanStage::Units, StepOrigin::from("agent"), PlanStep::RestartNetwork);
    }
    if config.system.ntp.is_some() {
        push_restart(plan, "systemd-timesyncd.service");
    }
    if config.system.resolver.is_some() {
        push_restart(plan, "systemd-resolved.service");
    }
    // As `command: start` would, so that one key makes a member of a cluster.
    if let Some(definition) = &config.cluster.definition {
        for name in CLUSTER_UNITS {
            let step = PlanStep::CommandUnit { name: name.to_owned(), verb: UnitVerb::Start };
            plan.every_boot(PlanStage::Units, StepOrigin::from_mark(definition.at, "cluster"), step);
        }
    }
    for unit in units {
        let UnitConfig { class, mask, .. } = &unit.value;
        // A masked unit can only be stopped.
        let possible = |verb: &UnitVerb| *class == UnitClass::System && (!mask || *verb == UnitVerb::Stop);
        let command = unit.value.command.filter(possible);
        if let Some(verb) = command {
            let step = PlanStep::CommandUnit { name: unit.value.name.clone(), verb };
            plan.every_boot(PlanStage::Units, StepOrigin::from_mark(unit.at, &unit.value.key), step);
        }
    }
}

fn push_restart(plan: &mut FirstBootPlan, unit: &str) {
    let step = PlanStep::CommandUnit { name: unit.to_owned(), verb: UnitVerb::TryRestart };
    plan.push_once(PlanStage::Units, StepOrigin::from("agent"), step);
}

fn unit_files(plan: &mut FirstBootPlan, unit: &Located<UnitConfig>) {
    let UnitConfig { name, content, drop_ins, runtime, .. } = &unit.value;
    let origin = || StepOrigin::from_mark(unit.at, &unit.value.key);
    let mut add = |step| match runtime {
        true => plan.every_boot(PlanStage::Units, origin(), step),
        false => plan.push_once(PlanStage::Units, origin(), step),
    };
    if let Some(content) = content.as_ref().filter(|_| !unit.value.mask) {
        add(PlanStep::WriteUnit { name: name.clone(), content: content.clone(), runtime: *runtime });
    }
    for (drop_in, content) in drop_ins {
        add(PlanStep::WriteDropIn {
            unit: name.clone(),
            name: drop_in.clone(),
            content: content.clone(),
            runtime: *runtime,
        });
    }
}

fn unit_links(plan: &mut FirstBootPlan, unit: &Located<UnitConfig>) {
    let UnitConfig { name, class, enable, mask, runtime, .. } = &unit.value;
    let origin = || StepOrigin::from_mark(unit.at, &unit.value.key);
    let mut add = |step| match runtime {
        true => plan.every_boot(PlanStage::Units, origin(), step),
        false => plan.push_once(PlanStage::Units, origin(), step),
    };
    if *mask {
        add(PlanStep::MaskUnit { name: name.clone(), mask: true, runtime: *runtime });
    } else if let Some(enable) = enable.filter(|_| *class == UnitClass::System) {
        add(PlanStep::EnableUnit { name: name.clone(), enable, runtime: *runtime });
    }
}

/// The services' own configuration: in /run, so it is made at each boot with that boot's addresses.
fn service_files(plan: &mut FirstBootPlan, config: &CloudConfig) {
    for settings in &config.services.environments {
        for step in service_steps(settings) {
            let origin = StepOrigin::from_mark(settings.at, format!("coreos.{}", settings.service));
            plan.every_boot(PlanStage::Units, origin, step);
        }
    }
}

/// Passwords are for the manager's eyes, which reads the files as root and hands the variables on.
fn service_steps(settings: &ServiceSettings) -> Vec<PlanStep> {
    let unit = match settings.service {
        "flannel" => {
            return vec![PlanStep::WriteFile(settings_file(
                "/run/flannel/options.env",
                settings.environment_lines(),
                // flanneld's password may be in it.
                0o600,
            ))];
        }
        "locksmith" => "locksmithd.service".to_owned(),
        service => format!("{service}.service"),
    };
    let secrets = format!("{SECRETS}/{unit}.env");
    let (drop_in, hidden) = settings.drop_in(&secrets);
    let hidden = hidden.map(|text| PlanStep::WriteFile(settings_file(&secrets, text, 0o600)));
    let drop_in = PlanStep::WriteDropIn {
        unit,
        // coreos-cloudinit's own name, so that drop-ins with higher numbers go over it, as they did there.
        name: "20-cloudinit.conf".to_owned(),
        content: Secret::new(drop_in),
        runtime: true,
    };
    hidden.into_iter().chain([drop_in]).collect()
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

fn settings_file(path: &str, text: String, mode: u32) -> FileStep {
    FileStep {
        path: path.to_owned(),
        content: FileContent::Inline(Secret::new(text.into_bytes())),
        mode: Some(mode),
        owner: FileOwner { user: Some(AccountRef::Id(0)), group: Some(AccountRef::Id(0)) },
        existing: ExistingFile::Replace,
    }
}
