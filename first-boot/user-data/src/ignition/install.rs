//! Units that are enabled, and have nothing that says when they are to be started.
//!
//! Knows that a template speaks for its instances, and a drop-in for its unit. Refuses to judge units that the
//! configuration does not write. Invariant: it only warns, as Ignition does, since the unit is started once here.
//!
//! Documentation: systemd.unit(5), "[Install] section options"; Ignition's `NoInstallSection` warnings.

use crate::plan::step::PlanStep;
use crate::plan::{FirstBootPlan, PlannedStep};
use crate::unit_text::has_install;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

/// Warns of each unit that is enabled in `links` and written without an install section in `files`.
pub(super) fn warn_without_install(files: &FirstBootPlan, links: &FirstBootPlan, found: &mut Diagnostics) {
    for planned in &links.steps {
        let PlanStep::EnableUnit { name, enable: true, .. } = &planned.step else { continue };
        let template = template_of(name);
        let is_of = |unit: &str| unit == name || Some(unit) == template.as_deref();
        let texts: Vec<&str> = files.steps.iter().filter_map(|file| text_of(file, is_of)).collect();
        let is_written = files
            .steps
            .iter()
            .any(|file| matches!(&file.step, PlanStep::WriteUnit { name, .. } if is_of(name)));
        let (true, Some(at)) = (is_written, planned.origin.at) else { continue };
        if texts.iter().any(|text| has_install(text)) {
            continue;
        }
        let (message, help) = if let Some(template) = template.filter(|_| !writes_unit(files, name)) {
            (
                format!(
                    "{name} is started once: {template} has no [Install] section, so no later boot starts it"
                ),
                "add `[Install]` and `WantedBy=multi-user.target` to the template",
            )
        } else {
            (
                format!("{name} is started once: without an [Install] section no later boot starts it"),
                "add `[Install]` and `WantedBy=multi-user.target`",
            )
        };
        let diagnostic = Diagnostic::warning(DiagnosticCode::NoEffect, at, message);
        found.push(diagnostic.with_key(format!("{}.enabled", planned.origin.key)).with_help(help));
    }
}

/// `web@.service` of `web@1.service`; nothing of a unit that is no instance.
fn template_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
}

fn writes_unit(files: &FirstBootPlan, wanted: &str) -> bool {
    files.steps.iter().any(|file| matches!(&file.step, PlanStep::WriteUnit { name, .. } if name == wanted))
}

/// The text of a unit or of one of its drop-ins.
fn text_of(file: &PlannedStep, is_of: impl Fn(&str) -> bool) -> Option<&str> {
    match &file.step {
        PlanStep::WriteUnit { name, content, .. } if is_of(name) => Some(content.reveal()),
        PlanStep::WriteDropIn { unit, content, .. } if is_of(unit) => Some(content.reveal()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::template_of;

    #[test]
    fn an_instance_has_a_template() {
        assert_eq!(template_of("web@1.service").as_deref(), Some("web@.service"));
        assert_eq!(template_of("getty@a.b.service").as_deref(), Some("getty@.service"));
        assert_eq!(template_of("web@.service"), None);
        assert_eq!(template_of("web.service"), None);
    }
}
