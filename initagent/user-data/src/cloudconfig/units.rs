//! `coreos.units`.
//!
//! Knows contents, drop-ins, enable, mask, runtime and command. Refuses to know what people get in by,
//! which [`crate::protected`] does. Invariant: a bad unit costs itself only.

use std::collections::HashMap;

use super::fields::{Fields, Key, key};
use crate::plan::step::Verb;
use crate::secret::Secret;
use crate::systemd::{self, UnitClass};
use crate::unit_text::relaxed_text;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::Node;

/// The keys of a unit.
pub const UNIT_KEYS: &[Key] = &[
    key("name"),
    key("content"),
    key("drop_ins"),
    key("enable"),
    key("mask"),
    key("runtime"),
    key("command"),
];
/// The keys of a drop-in.
pub const DROP_IN_KEYS: &[Key] = &[key("name"), key("content")];

const COMMANDS: &[&str] =
    &["start", "stop", "restart", "reload", "try-restart", "reload-or-restart", "reload-or-try-restart"];

/// A unit as a document describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unit {
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
    pub command: Option<Verb>,
    /// The path of keys to it.
    pub key: String,
}

pub(crate) fn read(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<Located<Unit>> {
    let path = fields.child("units");
    let items = fields.list("units", found).iter().enumerate();
    let units: Vec<Located<Unit>> =
        items.filter_map(|(index, item)| unit(item, format!("{path}[{index}]"), found)).collect();
    warn_of_rewritten(&units, found);
    units
}

/// Of two contents of one unit, only the later one is there in the end.
fn warn_of_rewritten(units: &[Located<Unit>], found: &mut Diagnostics) {
    let mut last: HashMap<(&str, bool), &Located<Unit>> = HashMap::new();
    for unit in units.iter().filter(|unit| unit.value.content.is_some()) {
        let Unit { name, content, runtime, .. } = &unit.value;
        let earlier = last.insert((name, *runtime), unit);
        if let Some(earlier) = earlier.filter(|earlier| earlier.value.content != *content) {
            let message = format!("{name} is written again below; the content here is not used");
            let diagnostic = Diagnostic::warning(DiagnosticCode::Conflict, earlier.at, message);
            found.push(diagnostic.with_key(earlier.value.key.clone()));
        }
    }
}

fn unit(item: &Node, key: String, found: &mut Diagnostics) -> Option<Located<Unit>> {
    let mut fields = Fields::open(item, UNIT_KEYS, key.clone(), found)?;
    let (name, class) = name(&mut fields, found)?;
    let content = content(&name, &mut fields, found);
    let drop_ins = drop_ins(&name, &mut fields, found);
    let enable = fields.flag("enable", found).map(|flag| flag.value);
    let mask = fields.flag("mask", found).is_some_and(|flag| flag.value);
    let runtime = fields.flag("runtime", found).is_some_and(|flag| flag.value);
    let command = command(&mut fields, found);
    let enable = enable.filter(|enable| *enable);
    let unit = Unit { name, class, content, drop_ins, enable, mask, runtime, command, key };
    if fields.broken() {
        return None;
    }
    check(&unit, &fields, found);
    Some(Located { value: unit, at: item.at })
}

/// As in CoreOS, nothing is written for an empty content: systemd takes an empty file for a mask, which
/// would hide the image's own unit of that name.
fn content(unit: &str, fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Secret<String>> {
    let text = fields.text("content", found)?;
    if !text.value.trim().is_empty() {
        return Some(Secret::new(relaxed_text(unit, text, fields.child("content"), found)));
    }
    let message = "`content` is empty, so no unit is written; the one that is there is used";
    found
        .push(Diagnostic::note(DiagnosticCode::NoEffect, text.at, message).with_key(fields.child("content")));
    None
}

fn name(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<(String, UnitClass)> {
    let Some(text) = fields.text("name", found) else {
        if !fields.broken() {
            let at = fields.at();
            fields.refuse(
                "name",
                Diagnostic::error(DiagnosticCode::MissingKey, at, "this unit has no `name`"),
                found,
            );
        }
        return None;
    };
    match systemd::classify(&text.value) {
        Ok(class) => Some((text.value, class)),
        Err(flaw) => {
            let diagnostic =
                Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("this unit name {flaw}"));
            fields.refuse("name", diagnostic, found);
            None
        }
    }
}

fn drop_ins(unit: &str, fields: &mut Fields<'_>, found: &mut Diagnostics) -> Vec<(String, Secret<String>)> {
    let path = fields.child("drop_ins");
    let items = fields.list("drop_ins", found).iter().enumerate();
    items.filter_map(|(index, item)| drop_in(unit, item, format!("{path}[{index}]"), found)).collect()
}

fn drop_in(
    unit: &str,
    item: &Node,
    path: String,
    found: &mut Diagnostics,
) -> Option<(String, Secret<String>)> {
    let mut fields = Fields::open(item, DROP_IN_KEYS, path, found)?;
    let (name, content) = (fields.text("name", found), fields.text("content", found));
    if fields.broken() {
        return None;
    }
    let (Some(name), Some(content)) = (name, content) else {
        let diagnostic =
            Diagnostic::error(DiagnosticCode::MissingKey, item.at, "a drop-in needs `name` and `content`");
        fields.refuse("name", diagnostic, found);
        return None;
    };
    if !systemd::is_drop_in(&name.value) {
        let diagnostic =
            Diagnostic::error(DiagnosticCode::BadValue, name.at, "the name of a drop-in must end in `.conf`");
        fields.refuse("name", diagnostic.with_help("systemd does not read other files there"), found);
        return None;
    }
    let text = relaxed_text(unit, content, fields.child("content"), found);
    Some((name.value, Secret::new(text)))
}

fn command(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Verb> {
    let word = fields.choice("command", COMMANDS, found)?;
    Verb::ALL.into_iter().find(|verb| verb.word() == word.value)
}

/// What can be carried out, but not as its author may think.
fn check(unit: &Unit, fields: &Fields<'_>, found: &mut Diagnostics) {
    let at = |name: &str| fields.key_at(name).unwrap_or_else(|| fields.at());
    let mut warn = |name: &str, message: &str| {
        found.push(
            Diagnostic::warning(DiagnosticCode::NoEffect, at(name), message).with_key(fields.child(name)),
        );
    };
    if unit.class == UnitClass::Network && unit.command.is_some() {
        warn("command", "network configuration is always applied at once; `command` has no effect on it");
    }
    if unit.class == UnitClass::Network && unit.enable.is_some() {
        warn("enable", "network configuration can't be enabled; it is used because it is there");
    }
    if unit.mask && unit.content.is_some() {
        warn("content", "the unit is masked, so its content is never used");
    }
    if unit.mask && matches!(unit.command, Some(verb) if verb != Verb::Stop) {
        warn("command", "the unit is masked, so it can't be started");
    }
    if unit.enable.is_some()
        && unit.content.as_ref().is_some_and(|content| !content.reveal().contains("[Install]"))
    {
        warn("enable", "the unit has no [Install] section, so there is nothing to enable");
    }
}
