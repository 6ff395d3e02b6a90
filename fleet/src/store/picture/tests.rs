use proptest::prelude::*;

use super::*;
use crate::{
    model::state::JobState,
    store::{keys::DEFAULT_PREFIX, records::encode_record},
};

fn put(picture: &mut ClusterView, key: &StoreKey, value: Vec<u8>, revision: Revision) -> Vec<ClusterChange> {
    let mut changes = Vec::new();
    let key = picture.keys.key_path(key).into_bytes();
    let _ =
        picture.apply_event(&KeyEvent { key, value: Some(value), revision, created: revision }, &mut changes);
    changes
}

fn unit() -> UnitName {
    UnitName::parse("a.service").unwrap()
}

fn machine(number: u8) -> MachineId {
    MachineId::parse(&format!("m{number}")).unwrap()
}

#[test]
fn a_unit_shows_when_record_and_file_are_there_in_any_order() {
    let text = "[Service]\nExecStart=x\n";
    let hash = UnitHash::of_text(text);
    let record = UnitRecord {
        hash,
        desired: JobState::Launched,
        restarts: 0,
        previous: None,
        rollout: None,
        note: String::new(),
    };
    let (record, file) =
        ((StoreKey::Unit(unit()), encode_record(&record)), (StoreKey::File(hash), text.as_bytes().to_vec()));
    for order in [[&record, &file], [&file, &record]] {
        let mut picture = ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX));

        for (revision, (key, value)) in (1..).zip(order) {
            put(&mut picture, key, value.clone(), Revision(revision));
        }

        assert_eq!(picture.cluster().units[&unit()].file.canonical_text(), text);
        assert_eq!(picture.unused_files(), []);
    }
}

#[test]
fn a_machine_is_its_presence_under_what_was_set_by_the_api() {
    let mut picture = ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX));
    let mut own = Machine::new(machine(1));
    own.metadata = crate::model::machine::parse_metadata("zone=a,disk=ssd");
    let hidden = encode_record(&MetadataRecord { value: None });
    put(&mut picture, &StoreKey::Metadata(machine(1), "disk".to_owned()), hidden, Revision(1));
    put(&mut picture, &StoreKey::Drain(machine(1)), b"{}".to_vec(), Revision(2));
    assert!(picture.cluster().machines.is_empty(), "metadata alone makes no machine");

    put(
        &mut picture,
        &StoreKey::Presence(machine(1)),
        encode_record(&PresenceRecord { machine: own, boot: String::new() }),
        Revision(3),
    );

    let shown = &picture.cluster().machines[&machine(1)];
    assert!(shown.draining);
    assert_eq!(shown.metadata.keys().collect::<Vec<_>>(), ["zone"]);
}

#[test]
fn of_two_assignments_the_newest_counts_and_the_other_is_a_stray() {
    let mut picture = ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX));
    let record = encode_record(&AssignmentRecord { hash: UnitHash::of_text("") });
    put(&mut picture, &StoreKey::Assignment(machine(1), unit()), record.clone(), Revision(5));
    put(&mut picture, &StoreKey::Assignment(machine(2), unit()), record, Revision(4));

    assert_eq!(picture.cluster().target_of("a.service"), Some(&machine(1)));
    assert_eq!(picture.orphaned_assignments().collect::<Vec<_>>(), [(&unit(), &machine(2), Revision(4))]);
}

#[test]
fn a_value_that_cannot_be_read_counts_as_absent() {
    let mut picture = ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX));
    let key = StoreKey::Presence(machine(1));
    put(
        &mut picture,
        &key,
        encode_record(&PresenceRecord { machine: Machine::new(machine(1)), boot: String::new() }),
        Revision(1),
    );
    put(&mut picture, &key, b"\xff".to_vec(), Revision(2));

    assert!(picture.cluster().machines.is_empty());
}

proptest! {
    #[test]
    fn no_value_makes_it_fall_over(value in prop::collection::vec(any::<u8>(), 0..200), kind in 0..8_usize) {
        let mut picture = ClusterView::of_keys(KeySpace::with_prefix(DEFAULT_PREFIX));
        let keys = [
            StoreKey::Assignment(machine(1), unit()), StoreKey::Brake, StoreKey::File(UnitHash::of_text("")), StoreKey::Leader,
            StoreKey::Lock(GroupName::default()), StoreKey::Presence(machine(1)), StoreKey::State(machine(1), unit()), StoreKey::Unit(unit()),
        ];
        put(&mut picture, &keys[kind], value, Revision(1));
    }
}
