//! `coreos.etcd`, `etcd2`, `fleet`, `flannel`, `locksmith`, `update` and `oem`.
//!
//! Knows each option's variable, and what etcd 3.5 no longer knows. Refuses values of the wrong type,
//! one by one. Invariants: `false` and `0` can be set; a value can hold any character.

use super::fields::{Fields, Key, Support, bad_choice, key};
use crate::address;
use crate::secret::Secret;
use crate::systemd;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};

mod options;

pub use options::{ETCD, ETCD2, FLANNEL, FLEET, LOCKSMITH, Opt, Rule, Type};

/// The keys of `coreos`.
pub const COREOS_KEYS: &[Key] = &[
    key("units"),
    key("etcd"),
    key("etcd2"),
    key("fleet"),
    key("flannel"),
    key("locksmith"),
    key("update"),
    key("oem"),
];
/// The keys of `coreos.update`.
pub const UPDATE_KEYS: &[Key] = &[key("reboot_strategy"), key("group"), key("server")];
/// The keys of `coreos.oem`.
pub const OEM_KEYS: &[Key] =
    &[key("id"), key("name"), key("version_id"), key("home_url"), key("bug_report_url")];

const STRATEGIES: &[&str] = &["etcd-lock", "reboot", "off", "best-effort"];

/// The settings of one service, as variables in the order of its table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Which service of `coreos` it is.
    pub service: &'static str,
    /// Names and values.
    pub variables: Vec<(String, Secret<String>)>,
    /// Where they stand.
    pub at: SourceMark,
}

/// What a document says about CoreOS's services.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Services {
    /// Services that are configured by their environment.
    pub environments: Vec<Settings>,
    /// `coreos.update`.
    pub update: Option<Settings>,
    /// `coreos.oem`: lines of /etc/oem-release.
    pub oem: Option<Located<String>>,
}

impl Services {
    pub(crate) fn read(coreos: &Fields<'_>, found: &mut Diagnostics) -> Self {
        let tables = [
            ("etcd", ETCD),
            ("etcd2", ETCD2),
            ("fleet", FLEET),
            ("flannel", FLANNEL),
            ("locksmith", LOCKSMITH),
        ];
        Self {
            environments: tables
                .into_iter()
                .filter_map(|(service, table)| environment(coreos, service, table, found))
                .collect(),
            update: update(coreos, found),
            oem: oem(coreos, found),
        }
    }
}

impl Settings {
    /// The drop-in that hands the variables to a service, and what it must not say itself: everybody may ask
    /// the manager for the environment that stands in a unit, so secrets go by a file.
    #[must_use]
    pub fn drop_in(&self, secrets: &str) -> (String, Option<String>) {
        let (hidden, open): (Vec<_>, Vec<_>) =
            self.variables.iter().partition(|(name, value)| is_secret(name, value.reveal()));
        let mut text = "[Service]\n".to_owned();
        for (name, value) in open {
            text.extend([systemd::environment(name, value.reveal()).as_str(), "\n"]);
        }
        if hidden.is_empty() {
            return (text, None);
        }
        text.extend(["EnvironmentFile=", secrets, "\n"]);
        let lines = hidden.iter().map(|(name, value)| systemd::environment_line(name, value.reveal()));
        (text, Some(lines.collect()))
    }

    /// `NAME=value` lines.
    #[must_use]
    pub fn lines(&self) -> String {
        let lines = self.variables.iter().map(|(name, value)| [name, "=", value.reveal(), "\n"].concat());
        lines.collect()
    }

    /// Sets a variable unless it is set; what is written under its own name wins over a translation.
    fn set(&mut self, name: &str, value: String) {
        if !self.variables.iter().any(|(known, _)| known == name) {
            self.variables.push((name.to_owned(), Secret::new(value)));
        }
    }
}

/// Whether a variable's value lets people in somewhere.
fn is_secret(name: &str, value: &str) -> bool {
    name.ends_with("_PASSWORD") || name.ends_with("_TOKEN") || address::has_password(value)
}

/// The keys of a service, made from its table.
#[must_use]
pub fn keys_of(table: &'static [Opt]) -> &'static [Key] {
    use std::sync::OnceLock;
    static MADE: OnceLock<Vec<(&'static [Opt], Vec<Key>)>> = OnceLock::new();
    let all = MADE.get_or_init(|| {
        let tables = [ETCD, ETCD2, FLEET, FLANNEL, LOCKSMITH];
        tables.into_iter().map(|table| (table, table.iter().map(Opt::key).collect())).collect()
    });
    all.iter().find(|(known, _)| *known == table).map_or(&[], |(_, keys)| keys.as_slice())
}

impl Opt {
    fn key(&self) -> Key {
        let support = match self.rule {
            Rule::Variable(_) => Support::Supported,
            Rule::Gone(because) => Support::Translated(because),
            Rule::Authority { .. } => {
                Support::Translated("trusted-ca-file and client certificates, as etcd 3.5 spells it")
            }
            Rule::Level(_) => Support::Translated("ETCD_LOG_LEVEL, as etcd 3.5 spells it"),
            Rule::Url(_) => Support::Translated("the URL that etcd 2 and later want"),
        };
        Key { name: self.name, support }
    }
}

fn environment(
    coreos: &Fields<'_>,
    service: &'static str,
    table: &'static [Opt],
    found: &mut Diagnostics,
) -> Option<Settings> {
    let node = coreos.node(service)?;
    let mut fields = Fields::open(node, keys_of(table), coreos.child(service), found)?;
    let mut settings = Settings { service, variables: Vec::new(), at: coreos.key_at(service)? };
    let (plain, translated): (Vec<&Opt>, Vec<&Opt>) =
        table.iter().partition(|option| matches!(option.rule, Rule::Variable(_)));
    for option in plain.into_iter().chain(translated) {
        if let Some(value) = value(&mut fields, option, found) {
            apply(&mut settings, option, value, &fields, found);
        }
    }
    Some(settings).filter(|settings| !settings.variables.is_empty())
}

/// The value of an option as text, if it has its type.
fn value(fields: &mut Fields<'_>, option: &Opt, found: &mut Diagnostics) -> Option<Located<String>> {
    let text = match option.kind {
        Type::Flag => fields.flag(option.name, found)?.map_value(|flag| flag.to_string()),
        Type::Integer => fields.number::<u64>(option.name, found)?.map_value(|number| number.to_string()),
        Type::Words(words) => fields.choice(option.name, words, found)?.map_value(str::to_owned),
        Type::Text => joined(fields, option.name, found)?,
        Type::Float | Type::Window | Type::Length => fields.text(option.name, found)?,
    };
    let flaw = match option.kind {
        Type::Float if text.value.parse::<f64>().is_err() => Some("must be a number, like 2.5"),
        Type::Window if !is_window_start(&text.value) => Some("must be a time like `04:00` or `Thu 23:30`"),
        Type::Length if !is_duration(&text.value) => Some("must be a length of time like `1h30m`"),
        _ if text.value.contains('\0') => Some("has a zero in it"),
        _ => None,
    };
    match flaw {
        None => Some(text),
        Some(flaw) => {
            let diagnostic =
                Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("`{}` {flaw}", option.name));
            fields.refuse(option.name, diagnostic, found);
            None
        }
    }
}

/// Addresses may be a list too; the services want them with commas.
fn joined(fields: &mut Fields<'_>, name: &str, found: &mut Diagnostics) -> Option<Located<String>> {
    let at = fields.node(name)?.at;
    let texts = fields.texts(name, found);
    let value = texts.iter().map(|text| text.value.trim()).collect::<Vec<_>>().join(",");
    Some(Located { value, at }).filter(|_| !texts.is_empty())
}

fn apply(
    settings: &mut Settings,
    option: &Opt,
    value: Located<String>,
    fields: &Fields<'_>,
    found: &mut Diagnostics,
) {
    let mut note = |severity: fn(DiagnosticCode, SourceMark, String) -> Diagnostic, message: String| {
        found.push(
            severity(DiagnosticCode::Translated, value.at, message).with_key(fields.child(option.name)),
        );
    };
    match option.rule {
        Rule::Variable(variable) => {
            if option.name == "discovery" {
                check_discovery(&value, fields, found);
            }
            settings.set(variable, value.value);
        }
        Rule::Url(variable) => {
            let port = if variable.contains("PEER") { 7001 } else { 4001 };
            settings.set(variable, url_of(&value.value, port));
            note(Diagnostic::note, format!("`{}` is handed on as {variable}", option.name));
        }
        Rule::Authority { trusted, required } => {
            settings.set(trusted, value.value);
            settings.set(required, "true".to_owned());
            note(Diagnostic::note, format!("`{}` is handed on as {trusted} and {required}", option.name));
        }
        Rule::Level(level) if value.value == "true" => {
            settings.set("ETCD_LOG_LEVEL", level.to_owned());
            note(Diagnostic::note, format!("`{}` is handed on as ETCD_LOG_LEVEL={level}", option.name));
        }
        Rule::Level(_) => {}
        Rule::Gone(because) => note(Diagnostic::warning, format!("`{}` is left out: {because}", option.name)),
    }
}

/// etcd 0.4 took a host without a port for its own; etcd 3.5 does not start with one.
fn url_of(address: &str, port: u16) -> String {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let host = url.split("://").nth(1).unwrap_or_default();
    let has_port = host.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    if has_port || host.contains('/') { url } else { format!("{url}:{port}") }
}

fn check_discovery(value: &Located<String>, fields: &Fields<'_>, found: &mut Diagnostics) {
    let problem = if !address::is_web(&value.value) {
        "`discovery` is not an http or https address, so etcd will not start"
    } else if value.value.contains(['<', '>']) {
        "`discovery` still holds the words of an example; ask for an address of your own once, and write that"
    } else if value.value.contains("/new") {
        "`discovery` asks for a new cluster each time; fetch that address once and write what it answers"
    } else {
        return;
    };
    found.push(
        Diagnostic::warning(DiagnosticCode::BadValue, value.at, problem).with_key(fields.child("discovery")),
    );
}

fn is_window_start(text: &str) -> bool {
    let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let (day, time) = text.split_once(' ').map_or((None, text), |(day, time)| (Some(day), time));
    let number = |part: &str, below: u32| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u32>().is_ok_and(|n| n < below)
    };
    day.is_none_or(|day| days.contains(&day.to_ascii_lowercase().as_str()))
        && time.split_once(':').is_some_and(|(hour, minute)| number(hour, 24) && number(minute, 60))
}

fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    while !rest.is_empty() {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let unit = ["ns", "us", "ms", "h", "m", "s"].into_iter().find(|unit| after.starts_with(unit));
        match unit {
            Some(unit) if after.len() < rest.len() => rest = &after[unit.len()..],
            _ => return false,
        }
    }
    text.len() > 1
}

fn update(coreos: &Fields<'_>, found: &mut Diagnostics) -> Option<Settings> {
    let mut fields = Fields::open(coreos.node("update")?, UPDATE_KEYS, coreos.child("update"), found)?;
    let mut settings = Settings { service: "update", variables: Vec::new(), at: coreos.key_at("update")? };
    if let Some(text) = fields.text("reboot_strategy", found) {
        // YAML turns a bare `off` into false in other readers, so both are taken.
        let word = if text.value == "false" { "off" } else { text.value.as_str() };
        if STRATEGIES.contains(&word) {
            settings.set("REBOOT_STRATEGY", word.to_owned());
        } else {
            let diagnostic = bad_choice("reboot_strategy", word, text.at, STRATEGIES);
            fields.refuse("reboot_strategy", diagnostic, found);
        }
    }
    for (name, variable) in [("group", "GROUP"), ("server", "SERVER")] {
        if let Some(text) = fields.text(name, found) {
            settings.set(variable, text.value);
        }
    }
    Some(settings).filter(|settings| !settings.variables.is_empty())
}

fn oem(coreos: &Fields<'_>, found: &mut Diagnostics) -> Option<Located<String>> {
    let mut fields = Fields::open(coreos.node("oem")?, OEM_KEYS, coreos.child("oem"), found)?;
    let mut text =
        |name: &str| fields.text(name, found).map(|text| text.value.replace(['"', '\n', '\\', '$', '`'], ""));
    let Some(id) = text("id") else {
        let message = "`oem` has no `id`, so nothing of it is written";
        let at = coreos.key_at("oem")?;
        found.push(
            Diagnostic::error(DiagnosticCode::MissingKey, at, message).with_key(coreos.child("oem.id")),
        );
        return None;
    };
    let mut lines = format!("ID={id}\n");
    for (name, variable, quote) in [
        ("version_id", "VERSION_ID", ""),
        ("name", "NAME", "\""),
        ("home_url", "HOME_URL", "\""),
        ("bug_report_url", "BUG_REPORT_URL", "\""),
    ] {
        if let Some(value) = text(name) {
            lines.extend([variable, "=", quote, &value, quote, "\n"]);
        }
    }
    Some(Located { value: lines, at: coreos.key_at("oem")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_judged_as_locksmith_does() {
        for good in ["4:00", "04:00", "Thu 23:30", "sat 0:59"] {
            assert!(is_window_start(good), "{good}");
        }
        for bad in ["24:00", "4", "Xyz 4:00", "4:60", "", "+4:00"] {
            assert!(!is_window_start(bad), "{bad}");
        }
        assert!(is_duration("1h30m") && is_duration("90s") && is_duration("1.5h"));
        assert!(!is_duration("1") && !is_duration("h") && !is_duration("") && !is_duration("1d"));
    }
}
