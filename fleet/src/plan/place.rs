//! Puts units on machines, one event at a time, in memory.
//!
//! Knows who runs what, and keeps sets of machines by load, by what they say of themselves and by the
//! kinds of units they suit, one bit a machine, so that a decision on ten thousand machines costs little
//! more than one on ten. Refuses to know when a lost machine is
//! to be given up, and how a decision is written down: [`super::converge`] does. The rules are those of
//! [`super::explain`]. Invariant: among the able machines a unit gets the one with the fewest units, and
//! of those the one with the smallest ID; a unit that is placed stays until its machine cannot keep it.

mod bits;
mod entry;
mod evict;
mod machines;
mod schedule;
mod shape;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{
        machine::{Machine, MachineId},
        unit_name::UnitName,
    },
    plan::rules::PlacementRefusal,
    store::cluster::{Cluster, SubmittedUnit},
};
use entry::{MachineIndex, UnitIndex};
pub use schedule::{DecisionReason, PlacementDecision, UnitPlacement};

impl UnitPlacement {
    /// The placement of a cluster as it stands.
    #[must_use]
    pub fn of_cluster(cluster: &Cluster) -> Self {
        let mut placement = Self::default();
        for machine in cluster.machines.values() {
            placement.set_machine(machine);
        }
        for unit in cluster.units.values() {
            placement.set_unit(unit);
        }
        for (name, assignment) in &cluster.assignments {
            placement.observe_assignment(name, Some(&assignment.machine));
        }
        placement
    }

    /// Adds a machine, or takes what it says of itself now.
    pub fn set_machine(&mut self, machine: &Machine) {
        let index = self.machines.set_machine(machine, &mut self.shapes);
        self.refresh_globals(index);
        self.shapes.requeue_machine(index, &self.machines);
        self.doubtful
            .extend(self.machines.placed_units(index).map(|unit| self.units.unit_name(unit).clone()));
        // Units that found no machine are tried again only after something was freed: ten thousand waiting
        // units would cost a pass each otherwise.
        self.freed = true;
    }

    /// Marks a machine as lost. What it holds stays there until [`UnitPlacement::give_up`].
    pub fn lose_machine(&mut self, id: &MachineId) {
        if let Some(index) = self.machines.mark_lost(id) {
            self.machines.set_globals(index, &self.units, &[]);
        }
    }

    /// The lost machines that units are still scheduled on, with the number of units.
    pub fn lost_machines(&self) -> impl Iterator<Item = (&MachineId, usize)> {
        self.machines.lost_machines()
    }

    /// How many machines are present.
    #[must_use]
    pub fn present_count(&self) -> usize {
        self.machines.present_count()
    }

    /// The units scheduled on a machine, present or lost, by name.
    #[must_use]
    pub fn units_on(&self, id: &MachineId) -> Vec<UnitName> {
        let Some(index) = self.machines.index_of(id) else { return Vec::new() };
        let mut names: Vec<_> =
            self.machines.placed_units(index).map(|unit| self.units.unit_name(unit).clone()).collect();
        names.sort_unstable();
        names
    }

    /// Takes one unit off a lost machine, to be placed again by the next [`UnitPlacement::decide_all`].
    pub fn give_up(&mut self, unit: &UnitName, id: &MachineId) {
        if let Some(index) = self.units.index_of(unit)
            && let Some(machine) = self.machines.index_of(id)
            && self.units[index].at == Some(machine)
        {
            self.displace_unit(index, DecisionReason::MachineAway(id.clone()));
        }
    }

    /// Adds a unit, or takes its new content and desired state. Where it is scheduled is told by
    /// [`UnitPlacement::observe_assignment`].
    pub fn set_unit(&mut self, unit: &SubmittedUnit) {
        if let Some(index) = self.units.index_of(&unit.name)
            && self.units[index].is_like(unit)
        {
            return;
        }
        let at = self.units.index_of(&unit.name).and_then(|index| self.units[index].at);
        self.withdraw_unit(&unit.name);
        let index = self.units.add(unit, &mut self.shapes, &mut self.machines);
        self.regroup_pending();
        self.link_followers(index);
        if self.units[index].is_global() {
            self.refresh_all_globals();
        }
        match at {
            Some(machine) if self.units[index].is_scheduled() => {
                self.assign_unit(index, machine);
                self.doubtful.insert(unit.name.clone());
            }
            Some(machine) => {
                let reason = (self.machines.machine_id(machine).clone(), DecisionReason::Inactive);
                self.leaving.insert(unit.name.clone(), reason);
            }
            None => {}
        }
        if at.is_none() && self.units[index].is_scheduled() {
            self.todo.insert(unit.name.clone());
        }
        self.wake_followers(&unit.name);
    }

    /// Forgets a unit that was destroyed.
    pub fn remove_unit(&mut self, name: &UnitName) {
        if let Some(index) = self.units.index_of(name)
            && let Some(machine) = self.units[index].at
        {
            self.leaving
                .insert(name.clone(), (self.machines.machine_id(machine).clone(), DecisionReason::Inactive));
        }
        self.withdraw_unit(name);
        self.wake_followers(name);
    }

    /// Takes over what the store says of a unit's place, also if somebody else wrote it.
    pub fn observe_assignment(&mut self, name: &UnitName, machine: Option<&MachineId>) {
        let Some(index) = self.units.index_of(name) else {
            if let Some(machine) = machine {
                self.leaving.insert(name.clone(), (machine.clone(), DecisionReason::Inactive));
            }
            return;
        };
        let target = machine.map(|id| self.machines.index_or_lost(id, &mut self.shapes));
        self.leaving.remove(name);
        if self.units[index].at == target {
            return;
        }
        if self.units[index].at.is_some() {
            self.unassign_unit(index);
        }
        match target {
            Some(target) if self.units[index].is_scheduled() => {
                self.clear_pending(index);
                let clash = self.machines.is_barred(target, &self.units[index]);
                self.assign_unit(index, target);
                if clash {
                    self.refresh_globals(target);
                }
                self.doubtful.insert(name.clone());
            }
            Some(target) => {
                let reason = (self.machines.machine_id(target).clone(), DecisionReason::Inactive);
                self.leaving.insert(name.clone(), reason);
            }
            None if self.units[index].is_scheduled() => {
                self.todo.insert(name.clone());
            }
            None => {}
        }
        self.wake_followers(name);
    }

    /// Keeps a unit from being placed, or ends that.
    pub fn set_hold(&mut self, name: &UnitName, held: bool) {
        if held {
            self.held.insert(name.clone());
        } else if self.held.remove(name) {
            self.todo.insert(name.clone());
        }
    }

    /// The schedule: where each unit goes.
    ///
    /// ```
    /// use fleet::{
    ///     model::{
    ///         machine::{Machine, MachineId},
    ///         state::JobState,
    ///         unit_file::UnitFile,
    ///         unit_name::UnitName,
    ///     },
    ///     plan::place::UnitPlacement,
    ///     store::cluster::SubmittedUnit,
    /// };
    ///
    /// let mut placement = UnitPlacement::default();
    /// for id in ["m1", "m2"] {
    ///     placement.set_machine(&Machine::new(MachineId::parse(id)?));
    /// }
    /// let file = UnitFile::parse("[Service]\nExecStart=/bin/true\n[X-Fleet]\nConflicts=web@*.service\n")?;
    /// for name in ["web@1.service", "web@2.service", "web@3.service"] {
    ///     let name = UnitName::parse(name)?;
    ///     placement.set_unit(&SubmittedUnit::new(name, file.clone(), JobState::Launched));
    /// }
    ///
    /// let decisions = placement.decide_all();
    ///
    /// let machines: Vec<&str> = decisions.iter().filter_map(|each| Some(each.to.as_ref()?.as_str())).collect();
    /// assert_eq!(machines, ["m1", "m2"], "the third finds no machine without a conflict");
    /// assert_eq!(placement.pending_count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Everything that is to change now, in the order of unit names. The schedule is taken as changed.
    pub fn decide_all(&mut self) -> Vec<PlacementDecision> {
        // Guests that lost their right come first, since they make room for those that wait.
        let mut evicted = BTreeSet::new();
        self.review_doubtful(&mut evicted);
        self.newly_leaving.clear();
        let mut decisions: BTreeMap<UnitName, PlacementDecision> = BTreeMap::new();
        self.place_todo(&mut decisions, &mut evicted);
        for (unit, (from, reason)) in std::mem::take(&mut self.leaving) {
            decisions.insert(unit.clone(), PlacementDecision { unit, from: Some(from), to: None, reason });
        }
        decisions.into_values().collect()
    }

    /// How many wanted units have no machine.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.pending.values().map(BTreeSet::len).sum()
    }

    fn review_doubtful(&mut self, evicted: &mut BTreeSet<UnitName>) {
        while let Some(name) = self.doubtful.pop_first() {
            let Some(index) = self.units.index_of(&name) else { continue };
            let Some(machine) = self.units[index].at else { continue };
            if !self.machines.is_present(machine) {
                continue;
            }
            // Room is asked of newcomers only: what runs is not stopped because a number changed.
            let refusal = self.refusal_of(index, machine).filter(|refusal| !refusal.is_want_of_room());
            if let Some(refusal) = refusal {
                let id = self.machines.machine_id(machine).clone();
                self.displace_unit(index, DecisionReason::Unable(id, refusal));
            } else {
                self.evict_guests(index, machine, evicted);
            }
        }
    }

    fn place_todo(
        &mut self,
        decisions: &mut BTreeMap<UnitName, PlacementDecision>,
        evicted: &mut BTreeSet<UnitName>,
    ) {
        // Units can chase each other by Replaces and MachineOf; a round ends all the same.
        let mut patience = 4 * self.units.len() + 64;
        loop {
            patience = patience.saturating_sub(1);
            if std::mem::take(&mut self.freed) {
                self.todo.extend(self.pending.values().filter_map(BTreeSet::first).cloned());
            }
            let Some(name) = self.todo.pop_first() else { return };
            let Some(index) = self.units.index_of(&name) else { continue };
            if self.units[index].at.is_some()
                || !self.units[index].is_scheduled()
                || self.held.contains(&name)
            {
                continue;
            }
            match self.choose_machine(index) {
                Some(machine)
                    if patience == 0 || evicted.contains(&name) && self.would_evict(index, machine) =>
                {
                    self.mark_pending(index);
                }
                Some(machine) => {
                    self.place_unit(index, machine, evicted);
                    self.record_decision(index, machine, decisions);
                }
                None => self.mark_pending(index),
            }
            // A unit that left after it was placed in this very round has its decision taken back.
            for unit in std::mem::take(&mut self.newly_leaving) {
                self.take_back(&unit, decisions);
            }
        }
    }

    fn take_back(&mut self, unit: &UnitName, decisions: &mut BTreeMap<UnitName, PlacementDecision>) {
        let Some(decision) = decisions.remove(unit) else { return };
        match decision.from {
            Some(from) => self.leaving.insert(unit.clone(), (from, decision.reason)),
            None => self.leaving.remove(unit),
        };
    }

    fn record_decision(
        &mut self,
        index: UnitIndex,
        machine: MachineIndex,
        decisions: &mut BTreeMap<UnitName, PlacementDecision>,
    ) {
        let unit = self.units.unit_name(index).clone();
        let to = Some(self.machines.machine_id(machine).clone());
        let (from, reason) = match self.leaving.remove(&unit) {
            Some((from, reason)) => (Some(from), reason),
            None => (None, DecisionReason::Wanted),
        };
        if from == to {
            return;
        }
        decisions.insert(unit.clone(), PlacementDecision { unit, from, to, reason });
    }

    fn place_unit(&mut self, index: UnitIndex, machine: MachineIndex, evicted: &mut BTreeSet<UnitName>) {
        self.clear_pending(index);
        self.assign_unit(index, machine);
        if let Some(next) = self.pending.get(&self.units[index].shape).and_then(BTreeSet::first) {
            self.todo.insert(next.clone());
        }
        self.evict_guests(index, machine, evicted);
        self.wake_followers(&self.units.unit_name(index).clone());
    }

    fn evict_guests(&mut self, index: UnitIndex, machine: MachineIndex, evicted: &mut BTreeSet<UnitName>) {
        for guest in self.evicted_guests(index, machine) {
            let name = self.units.unit_name(guest).clone();
            let refusal = PlacementRefusal::Replaced(self.units.unit_name(index).clone());
            self.displace_unit(
                guest,
                DecisionReason::Unable(self.machines.machine_id(machine).clone(), refusal),
            );
            evicted.insert(name);
        }
        if !self.units[index].evicts.is_empty() {
            self.refresh_globals(machine);
        }
    }

    /// Takes a unit off its machine and lines it up for another.
    fn displace_unit(&mut self, index: UnitIndex, reason: DecisionReason) {
        let Some(machine) = self.units[index].at else { return };
        let name = self.units.unit_name(index).clone();
        self.leaving
            .entry(name.clone())
            .or_insert_with(|| (self.machines.machine_id(machine).clone(), reason));
        self.newly_leaving.push(name.clone());
        self.unassign_unit(index);
        self.todo.insert(name.clone());
        self.wake_followers(&name);
    }

    /// Puts a unit on a machine in the books.
    fn assign_unit(&mut self, index: UnitIndex, machine: MachineIndex) {
        self.machines.take_in(machine, index, &self.units[index]);
        self.units[index].at = Some(machine);
        self.shapes.count_spread(&self.units[index], self.machines.machine_at(machine), 1);
    }

    /// Takes a unit off its machine in the books.
    fn unassign_unit(&mut self, index: UnitIndex) {
        let Some(machine) = self.units[index].at.take() else { return };
        self.machines.let_go(machine, index, &self.units[index]);
        self.shapes.count_spread(&self.units[index], self.machines.machine_at(machine), -1);
        if self.machines.lacks_globals(machine) {
            self.refresh_globals(machine);
        }
        self.shapes.requeue_machine(machine, &self.machines);
        self.freed = true;
    }

    fn withdraw_unit(&mut self, name: &UnitName) {
        let Some(index) = self.units.index_of(name) else { return };
        self.unassign_unit(index);
        self.clear_pending(index);
        self.todo.remove(name);
        self.doubtful.remove(name);
        for peer in &self.units[index].requirements.peers {
            if let Some(followers) = self.followers.get_mut(peer.as_str()) {
                followers.remove(&index);
            }
        }
        if self.units[index].is_global() {
            self.units.retire_global(name);
            self.refresh_all_globals();
        }
        self.units.remove_unit(name, &mut self.shapes);
    }

    fn mark_pending(&mut self, index: UnitIndex) {
        let unit = &mut self.units[index];
        unit.waits_as = Some(unit.shape);
        self.pending.entry(unit.shape).or_default().insert(unit.name.clone());
    }

    fn clear_pending(&mut self, index: UnitIndex) {
        let unit = &mut self.units[index];
        let Some(shape) = unit.waits_as.take() else { return };
        if let Some(waiting) = self.pending.get_mut(&shape) {
            waiting.remove(&unit.name);
            if waiting.is_empty() {
                self.pending.remove(&shape);
            }
        }
    }

    /// Units whose shape changed while they waited wait under the new one.
    fn regroup_pending(&mut self) {
        for index in self.units.take_reshaped() {
            if self.units[index].waits_as.is_some() {
                self.clear_pending(index);
                self.mark_pending(index);
            }
        }
    }

    fn link_followers(&mut self, index: UnitIndex) {
        for peer in &self.units[index].requirements.peers {
            self.followers.entry(peer.as_str().into()).or_default().insert(index);
        }
    }

    fn wake_followers(&mut self, name: &UnitName) {
        let Some(followers) = self.followers.get(name.as_str()) else { return };
        for &follower in followers {
            let unit = &self.units[follower];
            if unit.at.is_some() {
                self.doubtful.insert(unit.name.clone());
            } else {
                self.todo.insert(unit.name.clone());
            }
        }
        self.review_followers(name);
    }

    /// Followers leave at once, so that they can go where their peer goes in the same decisions.
    fn review_followers(&mut self, name: &UnitName) {
        let here = self.units.index_of(name).and_then(|index| self.units[index].at);
        let followers: Vec<UnitIndex> =
            self.followers.get(name.as_str()).into_iter().flatten().copied().collect();
        for follower in followers {
            if let Some(machine) = self.units[follower].at
                && Some(machine) != here
                && !self.runs_global(name, machine)
                && self.machines.is_present(machine)
            {
                let refusal = PlacementRefusal::PeerElsewhere(name.as_str().to_owned());
                self.displace_unit(
                    follower,
                    DecisionReason::Unable(self.machines.machine_id(machine).clone(), refusal),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
