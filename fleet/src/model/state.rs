//! The three meanings of state: what is wanted of a unit, how far fleet got, what systemd says.
//!
//! Invariant: text that is none of the known words never becomes a state.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::model::{machine::MachineId, unit_file::UnitHash, unit_name::UnitName};

/// How far a unit should go, or went: the words are the same, so is the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// In the registry only.
    #[default]
    Inactive,
    /// On a machine, known to its systemd, not started.
    Loaded,
    /// Started by its machine's agent. Says nothing on whether systemd calls it active.
    Launched,
}

/// What is wanted of a unit.
pub type DesiredState = JobState;
/// How far a unit got.
pub type CurrentState = JobState;

/// A text that is no job state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {0:?} for JobState")]
pub struct JobStateError(String);

impl JobState {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Loaded => "loaded",
            Self::Launched => "launched",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = JobStateError;

    fn from_str(text: &str) -> Result<Self, JobStateError> {
        match text {
            "inactive" => Ok(Self::Inactive),
            "loaded" => Ok(Self::Loaded),
            "launched" => Ok(Self::Launched),
            other => Err(JobStateError(other.chars().take(64).collect())),
        }
    }
}

/// What a machine says of a unit it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// The unit.
    pub name: UnitName,
    /// The machine that speaks.
    pub machine: MachineId,
    /// The content it has loaded.
    pub hash: UnitHash,
    /// How far its agent took the unit.
    #[serde(default)]
    pub job: JobState,
    /// systemd's `LoadState`.
    pub load: String,
    /// systemd's `ActiveState`.
    pub active: String,
    /// systemd's `SubState`.
    pub sub: String,
    /// Which restart order was the last one obeyed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u64,
    /// Why the agent could not do what was asked; empty when it could.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl UnitState {
    /// Whether systemd has something of it to stop, or is stopping it.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed" | "")
    }

    /// Whether systemd has it up, or has run it to its proper end.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.load == "loaded"
            && matches!(
                (self.active.as_str(), self.sub.as_str()),
                ("active" | "reloading", _) | ("inactive", "dead" | "exited")
            )
            && self.error.is_empty()
    }

    /// Whether systemd gave it up.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.active == "failed"
            || !self.error.is_empty()
            || matches!(self.load.as_str(), "error" | "bad-setting")
    }
}
