//! Programs of two versions over one store: what each writes, the other must be able to live with.
//!
//! The values of the first version are kept here as it wrote them; its reader is played by records with the
//! fields that it knew. What a next version may write is a value with more fields, a key of a new kind, or a
//! record of a higher format, and the last only after it has shut the older ones out.

use serde::{Deserialize, Serialize};

use crate::{
    model::{
        machine::{Machine, MachineId},
        state::JobState,
        unit_file::{UnitFile, UnitHash},
        unit_name::UnitName,
    },
    store::{
        cluster::ChangeDirection,
        keys::{DEFAULT_PREFIX, KeySpace, StoreKey},
        picture::{ClusterView, KeyEvent},
        records::{
            AssignmentRecord, FORMAT, PresenceRecord, RecordError, StateRecord, UnitRecord, decode_record,
            encode_record,
        },
    },
};

const TEXT: &str = "[Service]\nExecStart=/bin/true\n";
const MACHINE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What the first version wrote, key and value, under the prefix.
const FIRST: [(&str, &str); 5] = [
    ("files/86943ac9f3754cb90f8dd38bf6da7b0cad074592", TEXT),
    (
        "units/a.service",
        r#"{"v":1,"hash":"86943ac9f3754cb90f8dd38bf6da7b0cad074592","desired":"launched","restarts":2}"#,
    ),
    (
        "machines/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/presence",
        r#"{"v":1,"id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","public_ip":"10.0.0.1","metadata":{"zone":"z1"},"version":"0.1.0","boot":"x"}"#,
    ),
    (
        "assign/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/a.service",
        r#"{"v":1,"hash":"86943ac9f3754cb90f8dd38bf6da7b0cad074592"}"#,
    ),
    (
        "states/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/a.service",
        r#"{"v":1,"hash":"86943ac9f3754cb90f8dd38bf6da7b0cad074592","job":"launched","load":"loaded","active":"active","sub":"running","restarts":2}"#,
    ),
];

/// A unit as the first version knew it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FirstUnitRecord {
    hash: UnitHash,
    desired: JobState,
    #[serde(default)]
    restarts: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<UnitHash>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
}

fn empty_view() -> ClusterView {
    ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX))
}

/// Takes in a value; whether it could be read.
fn accept_value(picture: &mut ClusterView, key: &str, value: &str) -> bool {
    let revision = picture.cluster().revision.next();
    let event = KeyEvent {
        key: format!("{DEFAULT_PREFIX}{key}").into_bytes(),
        value: Some(value.as_bytes().to_vec()),
        revision,
        created: revision,
    };
    picture.apply_event(&event, &mut Vec::new()).is_ok()
}

fn sample_unit() -> UnitName {
    UnitName::parse("a.service").unwrap()
}

#[test]
fn what_the_first_version_wrote_is_read_today() {
    let mut picture = empty_view();

    for (key, value) in FIRST {
        assert!(accept_value(&mut picture, key, value), "{key}");
    }

    let cluster = picture.cluster();
    let machine = MachineId::parse(MACHINE).unwrap();
    let unit = &cluster.units[&sample_unit()];
    assert_eq!((unit.desired, unit.restarts, unit.rollout), (JobState::Launched, 2, None));
    assert_eq!((unit.file.canonical_text().as_str(), unit.file.hash()), (TEXT, UnitHash::of_text(TEXT)));
    assert_eq!(cluster.target_of("a.service"), Some(&machine));
    assert_eq!(cluster.machines[&machine].metadata["zone"], "z1");
    assert!(cluster.state_on("a.service", MACHINE).unwrap().is_healthy());
}

#[test]
fn what_is_written_today_is_read_by_the_first_version() {
    let hash = UnitFile::parse(TEXT).unwrap().hash();
    let record = UnitRecord {
        hash,
        desired: JobState::Launched,
        restarts: 2,
        previous: Some(UnitHash::of_text("x")),
        rollout: Some(ChangeDirection::Forward),
        note: String::new(),
    };

    let read: FirstUnitRecord = decode_record(&encode_record(&record)).unwrap();

    let previous = Some(UnitHash::of_text("x"));
    let known =
        FirstUnitRecord { hash, desired: JobState::Launched, restarts: 2, previous, note: String::new() };
    assert_eq!(read, known);
    // The keys of new kinds mean nothing to it, and those of old kinds lie where they lay.
    let keys = KeySpace::with_prefix(DEFAULT_PREFIX);
    let machine = MachineId::parse(MACHINE).unwrap();
    let lie = [
        (StoreKey::Unit(sample_unit()), encode_record(&record)),
        (StoreKey::Assignment(machine.clone(), sample_unit()), encode_record(&AssignmentRecord { hash })),
        (
            StoreKey::Presence(machine.clone()),
            encode_record(&PresenceRecord { machine: Machine::new(machine), boot: String::new() }),
        ),
    ];
    for ((key, value), (first, _)) in lie.iter().zip([FIRST[1], FIRST[3], FIRST[2]]) {
        assert_eq!(keys.key_path(key), format!("{DEFAULT_PREFIX}{first}"));
        assert!(value.starts_with(br#"{"v":1,"#));
    }
}

#[test]
fn a_change_by_the_first_version_ends_a_rollout_and_breaks_nothing() {
    let mut picture = empty_view();
    for (key, value) in FIRST {
        accept_value(&mut picture, key, value);
    }
    let hash = UnitHash::of_text(TEXT);
    let first =
        FirstUnitRecord { hash, desired: JobState::Loaded, restarts: 3, previous: None, note: String::new() };

    assert!(accept_value(
        &mut picture,
        "units/a.service",
        &String::from_utf8(encode_record(&first)).unwrap()
    ));

    let unit = &picture.cluster().units[&sample_unit()];
    assert_eq!((unit.desired, unit.restarts, unit.rollout), (JobState::Loaded, 3, None));
}

#[test]
fn what_a_next_version_adds_is_overlooked() {
    let mut picture = empty_view();

    for (key, value) in FIRST {
        let more = value.replacen(r#"{"v":1,"#, r#"{"v":1,"colour":{"of":["the",1]},"#, 1);
        assert!(accept_value(&mut picture, key, &more), "{key}");
    }
    assert!(
        accept_value(&mut picture, "colours/a.service", r#"{"v":7}"#),
        "a key of a kind that nobody knows"
    );

    assert_eq!(picture.cluster().units[&sample_unit()].desired, JobState::Launched);
    assert_eq!(picture.cluster().target_of("a.service").map(MachineId::as_str), Some(MACHINE));
    let state: StateRecord = decode_record(FIRST[4].1.as_bytes()).unwrap();
    assert_eq!(state.restarts, 2);
}

#[test]
fn a_next_format_is_not_guessed_at_and_shuts_older_programs_out() {
    let mut picture = empty_view();
    let next = format!(r#"{{"v":{},"hash":[1,2,3],"desired":{{"launched":true}}}}"#, FORMAT + 1);

    assert!(
        matches!(decode_record::<UnitRecord>(next.as_bytes()), Err(RecordError::Newer(v)) if v == FORMAT + 1)
    );
    assert!(!accept_value(&mut picture, "units/a.service", &next));
    assert!(accept_value(&mut picture, "schema", &format!(r#"{{"v":1,"oldest_reader":{}}}"#, FORMAT + 1)));

    assert!(picture.newer_schema().is_some_and(|schema| schema.oldest_reader > FORMAT));
}
