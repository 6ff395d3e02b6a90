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
        moment::MonotonicTime,
        state::{JobState, UnitState},
        unit_file::UnitHash,
        unit_name::UnitName,
    },
    plan::rollout::{RolloutStep, RolloutTrial, TrialVerdict},
    store::cluster::{ChangeDirection, Cluster, SubmittedUnit},
};

/// The rollouts of global units.
#[derive(Debug, Default)]
pub struct GlobalRollouts(BTreeMap<UnitName, RolloutProgress>);

/// How far one content got.
#[derive(Debug)]
struct RolloutProgress {
    hash: UnitHash,
    trials: BTreeMap<MachineId, RolloutTrial>,
    proven: BTreeSet<MachineId>,
    /// The first failure of a content that is not taken back.
    failure: Option<String>,
}

fn reported_state<'a>(
    cluster: &'a Cluster,
    unit: &SubmittedUnit,
    machine: &MachineId,
) -> Option<&'a UnitState> {
    cluster.state_on(unit.name.as_str(), machine.as_str())
}

impl GlobalRollouts {
    /// Looks at a unit whose content, admissions or states may have changed.
    pub fn look_at(&mut self, cluster: &Cluster, name: &UnitName, now: MonotonicTime) {
        let rolling = cluster.units.get(name).filter(|unit| unit.is_global() && unit.rollout.is_some());
        let Some(unit) = rolling else {
            self.0.remove(name);
            return;
        };
        let hash = unit.file.hash();
        // A new text in the middle of a change begins anew: what proved well before was another text.
        let fresh =
            || RolloutProgress { hash, trials: BTreeMap::new(), proven: BTreeSet::new(), failure: None };
        let progress = self.0.entry(name.clone()).or_insert_with(fresh);
        if progress.hash != hash {
            *progress = fresh();
        }
        progress.update_progress(cluster, unit, now);
    }

    /// The steps to take now.
    pub fn next_steps(&mut self, cluster: &Cluster, now: MonotonicTime) -> Vec<RolloutStep> {
        let mut steps = Vec::new();
        for (name, progress) in &mut self.0 {
            if let Some(unit) = cluster.units.get(name) {
                progress.push_steps(cluster, unit, now, &mut steps);
            }
        }
        steps
    }

    /// When to look again although nothing happens.
    #[must_use]
    pub fn next_wakeup(&self, cluster: &Cluster) -> Option<MonotonicTime> {
        let rolling = self.0.iter().filter_map(|(name, progress)| Some((cluster.units.get(name)?, progress)));
        rolling
            .flat_map(|(unit, progress)| {
                progress.trials.values().map(|trial| trial.next_wakeup(unit.requirements.rollout))
            })
            .min()
    }
}

impl RolloutProgress {
    fn update_progress(&mut self, cluster: &Cluster, unit: &SubmittedUnit, now: MonotonicTime) {
        let admitted = |machine: &MachineId| {
            cluster.machines.contains_key(machine) && cluster.is_admitted(unit, machine)
        };
        self.trials.retain(|machine, _| admitted(machine));
        self.proven.retain(admitted);
        // An engine that takes over meets machines that were admitted: it watches them anew.
        for machine in cluster.admissions.get(&unit.name).into_iter().flat_map(BTreeMap::keys) {
            if admitted(machine) && !self.proven.contains(machine) {
                let trial = self
                    .trials
                    .entry(machine.clone())
                    .or_insert_with(|| RolloutTrial::begin_trial(self.hash, now));
                trial.observe_state(reported_state(cluster, unit, machine), now);
            }
        }
    }

    fn push_steps(
        &mut self,
        cluster: &Cluster,
        unit: &SubmittedUnit,
        now: MonotonicTime,
        steps: &mut Vec<RolloutStep>,
    ) {
        let rules = unit.requirements.rollout;
        self.trials.retain(|machine, _| cluster.machines.contains_key(machine));
        let mut failed = None;
        for (machine, trial) in std::mem::take(&mut self.trials) {
            match trial.trial_verdict(reported_state(cluster, unit, &machine), rules, now) {
                TrialVerdict::Open => {
                    self.trials.insert(machine, trial);
                }
                TrialVerdict::Failed(what) => {
                    failed.get_or_insert_with(|| format!("{machine} {what}"));
                    // A failed machine counts as done. With `AutoRevert=no` the change goes on, and asking
                    // this one again changes nothing.
                    self.proven.insert(machine);
                }
                TrialVerdict::Proven => {
                    self.proven.insert(machine);
                }
            }
        }
        let revert =
            unit.previous.filter(|_| unit.rollout == Some(ChangeDirection::Forward) && rules.auto_revert);
        let stays = failed.as_ref().map(|what| {
            format!("change to {} failed and stays: {} on machine {what}", self.hash.short_hash(), unit.name)
        });
        if let (Some(what), Some(to)) = (failed, revert) {
            let note =
                format!("change to {} taken back: {} on machine {what}", self.hash.short_hash(), unit.name);
            steps.push(RolloutStep::Revert { unit: unit.name.clone(), from: self.hash, to, note });
            return;
        }
        if unit.rollout == Some(ChangeDirection::Forward) {
            self.failure = self.failure.take().or(stays);
        }
        let room = (rules.max_parallel as usize).saturating_sub(self.trials.len());
        let due = self.due_machines(cluster, unit);
        for machine in due.iter().take(room) {
            self.trials.insert(machine.clone(), RolloutTrial::begin_trial(self.hash, now));
            let (unit, machine) = (unit.name.clone(), machine.clone());
            steps.push(RolloutStep::Admit { unit, machine, hash: self.hash });
        }
        if due.is_empty() && self.trials.is_empty() {
            let note = self.failure.clone().unwrap_or_default();
            steps.push(RolloutStep::Finish { unit: unit.name.clone(), hash: self.hash, note });
        }
    }

    /// The machines that run another content and have not been told of this one.
    fn due_machines(&self, cluster: &Cluster, unit: &SubmittedUnit) -> Vec<MachineId> {
        if unit.desired != JobState::Launched {
            // Nothing runs, so nothing can be proven: the change ends at once.
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
