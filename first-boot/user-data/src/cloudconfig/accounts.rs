//! Users and groups.
//!
//! Knows CoreOS's and cloud-init's options of a user. Refuses what useradd would refuse, field by
//! field: a user with a bad shell is still made, since people may depend on getting in as that user.
//! Invariant: a name that reaches a plan is one that useradd accepts.
//!
//! Documentation: cloud-init's module "Users and Groups" in
//! <https://docs.cloud-init.io/en/latest/reference/modules.html>, coreos-cloudinit's
//! `Documentation/cloud-config.md`, useradd(8), passwd(5), sudoers(5).

mod groups;
mod user_fields;

use std::collections::HashMap;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::yaml::{MappingEntry, Node, Value};

use super::access::authorized_keys;
use super::fields::{
    FieldKey, MappingFields, by_name, no_effect, refused_key, supported_key, text_of, translated_key,
    wrong_type,
};
use crate::plan::step::{DEFAULT_USER, GroupStep, KeySource, UserStep};
use groups::read_groups;
use user_fields::{
    all_imports, primary_group, read_absolute_path, read_expiry, read_shell, read_sudo, read_switch,
    single_line, user_groups, user_password,
};

/// The keys of the top level that this module reads.
pub const KEYS: &[FieldKey] = &[supported_key("users"), supported_key("user"), supported_key("groups")];

/// The keys of a user.
pub const USER_KEYS: &[FieldKey] = &[
    supported_key("name"),
    supported_key("gecos"),
    supported_key("homedir"),
    supported_key("groups"),
    supported_key("primary_group"),
    supported_key("no_user_group"),
    supported_key("no_create_home"),
    supported_key("no_log_init"),
    supported_key("system"),
    supported_key("shell"),
    supported_key("uid"),
    supported_key("create_groups"),
    supported_key("passwd"),
    translated_key("hashed_passwd", "the same as `passwd`"),
    supported_key("plain_text_passwd"),
    supported_key("lock_passwd"),
    supported_key("expiredate"),
    supported_key("inactive"),
    translated_key("sudo", "/etc/sudoers.d/90-cloud-init-users"),
    supported_key("ssh_authorized_keys"),
    supported_key("ssh_import_id"),
    translated_key("coreos_ssh_import_github", "the same as `ssh_import_id: [gh:NAME]`"),
    translated_key("coreos_ssh_import_github_users", "the same as `ssh_import_id: [gh:NAME]`"),
    supported_key("coreos_ssh_import_url"),
    refused_key("doas", "there is no doas on this system; use `sudo`"),
    refused_key("ssh_redirect_user", "give the user keys of its own"),
    refused_key("selinux_user", "there is no SELinux on this system"),
    refused_key("snapuser", "there is no snapd on this system"),
    no_effect("lock_password", "it is spelled `lock_passwd`"),
];

/// useradd's bound.
const LONGEST_NAME: usize = 32;
/// More names than this can only be a mistake.
// `users: a,b,c` is written by hand, and each name costs a user.
const LONGEST_LIST: usize = 1 << 16;

/// A user as a document describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserConfig {
    /// What useradd and its sisters need.
    pub user: UserStep,
    /// Keys.
    pub keys: Vec<Located<String>>,
    /// Accounts whose keys are imported.
    pub imports: Vec<Located<KeySource>>,
    /// Groups that are made if they are missing.
    pub make_groups: bool,
    /// Whether this is the platform's default user under another name.
    pub is_default: bool,
    /// What its author said of it, if only by `sudo: []`.
    given: Given,
    /// The path of keys to it.
    pub key: String,
}

/// Which options a user was given, with or without a value: a default stands only for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Given {
    groups: bool,
    shell: bool,
    sudo: bool,
}

/// Users and groups of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountsConfig {
    /// Groups, in their order.
    pub groups: Vec<Located<GroupStep>>,
    /// Users, in their order.
    pub people: Vec<Located<UserConfig>>,
}

impl AccountsConfig {
    pub(crate) fn read(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Self {
        let mut people: Vec<Located<UserConfig>> = default_user(fields, found).into_iter().collect();
        people.extend(read_users(fields, found));
        warn_of_repeated(&people, found);
        Self { groups: read_groups(fields, found), people }
    }
}

/// A user that is there gets groups, a password, keys and sudo; the rest is as it was made.
fn warn_of_repeated(people: &[Located<UserConfig>], found: &mut Diagnostics) {
    let mut seen: HashMap<&str, &UserConfig> = HashMap::new();
    for Located { value: person, at } in people {
        let UserStep { name, uid, gecos, home, primary_group, shell, .. } = &person.user;
        let Some(first) = seen.insert(name, person) else { continue };
        // CoreOS and cloud-init do not change these of a user that is there, and useradd cannot.
        let is_lost = *uid != first.user.uid && uid.is_some()
            || [(gecos, &first.user.gecos), (home, &first.user.home), (shell, &first.user.shell)]
                .into_iter()
                .chain([(primary_group, &first.user.primary_group)])
                .any(|(second, first)| second.is_some() && second != first);
        if is_lost {
            let message = format!(
                "`{name}` is given twice; of this second one only groups, password, keys and sudo are used"
            );
            let diagnostic =
                Diagnostic::warning(DiagnosticCode::Conflict, *at, message).with_key(person.key.clone());
            found.push(diagnostic.with_help("put both together under one name"));
        }
    }
}

/// `user`: another name or other options for the default user.
///
/// As in cloud-init, each option that is given stands in the place of the default one, also with nothing
/// in it: `sudo: null` is how its manual says that this user gets no rule. The group sudo is another way
/// to root, so it goes with the rule. An option that cannot be used counts as given: a mistake must not
/// make anybody root.
fn default_user(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<UserConfig>> {
    let node = fields.field_node("user")?;
    let path = fields.child_path("user");
    let mut person = match &node.value {
        Value::Mapping(_) => {
            let own = Located { value: DEFAULT_USER.to_owned(), at: node.at };
            read_user_mapping(MappingFields::read_mapping(node, USER_KEYS, path, found)?, Some(own), found)?
        }
        _ => read_user(node, path, found)?,
    };
    if person.value.user.name == DEFAULT_USER {
        return Some(person);
    }
    let UserConfig { user, given, is_default, .. } = &mut person.value;
    let loses_sudo = given.sudo && user.sudo.is_empty();
    if !given.sudo {
        // What cloud-init's own configuration gives the default user on Debian.
        user.sudo = vec!["ALL=(ALL) NOPASSWD:ALL".to_owned()];
    }
    if !given.groups && !loses_sudo {
        user.groups = vec!["sudo".to_owned()];
    }
    if !given.shell {
        user.shell = Some("/bin/bash".to_owned());
    }
    *is_default = true;
    Some(person)
}

/// The image lets `core` become root by a file of its own, so that the machine can always be mended.
fn warn_of_core(person: &UserConfig, at: SourceMark, found: &mut Diagnostics) {
    if person.user.name == DEFAULT_USER && person.given.sudo && person.user.sudo.is_empty() {
        let message = "`core` keeps its sudo: it is the image's own way to mend the machine";
        let help = "give people users of their own without `sudo`, and `core` no key";
        let diagnostic = Diagnostic::warning(DiagnosticCode::NoEffect, at, message);
        found.push(diagnostic.with_help(help).with_key(format!("{}.sudo", person.key)));
    }
}

fn read_users(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<Located<UserConfig>> {
    let Some(node) = fields.field_node("users") else { return Vec::new() };
    let path = fields.child_path("users");
    match &node.value {
        Value::Sequence(items) if items.is_empty() => {
            let message = "no user is asked for; `core` is there all the same, since the image brings it";
            found.push(Diagnostic::note(DiagnosticCode::NoEffect, node.at, message).with_key(path));
            Vec::new()
        }
        Value::Sequence(items) => {
            let items = items.iter().enumerate();
            items
                .flat_map(|(index, item)| read_listed_user(item, format!("{path}[{index}]"), found))
                .collect()
        }
        Value::Mapping(entries) => by_name(entries)
            .filter_map(|entry| named_user(entry, format!("{path}.{}", entry.key), found))
            .collect(),
        Value::Scalar(scalar) if scalar.as_bool().is_some() => {
            found.push(wrong_type("a list of users", node).with_key(path));
            Vec::new()
        }
        Value::Scalar(_) => node_names(node, found)
            .into_iter()
            .filter_map(|name| person_of(name.value, name.at, &path, found))
            .collect(),
        Value::Unreadable => Vec::new(),
    }
}

/// A comma-separated text as a list of names.
fn node_names(node: &Node, found: &mut Diagnostics) -> Vec<Located<String>> {
    let Some(text) = text_of(node) else { return Vec::new() };
    if text.value.len() > LONGEST_LIST {
        let message = format!("this list of names has more than {LONGEST_LIST} bytes; it is not used");
        found.push(Diagnostic::error(DiagnosticCode::LimitExceeded, text.at, message));
        return Vec::new();
    }
    let names = text.value.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| Located { value: name.to_owned(), at: text.at }).collect()
}

/// An item of the list in one of the shapes that cloud-init takes: besides one user, a text or a list of
/// several names, or `name: {…}` where the name was not put behind `name:`.
fn read_listed_user(item: &Node, path: String, found: &mut Diagnostics) -> Vec<Located<UserConfig>> {
    match &item.value {
        Value::Sequence(names) => {
            names.iter().flat_map(|name| read_listed_user(name, path.clone(), found)).collect()
        }
        // cloud-init takes names with commas at each place where one name may stand.
        Value::Scalar(scalar) if scalar.text.contains(',') => node_names(item, found)
            .into_iter()
            .filter_map(|name| person_of(name.value, name.at, &path, found))
            .collect(),
        Value::Mapping(entries) => match &entries[..] {
            [only] if is_named(only) => named_user(only, path, found).into_iter().collect(),
            _ => read_user(item, path, found).into_iter().collect(),
        },
        _ => read_user(item, path, found).into_iter().collect(),
    }
}

/// Whether the one key of a mapping is a name and no option.
fn is_named(entry: &MappingEntry) -> bool {
    let is_option = USER_KEYS.iter().any(|key| key.name == entry.key.replace('-', "_"));
    !is_option && (entry.value.is_null() || matches!(entry.value.value, Value::Mapping(_)))
}

/// `users: {name: {…}}`; also with nothing, or with a boolean, which says whether the user is wanted.
fn named_user(entry: &MappingEntry, path: String, found: &mut Diagnostics) -> Option<Located<UserConfig>> {
    let wanted = match &entry.value.value {
        Value::Scalar(scalar) if !entry.value.is_null() => scalar.as_bool(),
        _ => entry.value.is_null().then_some(true),
    };
    match wanted {
        Some(true) => return person_of(entry.key.clone(), entry.key_at, &path, found),
        Some(false) => return None,
        None => {}
    }
    let fields = MappingFields::read_mapping(&entry.value, USER_KEYS, path, found)?;
    read_user_mapping(fields, Some(Located { value: entry.key.clone(), at: entry.key_at }), found)
}

/// An item of `users`: a name, `default`, or a mapping.
fn read_user(node: &Node, path: String, found: &mut Diagnostics) -> Option<Located<UserConfig>> {
    if let Some(name) = text_of(node).filter(|_| !node.is_null()) {
        return person_of(name.value, name.at, &path, found);
    }
    let fields = MappingFields::read_mapping(node, USER_KEYS, path, found)?;
    read_user_mapping(fields, None, found)
}

/// A user of whom only the name is said; `default` is the image's own, which is there.
fn person_of(
    name: String,
    at: SourceMark,
    path: &str,
    found: &mut Diagnostics,
) -> Option<Located<UserConfig>> {
    if name == "default" {
        return None;
    }
    if let Err(flaw) = check_name(&name) {
        found.push(
            Diagnostic::error(DiagnosticCode::BadValue, at, format!("this user name {flaw}")).with_key(path),
        );
        return None;
    }
    let user = UserStep { name, ..UserStep::default() };
    Some(Located { value: UserConfig { user, key: path.to_owned(), ..UserConfig::default() }, at })
}

fn read_user_mapping(
    mut fields: MappingFields<'_>,
    key: Option<Located<String>>,
    found: &mut Diagnostics,
) -> Option<Located<UserConfig>> {
    // Options of `default` are the image's own user's.
    let own = |name: Located<String>| match name.value.as_str() {
        "default" => name.map_value(|_| DEFAULT_USER.to_owned()),
        _ => name,
    };
    let Some(name) = fields.read_text("name", found).or(key).map(own) else {
        let at = fields.start_mark();
        fields.refuse_field(
            "name",
            Diagnostic::error(DiagnosticCode::MissingKey, at, "this user has no `name`"),
            found,
        );
        return None;
    };
    if let Err(flaw) = check_name(&name.value) {
        let diagnostic =
            Diagnostic::error(DiagnosticCode::BadValue, name.at, format!("this user name {flaw}"));
        fields.refuse_field("name", diagnostic, found);
        return None;
    }
    let given = Given {
        groups: fields.is_given("groups"),
        shell: fields.is_given("shell"),
        sudo: fields.is_given("sudo"),
    };
    let user = UserStep {
        uid: fields.read_number("uid", found).map(|number| number.value),
        gecos: single_line(&mut fields, "gecos", found),
        home: read_absolute_path(&mut fields, "homedir", found),
        no_create_home: read_switch(&mut fields, "no_create_home", found),
        primary_group: primary_group(&mut fields, found),
        groups: user_groups(&mut fields, found),
        no_user_group: read_switch(&mut fields, "no_user_group", found),
        no_log_init: read_switch(&mut fields, "no_log_init", found),
        system: read_switch(&mut fields, "system", found),
        shell: read_shell(&mut fields, found),
        password: user_password(&mut fields, found),
        // cloud-init locks unless it is false. Documents for CoreOS have no such key, and their hashes must
        // work.
        lock: fields.read_flag("lock_passwd", found).map(|flag| flag.value),
        expires: read_expiry(&mut fields, found),
        inactive: fields.read_number("inactive", found).map(|number| number.value),
        sudo: read_sudo(&mut fields, found),
        name: name.value,
    };
    let path = fields.path().to_owned();
    let make_groups = fields.flag_or_true("create_groups", found);
    let keys = authorized_keys(&mut fields, "ssh_authorized_keys", found);
    let imports = all_imports(&mut fields, found);
    let sudo_at = fields.key_at("sudo").unwrap_or(name.at);
    let person = UserConfig { user, keys, imports, make_groups, is_default: false, given, key: path };
    warn_of_core(&person, sudo_at, found);
    Some(Located { value: person, at: name.at })
}

/// What useradd accepts on Debian, without the characters that passwd's format forbids.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_uppercase() || c == '_');
    // Names of machines in a Samba domain end so, and useradd takes them.
    let body = name.trim_end_matches('$');
    let rest = body.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match name.len() {
        0 => Err("is empty"),
        length if length > LONGEST_NAME => Err("has more than 32 characters"),
        _ if !first => Err("does not begin with a letter or an underscore"),
        _ if !rest => Err("has characters other than letters, digits, `-`, `_` and `.`"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
