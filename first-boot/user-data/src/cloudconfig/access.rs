//! Who gets in by ssh, and with what.
//!
//! Knows keys, host keys and passwords of the top level. Refuses a key sshd could not read, alone:
//! its neighbours stay. Invariant: nothing here takes an existing way in away.
//!
//! Documentation: cloud-init's modules "SSH", "Set Passwords" and "SSH Import ID" in
//! <https://docs.cloud-init.io/en/latest/reference/modules.html>, crypt(5), chpasswd(8), ssh-import-id(1).

use std::collections::HashSet;

use super::fields::{
    FieldKey, MappingFields, no_effect, refused_key, supported_key, text_of, translated_key, wrong_type,
};
use crate::plan::step::{KeySource, Password};
use crate::secret::Secret;
use crate::ssh_key;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::yaml::{Node, Value};

/// The keys of the top level that this module reads.
pub const KEYS: &[FieldKey] = &[
    supported_key("ssh_authorized_keys"),
    supported_key("ssh_import_id"),
    supported_key("ssh_keys"),
    supported_key("ssh_deletekeys"),
    supported_key("ssh_genkeytypes"),
    translated_key("ssh_pwauth", "PasswordAuthentication in /etc/ssh/sshd_config.d/50-cloud-init.conf"),
    translated_key("disable_root", "PermitRootLogin in /etc/ssh/sshd_config.d/50-cloud-init.conf"),
    refused_key("disable_root_opts", "root's keys are not changed; `disable_root: true` closes root's login"),
    supported_key("allow_public_ssh_keys"),
    supported_key("password"),
    supported_key("chpasswd"),
    no_effect("ssh_quiet_keygen", "keys are always made quietly"),
    no_effect("ssh_publish_hostkeys", "no platform is told the host keys"),
    no_effect("no_ssh_fingerprints", "no fingerprints are printed"),
    no_effect("ssh_fp_console_blacklist", "no fingerprints are printed"),
    no_effect("ssh_key_console_blacklist", "no keys are printed"),
    no_effect("ssh", "no keys are printed to the console"),
];

/// The keys of `chpasswd`.
pub const CHPASSWD_KEYS: &[FieldKey] =
    &[supported_key("expire"), supported_key("users"), supported_key("list")];
/// The keys of an item of `chpasswd.users`.
pub const CHPASSWD_USER_KEYS: &[FieldKey] =
    &[supported_key("name"), supported_key("password"), supported_key("type")];
/// The keys of `ssh_keys`.
pub const HOST_KEY_KEYS: &[FieldKey] = &[
    supported_key("rsa_private"),
    supported_key("rsa_public"),
    supported_key("rsa_certificate"),
    supported_key("ecdsa_private"),
    supported_key("ecdsa_public"),
    supported_key("ecdsa_certificate"),
    supported_key("ed25519_private"),
    supported_key("ed25519_public"),
    supported_key("ed25519_certificate"),
    refused_key("dsa_private", "sshd no longer knows DSA; give an ed25519 key"),
    refused_key("dsa_public", "sshd no longer knows DSA; give an ed25519 key"),
    refused_key("dsa_certificate", "sshd no longer knows DSA; give an ed25519 key"),
];

/// How to have no password at all.
pub(crate) const NO_PASSWORD: &str = "leave it out if nobody is to log in by a password";

// OpenSSH 10 has no DSA any more, and Debian's host keys are of these three.
const KEY_TYPES: &[&str] = &["ed25519", "ecdsa", "rsa"];

/// What a document says about getting in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessConfig {
    /// Keys for the image's own user.
    pub keys: Vec<Located<String>>,
    /// Accounts elsewhere whose keys are imported.
    pub imports: Vec<Located<KeySource>>,
    /// Given host keys: file name below /etc/ssh and content.
    pub host_keys: Vec<(String, Secret<String>)>,
    /// Where they stand.
    pub host_keys_at: Option<SourceMark>,
    /// Whether host keys that came with the disk are removed; yes unless said otherwise.
    pub keep_host_keys: bool,
    /// Which types of host keys are made.
    pub key_types: Vec<String>,
    /// Where they stand.
    pub key_types_at: Option<SourceMark>,
    /// Password logins.
    pub password_login: Option<Located<bool>>,
    /// Whether root's login is closed.
    pub close_root: Option<Located<bool>>,
    /// Whether the platform's keys are left out.
    pub without_platform_keys: bool,
    /// The default user's password.
    pub password: Option<Located<Password>>,
    /// Passwords by name.
    pub passwords: Vec<Located<(String, Password)>>,
    /// Whether these passwords must be changed at the first login.
    pub expire: bool,
}

impl AccessConfig {
    pub(crate) fn read(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Self {
        let (passwords, expire) = read_chpasswd(fields, found);
        Self {
            keys: authorized_keys(fields, "ssh_authorized_keys", found),
            imports: read_imports(fields, "ssh_import_id", found),
            host_keys: host_keys(fields, found),
            host_keys_at: fields.key_at("ssh_keys"),
            // True by default, as with cloud-init: a clone must not have the host keys of its model.
            keep_host_keys: !fields.flag_or_true("ssh_deletekeys", found),
            key_types: key_types(fields, found),
            key_types_at: fields.key_at("ssh_genkeytypes"),
            password_login: password_login(fields, found),
            close_root: fields.read_flag("disable_root", found),
            without_platform_keys: !fields.flag_or_true("allow_public_ssh_keys", found),
            password: default_password(fields, found),
            passwords,
            expire,
        }
    }
}

/// The keys of a list, or of a text that holds one a line.
pub(crate) fn authorized_keys(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Vec<Located<String>> {
    let (mut good, mut seen) = (Vec::new(), HashSet::new());
    for text in fields.read_texts(name, found) {
        for line in ssh_key::key_lines(&text.value) {
            match ssh_key::check_key(line) {
                // Parts add up, so one key may come many times.
                Ok(()) if !seen.insert(line.to_owned()) => {}
                Ok(()) => good.push(Located { value: line.to_owned(), at: text.at }),
                Err(flaw) => found.push(
                    Diagnostic::error(
                        DiagnosticCode::BadValue,
                        text.at,
                        format!("this key {}; it is left out", flaw.flaw_words()),
                    )
                    .with_key(fields.child_path(name)),
                ),
            }
        }
    }
    good
}

/// `gh:name` and `lp:name`; without a prefix Launchpad is meant, as ssh-import-id has it.
pub(crate) fn read_imports(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Vec<Located<KeySource>> {
    let mut sources = Vec::new();
    for text in fields.read_texts(name, found) {
        let source = match text.value.split_once(':') {
            Some(("gh", account)) if is_account(account) => KeySource::GitHub(account.to_owned()),
            Some(("lp", account)) if is_account(account) => KeySource::Launchpad(account.to_owned()),
            None if is_account(&text.value) => KeySource::Launchpad(text.value.clone()),
            _ => {
                found.push(
                    Diagnostic::error(
                        DiagnosticCode::BadValue,
                        text.at,
                        "this is no account to import keys from",
                    )
                    .with_key(fields.child_path(name))
                    .with_help("write `gh:NAME` for GitHub or `lp:NAME` for Launchpad"),
                );
                continue;
            }
        };
        sources.push(Located { value: source, at: text.at });
    }
    sources
}

/// Whether a name can stand in the address of a key server.
pub(crate) fn is_account(name: &str) -> bool {
    !name.is_empty()
        // The name becomes a part of an address, so it may hold nothing that addresses give a meaning.
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
}

fn host_keys(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<(String, Secret<String>)> {
    let Some(node) = fields.field_node("ssh_keys") else { return Vec::new() };
    let Some(mut keys) =
        MappingFields::read_mapping(node, HOST_KEY_KEYS, fields.child_path("ssh_keys"), found)
    else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for kind in KEY_TYPES {
        for (part, ending) in [("private", ""), ("public", ".pub"), ("certificate", "-cert.pub")] {
            if let Some(text) = keys.read_text(&format!("{kind}_{part}"), found) {
                // OpenSSH refuses a private key whose last line has no end.
                let content = text.value.trim_end().to_owned() + "\n";
                files.push((format!("ssh_host_{kind}_key{ending}"), Secret::new(content)));
            }
        }
    }
    files
}

fn key_types(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<String> {
    let mut types = Vec::new();
    if let Some(at) = fields.key_at("ssh_genkeytypes").filter(|_| names_nothing(fields, "ssh_genkeytypes")) {
        let message = "`ssh_genkeytypes` names no type, so the usual ones are made: sshd needs a host key";
        found.push(
            Diagnostic::warning(DiagnosticCode::NoEffect, at, message)
                .with_key(fields.child_path("ssh_genkeytypes")),
        );
    }
    for text in fields.read_texts("ssh_genkeytypes", found) {
        if KEY_TYPES.contains(&text.value.as_str()) {
            types.push(text.value);
        } else {
            let diagnostic = super::fields::bad_choice("ssh_genkeytypes", &text.value, text.at, KEY_TYPES);
            fields.refuse_field("ssh_genkeytypes", diagnostic, found);
        }
    }
    types
}

/// `password`: the default user's.
fn default_password(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<Password>> {
    let text = fields.read_text("password", found)?;
    if let Err(flaw) = check_plain(&text.value) {
        let diagnostic = Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("`password` {flaw}"));
        fields.refuse_field("password", diagnostic.with_help(NO_PASSWORD), found);
        return None;
    }
    Some(text.map_value(classify_password))
}

/// What a password in plain text must be: chpasswd(8) reads one line a user, and an empty one would let
/// everybody in at the console.
pub(crate) fn check_plain(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("is empty, so it is not set: everybody could log in with it"),
        _ if text.contains(['\n', '\0']) => Err("must be one line"),
        _ => Ok(()),
    }
}

/// Whether a list is there and has nothing in it.
fn names_nothing(fields: &MappingFields<'_>, name: &str) -> bool {
    fields.is_given(name)
        && fields
            .field_node(name)
            .is_none_or(|node| matches!(&node.value, Value::Sequence(items) if items.is_empty()))
}

fn password_login(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<bool>> {
    // cloud-init's third word besides true and false.
    let unchanged =
        fields.field_node("ssh_pwauth").and_then(text_of).is_some_and(|text| text.value == "unchanged");
    if unchanged { None } else { fields.read_flag("ssh_pwauth", found) }
}

fn read_chpasswd(
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> (Vec<Located<(String, Password)>>, bool) {
    // cloud-init's default for `expire` is true, also for `password`, which stands outside of this mapping.
    let Some(node) = fields.field_node("chpasswd") else { return (Vec::new(), true) };
    let Some(mut inner) =
        MappingFields::read_mapping(node, CHPASSWD_KEYS, fields.child_path("chpasswd"), found)
    else {
        return (Vec::new(), true);
    };
    let expire = inner.flag_or_true("expire", found);
    let mut passwords = old_list(&mut inner, found);
    for (index, item) in inner.read_list("users", found).iter().enumerate() {
        let path = inner.child_path(&format!("users[{index}]"));
        passwords.extend(chpasswd_user(item, path, found));
    }
    (passwords, expire)
}

fn chpasswd_user(item: &Node, path: String, found: &mut Diagnostics) -> Option<Located<(String, Password)>> {
    let mut fields = MappingFields::read_mapping(item, CHPASSWD_USER_KEYS, path, found)?;
    let name = fields.read_text("name", found);
    let kind =
        fields.read_choice("type", &["hash", "text", "RANDOM"], found).map_or("hash", |kind| kind.value);
    let value = fields.read_text("password", found);
    if fields.has_broken_field() {
        return None;
    }
    if let Some(Err((at, flaw))) = value.as_ref().map(|value| check_password(kind, value)) {
        let diagnostic = Diagnostic::error(DiagnosticCode::BadValue, at, format!("`password` {flaw}"));
        fields.refuse_field("password", diagnostic.with_help(NO_PASSWORD), found);
        return None;
    }
    let password = match (kind, value) {
        ("RANDOM", _) => Password::Random,
        ("hash", Some(value)) => Password::Hash(Secret::new(value.value)),
        (_, Some(value)) => Password::Plain(Secret::new(value.value)),
        (_, None) => {
            fields.refuse_field(
                "password",
                Diagnostic::error(DiagnosticCode::MissingKey, item.at, "`password` is missing"),
                found,
            );
            return None;
        }
    };
    let Some(name) = name else {
        fields.refuse_field(
            "name",
            Diagnostic::error(DiagnosticCode::MissingKey, item.at, "`name` is missing"),
            found,
        );
        return None;
    };
    Some(Located { value: (name.value, password), at: item.at })
}

/// Whether a password is what its `type` says. What is no hash would stand in /etc/shadow as it is: an empty
/// one lets everybody in, another nobody.
fn check_password(kind: &str, value: &Located<String>) -> Result<(), (SourceMark, &'static str)> {
    // What shadow(5) and its tools write for a password that nobody has.
    let is_lock = matches!(value.value.as_str(), "*" | "!" | "!!" | "x");
    match kind {
        "text" => check_plain(&value.value).map_err(|flaw| (value.at, flaw)),
        "hash" if value.value.is_empty() => {
            Err((value.at, "is empty, so it is not set: everybody could log in with it"))
        }
        "hash" if !is_lock && !is_hash(&value.value) => Err((
            value.at,
            "is not a password hash, so it is not set; say `type: text` if it is the password",
        )),
        _ => Ok(()),
    }
}

/// `list`: `name:password` a line, where `R` and `RANDOM` ask for a made-up one.
fn old_list(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<Located<(String, Password)>> {
    let Some(node) = fields.field_node("list") else { return Vec::new() };
    let at = node.at;
    // cloud-init takes a text of lines and a list of them.
    let texts: Vec<Located<String>> = match &node.value {
        Value::Mapping(_) => {
            let diagnostic = wrong_type("lines of `name:password`", node);
            fields.refuse_field("list", diagnostic, found);
            return Vec::new();
        }
        _ => fields.read_texts("list", found),
    };
    let mut passwords = Vec::new();
    for line in
        texts.iter().flat_map(|text| text.value.lines()).map(str::trim).filter(|line| !line.is_empty())
    {
        match line.split_once(':') {
            Some((name, value)) if check_plain(value).is_ok() => {
                passwords.push(Located { value: (name.to_owned(), classify_password(value.to_owned())), at });
            }
            Some(_) => {
                let message = "a password here is empty, so it is not set: everybody could log in with it";
                let diagnostic = Diagnostic::error(DiagnosticCode::BadValue, at, message);
                fields.refuse_field("list", diagnostic.with_help(NO_PASSWORD), found);
            }
            None => {
                let diagnostic =
                    Diagnostic::error(DiagnosticCode::BadValue, at, "a line here is not `name:password`");
                fields.refuse_field("list", diagnostic, found);
            }
        }
    }
    passwords
}

/// A password as people write it: a hash, `RANDOM`, or plain text.
pub(crate) fn classify_password(text: String) -> Password {
    match text.as_str() {
        // cloud-init's two words for it.
        "R" | "RANDOM" => Password::Random,
        _ if is_hash(&text) => Password::Hash(Secret::new(text)),
        _ => Password::Plain(Secret::new(text)),
    }
}

/// Whether a text has the shape that crypt(3) gives to hashes.
pub(crate) fn is_hash(text: &str) -> bool {
    // The prefixes of crypt(5). Debian's libcrypt checks all of these, old ones too.
    let known = ["$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$gy$"];
    known.iter().any(|prefix| text.starts_with(prefix)) && !text.contains([':', '\n', ' '])
}
