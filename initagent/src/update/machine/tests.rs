use std::fs;

use image_format::slot::SlotState;
use image_format::version::Version;

use super::super::kept_trust::{TRUST, read_trust};
use super::super::slot_image::SlotImage;
use super::super::tests::{Bench, read_slot};
use super::*;

impl Bench {
    fn install(&self, version: Version, seed: u8) -> Result<Journal, UpdateStepError> {
        let (path, release) = self.source(version, seed);
        let mut image = SlotImage::open_image(&path).unwrap();
        let (journal, _) = self.resume();
        self.machine.install_release(journal, &release, "a file", &mut image, &TrialPlan::default)
    }

    fn resume(&self) -> (Journal, Option<(Target, Outcome)>) {
        self.machine.resume_update(7, &|_| "the last words".to_owned()).unwrap()
    }

    /// The trial of what runs ends well.
    fn pass(&self) -> Journal {
        let (journal, _) = self.resume();
        let Phase::Trial(trial) = journal.phase.clone() else { panic!("{journal:?}") };
        self.machine.change_table(Action::MarkGood(trial.target.slot)).unwrap();
        let (journal, ended) = self.resume();
        assert!(matches!(ended, Some((_, Outcome::Succeeded))));
        journal
    }
}

/// Case 47, and from A to B and back.
#[test]
fn a_machine_moves_from_slot_to_slot() {
    let mut bench = Bench::new();
    for round in 1..=6_u8 {
        let version = Version::new(1, u32::from(round), 0);
        let journal = bench.install(version.clone(), round + 10).unwrap();
        assert_eq!(journal.phase.phase_word(), "armed");
        assert!(bench.machine.reboot_is_required());

        let old = bench.machine.record.slot;
        assert_eq!(bench.restart(), !old);
        assert_eq!(bench.machine.record.version, version);
        let journal = bench.pass();

        assert_eq!(journal.history.len(), usize::from(round));
        assert_eq!(bench.table().slot_state(!old), SlotState::GOOD);
        assert!(bench.table().slot_state(old).good, "the way back");
    }
}

/// A cut can come after the slot was marked good. The next boot must then raise the epoch, or a release with a known
/// hole could come back.
#[test]
fn the_security_epoch_is_kept_before_a_good_trial_ends() {
    let mut bench = Bench::new();
    bench.install(Version::new(1, 1, 0), 11).unwrap();
    bench.restart();
    bench.machine.record.security_epoch = 2;
    bench.resume();
    bench.machine.change_table(Action::MarkGood(Slot::B)).unwrap();
    let (root, in_the_way) = (&bench.machine.root, bench.machine.root.join(TRUST));
    fs::create_dir_all(&in_the_way).unwrap();

    bench.machine.resume_update(7, &|_| String::new()).unwrap_err();
    assert_eq!(Journal::read(root).unwrap().phase.phase_word(), "trial");

    fs::remove_dir(&in_the_way).unwrap();
    let (journal, _) = bench.resume();
    assert_eq!((journal.phase.phase_word(), read_trust(root).security_epoch), ("steady", 2));
}

#[test]
fn the_security_epoch_stays_when_a_trial_fails() {
    let mut bench = Bench::new();
    bench.install(Version::new(1, 1, 0), 11).unwrap();
    let started: Vec<Slot> = (0..4).map(|_| bench.restart()).collect();
    assert_eq!(started.last(), Some(&Slot::A));
    bench.machine.record.security_epoch = 2;

    assert!(matches!(bench.resume().1, Some((_, Outcome::Failed(_)))));

    assert_eq!(read_trust(&bench.machine.root).security_epoch, 0);
}

#[test]
fn a_release_whose_kernel_panics_is_left_and_the_reason_is_kept() {
    let mut bench = Bench::new();
    bench.install(Version::new(1, 1, 0), 11).unwrap();
    let started: Vec<Slot> = (0..4).map(|_| bench.restart()).collect();
    assert_eq!(started, [Slot::B, Slot::B, Slot::B, Slot::A]);

    let (journal, ended) = bench.resume();

    let Some((target, Outcome::Failed(failure))) = ended else { panic!("{ended:?}") };
    assert_eq!((target.version, failure.cause), (Version::new(1, 1, 0), Cause::NotStarted));
    assert!(failure.details.contains("the last words"), "{}", failure.details);
    let (entry, _) = journal.last_failure().unwrap();
    assert_eq!(entry.running, Version::new(1, 0, 0));
    assert!(bench.table().a.good);
    assert!(journal.find_objection(target.root_hash).is_some());
}

#[test]
fn a_failed_check_brings_the_old_slot_back_and_the_next_release_is_tried_afresh() {
    let mut bench = Bench::new();
    bench.install(Version::new(1, 1, 0), 11).unwrap();
    bench.restart();
    let (journal, _) = bench.resume();
    let Phase::Trial(trial) = journal.phase.clone() else { panic!("{journal:?}") };
    let (failed, actions) = trial.fail_check(Failure::new(Cause::Check("ssh".into()), "it is dead"));
    bench.machine.save_journal(journal.enter_phase(Phase::Trial(failed))).unwrap();
    bench.machine.change_table(actions[0]).unwrap();

    assert_eq!(bench.restart(), Slot::A);
    let (journal, ended) = bench.resume();

    assert!(matches!(ended, Some((_, Outcome::Failed(_)))));
    assert_eq!(bench.table().b, SlotState::EMPTY);
    assert!(journal.last_failure().unwrap().1.failure_sentence().contains("it is dead"));
    bench.install(Version::new(1, 2, 0), 12).unwrap();
    assert_eq!(bench.restart(), Slot::B);
    assert!(bench.pass().last_failure().is_none());
}

/// Cancelled between any two steps, then begun again: nothing is lost, and the old slot stays good all the while.
#[test]
fn an_install_that_is_cut_off_anywhere_goes_on() {
    let bench = Bench::new();
    bench.machine.make_run_folder().unwrap();
    fs::write(bench.machine.run_file("cancel"), "").unwrap();

    let stopped = bench.install(Version::new(1, 1, 0), 11).unwrap_err();

    assert!(error_text::error_chain(&stopped).contains("cancelled"), "{stopped}");
    let (journal, _) = bench.resume();
    let Phase::Fetching(fetching) = &journal.phase else { panic!("{journal:?}") };
    assert_eq!(fetching.attempts, 1);
    assert_eq!((bench.table().a, bench.table().b), (SlotState::GOOD, SlotState::EMPTY));
    assert_eq!(read_slot(&bench.machine.record.devices.other_root), None);
    fs::remove_file(bench.machine.run_file("cancel")).unwrap();
    assert_eq!(bench.install(Version::new(1, 1, 0), 11).unwrap().phase.phase_word(), "armed");
}

#[test]
fn a_newer_release_replaces_one_that_is_half_written_or_armed() {
    let mut bench = Bench::new();
    bench.install(Version::new(1, 1, 0), 11).unwrap();

    let journal = bench.install(Version::new(1, 2, 0), 12).unwrap();

    assert_eq!(journal.phase.update_target().unwrap().version, Version::new(1, 2, 0));
    bench.restart();
    assert_eq!(bench.machine.record.version, Version::new(1, 2, 0));
    assert_eq!(bench.pass().history.len(), 1);
}

/// The unit of a complete boot must leave the new slot to its trial, and nothing else.
#[test]
fn only_the_release_of_the_update_is_on_trial() {
    let mut bench = Bench::new();
    let armed = bench.install(Version::new(1, 1, 0), 11).unwrap();
    assert!(!super::super::is_on_trial(&armed, &bench.machine.record), "the old slot runs");

    bench.restart();

    assert!(super::super::is_on_trial(&armed, &bench.machine.record));
    let (journal, _) = bench.resume();
    assert!(super::super::is_on_trial(&journal, &bench.machine.record));
    let other = BootRecord { root_hash: Sha256::digest_of(b"third"), ..bench.machine.record.clone() };
    assert!(!super::super::is_on_trial(&journal, &other));
    assert!(!super::super::is_on_trial(&bench.pass(), &bench.machine.record));
}

/// Case 27.
#[test]
fn a_second_installer_is_told_who_is_at_work() {
    let bench = Bench::new();
    let lock = bench.machine.lock_updates().unwrap();

    let refused = bench.machine.lock_updates().unwrap_err();

    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    drop(lock);
    bench.machine.lock_updates().unwrap();
}

#[test]
fn what_goes_round_for_ever_is_given_up() {
    let bench = Bench::new();
    let mut refused = None;
    for round in 0..60_u8 {
        match bench.install(Version::new(1, 1, u32::from(round)), 10 + round % 2) {
            Ok(_) => {}
            Err(error) => {
                refused = Some(error.to_string());
                break;
            }
        }
    }

    assert!(refused.unwrap().contains("without an end"));
}

/// Case 20: the slot table is lost, or the old slot is not good: nothing is disarmed then.
#[test]
fn without_another_good_slot_nothing_is_overwritten() {
    let bench = Bench::new();
    let table = SlotTable { a: SlotState { good: false, ..SlotState::GOOD }, ..SlotTable::FRESH };
    super::super::tests::write_abstate(&bench.machine.record.devices.abstate, table);

    let refused = bench.install(Version::new(1, 1, 0), 11).unwrap_err();

    assert!(refused.to_string().contains("slot A is not marked good"), "{refused}");
    assert_eq!(bench.table(), table);
}
