//! Network configuration, in the formats that clouds give, as units of systemd-networkd.
//!
//! Knows cloud-init's versions 1 and 2, OpenStack's `network_data.json` and Debian's interfaces files.
//! Refuses wireless and mobile networks, tunnels and Open vSwitch by name. Invariants: nothing is written but what was
//! parsed as an address, a name or a word of a table; one wrong field costs that field only; a document
//! by which no interface would have an address does not take the addresses that DHCP gives. Whether a
//! given address is the right one, nobody knows here.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/network-config.html>,
//! <https://netplan.readthedocs.io/en/stable/netplan-yaml/>, Nova's `doc/api_schemas/network_data.json`,
//! interfaces(5).

mod debian;
mod field;
mod interface;
mod openstack;
mod reach;
mod render;
mod setting;
mod value;
mod version_1;
mod version_2;

use std::collections::HashSet;

use crate::cloudconfig::fields::FieldKey;
use crate::json;
use crate::payload;
use crate::plan::step::PlanStep;
use crate::plan::{FirstBootPlan, PlanStage, StepOrigin};
use crate::secret::Secret;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::SourceMark;
use document::yaml::{self, MappingEntry, Node, Value};
use interface::NetworkInterface;

/// More than this many interfaces, networks or services are a mistake or an attack.
// Twenty thousand members of a bond cost half a minute of looking at one another.
const MOST_INTERFACES: usize = 1024;

/// Every mapping whose keys are known, by format and path.
#[must_use]
pub fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
    [version_1::key_tables(), version_2::key_tables(), openstack::key_tables()].concat()
}

/// Every value that a unit may be given from a document's words, by section and setting, so that a test
/// can ask networkd about each.
#[must_use]
pub fn sample_settings() -> Vec<(&'static str, &'static str, String)> {
    let of = |one: &'static setting::Setting| {
        one.sample_values().into_iter().map(|value| (one.section, one.name, value)).collect::<Vec<_>>()
    };
    setting::SETTINGS.iter().flat_map(of).collect()
}

/// Whether this is a network configuration and nothing else, so that it can be judged as one.
#[must_use]
pub fn is_config(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(payload::without_marks(content));
    if debian::is_interfaces_file(&text) {
        return true;
    }
    let Some(document) = yaml::parse_yaml(&text, 0, &mut Diagnostics::default()) else { return false };
    let has = |name: &str| mapping_entry(&document, name).is_some();
    // `network:` alone is a key of a cloud-config too, if it begins like one.
    let is_wrapped = matches!(&document.value, Value::Mapping(entries) if entries.len() == 1)
        && has("network")
        && payload::detect_kind(content) != payload::PayloadKind::CloudConfig;
    let kinds = ["config", "ethernets", "bonds", "bridges", "vlans", "wifis"];
    is_wrapped || (has("version") && kinds.iter().any(|kind| has(kind))) || (has("links") && has("networks"))
}

/// Plans a configuration: units of networkd, then its restart.
#[must_use]
pub fn read(content: &[u8], part: u16, found: &mut Diagnostics) -> FirstBootPlan {
    let text = String::from_utf8_lossy(payload::without_marks(content));
    let Some(mut interfaces) = described_interfaces(&text, part, found) else {
        return FirstBootPlan::default();
    };
    // Gateways first: they are judged by the addresses that were written, not by those that are added.
    reach::check_gateways(&mut interfaces, found);
    reach::keep_reachable(&mut interfaces, found);
    plan_interfaces(&interfaces)
}

/// The interfaces that a text describes, in whatever format.
fn described_interfaces(text: &str, part: u16, found: &mut Diagnostics) -> Option<Vec<NetworkInterface>> {
    if debian::is_interfaces_file(text) {
        return Some(debian::read(text, part, found));
    }
    let document = if text.trim_start().starts_with('{') {
        // YAML's short form begins with a brace too.
        let mut as_json = Diagnostics::default();
        json::parse_json(text, part, &mut as_json).or_else(|| yaml::parse_yaml(text, part, found))
    } else {
        yaml::parse_yaml(text, part, found)
    };
    Some(read_interfaces(&document?, part, found))
}

/// The interfaces that a document describes.
fn read_interfaces(document: &Node, part: u16, found: &mut Diagnostics) -> Vec<NetworkInterface> {
    let document = mapping_entry(document, "network").unwrap_or(document);
    let said = |name: &str| {
        mapping_entry(document, name).and_then(|node| match &node.value {
            Value::Scalar(scalar) => Some(scalar.text.as_str()),
            _ => None,
        })
    };
    if is_crowded(document) {
        let message =
            format!("this describes more than {MOST_INTERFACES} interfaces, members, addresses or routes");
        found.push(Diagnostic::error(DiagnosticCode::LimitExceeded, SourceMark::start_of(part), message));
        return Vec::new();
    }
    match (said("version"), mapping_entry(document, "links").is_some()) {
        // cloud-init's way to leave the network alone.
        _ if document.is_null() || said("config") == Some("disabled") => Vec::new(),
        (Some("1"), _) => version_1::read(document, found),
        (Some("2"), _) => version_2::read(document, found),
        (None, true) => openstack::read(document, found),
        _ => {
            let message = "this is no network configuration that is known here";
            let help = "begin with `version: 1` or `version: 2`, or hand over OpenStack's network_data.json";
            found.push(
                Diagnostic::error(DiagnosticCode::UnknownFormat, SourceMark::start_of(part), message)
                    .with_help(help),
            );
            Vec::new()
        }
    }
}

/// Whether some list or map of the document, however deep, is longer than that of any machine.
fn is_crowded(document: &Node) -> bool {
    match &document.value {
        Value::Mapping(entries) => {
            entries.len() > MOST_INTERFACES || entries.iter().any(|entry| is_crowded(&entry.value))
        }
        Value::Sequence(items) => items.len() > MOST_INTERFACES || items.iter().any(is_crowded),
        _ => false,
    }
}

fn plan_interfaces(interfaces: &[NetworkInterface]) -> FirstBootPlan {
    let mut plan = FirstBootPlan::default();
    let mut stems = HashSet::new();
    for interface in interfaces {
        for (name, content) in render::render_units(interface, &free_stem(&interface.id, &mut stems)) {
            let origin = StepOrigin::from_mark(interface.at, interface.key.clone());
            // In /etc, so that the network is up at the next boot before any platform is asked.
            let step = PlanStep::WriteUnit { name, content: Secret::new(content), runtime: false };
            plan.push_once(PlanStage::Network, origin, step);
        }
    }
    if !plan.steps.is_empty() {
        plan.push_once(PlanStage::Network, StepOrigin::from("agent"), PlanStep::RestartNetwork);
    }
    plan
}

/// What the names of an interface's units begin with. Identifiers that differ in characters that no file
/// name has here would write over each other, so the second gets a number.
fn free_stem(id: &str, stems: &mut HashSet<String>) -> String {
    // cloud-init's own name. The image's fallback has a higher number, so these go before it,
    // systemd.network(5).
    let wanted = format!("10-cloud-init-{}", value::file_word(id));
    let mut stem = wanted.clone();
    let mut number = 2;
    while !stems.insert(stem.clone()) {
        stem = format!("{wanted}-{number}");
        number += 1;
    }
    stem
}

fn mapping_entry<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Mapping(entries) = &node.value else { return None };
    entries.iter().find(|entry: &&MappingEntry| entry.key == name).map(|entry| &entry.value)
}

#[cfg(test)]
mod tests;
