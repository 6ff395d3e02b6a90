//! Units by number, by name, and by the patterns that match their names.
//!
//! Knows no rule of its own. Invariant: a unit's hits are all the patterns of others that match its name.

use std::{
    collections::{BTreeMap, HashMap},
    ops::{Bound, Index, IndexMut},
    sync::Arc,
};

use crate::{
    model::{glob, unit_name::UnitName},
    plan::{
        patterns::{PatternId, PatternTable, literal_start},
        place::{
            entry::{ShapeId, ShapeIndex, UnitEntry, UnitIndex},
            machines::MachineTable,
        },
        rules::is_wanted,
    },
    store::cluster::SubmittedUnit,
};

/// Every unit that was submitted.
#[derive(Debug, Default)]
pub(super) struct UnitTable {
    entries: Vec<Option<UnitEntry>>,
    // Indices of destroyed units are given out again, so that a cluster which submits and destroys all day
    // does not grow.
    free: Vec<UnitIndex>,
    indices: HashMap<UnitName, UnitIndex>,
    /// Names in order, for the ranges of patterns; only kept once a glob was seen.
    // Only then: most clusters have no pattern that is not literal, and a map of all names costs memory and
    // time.
    names: Option<BTreeMap<UnitName, UnitIndex>>,
    globals: BTreeMap<UnitName, UnitIndex>,
    patterns: PatternTable,
    /// Units whose shape changed since the last look.
    reshaped: Vec<UnitIndex>,
}

impl UnitTable {
    pub(super) fn index_of(&self, name: &UnitName) -> Option<UnitIndex> {
        self.indices.get(name).copied()
    }

    pub(super) fn find_unit(&self, name: &str) -> Option<UnitIndex> {
        self.indices.get(name).copied()
    }

    /// The units that are on a machine.
    pub(super) fn placed_units(&self) -> Vec<UnitIndex> {
        self.indices.values().copied().filter(|&index| self[index].at.is_some()).collect()
    }

    pub(super) fn unit_name(&self, index: UnitIndex) -> &UnitName {
        &self[index].name
    }

    /// The wanted global units, by name.
    pub(super) fn global_units(&self) -> impl Iterator<Item = UnitIndex> {
        self.globals.values().copied().filter(|&index| self[index].is_wanted())
    }

    pub(super) fn add(
        &mut self,
        unit: &SubmittedUnit,
        shapes: &mut impl ShapeIndex,
        machines: &mut MachineTable,
    ) -> UnitIndex {
        let avoids = self.intern_patterns(&unit.requirements.conflicts, shapes, machines);
        let evicts = self.intern_patterns(&unit.requirements.replaces, shapes, machines);
        let mut entry = UnitEntry {
            name: unit.name.clone(),
            requirements: Arc::clone(&unit.requirements),
            wanted: is_wanted(unit),
            hits: self.patterns.matching_patterns(unit.name.as_str()),
            avoids,
            evicts,
            shape: ShapeId::default(),
            waits_as: None,
            at: None,
        };
        entry.shape = shapes.hold_shape(&entry);
        let index = self.insert_unit(entry);
        self.indices.insert(unit.name.clone(), index);
        if let Some(names) = &mut self.names {
            names.insert(unit.name.clone(), index);
        }
        if unit.is_global() {
            self.globals.insert(unit.name.clone(), index);
        }
        index
    }

    fn insert_unit(&mut self, entry: UnitEntry) -> UnitIndex {
        if let Some(index) = self.free.pop() {
            self.entries[index.as_usize()] = Some(entry);
            return index;
        }
        self.entries.push(Some(entry));
        UnitIndex::at(self.entries.len() - 1)
    }

    pub(super) fn take_reshaped(&mut self) -> Vec<UnitIndex> {
        std::mem::take(&mut self.reshaped)
    }

    /// A global unit is run nowhere from now on.
    pub(super) fn retire_global(&mut self, name: &UnitName) {
        self.globals.remove(name);
    }

    pub(super) fn len(&self) -> usize {
        self.indices.len()
    }

    /// Forgets a unit that is nowhere.
    pub(super) fn remove_unit(&mut self, name: &UnitName, shapes: &mut impl ShapeIndex) {
        let Some(index) = self.indices.remove(name) else { return };
        if let Some(names) = &mut self.names {
            names.remove(name);
        }
        self.globals.remove(name);
        if let Some(entry) = self.entries[index.as_usize()].take() {
            shapes.release_shape(entry.shape);
        }
        self.free.push(index);
    }

    fn intern_patterns<'a>(
        &mut self,
        patterns: impl IntoIterator<Item = &'a String>,
        shapes: &mut impl ShapeIndex,
        machines: &mut MachineTable,
    ) -> Vec<PatternId> {
        let mut ids = Vec::new();
        for pattern in patterns {
            let (id, is_new) = self.patterns.intern_pattern(pattern);
            if is_new {
                self.hit_known(pattern, id, shapes, machines);
            }
            ids.push(id);
        }
        ids
    }

    /// Tells the units that are here already of a new pattern that matches their names.
    fn hit_known(
        &mut self,
        pattern: &str,
        id: PatternId,
        shapes: &mut impl ShapeIndex,
        machines: &mut MachineTable,
    ) {
        for index in self.units_matching(pattern) {
            let Some(entry) = self.entries[index.as_usize()].as_mut() else { continue };
            self.reshaped.push(index);
            entry.hits.push(id);
            shapes.release_shape(entry.shape);
            entry.shape = shapes.hold_shape(entry);
            if let Some(machine) = entry.at {
                machines.add_hit(machine, id);
            }
            if entry.is_global() {
                machines.add_global_hits(index, id);
            }
        }
    }

    fn units_matching(&mut self, pattern: &str) -> Vec<UnitIndex> {
        if glob::is_literal(pattern) {
            return self.indices.get(pattern).copied().into_iter().collect();
        }
        let indices = &self.indices;
        let names = self
            .names
            .get_or_insert_with(|| indices.iter().map(|(name, &index)| (name.clone(), index)).collect());
        let start = literal_start(pattern);
        names
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(name, _)| name.as_str().starts_with(start))
            .filter(|(name, _)| glob::glob_matches(pattern, name.as_str()))
            .map(|(_, &index)| index)
            .collect()
    }
}

impl Index<UnitIndex> for UnitTable {
    type Output = UnitEntry;

    #[expect(clippy::expect_used, reason = "an index is forgotten together with its unit")]
    fn index(&self, index: UnitIndex) -> &UnitEntry {
        self.entries[index.as_usize()].as_ref().expect("an index in use")
    }
}

impl IndexMut<UnitIndex> for UnitTable {
    #[expect(clippy::expect_used, reason = "an index is forgotten together with its unit")]
    fn index_mut(&mut self, index: UnitIndex) -> &mut UnitEntry {
        self.entries[index.as_usize()].as_mut().expect("an index in use")
    }
}
