//! What of a plan is carried out while the machine cannot keep anything.
//!
//! Knows which steps let people in. Refuses the rest: a machine whose STATE is lost would join its cluster a second
//! time, format the data disks that it has, and run its scripts at each boot. Invariant: nothing that is done here
//! reaches a disk.

use user_data::plan::step::PlanStep;
use user_data::plan::{PlanStage, PlannedStep};

use crate::outcome::RunOutcome;
use crate::root::MachineRoot;

/// The initramfs leaves it when the machine's own file system cannot be used.
// initagent's `state::VOLATILE_MARK`: this crate knows nothing of disks, and a file says it all.
const VOLATILE_MARK: &str = "/run/catamaran/volatile-state";

/// Takes away what must not be done on a machine that cannot keep it, and says so.
pub(crate) fn limit_steps(
    root: &MachineRoot,
    plans: [Vec<PlannedStep>; 2],
    outcome: &mut RunOutcome,
) -> [Vec<PlannedStep>; 2] {
    if !root.path_of(VOLATILE_MARK).exists() {
        return plans;
    }
    let [plan, closing] = plans;
    let all = plan.len() + closing.len();
    let plan: Vec<PlannedStep> = plan.into_iter().filter(lets_people_in).collect();
    outcome.problems.push(format!(
        "STATE is not in use: network, users and keys are configured, and {} other steps are not \
         ('initagent state check' says why)",
        all - plan.len()
    ));
    [plan, Vec::new()]
}

fn lets_people_in(planned: &PlannedStep) -> bool {
    planned.stage == PlanStage::Network
        || matches!(
            planned.step,
            PlanStep::AuthorizeKeys { .. }
                | PlanStep::CreateGroup(_)
                | PlanStep::CreateUser(_)
                | PlanStep::GuardAccess
                | PlanStep::ImportKeys { .. }
                | PlanStep::PrepareHostKeys(_)
                | PlanStep::SetHostname(_)
                | PlanStep::SetPassword { .. }
                | PlanStep::SetPlatformKeys { .. }
        )
}
