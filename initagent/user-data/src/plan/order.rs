//! From what was asked for to steps in their order.
//!
//! Knows the order of a first boot and which file takes which setting. Refuses to look at the
//! machine: everything it must know of it comes as [`Facts`]. Invariants: access comes first and
//! depends on nothing else; the same configuration and facts make the same plan.

use std::collections::HashSet;
use std::iter;

use super::step::{Account, Content, Existing, File, Group, HostKeys, Owner, Script, Step, Verb};
use super::{Origin, Plan, Planned, Stage, When, script_folders};
use crate::cloudconfig::accounts::Person;
use crate::cloudconfig::commands::Frequency;
use crate::cloudconfig::services::Settings;
use crate::cloudconfig::units::Unit;
use crate::cloudconfig::{Config, DEFAULT_USER};
use crate::cluster::DEFINITION;
use crate::protected;
use crate::secret::Secret;
use crate::systemd::UnitClass;
use crate::template::InstanceData;
use crate::tokens::Addresses;
use document::source::{At, Mark};

/// What the machine's platform and history say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// Its addresses.
    pub addresses: Addresses,
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
    pub at: Mark,
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
const SUDOERS: &str = "/etc/sudoers.d/90-cloud-init-users";

/// The whole plan.
#[must_use]
pub fn plan(config: &Config, scripts: &[PartScript], facts: &Facts) -> Plan {
    let mut plan = Plan::default();
    identity(&mut plan, config, facts);
    access(&mut plan, config, facts);
    early(&mut plan, config);
    storage(&mut plan, config);
    accounts(&mut plan, config);
    settings(&mut plan, config, facts);
    files(&mut plan, config);
    units(&mut plan, config);
    scripts_of(&mut plan, config, scripts);
    closing(&mut plan, config);
    plan.sort();
    plan
}

fn identity(plan: &mut Plan, config: &Config, facts: &Facts) {
    let identity = &config.identity;
    let names = identity.names(facts.hostname.as_deref());
    let origin = match identity.hostname.as_ref().or(identity.fqdn.as_ref()) {
        Some(name) => Origin::written(name.at, if identity.hostname.is_some() { "hostname" } else { "fqdn" }),
        None => Origin::from("platform"),
    };
    if let Some(names) = names.as_ref().filter(|_| !identity.preserve) {
        plan.once(Stage::Identity, origin, Step::SetHostname(names.hostname.clone()));
    }
    if let Some(style) = &identity.hosts {
        // Without a name in the document or from the platform, it is the one that the machine has.
        let short = names.as_ref().and_then(|names| names.hostname.split('.').next()).map(str::to_owned);
        let fqdn = names.and_then(|names| names.fqdn);
        let step = Step::SetHosts { fqdn, hostname: short, style: style.value };
        plan.every_boot(Stage::Identity, Origin::written(style.at, "manage_etc_hosts"), step);
    }
}

fn access(plan: &mut Plan, config: &Config, facts: &Facts) {
    let access = &config.access;
    let user = || DEFAULT_USER.to_owned();
    let types = if access.key_types.is_empty() {
        KEY_TYPES.map(str::to_owned).to_vec()
    } else {
        access.key_types.clone()
    };
    let host_keys =
        HostKeys { renew: facts.is_clone && !access.keep_host_keys, types, given: access.host_keys.clone() };
    let origin =
        access.host_keys_at.map_or_else(|| Origin::from("agent"), |at| Origin::written(at, "ssh_keys"));
    plan.once(Stage::Identity, origin, Step::PrepareHostKeys(host_keys));
    platform_keys(plan, config, facts);
    if let Some(first) = access.keys.first() {
        let keys = access.keys.iter().map(|key| key.value.clone()).collect();
        let origin = Origin::written(first.at, "ssh_authorized_keys");
        plan.once(Stage::Identity, origin, Step::AuthorizeKeys { user: user(), keys });
    }
}

/// At each boot, since a key may have been taken away or have come; for the image's own user, and for the one
/// who has its place. They are not added to a user's own, where nothing would ever take them away.
fn platform_keys(plan: &mut Plan, config: &Config, facts: &Facts) {
    if facts.keys.is_empty() || config.access.without_platform_keys {
        return;
    }
    let default = config.accounts.people.iter().filter(|person| person.value.is_default);
    let mut users = vec![DEFAULT_USER];
    users.extend(default.map(|person| person.value.user.name.as_str()).filter(|name| *name != DEFAULT_USER));
    for user in users {
        let step = Step::SetPlatformKeys { user: user.to_owned(), keys: facts.keys.clone() };
        plan.every_boot(Stage::Identity, Origin::from("platform"), step);
    }
}

fn early(plan: &mut Plan, config: &Config) {
    if let Some(script) = &config.commands.boot {
        let body = Secret::new(script.value.reveal().clone().into_bytes());
        let step = Step::RunScript(Script { name: "bootcmd".to_owned(), body, wait: Some(BOOTCMD_SECONDS) });
        plan.every_boot(Stage::Early, Origin::written(script.at, "bootcmd"), step);
    }
}

fn storage(plan: &mut Plan, config: &Config) {
    let storage = &config.storage;
    for disk in &storage.disks {
        let step = Step::PartitionDisk(disk.value.clone());
        plan.once(Stage::Storage, Origin::written(disk.at, "disk_setup"), step);
    }
    for fs in &storage.filesystems {
        plan.once(Stage::Storage, Origin::written(fs.at, "fs_setup"), Step::MakeFilesystem(fs.value.clone()));
    }
    if let Some(first) = storage.mounts.first() {
        let mounts = storage.mounts.iter().map(|mount| mount.value.clone()).collect();
        plan.once(Stage::Storage, Origin::written(first.at, "mounts"), Step::AddMounts(mounts));
    }
    if let Some(swap) = &storage.swap {
        let (path, size) = swap.value.clone();
        plan.once(Stage::Storage, Origin::written(swap.at, "swap"), Step::MakeSwap { path, size });
    }
}

fn accounts(plan: &mut Plan, config: &Config) {
    for group in bare_groups(config) {
        plan.once(Stage::Accounts, Origin::written(group.at, "groups"), Step::CreateGroup(group.value));
    }
    let mut rules = Vec::new();
    for person in &config.accounts.people {
        one_person(plan, config, person);
        let user = &person.value.user;
        rules.extend(user.sudo.iter().map(|rule| format!("{} {rule}\n", user.name)));
    }
    // Members can be added only once they exist.
    for group in config.accounts.groups.iter().filter(|group| !group.value.members.is_empty()) {
        plan.once(
            Stage::Accounts,
            Origin::written(group.at, "groups"),
            Step::CreateGroup(group.value.clone()),
        );
    }
    if let Some(first) = config.accounts.people.iter().find(|person| !person.value.user.sudo.is_empty()) {
        let step = Step::WriteFile(file(SUDOERS, rules.concat(), 0o440));
        plan.once(Stage::Accounts, Origin::written(first.at, "users"), step);
    }
    passwords(plan, config);
}

/// Groups before their members: those asked for, then those that users need and that may be made.
fn bare_groups(config: &Config) -> Vec<At<Group>> {
    let bare = |name: &str, gid| Group { name: name.to_owned(), gid, ..Group::default() };
    let mut groups: Vec<At<Group>> = Vec::new();
    let mut seen = HashSet::new();
    for group in &config.accounts.groups {
        if seen.insert(group.value.name.clone()) {
            groups.push(At { value: Group { members: Vec::new(), ..group.value.clone() }, at: group.at });
        }
    }
    for person in config.accounts.people.iter().filter(|person| person.value.make_groups) {
        for name in person.value.user.groups.iter().chain(&person.value.user.primary_group) {
            if name.parse::<u32>().is_err() && *name != person.value.user.name && seen.insert(name.clone()) {
                groups.push(At { value: bare(name, None), at: person.at });
            }
        }
    }
    groups
}

fn one_person(plan: &mut Plan, config: &Config, person: &At<Person>) {
    let Person { user, keys, imports, is_default, key, .. } = &person.value;
    let origin = |at: Mark| Origin::written(at, key);
    plan.once(Stage::Accounts, origin(person.at), Step::CreateUser(user.clone()));
    let mut lines: Vec<String> = keys.iter().map(|key| key.value.clone()).collect();
    if *is_default {
        lines.extend(config.access.keys.iter().map(|key| key.value.clone()));
    }
    if !lines.is_empty() {
        let at = keys.first().map_or(person.at, |key| key.at);
        let step = Step::AuthorizeKeys { user: user.name.clone(), keys: lines };
        plan.once(Stage::Accounts, origin(at), step);
    }
    for source in imports {
        let step = Step::ImportKeys { user: user.name.clone(), from: source.value.clone() };
        plan.once(Stage::Accounts, origin(source.at), step);
    }
}

fn passwords(plan: &mut Plan, config: &Config) {
    let access = &config.access;
    let renamed = config.accounts.people.iter().find(|person| person.value.is_default);
    let renamed = renamed.map(|person| person.value.user.name.as_str());
    let default = renamed.unwrap_or(DEFAULT_USER);
    // As the listed keys are: `core` is always there, the renamed one is whom the author means.
    for source in &access.imports {
        for user in iter::once(DEFAULT_USER).chain(renamed) {
            let step = Step::ImportKeys { user: user.to_owned(), from: source.value.clone() };
            plan.once(Stage::Accounts, Origin::written(source.at, "ssh_import_id"), step);
        }
    }
    if let Some(password) = &access.password {
        let step = Step::SetPassword {
            user: default.to_owned(),
            password: password.value.clone(),
            expire: access.expire,
        };
        plan.once(Stage::Accounts, Origin::written(password.at, "password"), step);
    }
    for entry in &access.passwords {
        let (user, password) = entry.value.clone();
        let step = Step::SetPassword { user, password, expire: access.expire };
        plan.once(Stage::Accounts, Origin::written(entry.at, "chpasswd"), step);
    }
}

/// Settings that are files.
fn settings(plan: &mut Plan, config: &Config, facts: &Facts) {
    let mut write = |at: Mark, key: &str, path: &str, text: String| {
        plan.once(Stage::Files, Origin::written(at, key), Step::WriteFile(file(path, text, 0o644)));
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
    if let Some((at, key, text)) = sshd(config) {
        write(at, key, "/etc/ssh/sshd_config.d/50-cloud-init.conf", text);
    }
    if let Some(oem) = &config.services.oem {
        write(oem.at, "coreos.oem", "/etc/oem-release", oem.value.clone());
    }
    if let Some(zone) = &system.timezone {
        plan.once(Stage::Files, Origin::written(zone.at, "timezone"), Step::SetTimezone(zone.value.clone()));
    }
    if let Some(authorities) = &system.authorities {
        let (trusted, remove_defaults) = authorities.value.clone();
        let step = Step::TrustCertificates { trusted, remove_defaults };
        plan.once(Stage::Files, Origin::written(authorities.at, "ca_certs"), step);
    }
    environment_files(plan, config, facts);
    cluster_file(plan, config);
}

/// The machine's cluster, for the programs that form it at each boot.
fn cluster_file(plan: &mut Plan, config: &Config) {
    if let Some(definition) = &config.cluster.definition {
        let step = Step::WriteFile(file(DEFINITION, definition.value.text(), 0o600));
        plan.once(Stage::Files, Origin::written(definition.at, "cluster"), step);
    }
}

/// Settings of sshd, in a file that comes before the image's own: of each, sshd takes the first.
fn sshd(config: &Config) -> Option<(Mark, &'static str, String)> {
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
        text.extend(["PermitRootLogin ", if root.value { "no" } else { "prohibit-password" }, "\n"]);
    }
    if rsa {
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

fn environment_files(plan: &mut Plan, config: &Config, facts: &Facts) {
    if let Some(update) = &config.services.update {
        let step = Step::MergeEnvironment {
            path: "/etc/coreos/update.conf".to_owned(),
            template: Some("/usr/share/coreos/update.conf".to_owned()),
            variables: update.variables.clone(),
        };
        plan.once(Stage::Files, Origin::written(update.at, "coreos.update"), step);
    }
    let lines = facts.addresses.environment();
    if !lines.is_empty() {
        let variables = lines.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        let step = Step::MergeEnvironment { path: ENVIRONMENT.to_owned(), template: None, variables };
        plan.every_boot(Stage::Files, Origin::from("platform"), step);
    }
}

/// Leaves /etc/environment to its author, by whichever document: with the platform's addresses in it before,
/// Ignition would find a file that it may not replace.
pub(crate) fn leave_environment(plan: &mut Plan) {
    if plan.steps.iter().any(|planned| planned.step.written_path() == Some(ENVIRONMENT)) {
        let is_ours =
            |step: &Step| matches!(step, Step::MergeEnvironment { path, .. } if path == ENVIRONMENT);
        plan.steps.retain(|planned| !is_ours(&planned.step));
    }
}

/// Leaves out what others than the user put where the user's Ignition puts something itself. Ignition replaces
/// nothing unless it was told to, and nobody tells it of files that the platform brings.
pub(crate) fn leave_places(plan: &mut Plan, user: &Plan, is_users: impl Fn(&Planned) -> bool) {
    let adds_only = |step: &Step| matches!(step, Step::PlaceFile(file) if file.contents.is_none());
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
fn files(plan: &mut Plan, config: &Config) {
    for written in &config.files {
        let stage = if written.value.defer { Stage::DeferredFiles } else { Stage::Files };
        let origin = Origin::written(written.at, &written.value.key);
        let step = Step::WriteFile(written.value.file.clone());
        // What lies in /run is gone after a boot.
        if written.value.file.path.starts_with("/run/") {
            plan.every_boot(stage, origin, step);
        } else {
            plan.once(stage, origin, step);
        }
    }
}

/// What is written may concern access, by whichever document: keys are added again, then sshd is asked.
pub(crate) fn guard(plan: &mut Plan) {
    let concerns = |planned: &Planned| match &planned.step {
        Step::PrepareHostKeys(keys) => keys.renew || !keys.given.is_empty(),
        step => step.written_path().is_some_and(protected::concerns_access),
    };
    if !plan.steps.iter().any(concerns) {
        return;
    }
    let homes = |planned: &Planned| planned.step.written_path().is_some_and(|path| path.contains("/.ssh"));
    if plan.steps.iter().any(homes) {
        let is_key = |planned: &&Planned| matches!(planned.step, Step::AuthorizeKeys { .. });
        let again: Vec<Step> = plan.steps.iter().filter(is_key).map(|planned| planned.step.clone()).collect();
        for step in again {
            plan.once(Stage::DeferredFiles, Origin::from("agent"), step);
        }
    }
    plan.once(Stage::DeferredFiles, Origin::from("agent"), Step::GuardAccess);
    plan.sort();
}

/// Contents first, then one reload, then masks and enables, then commands: none waits for another.
fn units(plan: &mut Plan, config: &Config) {
    let units = &config.units;
    for unit in units {
        unit_files(plan, unit);
    }
    service_files(plan, config);
    let wrote = plan.steps.iter().any(|one| one.stage == Stage::Units);
    for unit in units {
        unit_links(plan, unit);
    }
    if wrote || units.iter().any(|unit| unit.value.mask) {
        plan.every_boot(Stage::Units, Origin::from("agent"), Step::ReloadUnits);
    }
    // A drop-in alone changes the network too: of the image's own file, or of one that is there.
    let changes_network = |unit: &At<Unit>| {
        let Unit { class, content, drop_ins, .. } = &unit.value;
        *class == UnitClass::Network && (content.is_some() || !drop_ins.is_empty())
    };
    if units.iter().any(changes_network) {
        plan.every_boot(Stage::Units, Origin::from("agent"), Step::RestartNetwork);
    }
    if config.system.ntp.is_some() {
        restart(plan, "systemd-timesyncd.service");
    }
    if config.system.resolver.is_some() {
        restart(plan, "systemd-resolved.service");
    }
    // As `command: start` would, so that one key makes a member of a cluster.
    if let Some(definition) = &config.cluster.definition {
        for name in CLUSTER_UNITS {
            let step = Step::CommandUnit { name: name.to_owned(), verb: Verb::Start };
            plan.every_boot(Stage::Units, Origin::written(definition.at, "cluster"), step);
        }
    }
    for unit in units {
        let Unit { class, mask, .. } = &unit.value;
        // A masked unit can only be stopped.
        let possible = |verb: &Verb| *class == UnitClass::System && (!mask || *verb == Verb::Stop);
        let command = unit.value.command.filter(possible);
        if let Some(verb) = command {
            let step = Step::CommandUnit { name: unit.value.name.clone(), verb };
            plan.every_boot(Stage::Units, Origin::written(unit.at, &unit.value.key), step);
        }
    }
}

fn restart(plan: &mut Plan, unit: &str) {
    let step = Step::CommandUnit { name: unit.to_owned(), verb: Verb::TryRestart };
    plan.once(Stage::Units, Origin::from("agent"), step);
}

fn unit_files(plan: &mut Plan, unit: &At<Unit>) {
    let Unit { name, content, drop_ins, runtime, .. } = &unit.value;
    let origin = || Origin::written(unit.at, &unit.value.key);
    let mut add = |step| match runtime {
        true => plan.every_boot(Stage::Units, origin(), step),
        false => plan.once(Stage::Units, origin(), step),
    };
    if let Some(content) = content.as_ref().filter(|_| !unit.value.mask) {
        add(Step::WriteUnit { name: name.clone(), content: content.clone(), runtime: *runtime });
    }
    for (drop_in, content) in drop_ins {
        add(Step::WriteDropIn {
            unit: name.clone(),
            name: drop_in.clone(),
            content: content.clone(),
            runtime: *runtime,
        });
    }
}

fn unit_links(plan: &mut Plan, unit: &At<Unit>) {
    let Unit { name, class, enable, mask, runtime, .. } = &unit.value;
    let origin = || Origin::written(unit.at, &unit.value.key);
    let mut add = |step| match runtime {
        true => plan.every_boot(Stage::Units, origin(), step),
        false => plan.once(Stage::Units, origin(), step),
    };
    if *mask {
        add(Step::MaskUnit { name: name.clone(), mask: true, runtime: *runtime });
    } else if let Some(enable) = enable.filter(|_| *class == UnitClass::System) {
        add(Step::EnableUnit { name: name.clone(), enable, runtime: *runtime });
    }
}

/// The services' own configuration: in /run, so it is made at each boot with that boot's addresses.
fn service_files(plan: &mut Plan, config: &Config) {
    for settings in &config.services.environments {
        for step in service_steps(settings) {
            let origin = Origin::written(settings.at, format!("coreos.{}", settings.service));
            plan.every_boot(Stage::Units, origin, step);
        }
    }
}

/// Passwords are for the manager's eyes, which reads the files as root and hands the variables on.
fn service_steps(settings: &Settings) -> Vec<Step> {
    let unit = match settings.service {
        "flannel" => return vec![Step::WriteFile(file("/run/flannel/options.env", settings.lines(), 0o600))],
        "locksmith" => "locksmithd.service".to_owned(),
        service => format!("{service}.service"),
    };
    let secrets = format!("{SECRETS}/{unit}.env");
    let (drop_in, hidden) = settings.drop_in(&secrets);
    let hidden = hidden.map(|text| Step::WriteFile(file(&secrets, text, 0o600)));
    let drop_in = Step::WriteDropIn {
        unit,
        name: "20-cloudinit.conf".to_owned(),
        content: Secret::new(drop_in),
        runtime: true,
    };
    hidden.into_iter().chain([drop_in]).collect()
}

fn scripts_of(plan: &mut Plan, config: &Config, scripts: &[PartScript]) {
    let usual = match config.commands.scripts {
        Frequency::Always => When::EveryBoot,
        Frequency::Instance => When::FirstBoot,
    };
    for (index, script) in scripts.iter().enumerate() {
        let step = |name: String, wait| Step::RunScript(Script { name, body: script.body.clone(), wait });
        let origin = Origin::written(script.at, "script");
        let name = format!("script-{index}");
        match script.occasion {
            Occasion::Boothook => {
                let step = step(format!("boothook-{index}"), Some(BOOTCMD_SECONDS));
                plan.every_boot(Stage::Early, origin, step);
            }
            Occasion::EachBoot => plan.every_boot(Stage::Scripts, origin, step(name, None)),
            Occasion::Instance => plan.add(Stage::Scripts, usual, origin, step(name, None)),
            // As cloud-init does, so that the folder's marks hold for it, too.
            Occasion::Once => {
                let path = format!("{}part-{index}", script_folders::PER_ONCE);
                let content = Content::Inline(script.body.clone());
                let file = File { content, mode: Some(0o700), ..file(&path, String::new(), 0o700) };
                plan.once(Stage::Files, origin, Step::WriteFile(file));
            }
        }
    }
    if let Some(script) = &config.commands.run {
        let body = Secret::new(script.value.reveal().clone().into_bytes());
        let step = Step::RunScript(Script { name: "runcmd".to_owned(), body, wait: None });
        plan.add(Stage::Scripts, usual, Origin::written(script.at, "runcmd"), step);
    }
}

fn closing(plan: &mut Plan, config: &Config) {
    let commands = &config.commands;
    if let Some(home) = &commands.phone_home {
        let step = Step::PhoneHome(home.value.clone());
        plan.once(Stage::Closing, Origin::written(home.at, "phone_home"), step);
    }
    if let Some(message) = &commands.message {
        let step = Step::ShowMessage(message.value.clone());
        plan.every_boot(Stage::Closing, Origin::written(message.at, "final_message"), step);
    }
    if let Some(power) = &commands.power {
        let step = Step::ChangePower(power.value.clone());
        plan.once(Stage::Closing, Origin::written(power.at, "power_state"), step);
    }
}

fn file(path: &str, text: String, mode: u32) -> File {
    File {
        path: path.to_owned(),
        content: Content::Inline(Secret::new(text.into_bytes())),
        mode: Some(mode),
        owner: Owner { user: Some(Account::Id(0)), group: Some(Account::Id(0)) },
        existing: Existing::Replace,
    }
}
