//! The whole cluster as one value: what the store held at one revision.
//!
//! Knows what belongs to what; refuses to know keys, encodings and the network. Everything that decides
//! or shows reads this. Invariant: every unit's requirements are those of its file.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::model::{
    machine::{Machine, MachineId},
    requirements::UnitRequirements,
    state::{CurrentState, DesiredState, JobState, UnitState},
    unit_file::{UnitFile, UnitHash},
    unit_name::UnitName,
};
use crate::store::revision::Revision;

/// Where a change of a unit is going. Only global units go back machine by machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeDirection {
    /// Back to the content before, since the new one failed.
    Back,
    /// To a new content.
    Forward,
}

/// A unit as it was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmittedUnit {
    /// Its name.
    pub name: UnitName,
    /// Its content.
    pub file: UnitFile,
    /// What the content asks of machines.
    pub requirements: Arc<UnitRequirements>,
    /// What is wanted of it.
    pub desired: DesiredState,
    /// How often a restart was ordered.
    pub restarts: u64,
    /// The content before the last change, to go back to.
    pub previous: Option<UnitHash>,
    /// How a change of it is under way, until it has proved well or was given up.
    pub rollout: Option<ChangeDirection>,
    /// What the engine wants a person to know: why a change was taken back.
    pub note: String,
    /// The store revision of its last change.
    pub revision: Revision,
}

impl SubmittedUnit {
    /// A unit that nobody stored yet.
    #[must_use]
    pub fn new(name: UnitName, file: UnitFile, desired: DesiredState) -> Self {
        let requirements = Arc::new(UnitRequirements::of_unit(&name, &file));
        Self {
            name,
            file,
            requirements,
            desired,
            restarts: 0,
            previous: None,
            rollout: None,
            note: String::new(),
            revision: Revision::NEVER,
        }
    }

    /// Whether every able machine runs it.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.requirements.global
    }
}

/// A decision of the engine: this machine holds the unit, in this content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitAssignment {
    /// The machine.
    pub machine: MachineId,
    /// The content it should run: differs from the unit's while a change is being rolled out.
    pub hash: UnitHash,
    /// The store revision of its last change.
    pub revision: Revision,
}

/// What the store held at one revision.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// The revision.
    pub revision: Revision,
    /// Every submitted unit, templates and global ones included.
    pub units: BTreeMap<UnitName, SubmittedUnit>,
    /// The machines that are present.
    pub machines: BTreeMap<MachineId, Machine>,
    /// Where units are scheduled. A machine named here may be absent.
    pub assignments: BTreeMap<UnitName, UnitAssignment>,
    /// The content that machines may change global units to, while that is being rolled out.
    pub admissions: BTreeMap<UnitName, BTreeMap<MachineId, UnitHash>>,
    /// What machines say of units.
    pub states: BTreeMap<UnitName, BTreeMap<MachineId, UnitState>>,
    /// Every unit content that is stored, by its hash.
    pub files: BTreeMap<UnitHash, UnitFile>,
    /// The machine whose engine leads, if any does.
    pub leader: Option<MachineId>,
    /// Why the engine moves nothing at the moment; empty when it does its work.
    pub brake: String,
}

// A cluster is cloned nowhere: it is read under a lock, since a copy of ten thousand units for each
// question would cost more than the answer.
impl Cluster {
    /// The machine a unit is scheduled on.
    #[must_use]
    pub fn target_of(&self, unit: &str) -> Option<&MachineId> {
        self.assignments.get(unit).map(|assignment| &assignment.machine)
    }

    /// What one machine says of a unit.
    #[must_use]
    pub fn state_on(&self, unit: &str, machine: &str) -> Option<&UnitState> {
        self.states.get(unit)?.get(machine)
    }

    /// Whether a machine may run the content that is wanted of a global unit.
    #[must_use]
    pub fn is_admitted(&self, unit: &SubmittedUnit, machine: &MachineId) -> bool {
        let admitted = self.admissions.get(&unit.name).and_then(|machines| machines.get(machine));
        admitted == Some(&unit.file.hash())
    }

    /// How far a unit got: by the word of the machine it is scheduled on. `None` for global and unknown
    /// units, which have no single state.
    #[must_use]
    pub fn current_state(&self, unit: &str) -> Option<CurrentState> {
        if self.units.get(unit)?.is_global() {
            return None;
        }
        let said = self.target_of(unit).and_then(|machine| self.state_on(unit, machine.as_str()));
        Some(said.map_or(JobState::Inactive, |state| state.job))
    }

    /// Every state that is known, sorted by unit, then machine.
    pub fn all_states(&self) -> impl Iterator<Item = &UnitState> {
        self.states.values().flat_map(BTreeMap::values)
    }
}
