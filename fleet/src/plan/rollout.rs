//! Brings a changed unit to the machine that runs it: a few of a family at a time, each proven before
//! the next, and all taken back when one fails.
//!
//! Knows which content each machine was told to run, and for how long it has been well. Refuses to know
//! how a content is stored. Invariant: of a family, no more launched units than `MaxParallel=` are on
//! their way to another content at once.
//!
//! ```text
//!  due --(a place is free)--> changing --(healthy for HealthyAfter)--> done
//!                                |
//!                                +--(failed, or HealthDeadline passed)--> the family goes back
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{
        machine::MachineId,
        moment::MonotonicTime,
        requirements::RolloutRules,
        state::{JobState, UnitState},
        unit_file::UnitHash,
        unit_name::UnitName,
    },
    store::cluster::{Cluster, SubmittedUnit},
};

/// One step of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutStep {
    /// The machine may change the global unit to this content.
    Admit {
        /// The unit.
        unit: UnitName,
        /// The machine that runs it.
        machine: MachineId,
        /// The content.
        hash: UnitHash,
    },
    /// The machine is to run this content of the unit.
    Change {
        /// The unit.
        unit: UnitName,
        /// The machine that runs it.
        machine: MachineId,
        /// The content.
        hash: UnitHash,
    },
    /// The change is over: every machine that should has the content, and it proved well, or nobody wants
    /// it back.
    Finish {
        /// The unit.
        unit: UnitName,
        /// The content.
        hash: UnitHash,
        /// What went wrong, for people; empty if nothing did.
        note: String,
    },
    /// The unit gets its former content back.
    Revert {
        /// The unit.
        unit: UnitName,
        /// The content that failed.
        from: UnitHash,
        /// The former content.
        to: UnitHash,
        /// What went wrong, for people.
        note: String,
    },
}

impl RolloutStep {
    /// The unit that it changes.
    #[must_use]
    pub fn changed_unit(&self) -> &UnitName {
        match self {
            Self::Admit { unit, .. }
            | Self::Change { unit, .. }
            | Self::Finish { unit, .. }
            | Self::Revert { unit, .. } => unit,
        }
    }
}

/// A content on its way to one machine, watched until it proved well or did not.
#[derive(Debug, Clone, Copy)]
pub(super) struct RolloutTrial {
    hash: UnitHash,
    since: MonotonicTime,
    healthy: Option<MonotonicTime>,
}

/// How a trial stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TrialVerdict {
    Failed(String),
    Open,
    Proven,
}

impl RolloutTrial {
    pub(super) const fn begin_trial(hash: UnitHash, since: MonotonicTime) -> Self {
        Self { hash, since, healthy: None }
    }

    /// Takes in what the machine says.
    pub(super) fn observe_state(&mut self, state: Option<&UnitState>, now: MonotonicTime) {
        match state.filter(|state| state.hash == self.hash && state.is_healthy()) {
            Some(_) => self.healthy = self.healthy.or(Some(now)),
            // One bad report starts the count anew. A unit that restarts every few seconds is up at almost
            // any look, and never well.
            None => self.healthy = None,
        }
    }

    pub(super) fn trial_verdict(
        &self,
        state: Option<&UnitState>,
        rules: RolloutRules,
        now: MonotonicTime,
    ) -> TrialVerdict {
        if state.is_some_and(|state| state.hash == self.hash && state.is_failed()) {
            // Without waiting for the deadline: systemd tries restarts by itself before it says `failed`.
            return TrialVerdict::Failed("failed".to_owned());
        }
        match self.healthy {
            Some(_) if self.is_proven(rules, now) => TrialVerdict::Proven,
            // Only while it is not up: one that came up late has its full time to prove itself.
            None if now >= self.since + rules.deadline => {
                TrialVerdict::Failed(format!("was not up within {} s", rules.deadline.as_secs()))
            }
            _ => TrialVerdict::Open,
        }
    }

    /// Whether it has been well for long enough.
    fn is_proven(&self, rules: RolloutRules, now: MonotonicTime) -> bool {
        self.healthy.is_some_and(|since| now >= since + rules.healthy_after)
    }

    /// When the verdict may change although nothing happens.
    pub(super) fn next_wakeup(&self, rules: RolloutRules) -> MonotonicTime {
        match self.healthy {
            Some(since) => since + rules.healthy_after,
            None => self.since + rules.deadline,
        }
    }
}

/// The rollouts of a cluster.
#[derive(Debug, Default)]
pub struct ClusterRollouts {
    /// Units on their way to another content.
    changing: BTreeMap<UnitName, RolloutTrial>,
    /// Units whose machine should be told of another content, by family.
    due: BTreeMap<UnitName, BTreeSet<UnitName>>,
}

/// The instances of a template belong together; any other unit is alone.
fn family_of(unit: &UnitName) -> UnitName {
    unit.template().unwrap_or_else(|| unit.clone())
}

impl ClusterRollouts {
    /// Looks at a unit whose content, place or state may have changed.
    pub fn look_at(&mut self, cluster: &Cluster, name: &UnitName, now: MonotonicTime) {
        let lagging = cluster
            .units
            .get(name)
            .zip(cluster.assignments.get(name))
            .filter(|(unit, place)| place.hash != unit.file.hash());
        let family = family_of(name);
        if lagging.is_some() {
            self.changing.remove(name);
            self.due.entry(family).or_default().insert(name.clone());
            return;
        }
        if let Some(due) = self.due.get_mut(&family) {
            due.remove(name);
            if due.is_empty() {
                self.due.remove(&family);
            }
        }
        self.look_at_change(cluster, name, now);
    }

    fn look_at_change(&mut self, cluster: &Cluster, name: &UnitName, now: MonotonicTime) {
        let placed = cluster.assignments.contains_key(name);
        let Some(unit) = cluster.units.get(name).filter(|unit| placed && is_gated(unit)) else {
            self.changing.remove(name);
            return;
        };
        let hash = unit.file.hash();
        let state = cluster
            .target_of(name.as_str())
            .and_then(|machine| cluster.state_on(name.as_str(), machine.as_str()));
        let is_new = state.is_none_or(|state| state.hash != hash);
        let change = match self.changing.get_mut(name) {
            Some(change) if change.hash == hash => change,
            // An engine that takes over meets changes that are under way: it watches them anew.
            _ if unit.rollout.is_some() || unit.previous.is_some() && is_new => self
                .changing
                .entry(name.clone())
                .insert_entry(RolloutTrial::begin_trial(hash, now))
                .into_mut(),
            _ => {
                self.changing.remove(name);
                return;
            }
        };
        change.observe_state(state, now);
    }

    /// The steps to take now.
    pub fn next_steps(&mut self, cluster: &Cluster, now: MonotonicTime) -> Vec<RolloutStep> {
        let mut steps = self.end_trials(cluster, now);
        for (family_name, due) in &self.due {
            let is_open = |(unit, trial): &(&UnitName, &RolloutTrial)| {
                let rules = cluster.units.get(*unit).map(|unit| unit.requirements.rollout);
                family_of(unit) == *family_name && rules.is_some_and(|rules| !trial.is_proven(rules, now))
            };
            let in_change = self.changing.iter().filter(is_open).count();
            // The rule of the first unit that is due counts for its family. Instances of one template have
            // one text, so they differ only while a change of `MaxParallel=` itself is rolled out.
            let mut room = None;
            for name in due {
                let Some((unit, place)) = cluster.units.get(name).zip(cluster.assignments.get(name)) else {
                    continue;
                };
                let most = unit.requirements.rollout.max_parallel as usize;
                let room = room.get_or_insert_with(|| most.saturating_sub(in_change));
                // A unit that does not run cannot fail, so it takes nobody's place.
                if is_gated(unit) {
                    if *room == 0 {
                        continue;
                    }
                    *room -= 1;
                }
                let hash = unit.file.hash();
                steps.push(RolloutStep::Change { unit: name.clone(), machine: place.machine.clone(), hash });
            }
        }
        for step in &steps {
            if let RolloutStep::Change { unit, hash, .. } = step
                && cluster.units.get(unit).is_some_and(is_gated)
            {
                self.changing.insert(unit.clone(), RolloutTrial::begin_trial(*hash, now));
            }
            if let RolloutStep::Change { unit, .. } = step
                && let Some(due) = self.due.get_mut(&family_of(unit))
            {
                due.remove(unit);
            }
        }
        self.due.retain(|_, due| !due.is_empty());
        steps
    }

    /// When to look again although nothing happens.
    #[must_use]
    pub fn next_wakeup(&self, cluster: &Cluster) -> Option<MonotonicTime> {
        self.changing
            .iter()
            .filter_map(|(name, change)| {
                Some(change.next_wakeup(cluster.units.get(name)?.requirements.rollout))
            })
            .min()
    }

    /// Ends the changes that proved well and takes back those that did not. A change that ended is watched
    /// until the store says so too: the write may be lost.
    fn end_trials(&mut self, cluster: &Cluster, now: MonotonicTime) -> Vec<RolloutStep> {
        let (mut failed, mut steps) = (Vec::new(), Vec::new());
        self.changing.retain(|name, change| {
            let Some(unit) = cluster.units.get(name) else { return false };
            let state = cluster
                .target_of(name.as_str())
                .and_then(|machine| cluster.state_on(name.as_str(), machine.as_str()));
            match change.trial_verdict(state, unit.requirements.rollout, now) {
                TrialVerdict::Failed(what) => failed.push((name.clone(), what)),
                TrialVerdict::Open => return true,
                TrialVerdict::Proven if unit.rollout.is_some() => {
                    let (unit, hash) = (name.clone(), change.hash);
                    steps.push(RolloutStep::Finish { unit, hash, note: String::new() });
                    return true;
                }
                TrialVerdict::Proven => {}
            }
            false
        });
        for (name, what) in failed {
            self.take_back(cluster, &name, &what, &mut steps);
        }
        steps
    }

    fn take_back(&mut self, cluster: &Cluster, culprit: &UnitName, what: &str, steps: &mut Vec<RolloutStep>) {
        let Some(unit) = cluster.units.get(culprit) else { return };
        let from = unit.file.hash();
        let (Some(to), true) = (unit.previous, unit.requirements.rollout.auto_revert) else {
            if unit.rollout.is_some() {
                let note = format!("change to {} failed and stays: {culprit} {what}", from.short_hash());
                steps.push(RolloutStep::Finish { unit: culprit.clone(), hash: from, note });
            }
            return;
        };
        let family = family_of(culprit);
        let note = format!("change to {} taken back: {culprit} {what}", from.short_hash());
        // The whole family goes back, also those that proved well: half a family on a text that failed is
        // what nobody asked for.
        for kin in cluster.units.values().filter(|kin| family_of(&kin.name) == family) {
            if kin.file.hash() == from && kin.previous == Some(to) {
                self.changing.remove(&kin.name);
                if let Some(due) = self.due.get_mut(&family) {
                    due.remove(&kin.name);
                }
                let step = RolloutStep::Revert { unit: kin.name.clone(), from, to, note: note.clone() };
                // Two of a family may fail in one plan.
                if !steps.contains(&step) {
                    steps.push(step);
                }
            }
        }
    }
}

/// Whether a change of this unit can hurt somebody.
fn is_gated(unit: &SubmittedUnit) -> bool {
    unit.desired == JobState::Launched && !unit.is_global()
}

#[cfg(test)]
mod tests;
