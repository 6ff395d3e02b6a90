//! The questions a decision asks: which machine, may it stay, who has to leave.
//!
//! Knows the rules in the form the index answers fast. Invariant: agrees with
//! [`crate::plan::rules::check_access`], which a property test holds it to.

use crate::{
    model::{machine::Resources, unit_name::UnitName},
    plan::{
        place::{
            entry::{MachineIndex, UnitIndex},
            machines::MachineTable,
            schedule::{DecisionReason, PlacementDecision, UnitPlacement},
            units::UnitTable,
        },
        rules::PlacementRefusal,
    },
};

impl UnitPlacement {
    /// The machine for a unit that has none.
    pub(super) fn choose_machine(&mut self, index: UnitIndex) -> Option<MachineIndex> {
        if self.shapes.take_stale_spread() {
            self.recount_spread();
        }
        if let Some(candidates) = self.bound_to(index) {
            return candidates
                .into_iter()
                .filter(|&machine| self.refusal_of_guest(index, machine).is_none())
                // The fewest units and then the smallest ID: any fixed order would do, and this one lets a
                // new leader decide as the one before.
                .min_by_key(|&machine| {
                    (self.machines.machine_load(machine), self.machines.sorted_position(machine))
                });
        }
        let (machines, units, unit) = (&self.machines, &self.units, &self.units[index]);
        let peers = &unit.requirements.peers;
        let has_peers = |machine| peers.iter().all(|peer| is_on(units, machines, peer, machine));
        self.shapes.best_machine(machines, unit, has_peers)
    }

    /// The few machines that `MachineID=`, or `MachineOf=` of a unit that is on one machine, leave over.
    fn bound_to(&self, index: UnitIndex) -> Option<Vec<MachineIndex>> {
        let wanted = &self.units[index].requirements;
        if let Some(required) = &wanted.machine_id {
            return Some(self.machines.machines_named(required));
        }
        if wanted.peers.iter().any(|peer| self.units.find_unit(peer).is_none()) {
            return Some(Vec::new());
        }
        wanted.peers.iter().find_map(|peer| {
            let peer = self.units.find_unit(peer)?;
            (!self.units[peer].is_global()).then(|| self.units[peer].at.into_iter().collect())
        })
    }

    /// Why a machine cannot have a unit, or keep it; the unit itself does not count.
    pub(super) fn refusal_of(&mut self, index: UnitIndex, machine: MachineIndex) -> Option<PlacementRefusal> {
        let lives_here = self.units[index].at == Some(machine);
        // Asked as if the unit were not there: otherwise it would conflict with itself and stand in its own
        // way for room.
        if lives_here {
            self.machines.let_go(machine, index, &self.units[index]);
        }
        let refusal = self.refusal_of_guest(index, machine);
        if lives_here {
            self.machines.take_in(machine, index, &self.units[index]);
        }
        refusal
    }

    fn refusal_of_guest(&self, index: UnitIndex, machine: MachineIndex) -> Option<PlacementRefusal> {
        let unit = &self.units[index];
        let wanted = &unit.requirements;
        let host = self.machines.machine_at(machine);
        if let Some(required) = wanted.machine_id.as_ref().filter(|required| !host.id.is_named_by(required)) {
            return Some(PlacementRefusal::OtherMachine {
                machine: host.id.clone(),
                required: required.clone(),
            });
        }
        if !wanted.accepts_metadata(&host.metadata) {
            return Some(PlacementRefusal::Metadata);
        }
        if let Some(peer) =
            wanted.peers.iter().find(|peer| !is_on(&self.units, &self.machines, peer, machine))
        {
            return Some(PlacementRefusal::PeerElsewhere(peer.clone()));
        }
        if self.machines.is_barred(machine, unit) {
            return Some(self.clash_with_guest(index, machine));
        }
        if host.draining || !self.machines.is_present(machine) {
            return Some(PlacementRefusal::Draining);
        }
        (!self.machines.has_room(machine, unit)).then(|| self.crowding_refusal(index, machine))
    }

    pub(super) fn runs_global(&self, name: &UnitName, machine: MachineIndex) -> bool {
        self.units.index_of(name).is_some_and(|index| self.machines.global_units(machine).contains(&index))
    }

    /// The guest, first by name, that a unit cannot live with.
    fn clash_with_guest(&self, index: UnitIndex, machine: MachineIndex) -> PlacementRefusal {
        let unit = &self.units[index];
        let guests =
            self.machines.placed_units(machine).chain(self.machines.global_units(machine).iter().copied());
        let meets = |ours: &[u32], theirs: &[u32]| ours.iter().any(|pattern| theirs.contains(pattern));
        let clashing =
            guests.filter(|&guest| guest != index).map(|guest| &self.units[guest]).filter(|guest| {
                meets(&unit.avoids, &guest.hits)
                    || meets(&guest.avoids, &unit.hits)
                    || meets(&guest.evicts, &unit.hits)
            });
        // By name, so that `explain` and the engine name the same guest.
        let first = clashing.min_by(|a, b| a.name.cmp(&b.name));
        match first {
            Some(guest) if meets(&unit.avoids, &guest.hits) || meets(&guest.avoids, &unit.hits) => {
                PlacementRefusal::Conflict(guest.name.clone())
            }
            Some(guest) => PlacementRefusal::Replaced(guest.name.clone()),
            None => PlacementRefusal::Metadata,
        }
    }

    fn crowding_refusal(&self, index: UnitIndex, machine: MachineIndex) -> PlacementRefusal {
        let host = self.machines.machine_at(machine);
        if let Some(most) = host.max_units.filter(|&most| self.machines.machine_load(machine) >= most) {
            return PlacementRefusal::Full(most);
        }
        let (capacity, used) = (host.capacity.unwrap_or_default(), self.machines.used_resources(machine));
        let left = Resources {
            memory_mib: capacity.memory_mib.saturating_sub(used.memory_mib),
            cpu_percent: capacity.cpu_percent.saturating_sub(used.cpu_percent),
        };
        PlacementRefusal::Resources { left, asked: self.units[index].requirements.reserve }
    }

    /// The guests that leave a machine when a unit comes.
    pub(super) fn evicted_guests(&self, index: UnitIndex, machine: MachineIndex) -> Vec<UnitIndex> {
        let evicts = &self.units[index].evicts;
        if evicts.is_empty() {
            return Vec::new();
        }
        let mut guests: Vec<UnitIndex> = self
            .machines
            .placed_units(machine)
            .filter(|&guest| guest != index)
            .filter(|&guest| evicts.iter().any(|pattern| self.units[guest].hits.contains(pattern)))
            .collect();
        guests.sort_by(|&a, &b| self.units.unit_name(a).cmp(self.units.unit_name(b)));
        guests
    }

    pub(super) fn would_evict(&self, index: UnitIndex, machine: MachineIndex) -> bool {
        !self.evicted_guests(index, machine).is_empty()
    }

    /// Works out anew which global units a machine runs.
    pub(super) fn refresh_globals(&mut self, machine: MachineIndex) {
        let wanted: Vec<UnitIndex> = self
            .units
            .global_units()
            .filter(|&unit| {
                let wanted = &self.units[unit].requirements;
                wanted.accepts_metadata(&self.machines.machine_at(machine).metadata)
            })
            .collect();
        if wanted.is_empty() && self.machines.global_units(machine).is_empty() {
            return;
        }
        let before = self.machines.global_units(machine).to_vec();
        self.machines.set_globals(machine, &self.units, &wanted);
        self.shapes.requeue_machine(machine, &self.machines);
        self.freed = true;
        let after = self.machines.global_units(machine);
        let changed = before.iter().filter(|unit| !after.contains(unit));
        let changed = changed.chain(after.iter().filter(|unit| !before.contains(unit)));
        let names: Vec<UnitName> = changed.map(|&unit| self.units.unit_name(unit).clone()).collect();
        for name in names {
            self.wake_followers(&name);
        }
    }

    pub(super) fn refresh_all_globals(&mut self) {
        let present: Vec<MachineIndex> = self.machines.all_present().collect();
        for machine in present {
            self.refresh_globals(machine);
        }
    }

    fn recount_spread(&mut self) {
        for index in self.units.placed_units() {
            let unit = &self.units[index];
            if let Some(machine) = unit.at {
                self.shapes.count_spread(unit, self.machines.machine_at(machine), 1);
            }
        }
    }

    /// Moves units from the fullest machines to the emptiest able ones, at most `budget`.
    pub fn rebalance_units(&mut self, budget: u32) -> Vec<PlacementDecision> {
        let mut decisions = Vec::new();
        let mut stuck = Vec::new();
        while decisions.len() < budget as usize {
            let crowded =
                self.machines.all_present().filter(|index| !stuck.contains(index)).max_by_key(|&index| {
                    (
                        self.machines.machine_load(index),
                        std::cmp::Reverse(self.machines.sorted_position(index)),
                    )
                });
            let Some(crowded) = crowded else { break };
            match self.relieve_machine(crowded) {
                Some(decision) => decisions.push(decision),
                None => stuck.push(crowded),
            }
        }
        decisions
    }

    fn relieve_machine(&mut self, crowded: MachineIndex) -> Option<PlacementDecision> {
        let mut guests: Vec<UnitIndex> = self.machines.placed_units(crowded).collect();
        guests.sort_by(|&a, &b| self.units.unit_name(a).cmp(self.units.unit_name(b)));
        guests.retain(|&unit| self.units[unit].requirements.peers.is_empty());
        for unit in guests {
            self.unassign_unit(unit);
            let target = self.choose_machine(unit).filter(|&machine| {
                // `crowded` has lost one already: only a real difference is worth a move.
                self.machines.machine_load(machine) < self.machines.machine_load(crowded)
                    && !self.would_evict(unit, machine)
            });
            self.assign_unit(unit, target.unwrap_or(crowded));
            if let Some(target) = target {
                let from = self.machines.machine_id(crowded).clone();
                let name = self.units.unit_name(unit).clone();
                self.wake_followers(&name);
                let reason = DecisionReason::Rebalanced(from.clone());
                let to = Some(self.machines.machine_id(target).clone());
                return Some(PlacementDecision { unit: name, from: Some(from), to, reason });
            }
        }
        None
    }
}

fn is_on(units: &UnitTable, machines: &MachineTable, peer: &str, machine: MachineIndex) -> bool {
    let Some(peer) = units.find_unit(peer) else { return false };
    units[peer].at == Some(machine) || machines.global_units(machine).contains(&peer)
}
