//! The steps for groups, users and their passwords.
//!
//! Knows in which order accounts come about. Refuses to read a document. Invariant: a group is there before who is in
//! it, and keys before passwords, so that a bad password costs nobody the way in.

use std::collections::HashSet;
use std::iter;

use document::source::{Located, SourceMark};

use super::super::CloudConfig;
use super::settings_file;
use crate::cloudconfig::accounts::UserConfig;
use crate::plan::step::{DEFAULT_USER, GroupStep, PlanStep};
use crate::plan::{FirstBootPlan, PlanStage, StepOrigin};

// cloud-init's name for it, which documents write to and tools look for.
pub(super) const SUDOERS: &str = "/etc/sudoers.d/90-cloud-init-users";

pub(super) fn plan_accounts(plan: &mut FirstBootPlan, config: &CloudConfig) {
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
pub(super) fn bare_groups(config: &CloudConfig) -> Vec<Located<GroupStep>> {
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

pub(super) fn one_person(plan: &mut FirstBootPlan, config: &CloudConfig, person: &Located<UserConfig>) {
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

pub(super) fn plan_passwords(plan: &mut FirstBootPlan, config: &CloudConfig) {
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
