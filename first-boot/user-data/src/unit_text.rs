//! The syntax of units: sections and settings.
//!
//! Knows what systemd.syntax(7) and Ignition's reader both call a unit. Refuses to know any setting. Invariant: a
//! text that is taken here is read by systemd without a line left out.
//!
//! Documentation: systemd.syntax(7), and coreos/go-systemd's package `unit`, by which Ignition judges units.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;

/// Why a text is no unit, and in which of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxFlaw {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) reason: &'static str,
}

/// What is wrong with a unit's text.
pub(crate) fn syntax_flaw(text: &str) -> Option<SyntaxFlaw> {
    let mut in_section = false;
    let mut continues = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let was_continued = continues;
        // Both signs begin a comment, but only at the start of a line.
        let is_comment = line.starts_with(['#', ';']);
        // A comment between two halves of a line is skipped, and the line goes on.
        if is_comment && was_continued {
            continue;
        }
        continues = line.ends_with('\\') && !is_comment;
        if was_continued || line.is_empty() || is_comment {
            continue;
        }
        let reason = if line.starts_with('[') {
            in_section = true;
            // go-systemd refuses it, systemd would leave the section out. Ignition's answer is the stricter
            // one, so it counts.
            section_flaw(line)
        } else if !in_section {
            // Ignition skips what stands before the first section, and so does systemd, with a complaint.
            None
        } else {
            (!line.contains('=')).then_some("has neither a section in brackets nor a setting with `=`")
        };
        if let Some(reason) = reason {
            return Some(SyntaxFlaw { line: number, reason });
        }
    }
    None
}

fn section_flaw(line: &str) -> Option<&'static str> {
    match line.find(']') {
        None => Some("begins a section whose bracket is not closed"),
        Some(end) if end + 1 < line.len() => Some("has something behind the name of its section"),
        Some(_) => None,
    }
}

/// Whether a unit says when it is started.
pub(crate) fn has_install(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "[Install]")
}

/// The text of a unit or of its drop-in, which the boot does not depend on if it mounts something or swaps.
///
/// Whichever format brings it: the guard of the way in refuses what the boot requires, and would cost a disk that
/// only has to be named otherwise.
pub(crate) fn relaxed_text(
    unit: &str,
    content: Located<String>,
    key: impl Into<String>,
    found: &mut Diagnostics,
) -> String {
    // Services are left alone: what requires a service means it.
    let is_mount = [".mount", ".automount", ".swap"].iter().any(|kind| unit.ends_with(kind));
    let relaxed = is_mount.then(|| relax_requirement(&content.value)).flatten();
    let Some(text) = relaxed else { return content.value };
    let message = format!("{unit} is wanted, not required, by the boot, which goes on if it fails");
    let diagnostic = Diagnostic::warning(DiagnosticCode::Translated, content.at, message);
    found.push(diagnostic.with_key(key).with_help("write WantedBy= instead of RequiredBy="));
    text
}

/// The text with `RequiredBy=local-fs.target` turned into `WantedBy=`; `None` if it does not say so.
///
/// Butane writes it for `with_mount_unit: true`. There a disk that is missing is to end in the emergency shell;
/// here nobody could get in any more, so the boot goes on without it. Of other targets nobody gets in by, what is
/// required stays required.
fn relax_requirement(text: &str) -> Option<String> {
    let mut changed = false;
    let lines = text.split_inclusive('\n').map(|line| match relaxed_line(line) {
        Some(relaxed) => {
            changed = true;
            relaxed
        }
        None => line.to_owned(),
    });
    let lines: Vec<String> = lines.collect();
    changed.then(|| lines.concat())
}

fn relaxed_line(line: &str) -> Option<String> {
    const TARGET: &str = "local-fs.target";
    let value = line.trim().strip_prefix("RequiredBy")?.trim_start().strip_prefix('=')?;
    let others: Vec<&str> = value.split_whitespace().filter(|unit| *unit != TARGET).collect();
    if others.len() == value.split_whitespace().count() {
        return None;
    }
    let end = if line.ends_with('\n') { "\n" } else { "" };
    let wanted = format!("WantedBy={TARGET}");
    Some(if others.is_empty() {
        wanted + end
    } else {
        format!("{wanted}\nRequiredBy={}{end}", others.join(" "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_neither_section_nor_setting_is_found() {
        for (text, line) in [
            ("[Unit]\nDescription\n", 2),
            ("[Unit\nA=b\n", 1),
            ("[Unit] x\nA=b\n", 1),
            ("[Unit]\nA=b \\\n c\n\nd\n", 5),
            ("# a\n[Service]\n; b\nExecStart\n", 4),
        ] {
            assert_eq!(syntax_flaw(text).map(|flaw| flaw.line), Some(line), "{text:?}");
        }
        for text in [
            "",
            "before the first section\n[Unit]\n",
            "[Unit]\nA=\n\n[X-Y]\nB=[\n",
            "[Service]\nExecStart=/bin/sh -c \\\n# a comment\n  'x'\n",
            "[Unit]\r\nA=b\r\n",
        ] {
            assert_eq!(syntax_flaw(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_what_a_boot_would_wait_for_is_wanted_instead() {
        let butane = "[Mount]\nWhere=/a\n\n[Install]\nRequiredBy=local-fs.target";
        let wanted = "[Mount]\nWhere=/a\n\n[Install]\nWantedBy=local-fs.target";

        assert_eq!(relax_requirement(butane).as_deref(), Some(wanted));
        assert_eq!(relax_requirement("[Install]\nRequiredBy=app.service\n"), None);
        assert_eq!(relax_requirement("[Install]\nRequiredBy=remote-fs.target\n"), None);
        assert_eq!(
            relax_requirement("[Install]\nRequiredBy = local-fs.target a.service\n").as_deref(),
            Some("[Install]\nWantedBy=local-fs.target\nRequiredBy=a.service\n")
        );
    }
}
