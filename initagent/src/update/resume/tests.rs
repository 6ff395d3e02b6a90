use image_format::slot::{LoadCondition, boot_decision};
use proptest::prelude::*;

use super::super::phase::{Baseline, BootEnd, TrialBoot};
use super::*;

fn target() -> Target {
    Target {
        slot: Slot::B,
        version: image_format::version::Version::new(1, 1, 0),
        root_hash: Sha256::digest_of(b"new"),
        manifest: super::super::phase::ManifestDigest { bytes: 1, sha256: Sha256::digest_of(b"new") },
        source: "http://updates.example".into(),
    }
}

fn old_root() -> Sha256 {
    Sha256::digest_of(b"old")
}

fn facts(running: Slot, boot: &str, table: SlotTable) -> BootFacts {
    let running_root = if running == Slot::B { Sha256::digest_of(b"new") } else { old_root() };
    BootFacts { boot: boot.into(), running, running_root, table: Some(table) }
}

fn armed() -> Armed {
    Armed { target: target(), baseline: Baseline::default(), boot: "one".into(), kind: TrialKind::Restart }
}

fn trial() -> Trial {
    armed().start_trial("two".into())
}

fn with_tries(tries: u8) -> SlotTable {
    let state = SlotState { good: false, tries: Tries::new(tries).unwrap() };
    SlotTable { b: state, ..SlotTable::FRESH.activate_slot(Slot::B) }
}

fn outcome(resumed: &Resumption) -> &Outcome {
    assert_eq!(resumed.phase, Phase::default());
    &resumed.ended.as_ref().unwrap().1
}

fn cause(resumed: &Resumption) -> &Cause {
    match outcome(resumed) {
        Outcome::Failed(failure) => &failure.cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cut_while_the_slot_is_written_goes_on_writing_it_disarmed() {
    let fetching = Fetching { target: target(), attempts: 1, last_error: None };
    for (table, actions) in [
        (SlotTable::FRESH, vec![]),
        (with_tries(3), vec![Action::Disarm(Slot::B)]),
        (SlotTable { b: SlotState::GOOD, ..SlotTable::FRESH }, vec![Action::Disarm(Slot::B)]),
    ] {
        let resumed = resume_phase(Phase::Fetching(fetching.clone()), &facts(Slot::A, "two", table));

        assert_eq!(resumed.phase, Phase::Fetching(fetching.clone()));
        assert_eq!(resumed.actions, actions);
    }
}

#[test]
fn the_slot_that_runs_is_never_written_on() {
    let fetching = Fetching { target: target(), attempts: 0, last_error: None };

    let resumed = resume_phase(Phase::Fetching(fetching), &facts(Slot::B, "two", SlotTable::FRESH));

    assert!(matches!(outcome(&resumed), Outcome::Abandoned(_)));
    assert_eq!(resumed.actions, []);
}

#[test]
fn a_cut_around_the_commit_goes_by_the_slot_table() {
    let written = || {
        Phase::Written(Written { target: target(), baseline: Baseline::default(), kind: TrialKind::Restart })
    };

    let before = resume_phase(written(), &facts(Slot::A, "one", SlotTable::FRESH));
    let after = resume_phase(written(), &facts(Slot::A, "one", with_tries(3)));
    let started = resume_phase(written(), &facts(Slot::B, "two", with_tries(2)));

    assert_eq!(before.phase, written());
    assert_eq!(after.phase, Phase::Armed(armed()));
    assert_eq!(started.phase, Phase::Trial(trial()));
}

#[test]
fn the_old_slot_after_a_restart_says_that_the_new_one_did_not_start() {
    let resumed = |table| resume_phase(Phase::Armed(armed()), &facts(Slot::A, "two", table));

    let panicked = resumed(SlotTable { priority: Slot::B, ..SlotTable::FRESH });
    let unreadable = resumed(with_tries(2));
    let person = resumed(SlotTable { priority: Slot::A, ..with_tries(3) });

    assert_eq!((cause(&panicked), &panicked.actions[..]), (&Cause::NotStarted, &[][..]));
    assert_eq!(
        (cause(&unreadable), &unreadable.actions[..]),
        (&Cause::NotStarted, &[Action::Disarm(Slot::B)][..])
    );
    assert_eq!(cause(&person), &Cause::Person);
}

#[test]
fn an_armed_slot_that_has_not_had_its_turn_keeps_it() {
    for boot in ["one", "two"] {
        let resumed = resume_phase(Phase::Armed(armed()), &facts(Slot::A, boot, with_tries(3)));

        assert_eq!(resumed.phase, Phase::Armed(Armed { boot: boot.into(), ..armed() }));
    }
}

/// Case 36: a person's restart costs the slot nothing.
#[test]
fn a_restart_in_order_gives_the_try_back_and_is_no_verdict() {
    let (ended, action) = trial().end_boot(BootEnd::Restart);
    assert_eq!(action, Some(Action::Arm(Slot::B)));

    let resumed = resume_phase(Phase::Trial(ended), &facts(Slot::B, "three", with_tries(2)));

    let Phase::Trial(again) = &resumed.phase else { panic!("{resumed:?}") };
    assert_eq!((again.boots.len(), again.lost_boots()), (2, 0));
    assert_eq!((resumed.actions, resumed.ended), (vec![], None));
}

#[test]
fn a_mains_cut_in_the_trial_is_no_verdict_while_tries_are_left() {
    let resumed = resume_phase(Phase::Trial(trial()), &facts(Slot::B, "three", with_tries(1)));

    let Phase::Trial(again) = &resumed.phase else { panic!("{resumed:?}") };
    assert_eq!(again.lost_boots(), 1);
    assert_eq!(resumed.ended, None);
}

#[test]
fn a_trial_that_restarts_for_ever_ends() {
    let mut trial = trial();
    let mut boots = 1;
    let failure = loop {
        let (ended, _) = trial.end_boot(BootEnd::Restart);
        boots += 1;
        let resumed =
            resume_phase(Phase::Trial(ended), &facts(Slot::B, &format!("boot {boots}"), with_tries(2)));
        let Phase::Trial(next) = resumed.phase else { panic!("no trial") };
        if let Some(failure) = &next.failure {
            assert_eq!(resumed.actions, [Action::Disarm(Slot::B), Action::Restart]);
            break failure.clone();
        }
        assert!(boots < 30, "no end");
        trial = next;
    };
    assert_eq!(failure.cause, Cause::Loop);
}

#[test]
fn the_reason_outlives_a_cut_before_the_slot_table_was_changed() {
    let failure = Failure::new(Cause::Check("ssh".into()), "ssh.service failed");
    let (failed, actions) = trial().fail_check(failure.clone());
    assert_eq!(actions, [Action::Disarm(Slot::B), Action::Restart]);

    let again = resume_phase(Phase::Trial(failed.clone()), &facts(Slot::B, "three", with_tries(1)));
    let back = resume_phase(Phase::Trial(failed), &facts(Slot::A, "four", SlotTable::FRESH));

    assert_eq!(again.actions, actions);
    assert_eq!(outcome(&back), &Outcome::Failed(failure));
}

#[test]
fn a_cut_after_the_slot_was_marked_good_is_a_success() {
    let table = SlotTable { b: SlotState::GOOD, ..SlotTable::FRESH.activate_slot(Slot::B) };

    let resumed = resume_phase(Phase::Trial(trial()), &facts(Slot::B, "two", table));

    assert_eq!(outcome(&resumed), &Outcome::Succeeded);
}

#[test]
fn boots_that_are_lost_three_times_end_on_the_old_slot_and_say_so() {
    let lost = trial().start_again("three".into()).start_again("four".into());
    let table = SlotTable { priority: Slot::B, ..SlotTable::FRESH };

    let resumed = resume_phase(Phase::Trial(lost), &facts(Slot::A, "five", table));

    let Outcome::Failed(failure) = outcome(&resumed) else { panic!("{resumed:?}") };
    assert_eq!(failure.cause, Cause::LostBoots);
    assert_eq!(failure.details, "3 boots ended without a verdict");
}

/// A trial that nobody ended is about what was in the slot then.
#[test]
fn a_stale_trial_never_condemns_the_next_release() {
    let other = BootFacts {
        running_root: Sha256::digest_of(b"third"),
        ..facts(Slot::B, "nine", SlotTable { b: SlotState::GOOD, ..SlotTable::FRESH })
    };
    let failed = trial().fail_check(Failure::new(Cause::NoVerdict, "")).0;

    for phase in [Phase::Trial(failed), Phase::Trial(trial()), Phase::Armed(armed())] {
        let resumed = resume_phase(phase, &other);

        assert!(matches!(outcome(&resumed), Outcome::Abandoned(_)), "{resumed:?}");
        assert_eq!(resumed.actions, []);
    }
}

fn any_state() -> impl Strategy<Value = SlotState> {
    (any::<bool>(), 0..=3_u8).prop_map(|(good, tries)| SlotState { good, tries: Tries::new(tries).unwrap() })
}

fn any_phase() -> impl Strategy<Value = Phase> {
    let boots = proptest::collection::vec((0..4_u8, any::<bool>()), 1..12);
    (0..5_u8, boots, any::<bool>(), 0..3_usize).prop_map(|(phase, boots, failed, kind)| {
        let kind = [TrialKind::AfterSoft, TrialKind::Restart, TrialKind::Soft][kind];
        let boots = boots.iter().map(|(boot, ended_in_order)| TrialBoot {
            boot: boot.to_string(),
            ended_in_order: *ended_in_order,
        });
        let failure = failed.then(|| Failure::new(Cause::NoVerdict, ""));
        match phase {
            0 => Phase::default(),
            1 => Phase::Fetching(Fetching { target: target(), attempts: 0, last_error: None }),
            2 => Phase::Written(Written { target: target(), baseline: Baseline::default(), kind }),
            3 => Phase::Armed(Armed { boot: "0".into(), kind, ..armed() }),
            _ => Phase::Trial(Trial { boots: boots.collect(), failure, kind, ..trial() }),
        }
    })
}

proptest! {
    /// Any journal, any table, either slot: nothing disarms or arms what must not be, and saying it twice in
    /// one boot changes nothing more.
    #[test]
    fn resuming_is_safe_and_the_same_twice(
        phase in any_phase(), a in any_state(), b in any_state(), first in any::<bool>(),
        running in any::<bool>(), root in 0..3_u8, boot in 0..4_u8,
    ) {
        let priority = if first { Slot::A } else { Slot::B };
        let table = SlotTable { priority, a, b, ..SlotTable::FRESH };
        let running = if running { Slot::A } else { Slot::B };
        let running_root = [old_root(), Sha256::digest_of(b"new"), Sha256::digest_of(b"third")][usize::from(root)];
        let facts = BootFacts { boot: boot.to_string(), running, running_root, table: Some(table) };

        let once = resume_phase(phase.clone(), &facts);

        let has_failed = matches!(&once.phase, Phase::Trial(trial) if trial.failure.is_some());
        for action in &once.actions {
            match action {
                Action::Disarm(slot) => prop_assert!(*slot != running || has_failed),
                Action::Restart => prop_assert!(has_failed),
                Action::Arm(_) | Action::MarkGood(_) => prop_assert!(false, "resuming arms nothing"),
            }
        }
        let mut after = table;
        for action in &once.actions {
            if let Action::Disarm(slot) = action {
                after = after.mark_bad(*slot);
            }
        }
        let twice = resume_phase(once.phase.clone(), &BootFacts { table: Some(after), ..facts });
        prop_assert_eq!(&twice.phase, &once.phase);
        if let (Some((_, Outcome::Failed(_))), Phase::Steady(_)) = (&once.ended, &once.phase) {
            prop_assert!(!matches!(phase, Phase::Fetching(_) | Phase::Steady(_)));
        }
        prop_assert!(once.ended.is_none() || matches!(once.phase, Phase::Steady(_)));
    }
}

/// The machine of the resume rules and of the boot selector together: a release that never comes as far as the
/// agent costs its tries, and the machine is back with the reason.
#[test]
fn a_release_that_panics_is_left_after_its_tries() {
    let mut table = SlotTable::FRESH.disarm_slot(Slot::B).unwrap().activate_slot(Slot::B);
    let mut started = Vec::new();
    loop {
        let attempt = boot_decision(&table.to_block(), &[]).attempts[0];
        if let LoadCondition::Saves(after) | LoadCondition::MustSave(after) = attempt.condition {
            table = after;
        }
        started.push(attempt.slot);
        if attempt.slot == Slot::A {
            break;
        }
    }

    let resumed = resume_phase(Phase::Armed(armed()), &facts(Slot::A, "five", table));

    assert_eq!(started, [Slot::B, Slot::B, Slot::B, Slot::A]);
    assert_eq!(cause(&resumed), &Cause::NotStarted);
}

fn armed_softly() -> Armed {
    Armed { kind: TrialKind::Soft, ..armed() }
}

/// The release runs in the boot in which it was armed, so a soft-reboot brought it.
fn soft_trial() -> Trial {
    armed_softly().start_trial("one".into())
}

fn passed_softly() -> Armed {
    soft_trial().pass_soft("one".into()).0
}

#[test]
fn a_soft_trial_leaves_the_slot_table_as_it_is_until_it_has_passed() {
    let written = Written { target: target(), baseline: Baseline::default(), kind: TrialKind::Soft };
    let (armed, action) = written.arm_slot("one".into());
    assert_eq!((&armed, action), (&armed_softly(), None));

    let resumed = resume_phase(Phase::Armed(armed), &facts(Slot::B, "one", SlotTable::FRESH));
    let Phase::Trial(trial) = resumed.phase else { panic!("no trial") };
    assert_eq!((trial.kind, resumed.actions), (TrialKind::Soft, vec![]));

    let (passed, action) = trial.pass_soft("one".into());
    assert_eq!((passed.kind, action), (TrialKind::AfterSoft, Action::Arm(Slot::B)));
}

/// Case 46: what a soft-reboot has tried is counted at its first boot from the disk all the same.
#[test]
fn the_cold_boot_after_a_soft_trial_is_a_counted_trial() {
    let same_boot = resume_phase(Phase::Armed(passed_softly()), &facts(Slot::B, "one", with_tries(3)));
    assert_eq!(same_boot.phase, Phase::Armed(passed_softly()));

    let cold = resume_phase(Phase::Armed(passed_softly()), &facts(Slot::B, "two", with_tries(2)));
    let Phase::Trial(trial) = &cold.phase else { panic!("{cold:?}") };
    assert_eq!((trial.kind, cold.ended), (TrialKind::Restart, None));

    let spent = SlotTable { priority: Slot::B, ..SlotTable::FRESH };
    let back = resume_phase(Phase::Armed(passed_softly()), &facts(Slot::A, "five", spent));
    assert_eq!(cause(&back), &Cause::NotStarted);
}

#[test]
fn a_panic_a_hang_or_the_mains_in_a_soft_trial_end_on_the_old_slot_and_say_so() {
    let resumed = resume_phase(Phase::Trial(soft_trial()), &facts(Slot::A, "two", SlotTable::FRESH));

    let Outcome::Failed(failure) = outcome(&resumed) else { panic!("{resumed:?}") };
    assert_eq!(failure.cause, Cause::LostBoots);
    assert_eq!(failure.details, "its soft trial ended without a verdict");
    assert_eq!(resumed.actions, []);
}

#[test]
fn a_failed_check_of_a_soft_trial_is_the_reason_that_is_shown() {
    let failure = Failure::new(Cause::Check("ssh".into()), "it is dead");
    let (failed, _) = soft_trial().fail_check(failure.clone());

    let resumed = resume_phase(Phase::Trial(failed), &facts(Slot::A, "two", SlotTable::FRESH));

    assert_eq!(outcome(&resumed), &Outcome::Failed(failure));
}

#[test]
fn a_release_that_waits_for_its_soft_trial_keeps_its_turn_through_a_mains_cut() {
    let resumed = resume_phase(Phase::Armed(armed_softly()), &facts(Slot::A, "two", SlotTable::FRESH));

    assert_eq!(resumed.phase, Phase::Armed(Armed { boot: "two".into(), ..armed_softly() }));
}

/// A person who restarts the machine to finish an update finishes it.
#[test]
fn a_restart_in_order_before_a_soft_trial_makes_it_a_counted_one() {
    let (armed, action) = armed_softly().end_boot(BootEnd::Restart);
    assert_eq!((armed.kind, action), (TrialKind::Restart, Some(Action::Arm(Slot::B))));
    assert_eq!(armed_softly().end_boot(BootEnd::SoftReboot), (armed_softly(), None));
    assert_eq!(passed_softly().end_boot(BootEnd::Restart), (passed_softly(), None));

    // The power goes between the slot table and the journal.
    let cut = resume_phase(Phase::Armed(armed_softly()), &facts(Slot::B, "two", with_tries(2)));
    let Phase::Trial(trial) = cut.phase else { panic!("no trial") };
    assert_eq!(trial.kind, TrialKind::Restart);
    let panicked = SlotTable { priority: Slot::B, ..SlotTable::FRESH };
    let spent = resume_phase(Phase::Armed(armed_softly()), &facts(Slot::A, "five", panicked));
    assert_eq!(spent.phase, Phase::Armed(Armed { boot: "five".into(), ..armed_softly() }));
}

#[test]
fn a_restart_in_order_during_a_soft_trial_goes_on_with_a_counted_one() {
    let (ended, action) = soft_trial().end_boot(BootEnd::Restart);
    assert_eq!(action, Some(Action::Arm(Slot::B)));

    let resumed = resume_phase(Phase::Trial(ended), &facts(Slot::B, "two", with_tries(2)));

    let Phase::Trial(trial) = resumed.phase else { panic!("no trial") };
    assert_eq!((trial.kind, trial.boots.len(), trial.lost_boots()), (TrialKind::Restart, 2, 0));
    assert_eq!(soft_trial().end_boot(BootEnd::SoftReboot), (soft_trial(), None));
}
