//! From the parts of user-data and vendor-data to one plan.
//!
//! Knows which format is read by whom, and that the user's word stands above the vendor's. Refuses to
//! unpack: containers were opened before. Invariant: a part that cannot be read never costs another
//! part anything.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/explanation/vendordata.html> for the two sides.

use crate::cloudconfig::merge::{self, parts};
use crate::cloudconfig::order::{self, Occasion, PartScript, PlanFacts};
use crate::cloudconfig::{self, CloudConfig};
use crate::ignition;
use crate::ignition::reference::Resolved;
use crate::network;
use crate::part::PayloadPart;
use crate::payload::{self, PayloadKind};
use crate::plan::FirstBootPlan;
use crate::plan::script_folders;
use crate::protected;
use crate::room::DecompressionBudget;
use crate::secret::Secret;
use crate::template::{self, Places};
use crate::tokens;
use crate::unread;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark, SourceTexts};
use document::yaml::{Node, Value};

mod refusal;

/// Of documents and scripts; Ignition carries the contents of files and has its own bound.
// Clouds take a few KiB. Volumes and web servers have no limit, and each byte is kept for the places of
// findings.
const MOST_BYTES: usize = 4 << 20;

/// What was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserDataInput {
    /// By the owner of the machine.
    pub user: Vec<PayloadPart>,
    /// By the operator of its platform.
    pub vendor: Vec<PayloadPart>,
    /// Files that the platform was asked to put there, as a document of their own.
    pub files: Vec<PayloadPart>,
    /// How the platform describes the network.
    pub network: Option<PayloadPart>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadResult {
    /// What will be done.
    pub plan: FirstBootPlan,
    /// What is wrong with it.
    pub found: Diagnostics,
    /// The texts that the findings point into.
    pub sources: SourceTexts,
}

/// Everything of one side, before the sides are merged.
#[derive(Default)]
struct InputSide {
    document: Option<Node>,
    scripts: Vec<PartScript>,
    plan: FirstBootPlan,
    templates: Vec<Expanded>,
}

/// A template that was expanded: findings in what it became belong to places of what its author wrote.
struct Expanded {
    number: u16,
    places: Places,
    notes: Vec<Diagnostic>,
}

/// Reads everything and plans it.
#[must_use]
pub fn read(handed: &UserDataInput, facts: &PlanFacts) -> ReadResult {
    read_user_data(read_network(handed.network.as_ref()), handed, facts)
}

/// Reads how the platform describes the network, alone: it comes up before the rest can be fetched.
#[must_use]
pub fn read_network(part: Option<&PayloadPart>) -> ReadResult {
    let mut reading = ReadResult::default();
    if let Some(part) = part {
        let text = String::from_utf8_lossy(&part.content);
        let number = reading.sources.add_at(&part.name, text, part.first_line);
        reading.plan = network::read(&part.content, number, &mut reading.found);
    }
    reading
}

/// Reads the rest behind the network, whose steps stay in the plan unless they were taken out of it.
///
/// It continues one reading instead of starting a second, so that marks into the network's text stay valid and
/// nobody plans the network again.
#[must_use]
pub fn read_user_data(network: ReadResult, handed: &UserDataInput, facts: &PlanFacts) -> ReadResult {
    let ReadResult { plan: network, found, sources } = network;
    let mut reading = ReadResult { plan: FirstBootPlan::default(), found, sources };
    let mut room = DecompressionBudget::default();
    let first_own = reading.sources.count_texts();
    // The user's side is read first, since it may say that the vendor's is not to be read at all.
    let mut user = read_side(&handed.user, facts, &mut room, &mut reading);
    let users_parts = first_own..reading.sources.count_texts();
    let files = read_side(&handed.files, facts, &mut room, &mut reading).document;
    let placed = files.as_ref().map(|document| document.at.part);
    user.document = with_files(user.document, files, &mut reading.found);
    let vendor = if user.document.as_ref().is_some_and(refuses_vendor) {
        InputSide::default()
    } else {
        read_side(&handed.vendor, facts, &mut room, &mut reading)
    };
    let document = match (user.document, vendor.document) {
        (Some(user), Some(vendor)) => Some(merge::merge_vendor(user, vendor)),
        (user, vendor) => user.or(vendor),
    };
    let mut own = Diagnostics::default();
    let config = document
        .map(|document| CloudConfig::check_document(&document, &mut room, &mut own))
        .unwrap_or_default();
    // Nobody can mend in user-data what the platform was asked for besides; the user's word wins.
    own.retain(|one| one.code != DiagnosticCode::Conflict || Some(one.at.part) != placed);
    reading.found.append(own);
    // cloud-init runs the vendor's scripts before the user's, too.
    let scripts = [vendor.scripts, user.scripts].concat();
    reading.plan = order::plan_config(&config, &scripts, facts);
    // Ignition's plans are not in yet: of them nothing is done if anything is refused, and they are judged
    // where they are read.
    protected::take_out(&mut reading.plan, &mut reading.found);
    reading.plan.append_plan(vendor.plan);
    order::leave_places(&mut reading.plan, &user.plan, |planned| {
        planned.origin.at.is_some_and(|at| users_parts.contains(&usize::from(at.part)))
    });
    reading.plan.append_plan(user.plan);
    order::leave_environment(&mut reading.plan);
    // Only behind all plans is it known whether any of them writes what sshd reads.
    order::add_access_checks(&mut reading.plan);
    // Behind the guard, so that a script that was refused starts no run of its folder.
    script_folders::run_folders(&mut reading.plan, &mut reading.found);
    unread::warn_unread_files(&reading.plan, &mut reading.found);
    reading.plan.append_plan(network);
    // Last of all, because each finding so far has its place in the expanded text.
    for template in user.templates.iter().chain(&vendor.templates) {
        return_places(template, &mut reading);
    }
    reading.found.sort_by_place();
    reading
}

/// The files of the platform before those of the user, of which the last one of a path is there in the end.
fn with_files(user: Option<Node>, files: Option<Node>, found: &mut Diagnostics) -> Option<Node> {
    let (Some(user), Some(files)) = (&user, &files) else { return user.or(files) };
    let (user, files) = (user.clone(), files.clone());
    Some(match merge::merge_style(&files, found) {
        // The files come second, and their own `merge_how` puts them before the user's.
        Some(how) => merge::merge_nodes(user, files, how, found),
        None => parts::add_up(user, files, found),
    })
}

/// Says of each place in what a template became, where that came from.
fn return_places(template: &Expanded, reading: &mut ReadResult) {
    let is_of = |mark: &SourceMark| mark.part == template.number;
    reading.found.replace_marks(|mark| if is_of(&mark) { template.places.original_mark(mark) } else { mark });
    for planned in &mut reading.plan.steps {
        planned.origin.at =
            planned.origin.at.map(|at| if is_of(&at) { template.places.original_mark(at) } else { at });
    }
    template.notes.iter().for_each(|note| reading.found.push(note.clone()));
}

/// `vendor_data: {enabled: false}`.
fn refuses_vendor(document: &Node) -> bool {
    let entry = |node: &Node, name: &str| match &node.value {
        Value::Mapping(entries) => {
            entries.iter().find(|entry| entry.key.replace('-', "_") == name).map(|entry| entry.value.clone())
        }
        _ => None,
    };
    let enabled = entry(document, "vendor_data").and_then(|inner| entry(&inner, "enabled"));
    matches!(enabled.map(|node| node.value), Some(Value::Scalar(scalar)) if scalar.as_bool() == Some(false))
}

fn read_side(
    parts: &[PayloadPart],
    facts: &PlanFacts,
    room: &mut DecompressionBudget,
    reading: &mut ReadResult,
) -> InputSide {
    let mut side = InputSide::default();
    for part in parts {
        if part.content.len() > MOST_BYTES && part.payload_kind() != PayloadKind::Ignition {
            let number = reading.sources.add_at(&part.name, "", part.first_line);
            let message = format!("this has {} bytes; at most {MOST_BYTES} are read", part.content.len());
            let at = SourceMark::start_of(number);
            reading.found.push(Diagnostic::error(DiagnosticCode::LimitExceeded, at, message));
            continue;
        }
        // A broken character costs itself. To refuse the whole text would cost the keys that are in it.
        let text = String::from_utf8_lossy(payload::without_marks(&part.content)).into_owned();
        let number = reading.sources.add_at(&part.name, text, part.first_line);
        if let Some(resolved) = &part.resolved {
            side.plan.append_plan(read_ignition(part, resolved, number, room, reading));
            continue;
        }
        let text = reading.sources.source_text(number).map_or("", |source| source.text.as_str());
        read_part(part, text, number, facts, room, &mut side, &mut reading.found);
    }
    side
}

/// A configuration with those that it refers to: each of them is a source of its own.
fn read_ignition(
    part: &PayloadPart,
    resolved: &Resolved,
    number: u16,
    room: &mut DecompressionBudget,
    reading: &mut ReadResult,
) -> FirstBootPlan {
    let whole = SourceMark::start_of(number);
    for flaw in &part.flaws {
        reading.found.push(Diagnostic { at: whole, ..flaw.clone() });
    }
    let mut numbers = vec![number];
    for one in &resolved.referred {
        let name = format!("{} by way of {}", part.name, one.name);
        numbers.push(reading.sources.add(name, one.text.reveal().clone()));
    }
    ignition::read_resolved(resolved, &numbers, room, &mut reading.found)
}

fn read_part(
    part: &PayloadPart,
    text: &str,
    number: u16,
    facts: &PlanFacts,
    room: &mut DecompressionBudget,
    side: &mut InputSide,
    found: &mut Diagnostics,
) {
    let whole = SourceMark::start_of(number);
    for flaw in &part.flaws {
        found.push(Diagnostic { at: whole, ..flaw.clone() });
    }
    if !is_for_this_machine(part.launch_index, whole, facts, found) {
        return;
    }
    let mut run = |text: &str, occasion, found: &mut Diagnostics| {
        side.scripts.extend(read_script(text, number, facts, occasion, found));
    };
    match part.payload_kind() {
        PayloadKind::Empty => {}
        PayloadKind::Ignition => side.plan.append_plan(ignition::read(text, number, room, found)),
        // The rest of the document may hold the keys of its owner.
        PayloadKind::CloudConfig if std::str::from_utf8(&part.content).is_err() => {
            found.push(Diagnostic::error(
                DiagnosticCode::Encoding,
                whole,
                "the document is not UTF-8; broken characters are replaced",
            ));
            add_document(part, text, number, facts, side, found);
        }
        PayloadKind::CloudConfig => add_document(part, text, number, facts, side, found),
        PayloadKind::Jinja => add_template(part, text, number, facts, room, side, found),
        PayloadKind::Script => run(text, Occasion::Instance, found),
        PayloadKind::ScriptPerBoot => run(text, Occasion::EachBoot, found),
        PayloadKind::ScriptPerOnce => run(text, Occasion::Once, found),
        PayloadKind::Boothook => {
            // A container can say what it is, too; then the script begins on the first line.
            let text = text.trim_start();
            let has_header = payload::detect_kind(text.as_bytes()) == PayloadKind::Boothook;
            let body = if has_header { text.split_once('\n').map_or("", |(_, body)| body) } else { text };
            run(body, Occasion::Boothook, found);
        }
        kind => {
            found.push(refusal::unreadable_payload(kind, text, whole));
            add_access(text, number, side, found);
        }
    }
}

/// Whether a part is this machine's, of those that were started together. Where the platform does not number
/// them it is, as with cloud-init.
fn is_for_this_machine(
    wanted: Option<u32>,
    at: SourceMark,
    facts: &PlanFacts,
    found: &mut Diagnostics,
) -> bool {
    match (wanted, facts.launch_index) {
        (Some(wanted), Some(own)) if wanted != own => {
            let message =
                format!("this part is for the machine with launch index {wanted}; this one has {own}");
            found.push(Diagnostic::note(DiagnosticCode::NoEffect, at, message));
            false
        }
        // A machine that is alone is the first.
        (Some(wanted), None) if wanted > 0 => {
            let message = format!(
                "this part is for the machine with launch index {wanted}, but where no platform numbers its machines it is used by each"
            );
            found.push(Diagnostic::warning(DiagnosticCode::NoEffect, at, message).with_help(
                "EC2 and OpenStack number machines that are started together; elsewhere hand each its own user-data",
            ));
            true
        }
        _ => true,
    }
}

/// Reads what a template becomes; of one that cannot be expanded, what lets people in is kept.
fn add_template(
    part: &PayloadPart,
    text: &str,
    number: u16,
    facts: &PlanFacts,
    room: &mut DecompressionBudget,
    side: &mut InputSide,
    found: &mut Diagnostics,
) {
    let expansion = match template::expand_template(text, number, &facts.instance) {
        Ok(expansion) => expansion,
        Err(flaw) => {
            found.push(flaw);
            return add_access(text, number, side, found);
        }
    };
    // A template of a boothook stays one. What only said that it is a template has done its work.
    let kind = part.kind.filter(|kind| *kind != PayloadKind::Jinja);
    let inner = PayloadPart {
        content: expansion.text.into_bytes(),
        kind,
        launch_index: None,
        flaws: Vec::new(),
        ..part.clone()
    };
    let text = String::from_utf8_lossy(&inner.content);
    side.templates.push(Expanded { number, places: expansion.places, notes: expansion.notes });
    if payload::detect_kind(&inner.content) == PayloadKind::Jinja {
        found.push(refusal::unreadable_payload(PayloadKind::Jinja, &text, SourceMark::start_of(number)));
        return add_access(&text, number, side, found);
    }
    read_part(&inner, &text, number, facts, room, side, found);
}

fn add_document(
    part: &PayloadPart,
    text: &str,
    number: u16,
    facts: &PlanFacts,
    side: &mut InputSide,
    found: &mut Diagnostics,
) {
    let Some(mut node) = cloudconfig::read(text, number, &facts.addresses, found) else { return };
    // The container's header overrides the document's key, as with cloud-init.
    let index = part.launch_index.is_none().then(|| remove_launch_index(&mut node, found)).flatten();
    if !is_for_this_machine(index, SourceMark::start_of(number), facts, found) {
        return;
    }
    let header = part.merge_how.clone().map(|text| Located { value: text, at: SourceMark::start_of(number) });
    let how = merge::merge_style(&node, found).or_else(|| merge::how_from_header(&header?, found));
    side.document = Some(match (side.document.take(), how) {
        (Some(earlier), Some(how)) => merge::merge_nodes(earlier, node, how, found),
        (Some(earlier), None) => parts::add_up(earlier, node, found),
        (None, _) => node,
    });
}

/// `launch_index` at the top level, which is about the part and nothing that parts could add up.
fn remove_launch_index(document: &mut Node, found: &mut Diagnostics) -> Option<u32> {
    let Value::Mapping(entries) = &mut document.value else { return None };
    let place = entries.iter().position(|entry| entry.key.replace('-', "_") == "launch_index")?;
    let entry = entries.remove(place);
    let number = match &entry.value.value {
        Value::Scalar(scalar) => scalar.text.trim().parse().ok(),
        _ => None,
    };
    if number.is_none() && !entry.value.is_null() {
        let message = "`launch_index` must be a number; the document is used by each machine";
        found.push(
            Diagnostic::warning(DiagnosticCode::BadValue, entry.key_at, message).with_key("launch_index"),
        );
    }
    number
}

/// Of a part that is no document, what lets people in is kept where it can be read.
fn add_access(text: &str, number: u16, side: &mut InputSide, found: &mut Diagnostics) {
    // A header that is missing or unknown must not cost its author the way in.
    let Some(node) = cloudconfig::salvage_access(text, number, found) else { return };
    side.document = Some(match side.document.take() {
        Some(earlier) => parts::add_up(earlier, node, found),
        None => node,
    });
}

/// A script, unless nothing could run it.
fn read_script(
    text: &str,
    number: u16,
    facts: &PlanFacts,
    occasion: Occasion,
    found: &mut Diagnostics,
) -> Option<PartScript> {
    let at = SourceMark::start_of(number);
    let body = tokens::substitute_text(text, number, &facts.addresses, found);
    // The kernel looks for `#!` in the first two bytes only, execve(2). Editors and YAML leave blank lines
    // before it.
    let body = body.trim_start();
    if !body.starts_with("#!") {
        let message = "this script does not begin with `#!`, so nothing would run it";
        found.push(
            Diagnostic::error(DiagnosticCode::BadValue, at, message)
                .with_help("write `#!/bin/sh` as its first line"),
        );
        return None;
    }
    Some(PartScript { body: Secret::new(body.as_bytes().to_vec()), at, occasion })
}
