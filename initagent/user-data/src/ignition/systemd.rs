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
use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::yaml::Node;

use super::add;
use super::storage::{each, flag, required};

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
    fields.refuse("name", Diagnostic::error(Code::BadValue, at, format!("this unit name {flaw}")), found);
    None
}

fn unit_files(fields: &mut Fields<'_>, path: &str, name: &str, files: &mut Plan, found: &mut Diagnostics) {
    if let Some(contents) = fields.text("contents", found).filter(|text| !text.value.is_empty()) {
        let content = Secret::new(contents.value);
        add(
            files,
            Stage::Units,
            fields,
            path,
            Step::WriteUnit { name: name.to_owned(), content, runtime: false },
        );
    }
    each(fields, "dropins", DROP_IN_KEYS, found, |fields, path, found| {
        let Some(file) = required(fields, "name", found) else { return };
        if !is_drop_in(&file) {
            let message = "the name of a drop-in must end in `.conf`";
            return fields.refuse("name", Diagnostic::error(Code::BadValue, fields.at(), message), found);
        }
        if let Some(contents) = fields.text("contents", found).filter(|text| !text.value.is_empty()) {
            let content = Secret::new(contents.value);
            let step = Step::WriteDropIn { unit: name.to_owned(), name: file, content, runtime: false };
            add(files, Stage::Units, fields, path, step);
        }
    });
}

fn unit_links(
    fields: &mut Fields<'_>,
    path: &str,
    name: &str,
    links: &mut Plan,
    starts: &mut Plan,
    found: &mut Diagnostics,
) {
    let masked = flag(fields, "mask", found);
    let enabled = fields.flag("enabled", found).map(|flag| flag.value);
    if masked {
        let step = Step::MaskUnit { name: name.to_owned(), mask: true, runtime: false };
        return add(links, Stage::Units, fields, path, step);
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
