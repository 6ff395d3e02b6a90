//! Facts about changing and showing the table.

use image_format::digest::Sha256;

use super::*;
use crate::release_floor::{Release, Verdict};
use store::tests::{abstate, open};

const DEMOTED: SlotState = SlotState { good: true, tries: Tries::NONE };

fn place(running: Option<Slot>) -> TablePlace {
    TablePlace { abstate: "/dev/vda3".into(), running }
}

fn refused(change: SlotChange, running: Option<Slot>) -> String {
    apply_change(SlotTable::FRESH, change, &place(running)).unwrap_err().to_string()
}

#[test]
fn changes_follow_the_word() {
    let table = SlotTable { b: SlotState::GOOD, ..SlotTable::FRESH };
    let to = |change| apply_change(table, change, &place(Some(Slot::A))).unwrap();

    assert_eq!(to(SlotChange::Activate(Slot::B)), table.activate_slot(Slot::B));
    assert_eq!(to(SlotChange::Disarm(Slot::B)).b, SlotState::EMPTY);
    assert_eq!(to(SlotChange::MarkBad(Slot::A)).priority, Slot::B);
    assert_eq!(to(SlotChange::MarkGood(None)).a, SlotState::GOOD);
}

#[test]
fn changes_that_could_lose_the_machine_are_refused() {
    assert_eq!(
        refused(SlotChange::Disarm(Slot::A), Some(Slot::A)),
        "slot A runs; only the other one can be disarmed"
    );
    assert_eq!(
        refused(SlotChange::MarkBad(Slot::A), Some(Slot::A)),
        "slot A cannot be disarmed: slot B is not marked good, so nothing good would remain"
    );
    assert_eq!(
        refused(SlotChange::MarkGood(Some(Slot::B)), Some(Slot::A)),
        "slot B does not run here, so nothing has proven it"
    );
    assert_eq!(
        refused(SlotChange::MarkGood(None), None),
        "the slot to mark must be named: no slot of /dev/vda3 runs here"
    );
}

#[test]
fn a_table_is_shown_to_people_like_this() {
    let table = SlotTable {
        a: DEMOTED,
        b: SlotState { good: false, tries: Tries::FULL },
        ..SlotTable::replace_lost(Slot::B)
    };
    let image = abstate(table);
    let shown = SlotsView::of_table(table, Some(Slot::A), &open(&image).read().unwrap());

    assert_eq!(
        shown.to_text(),
        "SLOT  BOOTS   RUNS  STATE     TRIES\n\
         A     second  yes   demoted   0 of 3\n\
         B     first   -     unproven  3 of 3\n"
    );
}

#[test]
fn a_table_is_shown_to_programs_like_this() {
    let image = abstate(SlotTable::FRESH);
    let request =
        SlotsRequest { abstate: Some(image.path().to_owned()), order: None, format: OutputFormat::Json };

    let json: serde_json::Value = serde_json::from_str(&run_request(&request).unwrap()).unwrap();

    assert_eq!(
        json,
        serde_json::json!({
            "running": null,
            "priority": "A",
            "slots": [{"slot": "A", "good": true, "tries": 3}, {"slot": "B", "good": false, "tries": 0}],
            "copies": {"env0": null, "env1": null},
        })
    );
}

#[test]
fn a_change_reaches_both_copies() {
    let image = abstate(SlotTable::FRESH);
    let order = Some(Order::Change(SlotChange::Activate(Slot::B)));

    let text = run_request(&SlotsRequest {
        abstate: Some(image.path().to_owned()),
        order,
        format: OutputFormat::Text,
    })
    .unwrap();

    assert!(text.contains("B     first   -     unproven  3 of 3"), "{text}");
    let expected = SlotTable::FRESH.activate_slot(Slot::B);
    assert_eq!(open(&image).read().unwrap().both_tables(), [Ok(expected), Ok(expected)]);
}

#[test]
fn the_floor_is_lowered_by_a_person_and_never_raised_by_one() {
    let release =
        Release { slot: Slot::A, version: &Version::new(1, 2, 0), root_hash: Sha256::digest_of(b"root") };
    let floor = ReleaseFloor::raise_floor(None, release);
    let to = |version| lower_floor(Some(floor.clone()), &version, &place(Some(Slot::A)));

    assert_eq!(to(Version::new(1, 1, 9)).unwrap().version, Version::new(1, 1, 9));
    let older =
        Release { version: &Version::new(1, 1, 9), root_hash: Sha256::digest_of(b"older"), ..release };
    assert_eq!(floor.judge_release(older, Some(SlotState::GOOD)), Verdict::Refuse);
    assert_eq!(
        to(Version::new(1, 1, 9)).unwrap().judge_release(older, Some(SlotState::GOOD)),
        Verdict::Start
    );
    for version in [Version::new(1, 2, 0), Version::new(2, 0, 0)] {
        let said = to(version.clone()).unwrap_err().to_string();
        assert_eq!(
            said,
            format!("the floor is 1.2.0, which is not above {version}; only complete boots raise it")
        );
    }
    assert!(matches!(
        lower_floor(None, &Version::new(1, 0, 0), &place(None)),
        Err(SlotsError::NoFloor { .. })
    ));
}
