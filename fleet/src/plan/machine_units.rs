//! A unit of one machine: as it should be, and as it is.
//!
//! Knows what an agent has to know of a unit. Refuses to know how the two are compared ([`crate::plan::reconcile`]) and
//! in which order they start ([`crate::plan::ordering`]).

use crate::model::{
    state::JobState,
    unit_file::{UnitFile, UnitHash},
};

/// A unit this machine should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredUnit {
    /// Its content.
    pub file: UnitFile,
    /// How far to take it.
    pub job: JobState,
    /// Which restart order is the last one.
    pub restarts: u64,
    /// Whether it must not run when the cluster is out of reach.
    pub fence: bool,
    /// Whether nobody scheduled it: every able machine runs it.
    pub global: bool,
}

/// A unit this machine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActualUnit {
    /// Its content.
    pub hash: UnitHash,
    /// How far it was taken.
    pub job: JobState,
    /// Which restart order was the last one obeyed.
    pub restarts: u64,
}
