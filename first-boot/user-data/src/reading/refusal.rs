//! What a part is that cannot be used, and what to hand over instead.
//!
//! Knows the formats that people confuse with ours. Refuses to use anything of them. Invariant: however long the
//! text, only its beginning is looked at.
//!
//! Documentation: <https://coreos.github.io/butane/specs/> for the formats that must be translated first.

use crate::cloudconfig;
use crate::payload::PayloadKind;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::SourceMark;
use document::yaml::{self, Value};

/// How far it is looked what a text without a first line may be.
// Keys of the top level stand early, and the whole text may have millions of lines.
const LINES_LOOKED_AT: usize = 1000;

/// The byte order marks of UTF-16, once what is no UTF-8 was replaced.
const UTF_16: &str = "\u{fffd}\u{fffd}";

pub(super) fn unreadable_payload(kind: PayloadKind, text: &str, at: SourceMark) -> Diagnostic {
    let refused =
        |message: &str, help: &str| Diagnostic::error(DiagnosticCode::Refused, at, message).with_help(help);
    match kind {
        PayloadKind::Base64
        | PayloadKind::CloudConfigArchive
        | PayloadKind::Gzip
        | PayloadKind::Include
        | PayloadKind::Multipart => refused(
            "a template cannot hold other parts",
            "put the template into the container, as a part of its own",
        ),
        PayloadKind::Jinja => refused(
            "a template cannot be expanded into a template",
            "leave one of the two `## template: jinja` out",
        ),
        PayloadKind::PartHandler => {
            refused("part handlers are Python, which this system does not have", "use a `#!` script")
        }
        PayloadKind::CloudConfigJsonPatch => {
            refused("JSON patches are not applied here", "use several parts and `merge_how`")
        }
        // Before all guesses: these two formats share their keys with cloud-config's and Ignition's.
        _ if is_butane(text) => {
            Diagnostic::error(DiagnosticCode::UnknownFormat, at, "this is Butane's input, not what it makes")
                .with_help("run `butane` on it and hand over the JSON")
        }
        _ if is_container_linux(text) => Diagnostic::error(
            DiagnosticCode::UnknownFormat,
            at,
            "this is a Container Linux Config, which a program must translate",
        )
        .with_help("make a Butane config of it, run `butane` on that, and hand over the JSON"),
        _ if text.starts_with(UTF_16) => {
            Diagnostic::error(DiagnosticCode::UnknownFormat, at, "this is UTF-16, or no text at all")
                .with_help("save it as UTF-8; PowerShell does by `-Encoding utf8`")
        }
        // cloud-init does not read it either. A guess here would make one document mean two things.
        _ if looks_like_config(text) => Diagnostic::error(
            DiagnosticCode::UnknownFormat,
            at,
            "this looks like a cloud-config without its first line",
        )
        .with_help("write `#cloud-config` as the first line"),
        _ => Diagnostic::error(
            DiagnosticCode::UnknownFormat,
            at,
            "this is no kind of user-data that is known here",
        )
        .with_help("begin with `#cloud-config` or `#!`, or hand over Ignition JSON or MIME multipart"),
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
        return match yaml::parse_yaml(text, 0, &mut Diagnostics::default()).map(|node| node.value) {
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
