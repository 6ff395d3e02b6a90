//! The mind of the engine: what the cluster is told to change, and when it is better to wait.
//!
//! Fed with the picture of the cluster and with what changed in it, answers with steps. Knows when a
//! machine that fell silent may be given up: after the store has been heard without a break for a full
//! TTL, not if too many fell silent together, and a fenced unit not before its machine must have stopped
//! it. Refuses to know clocks, stores and who leads. Invariant: whatever the picture shows, no step moves
//! a unit off a machine that is present and able.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    model::{
        machine::MachineId,
        moment::MonotonicTime,
        state::{JobState, UnitState},
        unit_name::UnitName,
    },
    plan::{
        global_rollout::GlobalRollouts,
        place::{PlacementDecision, UnitPlacement},
        rollout::{ClusterRollouts, RolloutStep},
    },
    store::{cluster::Cluster, registry::ClusterChange},
};

/// How careful the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafetyLimits {
    /// How long a machine may be silent before the store forgets it.
    pub ttl: Duration,
    /// The most percent of the machines that may be given up within one TTL.
    pub brake_percent: u8,
    /// How long to wait for further losses before the first is acted upon.
    pub settle: Duration,
}

impl Default for SafetyLimits {
    fn default() -> Self {
        // Half of the machines: to lose more within one TTL is mostly a network that broke, and their units
        // run on behind it. The settle time lets a rack that fails be planned as one loss instead of forty.
        Self { ttl: Duration::from_secs(30), brake_percent: 50, settle: Duration::from_millis(250) }
    }
}

impl SafetyLimits {
    /// How long after the store forgot a machine its fenced units may start elsewhere. The machine stops
    /// them one TTL after the last time it was heard at the latest; this is room for clocks that drift.
    #[must_use]
    pub fn fence_grace(&self) -> Duration {
        // The machine kills at nine tenths of the TTL after its last renewal, and the store forgets it
        // after all of the TTL. Ten percent are spent before, twenty are added here.
        self.ttl / 5
    }
}

/// What the engine does now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnginePlan {
    /// Changes of the schedule.
    pub decisions: Vec<PlacementDecision>,
    /// Steps of rollouts.
    pub rollout: Vec<RolloutStep>,
    /// Why lost machines are not given up, if they are not.
    pub brake: Option<String>,
    /// When to ask again although nothing changed.
    pub wake: Option<MonotonicTime>,
}

/// The engine's mind.
#[derive(Debug, Default)]
pub struct ClusterConverger {
    caution: SafetyLimits,
    placement: UnitPlacement,
    rollouts: ClusterRollouts,
    global_rollouts: GlobalRollouts,
    /// Since when the store has been heard without a break.
    steady_since: MonotonicTime,
    /// Since when machines that still hold units have been silent.
    silent: BTreeMap<MachineId, MonotonicTime>,
    /// The losses of the last TTL.
    losses: VecDeque<(MonotonicTime, MachineId)>,
    /// Lost machines that a person told the engine to give up.
    released: BTreeSet<MachineId>,
    /// Fenced units that wait until they are down where they ran.
    fenced: BTreeMap<UnitName, FencedMove>,
    touched: BTreeSet<UnitName>,
}

/// A fenced unit between two machines.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FencedMove {
    /// The machine it must have left.
    from: MachineId,
    /// When that machine must have stopped it, if it is silent.
    free: Option<MonotonicTime>,
}

impl ClusterConverger {
    /// A mind that knows an empty cluster.
    #[must_use]
    pub fn new(caution: SafetyLimits, now: MonotonicTime) -> Self {
        Self { caution, steady_since: now, ..Self::default() }
    }

    /// A person wants another caution.
    pub fn set_limits(&mut self, caution: SafetyLimits) {
        self.caution = caution;
    }

    /// The store was away, or its leader changed: silence means nothing until a full TTL has passed.
    pub fn note_interruption(&mut self, now: MonotonicTime) {
        self.steady_since = now;
        // Losses from before an interruption say nothing: nobody could renew a lease meanwhile.
        self.losses.clear();
    }

    /// A person wants the machines that are lost now to be given up whatever their number.
    pub fn release_brake(&mut self) {
        self.released.extend(self.silent.keys().cloned());
    }

    /// Moves units from crowded to idle machines.
    pub fn rebalance_units(&mut self, budget: u32) -> Vec<PlacementDecision> {
        self.placement.rebalance_units(budget)
    }

    /// Takes in a change of the picture.
    pub fn observe_change(&mut self, cluster: &Cluster, change: &ClusterChange, now: MonotonicTime) {
        match change {
            ClusterChange::Machine(id) => self.observe_machine(cluster, id, now),
            ClusterChange::Unit(name) | ClusterChange::State(name, _) => {
                self.touched.insert(name.clone());
            }
            // The engine reads orders itself, before it plans.
            ClusterChange::Order => {}
            ClusterChange::Everything => self.observe_everything(cluster, now),
        }
    }

    fn observe_everything(&mut self, cluster: &Cluster, now: MonotonicTime) {
        // The placement is built anew: what changed while nobody looked is not known.
        let known: Vec<MachineId> = self.silent.keys().cloned().collect();
        self.placement = UnitPlacement::of_cluster(cluster);
        self.rollouts = ClusterRollouts::default();
        self.global_rollouts = GlobalRollouts::default();
        // Whom the former books held back still runs somewhere, as far as anybody knows.
        for name in self.fenced.keys() {
            self.placement.set_hold(name, true);
        }
        self.touched.extend(cluster.units.keys().cloned());
        let lost: Vec<MachineId> = self.placement.lost_machines().map(|(id, _)| id.clone()).collect();
        for id in lost.iter().filter(|id| !known.contains(id)) {
            self.mark_silent(id, now);
        }
        self.silent.retain(|id, _| lost.contains(id));
    }

    fn observe_machine(&mut self, cluster: &Cluster, id: &MachineId, now: MonotonicTime) {
        if let Some(machine) = cluster.machines.get(id) {
            self.placement.set_machine(machine);
            self.silent.remove(id);
            self.released.remove(id);
            // It came back, so it was not lost. Otherwise a rolling reboot would add up to a brake.
            self.losses.retain(|(_, lost)| lost != id);
            return;
        }
        self.placement.lose_machine(id);
        if self.placement.lost_machines().any(|(lost, _)| lost == id) {
            self.mark_silent(id, now);
        }
        let waiting = self.fenced.iter().filter(|(_, waiting)| waiting.from == *id);
        self.touched.extend(waiting.map(|(name, _)| name.clone()));
    }

    fn mark_silent(&mut self, id: &MachineId, now: MonotonicTime) {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.silent.entry(id.clone()) {
            entry.insert(now);
            self.losses.push_back((now, id.clone()));
        }
    }

    /// What is to be done now.
    pub fn plan_changes(&mut self, cluster: &Cluster, now: MonotonicTime) -> EnginePlan {
        let due = self.fenced.iter().filter(|(_, waiting)| waiting.free.is_some_and(|free| free <= now));
        self.touched.extend(due.map(|(name, _)| name.clone()));
        // Books first, losses second, decisions last: a machine that came back within this plan is not
        // given up by it.
        self.update_placement(cluster, now);
        let (brake, wake) = self.give_up_lost(cluster, now);
        let mut decisions = self.placement.decide_all();
        self.part_fenced_moves(cluster, &mut decisions);
        let mut rollout = self.rollouts.next_steps(cluster, now);
        rollout.extend(self.global_rollouts.next_steps(cluster, now));
        let free = self.fenced.values().filter_map(|waiting| waiting.free).min();
        let wakes =
            [wake, free, self.rollouts.next_wakeup(cluster), self.global_rollouts.next_wakeup(cluster)];
        EnginePlan { decisions, rollout, brake, wake: wakes.into_iter().flatten().min() }
    }

    /// Brings the books in line with what changed in the picture.
    fn update_placement(&mut self, cluster: &Cluster, now: MonotonicTime) {
        for name in std::mem::take(&mut self.touched) {
            match cluster.units.get(&name) {
                Some(unit) => self.placement.set_unit(unit),
                None => self.placement.remove_unit(&name),
            }
            self.placement.observe_assignment(&name, cluster.target_of(name.as_str()));
            self.rollouts.look_at(cluster, &name, now);
            self.global_rollouts.look_at(cluster, &name, now);
            self.look_at_fence(cluster, &name, now);
            if let Some(id) =
                cluster.target_of(name.as_str()).filter(|id| !cluster.machines.contains_key(*id))
            {
                self.mark_silent(&id.clone(), now);
            }
        }
    }

    /// Takes units off silent machines once that is safe.
    fn give_up_lost(
        &mut self,
        cluster: &Cluster,
        now: MonotonicTime,
    ) -> (Option<String>, Option<MonotonicTime>) {
        let lost: BTreeMap<MachineId, usize> =
            self.placement.lost_machines().map(|(id, count)| (id.clone(), count)).collect();
        self.silent.retain(|id, _| lost.contains_key(id));
        if lost.is_empty() {
            return (None, None);
        }
        // A full TTL after the store was away or elected a leader: leases got their full time anew, so a
        // machine that seems silent may only not have had its turn to renew. The original moved units at
        // every hiccup.
        let steady = self.steady_since + self.caution.ttl;
        if now < steady {
            return (None, Some(steady));
        }
        if let Some(brake) = self.braking_reason(&lost, now) {
            // Losses leave the count after a TTL, so the brake may be off by then without a person.
            return (Some(brake), Some(now + self.caution.ttl));
        }
        let mut wake = None;
        for (id, since) in self.silent.clone() {
            let settled = since + self.caution.settle;
            if now < settled {
                wake = wake.into_iter().chain([settled]).min();
                continue;
            }
            wake = wake.into_iter().chain(self.give_up(cluster, &id, since, now)).min();
        }
        (None, wake)
    }

    /// Takes the units off one lost machine; returns when the fenced ones may follow.
    fn give_up(
        &mut self,
        cluster: &Cluster,
        id: &MachineId,
        since: MonotonicTime,
        now: MonotonicTime,
    ) -> Option<MonotonicTime> {
        let free = since + self.caution.fence_grace();
        let mut held_back = false;
        for name in self.placement.units_on(id) {
            let fenced = cluster.units.get(&name).is_some_and(|unit| unit.requirements.fence);
            if fenced && now < free {
                held_back = true;
            } else {
                self.placement.give_up(&name, id);
            }
        }
        held_back.then_some(free)
    }

    /// Why the losses are too many to be believed.
    fn braking_reason(&mut self, lost: &BTreeMap<MachineId, usize>, now: MonotonicTime) -> Option<String> {
        while self.losses.front().is_some_and(|(at, _)| *at + self.caution.ttl < now && !self.silent_of(*at))
        {
            self.losses.pop_front();
        }
        let counted: BTreeSet<&MachineId> = self
            .losses
            .iter()
            .map(|(_, id)| id)
            .chain(lost.keys())
            .filter(|id| !self.released.contains(*id))
            .collect();
        let all = self.placement.present_count() + lost.len();
        let share = counted.len() * 100;
        // One machine is never too many: in a cluster of one or two the share would stop every failover.
        if counted.len() < 2 || share <= all * usize::from(self.caution.brake_percent) {
            return None;
        }
        let units: usize = lost.values().sum();
        Some(format!(
            "{} of {all} machines fell silent within {} s, more than {} %: their {units} units stay scheduled there \
             until machines return or the brake is released",
            counted.len(),
            self.caution.ttl.as_secs(),
            self.caution.brake_percent
        ))
    }

    fn silent_of(&self, at: MonotonicTime) -> bool {
        self.silent.values().any(|since| *since == at)
    }

    /// A fenced unit leaves a machine that is present first, and starts elsewhere only when it is down.
    fn part_fenced_moves(&mut self, cluster: &Cluster, decisions: &mut [PlacementDecision]) {
        for decision in decisions {
            let Some(from) = decision.from.clone().filter(|from| cluster.machines.contains_key(from)) else {
                continue;
            };
            let fenced = cluster.units.get(&decision.unit).is_some_and(|unit| unit.requirements.fence);
            let told = cluster.state_on(decision.unit.as_str(), from.as_str()).is_some();
            if fenced && decision.to.is_some() && told {
                // The move becomes two: off the old machine now, onto a new one when the old one says that
                // the unit is down. The new one is chosen then, since the cluster may be another one by
                // that time.
                decision.to = None;
                self.placement.set_hold(&decision.unit, true);
                self.placement.observe_assignment(&decision.unit, None);
                self.fenced.insert(decision.unit.clone(), FencedMove { from, free: None });
            }
        }
    }

    /// Holds a fenced unit that has no machine but still runs on one, and lets it go when it is down.
    fn look_at_fence(&mut self, cluster: &Cluster, name: &UnitName, now: MonotonicTime) {
        let fenced = cluster.units.get(name).is_some_and(|unit| unit.requirements.fence);
        if let Some(waiting) = self.fenced.get_mut(name) {
            let present = cluster.machines.contains_key(&waiting.from);
            let down = !fenced
                || present && !still_runs(cluster, name, &waiting.from)
                || waiting.free.is_some_and(|free| free <= now);
            if down {
                self.fenced.remove(name);
                self.placement.set_hold(name, false);
            } else if present {
                // A machine that came back with the unit had its fence lifted by then.
                waiting.free = None;
            } else {
                let grace = self.caution.fence_grace();
                waiting.free.get_or_insert_with(|| now + grace);
            }
        } else if fenced && cluster.target_of(name.as_str()).is_none() {
            let runs_on = cluster.states.get(name).into_iter().flatten();
            let mut runs_on = runs_on.filter(|(_, state)| is_running(state));
            if let Some((from, _)) = runs_on.next() {
                self.fenced.insert(name.clone(), FencedMove { from: from.clone(), free: None });
                self.placement.set_hold(name, true);
            }
        }
    }
}

fn still_runs(cluster: &Cluster, name: &UnitName, machine: &MachineId) -> bool {
    cluster.state_on(name.as_str(), machine.as_str()).is_some_and(is_running)
}

/// A unit that was told to stop runs until it is down, and a slow `ExecStop=` takes its time.
fn is_running(state: &UnitState) -> bool {
    state.job == JobState::Launched || state.is_up()
}

#[cfg(test)]
mod tests;
