//! From the parts of user-data and vendor-data to one plan.
//!
//! Knows which format is read by whom, and that the user's word stands above the vendor's. Refuses to
//! unpack: containers were opened before. Invariant: a part that can't be read never costs another
//! part anything.

use crate::cloudconfig::merge::{self, parts};
use crate::cloudconfig::{self, Config};
use crate::ignition;
use crate::ignition::reference::Resolved;
use crate::network;
use crate::part::Part;
use crate::payload::{self, Kind};
use crate::plan::Plan;
use crate::plan::order::{self, Facts, PartScript};
use crate::protected;
use crate::room::Room;
use crate::secret::Secret;
use crate::tokens;
use crate::unread;
use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::source::{At, Mark, Sources};
use document::yaml::{self, Node, Value};

/// Of documents and scripts; Ignition carries the contents of files and has its own bound.
const MOST_BYTES: usize = 4 << 20;

/// How far it is looked what a text without a first line may be.
const LINES_LOOKED_AT: usize = 1000;

/// The byte order marks of UTF-16, once what is no UTF-8 was replaced.
const UTF_16: &str = "\u{fffd}\u{fffd}";

/// What was handed over.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Handed {
    /// By the owner of the machine.
    pub user: Vec<Part>,
    /// By the operator of its platform.
    pub vendor: Vec<Part>,
    /// Files that the platform was asked to put there, as a document of their own.
    pub files: Vec<Part>,
    /// How the platform describes the network.
    pub network: Option<Part>,
}

/// What became of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reading {
    /// What will be done.
    pub plan: Plan,
    /// What is wrong with it.
    pub found: Diagnostics,
    /// The texts that the findings point into.
    pub sources: Sources,
}

/// Everything of one side, before the sides are merged.
#[derive(Default)]
struct Side {
    document: Option<Node>,
    scripts: Vec<PartScript>,
    plan: Plan,
}

/// Reads everything and plans it.
#[must_use]
pub fn read(handed: &Handed, facts: &Facts) -> Reading {
    let mut reading = Reading::default();
    let mut room = Room::default();
    let mut user = read_side(&handed.user, facts, &mut room, &mut reading);
    let first_other = reading.sources.count();
    let files = read_side(&handed.files, facts, &mut room, &mut reading).document;
    let placed = files.as_ref().map(|document| document.at.part);
    user.document = with_files(user.document, files, &mut reading.found);
    let vendor = if user.document.as_ref().is_some_and(refuses_vendor) {
        Side::default()
    } else {
        read_side(&handed.vendor, facts, &mut room, &mut reading)
    };
    let document = match (user.document, vendor.document) {
        (Some(user), Some(vendor)) => Some(merge::below(user, vendor)),
        (user, vendor) => user.or(vendor),
    };
    let mut own = Diagnostics::default();
    let config = document.map(|document| Config::check(&document, &mut room, &mut own)).unwrap_or_default();
    // Nobody can mend in user-data what the platform was asked for besides; the user's word wins.
    own.retain(|one| one.code != Code::Conflict || Some(one.at.part) != placed);
    reading.found.append(own);
    let scripts = [vendor.scripts, user.scripts].concat();
    reading.plan = order::plan(&config, &scripts, facts);
    protected::take_out(&mut reading.plan, &mut reading.found);
    reading.plan.append(vendor.plan);
    order::leave_places(&mut reading.plan, &user.plan, |planned| {
        planned.origin.at.is_some_and(|at| usize::from(at.part) < first_other)
    });
    reading.plan.append(user.plan);
    order::leave_environment(&mut reading.plan);
    order::guard(&mut reading.plan);
    unread::warn(&reading.plan, &mut reading.found);
    if let Some(part) = &handed.network {
        let text = String::from_utf8_lossy(&part.content);
        let number = reading.sources.add_at(&part.name, text, part.first_line);
        reading.plan.append(network::read(&part.content, number, &mut reading.found));
    }
    reading.found.sort();
    reading
}

/// The files of the platform before those of the user, of which the last one of a path is there in the end.
fn with_files(user: Option<Node>, files: Option<Node>, found: &mut Diagnostics) -> Option<Node> {
    let (Some(user), Some(files)) = (&user, &files) else { return user.or(files) };
    let (user, files) = (user.clone(), files.clone());
    Some(match merge::how(&files, found) {
        Some(how) => merge::merge(user, files, how, found),
        None => parts::add_up(user, files, found),
    })
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

fn read_side(parts: &[Part], facts: &Facts, room: &mut Room, reading: &mut Reading) -> Side {
    let mut side = Side::default();
    for part in parts {
        if part.content.len() > MOST_BYTES && part.kind() != Kind::Ignition {
            let number = reading.sources.add_at(&part.name, "", part.first_line);
            let message = format!("this has {} bytes; at most {MOST_BYTES} are read", part.content.len());
            let at = Mark::start_of(number);
            reading.found.push(Diagnostic::error(Code::LimitExceeded, at, message));
            continue;
        }
        let text = String::from_utf8_lossy(payload::without_bom(&part.content)).into_owned();
        let number = reading.sources.add_at(&part.name, text, part.first_line);
        if let Some(resolved) = &part.resolved {
            side.plan.append(read_ignition(part, resolved, number, room, reading));
            continue;
        }
        let text = reading.sources.part(number).map_or("", |source| source.text.as_str());
        read_part(part, text, number, facts, room, &mut side, &mut reading.found);
    }
    side
}

/// A configuration with those that it refers to: each of them is a source of its own.
fn read_ignition(
    part: &Part,
    resolved: &Resolved,
    number: u16,
    room: &mut Room,
    reading: &mut Reading,
) -> Plan {
    let whole = Mark::start_of(number);
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
    part: &Part,
    text: &str,
    number: u16,
    facts: &Facts,
    room: &mut Room,
    side: &mut Side,
    found: &mut Diagnostics,
) {
    let whole = Mark::start_of(number);
    for flaw in &part.flaws {
        found.push(Diagnostic { at: whole, ..flaw.clone() });
    }
    match part.kind() {
        Kind::Empty => {}
        Kind::Ignition => side.plan.append(ignition::read(text, number, room, found)),
        Kind::CloudConfig if std::str::from_utf8(&part.content).is_err() => {
            found.push(Diagnostic::error(
                Code::Encoding,
                whole,
                "the document is not UTF-8; broken characters are replaced",
            ));
            add_document(part, text, number, facts, side, found);
        }
        Kind::CloudConfig => add_document(part, text, number, facts, side, found),
        Kind::Script => side.scripts.extend(script(text, number, facts, false, found)),
        Kind::Boothook => {
            let body = text.trim_start().split_once('\n').map_or("", |(_, body)| body);
            side.scripts.extend(script(body, number, facts, true, found));
        }
        kind => {
            found.push(unreadable(kind, text, whole));
            add_access(text, number, side, found);
        }
    }
}

fn add_document(
    part: &Part,
    text: &str,
    number: u16,
    facts: &Facts,
    side: &mut Side,
    found: &mut Diagnostics,
) {
    let Some(node) = cloudconfig::read(text, number, &facts.addresses, found) else { return };
    let header = part.merge_how.clone().map(|text| At { value: text, at: Mark::start_of(number) });
    let how = merge::how(&node, found).or_else(|| merge::how_from_header(&header?, found));
    side.document = Some(match (side.document.take(), how) {
        (Some(earlier), Some(how)) => merge::merge(earlier, node, how, found),
        (Some(earlier), None) => parts::add_up(earlier, node, found),
        (None, _) => node,
    });
}

/// Of a part that is no document, what lets people in is kept where it can be read.
fn add_access(text: &str, number: u16, side: &mut Side, found: &mut Diagnostics) {
    let Some(node) = cloudconfig::salvaged(text, number, found) else { return };
    side.document = Some(match side.document.take() {
        Some(earlier) => parts::add_up(earlier, node, found),
        None => node,
    });
}

/// A script, unless nothing could run it.
fn script(
    text: &str,
    number: u16,
    facts: &Facts,
    every_boot: bool,
    found: &mut Diagnostics,
) -> Option<PartScript> {
    let at = Mark::start_of(number);
    let body = tokens::substitute_text(text, number, &facts.addresses, found);
    let body = body.trim_start();
    if !body.starts_with("#!") {
        let message = "this script does not begin with `#!`, so nothing would run it";
        found
            .push(Diagnostic::error(Code::BadValue, at, message).help("write `#!/bin/sh` as its first line"));
        return None;
    }
    Some(PartScript { body: Secret::new(body.as_bytes().to_vec()), at, every_boot })
}

fn unreadable(kind: Kind, text: &str, at: Mark) -> Diagnostic {
    let refused = |message: &str, help: &str| Diagnostic::error(Code::Refused, at, message).help(help);
    match kind {
        Kind::Jinja => refused(
            "jinja templates are not expanded here",
            "write the values, or `$public_ipv4` and `$private_ipv4` where an address is meant",
        ),
        Kind::PartHandler => {
            refused("part handlers are Python, which this system does not have", "use a `#!` script")
        }
        Kind::CloudConfigJsonPatch => {
            refused("JSON patches are not applied here", "use several parts and `merge_how`")
        }
        _ if is_butane(text) => {
            Diagnostic::error(Code::UnknownFormat, at, "this is Butane's input, not what it makes")
                .help("run `butane` on it and hand over the JSON")
        }
        _ if is_container_linux(text) => Diagnostic::error(
            Code::UnknownFormat,
            at,
            "this is a Container Linux Config, which a program must translate",
        )
        .help("make a Butane config of it, run `butane` on that, and hand over the JSON"),
        _ if text.starts_with(UTF_16) => {
            Diagnostic::error(Code::UnknownFormat, at, "this is UTF-16, or no text at all")
                .help("save it as UTF-8; PowerShell does by `-Encoding utf8`")
        }
        _ if looks_like_config(text) => Diagnostic::error(
            Code::UnknownFormat,
            at,
            "this looks like a cloud-config without its first line",
        )
        .help("write `#cloud-config` as the first line"),
        _ => Diagnostic::error(Code::UnknownFormat, at, "this is no kind of user-data that is known here")
            .help("begin with `#cloud-config` or `#!`, or hand over Ignition JSON or MIME multipart"),
    }
}

/// Butane's configs say `variant`, wherever at the top level.
fn is_butane(text: &str) -> bool {
    top_level_names(text).iter().any(|name| name == "variant")
}

/// Their predecessor has Ignition's sections and nothing that a cloud-config has.
fn is_container_linux(text: &str) -> bool {
    let names = top_level_names(text);
    let has = |sections: &[&str]| names.iter().any(|name| sections.contains(&name.as_str()));
    has(&["networkd", "passwd", "storage", "systemd"])
        && !has(&["hostname", "users", "write_files", "runcmd", "coreos"])
}

/// The names of a text's top level, as far as they begin lines; of JSON, those that the parser finds.
fn top_level_names(text: &str) -> Vec<String> {
    if text.trim_start().starts_with('{') {
        return match yaml::parse(text, 0, &mut Diagnostics::default()).map(|node| node.value) {
            Some(Value::Mapping(entries)) => entries.into_iter().map(|entry| entry.key).collect(),
            _ => Vec::new(),
        };
    }
    let lines = text.lines().take(LINES_LOOKED_AT).filter_map(|line| line.split_once(':'));
    lines.map(|(name, _)| name.replace('-', "_")).collect()
}

fn looks_like_config(text: &str) -> bool {
    let keys = cloudconfig::top_level();
    text.lines().take(LINES_LOOKED_AT).any(|line| {
        let name = line.split(':').next().unwrap_or_default().replace('-', "_");
        line.contains(':') && keys.iter().any(|key| key.name == name)
    })
}
