//! What will be done to the machine, in order.
//!
//! Knows steps, stages and origins. Refuses to act. Invariants: the order of a plan depends on what
//! was written only, never on the order of a map; every step can be carried out whatever became of
//! the others.

pub(crate) mod script_folders;
pub mod step;
pub mod text;

use document::source::SourceMark;
use step::PlanStep;

/// The stages of a first boot, in their order.
// Access comes before all that can fail or take long. cloud-init writes files before it makes their owners;
// here users come first. Units are started last, since they read the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlanStage {
    /// Network configuration.
    Network,
    /// Host name, host keys and the keys of the image's own user.
    Identity,
    /// Commands that the user wants before everything else.
    Early,
    /// Partitions, file systems, mounts and swap.
    Storage,
    /// Groups, users and passwords.
    Accounts,
    /// Files, directories, links and settings that are files.
    Files,
    /// Files that asked to be written last.
    DeferredFiles,
    /// Units: contents, then one reload, then enable, then start.
    Units,
    /// Scripts that run beside the rest of the boot.
    Scripts,
    /// Messages, calls home and power.
    Closing,
}

impl PlanStage {
    /// The word that heads the stage in a printed plan and in the result.
    #[must_use]
    pub fn stage_word(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Closing => "closing",
            Self::DeferredFiles => "deferred-files",
            Self::Early => "early",
            Self::Files => "files",
            Self::Identity => "identity",
            Self::Network => "network",
            Self::Scripts => "scripts",
            Self::Storage => "storage",
            Self::Units => "units",
        }
    }
}

/// How often a step is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepFrequency {
    /// Each boot: it concerns /run, or what runs.
    EveryBoot,
    /// Once in the life of an instance.
    FirstBoot,
}

/// Where a step was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepOrigin {
    /// The place; `None` for what the platform or the agent itself asks for.
    pub at: Option<SourceMark>,
    /// The path of keys, like `users[2]`; or who asks, like `platform`.
    pub key: String,
}

impl StepOrigin {
    /// Asked for by a value of a document.
    pub fn from_mark(at: SourceMark, key: impl Into<String>) -> Self {
        Self { at: Some(at), key: key.into() }
    }

    /// Asked for by something that is no document.
    pub fn from(who: impl Into<String>) -> Self {
        Self { at: None, key: who.into() }
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// The stage it belongs to.
    pub stage: PlanStage,
    /// How often it is carried out.
    pub when: StepFrequency,
    /// Who asked for it.
    pub origin: StepOrigin,
    /// What is done.
    pub step: PlanStep,
}

/// Steps in the order in which they are carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstBootPlan {
    /// The steps.
    pub steps: Vec<PlannedStep>,
}

impl FirstBootPlan {
    /// Adds a step that is done once.
    pub fn push_once(&mut self, stage: PlanStage, origin: StepOrigin, step: PlanStep) {
        self.steps.push(PlannedStep { stage, when: StepFrequency::FirstBoot, origin, step });
    }

    /// Adds a step that is done at each boot.
    pub fn every_boot(&mut self, stage: PlanStage, origin: StepOrigin, step: PlanStep) {
        self.steps.push(PlannedStep { stage, when: StepFrequency::EveryBoot, origin, step });
    }

    /// Adds a step and how often it is done.
    pub fn add(&mut self, stage: PlanStage, when: StepFrequency, origin: StepOrigin, step: PlanStep) {
        self.steps.push(PlannedStep { stage, when, origin, step });
    }

    /// Adds the steps of another plan behind the own ones of the same stage.
    pub fn append_plan(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.sort_by_stage();
    }

    /// Brings the steps into the order of their stages, without changing it inside a stage.
    pub fn sort_by_stage(&mut self) {
        // The sort is stable: inside a stage the author's order means something.
        self.steps.sort_by_key(|planned| planned.stage);
    }
}
