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
            entry::{ShapeId, ShapeIndex, UnitEntry, UnitSlot},
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
    free: Vec<UnitSlot>,
    slots: HashMap<UnitName, UnitSlot>,
    /// Names in order, for the ranges of patterns; only kept once a glob was seen.
    names: Option<BTreeMap<UnitName, UnitSlot>>,
    globals: BTreeMap<UnitName, UnitSlot>,
    patterns: PatternTable,
    /// Units whose shape changed since the last look.
    reshaped: Vec<UnitSlot>,
}

impl UnitTable {
    pub(super) fn index_of(&self, name: &UnitName) -> Option<UnitSlot> {
        self.slots.get(name).copied()
    }

    pub(super) fn find_unit(&self, name: &str) -> Option<UnitSlot> {
        self.slots.get(name).copied()
    }

    /// The units that are on a machine.
    pub(super) fn placed_units(&self) -> Vec<UnitSlot> {
        self.slots.values().copied().filter(|&slot| self[slot].at.is_some()).collect()
    }

    pub(super) fn name(&self, slot: UnitSlot) -> &UnitName {
        &self[slot].name
    }

    /// The wanted global units, by name.
    pub(super) fn global_units(&self) -> impl Iterator<Item = UnitSlot> {
        self.globals.values().copied().filter(|&slot| self[slot].is_wanted())
    }

    pub(super) fn add(
        &mut self,
        unit: &SubmittedUnit,
        shapes: &mut impl ShapeIndex,
        machines: &mut MachineTable,
    ) -> UnitSlot {
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
        let slot = self.insert_unit(entry);
        self.slots.insert(unit.name.clone(), slot);
        if let Some(names) = &mut self.names {
            names.insert(unit.name.clone(), slot);
        }
        if unit.is_global() {
            self.globals.insert(unit.name.clone(), slot);
        }
        slot
    }

    fn insert_unit(&mut self, entry: UnitEntry) -> UnitSlot {
        if let Some(slot) = self.free.pop() {
            self.entries[slot as usize] = Some(entry);
            return slot;
        }
        self.entries.push(Some(entry));
        UnitSlot::try_from(self.entries.len() - 1).unwrap_or(UnitSlot::MAX)
    }

    pub(super) fn take_reshaped(&mut self) -> Vec<UnitSlot> {
        std::mem::take(&mut self.reshaped)
    }

    /// A global unit is run nowhere from now on.
    pub(super) fn retire_global(&mut self, name: &UnitName) {
        self.globals.remove(name);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Forgets a unit that is nowhere.
    pub(super) fn remove_unit(&mut self, name: &UnitName, shapes: &mut impl ShapeIndex) {
        let Some(slot) = self.slots.remove(name) else { return };
        if let Some(names) = &mut self.names {
            names.remove(name);
        }
        self.globals.remove(name);
        if let Some(entry) = self.entries[slot as usize].take() {
            shapes.release_shape(entry.shape);
        }
        self.free.push(slot);
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
        for slot in self.units_matching(pattern) {
            let Some(entry) = self.entries[slot as usize].as_mut() else { continue };
            self.reshaped.push(slot);
            entry.hits.push(id);
            shapes.release_shape(entry.shape);
            entry.shape = shapes.hold_shape(entry);
            if let Some(machine) = entry.at {
                machines.add_hit(machine, id);
            }
            if entry.is_global() {
                machines.add_global_hits(slot, id);
            }
        }
    }

    fn units_matching(&mut self, pattern: &str) -> Vec<UnitSlot> {
        if glob::is_literal(pattern) {
            return self.slots.get(pattern).copied().into_iter().collect();
        }
        let slots = &self.slots;
        let names = self
            .names
            .get_or_insert_with(|| slots.iter().map(|(name, &slot)| (name.clone(), slot)).collect());
        let start = literal_start(pattern);
        names
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(name, _)| name.as_str().starts_with(start))
            .filter(|(name, _)| glob::glob_matches(pattern, name.as_str()))
            .map(|(_, &slot)| slot)
            .collect()
    }
}

impl Index<UnitSlot> for UnitTable {
    type Output = UnitEntry;

    #[expect(clippy::expect_used, reason = "a slot is forgotten together with its unit")]
    fn index(&self, slot: UnitSlot) -> &UnitEntry {
        self.entries[slot as usize].as_ref().expect("a slot in use")
    }
}

impl IndexMut<UnitSlot> for UnitTable {
    #[expect(clippy::expect_used, reason = "a slot is forgotten together with its unit")]
    fn index_mut(&mut self, slot: UnitSlot) -> &mut UnitEntry {
        self.entries[slot as usize].as_mut().expect("a slot in use")
    }
}
