//! Prints a plan, one effect a line.
//!
//! Knows every step. Refuses to print passwords, private keys and scripts' secrets; contents of
//! files and units only for who asks for them.

use std::fmt::Write;

use super::step::{
    AccountRef, ExistingFile, FileContent, FileOwner, FileStep, HostsStyle, KeySource, PartitionRule,
    PartitionSize, Partitions, Password, PlacedFile, PlanStep, SwapSize, UserStep, WantedPartition,
};
use super::{FirstBootPlan, PlannedStep, StepFrequency};
use document::source::SourceTexts;
use error_text::redacted_address as shown_address;

/// Whether contents of files, units and scripts are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentDisplay {
    /// Their size only.
    Hidden,
    /// As they are.
    Shown,
}

/// The plan as text: a line per stage, a line per step, its place at the end.
#[must_use]
pub fn render_plan(plan: &FirstBootPlan, sources: &SourceTexts, contents: ContentDisplay) -> String {
    let mut out = String::new();
    let mut stage = None;
    for planned in &plan.steps {
        if stage != Some(planned.stage) {
            stage = Some(planned.stage);
            let _ = writeln!(out, "{}", planned.stage.stage_word());
        }
        let _ = writeln!(out, "  {}{}", describe_step(&planned.step), place_suffix(planned, sources));
        if let ContentDisplay::Shown = contents {
            for text in shown_texts(&planned.step) {
                indent_text(&mut out, &text);
            }
        }
    }
    out
}

/// One step as a sentence without its origin.
#[must_use]
pub fn describe_step(step: &PlanStep) -> String {
    match step {
        PlanStep::AddMounts(mounts) => mounts_line(mounts),
        PlanStep::AuthorizeKeys { user, keys } => {
            format!("authorize {} for {user}", count_of(keys.len(), "key"))
        }
        PlanStep::ChangePower(power) => power_line(power),
        PlanStep::CreateGroup(group) => group_line(group),
        PlanStep::CreateUser(user) => user_line(user),
        PlanStep::GuardAccess => "check that sshd starts, else take back what was written for it".to_owned(),
        PlanStep::ImportKeys { user, from } => format!("import keys of {} for {user}", key_source(from)),
        PlanStep::CommandUnit { name, verb } => format!("{} {name}", verb.verb_word()),
        PlanStep::EditPartitions(table) => table_line(table),
        PlanStep::EnableUnit { name, enable, runtime } => {
            format!("{} {name}{}", if *enable { "enable" } else { "disable" }, lifetime_suffix(*runtime))
        }
        PlanStep::MakeDirectory(directory) => {
            format!("make directory {} {}", directory.path, kept_rights(directory.mode, &directory.owner))
        }
        PlanStep::MakeFilesystem(fs) => filesystem_line(fs),
        PlanStep::MakeLink(link) => {
            format!("{} {} -> {}", if link.hard { "hard-link" } else { "link" }, link.path, link.target)
        }
        PlanStep::MakeSwap { path, size } => format!("make swap file {path} of {}", swap_size(*size)),
        PlanStep::MaskUnit { name, mask, runtime } => {
            format!("{} {name}{}", if *mask { "mask" } else { "unmask" }, lifetime_suffix(*runtime))
        }
        // Names only: values of proxies and services have passwords in them.
        PlanStep::MergeEnvironment { path, variables, .. } => {
            let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
            format!("set {} in {path}", names.join(" "))
        }
        PlanStep::PartitionDisk(disk) => partition_line(disk),
        PlanStep::PhoneHome(home) => {
            format!(
                "send {} to {}, {}",
                if home.post.is_empty() { "nothing".to_owned() } else { home.post.join(" ") },
                shown_address(&home.url),
                count_of(home.tries as usize, "try")
            )
        }
        PlanStep::PlaceFile(file) => placed_line(file),
        PlanStep::PrepareHostKeys(keys) => host_keys_line(keys),
        PlanStep::ReloadUnits => "reload units".to_owned(),
        PlanStep::RestartNetwork => "restart systemd-networkd.service".to_owned(),
        PlanStep::RunScript(script) => match script.wait {
            Some(seconds) => format!("run script {} and wait up to {seconds} s", script.name),
            None => format!("run script {} in the background", script.name),
        },
        PlanStep::SetHosts { fqdn, hostname, style } => {
            hosts_line(fqdn.as_deref(), hostname.as_deref().unwrap_or("the machine's name"), *style)
        }
        PlanStep::SetHostname(name) => format!("set host name {name}"),
        PlanStep::SetPassword { user, password, expire } => {
            let ending = if *expire { ", to be changed at the next login" } else { "" };
            format!("set {} of {user}{ending}", password_kind(password))
        }
        PlanStep::SetPlatformKeys { user, keys } => {
            format!("let {} of the platform in as {user}", count_of(keys.len(), "key"))
        }
        PlanStep::SetTimezone(zone) => format!("set time zone {zone}"),
        PlanStep::ShowMessage(_) => "show the final message".to_owned(),
        PlanStep::TrustCertificates { trusted, remove_defaults } => {
            let only = if *remove_defaults { " and no others" } else { "" };
            format!("trust {}{only}", count_of(trusted.len(), "certificate"))
        }
        PlanStep::WriteDropIn { unit, name, content, runtime } => {
            format!(
                "write drop-in {name} of {unit}, {}{}",
                byte_count(content.reveal().len()),
                lifetime_suffix(*runtime)
            )
        }
        PlanStep::WriteFile(file) => file_line(file),
        PlanStep::WriteUnit { name, content, runtime } => {
            format!("write unit {name}, {}{}", byte_count(content.reveal().len()), lifetime_suffix(*runtime))
        }
    }
}

fn place_suffix(planned: &PlannedStep, sources: &SourceTexts) -> String {
    let when = if planned.when == StepFrequency::EveryBoot { ", every boot" } else { "" };
    match planned.origin.at {
        Some(at) => format!("  [{} {}{when}]", sources.place_of(at), planned.origin.key),
        None => format!("  [{}{when}]", planned.origin.key),
    }
}

/// The texts of a step that are worth reading.
fn shown_texts(step: &PlanStep) -> Vec<String> {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match step {
        PlanStep::WriteDropIn { content, .. } | PlanStep::WriteUnit { content, .. } => {
            vec![content.reveal().clone()]
        }
        PlanStep::WriteFile(FileStep { content: FileContent::Inline(bytes), .. }) => {
            vec![lossy(bytes.reveal())]
        }
        PlanStep::PlaceFile(file) => file
            .known_content()
            .filter(|content| !content.is_empty())
            .iter()
            .map(|content| lossy(content))
            .collect(),
        PlanStep::RunScript(script) => vec![lossy(script.body.reveal())],
        PlanStep::MergeEnvironment { variables, .. } => {
            variables.iter().map(|(name, value)| format!("{name}={}", value.reveal())).collect()
        }
        // Public keys are no secret, and who reads a plan wants to know who gets in.
        PlanStep::AuthorizeKeys { keys, .. } | PlanStep::SetPlatformKeys { keys, .. } => keys.clone(),
        PlanStep::ShowMessage(text) => vec![text.clone()],
        PlanStep::AddMounts(mounts) => mounts.iter().map(|mount| mount.fields.join(" ")).collect(),
        _ => Vec::new(),
    }
}

fn indent_text(out: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "    | {line}");
    }
}

fn count_of(number: usize, noun: &str) -> String {
    match (number, noun) {
        (1, noun) => format!("1 {noun}"),
        (_, "try") => format!("{number} tries"),
        _ => format!("{number} {noun}s"),
    }
}

fn byte_count(number: usize) -> String {
    count_of(number, "byte")
}

fn lifetime_suffix(runtime: bool) -> &'static str {
    if runtime { ", until the next boot" } else { "" }
}

/// What a file gets that is not there yet; one that is there keeps its own.
// What cloud-init and coreos-cloudinit both give a file without `permissions`.
const NEW_FILE: u32 = 0o644;

fn rights_text(mode: u32, owner: &FileOwner) -> String {
    format!("{mode:04o} {}:{}", account_text(owner.user.as_ref()), account_text(owner.group.as_ref()))
}

fn account_text(account: Option<&AccountRef>) -> String {
    match account {
        Some(AccountRef::Id(id)) => id.to_string(),
        Some(AccountRef::Name(name)) => name.clone(),
        None => "-".to_owned(),
    }
}

fn file_line(file: &FileStep) -> String {
    let verb = match file.existing {
        ExistingFile::Append => "append to",
        ExistingFile::Refuse => "write new",
        ExistingFile::Replace => "write",
    };
    let what = match &file.content {
        FileContent::Fetched(fetch) => format!("from {}", shown_address(&fetch.url)),
        FileContent::Inline(content) => byte_count(content.reveal().len()),
    };
    format!("{verb} {} {}, {what}", file.path, rights_text(file.mode.unwrap_or(NEW_FILE), &file.owner))
}

/// Rights of which those that are not given are kept.
fn kept_rights(mode: Option<u32>, owner: &FileOwner) -> String {
    match mode {
        Some(mode) => rights_text(mode, owner),
        None => format!("---- {}:{}", account_text(owner.user.as_ref()), account_text(owner.group.as_ref())),
    }
}

fn placed_line(file: &PlacedFile) -> String {
    let what = |content: &FileContent| match content {
        FileContent::Fetched(fetch) => format!("from {}", shown_address(&fetch.url)),
        FileContent::Inline(content) => byte_count(content.reveal().len()),
    };
    let verb = match (&file.contents, file.overwrite) {
        (None, _) => "keep or make",
        (Some(_), true) => "write",
        (Some(_), false) => "write new",
    };
    let mut line = format!("{verb} {} {}", file.path, kept_rights(file.mode, &file.owner));
    if let Some(content) = &file.contents {
        let _ = write!(line, ", {}", what(content));
    }
    for content in &file.append {
        let _ = write!(line, ", then {}", what(content));
    }
    line
}

fn group_line(group: &super::step::GroupStep) -> String {
    let mut line = format!("make group {}", group.name);
    if let Some(gid) = group.gid {
        let _ = write!(line, " gid={gid}");
    }
    if group.system {
        line += " system";
    }
    if !group.members.is_empty() {
        let _ = write!(line, " members={}", group.members.join(","));
    }
    line
}

fn user_line(user: &UserStep) -> String {
    let mut line = format!("make user {}", user.name);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(line, " {name}={value}");
        }
    };
    add("uid", user.uid.map(|uid| uid.to_string()));
    add("gecos", user.gecos.as_ref().map(|text| format!("{text:?}")));
    add("home", user.home.clone());
    add("group", user.primary_group.clone());
    add("groups", (!user.groups.is_empty()).then(|| user.groups.join(",")));
    add("shell", user.shell.clone());
    add("password", user.password.as_ref().map(|password| password_kind(password).to_owned()));
    add("lock", user.lock.map(|lock| lock.to_string()));
    add("expires", user.expires.clone());
    add("inactive", user.inactive.map(|days| days.to_string()));
    add("sudo", (!user.sudo.is_empty()).then(|| format!("{:?}", user.sudo.join("; "))));
    for (set, word) in [
        (user.no_create_home, " no-home"),
        (user.no_user_group, " no-user-group"),
        (user.no_log_init, " no-log-init"),
        (user.system, " system"),
    ] {
        line += if set { word } else { "" };
    }
    line
}

fn password_kind(password: &Password) -> &'static str {
    match password {
        Password::Hash(_) => "password-hash",
        Password::Plain(_) => "plain-password",
        Password::Random => "random-password",
    }
}

fn key_source(source: &KeySource) -> String {
    match source {
        KeySource::GitHub(account) => format!("github account {account}"),
        KeySource::Launchpad(account) => format!("launchpad account {account}"),
        KeySource::Url(url) => shown_address(url),
    }
}

fn host_keys_line(keys: &super::step::HostKeys) -> String {
    let mut line = if keys.renew { "renew host keys".to_owned() } else { "keep host keys".to_owned() };
    let _ = write!(line, ", make missing {}", keys.types.join(" "));
    // Names only: these are private keys.
    for (name, _) in &keys.given {
        let _ = write!(line, ", put {name}");
    }
    line
}

fn hosts_line(fqdn: Option<&str>, hostname: &str, style: HostsStyle) -> String {
    let style = match style {
        HostsStyle::Full => "write /etc/hosts for",
        HostsStyle::Localhost => "set the line of 127.0.1.1 in /etc/hosts to",
    };
    match fqdn {
        Some(fqdn) => format!("{style} {fqdn} {hostname}"),
        None => format!("{style} {hostname}"),
    }
}

fn mounts_line(mounts: &[super::step::MountStep]) -> String {
    let places: Vec<&str> = mounts.iter().map(|mount| mount.fields[1].as_str()).collect();
    format!("mount {}", places.join(" "))
}

fn swap_size(size: SwapSize) -> String {
    match size {
        SwapSize::Automatic { most: None } => "a size that fits the memory".to_owned(),
        SwapSize::Automatic { most: Some(most) } => {
            format!("a size that fits the memory, at most {most} bytes")
        }
        SwapSize::Bytes(size) => format!("{size} bytes"),
    }
}

fn filesystem_line(fs: &super::step::FilesystemStep) -> String {
    let mut line = format!("make {} on {}", fs.format, fs.device);
    if let Some(label) = &fs.label {
        let _ = write!(line, " label={label}");
    }
    if let Some(uuid) = &fs.uuid {
        let _ = write!(line, " uuid={uuid}");
    }
    line += if fs.overwrite { ", even over another" } else { ", unless it has one" };
    line
}

fn partition_line(disk: &super::step::PartitioningStep) -> String {
    let sizes: Vec<String> = disk
        .partitions
        .iter()
        .map(|partition| match partition.size {
            PartitionSize::MiB(size) => format!("{size} MiB"),
            PartitionSize::Percent(percent) => format!("{percent} %"),
            PartitionSize::Rest => "the rest".to_owned(),
        })
        .collect();
    let over = if disk.overwrite { ", even over a table" } else { ", unless it has a table" };
    format!("divide {} into {}{over}", disk.device, sizes.join(", "))
}

fn table_line(table: &Partitions) -> String {
    let over = if table.wipe_table { "anew" } else { "where it differs" };
    let wanted: Vec<String> = table.wanted.iter().map(wanted_partition).collect();
    let list = if wanted.is_empty() { "no partitions".to_owned() } else { wanted.join("; ") };
    format!("make the table of {} {over}: {list}", table.device)
}

fn wanted_partition(wanted: &WantedPartition) -> String {
    let mut line = if wanted.number == 0 { "next".to_owned() } else { wanted.number.to_string() };
    if wanted.rule.is_removal() {
        return line + " not there";
    }
    if let Some(label) = &wanted.label {
        let _ = write!(line, " {label}");
    }
    match wanted.size_mib {
        Some(size) if size > 0 => drop(write!(line, " of {size} MiB")),
        _ => line += " with the rest",
    }
    if let Some(start) = wanted.start_mib.filter(|start| *start > 0) {
        let _ = write!(line, " at {start} MiB");
    }
    line += match wanted.rule {
        PartitionRule::Replaced => ", replaced if it differs",
        PartitionRule::Resized { .. } => ", resized if need be",
        _ => "",
    };
    line
}

fn power_line(power: &super::step::PowerStep) -> String {
    let mut line = match power.delay_minutes {
        0 => format!("{} at the end", power.mode),
        minutes => format!("{} {minutes} min after the end", power.mode),
    };
    if power.condition.is_some() {
        line += ", if its condition holds";
    }
    line
}
