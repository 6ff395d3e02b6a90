//! cloud-init's folders of scripts: for each boot, for each instance, and once.
//!
//! Knows what is written into them, by whichever format. Refuses to read them: that is done on the machine, by
//! a script. Invariant: whoever writes there has the scripts run, or is told why they are not.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/modules.html>, "Scripts per boot" and its kin.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};

use super::step::{PlanStep, ScriptStep};
use super::{FirstBootPlan, PlanStage, PlannedStep, StepFrequency, StepOrigin};
use crate::secret::Secret;

/// The folder of scripts that run once, whatever instance the machine is.
pub(crate) const PER_ONCE: &str = "/var/lib/cloud/scripts/per-once/";
/// All of them.
const FOLDERS: [&str; 3] =
    ["/var/lib/cloud/scripts/per-boot/", "/var/lib/cloud/scripts/per-instance/", PER_ONCE];

/// The bits of a mode that let somebody run a file.
const EXECUTABLE: u32 = 0o111;

/// Runs the folders in cloud-init's order, and in each the scripts in the order of their names. One that fails
/// keeps no other from running. The marks are those of `cloud-init-per`, which is a verb of this agent.
// No run-parts(8): it leaves out names with a dot, which cloud-init runs.
const RUNNER: &str = r#"#!/bin/sh
for often in once boot instance; do
    for script in "/var/lib/cloud/scripts/per-$often"/*; do
        if [ -f "$script" ] && [ -x "$script" ]; then
            cloud-init-per "$often" "scripts.${script##*/}" "$script" || failed=1
        fi
    done
done
exit "${failed:-0}"
"#;

/// Whether a file at this path is run, if it may be.
pub(crate) fn holds_script(path: &str) -> bool {
    let name = FOLDERS.iter().find_map(|folder| path.strip_prefix(folder));
    // The shell's `*` leaves hidden files out, and what lies deeper.
    name.is_some_and(|name| !name.is_empty() && !name.starts_with('.') && !name.contains('/'))
}

/// Runs the folders at each boot, if the plan writes anything into one. In the stage of the scripts, where
/// cloud-init runs them, too, and before the others.
pub(crate) fn run_folders(plan: &mut FirstBootPlan, found: &mut Diagnostics) {
    let written = plan.steps.iter().filter(|planned| planned.step.written_path().is_some_and(holds_script));
    let Some(first) = written.clone().next() else { return };
    let origin = first.origin.clone();
    for planned in written {
        let PlanStep::WriteFile(file) = &planned.step else { continue };
        if let Some(at) = planned.origin.at.filter(|_| file.mode.is_none_or(|mode| mode & EXECUTABLE == 0)) {
            let message = format!("{} is not run, since nobody may execute it", file.path);
            let diagnostic = Diagnostic::warning(DiagnosticCode::NoEffect, at, message);
            found.push(
                diagnostic.with_help("give it `permissions: \"0755\"`").with_key(planned.origin.key.clone()),
            );
        }
    }
    let body = Secret::new(RUNNER.as_bytes().to_vec());
    let script = ScriptStep { name: "script-folders".to_owned(), body, wait: None };
    let origin = StepOrigin { key: "script-folders".to_owned(), ..origin };
    let stage = PlanStage::Scripts;
    let place = plan.steps.iter().position(|planned| planned.stage >= stage).unwrap_or(plan.steps.len());
    // At each boot, because `per-boot` needs it, and the marks keep the others from running again.
    let step = PlanStep::RunScript(script);
    plan.steps.insert(place, PlannedStep { stage, when: StepFrequency::EveryBoot, origin, step });
}
