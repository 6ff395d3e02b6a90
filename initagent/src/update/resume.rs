//! Says what follows from the journal after a cut, a kill or a restart, at whatever point it came.
//!
//! Pure: a function of the journal's phase, the slot table and the slot that runs. Refuses to know how each of
//! them is read. The slot table commits: where it and the journal disagree, the table is right, since it is
//! written last on the way up and read first by the boot loader.
//! Invariant: a release is condemned only by its own trial, known by its root hash, never by the trial of what
//! was in the slot before.

use image_format::digest::Sha256;
use image_format::slot::{Slot, SlotState, SlotTable, Tries};

use super::phase::{
    Action, Armed, Cause, Failure, Fetching, MAX_TRIAL_BOOTS, Outcome, Phase, Steady, Target, Trial,
    TrialKind, Written,
};

/// What is true of this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootFacts {
    /// What the kernel calls this boot.
    pub(crate) boot: String,
    /// The slot that runs.
    pub(crate) running: Slot,
    /// The root hash of what runs.
    pub(crate) running_root: Sha256,
    /// The slot table, unless both copies are lost.
    pub(crate) table: Option<SlotTable>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resumption {
    /// Where the update stands from now on.
    pub(crate) phase: Phase,
    /// What to change, in this order, after the phase is journalled.
    pub(crate) actions: Vec<Action>,
    /// The update that ended, and how.
    pub(crate) ended: Option<(Target, Outcome)>,
}

/// Whether what the journal speaks of is what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    /// Something else runs from the slot of the update.
    AnotherRelease,
    /// The old slot runs.
    OldSlot,
    /// The release of the update runs.
    Target,
}

impl BootFacts {
    fn running_target(&self, target: &Target) -> Running {
        match (self.running == target.slot, self.running_root == target.root_hash) {
            (true, true) => Running::Target,
            (true, false) => Running::AnotherRelease,
            (false, _) => Running::OldSlot,
        }
    }

    fn slot_state(&self, slot: Slot) -> Option<SlotState> {
        self.table.map(|table| table.slot_state(slot))
    }

    fn is_good(&self, slot: Slot) -> bool {
        self.slot_state(slot).is_some_and(|state| state.good)
    }

    fn has_priority(&self, slot: Slot) -> bool {
        self.table.is_some_and(|table| table.priority == slot)
    }
}

/// What follows from a phase in this boot.
pub(crate) fn resume_phase(phase: Phase, facts: &BootFacts) -> Resumption {
    match phase {
        Phase::Armed(armed) => resume_armed(armed, facts),
        Phase::Fetching(fetching) => resume_fetching(fetching, facts),
        Phase::Steady(steady) => keep_phase(Phase::Steady(steady)),
        Phase::Trial(trial) => resume_trial(trial, facts),
        Phase::Written(written) => resume_written(written, facts),
    }
}

/// The slot may be half written, so it must not be able to start, whatever the table says: a cut may have come
/// before it was disarmed.
fn resume_fetching(fetching: Fetching, facts: &BootFacts) -> Resumption {
    let slot = fetching.target.slot;
    if facts.running == slot {
        return end_abandoned(fetching.target, "the slot that was to be written runs now");
    }
    let is_armed = facts.slot_state(slot).is_some_and(|state| state != SlotState::EMPTY);
    let actions = if is_armed { vec![Action::Disarm(slot)] } else { Vec::new() };
    Resumption { phase: Phase::Fetching(fetching), actions, ended: None }
}

/// The table is armed before the journal says so: a cut between the two leaves this phase with an armed table.
fn resume_written(written: Written, facts: &BootFacts) -> Resumption {
    let state = facts.slot_state(written.target.slot).unwrap_or(SlotState::EMPTY);
    if facts.running != written.target.slot && state == SlotState::EMPTY {
        return keep_phase(Phase::Written(written));
    }
    // With all its tries the slot has not had its turn yet; the boot in which it was armed may still last.
    let boot = if state.tries == Tries::FULL { facts.boot.clone() } else { String::new() };
    // A table that is armed starts the slot, whatever kind of trial was meant.
    let (armed, _) = Written { kind: TrialKind::Restart, ..written }.arm_slot(boot);
    resume_armed(armed, facts)
}

fn resume_armed(armed: Armed, facts: &BootFacts) -> Resumption {
    let slot = armed.target.slot;
    match facts.running_target(&armed.target) {
        Running::AnotherRelease => end_abandoned(armed.target, "its slot holds another release now"),
        Running::Target if facts.is_good(slot) => end_with_success(armed.target),
        // Its soft trial has passed in this very boot.
        Running::Target if armed.kind == TrialKind::AfterSoft && armed.boot == facts.boot => {
            keep_phase(Phase::Armed(armed))
        }
        Running::Target => keep_phase(Phase::Trial(armed.start_trial(facts.boot.clone()))),
        Running::OldSlot if armed.kind == TrialKind::Soft => resume_soft(armed, facts),
        Running::OldSlot => resume_unstarted(armed, facts),
    }
}

/// The old slot runs before the soft trial of the new one: it keeps its turn. A table that starts it says that the
/// machine was shut down in order, and the power went before the journal was written.
fn resume_soft(armed: Armed, facts: &BootFacts) -> Resumption {
    let state = facts.slot_state(armed.target.slot).unwrap_or(SlotState::EMPTY);
    if state == SlotState::EMPTY {
        return keep_phase(Phase::Armed(Armed { boot: facts.boot.clone(), ..armed }));
    }
    resume_unstarted(Armed { kind: TrialKind::Restart, ..armed }, facts)
}

/// The old slot runs although the new one was armed.
fn resume_unstarted(armed: Armed, facts: &BootFacts) -> Resumption {
    let slot = armed.target.slot;
    let Some(state) = facts.slot_state(slot) else {
        return end_abandoned(armed.target, "the slot table was lost");
    };
    let had_its_turn = armed.boot != facts.boot;
    if state.tries != Tries::NONE && !facts.has_priority(slot) {
        return end_with_failure(
            armed.target,
            Failure::new(Cause::Person, "another slot was made the first one"),
        );
    }
    match (state.tries, had_its_turn) {
        (Tries::FULL, _) => keep_phase(Phase::Armed(Armed { boot: facts.boot.clone(), ..armed })),
        (Tries::NONE, false) => {
            end_with_failure(armed.target, Failure::new(Cause::Person, "its slot was disarmed"))
        }
        (tries, _) => {
            // A try is spent before the kernel is loaded. That some are left says that the boot loader came to
            // the old slot in the same boot, which it does only if it cannot read the kernel.
            let details = if tries == Tries::NONE {
                "all its tries are spent, or the initramfs marked it bad"
            } else {
                "the boot loader could not read its kernel"
            };
            let mut failed = end_with_failure(armed.target, Failure::new(Cause::NotStarted, details));
            failed.actions = disarm_unless_empty(slot, state);
            failed
        }
    }
}

fn resume_trial(trial: Trial, facts: &BootFacts) -> Resumption {
    let slot = trial.target.slot;
    match facts.running_target(&trial.target) {
        Running::AnotherRelease => end_abandoned(trial.target, "its slot holds another release now"),
        Running::OldSlot => resume_after_fallback(trial, facts),
        Running::Target if facts.is_good(slot) => end_with_success(trial.target),
        // The cut came between the reason and the slot table.
        Running::Target if trial.failure.is_some() => {
            let actions = vec![Action::Disarm(slot), Action::Restart];
            Resumption { phase: Phase::Trial(trial), actions, ended: None }
        }
        Running::Target => resume_running_trial(trial, facts),
    }
}

fn resume_running_trial(trial: Trial, facts: &BootFacts) -> Resumption {
    if trial.boots.last().is_some_and(|last| last.boot == facts.boot) {
        return keep_phase(Phase::Trial(trial));
    }
    let trial = trial.start_again(facts.boot.clone());
    if trial.boots.len() <= MAX_TRIAL_BOOTS {
        return keep_phase(Phase::Trial(trial));
    }
    let details = format!("{MAX_TRIAL_BOOTS} boots passed without a verdict");
    let (trial, actions) = trial.fail_check(Failure::new(Cause::Loop, details));
    Resumption { phase: Phase::Trial(trial), actions: actions.to_vec(), ended: None }
}

/// The old slot runs after boots of the new one.
fn resume_after_fallback(trial: Trial, facts: &BootFacts) -> Resumption {
    let slot = trial.target.slot;
    let state = facts.slot_state(slot).unwrap_or(SlotState::EMPTY);
    let failure = trial.failure.clone().unwrap_or_else(|| {
        if trial.kind == TrialKind::Soft && state == SlotState::EMPTY {
            return Failure::new(Cause::LostBoots, "its soft trial ended without a verdict");
        }
        let lost =
            trial.lost_boots() + usize::from(trial.boots.last().is_some_and(|last| !last.ended_in_order));
        if state.tries != Tries::NONE && !facts.has_priority(slot) {
            Failure::new(Cause::Person, "another slot was made the first one")
        } else if state.tries == Tries::NONE {
            Failure::new(Cause::LostBoots, format!("{lost} boots ended without a verdict"))
        } else {
            Failure::new(Cause::NotStarted, "the boot loader could not read its kernel")
        }
    });
    let mut failed = end_with_failure(trial.target, failure);
    failed.actions = disarm_unless_empty(slot, state);
    failed
}

/// What came to nothing must not start later, when the old slot has used up its own tries, unless it is good.
fn disarm_unless_empty(slot: Slot, state: SlotState) -> Vec<Action> {
    if state == SlotState::EMPTY || state.good { Vec::new() } else { vec![Action::Disarm(slot)] }
}

fn keep_phase(phase: Phase) -> Resumption {
    Resumption { phase, actions: Vec::new(), ended: None }
}

fn end_with_success(target: Target) -> Resumption {
    end_update(target, Outcome::Succeeded)
}

fn end_with_failure(target: Target, failure: Failure) -> Resumption {
    end_update(target, Outcome::Failed(failure))
}

fn end_abandoned(target: Target, why: &str) -> Resumption {
    end_update(target, Outcome::Abandoned(why.to_owned()))
}

fn end_update(target: Target, outcome: Outcome) -> Resumption {
    let phase = Phase::Steady(Steady::default());
    Resumption { phase, actions: Vec::new(), ended: Some((target, outcome)) }
}

#[cfg(test)]
mod tests;
