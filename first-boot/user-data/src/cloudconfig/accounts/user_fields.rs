//! The keys below one user, each read by its own rule.
//!
//! Knows what cloud-init takes for each key. Refuses to know which users there are. Invariant: a bad value costs its key
//! and no other.

use std::collections::HashSet;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::{Node, Value};

use super::super::access::{NO_PASSWORD, check_plain, is_account, is_hash, read_imports};
use super::super::fields::{MappingFields, by_name, text_of};
use super::{check_name, node_names};
use crate::plan::step::{KeySource, Password};
use crate::secret::Secret;

/// An absolute path; and the words by which people mean that nobody logs in.
pub(super) fn read_shell(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let text = fields.field_node("shell").and_then(text_of);
    // Authors write YAML's words here, as cloud-init's examples do with `shell: false`.
    let closes =
        |word: &str| matches!(word.to_ascii_lowercase().as_str(), "false" | "no" | "nologin" | "none");
    if let Some(text) = text.filter(|text| closes(&text.value)) {
        let message = "this closes the user's logins: /usr/sbin/nologin is used";
        found.push(
            Diagnostic::note(DiagnosticCode::Translated, text.at, message)
                .with_key(fields.child_path("shell")),
        );
        return Some("/usr/sbin/nologin".to_owned());
    }
    read_absolute_path(fields, "shell", found)
}

pub(super) fn read_switch(fields: &mut MappingFields<'_>, name: &str, found: &mut Diagnostics) -> bool {
    fields.read_flag(name, found).is_some_and(|flag| flag.value)
}

pub(super) fn single_line(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<String> {
    let text = fields.read_text(name, found)?;
    if text.value.contains([':', '\n']) {
        let diagnostic = Diagnostic::error(
            DiagnosticCode::BadValue,
            text.at,
            format!("`{name}` must be one line without colons"),
        );
        fields.refuse_field(name, diagnostic, found);
        return None;
    }
    Some(text.value)
}

pub(super) fn read_absolute_path(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<String> {
    let text = fields.read_text(name, found)?;
    let good = text.value.starts_with('/') && !text.value.contains([':', '\n', '\0']);
    if !good {
        let diagnostic = Diagnostic::error(
            DiagnosticCode::BadValue,
            text.at,
            format!("`{name}` must be an absolute path"),
        );
        fields.refuse_field(name, diagnostic, found);
        return None;
    }
    Some(text.value)
}

pub(super) fn primary_group(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let text = fields.read_text("primary_group", found)?;
    if check_name(&text.value).is_err() && text.value.parse::<u32>().is_err() {
        let diagnostic = Diagnostic::error(
            DiagnosticCode::BadValue,
            text.at,
            "`primary_group` is not the name of a group",
        );
        fields.refuse_field("primary_group", diagnostic, found);
        return None;
    }
    Some(text.value)
}

/// A list, a text with commas, or the keys of a mapping.
pub(super) fn user_groups(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<String> {
    let Some(node) = fields.field_node("groups") else { return Vec::new() };
    let names: Vec<Located<String>> = match &node.value {
        Value::Mapping(entries) => {
            by_name(entries).map(|entry| Located { value: entry.key.clone(), at: entry.key_at }).collect()
        }
        Value::Scalar(_) => node_names(node, found),
        _ => fields.read_texts("groups", found),
    };
    let (mut good, mut seen) = (Vec::new(), HashSet::new());
    for name in names {
        match check_name(&name.value) {
            Ok(()) if !seen.insert(name.value.clone()) => {}
            Ok(()) => good.push(name.value),
            Err(flaw) => {
                let diagnostic =
                    Diagnostic::error(DiagnosticCode::BadValue, name.at, format!("this group name {flaw}"));
                fields.refuse_field("groups", diagnostic, found);
            }
        }
    }
    good
}

pub(super) fn user_password(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Password> {
    // cloud-init's newer name goes before the older one, which is CoreOS's, too.
    let hash = fields.read_text("hashed_passwd", found).or_else(|| fields.read_text("passwd", found));
    if let Some(hash) = hash {
        if !is_hash(&hash.value) && !matches!(hash.value.as_str(), "*" | "!" | "!!" | "x") {
            found.push(
                Diagnostic::error(
                    DiagnosticCode::BadValue,
                    hash.at,
                    "this is not a password hash, so no password is set",
                )
                .with_key(fields.child_path("passwd"))
                .with_help("make one with `openssl passwd -6`, or use `plain_text_passwd`"),
            );
            return None;
        }
        // `*` and its like are no password, and a new user has none anyway.
        return is_hash(&hash.value).then(|| Password::Hash(Secret::new(hash.value)));
    }
    let plain = fields.read_text("plain_text_passwd", found)?;
    if let Err(flaw) = check_plain(&plain.value) {
        let message = format!("`plain_text_passwd` {flaw}");
        let diagnostic = Diagnostic::error(DiagnosticCode::BadValue, plain.at, message);
        fields.refuse_field("plain_text_passwd", diagnostic.with_help(NO_PASSWORD), found);
        return None;
    }
    Some(Password::Plain(Secret::new(plain.value)))
}

pub(super) fn read_expiry(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let text = fields.read_text("expiredate", found)?;
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
    fields.refuse_field("expiredate", diagnostic, found);
    None
}

/// Text, a list of texts, or false.
pub(super) fn read_sudo(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<String> {
    let is_off =
        |node: &Node| matches!(&node.value, Value::Scalar(scalar) if scalar.as_bool() == Some(false));
    if fields
        .field_node("sudo")
        .is_some_and(|node| is_off(node) || matches!(text_of(node), Some(text) if text.value.is_empty()))
    {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for text in fields.read_texts("sudo", found) {
        // A rule of sudoers(5) is one line, with a `=` between hosts and commands.
        if text.value.contains('\n') || !text.value.contains('=') {
            let diagnostic = Diagnostic::error(
                DiagnosticCode::BadValue,
                text.at,
                "this is not a sudo rule, so it is left out",
            );
            fields.refuse_field(
                "sudo",
                diagnostic.with_help("write one like `ALL=(ALL) NOPASSWD:ALL`"),
                found,
            );
        } else {
            rules.push(text.value);
        }
    }
    rules
}

pub(super) fn all_imports(
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Vec<Located<KeySource>> {
    let mut sources = read_imports(fields, "ssh_import_id", found);
    let mut accounts = fields.read_texts("coreos_ssh_import_github", found);
    accounts.extend(fields.read_texts("coreos_ssh_import_github_users", found));
    for account in accounts {
        if is_account(&account.value) {
            sources.push(account.map_value(KeySource::GitHub));
        } else {
            let diagnostic = Diagnostic::error(
                DiagnosticCode::BadValue,
                account.at,
                "this is not the name of a GitHub account",
            );
            fields.refuse_field("coreos_ssh_import_github", diagnostic, found);
        }
    }
    if let Some(url) = fields.read_text("coreos_ssh_import_url", found) {
        // GitHub Enterprise has an address of its own, for which CoreOS had this key.
        if crate::address::is_web(&url.value) {
            sources.push(url.map_value(KeySource::Url));
        } else {
            let diagnostic =
                Diagnostic::error(DiagnosticCode::BadValue, url.at, "this is not an http or https address");
            fields.refuse_field("coreos_ssh_import_url", diagnostic, found);
        }
    }
    sources
}
