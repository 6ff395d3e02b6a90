//! Users and groups.
//!
//! Knows CoreOS's and cloud-init's options of a user. Refuses what useradd would refuse, field by
//! field: a user with a bad shell is still made, since people may depend on getting in as that user.
//! Invariant: a name that reaches a plan is one that useradd accepts.

use std::collections::{HashMap, HashSet};

use super::access::{NO_PASSWORD, authorized_keys, check_plain, imports, is_account, is_hash};
use super::fields::{Fields, Key, by_name, key, no_effect, refused, text_of, translated, wrong_type};
use crate::plan::step::{Group, KeySource, Password, User};
use crate::secret::Secret;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::yaml::{MappingEntry, Node, Value};

/// The keys of the top level that this module reads.
pub const KEYS: &[Key] = &[key("users"), key("user"), key("groups")];

/// The keys of a user.
pub const USER_KEYS: &[Key] = &[
    key("name"),
    key("gecos"),
    key("homedir"),
    key("groups"),
    key("primary_group"),
    key("no_user_group"),
    key("no_create_home"),
    key("no_log_init"),
    key("system"),
    key("shell"),
    key("uid"),
    key("create_groups"),
    key("passwd"),
    translated("hashed_passwd", "the same as `passwd`"),
    key("plain_text_passwd"),
    key("lock_passwd"),
    key("expiredate"),
    key("inactive"),
    translated("sudo", "/etc/sudoers.d/90-cloud-init-users"),
    key("ssh_authorized_keys"),
    key("ssh_import_id"),
    translated("coreos_ssh_import_github", "the same as `ssh_import_id: [gh:NAME]`"),
    translated("coreos_ssh_import_github_users", "the same as `ssh_import_id: [gh:NAME]`"),
    key("coreos_ssh_import_url"),
    refused("doas", "there is no doas on this system; use `sudo`"),
    refused("ssh_redirect_user", "give the user keys of its own"),
    refused("selinux_user", "there is no SELinux on this system"),
    refused("snapuser", "there is no snapd on this system"),
    no_effect("lock_password", "it is spelled `lock_passwd`"),
];

/// useradd's bound.
const LONGEST_NAME: usize = 32;
/// More names than this can only be a mistake.
const LONGEST_LIST: usize = 1 << 16;

/// A user as a document describes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Person {
    /// What useradd and its sisters need.
    pub user: User,
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
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Given {
    groups: bool,
    shell: bool,
    sudo: bool,
}

/// Users and groups of a document.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Accounts {
    /// Groups, in their order.
    pub groups: Vec<Located<Group>>,
    /// Users, in their order.
    pub people: Vec<Located<Person>>,
}

impl Accounts {
    pub(crate) fn read(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Self {
        let mut people: Vec<Located<Person>> = default_user(fields, found).into_iter().collect();
        people.extend(users(fields, found));
        warn_of_repeated(&people, found);
        Self { groups: groups(fields, found), people }
    }
}

/// A user that is there gets groups, a password, keys and sudo; the rest is as it was made.
fn warn_of_repeated(people: &[Located<Person>], found: &mut Diagnostics) {
    let mut seen: HashMap<&str, &Person> = HashMap::new();
    for Located { value: person, at } in people {
        let User { name, uid, gecos, home, primary_group, shell, .. } = &person.user;
        let Some(first) = seen.insert(name, person) else { continue };
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
/// to root, so it goes with the rule. An option that can't be used counts as given: a mistake must not
/// make anybody root.
fn default_user(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Located<Person>> {
    let node = fields.node("user")?;
    let path = fields.child("user");
    let mut person = match &node.value {
        Value::Mapping(_) => {
            let own = Located { value: super::DEFAULT_USER.to_owned(), at: node.at };
            person(Fields::open(node, USER_KEYS, path, found)?, Some(own), found)?
        }
        _ => user(node, path, found)?,
    };
    if person.value.user.name == super::DEFAULT_USER {
        return Some(person);
    }
    let Person { user, given, is_default, .. } = &mut person.value;
    let loses_sudo = given.sudo && user.sudo.is_empty();
    if !given.sudo {
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
fn warn_of_core(person: &Person, at: SourceMark, found: &mut Diagnostics) {
    if person.user.name == super::DEFAULT_USER && person.given.sudo && person.user.sudo.is_empty() {
        let message = "`core` keeps its sudo: it is the image's own way to mend the machine";
        let help = "give people users of their own without `sudo`, and `core` no key";
        let diagnostic = Diagnostic::warning(DiagnosticCode::NoEffect, at, message);
        found.push(diagnostic.with_help(help).with_key(format!("{}.sudo", person.key)));
    }
}

fn users(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<Located<Person>> {
    let Some(node) = fields.node("users") else { return Vec::new() };
    let path = fields.child("users");
    match &node.value {
        Value::Sequence(items) if items.is_empty() => {
            let message = "no user is asked for; `core` is there all the same, since the image brings it";
            found.push(Diagnostic::note(DiagnosticCode::NoEffect, node.at, message).with_key(path));
            Vec::new()
        }
        Value::Sequence(items) => {
            let items = items.iter().enumerate();
            items.flat_map(|(index, item)| listed(item, format!("{path}[{index}]"), found)).collect()
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
fn listed(item: &Node, path: String, found: &mut Diagnostics) -> Vec<Located<Person>> {
    match &item.value {
        Value::Sequence(names) => names.iter().flat_map(|name| listed(name, path.clone(), found)).collect(),
        Value::Scalar(scalar) if scalar.text.contains(',') => node_names(item, found)
            .into_iter()
            .filter_map(|name| person_of(name.value, name.at, &path, found))
            .collect(),
        Value::Mapping(entries) => match &entries[..] {
            [only] if is_named(only) => named_user(only, path, found).into_iter().collect(),
            _ => user(item, path, found).into_iter().collect(),
        },
        _ => user(item, path, found).into_iter().collect(),
    }
}

/// Whether the one key of a mapping is a name and no option.
fn is_named(entry: &MappingEntry) -> bool {
    let is_option = USER_KEYS.iter().any(|key| key.name == entry.key.replace('-', "_"));
    !is_option && (entry.value.is_null() || matches!(entry.value.value, Value::Mapping(_)))
}

/// `users: {name: {…}}`; also with nothing, or with a boolean, which says whether the user is wanted.
fn named_user(entry: &MappingEntry, path: String, found: &mut Diagnostics) -> Option<Located<Person>> {
    let wanted = match &entry.value.value {
        Value::Scalar(scalar) if !entry.value.is_null() => scalar.as_bool(),
        _ => entry.value.is_null().then_some(true),
    };
    match wanted {
        Some(true) => return person_of(entry.key.clone(), entry.key_at, &path, found),
        Some(false) => return None,
        None => {}
    }
    let fields = Fields::open(&entry.value, USER_KEYS, path, found)?;
    person(fields, Some(Located { value: entry.key.clone(), at: entry.key_at }), found)
}

/// An item of `users`: a name, `default`, or a mapping.
fn user(node: &Node, path: String, found: &mut Diagnostics) -> Option<Located<Person>> {
    if let Some(name) = text_of(node).filter(|_| !node.is_null()) {
        return person_of(name.value, name.at, &path, found);
    }
    let fields = Fields::open(node, USER_KEYS, path, found)?;
    person(fields, None, found)
}

/// A user of whom only the name is said; `default` is the image's own, which is there.
fn person_of(name: String, at: SourceMark, path: &str, found: &mut Diagnostics) -> Option<Located<Person>> {
    if name == "default" {
        return None;
    }
    if let Err(flaw) = check_name(&name) {
        found.push(
            Diagnostic::error(DiagnosticCode::BadValue, at, format!("this user name {flaw}")).with_key(path),
        );
        return None;
    }
    let user = User { name, ..User::default() };
    Some(Located { value: Person { user, key: path.to_owned(), ..Person::default() }, at })
}

fn person(
    mut fields: Fields<'_>,
    key: Option<Located<String>>,
    found: &mut Diagnostics,
) -> Option<Located<Person>> {
    // Options of `default` are the image's own user's.
    let own = |name: Located<String>| match name.value.as_str() {
        "default" => name.map_value(|_| super::DEFAULT_USER.to_owned()),
        _ => name,
    };
    let Some(name) = fields.text("name", found).or(key).map(own) else {
        let at = fields.at();
        fields.refuse(
            "name",
            Diagnostic::error(DiagnosticCode::MissingKey, at, "this user has no `name`"),
            found,
        );
        return None;
    };
    if let Err(flaw) = check_name(&name.value) {
        let diagnostic =
            Diagnostic::error(DiagnosticCode::BadValue, name.at, format!("this user name {flaw}"));
        fields.refuse("name", diagnostic, found);
        return None;
    }
    let given = Given {
        groups: fields.is_given("groups"),
        shell: fields.is_given("shell"),
        sudo: fields.is_given("sudo"),
    };
    let user = User {
        uid: fields.number("uid", found).map(|number| number.value),
        gecos: single_line(&mut fields, "gecos", found),
        home: absolute(&mut fields, "homedir", found),
        no_create_home: on(&mut fields, "no_create_home", found),
        primary_group: primary_group(&mut fields, found),
        groups: user_groups(&mut fields, found),
        no_user_group: on(&mut fields, "no_user_group", found),
        no_log_init: on(&mut fields, "no_log_init", found),
        system: on(&mut fields, "system", found),
        shell: shell(&mut fields, found),
        password: user_password(&mut fields, found),
        lock: fields.flag("lock_passwd", found).map(|flag| flag.value),
        expires: expiry(&mut fields, found),
        inactive: fields.number("inactive", found).map(|number| number.value),
        sudo: sudo(&mut fields, found),
        name: name.value,
    };
    let path = fields.path().to_owned();
    let make_groups = fields.flag_or_true("create_groups", found);
    let keys = authorized_keys(&mut fields, "ssh_authorized_keys", found);
    let imports = all_imports(&mut fields, found);
    let sudo_at = fields.key_at("sudo").unwrap_or(name.at);
    let person = Person { user, keys, imports, make_groups, is_default: false, given, key: path };
    warn_of_core(&person, sudo_at, found);
    Some(Located { value: person, at: name.at })
}

/// An absolute path; and the words by which people mean that nobody logs in.
fn shell(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<String> {
    let text = fields.node("shell").and_then(text_of);
    let closes =
        |word: &str| matches!(word.to_ascii_lowercase().as_str(), "false" | "no" | "nologin" | "none");
    if let Some(text) = text.filter(|text| closes(&text.value)) {
        let message = "this closes the user's logins: /usr/sbin/nologin is used";
        found.push(
            Diagnostic::note(DiagnosticCode::Translated, text.at, message).with_key(fields.child("shell")),
        );
        return Some("/usr/sbin/nologin".to_owned());
    }
    absolute(fields, "shell", found)
}

fn on(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> bool {
    fields.flag(name, found).is_some_and(|flag| flag.value)
}

/// What useradd accepts on Debian, without the characters that passwd's format forbids.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_uppercase() || c == '_');
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

fn single_line(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> Option<String> {
    let text = fields.text(name, found)?;
    if text.value.contains([':', '\n']) {
        let diagnostic = Diagnostic::error(
            DiagnosticCode::BadValue,
            text.at,
            format!("`{name}` must be one line without colons"),
        );
        fields.refuse(name, diagnostic, found);
        return None;
    }
    Some(text.value)
}

fn absolute(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> Option<String> {
    let text = fields.text(name, found)?;
    let good = text.value.starts_with('/') && !text.value.contains([':', '\n', '\0']);
    if !good {
        let diagnostic = Diagnostic::error(
            DiagnosticCode::BadValue,
            text.at,
            format!("`{name}` must be an absolute path"),
        );
        fields.refuse(name, diagnostic, found);
        return None;
    }
    Some(text.value)
}

fn primary_group(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<String> {
    let text = fields.text("primary_group", found)?;
    if check_name(&text.value).is_err() && text.value.parse::<u32>().is_err() {
        let diagnostic = Diagnostic::error(
            DiagnosticCode::BadValue,
            text.at,
            "`primary_group` is not the name of a group",
        );
        fields.refuse("primary_group", diagnostic, found);
        return None;
    }
    Some(text.value)
}

/// A list, a text with commas, or the keys of a mapping.
fn user_groups(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<String> {
    let Some(node) = fields.node("groups") else { return Vec::new() };
    let names: Vec<Located<String>> = match &node.value {
        Value::Mapping(entries) => {
            by_name(entries).map(|entry| Located { value: entry.key.clone(), at: entry.key_at }).collect()
        }
        Value::Scalar(_) => node_names(node, found),
        _ => fields.texts("groups", found),
    };
    let (mut good, mut seen) = (Vec::new(), HashSet::new());
    for name in names {
        match check_name(&name.value) {
            Ok(()) if !seen.insert(name.value.clone()) => {}
            Ok(()) => good.push(name.value),
            Err(flaw) => {
                let diagnostic =
                    Diagnostic::error(DiagnosticCode::BadValue, name.at, format!("this group name {flaw}"));
                fields.refuse("groups", diagnostic, found);
            }
        }
    }
    good
}

fn user_password(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Password> {
    let hash = fields.text("hashed_passwd", found).or_else(|| fields.text("passwd", found));
    if let Some(hash) = hash {
        if !is_hash(&hash.value) && !matches!(hash.value.as_str(), "*" | "!" | "!!" | "x") {
            found.push(
                Diagnostic::error(
                    DiagnosticCode::BadValue,
                    hash.at,
                    "this is not a password hash, so no password is set",
                )
                .with_key(fields.child("passwd"))
                .with_help("make one with `openssl passwd -6`, or use `plain_text_passwd`"),
            );
            return None;
        }
        return is_hash(&hash.value).then(|| Password::Hash(Secret::new(hash.value)));
    }
    let plain = fields.text("plain_text_passwd", found)?;
    if let Err(flaw) = check_plain(&plain.value) {
        let message = format!("`plain_text_passwd` {flaw}");
        let diagnostic = Diagnostic::error(DiagnosticCode::BadValue, plain.at, message);
        fields.refuse("plain_text_passwd", diagnostic.with_help(NO_PASSWORD), found);
        return None;
    }
    Some(Password::Plain(Secret::new(plain.value)))
}

fn expiry(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<String> {
    let text = fields.text("expiredate", found)?;
    let digits =
        |part: &str, count: usize| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = text.value.split('-').collect();
    if let [year, month, day] = parts[..]
        && digits(year, 4)
        && digits(month, 2)
        && digits(day, 2)
    {
        return Some(text.value);
    }
    let diagnostic =
        Diagnostic::error(DiagnosticCode::BadValue, text.at, "`expiredate` must be a date like 2030-12-31");
    fields.refuse("expiredate", diagnostic, found);
    None
}

/// Text, a list of texts, or false.
fn sudo(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<String> {
    let is_off =
        |node: &Node| matches!(&node.value, Value::Scalar(scalar) if scalar.as_bool() == Some(false));
    if fields
        .node("sudo")
        .is_some_and(|node| is_off(node) || matches!(text_of(node), Some(text) if text.value.is_empty()))
    {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for text in fields.texts("sudo", found) {
        if text.value.contains('\n') || !text.value.contains('=') {
            let diagnostic = Diagnostic::error(
                DiagnosticCode::BadValue,
                text.at,
                "this is not a sudo rule, so it is left out",
            );
            fields.refuse("sudo", diagnostic.with_help("write one like `ALL=(ALL) NOPASSWD:ALL`"), found);
        } else {
            rules.push(text.value);
        }
    }
    rules
}

fn all_imports(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<Located<KeySource>> {
    let mut sources = imports(fields, "ssh_import_id", found);
    let mut accounts = fields.texts("coreos_ssh_import_github", found);
    accounts.extend(fields.texts("coreos_ssh_import_github_users", found));
    for account in accounts {
        if is_account(&account.value) {
            sources.push(account.map_value(KeySource::GitHub));
        } else {
            let diagnostic = Diagnostic::error(
                DiagnosticCode::BadValue,
                account.at,
                "this is not the name of a GitHub account",
            );
            fields.refuse("coreos_ssh_import_github", diagnostic, found);
        }
    }
    if let Some(url) = fields.text("coreos_ssh_import_url", found) {
        if crate::address::is_web(&url.value) {
            sources.push(url.map_value(KeySource::Url));
        } else {
            let diagnostic =
                Diagnostic::error(DiagnosticCode::BadValue, url.at, "this is not an http or https address");
            fields.refuse("coreos_ssh_import_url", diagnostic, found);
        }
    }
    sources
}

/// A list of names or of `{name: [members]}`, or such a mapping.
fn groups(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<Located<Group>> {
    let Some(node) = fields.node("groups") else { return Vec::new() };
    let path = fields.child("groups");
    let mut made = Vec::new();
    match &node.value {
        Value::Mapping(entries) => {
            made.extend(by_name(entries).filter_map(|entry| group_entry(entry, &path, found)));
        }
        Value::Scalar(_) => {
            made.extend(
                node_names(node, found).into_iter().filter_map(|name| group(name, Vec::new(), &path, found)),
            );
        }
        Value::Sequence(items) => items.iter().for_each(|item| group_item(item, &path, &mut made, found)),
        Value::Unreadable => {}
    }
    made
}

fn group_item(item: &Node, path: &str, made: &mut Vec<Located<Group>>, found: &mut Diagnostics) {
    match &item.value {
        Value::Scalar(_) => {
            made.extend(
                node_names(item, found).into_iter().filter_map(|name| group(name, Vec::new(), path, found)),
            );
        }
        Value::Mapping(entries) => {
            made.extend(by_name(entries).filter_map(|entry| group_entry(entry, path, found)));
        }
        _ => found.push(wrong_type("the name of a group or `name: [members]`", item).with_key(path)),
    }
}

fn group_entry(entry: &MappingEntry, path: &str, found: &mut Diagnostics) -> Option<Located<Group>> {
    let members = match &entry.value.value {
        Value::Sequence(items) => items.iter().filter_map(text_of).collect(),
        Value::Scalar(_) if !entry.value.is_null() => node_names(&entry.value, found),
        _ => Vec::new(),
    };
    let mut good = Vec::new();
    for member in members {
        match check_name(&member.value) {
            Ok(()) => good.push(member.value),
            Err(flaw) => {
                let message = format!("this member's name {flaw}; it is left out");
                found.push(Diagnostic::error(DiagnosticCode::BadValue, member.at, message).with_key(path));
            }
        }
    }
    group(Located { value: entry.key.clone(), at: entry.key_at }, good, path, found)
}

fn group(
    name: Located<String>,
    members: Vec<String>,
    path: &str,
    found: &mut Diagnostics,
) -> Option<Located<Group>> {
    if let Err(flaw) = check_name(&name.value) {
        found.push(
            Diagnostic::error(DiagnosticCode::BadValue, name.at, format!("this group name {flaw}"))
                .with_key(path),
        );
        return None;
    }
    Some(name.map_value(|name| Group { name, members, ..Group::default() }))
}

#[cfg(test)]
mod tests;
