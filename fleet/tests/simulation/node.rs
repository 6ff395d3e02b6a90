//! A machine: engine and agent as they are, processes and power pretended.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleet::{
    engine::writes as engine_writes,
    model::{
        machine::{Machine, MachineId, Resources, parse_metadata},
        moment::MonotonicTime,
        state::JobState,
        unit_name::UnitName,
    },
    plan::{
        converge::{ClusterConverger, SafetyLimits},
        machine_units::ActualUnit,
        reconcile::{MachineAssignments, plan_batch},
    },
    store::{
        keys::{DEFAULT_PREFIX, KeySpace, StoreKey},
        picture::ClusterView,
        records::{PresenceRecord, StateRecord},
        registry::ClusterChange,
        revision::Revision,
        writes::{self, StoreWrite},
    },
};

use crate::{dice::Dice, store::Store};

pub(crate) const TTL: Duration = Duration::from_secs(10);

/// One machine: what its fleetd knows, and what its systemd runs.
#[expect(clippy::struct_excessive_bools, reason = "each can be true without the others")]
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) id: MachineId,
    machine: Machine,
    boot: u32,
    pub(crate) powered: bool,
    /// Whether it reaches the store.
    pub(crate) linked: bool,
    pub(crate) frozen_until: MonotonicTime,
    pub(crate) renewed: MonotonicTime,
    registered: bool,
    pub(crate) picture: ClusterView,
    heard: bool,
    duties: MachineAssignments,
    mind: Option<(ClusterConverger, Revision)>,
    pub(crate) running: BTreeMap<UnitName, ActualUnit>,
    /// The units that systemd's own guard stops when it is not wound up in time.
    guarded: BTreeSet<UnitName>,
    /// Units on their way out, and when the agent hears that they are down.
    leaving: BTreeMap<UnitName, MonotonicTime>,
    steady_since: MonotonicTime,
    /// How far its clock is ahead of the store's.
    pub(crate) ahead: Duration,
    told: BTreeMap<UnitName, Vec<u8>>,
}

impl Node {
    pub(crate) fn new(number: usize, dice: &mut Dice) -> Self {
        let id = MachineId::parse(&format!("m{number:03}")).unwrap();
        let machine = Machine {
            metadata: parse_metadata(&format!("zone=z{}", number % 3)),
            capacity: dice.chance(30).then_some(Resources { memory_mib: 1000, cpu_percent: 0 }),
            ..Machine::new(id.clone())
        };
        Self {
            number,
            duties: MachineAssignments::of_machine(id.clone()),
            id,
            machine,
            boot: 0,
            powered: true,
            linked: true,
            frozen_until: MonotonicTime::START,
            renewed: MonotonicTime::START,
            registered: false,
            picture: ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX)),
            heard: false,
            mind: None,
            running: BTreeMap::new(),
            guarded: BTreeSet::new(),
            leaving: BTreeMap::new(),
            steady_since: MonotonicTime::START,
            ahead: Duration::from_secs(dice.roll(1000) as u64),
            told: BTreeMap::new(),
        }
    }

    /// What its own clock says. It never goes back, but runs up to a twentieth fast or slow, and jumps.
    pub(crate) fn clock(&self, now: MonotonicTime) -> MonotonicTime {
        let percent = 95 + u32::try_from(self.number * 3 % 11).unwrap();
        MonotonicTime::START + self.ahead + now.duration_since(MonotonicTime::START) * percent / 100
    }

    pub(crate) fn awake(&self, now: MonotonicTime) -> bool {
        self.powered && self.frozen_until <= now
    }

    /// Its processes end; with the power, units end too.
    pub(crate) fn restart(&mut self, power_cut: bool) {
        if power_cut {
            self.running.clear();
            self.guarded.clear();
            self.leaving.clear();
            self.boot += 1;
        }
        // The journal says of what was leaving that it has to be started again if it is wanted.
        for (unit, _) in std::mem::take(&mut self.leaving) {
            if let Some(held) = self.running.get_mut(&unit) {
                held.job = JobState::Loaded;
            }
        }
        self.picture = ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX));
        self.duties = MachineAssignments::of_machine(self.id.clone());
        self.heard = false;
        self.registered = false;
        self.mind = None;
        self.told.clear();
    }

    /// Hears what happened since it last did, or everything if that is gone.
    pub(crate) fn listen(&mut self, store: &Store, now: MonotonicTime) {
        if !(self.linked && store.up) {
            self.heard = false;
            return;
        }
        let mut changes = Vec::new();
        let last = self.picture.cluster().revision;
        if last == Revision::NEVER || last < store.compacted {
            assert!(self.picture.reset_to(&store.everything(), store.revision).is_empty());
            changes.push(ClusterChange::Everything);
        } else {
            for event in store.since(last) {
                self.picture.apply_event(event, &mut changes).unwrap();
            }
            self.picture.advance_to(store.revision);
        }
        if !std::mem::replace(&mut self.heard, true) {
            self.steady_since = now;
            if let Some((mind, _)) = &mut self.mind {
                mind.note_interruption(now);
            }
        }
        for change in &changes {
            self.duties.observe_change(self.picture.cluster(), change);
            if let Some((mind, _)) = &mut self.mind {
                mind.observe_change(self.picture.cluster(), change, now);
            }
        }
    }

    pub(crate) fn keep_lease(&mut self, store: &mut Store, now: MonotonicTime) {
        if !(self.linked && store.up) {
            return;
        }
        let lease = 2 * self.number;
        let clock = self.clock(now);
        if self.registered && store.leases.contains_key(&lease) {
            store.leases.insert(lease, now + TTL);
            self.renewed = clock;
            return;
        }
        store.leases.insert(lease, now + TTL);
        self.renewed = clock;
        let record = PresenceRecord { machine: self.machine.clone(), boot: self.boot.to_string() };
        let write = StoreWrite { when: Vec::new(), then: vec![writes::presence_operation(&record)] };
        self.registered = store.commit(&write, self.number) == Some(true);
        self.listen(store, clock);
        // What an earlier process said and did not take back is taken back now.
        let spoken = self.picture.cluster().states.iter().filter(|(_, states)| states.contains_key(&self.id));
        self.told = spoken.map(|(unit, _)| (unit.clone(), Vec::new())).collect();
    }

    pub(crate) fn lead(&mut self, store: &mut Store, caution: SafetyLimits, now: MonotonicTime) {
        let lease = 2 * self.number + 1;
        if self.mind.is_some() {
            if store.leases.contains_key(&lease) && self.linked && store.up {
                store.leases.insert(lease, now + TTL / 2);
            }
            return;
        }
        if !self.heard || !self.registered || self.picture.current_leader().is_some() {
            return;
        }
        store.leases.insert(lease, now + TTL / 2);
        if store.commit(&engine_writes::claim_leadership(&self.id), self.number) == Some(true) {
            let mut mind = ClusterConverger::new(caution, self.steady_since);
            let (created, clock) = (store.revision, self.clock(now));
            self.listen(store, clock);
            mind.observe_change(self.picture.cluster(), &ClusterChange::Everything, clock);
            self.mind = Some((mind, created));
        }
    }

    pub(crate) fn decide(
        &mut self,
        store: &mut Store,
        dice: &mut Dice,
        now: MonotonicTime,
        brakes: &mut usize,
    ) {
        let Some((mind, created)) = &mut self.mind else { return };
        let created = *created;
        if !self.heard {
            return;
        }
        let plan = mind.plan_changes(self.picture.cluster(), now);
        *brakes += usize::from(plan.brake.is_some());
        let decisions = plan
            .decisions
            .iter()
            .map(|decision| (&decision.unit, engine_writes::decision_write(&self.picture, decision)));
        let steps = plan
            .rollout
            .iter()
            .map(|step| (step.changed_unit(), engine_writes::rollout_step(&self.picture, step)));
        let wishes: Vec<(UnitName, Option<StoreWrite>)> =
            decisions.chain(steps).map(|(unit, write)| (unit.clone(), write)).collect();
        let mut lost = false;
        for (unit, write) in wishes {
            // Sometimes a write gets lost, or its answer does.
            let outcome = match write {
                Some(_) if dice.chance(3) => None,
                Some(write) => store.commit(&engine_writes::as_leader(write, created), self.number),
                None => Some(false),
            };
            if outcome != Some(true) {
                mind.observe_change(self.picture.cluster(), &ClusterChange::Unit(unit), now);
            }
            lost |= outcome == Some(false);
        }
        let leads = store
            .data
            .get(&store.keys.key_path(&StoreKey::Leader))
            .is_some_and(|stored| stored.created == created);
        if lost && !leads {
            self.mind = None;
        }
    }

    /// Removes what nothing needs, now and then.
    pub(crate) fn sweep(&self, store: &mut Store, dice: &mut Dice) {
        let Some((_, created)) = self.mind.as_ref().filter(|_| self.heard && dice.chance(5)) else { return };
        for write in engine_writes::sweep_writes(&self.picture) {
            if !dice.chance(3) {
                store.commit(&engine_writes::as_leader(write, *created), self.number);
            }
        }
    }

    /// What the agent does: fence first, then duties.
    pub(crate) fn work(&mut self, store: &mut Store, dice: &mut Dice, now: MonotonicTime) {
        self.forget_departed(now);
        let silent = now.duration_since(self.renewed);
        if silent >= TTL * 2 / 3 {
            let cluster = self.picture.cluster();
            for (unit, held) in &mut self.running {
                if cluster.units.get(unit).is_some_and(|unit| unit.requirements.fence) {
                    held.job = JobState::Loaded;
                }
            }
        }
        if !(self.registered && self.heard && silent < TTL) {
            return;
        }
        let cluster = self.picture.cluster();
        let me = cluster.machines.get(&self.id).unwrap_or(&self.machine);
        let wanted = self.duties.desired_units(cluster, me, &self.running);
        let mut tasks = plan_batch(&wanted, &self.running);
        tasks.unload.retain(|unit| !self.leaving.contains_key(unit));
        for unit in tasks.unload {
            if self.running[&unit].job == JobState::Launched && dice.chance(40) {
                self.leaving.insert(unit, now + slow_stop(dice));
            } else {
                self.running.remove(&unit);
            }
        }
        for list in [&mut tasks.load, &mut tasks.stop, &mut tasks.restart, &mut tasks.start] {
            list.retain(|unit| !self.leaving.contains_key(unit));
        }
        for unit in tasks.load {
            let (hash, restarts) = (wanted[&unit].file.hash(), wanted[&unit].restarts);
            self.running.insert(unit, ActualUnit { hash, job: JobState::Loaded, restarts });
        }
        let guarded = wanted.iter().filter(|(unit, wish)| wish.fence && self.running.contains_key(*unit));
        let guarded: BTreeSet<UnitName> = guarded.map(|(unit, _)| unit.clone()).collect();
        self.guarded.retain(|unit| self.leaving.contains_key(unit));
        self.guarded.extend(guarded);
        let mut refused = false;
        for (units, job) in [(tasks.stop, JobState::Loaded), (tasks.start, JobState::Launched)] {
            for unit in units {
                let wish = &wanted[&unit];
                if job == JobState::Launched && wish.fence && !wish.global {
                    let record =
                        record(ActualUnit { hash: wish.file.hash(), job, restarts: wish.restarts }, false);
                    if store.commit(&writes::intent_write(&self.id, &unit, &record), self.number)
                        != Some(true)
                    {
                        refused = true;
                        continue;
                    }
                    self.told.insert(unit.clone(), fleet::store::records::encode_record(&record));
                }
                let held = self.running.get_mut(&unit).unwrap();
                (held.job, held.restarts) = (job, wanted[&unit].restarts);
            }
        }
        for unit in tasks.restart {
            self.running.get_mut(&unit).unwrap().restarts = wanted[&unit].restarts;
        }
        let left = plan_batch(&wanted, &self.running);
        let mut names = [left.unload, left.load, left.stop, left.restart, left.start].concat();
        names.retain(|unit| !self.leaving.contains_key(unit));
        assert!(refused || names.is_empty(), "a batch leaves nothing to do");
    }

    /// Forgets the units of which the agent has heard that they are down.
    fn forget_departed(&mut self, now: MonotonicTime) {
        let departed: Vec<UnitName> =
            self.leaving.iter().filter(|(_, heard)| **heard <= now).map(|(unit, _)| unit.clone()).collect();
        for unit in departed {
            self.leaving.remove(&unit);
            self.running.remove(&unit);
        }
    }

    /// What the machine would say of a unit now.
    pub(crate) fn would_say(&self, unit: &UnitName) -> Option<StateRecord> {
        let is_leaving = self.leaving.contains_key(unit);
        self.running.get(unit).map(|held| record(*held, is_leaving))
    }

    /// What systemd's guard does, whether the daemon works, is frozen, or was restarted and knows nothing.
    pub(crate) fn guard(&mut self, now: MonotonicTime) {
        if self.clock(now).duration_since(self.renewed) < TTL * 2 / 3 {
            return;
        }
        for unit in &self.guarded {
            if let Some(held) = self.running.get_mut(unit) {
                held.job = JobState::Loaded;
            }
        }
    }

    pub(crate) fn tell(&mut self, store: &mut Store) {
        if !(self.linked && self.registered) {
            return;
        }
        let gone = self
            .told
            .keys()
            .filter(|unit| !self.running.contains_key(*unit))
            .map(|unit| (unit.clone(), None));
        let now = self.running.keys().map(|unit| (unit.clone(), self.would_say(unit)));
        let news: Vec<_> = gone.chain(now).collect();
        for (unit, record) in news {
            let operation = writes::state_operation(&self.id, &unit, record.as_ref());
            let value = record.as_ref().map(fleet::store::records::encode_record);
            if self.told.get(&unit) == value.as_ref() {
                continue;
            }
            let write = StoreWrite { when: Vec::new(), then: vec![operation] };
            if store.commit(&write, self.number) == Some(true) {
                match value {
                    Some(value) => self.told.insert(unit, value),
                    None => self.told.remove(&unit),
                };
            }
        }
    }
}

/// How long a stop takes until the agent knows of its end: when the signal is lost, until it asks.
fn slow_stop(dice: &mut Dice) -> Duration {
    let stop = Duration::from_millis(250 * dice.roll(40) as u64);
    if dice.chance(10) { stop + Duration::from_secs(5) } else { stop }
}

fn record(held: ActualUnit, is_leaving: bool) -> StateRecord {
    let active = match held.job {
        _ if is_leaving => "deactivating",
        JobState::Launched => "active",
        _ => "inactive",
    };
    StateRecord {
        hash: held.hash,
        job: held.job,
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: "running".to_owned(),
        restarts: held.restarts,
        error: String::new(),
    }
}
