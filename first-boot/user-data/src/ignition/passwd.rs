//! `passwd`: users and groups.
//!
//! Knows useradd's options under Ignition's names. Refuses to remove accounts. Invariant: the keys
//! of the image's own user depend on nothing else.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>, `passwd`, useradd(8), shadow(5).

use crate::cloudconfig::access::is_hash;
use crate::cloudconfig::accounts::check_name;
use crate::cloudconfig::fields::{FieldKey, MappingFields, refused_key, supported_key};
use crate::plan::step::DEFAULT_USER;
use crate::plan::step::{GroupStep, Password, PlanStep, UserStep};
use crate::plan::{FirstBootPlan, PlanStage};
use crate::secret::Secret;
use crate::ssh_key;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::yaml::Node;

use super::add;
use super::readers::{for_each_item, read_flag, read_required, read_texts};

const PASSWD_KEYS: &[FieldKey] = &[supported_key("groups"), supported_key("users")];
const USER_KEYS: &[FieldKey] = &[
    supported_key("name"),
    supported_key("passwordHash"),
    supported_key("sshAuthorizedKeys"),
    supported_key("uid"),
    supported_key("gecos"),
    supported_key("homeDir"),
    supported_key("noCreateHome"),
    supported_key("primaryGroup"),
    supported_key("groups"),
    supported_key("noUserGroup"),
    supported_key("noLogInit"),
    supported_key("shell"),
    supported_key("shouldExist"),
    supported_key("system"),
];
const GROUP_KEYS: &[FieldKey] = &[
    supported_key("name"),
    supported_key("gid"),
    supported_key("shouldExist"),
    supported_key("system"),
    refused_key("passwordHash", "group passwords are not set; make people members"),
];

pub(super) fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
    vec![("passwd", PASSWD_KEYS), ("passwd.groups[]", GROUP_KEYS), ("passwd.users[]", USER_KEYS)]
}

pub(super) fn read(node: &Node, path: String, plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    let Some(mut fields) = MappingFields::read_mapping(node, PASSWD_KEYS, path, found) else { return };
    // Groups before users, who may be in them.
    for_each_item(&mut fields, "groups", GROUP_KEYS, found, |fields, path, found| {
        plan_group(fields, path, plan, found);
    });
    for_each_item(&mut fields, "users", USER_KEYS, found, |fields, path, found| {
        plan_user(fields, path, plan, found);
    });
}

fn plan_group(fields: &mut MappingFields<'_>, path: &str, plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    let Some(name) = read_name(fields, found) else { return };
    let gid = fields.read_number::<u32>("gid", found).map(|gid| gid.value);
    let group = GroupStep { name, gid, system: read_flag(fields, "system", found), members: Vec::new() };
    add(plan, PlanStage::Accounts, fields, path, PlanStep::CreateGroup(group));
}

fn plan_user(fields: &mut MappingFields<'_>, path: &str, plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    let Some(name) = read_name(fields, found) else { return };
    let keys = read_keys(fields, found);
    let text = |fields: &mut MappingFields<'_>, name, found: &mut Diagnostics| {
        let text: Option<document::source::Located<String>> = fields.read_text(name, found);
        text.map(|text| text.value).filter(|text| !text.is_empty() && !text.contains(['\n', ':']))
    };
    let password = read_password(fields, found);
    let user = UserStep {
        name: name.clone(),
        uid: fields.read_number::<u32>("uid", found).map(|uid| uid.value),
        gecos: text(fields, "gecos", found),
        home: text(fields, "homeDir", found),
        no_create_home: read_flag(fields, "noCreateHome", found),
        primary_group: text(fields, "primaryGroup", found),
        groups: read_texts(fields, "groups", found),
        no_user_group: read_flag(fields, "noUserGroup", found),
        no_log_init: read_flag(fields, "noLogInit", found),
        system: read_flag(fields, "system", found),
        shell: text(fields, "shell", found),
        password,
        ..UserStep::default()
    };
    let is_own = name == DEFAULT_USER;
    if !is_own || user != (UserStep { name: name.clone(), ..UserStep::default() }) {
        add(plan, PlanStage::Accounts, fields, path, PlanStep::CreateUser(user));
    }
    if !keys.is_empty() {
        // The way in comes first, as for a cloud-config.
        let stage = if is_own { PlanStage::Identity } else { PlanStage::Accounts };
        add(plan, stage, fields, path, PlanStep::AuthorizeKeys { user: name, keys });
    }
}

/// `passwordHash`. Of an empty one Ignition makes `*`, which no password fits: in /etc/shadow an empty field lets
/// everybody in. Not given, the password stays as it is.
fn read_password(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Password> {
    let hash = fields.read_text("passwordHash", found)?;
    if hash.value.is_empty() {
        return Some(Password::Hash(Secret::new("*".to_owned())));
    }
    // Either would end the field, and begin another one or another user.
    if hash.value.contains(|c: char| c == ':' || c.is_control()) {
        let message = "a password hash has neither a colon nor a line break";
        fields.refuse_field(
            "passwordHash",
            Diagnostic::error(DiagnosticCode::BadValue, hash.at, message),
            found,
        );
        return None;
    }
    // Ignition writes down what it is given, so that this is no error; `!` before a hash locks it.
    let unlocked = hash.value.trim_start_matches(['!', '*']);
    if !unlocked.is_empty() && unlocked != "x" && !is_hash(unlocked) {
        let message = "this is not a password hash, so no password fits it";
        let diagnostic = Diagnostic::warning(DiagnosticCode::BadValue, hash.at, message);
        found.push(
            diagnostic
                .with_key(fields.child_path("passwordHash"))
                .with_help("make one with `openssl passwd -6`"),
        );
    }
    Some(Password::Hash(Secret::new(hash.value)))
}

/// The keys that sshd can read; the others are reported and cost no good one.
fn read_keys(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<String> {
    let mut keys = Vec::new();
    for text in fields.read_texts("sshAuthorizedKeys", found) {
        for line in ssh_key::key_lines(&text.value) {
            match ssh_key::check_key(line) {
                Ok(()) => keys.push(line.to_owned()),
                Err(flaw) => {
                    let message = format!("this key {}; it is left out", flaw.flaw_words());
                    let diagnostic = Diagnostic::warning(DiagnosticCode::BadValue, text.at, message);
                    found.push(diagnostic.with_key(fields.child_path("sshAuthorizedKeys")));
                }
            }
        }
    }
    keys
}

fn read_name(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let name = read_required(fields, "name", found)?;
    if let Some(absent) = fields.read_flag("shouldExist", found).filter(|flag| !flag.value) {
        let message = "accounts are not removed here";
        fields.refuse_field(
            "shouldExist",
            Diagnostic::error(DiagnosticCode::Refused, absent.at, message),
            found,
        );
        return None;
    }
    match check_name(&name) {
        Ok(()) => Some(name),
        Err(flaw) => {
            let diagnostic =
                Diagnostic::error(DiagnosticCode::BadValue, fields.start_mark(), format!("this name {flaw}"));
            fields.refuse_field("name", diagnostic, found);
            None
        }
    }
}
