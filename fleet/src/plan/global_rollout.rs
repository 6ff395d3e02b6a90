//! Brings a changed global unit to its machines, a few at a time, each proven before the next; and back,
//! as it came, when one fails.
//!
//! Knows which machines may have the new content and for how long it has been well there. Refuses to know
//! how a machine learns that it is admitted. Invariant: no more machines than `MaxParallel=` that ran the
//! unit before are on their way to the new content at once.
//!
//! ```text
//!  forward --(all proven)--> finished
//!     |                          ^
//!     +--(one failed)--> back ---+
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{
        machine::MachineId,
        state::{JobState, UnitState},
        unit_file::UnitHash,
        unit_name::UnitName,
    },
    plan::{
        moment::Moment,
        rollout::{Step, Trial, Verdict},
    },
    store::cluster::{Cluster, Direction, Unit},
};

/// The rollouts of global units.
#[derive(Debug, Default)]
pub struct GlobalRollouts(BTreeMap<UnitName, Progress>);

/// How far one content got.
#[derive(Debug)]
struct Progress {
    hash: UnitHash,
    trials: BTreeMap<MachineId, Trial>,
    proven: BTreeSet<MachineId>,
    /// The first failure of a content that is not taken back.
    failure: Option<String>,
}

fn said<'a>(cluster: &'a Cluster, unit: &Unit, machine: &MachineId) -> Option<&'a UnitState> {
    cluster.state(unit.name.as_str(), machine.as_str())
}

impl GlobalRollouts {
    /// Looks at a unit whose content, admissions or states may have changed.
    pub fn look_at(&mut self, cluster: &Cluster, name: &UnitName, now: Moment) {
        let rolling = cluster.units.get(name).filter(|unit| unit.is_global() && unit.rollout.is_some());
        let Some(unit) = rolling else {
            self.0.remove(name);
            return;
        };
        let hash = unit.file.hash();
        let fresh = || Progress { hash, trials: BTreeMap::new(), proven: BTreeSet::new(), failure: None };
        let progress = self.0.entry(name.clone()).or_insert_with(fresh);
        if progress.hash != hash {
            *progress = fresh();
        }
        progress.look(cluster, unit, now);
    }

    /// The steps to take now.
    pub fn steps(&mut self, cluster: &Cluster, now: Moment) -> Vec<Step> {
        let mut steps = Vec::new();
        for (name, progress) in &mut self.0 {
            if let Some(unit) = cluster.units.get(name) {
                progress.steps(cluster, unit, now, &mut steps);
            }
        }
        steps
    }

    /// When to look again although nothing happens.
    #[must_use]
    pub fn wake(&self, cluster: &Cluster) -> Option<Moment> {
        let rolling = self.0.iter().filter_map(|(name, progress)| Some((cluster.units.get(name)?, progress)));
        rolling
            .flat_map(|(unit, progress)| {
                progress.trials.values().map(|trial| trial.wake(unit.requirements.rollout))
            })
            .min()
    }
}

impl Progress {
    fn look(&mut self, cluster: &Cluster, unit: &Unit, now: Moment) {
        let admitted = |machine: &MachineId| {
            cluster.machines.contains_key(machine) && cluster.is_admitted(unit, machine)
        };
        self.trials.retain(|machine, _| admitted(machine));
        self.proven.retain(admitted);
        // An engine that takes over meets machines that were admitted: it watches them anew.
        for machine in cluster.admissions.get(&unit.name).into_iter().flat_map(BTreeMap::keys) {
            if admitted(machine) && !self.proven.contains(machine) {
                let trial = self.trials.entry(machine.clone()).or_insert_with(|| Trial::of(self.hash, now));
                trial.see(said(cluster, unit, machine), now);
            }
        }
    }

    fn steps(&mut self, cluster: &Cluster, unit: &Unit, now: Moment, steps: &mut Vec<Step>) {
        let rules = unit.requirements.rollout;
        self.trials.retain(|machine, _| cluster.machines.contains_key(machine));
        let mut failed = None;
        for (machine, trial) in std::mem::take(&mut self.trials) {
            match trial.verdict(said(cluster, unit, &machine), rules, now) {
                Verdict::Open => {
                    self.trials.insert(machine, trial);
                }
                Verdict::Failed(what) => {
                    failed.get_or_insert_with(|| format!("{machine} {what}"));
                    self.proven.insert(machine);
                }
                Verdict::Proven => {
                    self.proven.insert(machine);
                }
            }
        }
        let revert = unit.previous.filter(|_| unit.rollout == Some(Direction::Forward) && rules.auto_revert);
        let stays = failed.as_ref().map(|what| {
            format!("change to {} failed and stays: {} on machine {what}", self.hash.short(), unit.name)
        });
        if let (Some(what), Some(to)) = (failed, revert) {
            let note = format!("change to {} taken back: {} on machine {what}", self.hash.short(), unit.name);
            steps.push(Step::Revert { unit: unit.name.clone(), from: self.hash, to, note });
            return;
        }
        if unit.rollout == Some(Direction::Forward) {
            self.failure = self.failure.take().or(stays);
        }
        let room = (rules.max_parallel as usize).saturating_sub(self.trials.len());
        let due = self.due(cluster, unit);
        for machine in due.iter().take(room) {
            self.trials.insert(machine.clone(), Trial::of(self.hash, now));
            let (unit, machine) = (unit.name.clone(), machine.clone());
            steps.push(Step::Admit { unit, machine, hash: self.hash });
        }
        if due.is_empty() && self.trials.is_empty() {
            let note = self.failure.clone().unwrap_or_default();
            steps.push(Step::Finish { unit: unit.name.clone(), hash: self.hash, note });
        }
    }

    /// The machines that run another content and have not been told of this one.
    fn due(&self, cluster: &Cluster, unit: &Unit) -> Vec<MachineId> {
        if unit.desired != JobState::Launched {
            return Vec::new();
        }
        let is_due = |machine: &MachineId, state: &UnitState| {
            state.hash != unit.file.hash()
                && cluster.machines.contains_key(machine)
                && !cluster.is_admitted(unit, machine)
                && !self.trials.contains_key(machine)
        };
        let states = cluster.states.get(&unit.name).into_iter().flatten();
        states.filter(|(machine, state)| is_due(machine, state)).map(|(machine, _)| machine.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
