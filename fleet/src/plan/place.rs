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
    plan::rules::Refusal,
    store::cluster::Unit,
};
pub use books::{Decision, Placement, Reason};
use entry::{MachineSlot, UnitSlot};

impl Placement {
    /// Adds a machine, or takes what it says of itself now.
    pub fn set_machine(&mut self, machine: &Machine) {
        let slot = self.machines.set(machine, &mut self.shapes);
        self.refresh_globals(slot);
        self.shapes.requeue(slot, &self.machines);
        self.doubtful.extend(self.machines.guests(slot).map(|unit| self.units.name(unit).clone()));
        self.freed = true;
    }

    /// Marks a machine as lost. What it holds stays there until [`Placement::give_up`].
    pub fn lose_machine(&mut self, id: &MachineId) {
        if let Some(slot) = self.machines.lose(id) {
            self.machines.set_globals(slot, &self.units, &[]);
        }
    }

    /// The lost machines that units are still scheduled on, with the number of units.
    pub fn lost(&self) -> impl Iterator<Item = (&MachineId, usize)> {
        self.machines.lost()
    }

    /// How many machines are present.
    #[must_use]
    pub fn present(&self) -> usize {
        self.machines.present()
    }

    /// The units scheduled on a machine, present or lost, by name.
    #[must_use]
    pub fn units_on(&self, id: &MachineId) -> Vec<UnitName> {
        let Some(slot) = self.machines.slot(id) else { return Vec::new() };
        let mut names: Vec<_> =
            self.machines.guests(slot).map(|unit| self.units.name(unit).clone()).collect();
        names.sort_unstable();
        names
    }

    /// Takes one unit off a lost machine, to be placed again by the next [`Placement::decide`].
    pub fn give_up(&mut self, unit: &UnitName, id: &MachineId) {
        if let Some(slot) = self.units.slot(unit)
            && let Some(machine) = self.machines.slot(id)
            && self.units[slot].at == Some(machine)
        {
            self.leave(slot, Reason::MachineAway(id.clone()));
        }
    }

    /// Adds a unit, or takes its new content and desired state. Where it is scheduled is told by
    /// [`Placement::observe`].
    pub fn set_unit(&mut self, unit: &Unit) {
        if let Some(slot) = self.units.slot(&unit.name)
            && self.units[slot].is_like(unit)
        {
            return;
        }
        let at = self.units.slot(&unit.name).and_then(|slot| self.units[slot].at);
        self.withdraw(&unit.name);
        let slot = self.units.add(unit, &mut self.shapes, &mut self.machines);
        self.regroup();
        self.follow(slot);
        if self.units[slot].is_global() {
            self.refresh_all_globals();
        }
        match at {
            Some(machine) if self.units[slot].is_scheduled() => {
                self.settle(slot, machine);
                self.doubtful.insert(unit.name.clone());
            }
            Some(machine) => {
                let reason = (self.machines.id(machine).clone(), Reason::Inactive);
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
        if let Some(slot) = self.units.slot(name)
            && let Some(machine) = self.units[slot].at
        {
            self.leaving.insert(name.clone(), (self.machines.id(machine).clone(), Reason::Inactive));
        }
        self.withdraw(name);
        self.wake_followers(name);
    }

    /// Takes over what the store says of a unit's place, whoever wrote it.
    pub fn observe(&mut self, name: &UnitName, machine: Option<&MachineId>) {
        let Some(slot) = self.units.slot(name) else {
            if let Some(machine) = machine {
                self.leaving.insert(name.clone(), (machine.clone(), Reason::Inactive));
            }
            return;
        };
        let target = machine.map(|id| self.machines.slot_or_lost(id, &mut self.shapes));
        self.leaving.remove(name);
        if self.units[slot].at == target {
            return;
        }
        if self.units[slot].at.is_some() {
            self.lift(slot);
        }
        match target {
            Some(target) if self.units[slot].is_scheduled() => {
                self.unpend(slot);
                let clash = self.machines.is_barred(target, &self.units[slot]);
                self.settle(slot, target);
                if clash {
                    self.refresh_globals(target);
                }
                self.doubtful.insert(name.clone());
            }
            Some(target) => {
                let reason = (self.machines.id(target).clone(), Reason::Inactive);
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
    pub fn hold(&mut self, name: &UnitName, held: bool) {
        if held {
            self.held.insert(name.clone());
        } else if self.held.remove(name) {
            self.todo.insert(name.clone());
        }
    }

    /// Everything that is to change now, in the order of unit names. The schedule is taken as changed.
    pub fn decide(&mut self) -> Vec<Decision> {
        let mut evicted = BTreeSet::new();
        self.review(&mut evicted);
        self.newly_leaving.clear();
        let mut decisions: BTreeMap<UnitName, Decision> = BTreeMap::new();
        self.place_todo(&mut decisions, &mut evicted);
        for (unit, (from, reason)) in std::mem::take(&mut self.leaving) {
            decisions.insert(unit.clone(), Decision { unit, from: Some(from), to: None, reason });
        }
        decisions.into_values().collect()
    }

    /// How many wanted units have no machine.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.values().map(BTreeSet::len).sum()
    }

    fn review(&mut self, evicted: &mut BTreeSet<UnitName>) {
        while let Some(name) = self.doubtful.pop_first() {
            let Some(slot) = self.units.slot(&name) else { continue };
            let Some(machine) = self.units[slot].at else { continue };
            if !self.machines.is_present(machine) {
                continue;
            }
            // Room is asked of newcomers only: what runs is not stopped because a number changed.
            let refusal = self.refusal(slot, machine).filter(|refusal| !refusal.is_want_of_room());
            if let Some(refusal) = refusal {
                let id = self.machines.id(machine).clone();
                self.leave(slot, Reason::Unable(id, refusal));
            } else {
                self.evict(slot, machine, evicted);
            }
        }
    }

    fn place_todo(&mut self, decisions: &mut BTreeMap<UnitName, Decision>, evicted: &mut BTreeSet<UnitName>) {
        // Units can chase each other by Replaces and MachineOf; a round ends all the same.
        let mut patience = 4 * self.units.len() + 64;
        loop {
            patience = patience.saturating_sub(1);
            if std::mem::take(&mut self.freed) {
                self.todo.extend(self.pending.values().filter_map(BTreeSet::first).cloned());
            }
            let Some(name) = self.todo.pop_first() else { return };
            let Some(slot) = self.units.slot(&name) else { continue };
            if self.units[slot].at.is_some() || !self.units[slot].is_scheduled() || self.held.contains(&name)
            {
                continue;
            }
            match self.choose(slot) {
                Some(machine)
                    if patience == 0 || evicted.contains(&name) && self.would_evict(slot, machine) =>
                {
                    self.pend(slot);
                }
                Some(machine) => {
                    self.place(slot, machine, evicted);
                    self.record(slot, machine, decisions);
                }
                None => self.pend(slot),
            }
            // A unit that left after it was placed in this very round has its decision taken back.
            for unit in std::mem::take(&mut self.newly_leaving) {
                self.take_back(&unit, decisions);
            }
        }
    }

    fn take_back(&mut self, unit: &UnitName, decisions: &mut BTreeMap<UnitName, Decision>) {
        let Some(decision) = decisions.remove(unit) else { return };
        match decision.from {
            Some(from) => self.leaving.insert(unit.clone(), (from, decision.reason)),
            None => self.leaving.remove(unit),
        };
    }

    fn record(&mut self, slot: UnitSlot, machine: MachineSlot, decisions: &mut BTreeMap<UnitName, Decision>) {
        let unit = self.units.name(slot).clone();
        let to = Some(self.machines.id(machine).clone());
        let (from, reason) = match self.leaving.remove(&unit) {
            Some((from, reason)) => (Some(from), reason),
            None => (None, Reason::Wanted),
        };
        if from == to {
            return;
        }
        decisions.insert(unit.clone(), Decision { unit, from, to, reason });
    }

    fn place(&mut self, slot: UnitSlot, machine: MachineSlot, evicted: &mut BTreeSet<UnitName>) {
        self.unpend(slot);
        self.settle(slot, machine);
        if let Some(next) = self.pending.get(&self.units[slot].shape).and_then(BTreeSet::first) {
            self.todo.insert(next.clone());
        }
        self.evict(slot, machine, evicted);
        self.wake_followers(&self.units.name(slot).clone());
    }

    fn evict(&mut self, slot: UnitSlot, machine: MachineSlot, evicted: &mut BTreeSet<UnitName>) {
        for guest in self.evictions(slot, machine) {
            let name = self.units.name(guest).clone();
            let refusal = Refusal::Replaced(self.units.name(slot).clone());
            self.leave(guest, Reason::Unable(self.machines.id(machine).clone(), refusal));
            evicted.insert(name);
        }
        if !self.units[slot].evicts.is_empty() {
            self.refresh_globals(machine);
        }
    }

    /// Takes a unit off its machine and lines it up for another.
    fn leave(&mut self, slot: UnitSlot, reason: Reason) {
        let Some(machine) = self.units[slot].at else { return };
        let name = self.units.name(slot).clone();
        self.leaving.entry(name.clone()).or_insert_with(|| (self.machines.id(machine).clone(), reason));
        self.newly_leaving.push(name.clone());
        self.lift(slot);
        self.todo.insert(name.clone());
        self.wake_followers(&name);
    }

    /// Puts a unit on a machine in the books.
    fn settle(&mut self, slot: UnitSlot, machine: MachineSlot) {
        self.machines.take_in(machine, slot, &self.units[slot]);
        self.units[slot].at = Some(machine);
        self.shapes.count_spread(&self.units[slot], self.machines.machine(machine), 1);
    }

    /// Takes a unit off its machine in the books.
    fn lift(&mut self, slot: UnitSlot) {
        let Some(machine) = self.units[slot].at.take() else { return };
        self.machines.let_go(machine, slot, &self.units[slot]);
        self.shapes.count_spread(&self.units[slot], self.machines.machine(machine), -1);
        if self.machines.lacks_globals(machine) {
            self.refresh_globals(machine);
        }
        self.shapes.requeue(machine, &self.machines);
        self.freed = true;
    }

    fn withdraw(&mut self, name: &UnitName) {
        let Some(slot) = self.units.slot(name) else { return };
        self.lift(slot);
        self.unpend(slot);
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
        self.units.remove(name, &mut self.shapes);
    }

    fn pend(&mut self, slot: UnitSlot) {
        let unit = &mut self.units[slot];
        unit.waits_as = Some(unit.shape);
        self.pending.entry(unit.shape).or_default().insert(unit.name.clone());
    }

    fn unpend(&mut self, slot: UnitSlot) {
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
    fn regroup(&mut self) {
        for slot in self.units.take_reshaped() {
            if self.units[slot].waits_as.is_some() {
                self.unpend(slot);
                self.pend(slot);
            }
        }
    }

    fn follow(&mut self, slot: UnitSlot) {
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
        let here = self.units.slot(name).and_then(|slot| self.units[slot].at);
        let followers: Vec<UnitSlot> =
            self.followers.get(name.as_str()).into_iter().flatten().copied().collect();
        for follower in followers {
            if let Some(machine) = self.units[follower].at
                && Some(machine) != here
                && !self.runs_global(name, machine)
                && self.machines.is_present(machine)
            {
                let refusal = Refusal::PeerElsewhere(name.as_str().to_owned());
                self.leave(follower, Reason::Unable(self.machines.id(machine).clone(), refusal));
            }
        }
    }
}

#[cfg(test)]
mod tests;
