//! `passwd`: users and groups.
//!
//! Knows useradd's options under Ignition's names. Refuses to remove accounts. Invariant: the keys
//! of the image's own user depend on nothing else.

use crate::cloudconfig::DEFAULT_USER;
use crate::cloudconfig::access::is_hash;
use crate::cloudconfig::accounts::check_name;
use crate::cloudconfig::fields::{Fields, Key, key, refused};
use crate::plan::step::{Group, Password, Step, User};
use crate::plan::{Plan, Stage};
use crate::secret::Secret;
use crate::ssh_key;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::yaml::Node;

use super::add;
use super::storage::{each, flag, required, texts};

const PASSWD_KEYS: &[Key] = &[key("groups"), key("users")];
const USER_KEYS: &[Key] = &[
    key("name"),
    key("passwordHash"),
    key("sshAuthorizedKeys"),
    key("uid"),
    key("gecos"),
    key("homeDir"),
    key("noCreateHome"),
    key("primaryGroup"),
    key("groups"),
    key("noUserGroup"),
    key("noLogInit"),
    key("shell"),
    key("shouldExist"),
    key("system"),
];
const GROUP_KEYS: &[Key] = &[
    key("name"),
    key("gid"),
    key("shouldExist"),
    key("system"),
    refused("passwordHash", "group passwords are not set; make people members"),
];

pub(super) fn tables() -> Vec<(&'static str, &'static [Key])> {
    vec![("passwd", PASSWD_KEYS), ("passwd.groups[]", GROUP_KEYS), ("passwd.users[]", USER_KEYS)]
}

pub(super) fn read(node: &Node, path: String, plan: &mut Plan, found: &mut Diagnostics) {
    let Some(mut fields) = Fields::open(node, PASSWD_KEYS, path, found) else { return };
    each(&mut fields, "groups", GROUP_KEYS, found, |fields, path, found| group(fields, path, plan, found));
    each(&mut fields, "users", USER_KEYS, found, |fields, path, found| user(fields, path, plan, found));
}

fn group(fields: &mut Fields<'_>, path: &str, plan: &mut Plan, found: &mut Diagnostics) {
    let Some(name) = name(fields, found) else { return };
    let gid = fields.number::<u32>("gid", found).map(|gid| gid.value);
    let group = Group { name, gid, system: flag(fields, "system", found), members: Vec::new() };
    add(plan, Stage::Accounts, fields, path, Step::CreateGroup(group));
}

fn user(fields: &mut Fields<'_>, path: &str, plan: &mut Plan, found: &mut Diagnostics) {
    let Some(name) = name(fields, found) else { return };
    let keys = keys(fields, found);
    let text = |fields: &mut Fields<'_>, name, found: &mut Diagnostics| {
        let text: Option<document::source::Located<String>> = fields.text(name, found);
        text.map(|text| text.value).filter(|text| !text.is_empty() && !text.contains(['\n', ':']))
    };
    let password = password(fields, found);
    let user = User {
        name: name.clone(),
        uid: fields.number::<u32>("uid", found).map(|uid| uid.value),
        gecos: text(fields, "gecos", found),
        home: text(fields, "homeDir", found),
        no_create_home: flag(fields, "noCreateHome", found),
        primary_group: text(fields, "primaryGroup", found),
        groups: texts(fields, "groups", found),
        no_user_group: flag(fields, "noUserGroup", found),
        no_log_init: flag(fields, "noLogInit", found),
        system: flag(fields, "system", found),
        shell: text(fields, "shell", found),
        password,
        ..User::default()
    };
    let is_own = name == DEFAULT_USER;
    if !is_own || user != (User { name: name.clone(), ..User::default() }) {
        add(plan, Stage::Accounts, fields, path, Step::CreateUser(user));
    }
    if !keys.is_empty() {
        let stage = if is_own { Stage::Identity } else { Stage::Accounts };
        add(plan, stage, fields, path, Step::AuthorizeKeys { user: name, keys });
    }
}

/// `passwordHash`. Of an empty one Ignition makes `*`, which no password fits: in /etc/shadow an empty field lets
/// everybody in. Not given, the password stays as it is.
fn password(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Password> {
    let hash = fields.text("passwordHash", found)?;
    if hash.value.is_empty() {
        return Some(Password::Hash(Secret::new("*".to_owned())));
    }
    // Either would end the field, and begin another one or another user.
    if hash.value.contains(|c: char| c == ':' || c.is_control()) {
        let message = "a password hash has neither a colon nor a line break";
        fields.refuse("passwordHash", Diagnostic::error(DiagnosticCode::BadValue, hash.at, message), found);
        return None;
    }
    // Ignition writes down what it is given, so that this is no error; `!` before a hash locks it.
    let unlocked = hash.value.trim_start_matches(['!', '*']);
    if !unlocked.is_empty() && unlocked != "x" && !is_hash(unlocked) {
        let message = "this is not a password hash, so no password fits it";
        let diagnostic = Diagnostic::warning(DiagnosticCode::BadValue, hash.at, message);
        found.push(
            diagnostic.with_key(fields.child("passwordHash")).with_help("make one with `openssl passwd -6`"),
        );
    }
    Some(Password::Hash(Secret::new(hash.value)))
}

/// The keys that sshd can read; the others are reported and cost no good one.
fn keys(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<String> {
    let mut keys = Vec::new();
    for text in fields.texts("sshAuthorizedKeys", found) {
        for line in ssh_key::lines(&text.value) {
            match ssh_key::check(line) {
                Ok(()) => keys.push(line.to_owned()),
                Err(flaw) => {
                    let message = format!("this key {}; it is left out", flaw.words());
                    let diagnostic = Diagnostic::warning(DiagnosticCode::BadValue, text.at, message);
                    found.push(diagnostic.with_key(fields.child("sshAuthorizedKeys")));
                }
            }
        }
    }
    keys
}

fn name(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<String> {
    let name = required(fields, "name", found)?;
    if let Some(absent) = fields.flag("shouldExist", found).filter(|flag| !flag.value) {
        let message = "accounts are not removed here";
        fields.refuse("shouldExist", Diagnostic::error(DiagnosticCode::Refused, absent.at, message), found);
        return None;
    }
    match check_name(&name) {
        Ok(()) => Some(name),
        Err(flaw) => {
            let diagnostic =
                Diagnostic::error(DiagnosticCode::BadValue, fields.at(), format!("this name {flaw}"));
            fields.refuse("name", diagnostic, found);
            None
        }
    }
}
