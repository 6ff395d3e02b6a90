//! Kinds of units: all that ask the same of a machine share one shape, and one queue of machines.
//!
//! Knows which machines suit a shape by what does not change with load: identity, metadata, draining.
//! Invariant: a shape lives as long as a unit has it, and its queues no longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    model::{
        machine::{Machine, Resources},
        requirements::Requirements,
        unit_name::UnitName,
    },
    plan::{
        patterns::PatternId,
        place::index::{Machines, ShapeId, Shaping, UnitEntry},
        pool::{Candidates, MachineSlot, Pool},
    },
};

/// More queues than this would cost more to keep than they save: the rest scan all machines.
const MOST_POOLS: usize = 256;
/// A key with more values than this is spread by a scan.
const MOST_VALUES: usize = 32;

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
    fn new(name: &UnitName, wanted: &Requirements, avoids: &[PatternId], hits: &[PatternId]) -> Self {
        Self {
            machine_id: wanted.machine_id.clone(),
            metadata: wanted.metadata.clone(),
            peers: wanted.peers.clone(),
            avoids: avoids.to_vec(),
            hits: hits.to_vec(),
            reserve: wanted.reserve,
            spread: wanted.spread_by.clone().map(|key| (key, family(name))),
            prefer: wanted.prefer.clone(),
        }
    }

    fn suits(&self, machine: &Machine) -> bool {
        !machine.draining
            && self.machine_id.as_ref().is_none_or(|required| machine.id.is_named_by(required))
            && self
                .metadata
                .iter()
                .all(|(key, values)| machine.metadata.get(key).is_some_and(|value| values.contains(value)))
    }

    /// The place of a machine among the wishes: the first one it fulfils.
    fn tier(&self, machine: &Machine) -> usize {
        self.prefer
            .iter()
            .position(|(key, value)| machine.metadata.get(key) == Some(value))
            .unwrap_or(self.prefer.len())
    }
}

/// Units that belong together: the instances of a template, or a unit alone.
pub(super) fn family(name: &UnitName) -> String {
    name.template().map_or_else(|| name.as_str().to_owned(), |template| template.as_str().to_owned())
}

/// Narrows a shape to machines of one value of a key; an absent key has the empty value.
type Narrowing = Vec<(String, String)>;

#[derive(Debug)]
struct Shape {
    key: ShapeKey,
    units: u32,
    pools: Vec<(Narrowing, Pool)>,
}

impl Shape {
    fn suits(&self, narrowing: &Narrowing, machine: &Machine) -> bool {
        self.key.suits(machine) && narrowing.iter().all(|(key, value)| value_of(machine, key) == value)
    }
}

fn value_of<'a>(machine: &'a Machine, key: &str) -> &'a str {
    machine.metadata.get(key).map_or("", String::as_str)
}

/// Every shape in use.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    table: Vec<Option<Shape>>,
    free: Vec<u32>,
    ids: HashMap<ShapeKey, ShapeId>,
    pooled: BTreeSet<ShapeId>,
    pools: usize,
    /// How many present machines have each value of each key that is spread over, or could be.
    values: HashMap<String, BTreeMap<String, u32>>,
    /// How many units of a family run on machines of each value.
    spread: HashMap<(String, String), BTreeMap<String, u32>>,
    spread_is_stale: bool,
}

struct Crowd<'a> {
    machines: &'a Machines,
    unit: &'a UnitEntry,
}

impl Candidates for Crowd<'_> {
    fn load(&self, machine: MachineSlot) -> u32 {
        self.machines.load(machine)
    }

    fn rank(&self, machine: MachineSlot) -> u64 {
        self.machines.rank(machine)
    }

    fn is_able(&self, machine: MachineSlot) -> bool {
        self.machines.is_able(machine, self.unit)
    }
}

struct Loads<'a>(&'a Machines);

impl Candidates for Loads<'_> {
    fn load(&self, machine: MachineSlot) -> u32 {
        self.0.load(machine)
    }

    fn rank(&self, machine: MachineSlot) -> u64 {
        self.0.rank(machine)
    }

    fn is_able(&self, _: MachineSlot) -> bool {
        true
    }
}

impl Shapes {
    /// A machine came or says something else of itself.
    pub(super) fn admit(&mut self, slot: MachineSlot, machines: &Machines) {
        let machine = machines.machine(slot);
        for id in &self.pooled {
            let Some(shape) = self.table[id.0 as usize].as_mut() else { continue };
            let mut pools = std::mem::take(&mut shape.pools);
            for (narrowing, pool) in &mut pools {
                if shape.suits(narrowing, machine) {
                    pool.admit(slot, &Loads(machines));
                } else {
                    pool.expel(slot);
                }
            }
            shape.pools = pools;
        }
    }

    /// A machine went.
    pub(super) fn expel(&mut self, slot: MachineSlot, machine: &Machine) {
        self.count_values(machine, -1);
        self.each_pool(|pool| pool.expel(slot));
    }

    /// A machine holds less than before.
    pub(super) fn requeue(&mut self, slot: MachineSlot, machines: &Machines) {
        self.each_pool(|pool| pool.requeue(slot, &Loads(machines)));
    }

    fn each_pool(&mut self, mut act: impl FnMut(&mut Pool)) {
        for id in &self.pooled {
            let Some(shape) = self.table[id.0 as usize].as_mut() else { continue };
            shape.pools.iter_mut().for_each(|(_, pool)| act(pool));
        }
    }

    pub(super) fn count_spread(&mut self, unit: &UnitEntry, machine: &Machine, by: i32) {
        let Some(shape) = self.table[unit.shape.0 as usize].as_ref() else { return };
        let Some(spread) = &shape.key.spread else { return };
        let value = value_of(machine, &spread.0).to_owned();
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

    /// The machine for a unit that is bound to none.
    pub(super) fn best(&mut self, machines: &Machines, unit: &UnitEntry) -> Option<MachineSlot> {
        let shape = self.table[unit.shape.0 as usize].as_ref()?;
        if shape.key.spread.is_none() && shape.key.prefer.is_empty() {
            return self.best_in(machines, unit, &Narrowing::new());
        }
        let values = shape.key.spread.as_ref().and_then(|(key, _)| self.values.get(key));
        if values.is_some_and(|values| values.len() > MOST_VALUES) {
            return self.scan(machines, unit, &Narrowing::new());
        }
        let wishes = shape.key.prefer.clone();
        let groups = self.spread_groups(unit.shape);
        wishes.into_iter().map(Some).chain([None]).find_map(|wish| {
            groups.iter().find_map(|group| self.best_of_group(machines, unit, wish.as_ref(), group))
        })
    }

    fn best_of_group(
        &mut self,
        machines: &Machines,
        unit: &UnitEntry,
        wish: Option<&(String, String)>,
        group: &[Narrowing],
    ) -> Option<MachineSlot> {
        let bests = group.iter().filter_map(|narrowing| {
            let narrowing: Narrowing = narrowing.iter().chain(wish).cloned().collect();
            self.best_in(machines, unit, &narrowing)
        });
        bests.min_by_key(|&slot| (machines.load(slot), machines.rank(slot)))
    }

    /// The values to try, in groups of those that have equally many units of the family.
    fn spread_groups(&self, id: ShapeId) -> Vec<Vec<Narrowing>> {
        let shape = self.table[id.0 as usize].as_ref();
        let Some((key, family)) = shape.and_then(|shape| shape.key.spread.as_ref()) else {
            return vec![vec![Narrowing::new()]];
        };
        let counts = self.spread.get(&(key.clone(), family.clone()));
        let mut groups: BTreeMap<u32, Vec<Narrowing>> = BTreeMap::new();
        let named = self.values.get(key).into_iter().flat_map(BTreeMap::keys).map(String::as_str);
        for value in named.chain([""]) {
            let count = counts.and_then(|counts| counts.get(value)).copied().unwrap_or(0);
            groups.entry(count).or_default().push(vec![(key.clone(), value.to_owned())]);
        }
        groups.into_values().collect()
    }

    fn best_in(
        &mut self,
        machines: &Machines,
        unit: &UnitEntry,
        narrowing: &Narrowing,
    ) -> Option<MachineSlot> {
        let shape = self.table[unit.shape.0 as usize].as_mut()?;
        let crowd = Crowd { machines, unit };
        if let Some((_, pool)) = shape.pools.iter_mut().find(|(narrowed, _)| narrowed == narrowing) {
            return pool.best(&crowd);
        }
        if self.pools >= MOST_POOLS {
            return self.scan(machines, unit, narrowing);
        }
        let mut pool = Pool::default();
        for slot in machines.all_present().filter(|&slot| shape.suits(narrowing, machines.machine(slot))) {
            pool.admit(slot, &crowd);
        }
        let best = pool.best(&crowd);
        shape.pools.push((narrowing.clone(), pool));
        self.pools += 1;
        self.pooled.insert(unit.shape);
        best
    }

    fn scan(&self, machines: &Machines, unit: &UnitEntry, narrowing: &Narrowing) -> Option<MachineSlot> {
        let shape = self.table[unit.shape.0 as usize].as_ref()?;
        machines
            .all_present()
            .filter(|&slot| shape.suits(narrowing, machines.machine(slot)) && machines.is_able(slot, unit))
            .min_by_key(|&slot| {
                let machine = machines.machine(slot);
                let spread = self.spread_count(&shape.key, machine);
                (shape.key.tier(machine), spread, machines.load(slot), machines.rank(slot))
            })
    }

    fn spread_count(&self, key: &ShapeKey, machine: &Machine) -> u32 {
        let Some(spread) = &key.spread else { return 0 };
        let counts = self.spread.get(spread);
        counts.and_then(|counts| counts.get(value_of(machine, &spread.0))).copied().unwrap_or(0)
    }
}

impl Shaping for Shapes {
    fn hold(&mut self, unit: &UnitEntry) -> ShapeId {
        let key = ShapeKey::new(&unit.name, &unit.requirements, &unit.avoids, &unit.hits);
        if let Some(&id) = self.ids.get(&key) {
            if let Some(shape) = &mut self.table[id.0 as usize] {
                shape.units += 1;
            }
            return id;
        }
        let shape = Some(Shape { key: key.clone(), units: 1, pools: Vec::new() });
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

    fn release(&mut self, id: ShapeId) {
        let Some(shape) = self.table[id.0 as usize].as_mut() else { return };
        shape.units -= 1;
        if shape.units > 0 {
            return;
        }
        if let Some(shape) = self.table[id.0 as usize].take() {
            self.pools -= shape.pools.len();
            self.ids.remove(&shape.key);
        }
        self.pooled.remove(&id);
        self.free.push(id.0);
    }

    fn count_values(&mut self, machine: &Machine, by: i32) {
        for (key, value) in &machine.metadata {
            let values = self.values.entry(key.clone()).or_default();
            let count = values.entry(value.clone()).or_default();
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                values.remove(value);
            }
        }
    }

    fn forget_spread(&mut self) {
        self.spread_is_stale = true;
    }

    fn forget_pools(&mut self) {
        for id in &self.pooled {
            if let Some(shape) = self.table[id.0 as usize].as_mut() {
                shape.pools.clear();
            }
        }
        self.pooled.clear();
        self.pools = 0;
    }
}
