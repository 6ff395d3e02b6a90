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
            entry::{MachineSlot, ShapeIndex, UnitEntry, UnitSlot},
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
    guests: Vec<UnitSlot>,
    globals: Vec<UnitSlot>,
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
        if by < 0 {
            self.counts.retain(|count| count.hit > 0 || count.bar > 0);
        }
    }

    fn pattern_entry(&mut self, pattern: PatternId) -> &mut PatternCount {
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
    slots: BTreeMap<MachineId, MachineSlot>,
    /// The slots in the order of IDs.
    order: Vec<MachineSlot>,
    /// Those that take newcomers, room apart: present, and not being emptied.
    open: BitSet,
    levels: BTreeMap<u32, LoadBucket>,
    /// The present machines by key and value of their metadata.
    values: HashMap<String, BTreeMap<String, Vec<MachineSlot>>>,
    present: usize,
    /// Another number whenever a machine is another one than before, load and guests apart.
    state: u64,
}

impl MachineTable {
    pub(super) fn index_of(&self, id: &MachineId) -> Option<MachineSlot> {
        self.slots.get(id).copied()
    }

    /// The slot of a machine; one that is not known stands in the books as lost.
    pub(super) fn slot_or_lost(&mut self, id: &MachineId, shapes: &mut impl ShapeIndex) -> MachineSlot {
        if let Some(slot) = self.index_of(id) {
            return slot;
        }
        let slot = MachineSlot::try_from(self.entries.len()).unwrap_or(MachineSlot::MAX);
        let next = self.slots.range(id.clone()..).next().map(|(_, &next)| self.position(next));
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
        self.slots.insert(id.clone(), slot);
        self.make_room(position, shapes);
        self.order.insert(position, slot);
        self.enter_level(slot);
        slot
    }

    fn make_room(&mut self, position: usize, shapes: &mut impl ShapeIndex) {
        for &behind in &self.order[position..] {
            self.entries[behind as usize].position += 1;
        }
        self.levels.values_mut().for_each(|level| level.machines.make_room(position));
        self.open.make_room(position);
        shapes.make_room(position);
        self.state += 1;
    }

    fn enter_level(&mut self, slot: MachineSlot) {
        let entry = &self.entries[slot as usize];
        let level = self.levels.entry(entry.load).or_default();
        level.machines.set_member(entry.position, true);
        level.count += 1;
    }

    fn leave_level(&mut self, slot: MachineSlot, load: u32) {
        let Some(level) = self.levels.get_mut(&load) else { return };
        level.machines.set_member(self.entries[slot as usize].position, false);
        level.count -= 1;
        if level.count == 0 {
            self.levels.remove(&load);
        }
    }

    /// Changes who is on a machine, and with that its load.
    fn change_guests<T>(&mut self, slot: MachineSlot, act: impl FnOnce(&mut MachineEntry) -> T) -> T {
        let entry = &mut self.entries[slot as usize];
        let before = entry.load;
        let outcome = act(entry);
        if entry.load != before {
            self.leave_level(slot, before);
            self.enter_level(slot);
        }
        outcome
    }

    pub(super) fn set_machine(&mut self, machine: &Machine, shapes: &mut impl ShapeIndex) -> MachineSlot {
        let slot = self.slot_or_lost(&machine.id, shapes);
        let entry = &mut self.entries[slot as usize];
        if entry.present && entry.machine == *machine {
            return slot;
        }
        if !entry.guests.is_empty() && entry.machine.metadata != machine.metadata {
            shapes.forget_spread();
        }
        self.withdraw_machine(slot);
        let entry = &mut self.entries[slot as usize];
        entry.present = true;
        entry.machine = machine.clone();
        self.open.set_member(entry.position, !machine.draining);
        for (key, value) in &machine.metadata {
            self.values.entry(key.clone()).or_default().entry(value.clone()).or_default().push(slot);
        }
        self.present += 1;
        slot
    }

    pub(super) fn mark_lost(&mut self, id: &MachineId) -> Option<MachineSlot> {
        let slot = self.index_of(id).filter(|&slot| self.is_present(slot))?;
        self.withdraw_machine(slot);
        Some(slot)
    }

    /// Takes a machine out of everything that is asked of present ones.
    fn withdraw_machine(&mut self, slot: MachineSlot) {
        self.state += 1;
        let entry = &mut self.entries[slot as usize];
        if !std::mem::take(&mut entry.present) {
            return;
        }
        self.present -= 1;
        self.open.set_member(entry.position, false);
        for (key, value) in &entry.machine.metadata {
            let Some(values) = self.values.get_mut(key) else { continue };
            let Some(having) = values.get_mut(value) else { continue };
            having.retain(|&other| other != slot);
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
        let slots = self.values.get(key).and_then(|values| values.get(value));
        slots.into_iter().flatten().for_each(|&slot| having.set_member(self.position(slot), true));
        having
    }

    /// Of these machines the least loaded first, and of equals the one of the smallest ID.
    pub(super) fn by_load<'a>(&'a self, among: &'a BitSet) -> impl Iterator<Item = MachineSlot> + 'a {
        self.levels
            .values()
            .flat_map(|level| level.machines.iter_common(among))
            .map(|position| self.order[position])
    }

    pub(super) fn id(&self, slot: MachineSlot) -> &MachineId {
        &self.entries[slot as usize].machine.id
    }

    pub(super) fn machine(&self, slot: MachineSlot) -> &Machine {
        &self.entries[slot as usize].machine
    }

    pub(super) fn is_present(&self, slot: MachineSlot) -> bool {
        self.entries[slot as usize].present
    }

    pub(super) fn present_count(&self) -> usize {
        self.present
    }

    pub(super) fn all_present(&self) -> impl Iterator<Item = MachineSlot> {
        self.slots.values().copied().filter(|&slot| self.is_present(slot))
    }

    pub(super) fn lost_machines(&self) -> impl Iterator<Item = (&MachineId, usize)> {
        self.slots.iter().filter_map(|(id, &slot)| {
            let entry = &self.entries[slot as usize];
            (!entry.present && !entry.guests.is_empty()).then_some((id, entry.guests.len()))
        })
    }

    /// The machines a `MachineID=` names: one by its full ID, any number by the short one.
    pub(super) fn machines_named(&self, required: &str) -> Vec<MachineSlot> {
        self.slots
            .range::<str, _>((Bound::Included(required), Bound::Unbounded))
            .take_while(|(id, _)| id.as_str().starts_with(required))
            .filter(|(id, _)| id.is_named_by(required))
            .map(|(_, &slot)| slot)
            .collect()
    }

    pub(super) fn load(&self, slot: MachineSlot) -> u32 {
        self.entries[slot as usize].load
    }

    /// The place of a machine among all, in the order of IDs.
    pub(super) fn position(&self, slot: MachineSlot) -> usize {
        self.entries[slot as usize].position
    }

    pub(super) fn used_resources(&self, slot: MachineSlot) -> Resources {
        self.entries[slot as usize].used
    }

    /// Whether the guests of a machine and a unit cannot live together.
    pub(super) fn is_barred(&self, slot: MachineSlot, unit: &UnitEntry) -> bool {
        self.entries[slot as usize].bars_unit(unit)
    }

    /// Whether a machine can take a unit, metadata apart.
    pub(super) fn is_able(&self, slot: MachineSlot, unit: &UnitEntry) -> bool {
        let entry = &self.entries[slot as usize];
        entry.present && entry.has_room(unit) && !entry.bars_unit(unit)
    }

    pub(super) fn has_room(&self, slot: MachineSlot, unit: &UnitEntry) -> bool {
        self.entries[slot as usize].has_room(unit)
    }

    pub(super) fn guests(&self, slot: MachineSlot) -> impl Iterator<Item = UnitSlot> {
        self.entries[slot as usize].guests.iter().copied()
    }

    pub(super) fn globals(&self, slot: MachineSlot) -> &[UnitSlot] {
        &self.entries[slot as usize].globals
    }

    pub(super) fn take_in(&mut self, slot: MachineSlot, unit: UnitSlot, entry: &UnitEntry) {
        self.change_guests(slot, |machine| {
            machine.guests.push(unit);
            machine.count_guest(entry, 1);
        });
    }

    pub(super) fn let_go(&mut self, slot: MachineSlot, unit: UnitSlot, entry: &UnitEntry) {
        self.change_guests(slot, |machine| {
            machine.guests.retain(|&guest| guest != unit);
            machine.count_guest(entry, -1);
        });
    }

    /// Has a machine run these global units instead of those it ran.
    pub(super) fn set_globals(
        &mut self,
        slot: MachineSlot,
        units: &impl Index<UnitSlot, Output = UnitEntry>,
        wanted: &[UnitSlot],
    ) {
        self.change_guests(slot, |machine| {
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

    pub(super) fn lacks_globals(&self, slot: MachineSlot) -> bool {
        self.entries[slot as usize].lacks_globals
    }

    /// A name turned out to be matched by a pattern that came later.
    pub(super) fn add_hit(&mut self, slot: MachineSlot, pattern: PatternId) {
        self.entries[slot as usize].pattern_entry(pattern).hit += 1;
    }

    pub(super) fn add_global_hits(&mut self, unit: UnitSlot, pattern: PatternId) {
        for entry in self.entries.iter_mut().filter(|entry| entry.globals.contains(&unit)) {
            entry.pattern_entry(pattern).hit += 1;
        }
    }
}
