//! Which steps of a plan this boot carries out, and in which three groups.
//!
//! Knows stages and frequencies. Refuses to act. Invariant: each step of this boot is in one group, and the order of
//! the groups is that of the stages.

use platform::BootKind;
use user_data::plan::step::PlanStep;
use user_data::plan::{FirstBootPlan, PlanStage, PlannedStep, StepFrequency};

/// The steps of one boot.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct BootPlan {
    /// What logins need: sshd starts behind it.
    pub(super) access: Vec<PlannedStep>,
    /// Units and scripts, which may take long.
    pub(super) services: Vec<PlannedStep>,
    /// What comes after the instance is remembered: a script that turns the machine off must not run again.
    pub(super) closing: Vec<PlannedStep>,
}

impl BootPlan {
    /// Of a plan without the network, which is up by now.
    pub(super) fn of(plan: FirstBootPlan, boot: BootKind) -> Self {
        let mut groups = Self::default();
        for planned in plan.steps {
            match planned.stage {
                _ if boot == BootKind::Later && planned.when == StepFrequency::FirstBoot => continue,
                PlanStage::Closing => &mut groups.closing,
                stage if stage < PlanStage::Units => &mut groups.access,
                _ => &mut groups.services,
            }
            .push(planned);
        }
        groups
    }

    /// For whom the platform has keys at this boot.
    pub(super) fn platform_users(&self) -> Vec<&str> {
        let users = self.access.iter().filter_map(|planned| match &planned.step {
            PlanStep::SetPlatformKeys { user, .. } => Some(user.as_str()),
            _ => None,
        });
        users.collect()
    }
}

#[cfg(test)]
mod tests {
    use user_data::plan::StepOrigin;

    use super::*;

    fn plan_of(steps: &[(PlanStage, StepFrequency)]) -> FirstBootPlan {
        let mut plan = FirstBootPlan::default();
        for (stage, when) in steps {
            plan.add(*stage, *when, StepOrigin::from("test"), PlanStep::ReloadUnits);
        }
        plan
    }

    fn stages(steps: &[PlannedStep]) -> Vec<&str> {
        steps.iter().map(|planned| planned.stage.stage_word()).collect()
    }

    #[test]
    fn each_step_of_the_boot_is_in_one_group() {
        let all = [
            (PlanStage::Identity, StepFrequency::EveryBoot),
            (PlanStage::Files, StepFrequency::FirstBoot),
            (PlanStage::Units, StepFrequency::EveryBoot),
            (PlanStage::Scripts, StepFrequency::FirstBoot),
            (PlanStage::Closing, StepFrequency::FirstBoot),
        ];

        let first = BootPlan::of(plan_of(&all), BootKind::First);
        let later = BootPlan::of(plan_of(&all), BootKind::Later);

        assert_eq!(stages(&first.access), ["identity", "files"]);
        assert_eq!(stages(&first.services), ["units", "scripts"]);
        assert_eq!(stages(&first.closing), ["closing"]);
        assert_eq!(stages(&later.access), ["identity"]);
        assert_eq!(stages(&later.services), ["units"]);
        assert!(later.closing.is_empty());
    }
}
