//! What the engine notes of one unit, and the numbers by which units, machines and shapes go.
//!
//! Knows no rule of its own. Refuses to know who else is there.

use std::sync::Arc;

use crate::{
    model::{requirements::UnitRequirements, unit_name::UnitName},
    plan::{patterns::PatternId, rules::is_wanted},
    store::cluster::SubmittedUnit,
};

/// The number of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MachineIndex(u32);

impl MachineIndex {
    /// The index of a position in the table.
    pub(super) fn at(position: usize) -> Self {
        Self(u32::try_from(position).unwrap_or(u32::MAX))
    }

    /// The position in the table.
    pub(super) const fn as_usize(self) -> usize {
        self.0 as usize
    }
}
/// The number of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UnitIndex(u32);

impl UnitIndex {
    /// The index of a position in the table.
    pub(super) fn at(position: usize) -> Self {
        Self(u32::try_from(position).unwrap_or(u32::MAX))
    }

    /// The position in the table.
    pub(super) const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// The number of a shape: units that ask for the same have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct ShapeId(pub(super) u32);

/// The keeper of the shapes of units, which is told what changes in the index.
pub(super) trait ShapeIndex {
    /// The shape of a unit that comes.
    fn hold_shape(&mut self, unit: &UnitEntry) -> ShapeId;
    /// A unit of the shape goes.
    fn release_shape(&mut self, shape: ShapeId);
    /// Guests are on other metadata than before.
    fn forget_spread(&mut self);
    /// A machine takes its place at this position, before those that were there and behind.
    fn make_room(&mut self, position: usize);
}

/// A unit in the books.
#[derive(Debug)]
pub(super) struct UnitEntry {
    pub(super) name: UnitName,
    pub(super) requirements: Arc<UnitRequirements>,
    pub(super) wanted: bool,
    /// Patterns its name matches, sorted.
    // Numbers in place of texts: whether two units may live together is then a comparison of two short
    // lists, where the original parsed and matched the patterns of both again for each pair.
    pub(super) hits: Vec<PatternId>,
    /// Its own `Conflicts=`.
    pub(super) avoids: Vec<PatternId>,
    /// Its own `Replaces=`.
    pub(super) evicts: Vec<PatternId>,
    pub(super) shape: ShapeId,
    /// The shape under which it waits.
    pub(super) waits_as: Option<ShapeId>,
    pub(super) at: Option<MachineIndex>,
}

impl UnitEntry {
    /// Whether the engine looks for a machine for it.
    pub(super) fn is_scheduled(&self) -> bool {
        self.wanted && !self.requirements.global
    }

    pub(super) fn is_global(&self) -> bool {
        self.requirements.global
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether nothing that matters here differs.
    pub(super) fn is_like(&self, unit: &SubmittedUnit) -> bool {
        self.wanted == is_wanted(unit)
            && (Arc::ptr_eq(&self.requirements, &unit.requirements) || self.requirements == unit.requirements)
    }
}
