//! Machines by number, with what each holds and hits counted as it changes.
//!
//! Knows no rule of its own. Invariant: the counts of a machine are those of its guests and of the
//! global units it runs.

use std::{
    collections::{BTreeMap, HashMap},
    ops::{Bound, Index},
};

use crate::{
    model::machine::{Machine, MachineId, Resources},
    plan::{
        patterns::PatternId,
        place::{
            bits::BitSet,
            entry::{MachineIndex, ShapeIndex, UnitEntry, UnitIndex},
        },
    },
};

/// How many guests of a machine have to do with a pattern.
#[derive(Debug, Clone, Copy)]
struct PatternCount {
    pattern: PatternId,
    /// Guests whose name it matches.
    hit: u32,
    /// Guests that bar the names it matches.
    bar: u32,
}

#[derive(Debug)]
struct MachineEntry {
    machine: Machine,
    /// Its place among all, in the order of IDs.
    position: usize,
    present: bool,
    load: u32,
    used: Resources,
    guests: Vec<UnitIndex>,
    globals: Vec<UnitIndex>,
    lacks_globals: bool,
    counts: Vec<PatternCount>,
}

impl MachineEntry {
    fn count_guest(&mut self, unit: &UnitEntry, by: i32) {
        self.load = self.load.saturating_add_signed(by);
        let reserve = unit.requirements.reserve;
        let sign = i64::from(by);
        let scale = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(sign);
        self.used.memory_mib = self.used.memory_mib.saturating_add_signed(scale(reserve.memory_mib));
        self.used.cpu_percent = self.used.cpu_percent.saturating_add_signed(scale(reserve.cpu_percent));
        for &pattern in &unit.hits {
            let count = self.pattern_entry(pattern);
            count.hit = count.hit.saturating_add_signed(by);
        }
        for &pattern in unit.avoids.iter().chain(&unit.evicts) {
            let count = self.pattern_entry(pattern);
            count.bar = count.bar.saturating_add_signed(by);
        }
        // Patterns that nobody has any more would make each question about this machine longer.
        if by < 0 {
            self.counts.retain(|count| count.hit > 0 || count.bar > 0);
        }
    }

    fn pattern_entry(&mut self, pattern: PatternId) -> &mut PatternCount {
        // A sorted list and no map: a machine holds few patterns, and they are compared with each unit that
        // knocks.
        let at = match self.counts.binary_search_by_key(&pattern, |count| count.pattern) {
            Ok(at) => at,
            Err(at) => {
                self.counts.insert(at, PatternCount { pattern, hit: 0, bar: 0 });
                at
            }
        };
        &mut self.counts[at]
    }

    fn find_pattern(&self, pattern: PatternId) -> Option<PatternCount> {
        self.counts.binary_search_by_key(&pattern, |count| count.pattern).ok().map(|at| self.counts[at])
    }

    fn bars_unit(&self, unit: &UnitEntry) -> bool {
        !self.counts.is_empty()
            && (unit
                .avoids
                .iter()
                .any(|&pattern| self.find_pattern(pattern).is_some_and(|count| count.hit > 0))
                || unit
                    .hits
                    .iter()
                    .any(|&pattern| self.find_pattern(pattern).is_some_and(|count| count.bar > 0)))
    }

    fn has_room(&self, unit: &UnitEntry) -> bool {
        if self.machine.max_units.is_some_and(|most| self.load >= most) {
            return false;
        }
        let Some(capacity) = self.machine.capacity else { return true };
        let asked = unit.requirements.reserve;
        let fits = |asked: u64, used: u64, all: u64| asked == 0 || used.saturating_add(asked) <= all;
        fits(asked.memory_mib, self.used.memory_mib, capacity.memory_mib)
            && fits(asked.cpu_percent, self.used.cpu_percent, capacity.cpu_percent)
    }
}

/// The machines of one load.
#[derive(Debug, Default)]
struct LoadBucket {
    machines: BitSet,
    count: usize,
}

/// Every machine that ever held or could hold a unit.
#[derive(Debug, Default)]
pub(super) struct MachineTable {
    entries: Vec<MachineEntry>,
    indices: BTreeMap<MachineId, MachineIndex>,
    /// The indices in the order of IDs.
    // Sets hold the positions in this order, so the first bit is the smallest ID.
    order: Vec<MachineIndex>,
    /// Those that take newcomers, room apart: present, and not being emptied.
    open: BitSet,
    // One set of bits for each load. A queue by load was here first: what nobody asked for lagged behind by
    // up to all machines, and the next decision paid for it (181 us, now 13 us for one unit among 5000
    // machines).
    levels: BTreeMap<u32, LoadBucket>,
    /// The present machines by key and value of their metadata.
    values: HashMap<String, BTreeMap<String, Vec<MachineIndex>>>,
    present: usize,
    /// Another number whenever a machine is another one than before, load and guests apart.
    state: u64,
}

impl MachineTable {
    pub(super) fn index_of(&self, id: &MachineId) -> Option<MachineIndex> {
        self.indices.get(id).copied()
    }

    /// The index of a machine; one that is not known stands in the books as lost.
    pub(super) fn index_or_lost(&mut self, id: &MachineId, shapes: &mut impl ShapeIndex) -> MachineIndex {
        if let Some(index) = self.index_of(id) {
            return index;
        }
        let index = MachineIndex::at(self.entries.len());
        let next = self.indices.range(id.clone()..).next().map(|(_, &next)| self.sorted_position(next));
        let position = next.unwrap_or(self.order.len());
        self.entries.push(MachineEntry {
            machine: Machine::new(id.clone()),
            position,
            present: false,
            load: 0,
            used: Resources::default(),
            guests: Vec::new(),
            globals: Vec::new(),
            lacks_globals: false,
            counts: Vec::new(),
        });
        self.indices.insert(id.clone(), index);
        self.make_room(position, shapes);
        self.order.insert(position, index);
        self.enter_level(index);
        index
    }

    fn make_room(&mut self, position: usize, shapes: &mut impl ShapeIndex) {
        for &behind in &self.order[position..] {
            self.entries[behind.as_usize()].position += 1;
        }
        self.levels.values_mut().for_each(|level| level.machines.make_room(position));
        self.open.make_room(position);
        shapes.make_room(position);
        self.state += 1;
    }

    fn enter_level(&mut self, index: MachineIndex) {
        let entry = &self.entries[index.as_usize()];
        let level = self.levels.entry(entry.load).or_default();
        level.machines.set_member(entry.position, true);
        level.count += 1;
    }

    fn leave_level(&mut self, index: MachineIndex, load: u32) {
        let Some(level) = self.levels.get_mut(&load) else { return };
        level.machines.set_member(self.entries[index.as_usize()].position, false);
        level.count -= 1;
        if level.count == 0 {
            self.levels.remove(&load);
        }
    }

    /// Changes who is on a machine, and with that its load.
    fn change_guests<T>(&mut self, index: MachineIndex, act: impl FnOnce(&mut MachineEntry) -> T) -> T {
        let entry = &mut self.entries[index.as_usize()];
        let before = entry.load;
        let outcome = act(entry);
        if entry.load != before {
            self.leave_level(index, before);
            self.enter_level(index);
        }
        outcome
    }

    pub(super) fn set_machine(&mut self, machine: &Machine, shapes: &mut impl ShapeIndex) -> MachineIndex {
        let index = self.index_or_lost(&machine.id, shapes);
        let entry = &mut self.entries[index.as_usize()];
        if entry.present && entry.machine == *machine {
            return index;
        }
        if !entry.guests.is_empty() && entry.machine.metadata != machine.metadata {
            shapes.forget_spread();
        }
        self.withdraw_machine(index);
        let entry = &mut self.entries[index.as_usize()];
        entry.present = true;
        entry.machine = machine.clone();
        self.open.set_member(entry.position, !machine.draining);
        for (key, value) in &machine.metadata {
            self.values.entry(key.clone()).or_default().entry(value.clone()).or_default().push(index);
        }
        self.present += 1;
        index
    }

    pub(super) fn mark_lost(&mut self, id: &MachineId) -> Option<MachineIndex> {
        let index = self.index_of(id).filter(|&index| self.is_present(index))?;
        self.withdraw_machine(index);
        Some(index)
    }

    /// Takes a machine out of everything that is asked of present ones.
    fn withdraw_machine(&mut self, index: MachineIndex) {
        self.state += 1;
        let entry = &mut self.entries[index.as_usize()];
        if !std::mem::take(&mut entry.present) {
            return;
        }
        self.present -= 1;
        self.open.set_member(entry.position, false);
        for (key, value) in &entry.machine.metadata {
            let Some(values) = self.values.get_mut(key) else { continue };
            let Some(having) = values.get_mut(value) else { continue };
            having.retain(|&other| other != index);
            if having.is_empty() {
                values.remove(value);
            }
        }
    }

    /// Another number whenever a machine is another one than before, load and guests apart.
    pub(super) fn change_number(&self) -> u64 {
        self.state
    }

    /// The machines that take newcomers, room apart.
    pub(super) fn open_machines(&self) -> &BitSet {
        &self.open
    }

    /// The values that present machines have of a key.
    pub(super) fn metadata_values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.values.get(key).into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    /// The present machines that have this value of a key.
    pub(super) fn machines_having(&self, key: &str, value: &str) -> BitSet {
        let mut having = BitSet::default();
        let indices = self.values.get(key).and_then(|values| values.get(value));
        indices.into_iter().flatten().for_each(|&index| having.set_member(self.sorted_position(index), true));
        having
    }

    /// Of these machines the least loaded first, and of equals the one of the smallest ID.
    pub(super) fn by_load<'a>(&'a self, among: &'a BitSet) -> impl Iterator<Item = MachineIndex> + 'a {
        self.levels
            .values()
            .flat_map(|level| level.machines.iter_common(among))
            .map(|position| self.order[position])
    }

    pub(super) fn machine_id(&self, index: MachineIndex) -> &MachineId {
        &self.entries[index.as_usize()].machine.id
    }

    pub(super) fn machine_at(&self, index: MachineIndex) -> &Machine {
        &self.entries[index.as_usize()].machine
    }

    pub(super) fn is_present(&self, index: MachineIndex) -> bool {
        self.entries[index.as_usize()].present
    }

    pub(super) fn present_count(&self) -> usize {
        self.present
    }

    pub(super) fn all_present(&self) -> impl Iterator<Item = MachineIndex> {
        self.indices.values().copied().filter(|&index| self.is_present(index))
    }

    pub(super) fn lost_machines(&self) -> impl Iterator<Item = (&MachineId, usize)> {
        self.indices.iter().filter_map(|(id, &index)| {
            let entry = &self.entries[index.as_usize()];
            (!entry.present && !entry.guests.is_empty()).then_some((id, entry.guests.len()))
        })
    }

    /// The machines a `MachineID=` names: one by its full ID, any number by the short one.
    pub(super) fn machines_named(&self, required: &str) -> Vec<MachineIndex> {
        self.indices
            .range::<str, _>((Bound::Included(required), Bound::Unbounded))
            .take_while(|(id, _)| id.as_str().starts_with(required))
            .filter(|(id, _)| id.is_named_by(required))
            .map(|(_, &index)| index)
            .collect()
    }

    pub(super) fn machine_load(&self, index: MachineIndex) -> u32 {
        self.entries[index.as_usize()].load
    }

    /// The place of a machine among all, in the order of IDs.
    pub(super) fn sorted_position(&self, index: MachineIndex) -> usize {
        self.entries[index.as_usize()].position
    }

    pub(super) fn used_resources(&self, index: MachineIndex) -> Resources {
        self.entries[index.as_usize()].used
    }

    /// Whether the guests of a machine and a unit cannot live together.
    pub(super) fn is_barred(&self, index: MachineIndex, unit: &UnitEntry) -> bool {
        self.entries[index.as_usize()].bars_unit(unit)
    }

    /// Whether a machine can take a unit, metadata apart.
    pub(super) fn is_able(&self, index: MachineIndex, unit: &UnitEntry) -> bool {
        let entry = &self.entries[index.as_usize()];
        entry.present && entry.has_room(unit) && !entry.bars_unit(unit)
    }

    pub(super) fn has_room(&self, index: MachineIndex, unit: &UnitEntry) -> bool {
        self.entries[index.as_usize()].has_room(unit)
    }

    pub(super) fn placed_units(&self, index: MachineIndex) -> impl Iterator<Item = UnitIndex> {
        self.entries[index.as_usize()].guests.iter().copied()
    }

    pub(super) fn global_units(&self, index: MachineIndex) -> &[UnitIndex] {
        &self.entries[index.as_usize()].globals
    }

    pub(super) fn take_in(&mut self, index: MachineIndex, unit: UnitIndex, entry: &UnitEntry) {
        self.change_guests(index, |machine| {
            machine.guests.push(unit);
            machine.count_guest(entry, 1);
        });
    }

    pub(super) fn let_go(&mut self, index: MachineIndex, unit: UnitIndex, entry: &UnitEntry) {
        self.change_guests(index, |machine| {
            machine.guests.retain(|&guest| guest != unit);
            machine.count_guest(entry, -1);
        });
    }

    /// Has a machine run these global units instead of those it ran.
    pub(super) fn set_globals(
        &mut self,
        index: MachineIndex,
        units: &impl Index<UnitIndex, Output = UnitEntry>,
        wanted: &[UnitIndex],
    ) {
        self.change_guests(index, |machine| {
            for unit in std::mem::take(&mut machine.globals) {
                machine.count_guest(&units[unit], -1);
            }
            let mut lacks = false;
            for &unit in wanted {
                let entry = &units[unit];
                if machine.bars_unit(entry) {
                    lacks = true;
                } else {
                    machine.count_guest(entry, 1);
                    machine.globals.push(unit);
                }
            }
            machine.lacks_globals = lacks;
        });
    }

    pub(super) fn lacks_globals(&self, index: MachineIndex) -> bool {
        self.entries[index.as_usize()].lacks_globals
    }

    /// A name turned out to be matched by a pattern that came later.
    pub(super) fn add_hit(&mut self, index: MachineIndex, pattern: PatternId) {
        self.entries[index.as_usize()].pattern_entry(pattern).hit += 1;
    }

    pub(super) fn add_global_hits(&mut self, unit: UnitIndex, pattern: PatternId) {
        for entry in self.entries.iter_mut().filter(|entry| entry.globals.contains(&unit)) {
            entry.pattern_entry(pattern).hit += 1;
        }
    }
}
