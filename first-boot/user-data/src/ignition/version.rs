//! The version of a configuration, and what older versions mean in the newest.
//!
//! Knows the specifications 2.0 to 2.4 and 3.0 to 3.6. Refuses specification 1, experimental ones and those
//! that are not there. Invariant: what leaves here is a document of the newest version.
//!
//! Ignition itself translates a configuration version by version before it merges or validates anything:
//! <https://coreos.github.io/ignition/migrating-configs/>.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::yaml::{Node, ScalarStyle};

use super::{legacy, shape, tree};

/// The newest stable version of the specification.
pub(super) const NEWEST_MINOR: u32 = 6;
/// The newest version of the specification before this one.
const NEWEST_LEGACY_MINOR: u32 = 4;
/// Since this one, setuid, setgid and sticky bits are kept.
const FIRST_WITH_SPECIAL_BITS: u32 = 6;
/// Since this one, `none` is a format.
const FIRST_WITH_NO_FORMAT: u32 = 3;
const SPECIAL_BITS: u32 = 0o7000;

/// Turns a document into one of the newest version.
pub(super) fn modernize_document(document: &mut Node, found: &mut Diagnostics) {
    match read(document) {
        Ok((2, minor)) => {
            legacy::translate_legacy(document, minor, found);
            shape::check_shapes(document, found);
        }
        Ok((_, minor)) => {
            shape::check_shapes(document, found);
            drop_special_bits(document, minor, found);
            refuse_early_none(document, minor, found);
        }
        Err(flaw) => {
            // It was said what this is; that it is no key of version 3 says nothing more.
            tree::remove_entry(document, "ignitionVersion");
            shape::check_shapes(document, found);
            found.push(flaw.with_key("$.ignition.version"));
        }
    }
}

/// Major and minor number, or what is wrong with them.
fn read(document: &Node) -> Result<(u32, u32), Diagnostic> {
    if let Some(first) = tree::find_value(document, "ignitionVersion") {
        return Err(first_specification(first.at));
    }
    let Some(node) = tree::find_below(document, &["ignition", "version"]) else {
        let at = tree::find_value(document, "ignition").map_or(document.at, |node| node.at);
        let message = "`ignition.version` is missing";
        return Err(Diagnostic::error(DiagnosticCode::MissingKey, at, message).with_help("write \"3.4.0\""));
    };
    let version = Located { value: tree::scalar_text(node).unwrap_or_default(), at: node.at };
    parse_version(version)
}

fn first_specification(at: SourceMark) -> Diagnostic {
    Diagnostic::error(DiagnosticCode::Refused, at, "specification 1 of Ignition is not read here")
        .with_help("write it anew as version 3.4.0; Butane makes such files from YAML")
}

fn parse_version(version: Located<&str>) -> Result<(u32, u32), Diagnostic> {
    let refuse = |message: &str| Diagnostic::error(DiagnosticCode::Refused, version.at, message);
    let mut numbers = version.value.split('.').map(str::parse::<u32>);
    let mut next = || numbers.next().map(Result::ok);
    match (next().flatten(), next().flatten(), next(), next()) {
        (Some(3), Some(minor @ 0..=NEWEST_MINOR), Some(Some(0)), None) => Ok((3, minor)),
        (Some(2), Some(minor @ 0..=NEWEST_LEGACY_MINOR), Some(Some(0)), None) => Ok((2, minor)),
        (Some(1), ..) => Err(first_specification(version.at)),
        (Some(2 | 3), Some(_), Some(_), _) => {
            Err(refuse("this version of Ignition's specification is experimental or not known here")
                .with_help(format!(
                    "versions 3.0.0 to 3.{NEWEST_MINOR}.0 and 2.0.0 to 2.{NEWEST_LEGACY_MINOR}.0 are"
                )))
        }
        _ => {
            Err(Diagnostic::error(DiagnosticCode::BadValue, version.at, "`version` must look like \"3.4.0\"")
                .with_help("write \"3.4.0\""))
        }
    }
}

/// Before 3.6 these bits were written by accident, so Ignition takes them away when it translates.
fn drop_special_bits(document: &mut Node, minor: u32, found: &mut Diagnostics) {
    if minor >= FIRST_WITH_SPECIAL_BITS {
        return;
    }
    let Some(storage) = tree::find_mut(document, "storage") else { return };
    for list in ["directories", "files"] {
        for (index, item) in tree::items_mut(storage, list).iter_mut().enumerate() {
            let Some(mode) = tree::find_mut(item, "mode") else { continue };
            let bits = tree::scalar_text(mode).and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
            // A larger number is refused by who reads it.
            if bits & SPECIAL_BITS == 0 || bits > 0o7777 {
                continue;
            }
            let message = "setuid, setgid and sticky bits are left out: they count from version 3.6.0 on";
            let diagnostic = Diagnostic::warning(DiagnosticCode::NoEffect, mode.at, message);
            found.push(
                diagnostic
                    .with_key(format!("$.storage.{list}[{index}].mode"))
                    .with_help("write \"version\": \"3.6.0\" to have them set"),
            );
            *mode = tree::make_scalar(mode.at, &(bits & !SPECIAL_BITS).to_string(), ScalarStyle::Plain);
        }
    }
}

fn refuse_early_none(document: &Node, minor: u32, found: &mut Diagnostics) {
    if minor >= FIRST_WITH_NO_FORMAT {
        return;
    }
    let filesystems = tree::find_below(document, &["storage", "filesystems"]);
    for (index, item) in tree::list_items(filesystems).iter().enumerate() {
        if let Some(format) =
            tree::find_value(item, "format").filter(|node| tree::scalar_text(node) == Some("none"))
        {
            let message = "`none` is a format from version 3.3.0 on";
            let diagnostic = Diagnostic::error(DiagnosticCode::BadValue, format.at, message);
            found.push(
                diagnostic
                    .with_key(format!("$.storage.filesystems[{index}].format"))
                    .with_help("write \"version\": \"3.3.0\""),
            );
        }
    }
}
