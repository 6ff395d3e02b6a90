//! `systemd`: units and their drop-ins.
//!
//! Knows that Ignition runs before systemd does and this agent runs beside it, so a unit that is
//! enabled is started as well. Refuses units of systemd-networkd.
//! Invariant: contents first, then one reload, then links, then starts.

use crate::cloudconfig::fields::{Fields, Key, key};
use crate::plan::step::{Step, Verb};
use crate::plan::{Origin, Plan, Stage};
use crate::secret::Secret;
use crate::systemd::{UnitClass, classify, is_drop_in};
use crate::unit_text::{self, relaxed_text};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::Node;

use super::add;
use super::storage::{each, required};

const SYSTEMD_KEYS: &[Key] = &[key("units")];
const UNIT_KEYS: &[Key] = &[key("name"), key("enabled"), key("mask"), key("contents"), key("dropins")];
const DROP_IN_KEYS: &[Key] = &[key("name"), key("contents")];

pub(super) fn tables() -> Vec<(&'static str, &'static [Key])> {
    vec![
        ("systemd", SYSTEMD_KEYS),
        ("systemd.units[]", UNIT_KEYS),
        ("systemd.units[].dropins[]", DROP_IN_KEYS),
    ]
}

pub(super) fn read(node: &Node, path: String, plan: &mut Plan, found: &mut Diagnostics) {
    let Some(mut fields) = Fields::open(node, SYSTEMD_KEYS, path, found) else { return };
    let mut files = Plan::default();
    let mut links = Plan::default();
    let mut starts = Plan::default();
    each(&mut fields, "units", UNIT_KEYS, found, |fields, path, found| {
        let Some(name) = name(fields, found) else { return };
        unit_files(fields, path, &name, &mut files, found);
        unit_links(fields, path, &name, &mut links, &mut starts, found);
    });
    if !files.steps.is_empty() || !links.steps.is_empty() {
        files.once(Stage::Units, Origin::from("agent"), Step::ReloadUnits);
    }
    for part in [files, links, starts] {
        plan.steps.extend(part.steps);
    }
}

fn name(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<String> {
    let name = required(fields, "name", found)?;
    let flaw = match classify(&name) {
        Ok(UnitClass::System) => return Some(name),
        Ok(UnitClass::Network) => {
            "is one of networkd's; write it with `storage.files` to /etc/systemd/network"
        }
        Err(flaw) => flaw,
    };
    let at = fields.key_at("name").unwrap_or_else(|| fields.at());
    fields.refuse(
        "name",
        Diagnostic::error(DiagnosticCode::BadValue, at, format!("this unit name {flaw}")),
        found,
    );
    None
}

fn unit_files(fields: &mut Fields<'_>, path: &str, name: &str, files: &mut Plan, found: &mut Diagnostics) {
    let is_enabled = fields.flag("enabled", found).is_some_and(|flag| flag.value);
    if let Some(contents) = unit_text(fields, found) {
        if is_enabled && !unit_text::has_install(&contents.value) && !name.contains('@') {
            let message =
                format!("{name} is started once: without an [Install] section no later boot starts it");
            let diagnostic = Diagnostic::warning(DiagnosticCode::NoEffect, contents.at, message);
            found.push(
                diagnostic
                    .with_key(fields.child("enabled"))
                    .with_help("add `[Install]` and `WantedBy=multi-user.target`"),
            );
        }
        let content = Secret::new(relaxed_text(name, contents, fields.child("contents"), found));
        let step = Step::WriteUnit { name: name.to_owned(), content, runtime: false };
        add(files, Stage::Units, fields, path, step);
    }
    each(fields, "dropins", DROP_IN_KEYS, found, |fields, path, found| {
        let file = required(fields, "name", found);
        if let Some(file) = file.as_ref().filter(|file| !is_drop_in(file)) {
            let message = format!("the name of a drop-in must end in `.conf`, and {file} does not");
            fields.refuse("name", Diagnostic::error(DiagnosticCode::BadValue, fields.at(), message), found);
        }
        if let (Some(contents), Some(file)) = (unit_text(fields, found), file) {
            let content = Secret::new(relaxed_text(name, contents, fields.child("contents"), found));
            let step = Step::WriteDropIn { unit: name.to_owned(), name: file, content, runtime: false };
            add(files, Stage::Units, fields, path, step);
        }
    });
}

/// `contents`, if it is a unit's; an empty one says nothing.
fn unit_text(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Located<String>> {
    let contents = fields.text("contents", found).filter(|text| !text.value.is_empty())?;
    let Some(flaw) = unit_text::flaw(&contents.value) else { return Some(contents) };
    let message = format!("this is no unit: its line {} {}", flaw.line, flaw.reason);
    fields.refuse("contents", Diagnostic::error(DiagnosticCode::Syntax, contents.at, message), found);
    None
}

fn unit_links(
    fields: &mut Fields<'_>,
    path: &str,
    name: &str,
    links: &mut Plan,
    starts: &mut Plan,
    found: &mut Diagnostics,
) {
    let masked = fields.flag("mask", found).map(|flag| flag.value);
    let enabled = fields.flag("enabled", found).map(|flag| flag.value);
    if let Some(mask) = masked {
        // `false` lifts a mask that is there, and is not the same as nothing.
        let step = Step::MaskUnit { name: name.to_owned(), mask, runtime: false };
        add(links, Stage::Units, fields, path, step);
    }
    if masked == Some(true) {
        return;
    }
    if let Some(enable) = enabled {
        add(
            links,
            Stage::Units,
            fields,
            path,
            Step::EnableUnit { name: name.to_owned(), enable, runtime: false },
        );
    }
    if enabled == Some(true) && !name.contains("@.") {
        let step = Step::CommandUnit { name: name.to_owned(), verb: Verb::Start };
        add(starts, Stage::Units, fields, path, step);
    }
}
