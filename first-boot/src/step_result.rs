//! What became of a step.
//!
//! Knows three ends. Refuses to know how a step is done. Invariant: a result stays with the step it is of, so that
//! no two lists have to be matched by their order.

use user_data::plan::PlannedStep;

use crate::files::FileChange;
use crate::step_error::StepError;

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepResult {
    Changed,
    Failed(String),
    Unchanged,
}

impl StepResult {
    pub(crate) fn from_result(done: Result<FileChange, StepError>) -> Self {
        match done {
            Ok(FileChange::Made) => Self::Changed,
            Ok(FileChange::None) => Self::Unchanged,
            Err(error) => Self::Failed(error.error_chain()),
        }
    }
}

/// A step and what became of it.
#[derive(Debug)]
pub(crate) struct ResultItem {
    pub(crate) planned: PlannedStep,
    pub(crate) done: StepResult,
}
