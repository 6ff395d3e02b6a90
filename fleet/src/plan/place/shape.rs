//! Kinds of units: all that ask the same of a machine share one shape, and what is known about it.
//!
//! Knows which machines suit a shape by what does not change with load (metadata, draining), worked out
//! anew when a machine changes, and which of them were found unable. Invariants: a shape lives as long as
//! a unit has it; a machine that was set aside is told of by [`Shapes::requeue_machine`] when it may be able again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    model::{
        machine::{Machine, Resources},
        requirements::UnitRequirements,
        unit_name::UnitName,
    },
    plan::{
        patterns::PatternId,
        place::{
            bits::BitSet,
            entry::{MachineIndex, ShapeId, ShapeIndex, UnitEntry},
            machines::MachineTable,
        },
    },
};

/// The machines of each value are remembered for keys of no more values than this.
// A key such as `hostname` has a value for each machine. To keep a set of machines for each would cost the
// square of their number.
const MOST_VALUES: usize = 256;

/// All that a unit asks of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ShapeKey {
    machine_id: Option<String>,
    metadata: BTreeMap<String, BTreeSet<String>>,
    peers: BTreeSet<String>,
    avoids: Vec<PatternId>,
    hits: Vec<PatternId>,
    reserve: Resources,
    /// The key to spread over, and the family whose members are counted.
    spread: Option<(String, String)>,
    prefer: Vec<(String, String)>,
}

impl ShapeKey {
    fn new(name: &UnitName, wanted: &UnitRequirements, avoids: &[PatternId], hits: &[PatternId]) -> Self {
        Self {
            machine_id: wanted.machine_id.clone(),
            metadata: wanted.metadata.clone(),
            peers: wanted.peers.clone(),
            avoids: avoids.to_vec(),
            hits: hits.to_vec(),
            reserve: wanted.reserve,
            spread: wanted.spread_by.clone().map(|key| (key, family_key(name))),
            prefer: wanted.prefer.clone(),
        }
    }

    /// The open machines whose metadata is as asked.
    fn suitable_machines(&self, machines: &MachineTable) -> BitSet {
        let mut suiting = machines.open_machines().clone();
        for (key, values) in &self.metadata {
            let mut having = BitSet::default();
            for value in values {
                having.unite_with(&machines.machines_having(key, value));
            }
            suiting.intersect_with(&having);
        }
        suiting
    }
}

/// Units that belong together: the instances of a template, or a unit alone.
pub(super) fn family_key(name: &UnitName) -> String {
    name.template().map_or_else(|| name.as_str().to_owned(), |template| template.as_str().to_owned())
}

#[derive(Debug)]
struct EquivalenceClass {
    key: ShapeKey,
    units: u32,
    /// As which state of the machines the tiers were worked out.
    seen: u64,
    /// The suiting machines: for each wish those that fulfil it, then all.
    tiers: Vec<BitSet>,
    /// Machines that were found unable.
    aside: BitSet,
}

impl EquivalenceClass {
    // Worked out anew only when a machine became another one. Load and guests change with each decision,
    // and are asked machine by machine.
    fn look_at(&mut self, machines: &MachineTable) {
        if self.seen == machines.change_number() {
            return;
        }
        self.seen = machines.change_number();
        let suiting = self.key.suitable_machines(machines);
        let fulfilling = self.key.prefer.iter().map(|(key, value)| {
            let mut fulfilling = machines.machines_having(key, value);
            fulfilling.intersect_with(&suiting);
            fulfilling
        });
        self.tiers = fulfilling.collect();
        // The last tier is everybody: a wish is no condition.
        self.tiers.push(suiting);
    }
}

/// The machines by their value of a key; those without it have the empty value.
#[derive(Debug)]
struct MetadataPartition {
    seen: u64,
    values: Vec<(String, BitSet)>,
}

impl MetadataPartition {
    fn by_key(key: &str, machines: &MachineTable) -> Self {
        let mut rest = machines.open_machines().clone();
        let mut values = Vec::new();
        for value in machines.metadata_values(key) {
            let having = machines.machines_having(key, value);
            rest.subtract_set(&having);
            values.push((value.to_owned(), having));
        }
        values.push((String::new(), rest));
        Self { seen: machines.change_number(), values }
    }

    /// In groups of those that have equally many units, the fewest first.
    fn groups_by_count(&self, counts: Option<&BTreeMap<String, u32>>) -> Vec<BitSet> {
        let mut groups: BTreeMap<u32, BitSet> = BTreeMap::new();
        for (value, having) in &self.values {
            let count = counts.and_then(|counts| counts.get(value)).copied().unwrap_or(0);
            groups.entry(count).or_default().unite_with(having);
        }
        groups.into_values().collect()
    }
}

/// Every shape in use.
#[derive(Debug, Default)]
pub(super) struct ShapeTable {
    table: Vec<Option<EquivalenceClass>>,
    free: Vec<u32>,
    ids: HashMap<ShapeKey, ShapeId>,
    /// The shapes that set a machine aside.
    asides: HashMap<MachineIndex, Vec<ShapeId>>,
    partitions: HashMap<String, MetadataPartition>,
    /// How many units of a family run on machines of each value.
    spread: HashMap<(String, String), BTreeMap<String, u32>>,
    spread_is_stale: bool,
}

impl ShapeTable {
    /// A machine may be able again to do what it was not.
    pub(super) fn requeue_machine(&mut self, index: MachineIndex, machines: &MachineTable) {
        for id in self.asides.remove(&index).into_iter().flatten() {
            if let Some(shape) = self.table[id.0 as usize].as_mut() {
                shape.aside.set_member(machines.sorted_position(index), false);
            }
        }
    }

    pub(super) fn count_spread(&mut self, unit: &UnitEntry, machine: &Machine, by: i32) {
        let Some(shape) = self.table[unit.shape.0 as usize].as_ref() else { return };
        let Some(spread) = &shape.key.spread else { return };
        let value = machine.metadata.get(&spread.0).cloned().unwrap_or_default();
        let counts = self.spread.entry(spread.clone()).or_default();
        let count = counts.entry(value).or_default();
        *count = count.saturating_add_signed(by);
    }

    /// Whether [`Shapes::forget_spread`] was called, once.
    pub(super) fn take_stale_spread(&mut self) -> bool {
        let stale = std::mem::take(&mut self.spread_is_stale);
        if stale {
            self.spread.clear();
        }
        stale
    }

    /// The machine for a unit, of those that `may` have it: the first wish that can be fulfilled counts
    /// most, then the value with the fewest units of the family, then load and ID.
    pub(super) fn best_machine(
        &mut self,
        machines: &MachineTable,
        unit: &UnitEntry,
        may: impl Fn(MachineIndex) -> bool,
    ) -> Option<MachineIndex> {
        let groups = self.spread_groups(unit.shape, machines);
        let shape = self.table[unit.shape.0 as usize].as_mut()?;
        shape.look_at(machines);
        let EquivalenceClass { tiers, aside, .. } = shape;
        let asides = &mut self.asides;
        let mut first_able = |among: &BitSet| {
            let mut candidates = among.clone();
            candidates.subtract_set(aside);
            machines.by_load(&candidates).find(|&index| {
                let able = machines.is_able(index, unit);
                if !able {
                    aside.set_member(machines.sorted_position(index), true);
                    asides.entry(index).or_default().push(unit.shape);
                }
                able && may(index)
            })
        };
        let Some(groups) = groups else { return tiers.iter().find_map(first_able) };
        tiers.iter().find_map(|tier| {
            groups.iter().find_map(|group| {
                let mut among = tier.clone();
                among.intersect_with(group);
                first_able(&among)
            })
        })
    }

    /// The machines to try, one group after the other, if it is spread over a key.
    fn spread_groups(&mut self, id: ShapeId, machines: &MachineTable) -> Option<Vec<BitSet>> {
        let spread = self.table[id.0 as usize].as_ref()?.key.spread.as_ref()?;
        let (key, counts) = (&spread.0, self.spread.get(spread));
        if let Some(partition) =
            self.partitions.get(key).filter(|known| known.seen == machines.change_number())
        {
            return Some(partition.groups_by_count(counts));
        }
        let partition = MetadataPartition::by_key(key, machines);
        let groups = partition.groups_by_count(counts);
        if partition.values.len() <= MOST_VALUES {
            self.partitions.insert(key.clone(), partition);
        }
        Some(groups)
    }
}

impl ShapeIndex for ShapeTable {
    fn hold_shape(&mut self, unit: &UnitEntry) -> ShapeId {
        let key = ShapeKey::new(&unit.name, &unit.requirements, &unit.avoids, &unit.hits);
        if let Some(&id) = self.ids.get(&key) {
            if let Some(shape) = &mut self.table[id.0 as usize] {
                shape.units += 1;
            }
            return id;
        }
        let shape = Some(EquivalenceClass {
            key: key.clone(),
            units: 1,
            seen: 0,
            tiers: Vec::new(),
            aside: BitSet::default(),
        });
        let id = if let Some(free) = self.free.pop() {
            self.table[free as usize] = shape;
            ShapeId(free)
        } else {
            self.table.push(shape);
            ShapeId(u32::try_from(self.table.len() - 1).unwrap_or(u32::MAX))
        };
        self.ids.insert(key, id);
        id
    }

    fn release_shape(&mut self, id: ShapeId) {
        let Some(shape) = self.table[id.0 as usize].as_mut() else { return };
        shape.units -= 1;
        if shape.units > 0 {
            return;
        }
        if let Some(shape) = self.table[id.0 as usize].take() {
            self.ids.remove(&shape.key);
        }
        self.free.push(id.0);
    }

    fn make_room(&mut self, position: usize) {
        self.table.iter_mut().flatten().for_each(|shape| shape.aside.make_room(position));
    }

    fn forget_spread(&mut self) {
        self.spread_is_stale = true;
    }
}
