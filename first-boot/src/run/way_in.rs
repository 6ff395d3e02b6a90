//! What of a plan is carried out while the machine cannot keep anything.
//!
//! Knows which steps let people in. Refuses the rest: a machine whose STATE is lost would join its cluster a second
//! time, format the data disks that it has, and run its scripts at each boot. Invariant: nothing that is done here
//! reaches a disk.

use user_data::plan::step::PlanStep;
use user_data::plan::{PlanStage, PlannedStep};

use super::boot_plan::BootPlan;
use crate::outcome::RunErrors;
use crate::root::MachineRoot;

/// The initramfs leaves it when the machine's own file system cannot be used.
// initagent's `state::VOLATILE_MARK`: this crate knows nothing of disks, and a file says it all.
const VOLATILE_MARK: &str = "/run/catamaran/volatile-state";

/// Takes away what must not be done on a machine that cannot keep it, and says so.
pub(super) fn limit_plan(root: &MachineRoot, plan: &mut BootPlan) -> RunErrors {
    if !root.path_of(VOLATILE_MARK).exists() {
        return RunErrors::default();
    }
    let mut left_out = 0;
    for steps in [&mut plan.access, &mut plan.services, &mut plan.closing] {
        let all = steps.len();
        steps.retain(lets_people_in);
        left_out += all - steps.len();
    }
    RunErrors::from_problem(Err(format!(
        "STATE is not in use: network, users and keys are configured, and {left_out} other steps are not \
         ('initagent state check' says why)"
    )))
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
