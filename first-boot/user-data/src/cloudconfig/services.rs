//! `coreos.etcd`, `etcd2`, `fleet`, `flannel`, `locksmith`, `update` and `oem`.
//!
//! Knows each option's variable, and what etcd 3.5 no longer knows. Refuses values of the wrong type,
//! one by one. Invariants: `false` and `0` can be set; a value can hold any character.
//!
//! Documentation: coreos-cloudinit's `Documentation/cloud-config.md`, etcd's
//! <https://etcd.io/docs/v3.5/op-guide/configuration/>, systemd.exec(5), and os-release(5) for `oem`.

use super::fields::{FieldKey, KeySupport, MappingFields, bad_choice, supported_key};
use crate::address;
use crate::secret::Secret;
use crate::systemd;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};

mod options;

pub use options::{ETCD, ETCD2, FLANNEL, FLEET, LOCKSMITH, OptionRule, OptionType, ServiceOption};

/// The keys of `coreos`.
pub const COREOS_KEYS: &[FieldKey] = &[
    supported_key("units"),
    supported_key("etcd"),
    supported_key("etcd2"),
    supported_key("fleet"),
    supported_key("flannel"),
    supported_key("locksmith"),
    supported_key("update"),
    supported_key("oem"),
];
/// The keys of `coreos.update`.
pub const UPDATE_KEYS: &[FieldKey] =
    &[supported_key("reboot_strategy"), supported_key("group"), supported_key("server")];
/// The keys of `coreos.oem`.
pub const OEM_KEYS: &[FieldKey] = &[
    supported_key("id"),
    supported_key("name"),
    supported_key("version_id"),
    supported_key("home_url"),
    supported_key("bug_report_url"),
];

// locksmith's words. It has deprecated `best-effort`, and documents still have it.
const STRATEGIES: &[&str] = &["etcd-lock", "reboot", "off", "best-effort"];

/// The settings of one service, as variables in the order of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Which service of `coreos` it is.
    pub service: &'static str,
    /// Names and values.
    pub variables: Vec<(String, Secret<String>)>,
    /// Where they stand.
    pub at: SourceMark,
}

/// What a document says about CoreOS's services.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServicesConfig {
    /// Services that are configured by their environment.
    pub environments: Vec<ServiceSettings>,
    /// `coreos.update`.
    pub update: Option<ServiceSettings>,
    /// `coreos.oem`: lines of /etc/oem-release.
    pub oem: Option<Located<String>>,
}

impl ServicesConfig {
    pub(crate) fn read(coreos: &MappingFields<'_>, found: &mut Diagnostics) -> Self {
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
                .filter_map(|(service, table)| read_service(coreos, service, table, found))
                .collect(),
            update: read_update(coreos, found),
            oem: read_oem(coreos, found),
        }
    }
}

impl ServiceSettings {
    /// The drop-in that hands the variables to a service, and what it must not say itself: everybody may ask
    /// the manager for the environment that stands in a unit, so secrets go by a file.
    #[must_use]
    pub fn drop_in(&self, secrets: &str) -> (String, Option<String>) {
        let (hidden, open): (Vec<_>, Vec<_>) =
            self.variables.iter().partition(|(name, value)| is_secret(name, value.reveal()));
        let mut text = "[Service]\n".to_owned();
        for (name, value) in open {
            text.extend([systemd::environment_setting(name, value.reveal()).as_str(), "\n"]);
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
    pub fn environment_lines(&self) -> String {
        // coreos-cloudinit wrote this file without quotes, and flanneld's units read it as it is.
        let lines = self.variables.iter().map(|(name, value)| [name, "=", value.reveal(), "\n"].concat());
        lines.collect()
    }

    /// Sets a variable unless it is set; what is written under its own name wins over a translation.
    fn set_default(&mut self, name: &str, value: String) {
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
pub fn keys_of(table: &'static [ServiceOption]) -> &'static [FieldKey] {
    use std::sync::OnceLock;
    static MADE: OnceLock<Vec<(&'static [ServiceOption], Vec<FieldKey>)>> = OnceLock::new();
    let all = MADE.get_or_init(|| {
        let tables = [ETCD, ETCD2, FLEET, FLANNEL, LOCKSMITH];
        tables
            .into_iter()
            .map(|table| (table, table.iter().map(ServiceOption::field_key).collect()))
            .collect()
    });
    all.iter().find(|(known, _)| *known == table).map_or(&[], |(_, keys)| keys.as_slice())
}

impl ServiceOption {
    fn field_key(&self) -> FieldKey {
        let support = match self.rule {
            OptionRule::Variable(_) => KeySupport::Supported,
            OptionRule::Gone(because) => KeySupport::Translated(because),
            OptionRule::Authority { .. } => {
                KeySupport::Translated("trusted-ca-file and client certificates, as etcd 3.5 spells it")
            }
            OptionRule::Level(_) => KeySupport::Translated("ETCD_LOG_LEVEL, as etcd 3.5 spells it"),
            OptionRule::Url(_) => KeySupport::Translated("the URL that etcd 2 and later want"),
        };
        FieldKey { name: self.name, support }
    }
}

fn read_service(
    coreos: &MappingFields<'_>,
    service: &'static str,
    table: &'static [ServiceOption],
    found: &mut Diagnostics,
) -> Option<ServiceSettings> {
    let node = coreos.field_node(service)?;
    let mut fields = MappingFields::read_mapping(node, keys_of(table), coreos.child_path(service), found)?;
    let mut settings = ServiceSettings { service, variables: Vec::new(), at: coreos.key_at(service)? };
    // What is written under its own name comes first, so that a translation never replaces it.
    let (plain, translated): (Vec<&ServiceOption>, Vec<&ServiceOption>) =
        table.iter().partition(|option| matches!(option.rule, OptionRule::Variable(_)));
    for option in plain.into_iter().chain(translated) {
        if let Some(value) = read_option(&mut fields, option, found) {
            apply_option(&mut settings, option, value, &fields, found);
        }
    }
    Some(settings).filter(|settings| !settings.variables.is_empty())
}

/// The value of an option as text, if it has its type.
fn read_option(
    fields: &mut MappingFields<'_>,
    option: &ServiceOption,
    found: &mut Diagnostics,
) -> Option<Located<String>> {
    let text = match option.kind {
        OptionType::Flag => fields.read_flag(option.name, found)?.map_value(|flag| flag.to_string()),
        OptionType::Integer => {
            fields.read_number::<u64>(option.name, found)?.map_value(|number| number.to_string())
        }
        OptionType::Words(words) => fields.read_choice(option.name, words, found)?.map_value(str::to_owned),
        OptionType::Text => read_joined(fields, option.name, found)?,
        OptionType::Float | OptionType::Window | OptionType::Length => {
            fields.read_text(option.name, found)?
        }
    };
    let flaw = match option.kind {
        OptionType::Float if text.value.parse::<f64>().is_err() => Some("must be a number, like 2.5"),
        OptionType::Window if !is_window_start(&text.value) => {
            Some("must be a time like `04:00` or `Thu 23:30`")
        }
        OptionType::Length if !is_duration(&text.value) => Some("must be a length of time like `1h30m`"),
        _ if text.value.contains('\0') => Some("has a zero in it"),
        _ => None,
    };
    match flaw {
        None => Some(text),
        Some(flaw) => {
            let diagnostic =
                Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("`{}` {flaw}", option.name));
            fields.refuse_field(option.name, diagnostic, found);
            None
        }
    }
}

/// Addresses may be a list too; the services want them with commas.
fn read_joined(
    fields: &mut MappingFields<'_>,
    name: &str,
    found: &mut Diagnostics,
) -> Option<Located<String>> {
    let at = fields.field_node(name)?.at;
    let texts = fields.read_texts(name, found);
    let value = texts.iter().map(|text| text.value.trim()).collect::<Vec<_>>().join(",");
    Some(Located { value, at }).filter(|_| !texts.is_empty())
}

fn apply_option(
    settings: &mut ServiceSettings,
    option: &ServiceOption,
    value: Located<String>,
    fields: &MappingFields<'_>,
    found: &mut Diagnostics,
) {
    let mut note = |severity: fn(DiagnosticCode, SourceMark, String) -> Diagnostic, message: String| {
        found.push(
            severity(DiagnosticCode::Translated, value.at, message).with_key(fields.child_path(option.name)),
        );
    };
    match option.rule {
        OptionRule::Variable(variable) => {
            if option.name == "discovery" {
                check_discovery(&value, fields, found);
            }
            settings.set_default(variable, value.value);
        }
        OptionRule::Url(variable) => {
            // etcd 0.4's ports. Members of its clusters still call each other there.
            let port = if variable.contains("PEER") { 7001 } else { 4001 };
            settings.set_default(variable, url_of(&value.value, port));
            note(Diagnostic::note, format!("`{}` is handed on as {variable}", option.name));
        }
        OptionRule::Authority { trusted, required } => {
            settings.set_default(trusted, value.value);
            settings.set_default(required, "true".to_owned());
            note(Diagnostic::note, format!("`{}` is handed on as {trusted} and {required}", option.name));
        }
        OptionRule::Level(level) if value.value == "true" => {
            settings.set_default("ETCD_LOG_LEVEL", level.to_owned());
            note(Diagnostic::note, format!("`{}` is handed on as ETCD_LOG_LEVEL={level}", option.name));
        }
        OptionRule::Level(_) => {}
        OptionRule::Gone(because) => {
            note(Diagnostic::warning, format!("`{}` is left out: {because}", option.name));
        }
    }
}

/// etcd 0.4 took a host without a port for its own; etcd 3.5 does not start with one.
fn url_of(address: &str, port: u16) -> String {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let host = url.split("://").nth(1).unwrap_or_default();
    // An IPv6 address has colons of its own, between brackets.
    let has_port = host.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    if has_port || host.contains('/') { url } else { format!("{url}:{port}") }
}

fn check_discovery(value: &Located<String>, fields: &MappingFields<'_>, found: &mut Diagnostics) {
    let problem = if !address::is_web(&value.value) {
        "`discovery` is not an http or https address, so etcd will not start"
    } else if value.value.contains(['<', '>']) {
        "`discovery` still holds the words of an example; ask for an address of your own once, and write that"
    // <https://discovery.etcd.io/new> answers with the address of one new cluster.
    } else if value.value.contains("/new") {
        "`discovery` asks for a new cluster each time; fetch that address once and write what it answers"
    } else {
        return;
    };
    found.push(
        Diagnostic::warning(DiagnosticCode::BadValue, value.at, problem)
            .with_key(fields.child_path("discovery")),
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
        // Go's time.ParseDuration, which locksmith calls; two letters before one, since `ms` begins with `m`.
        let unit = ["ns", "us", "ms", "h", "m", "s"].into_iter().find(|unit| after.starts_with(unit));
        match unit {
            Some(unit) if after.len() < rest.len() => rest = &after[unit.len()..],
            _ => return false,
        }
    }
    text.len() > 1
}

fn read_update(coreos: &MappingFields<'_>, found: &mut Diagnostics) -> Option<ServiceSettings> {
    let mut fields = MappingFields::read_mapping(
        coreos.field_node("update")?,
        UPDATE_KEYS,
        coreos.child_path("update"),
        found,
    )?;
    let mut settings =
        ServiceSettings { service: "update", variables: Vec::new(), at: coreos.key_at("update")? };
    if let Some(text) = fields.read_text("reboot_strategy", found) {
        // YAML turns a bare `off` into false in other readers, so both are taken.
        let word = if text.value == "false" { "off" } else { text.value.as_str() };
        if STRATEGIES.contains(&word) {
            settings.set_default("REBOOT_STRATEGY", word.to_owned());
        } else {
            let diagnostic = bad_choice("reboot_strategy", word, text.at, STRATEGIES);
            fields.refuse_field("reboot_strategy", diagnostic, found);
        }
    }
    for (name, variable) in [("group", "GROUP"), ("server", "SERVER")] {
        if let Some(text) = fields.read_text(name, found) {
            settings.set_default(variable, text.value);
        }
    }
    Some(settings).filter(|settings| !settings.variables.is_empty())
}

fn read_oem(coreos: &MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<String>> {
    let mut fields =
        MappingFields::read_mapping(coreos.field_node("oem")?, OEM_KEYS, coreos.child_path("oem"), found)?;
    let mut text = |name: &str| {
        // Shells source this file, so it may hold nothing that a shell gives a meaning.
        fields.read_text(name, found).map(|text| text.value.replace(['"', '\n', '\\', '$', '`'], ""))
    };
    let Some(id) = text("id") else {
        let message = "`oem` has no `id`, so nothing of it is written";
        let at = coreos.key_at("oem")?;
        found.push(
            Diagnostic::error(DiagnosticCode::MissingKey, at, message).with_key(coreos.child_path("oem.id")),
        );
        return None;
    };
    let mut lines = format!("ID={id}\n");
    for (name, variable, quote) in [
        // coreos-cloudinit's order and quotes, which tools compare with.
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
