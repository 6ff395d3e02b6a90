//! Ignition configurations of specifications 2 and 3: the same steps as a cloud-config's.
//!
//! Knows files, directories, links, disks and file systems, units, users and groups. Refuses
//! by name what it cannot do (RAID, LUKS, kernel arguments and more). Invariant: a configuration is
//! planned wholly or not at all; of one that is refused only the keys of the image's own user stay,
//! so that its author can get in.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>,
//! <https://coreos.github.io/ignition/specs/>.

pub mod reference;

mod conflict;
mod data_address;
mod disks;
mod filesystems;
mod install;
mod legacy;
mod merge;
mod nodes;
mod passwd;
mod readers;
mod resource;
mod shape;
mod storage;
mod systemd;
mod timeouts;
mod tree;
mod verification;
mod version;

use crate::cloudconfig::fields::{FieldKey, MappingFields, refused_key, supported_key};
use crate::json;
use crate::plan::step::DEFAULT_USER;
use crate::plan::step::{PlanStep, Timeouts};
use crate::plan::{FirstBootPlan, PlanStage, StepOrigin};
use crate::protected;
use crate::room::DecompressionBudget;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics, Severity};
use document::source::SourceMark;
use document::yaml::Node;
use reference::Resolved;

/// The path of the whole document, as Ignition's own validator writes it.
// Tools that read Ignition's reports know this notation.
const ROOT: &str = "$";

/// Which document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// One that refers to no other.
    Alone,
    /// All of them, put on top of one another.
    Merged,
    /// One of several, before they are merged.
    Part,
}

/// What all readers of a document must know.
#[derive(Debug, Clone, Copy)]
struct Context {
    scope: Scope,
    timeouts: Timeouts,
}

/// Every mapping whose keys are known, by its path.
#[must_use]
pub fn key_tables() -> Vec<(&'static str, &'static [FieldKey])> {
    let mut tables = vec![
        ("", ROOT_KEYS),
        ("ignition", IGNITION_KEYS),
        ("ignition.proxy", PROXY_KEYS),
        ("ignition.security", SECURITY_KEYS),
        ("ignition.security.tls", TLS_KEYS),
        ("ignition.timeouts", TIMEOUT_KEYS),
        ("kernelArguments", ARGUMENT_KEYS),
    ];
    tables.extend(storage::key_tables());
    tables.extend(systemd::key_tables());
    tables.extend(passwd::key_tables());
    tables.extend(resource::key_tables());
    tables
}

const ROOT_KEYS: &[FieldKey] = &[
    supported_key("ignition"),
    supported_key("kernelArguments"),
    supported_key("passwd"),
    supported_key("storage"),
    supported_key("systemd"),
];
const IGNITION_KEYS: &[FieldKey] = &[
    supported_key("version"),
    supported_key("config"),
    supported_key("timeouts"),
    supported_key("proxy"),
    supported_key("security"),
];
const ARGUMENT_KEYS: &[FieldKey] =
    &[refused_key("shouldExist", NO_ARGUMENTS), refused_key("shouldNotExist", NO_ARGUMENTS)];
const PROXY_KEYS: &[FieldKey] = &[
    refused_key("httpProxy", NO_PROXY),
    refused_key("httpsProxy", NO_PROXY),
    refused_key("noProxy", NO_PROXY),
];
const SECURITY_KEYS: &[FieldKey] = &[supported_key("tls")];
const TLS_KEYS: &[FieldKey] = &[refused_key(
    "certificateAuthorities",
    "serve the files under a certificate of a public authority, or hand them over as data URLs",
)];
const TIMEOUT_KEYS: &[FieldKey] = &[supported_key("httpResponseHeaders"), supported_key("httpTotal")];
const NO_ARGUMENTS: &str =
    "the kernel command line is part of the verified boot path; use sysctl or module options";
const NO_PROXY: &str = "set the proxy in the units that need it";

/// Plans a configuration that refers to no other. What is refused is reported, and then nothing is planned but
/// access.
#[must_use]
pub fn read(text: &str, part: u16, room: &mut DecompressionBudget, found: &mut Diagnostics) -> FirstBootPlan {
    let mut own = Diagnostics::default();
    // RFC 8259, section 8.1, lets a reader skip the mark that Windows editors write.
    let Some(mut document) = json::parse_json(text.trim_start_matches('\u{feff}'), part, &mut own) else {
        found.append(own);
        return FirstBootPlan::default();
    };
    version::modernize_document(&mut document, &mut own);
    // Behind the translation, so that one set of rules serves all versions.
    conflict::check_conflicts(&document, &mut own);
    let context = Context { scope: Scope::Alone, timeouts: timeouts::read(&document) };
    let plan = plan_document(&document, context, room, &mut own);
    wholly_or_not(plan, &document, own, found)
}

/// As [`read`], for a configuration with what it refers to; its places are those of sources with these numbers.
#[must_use]
pub fn read_resolved(
    resolved: &Resolved,
    numbers: &[u16],
    room: &mut DecompressionBudget,
    found: &mut Diagnostics,
) -> FirstBootPlan {
    let resolved = resolved.clone().renumber_sources(numbers);
    let mut own = resolved.found;
    let context = |scope| Context { scope, timeouts: timeouts::read(&resolved.tree) };
    // Each is judged by itself first, since a mistake in one may be hidden by another. They share one room: with
    // one for each, many packed contents would be unpacked beyond every bound.
    // The judged copies count, but what is planned in the end has all the room.
    let mut scratch = room.clone();
    for document in &resolved.documents {
        conflict::check_conflicts(document, &mut own);
        // Only what is wrong with it counts.
        let _ = plan_document(document, context(Scope::Part), &mut scratch, &mut own);
    }
    conflict::check_conflicts(&resolved.tree, &mut own);
    let plan = plan_document(&resolved.tree, context(Scope::Merged), room, &mut own);
    wholly_or_not(plan, &resolved.tree, without_repetitions(&own, resolved.tree.at.part), found)
}

/// What is found in a document is found in the merged one again.
fn without_repetitions(found: &Diagnostics, document: u16) -> Diagnostics {
    let mut once = Diagnostics::default();
    for (index, diagnostic) in found.list().iter().enumerate() {
        let is_known = |one: &Diagnostic| one.at == diagnostic.at && one.message == diagnostic.message;
        if !found.list()[..index].iter().any(is_known) {
            once.push(diagnostic.clone());
        }
    }
    // An error beyond those that are kept still counts.
    if found.worst_severity() > once.worst_severity() {
        once.push(Diagnostic::error(
            DiagnosticCode::Refused,
            SourceMark::start_of(document),
            "more is wrong than is shown",
        ));
    }
    once
}

/// Leaves of a refused plan what lets its author in.
fn wholly_or_not(
    mut plan: FirstBootPlan,
    document: &Node,
    mut own: Diagnostics,
    found: &mut Diagnostics,
) -> FirstBootPlan {
    // Ignition is all or nothing: one step that is refused here refuses the whole, as its own validation
    // would.
    protected::take_out(&mut plan, &mut own);
    if own.worst_severity() == Some(Severity::Error) {
        plan = access_of(plan);
        let kept =
            if plan.steps.is_empty() { "" } else { "; only the keys of the image's own user are used" };
        let message =
            format!("nothing of this configuration is done, because it cannot be done wholly{kept}");
        own.push(
            Diagnostic::error(DiagnosticCode::Refused, document.at, message)
                .with_help("mend or leave out what is named above"),
        );
    }
    plan.sort_by_stage();
    found.append(own);
    plan
}

fn plan_document(
    document: &Node,
    context: Context,
    room: &mut DecompressionBudget,
    found: &mut Diagnostics,
) -> FirstBootPlan {
    let mut plan = FirstBootPlan::default();
    let Some(mut fields) = MappingFields::read_mapping(document, ROOT_KEYS, ROOT, found) else { return plan };
    read_ignition(&mut fields, found);
    open_inner(&fields, "kernelArguments", ARGUMENT_KEYS, found);
    let section = |name: &str| (fields.field_node(name), fields.child_path(name));
    let (storage, systemd, passwd) = (section("storage"), section("systemd"), section("passwd"));
    if let (Some(node), path) = storage {
        storage::read(node, path, context, room, &mut plan, found);
    }
    if let (Some(node), path) = passwd {
        passwd::read(node, path, &mut plan, found);
    }
    if let (Some(node), path) = systemd {
        systemd::read(node, path, &mut plan, found);
    }
    // Ignition runs before networkd, which runs already here.
    if plan.steps.iter().any(|planned| nodes::concerns_network(&planned.step)) {
        plan.push_once(PlanStage::Units, StepOrigin::from("agent"), PlanStep::RestartNetwork);
    }
    plan
}

/// What `ignition` says besides its version and what it refers to. Tools write empty sections, which ask for
/// nothing.
fn read_ignition(fields: &mut MappingFields<'_>, found: &mut Diagnostics) {
    let Some(ignition) = open_inner(fields, "ignition", IGNITION_KEYS, found) else { return };
    open_inner(&ignition, "proxy", PROXY_KEYS, found);
    open_inner(&ignition, "timeouts", TIMEOUT_KEYS, found);
    if let Some(security) = open_inner(&ignition, "security", SECURITY_KEYS, found) {
        open_inner(&security, "tls", TLS_KEYS, found);
    }
}

/// Opens a mapping inside a mapping.
fn open_inner<'n>(
    fields: &MappingFields<'n>,
    name: &str,
    table: &'static [FieldKey],
    found: &mut Diagnostics,
) -> Option<MappingFields<'n>> {
    fields
        .field_node(name)
        .and_then(|node| MappingFields::read_mapping(node, table, fields.child_path(name), found))
}

/// What lets the author in.
// Ignition itself stops in the emergency shell. Nobody sits at the console of a cloud's machine.
fn access_of(plan: FirstBootPlan) -> FirstBootPlan {
    let lets_in =
        |step: &PlanStep| matches!(step, PlanStep::AuthorizeKeys { user, .. } if user == DEFAULT_USER);
    FirstBootPlan { steps: plan.steps.into_iter().filter(|planned| lets_in(&planned.step)).collect() }
}

/// Adds a step for a value of the document.
fn add(plan: &mut FirstBootPlan, stage: PlanStage, fields: &MappingFields<'_>, path: &str, step: PlanStep) {
    plan.push_once(stage, StepOrigin::from_mark(fields.start_mark(), path.trim_start_matches("$.")), step);
}

#[cfg(test)]
mod tests;
