//! The schedule as it is kept: who runs what, and what has to be looked at.
//!
//! Knows what the words of a decision mean. Refuses to decide. Invariant: none of its own; whoever writes
//! in these books ([`crate::plan::place`]) keeps them true.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use super::{
    entry::{ShapeId, UnitIndex},
    machines::MachineTable,
    shape::ShapeTable,
    units::UnitTable,
};
use crate::{
    model::{machine::MachineId, unit_name::UnitName},
    plan::rules::PlacementRefusal,
};

/// Why a unit is scheduled, moved or unscheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecisionReason {
    /// It is wanted and had no machine.
    Wanted,
    /// It is no longer wanted.
    Inactive,
    /// Its machine went away.
    MachineAway(MachineId),
    /// Its machine cannot run it any more.
    Unable(MachineId, PlacementRefusal),
    /// Its machine had many more units than another.
    Rebalanced(MachineId),
}

impl fmt::Display for DecisionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted => f.write_str("unit is to run"),
            Self::Inactive => f.write_str("target state inactive"),
            Self::MachineAway(machine) => write!(f, "target Machine({machine}) went away"),
            Self::Unable(machine, why) => write!(f, "target Machine({machine}) unable to run unit: {why}"),
            Self::Rebalanced(machine) => write!(f, "target Machine({machine}) is crowded"),
        }
    }
}

/// One change of the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementDecision {
    /// The unit.
    pub unit: UnitName,
    /// Where it was scheduled.
    pub from: Option<MachineId>,
    /// Where it is scheduled from now on.
    pub to: Option<MachineId>,
    /// Why.
    pub reason: DecisionReason,
}

/// The schedule, and what is needed to change it.
#[derive(Debug, Default)]
pub struct UnitPlacement {
    pub(super) machines: MachineTable,
    pub(super) units: UnitTable,
    pub(super) shapes: ShapeTable,
    /// Units that ask to be on another unit's machine, by the other's name.
    pub(super) followers: HashMap<Box<str>, BTreeSet<UnitIndex>>,
    /// Wanted units that no machine could take, by shape: one answer holds for all of a shape.
    pub(super) pending: BTreeMap<ShapeId, BTreeSet<UnitName>>,
    /// Units to be looked at by the next [`Placement::decide_all`].
    pub(super) todo: BTreeSet<UnitName>,
    /// Placed units whose machine may no longer suit them.
    pub(super) doubtful: BTreeSet<UnitName>,
    /// Units that left their machine since the last decisions were handed out.
    pub(super) leaving: BTreeMap<UnitName, (MachineId, DecisionReason)>,
    /// The units in `leaving` that were added since the last look.
    pub(super) newly_leaving: Vec<UnitName>,
    /// Units that must not be placed yet.
    pub(super) held: BTreeSet<UnitName>,
    /// Whether some machine may have become able to take what is pending.
    pub(super) freed: bool,
}
