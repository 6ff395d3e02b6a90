//! Ignition configurations of specification 3: the same steps as a cloud-config's.
//!
//! Knows files, directories, links, simple disks and file systems, units, users and groups. Refuses
//! by name what it can't do (RAID, LUKS, kernel arguments and more). Invariant: a configuration is
//! planned wholly or not at all; of one that is refused only the keys of the image's own user stay,
//! so that its author can get in.

pub mod reference;

mod passwd;
mod resource;
mod storage;
mod systemd;

use crate::cloudconfig::DEFAULT_USER;
use crate::cloudconfig::fields::{Fields, Key, key, no_effect, refused};
use crate::json;
use crate::plan::step::Step;
use crate::plan::{Origin, Plan, Stage};
use crate::protected;
use crate::room::Room;
use document::diagnostic::{Code, Diagnostic, Diagnostics, Severity};
use document::source::At;

/// The path of the whole document, as Ignition's own validator writes it.
const ROOT: &str = "$";
/// The newest stable version of the specification.
const NEWEST_MINOR: u32 = 6;

/// Every mapping whose keys are known, by its path.
#[must_use]
pub fn tables() -> Vec<(&'static str, &'static [Key])> {
    let mut tables = vec![("", ROOT_KEYS), ("ignition", IGNITION_KEYS)];
    tables.extend(storage::tables());
    tables.extend(systemd::tables());
    tables.extend(passwd::tables());
    tables.extend(resource::tables());
    tables
}

const ROOT_KEYS: &[Key] = &[
    key("ignition"),
    key("passwd"),
    key("storage"),
    key("systemd"),
    refused(
        "kernelArguments",
        "the kernel command line is part of the verified boot path; use sysctl or module options",
    ),
];
const IGNITION_KEYS: &[Key] = &[
    key("version"),
    key("config"),
    no_effect("timeouts", "every fetch has the same deadlines here"),
    refused("proxy", "set the proxy in the units that need it"),
    refused(
        "security",
        "serve the files under a certificate of a public authority, or hand them over as data URLs",
    ),
];

/// Plans a configuration. What is refused is reported, and then nothing is planned but access.
#[must_use]
pub fn read(text: &str, part: u16, room: &mut Room, found: &mut Diagnostics) -> Plan {
    let mut own = Diagnostics::default();
    let Some(document) = json::parse(text.trim_start_matches('\u{feff}'), part, &mut own) else {
        found.append(own);
        return Plan::default();
    };
    let (mut plan, at) = match Fields::open(&document, ROOT_KEYS, ROOT, &mut own) {
        Some(mut fields) => (whole(&mut fields, room, &mut own), fields.at()),
        None => (Plan::default(), document.at),
    };
    protected::take_out(&mut plan, &mut own);
    if own.worst() == Some(Severity::Error) {
        plan = access_of(plan);
        let kept =
            if plan.steps.is_empty() { "" } else { "; only the keys of the image's own user are used" };
        let message = format!("nothing of this configuration is done, because it can't be done wholly{kept}");
        own.push(Diagnostic::error(Code::Refused, at, message).help("mend or leave out what is named above"));
    }
    plan.sort();
    found.append(own);
    plan
}

fn whole(fields: &mut Fields<'_>, room: &mut Room, found: &mut Diagnostics) -> Plan {
    let mut plan = Plan::default();
    version(fields, found);
    let section = |name: &str| (fields.node(name), fields.child(name));
    let (storage, systemd, passwd) = (section("storage"), section("systemd"), section("passwd"));
    if let (Some(node), path) = storage {
        storage::read(node, path, room, &mut plan, found);
    }
    if let (Some(node), path) = passwd {
        passwd::read(node, path, &mut plan, found);
    }
    if let (Some(node), path) = systemd {
        systemd::read(node, path, &mut plan, found);
    }
    plan
}

fn version(fields: &mut Fields<'_>, found: &mut Diagnostics) {
    let path = fields.child("ignition");
    let opened = fields.node("ignition").and_then(|node| Fields::open(node, IGNITION_KEYS, path, found));
    let Some(mut ignition) = opened else {
        let message = "`ignition.version` is missing";
        return found.push(Diagnostic::error(Code::MissingKey, fields.at(), message).help("write \"3.4.0\""));
    };
    let Some(version) = ignition.text("version", found) else {
        let message = "`ignition.version` is missing";
        return found
            .push(Diagnostic::error(Code::MissingKey, ignition.at(), message).help("write \"3.4.0\""));
    };
    if let Some(flaw) = version_flaw(&version) {
        ignition.refuse("version", flaw, found);
    }
}

fn version_flaw(version: &At<String>) -> Option<Diagnostic> {
    let mut numbers = version.value.split('.').map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok(), numbers.next().and_then(Result::ok));
    let patch = numbers.next().and_then(Result::ok);
    let refuse = |message: &str| Diagnostic::error(Code::Refused, version.at, message);
    match (major, minor, patch) {
        (Some(3), Some(0..=NEWEST_MINOR), Some(_)) if numbers.next().is_none() => None,
        (Some(3), Some(_), _) => Some(
            refuse("this version of Ignition's specification is experimental or not known here")
                .help(format!("versions 3.0.0 to 3.{NEWEST_MINOR}.0 are")),
        ),
        (Some(1 | 2), ..) => Some(
            refuse("specifications before 3 are not read here")
                .help("convert it, as Butane and ign-converter do"),
        ),
        _ => Some(
            Diagnostic::error(Code::BadValue, version.at, "`version` must look like \"3.4.0\"")
                .help("write \"3.4.0\""),
        ),
    }
}

/// What lets the author in.
fn access_of(plan: Plan) -> Plan {
    let lets_in = |step: &Step| matches!(step, Step::AuthorizeKeys { user, .. } if user == DEFAULT_USER);
    Plan { steps: plan.steps.into_iter().filter(|planned| lets_in(&planned.step)).collect() }
}

/// Adds a step for a value of the document.
fn add(plan: &mut Plan, stage: Stage, fields: &Fields<'_>, path: &str, step: Step) {
    plan.once(stage, Origin::written(fields.at(), path.trim_start_matches("$.")), step);
}

#[cfg(test)]
mod tests;
