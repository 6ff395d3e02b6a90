//! `coreos.units`.
//!
//! Knows contents, drop-ins, enable, mask, runtime and command. Refuses to know what people get in by,
//! which [`crate::protected`] does. Invariant: a bad unit costs itself only.
//!
//! Documentation: coreos-cloudinit's `Documentation/cloud-config.md`, section "units", systemd.unit(5),
//! networkd's files in systemd.network(5), systemd.netdev(5) and systemd.link(5).

use std::collections::HashMap;

use super::fields::{FieldKey, MappingFields, supported_key};
use crate::plan::step::UnitVerb;
use crate::secret::Secret;
use crate::systemd::{self, UnitClass};
use crate::unit_text::relaxed_text;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::Node;

/// The keys of a unit.
pub const UNIT_KEYS: &[FieldKey] = &[
    supported_key("name"),
    supported_key("content"),
    supported_key("drop_ins"),
    supported_key("enable"),
    supported_key("mask"),
    supported_key("runtime"),
    supported_key("command"),
];
/// The keys of a drop-in.
pub const DROP_IN_KEYS: &[FieldKey] = &[supported_key("name"), supported_key("content")];

const COMMANDS: &[&str] =
    &["start", "stop", "restart", "reload", "try-restart", "reload-or-restart", "reload-or-try-restart"];

/// A unit as a document describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitConfig {
    /// Its name, with its ending.
    pub name: String,
    /// To whom it belongs.
    pub class: UnitClass,
    /// Its content, if it is written.
    pub content: Option<Secret<String>>,
    /// Names and contents of drop-ins.
    pub drop_ins: Vec<(String, Secret<String>)>,
    /// Whether it is enabled or disabled; left as it is if `None`.
    pub enable: Option<bool>,
    /// Whether it is masked.
    pub mask: bool,
    /// Whether all this is for /run.
    pub runtime: bool,
    /// What is done with it at each boot.
    pub command: Option<UnitVerb>,
    /// The path of keys to it.
    pub key: String,
}

pub(crate) fn read(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Vec<Located<UnitConfig>> {
    let path = fields.child_path("units");
    let items = fields.read_list("units", found).iter().enumerate();
    let units: Vec<Located<UnitConfig>> =
        items.filter_map(|(index, item)| read_unit(item, format!("{path}[{index}]"), found)).collect();
    warn_of_rewritten(&units, found);
    units
}

/// Of two contents of one unit, only the later one is there in the end.
fn warn_of_rewritten(units: &[Located<UnitConfig>], found: &mut Diagnostics) {
    // A unit in /etc and one in /run are two files; systemd takes that in /etc.
    let mut last: HashMap<(&str, bool), &Located<UnitConfig>> = HashMap::new();
    for unit in units.iter().filter(|unit| unit.value.content.is_some()) {
        let UnitConfig { name, content, runtime, .. } = &unit.value;
        let earlier = last.insert((name, *runtime), unit);
        if let Some(earlier) = earlier.filter(|earlier| earlier.value.content != *content) {
            let message = format!("{name} is written again below; the content here is not used");
            let diagnostic = Diagnostic::warning(DiagnosticCode::Conflict, earlier.at, message);
            found.push(diagnostic.with_key(earlier.value.key.clone()));
        }
    }
}

fn read_unit(item: &Node, key: String, found: &mut Diagnostics) -> Option<Located<UnitConfig>> {
    let mut fields = MappingFields::read_mapping(item, UNIT_KEYS, key.clone(), found)?;
    let (name, class) = read_name(&mut fields, found)?;
    let content = read_content(&name, &mut fields, found);
    let drop_ins = drop_ins(&name, &mut fields, found);
    let enable = fields.read_flag("enable", found).map(|flag| flag.value);
    let mask = fields.read_flag("mask", found).is_some_and(|flag| flag.value);
    let runtime = fields.read_flag("runtime", found).is_some_and(|flag| flag.value);
    let command = read_command(&mut fields, found);
    // `enable: false` is CoreOS's default, by which nothing is disabled.
    let enable = enable.filter(|enable| *enable);
    let unit = UnitConfig { name, class, content, drop_ins, enable, mask, runtime, command, key };
    if fields.has_broken_field() {
        return None;
    }
    check_unit(&unit, &fields, found);
    Some(Located { value: unit, at: item.at })
}

/// As in CoreOS, nothing is written for an empty content: systemd takes an empty file for a mask, which
/// would hide the image's own unit of that name.
fn read_content(
    unit: &str,
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Option<Secret<String>> {
    let text = fields.read_text("content", found)?;
    if !text.value.trim().is_empty() {
        return Some(Secret::new(relaxed_text(unit, text, fields.child_path("content"), found)));
    }
    let message = "`content` is empty, so no unit is written; the one that is there is used";
    found.push(
        Diagnostic::note(DiagnosticCode::NoEffect, text.at, message).with_key(fields.child_path("content")),
    );
    None
}

fn read_name(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<(String, UnitClass)> {
    let Some(text) = fields.read_text("name", found) else {
        if !fields.has_broken_field() {
            let at = fields.start_mark();
            fields.refuse_field(
                "name",
                Diagnostic::error(DiagnosticCode::MissingKey, at, "this unit has no `name`"),
                found,
            );
        }
        return None;
    };
    match systemd::classify_unit(&text.value) {
        Ok(class) => Some((text.value, class)),
        Err(flaw) => {
            let diagnostic =
                Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("this unit name {flaw}"));
            fields.refuse_field("name", diagnostic, found);
            None
        }
    }
}

fn drop_ins(
    unit: &str,
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Vec<(String, Secret<String>)> {
    let path = fields.child_path("drop_ins");
    let items = fields.read_list("drop_ins", found).iter().enumerate();
    items.filter_map(|(index, item)| drop_in(unit, item, format!("{path}[{index}]"), found)).collect()
}

fn drop_in(
    unit: &str,
    item: &Node,
    path: String,
    found: &mut Diagnostics,
) -> Option<(String, Secret<String>)> {
    let mut fields = MappingFields::read_mapping(item, DROP_IN_KEYS, path, found)?;
    let (name, content) = (fields.read_text("name", found), fields.read_text("content", found));
    if fields.has_broken_field() {
        return None;
    }
    let (Some(name), Some(content)) = (name, content) else {
        let diagnostic =
            Diagnostic::error(DiagnosticCode::MissingKey, item.at, "a drop-in needs `name` and `content`");
        fields.refuse_field("name", diagnostic, found);
        return None;
    };
    if !systemd::is_drop_in(&name.value) {
        let diagnostic =
            Diagnostic::error(DiagnosticCode::BadValue, name.at, "the name of a drop-in must end in `.conf`");
        fields.refuse_field("name", diagnostic.with_help("systemd does not read other files there"), found);
        return None;
    }
    let text = relaxed_text(unit, content, fields.child_path("content"), found);
    Some((name.value, Secret::new(text)))
}

fn read_command(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<UnitVerb> {
    let word = fields.read_choice("command", COMMANDS, found)?;
    UnitVerb::ALL.into_iter().find(|verb| verb.verb_word() == word.value)
}

/// What can be carried out, but not as its author may think.
fn check_unit(unit: &UnitConfig, fields: &MappingFields<'_>, found: &mut Diagnostics) {
    let at = |name: &str| fields.key_at(name).unwrap_or_else(|| fields.start_mark());
    let mut warn = |name: &str, message: &str| {
        found.push(
            Diagnostic::warning(DiagnosticCode::NoEffect, at(name), message)
                .with_key(fields.child_path(name)),
        );
    };
    // coreos-cloudinit restarted networkd once for all such units, too.
    if unit.class == UnitClass::Network && unit.command.is_some() {
        warn("command", "network configuration is always applied at once; `command` has no effect on it");
    }
    if unit.class == UnitClass::Network && unit.enable.is_some() {
        warn("enable", "network configuration cannot be enabled; it is used because it is there");
    }
    if unit.mask && unit.content.is_some() {
        warn("content", "the unit is masked, so its content is never used");
    }
    if unit.mask && matches!(unit.command, Some(verb) if verb != UnitVerb::Stop) {
        warn("command", "the unit is masked, so it cannot be started");
    }
    if unit.enable.is_some()
        && unit.content.as_ref().is_some_and(|content| !content.reveal().contains("[Install]"))
    {
        warn("enable", "the unit has no [Install] section, so there is nothing to enable");
    }
}
