//! Puts units on machines, one event at a time, in memory.
//!
//! Knows who runs what, and keeps sets of machines by load, by what they say of themselves and by the
//! kinds of units they suit, one bit a machine, so that a decision on ten thousand machines costs little
//! more than one on ten. Refuses to know when a lost machine is
//! to be given up, and how a decision is written down: [`super::converge`] does. The rules are those of
//! [`super::explain`]. Invariant: among the able machines a unit gets the one with the fewest units, and
//! of those the one with the smallest ID; a unit that is placed stays until its machine can't keep it.

mod bits;
mod books;
mod entry;
mod evict;
mod machines;
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
pub use books::{DecisionReason, PlacementDecision, UnitPlacement};
use entry::{MachineSlot, UnitSlot};

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
        let slot = self.machines.set_machine(machine, &mut self.shapes);
        self.refresh_globals(slot);
        self.shapes.requeue_machine(slot, &self.machines);
        self.doubtful.extend(self.machines.guests(slot).map(|unit| self.units.name(unit).clone()));
        self.freed = true;
    }

    /// Marks a machine as lost. What it holds stays there until [`Placement::give_up`].
    pub fn lose_machine(&mut self, id: &MachineId) {
        if let Some(slot) = self.machines.mark_lost(id) {
            self.machines.set_globals(slot, &self.units, &[]);
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
        let Some(slot) = self.machines.index_of(id) else { return Vec::new() };
        let mut names: Vec<_> =
            self.machines.guests(slot).map(|unit| self.units.name(unit).clone()).collect();
        names.sort_unstable();
        names
    }

    /// Takes one unit off a lost machine, to be placed again by the next [`Placement::decide_all`].
    pub fn give_up(&mut self, unit: &UnitName, id: &MachineId) {
        if let Some(slot) = self.units.index_of(unit)
            && let Some(machine) = self.machines.index_of(id)
            && self.units[slot].at == Some(machine)
        {
            self.displace(slot, DecisionReason::MachineAway(id.clone()));
        }
    }

    /// Adds a unit, or takes its new content and desired state. Where it is scheduled is told by
    /// [`Placement::observe_assignment`].
    pub fn set_unit(&mut self, unit: &SubmittedUnit) {
        if let Some(slot) = self.units.index_of(&unit.name)
            && self.units[slot].is_like(unit)
        {
            return;
        }
        let at = self.units.index_of(&unit.name).and_then(|slot| self.units[slot].at);
        self.withdraw_unit(&unit.name);
        let slot = self.units.add(unit, &mut self.shapes, &mut self.machines);
        self.regroup_pending();
        self.link_followers(slot);
        if self.units[slot].is_global() {
            self.refresh_all_globals();
        }
        match at {
            Some(machine) if self.units[slot].is_scheduled() => {
                self.assign(slot, machine);
                self.doubtful.insert(unit.name.clone());
            }
            Some(machine) => {
                let reason = (self.machines.id(machine).clone(), DecisionReason::Inactive);
                self.leaving.insert(unit.name.clone(), reason);
            }
            None => {}
        }
        if at.is_none() && self.units[slot].is_scheduled() {
            self.todo.insert(unit.name.clone());
        }
        self.wake_followers(&unit.name);
    }

    /// Forgets a unit that was destroyed.
    pub fn remove_unit(&mut self, name: &UnitName) {
        if let Some(slot) = self.units.index_of(name)
            && let Some(machine) = self.units[slot].at
        {
            self.leaving.insert(name.clone(), (self.machines.id(machine).clone(), DecisionReason::Inactive));
        }
        self.withdraw_unit(name);
        self.wake_followers(name);
    }

    /// Takes over what the store says of a unit's place, whoever wrote it.
    pub fn observe_assignment(&mut self, name: &UnitName, machine: Option<&MachineId>) {
        let Some(slot) = self.units.index_of(name) else {
            if let Some(machine) = machine {
                self.leaving.insert(name.clone(), (machine.clone(), DecisionReason::Inactive));
            }
            return;
        };
        let target = machine.map(|id| self.machines.slot_or_lost(id, &mut self.shapes));
        self.leaving.remove(name);
        if self.units[slot].at == target {
            return;
        }
        if self.units[slot].at.is_some() {
            self.unassign(slot);
        }
        match target {
            Some(target) if self.units[slot].is_scheduled() => {
                self.clear_pending(slot);
                let clash = self.machines.is_barred(target, &self.units[slot]);
                self.assign(slot, target);
                if clash {
                    self.refresh_globals(target);
                }
                self.doubtful.insert(name.clone());
            }
            Some(target) => {
                let reason = (self.machines.id(target).clone(), DecisionReason::Inactive);
                self.leaving.insert(name.clone(), reason);
            }
            None if self.units[slot].is_scheduled() => {
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

    /// Everything that is to change now, in the order of unit names. The schedule is taken as changed.
    pub fn decide_all(&mut self) -> Vec<PlacementDecision> {
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
            let Some(slot) = self.units.index_of(&name) else { continue };
            let Some(machine) = self.units[slot].at else { continue };
            if !self.machines.is_present(machine) {
                continue;
            }
            // Room is asked of newcomers only: what runs is not stopped because a number changed.
            let refusal = self.refusal_of(slot, machine).filter(|refusal| !refusal.is_want_of_room());
            if let Some(refusal) = refusal {
                let id = self.machines.id(machine).clone();
                self.displace(slot, DecisionReason::Unable(id, refusal));
            } else {
                self.evict_guests(slot, machine, evicted);
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
            let Some(slot) = self.units.index_of(&name) else { continue };
            if self.units[slot].at.is_some() || !self.units[slot].is_scheduled() || self.held.contains(&name)
            {
                continue;
            }
            match self.choose_machine(slot) {
                Some(machine)
                    if patience == 0 || evicted.contains(&name) && self.would_evict(slot, machine) =>
                {
                    self.mark_pending(slot);
                }
                Some(machine) => {
                    self.place_unit(slot, machine, evicted);
                    self.record_decision(slot, machine, decisions);
                }
                None => self.mark_pending(slot),
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
        slot: UnitSlot,
        machine: MachineSlot,
        decisions: &mut BTreeMap<UnitName, PlacementDecision>,
    ) {
        let unit = self.units.name(slot).clone();
        let to = Some(self.machines.id(machine).clone());
        let (from, reason) = match self.leaving.remove(&unit) {
            Some((from, reason)) => (Some(from), reason),
            None => (None, DecisionReason::Wanted),
        };
        if from == to {
            return;
        }
        decisions.insert(unit.clone(), PlacementDecision { unit, from, to, reason });
    }

    fn place_unit(&mut self, slot: UnitSlot, machine: MachineSlot, evicted: &mut BTreeSet<UnitName>) {
        self.clear_pending(slot);
        self.assign(slot, machine);
        if let Some(next) = self.pending.get(&self.units[slot].shape).and_then(BTreeSet::first) {
            self.todo.insert(next.clone());
        }
        self.evict_guests(slot, machine, evicted);
        self.wake_followers(&self.units.name(slot).clone());
    }

    fn evict_guests(&mut self, slot: UnitSlot, machine: MachineSlot, evicted: &mut BTreeSet<UnitName>) {
        for guest in self.evicted_guests(slot, machine) {
            let name = self.units.name(guest).clone();
            let refusal = PlacementRefusal::Replaced(self.units.name(slot).clone());
            self.displace(guest, DecisionReason::Unable(self.machines.id(machine).clone(), refusal));
            evicted.insert(name);
        }
        if !self.units[slot].evicts.is_empty() {
            self.refresh_globals(machine);
        }
    }

    /// Takes a unit off its machine and lines it up for another.
    fn displace(&mut self, slot: UnitSlot, reason: DecisionReason) {
        let Some(machine) = self.units[slot].at else { return };
        let name = self.units.name(slot).clone();
        self.leaving.entry(name.clone()).or_insert_with(|| (self.machines.id(machine).clone(), reason));
        self.newly_leaving.push(name.clone());
        self.unassign(slot);
        self.todo.insert(name.clone());
        self.wake_followers(&name);
    }

    /// Puts a unit on a machine in the books.
    fn assign(&mut self, slot: UnitSlot, machine: MachineSlot) {
        self.machines.take_in(machine, slot, &self.units[slot]);
        self.units[slot].at = Some(machine);
        self.shapes.count_spread(&self.units[slot], self.machines.machine(machine), 1);
    }

    /// Takes a unit off its machine in the books.
    fn unassign(&mut self, slot: UnitSlot) {
        let Some(machine) = self.units[slot].at.take() else { return };
        self.machines.let_go(machine, slot, &self.units[slot]);
        self.shapes.count_spread(&self.units[slot], self.machines.machine(machine), -1);
        if self.machines.lacks_globals(machine) {
            self.refresh_globals(machine);
        }
        self.shapes.requeue_machine(machine, &self.machines);
        self.freed = true;
    }

    fn withdraw_unit(&mut self, name: &UnitName) {
        let Some(slot) = self.units.index_of(name) else { return };
        self.unassign(slot);
        self.clear_pending(slot);
        self.todo.remove(name);
        self.doubtful.remove(name);
        for peer in &self.units[slot].requirements.peers {
            if let Some(followers) = self.followers.get_mut(peer.as_str()) {
                followers.remove(&slot);
            }
        }
        if self.units[slot].is_global() {
            self.units.retire_global(name);
            self.refresh_all_globals();
        }
        self.units.remove_unit(name, &mut self.shapes);
    }

    fn mark_pending(&mut self, slot: UnitSlot) {
        let unit = &mut self.units[slot];
        unit.waits_as = Some(unit.shape);
        self.pending.entry(unit.shape).or_default().insert(unit.name.clone());
    }

    fn clear_pending(&mut self, slot: UnitSlot) {
        let unit = &mut self.units[slot];
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
        for slot in self.units.take_reshaped() {
            if self.units[slot].waits_as.is_some() {
                self.clear_pending(slot);
                self.mark_pending(slot);
            }
        }
    }

    fn link_followers(&mut self, slot: UnitSlot) {
        for peer in &self.units[slot].requirements.peers {
            self.followers.entry(peer.as_str().into()).or_default().insert(slot);
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
        let here = self.units.index_of(name).and_then(|slot| self.units[slot].at);
        let followers: Vec<UnitSlot> =
            self.followers.get(name.as_str()).into_iter().flatten().copied().collect();
        for follower in followers {
            if let Some(machine) = self.units[follower].at
                && Some(machine) != here
                && !self.runs_global(name, machine)
                && self.machines.is_present(machine)
            {
                let refusal = PlacementRefusal::PeerElsewhere(name.as_str().to_owned());
                self.displace(follower, DecisionReason::Unable(self.machines.id(machine).clone(), refusal));
            }
        }
    }
}

#[cfg(test)]
mod tests;
