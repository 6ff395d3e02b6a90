//! `systemd`: units and their drop-ins.
//!
//! Knows that Ignition runs before systemd does and this agent runs beside it, so a unit that is
//! enabled is started as well. Refuses units of systemd-networkd.
//! Invariant: contents first, then one reload, then links, then starts.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>, `systemd`, and systemd.preset(5),
//! by which Ignition enables units.

use crate::cloudconfig::fields::{FieldKey, MappingFields, supported_key};
use crate::plan::step::{PlanStep, UnitVerb};
use crate::plan::{FirstBootPlan, PlanStage, StepOrigin};
use crate::secret::Secret;
use crate::systemd::{UnitClass, classify_unit, is_drop_in};
use crate::unit_text::{self, relaxed_text};
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::Node;

use super::readers::{for_each_item, read_required};
use super::{add, install};

const SYSTEMD_KEYS: &[FieldKey] = &[supported_key("units")];
const UNIT_KEYS: &[FieldKey] = &[
    supported_key("name"),
    supported_key("enabled"),
    supported_key("mask"),
    supported_key("contents"),
    supported_key("dropins"),
];
const DROP_IN_KEYS: &[FieldKey] = &[supported_key("name"), supported_key("contents")];

pub(super) fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
    vec![
        ("systemd", SYSTEMD_KEYS),
        ("systemd.units[]", UNIT_KEYS),
        ("systemd.units[].dropins[]", DROP_IN_KEYS),
    ]
}

pub(super) fn read(node: &Node, path: String, plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    let Some(mut fields) = MappingFields::read_mapping(node, SYSTEMD_KEYS, path, found) else { return };
    let mut files = FirstBootPlan::default();
    let mut links = FirstBootPlan::default();
    let mut starts = FirstBootPlan::default();
    for_each_item(&mut fields, "units", UNIT_KEYS, found, |fields, path, found| {
        let Some(name) = read_name(fields, found) else { return };
        unit_files(fields, path, &name, &mut files, found);
        unit_links(fields, path, &name, &mut links, &mut starts, found);
    });
    install::warn_without_install(&files, &links, found);
    if !files.steps.is_empty() || !links.steps.is_empty() {
        files.push_once(PlanStage::Units, StepOrigin::from("agent"), PlanStep::ReloadUnits);
    }
    for part in [files, links, starts] {
        plan.steps.extend(part.steps);
    }
}

fn read_name(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let name = read_required(fields, "name", found)?;
    let flaw = match classify_unit(&name) {
        Ok(UnitClass::System) => return Some(name),
        Ok(UnitClass::Network) => {
            "is one of networkd's; write it with `storage.files` to /etc/systemd/network"
        }
        Err(flaw) => flaw,
    };
    let at = fields.key_at("name").unwrap_or_else(|| fields.start_mark());
    fields.refuse_field(
        "name",
        Diagnostic::error(DiagnosticCode::BadValue, at, format!("this unit name {flaw}")),
        found,
    );
    None
}

fn unit_files(
    fields: &mut MappingFields<'_>,
    path: &str,
    name: &str,
    files: &mut FirstBootPlan,
    found: &mut Diagnostics,
) {
    if let Some(contents) = unit_text(fields, found) {
        let content = Secret::new(relaxed_text(name, contents, fields.child_path("contents"), found));
        let step = PlanStep::WriteUnit { name: name.to_owned(), content, runtime: false };
        add(files, PlanStage::Units, fields, path, step);
    }
    for_each_item(fields, "dropins", DROP_IN_KEYS, found, |fields, path, found| {
        let file = read_required(fields, "name", found);
        if let Some(file) = file.as_ref().filter(|file| !is_drop_in(file)) {
            let message = format!("the name of a drop-in must end in `.conf`, and {file} does not");
            fields.refuse_field(
                "name",
                Diagnostic::error(DiagnosticCode::BadValue, fields.start_mark(), message),
                found,
            );
        }
        if let (Some(contents), Some(file)) = (unit_text(fields, found), file) {
            let content = Secret::new(relaxed_text(name, contents, fields.child_path("contents"), found));
            let step = PlanStep::WriteDropIn { unit: name.to_owned(), name: file, content, runtime: false };
            add(files, PlanStage::Units, fields, path, step);
        }
    });
}

/// `contents`, if it is a unit's; an empty one says nothing.
fn unit_text(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<Located<String>> {
    let contents = fields.read_text("contents", found).filter(|text| !text.value.is_empty())?;
    let Some(flaw) = unit_text::syntax_flaw(&contents.value) else { return Some(contents) };
    let message = format!("this is no unit: its line {} {}", flaw.line, flaw.reason);
    fields.refuse_field("contents", Diagnostic::error(DiagnosticCode::Syntax, contents.at, message), found);
    None
}

fn unit_links(
    fields: &mut MappingFields<'_>,
    path: &str,
    name: &str,
    links: &mut FirstBootPlan,
    starts: &mut FirstBootPlan,
    found: &mut Diagnostics,
) {
    let masked = fields.read_flag("mask", found).map(|flag| flag.value);
    let enabled = fields.read_flag("enabled", found).map(|flag| flag.value);
    if let Some(mask) = masked {
        // `false` lifts a mask that is there, and is not the same as nothing.
        let step = PlanStep::MaskUnit { name: name.to_owned(), mask, runtime: false };
        add(links, PlanStage::Units, fields, path, step);
    }
    // systemd refuses to enable or start what is masked.
    if masked == Some(true) {
        return;
    }
    if let Some(enable) = enabled {
        add(
            links,
            PlanStage::Units,
            fields,
            path,
            PlanStep::EnableUnit { name: name.to_owned(), enable, runtime: false },
        );
    }
    // A template cannot be started, only its instances.
    if enabled == Some(true) && !name.contains("@.") {
        let step = PlanStep::CommandUnit { name: name.to_owned(), verb: UnitVerb::Start };
        add(starts, PlanStage::Units, fields, path, step);
    }
}
