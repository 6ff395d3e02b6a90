//! Builds the picture of the cluster from the keys of etcd, one event after the other.
//!
//! Knows how records combine: a machine is its presence, overlaid with metadata and drains set through
//! the API; a unit is its record and the file that the record names. Refuses to know where events come
//! from. Invariant: a record that cannot be read leaves the picture as it was without that key.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use crate::{
    lock::semaphore::{GroupName, Semaphore},
    model::{
        machine::{Machine, MachineId},
        requirements::Requirements,
        state::UnitState,
        unit_file::{MAX_SIZE, UnitFile, UnitHash},
        unit_name::UnitName,
    },
    store::{
        cluster::{Assignment, Cluster, Unit},
        keys::{Key, Keys, Order},
        records::{
            AssignmentRecord, LeaderRecord, MetadataRecord, NoteRecord, OrderRecord, PresenceRecord,
            RecordError, SchemaRecord, StateRecord, UnitRecord, decode,
        },
        registry::Change,
    },
};

/// A key and what it holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; `None` when it is gone.
    pub value: Option<Vec<u8>>,
    /// The revision of the change.
    pub revision: i64,
    /// The revision in which the key came into being.
    pub created: i64,
}

/// A value that could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Its key.
    pub key: String,
    /// Why.
    pub source: RecordError,
}

/// Who leads, and since which revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The machine.
    pub machine: MachineId,
    /// The revision in which its leadership began.
    pub created: i64,
}

/// The picture and the pieces it is made of.
#[derive(Debug)]
pub struct Picture {
    keys: Keys,
    cluster: Cluster,
    units: BTreeMap<UnitName, (UnitRecord, i64)>,
    presences: BTreeMap<MachineId, PresenceRecord>,
    overlays: BTreeMap<MachineId, BTreeMap<String, Option<String>>>,
    drains: BTreeSet<MachineId>,
    places: BTreeMap<UnitName, BTreeMap<MachineId, Assignment>>,
    file_revisions: BTreeMap<UnitHash, i64>,
    leader: Option<Leadership>,
    orders: BTreeMap<Order, (OrderRecord, i64)>,
    locks: BTreeMap<GroupName, (Semaphore, i64)>,
    schema: Option<SchemaRecord>,
}

impl Picture {
    /// An empty picture of what lies under these keys.
    #[must_use]
    pub fn of(keys: Keys) -> Self {
        Self {
            keys,
            cluster: Cluster::default(),
            units: BTreeMap::new(),
            presences: BTreeMap::new(),
            overlays: BTreeMap::new(),
            drains: BTreeSet::new(),
            places: BTreeMap::new(),
            file_revisions: BTreeMap::new(),
            leader: None,
            orders: BTreeMap::new(),
            locks: BTreeMap::new(),
            schema: None,
        }
    }

    /// Starts over from a complete reading at one revision. Returns what could not be read.
    pub fn reset(&mut self, entries: &[Event], revision: i64) -> Vec<Unreadable> {
        *self = Self::of(self.keys.clone());
        let mut unreadable = Vec::new();
        let mut changes = Vec::new();
        for entry in entries {
            unreadable.extend(self.apply(entry, &mut changes).err());
            changes.clear();
        }
        self.reach(revision);
        unreadable
    }

    /// Takes in one event and adds what it changed.
    pub fn apply(&mut self, event: &Event, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
        self.reach(event.revision);
        let Some(key) = self.keys.parse(&event.key) else { return Ok(()) };
        let path = self.keys.path(&key);
        self.take(key.clone(), event.value.as_deref(), event.revision, event.created, changes).map_err(
            |source| {
                // The old value is history, the new one a riddle: as if there were none.
                let _ = self.take(key, None, event.revision, event.created, changes);
                Unreadable { key: path, source }
            },
        )
    }

    /// The picture shows this revision.
    pub fn reach(&mut self, revision: i64) {
        self.cluster.revision = self.cluster.revision.max(revision);
    }

    /// The picture.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The keys it is made from.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Who leads.
    #[must_use]
    pub fn leader(&self) -> Option<&Leadership> {
        self.leader.as_ref()
    }

    /// The presence of a machine.
    #[must_use]
    pub fn presence(&self, machine: &MachineId) -> Option<&PresenceRecord> {
        self.presences.get(machine)
    }

    /// What people ordered and the engine did not do yet, with the revision of each order.
    pub fn orders(&self) -> impl Iterator<Item = (Order, &OrderRecord, i64)> {
        self.orders.iter().map(|(order, (record, revision))| (*order, record, *revision))
    }

    /// The reboot slots of a group, with the revision of their last change, 0 for never.
    #[must_use]
    pub fn lock(&self, group: &GroupName) -> (Semaphore, i64) {
        self.locks.get(group).cloned().unwrap_or_default()
    }

    /// Every group with reboot slots.
    pub fn locks(&self) -> impl Iterator<Item = (&GroupName, &Semaphore)> {
        self.locks.iter().map(|(group, (slots, _))| (group, slots))
    }

    /// Whether a newer fleetd has shut this program out.
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRecord> {
        self.schema.as_ref()
    }

    /// A unit's record and its revision.
    #[must_use]
    pub fn unit_record(&self, name: &UnitName) -> Option<&(UnitRecord, i64)> {
        self.units.get(name)
    }

    /// Assignments beside the one that counts: leftovers, with their revisions.
    pub fn strays(&self) -> impl Iterator<Item = (&UnitName, &MachineId, i64)> {
        self.places.iter().flat_map(|(unit, places)| {
            let counts = self.cluster.assignments.get(unit).map(|place| &place.machine);
            places
                .iter()
                .filter(move |(machine, _)| Some(*machine) != counts)
                .map(move |(machine, place)| (unit, machine, place.revision))
        })
    }

    /// Admissions to contents that are not being rolled out any more.
    pub fn old_admissions(&self) -> impl Iterator<Item = (&UnitName, &MachineId)> {
        self.cluster.admissions.iter().flat_map(|(unit, machines)| {
            let current = self.cluster.units.get(unit).filter(|unit| unit.rollout.is_some());
            let current = current.map(|unit| unit.file.hash());
            let old = machines.iter().filter(move |(_, hash)| Some(**hash) != current);
            old.map(move |(machine, _)| (unit, machine))
        })
    }

    /// Files that nothing refers to, with their revisions.
    #[must_use]
    pub fn unused_files(&self) -> Vec<(UnitHash, i64)> {
        let mut used: BTreeSet<UnitHash> = BTreeSet::new();
        for (unit, _) in self.units.values() {
            used.insert(unit.hash);
            used.extend(unit.previous);
        }
        used.extend(self.places.values().flat_map(BTreeMap::values).map(|place| place.hash));
        let files = self.file_revisions.iter();
        files.filter(|(hash, _)| !used.contains(hash)).map(|(hash, revision)| (*hash, *revision)).collect()
    }

    fn take(
        &mut self,
        key: Key,
        value: Option<&[u8]>,
        revision: i64,
        created: i64,
        changes: &mut Vec<Change>,
    ) -> Result<(), RecordError> {
        match key {
            Key::Admission(machine, unit) => {
                let record = optional::<AssignmentRecord>(value)?;
                let machines = self.cluster.admissions.entry(unit.clone()).or_default();
                set(machines, machine, record.map(|record| record.hash));
                if machines.is_empty() {
                    self.cluster.admissions.remove(&unit);
                }
                changes.push(Change::Unit(unit));
            }
            Key::Assignment(machine, unit) => {
                let place = optional::<AssignmentRecord>(value)?;
                let place =
                    place.map(|place| Assignment { machine: machine.clone(), hash: place.hash, revision });
                self.assign(&unit, machine, place);
                changes.push(Change::Unit(unit));
            }
            Key::Brake => {
                self.cluster.brake =
                    optional::<NoteRecord>(value)?.map(|record| record.note).unwrap_or_default();
            }
            Key::File(hash) => self.take_file(hash, value, revision, changes)?,
            Key::Leader => {
                let leader = optional::<LeaderRecord>(value)?;
                self.cluster.leader = leader.as_ref().map(|leader| leader.machine.clone());
                self.leader = leader.map(|leader| Leadership { machine: leader.machine, created });
            }
            Key::Lock(group) => {
                set(&mut self.locks, group, optional::<Semaphore>(value)?.map(|slots| (slots, revision)));
            }
            Key::Drain(machine) => {
                if value.is_some() {
                    self.drains.insert(machine.clone())
                } else {
                    self.drains.remove(&machine)
                };
                self.compose_machine(machine, changes);
            }
            Key::Metadata(machine, key) => {
                let record = optional::<MetadataRecord>(value)?;
                let overlay = self.overlays.entry(machine.clone()).or_default();
                set(overlay, key, record.map(|record| record.value));
                self.compose_machine(machine, changes);
            }
            Key::Presence(machine) => {
                let presence =
                    optional::<PresenceRecord>(value)?.filter(|presence| presence.machine.id == machine);
                set(&mut self.presences, machine.clone(), presence);
                self.compose_machine(machine, changes);
            }
            Key::Order(order) => {
                set(
                    &mut self.orders,
                    order,
                    optional::<OrderRecord>(value)?.map(|record| (record, revision)),
                );
                changes.push(Change::Order);
            }
            Key::Schema => self.schema = optional(value)?,
            Key::State(machine, unit) => {
                let state = optional::<StateRecord>(value)?.map(|record| spoken(&unit, &machine, record));
                self.take_state(&unit, &machine, state);
                changes.push(Change::State(unit, machine));
            }
            Key::Unit(unit) => {
                set(
                    &mut self.units,
                    unit.clone(),
                    optional::<UnitRecord>(value)?.map(|record| (record, revision)),
                );
                self.compose_unit(unit, changes);
            }
        }
        Ok(())
    }

    fn take_file(
        &mut self,
        hash: UnitHash,
        value: Option<&[u8]>,
        revision: i64,
        changes: &mut Vec<Change>,
    ) -> Result<(), RecordError> {
        let Some(value) = value else {
            self.cluster.files.remove(&hash);
            self.file_revisions.remove(&hash);
            return Ok(());
        };
        self.file_revisions.insert(hash, revision);
        if self.cluster.files.contains_key(&hash) {
            return Ok(());
        }
        if value.len() > MAX_SIZE {
            return Err(RecordError::TooLarge(value.len()));
        }
        let file = UnitFile::parse(std::str::from_utf8(value)?)?;
        self.cluster.files.insert(hash, file);
        let waiting = self
            .units
            .iter()
            .filter(|(name, (record, _))| record.hash == hash && !self.cluster.units.contains_key(*name));
        let waiting: Vec<UnitName> = waiting.map(|(name, _)| name.clone()).collect();
        for unit in waiting {
            self.compose_unit(unit, changes);
        }
        Ok(())
    }

    fn take_state(&mut self, unit: &UnitName, machine: &MachineId, state: Option<UnitState>) {
        match state {
            Some(state) => {
                self.cluster.states.entry(unit.clone()).or_default().insert(machine.clone(), state);
            }
            None => {
                if let Some(states) = self.cluster.states.get_mut(unit) {
                    states.remove(machine);
                    if states.is_empty() {
                        self.cluster.states.remove(unit);
                    }
                }
            }
        }
    }

    fn assign(&mut self, unit: &UnitName, machine: MachineId, place: Option<Assignment>) {
        let places = self.places.entry(unit.clone()).or_default();
        set(places, machine, place);
        let newest = places.values().max_by_key(|place| place.revision).cloned();
        if places.is_empty() {
            self.places.remove(unit);
        }
        set(&mut self.cluster.assignments, unit.clone(), newest);
    }

    fn compose_machine(&mut self, id: MachineId, changes: &mut Vec<Change>) {
        let machine = self.presences.get(&id).map(|presence| {
            let mut machine: Machine = presence.machine.clone();
            for (key, value) in self.overlays.get(&id).into_iter().flatten() {
                set(&mut machine.metadata, key.clone(), value.clone());
            }
            machine.draining |= self.drains.contains(&id);
            machine
        });
        set(&mut self.cluster.machines, id.clone(), machine);
        changes.push(Change::Machine(id));
    }

    fn compose_unit(&mut self, name: UnitName, changes: &mut Vec<Change>) {
        let former = self.cluster.units.get(&name);
        let unit = self.units.get(&name).and_then(|(record, revision)| {
            let file = self.cluster.files.get(&record.hash)?;
            let requirements = former
                .filter(|former| former.file.hash() == record.hash)
                .map_or_else(|| Requirements::of(&name, file).into(), |former| former.requirements.clone());
            Some(Unit {
                name: name.clone(),
                file: file.clone(),
                requirements,
                desired: record.desired,
                restarts: record.restarts,
                previous: record.previous,
                rollout: record.rollout,
                note: record.note.clone(),
                revision: *revision,
            })
        });
        set(&mut self.cluster.units, name.clone(), unit);
        changes.push(Change::Unit(name));
    }
}

fn spoken(unit: &UnitName, machine: &MachineId, record: StateRecord) -> UnitState {
    UnitState {
        name: unit.clone(),
        machine: machine.clone(),
        hash: record.hash,
        job: record.job,
        load: record.load,
        active: record.active,
        sub: record.sub,
        restarts: record.restarts,
        error: record.error,
    }
}

fn optional<T: DeserializeOwned>(value: Option<&[u8]>) -> Result<Option<T>, RecordError> {
    value.map(decode).transpose()
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::state::JobState,
        store::{keys::DEFAULT_PREFIX, records::encode},
    };

    fn put(picture: &mut Picture, key: &Key, value: Vec<u8>, revision: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        let key = picture.keys.path(key).into_bytes();
        let _ = picture.apply(&Event { key, value: Some(value), revision, created: revision }, &mut changes);
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
        let hash = UnitHash::of(text);
        let record = UnitRecord {
            hash,
            desired: JobState::Launched,
            restarts: 0,
            previous: None,
            rollout: None,
            note: String::new(),
        };
        let (record, file) =
            ((Key::Unit(unit()), encode(&record)), (Key::File(hash), text.as_bytes().to_vec()));
        for order in [[&record, &file], [&file, &record]] {
            let mut picture = Picture::of(Keys::under(DEFAULT_PREFIX));

            for (revision, (key, value)) in (1..).zip(order) {
                put(&mut picture, key, value.clone(), revision);
            }

            assert_eq!(picture.cluster().units[&unit()].file.text(), text);
            assert_eq!(picture.unused_files(), []);
        }
    }

    #[test]
    fn a_machine_is_its_presence_under_what_was_set_by_the_api() {
        let mut picture = Picture::of(Keys::under(DEFAULT_PREFIX));
        let mut own = Machine::new(machine(1));
        own.metadata = crate::model::machine::parse_metadata("zone=a,disk=ssd");
        let hidden = encode(&MetadataRecord { value: None });
        put(&mut picture, &Key::Metadata(machine(1), "disk".to_owned()), hidden, 1);
        put(&mut picture, &Key::Drain(machine(1)), b"{}".to_vec(), 2);
        assert!(picture.cluster().machines.is_empty(), "metadata alone makes no machine");

        put(
            &mut picture,
            &Key::Presence(machine(1)),
            encode(&PresenceRecord { machine: own, boot: String::new() }),
            3,
        );

        let shown = &picture.cluster().machines[&machine(1)];
        assert!(shown.draining);
        assert_eq!(shown.metadata.keys().collect::<Vec<_>>(), ["zone"]);
    }

    #[test]
    fn of_two_assignments_the_newest_counts_and_the_other_is_a_stray() {
        let mut picture = Picture::of(Keys::under(DEFAULT_PREFIX));
        let record = encode(&AssignmentRecord { hash: UnitHash::of("") });
        put(&mut picture, &Key::Assignment(machine(1), unit()), record.clone(), 5);
        put(&mut picture, &Key::Assignment(machine(2), unit()), record, 4);

        assert_eq!(picture.cluster().target("a.service"), Some(&machine(1)));
        assert_eq!(picture.strays().collect::<Vec<_>>(), [(&unit(), &machine(2), 4)]);
    }

    #[test]
    fn a_value_that_cannot_be_read_counts_as_absent() {
        let mut picture = Picture::of(Keys::under(DEFAULT_PREFIX));
        let key = Key::Presence(machine(1));
        put(
            &mut picture,
            &key,
            encode(&PresenceRecord { machine: Machine::new(machine(1)), boot: String::new() }),
            1,
        );
        put(&mut picture, &key, b"\xff".to_vec(), 2);

        assert!(picture.cluster().machines.is_empty());
    }

    proptest! {
        #[test]
        fn no_value_makes_it_fall_over(value in prop::collection::vec(any::<u8>(), 0..200), kind in 0..8_usize) {
            let mut picture = Picture::of(Keys::under(DEFAULT_PREFIX));
            let keys = [
                Key::Assignment(machine(1), unit()), Key::Brake, Key::File(UnitHash::of("")), Key::Leader,
                Key::Lock(GroupName::default()), Key::Presence(machine(1)), Key::State(machine(1), unit()), Key::Unit(unit()),
            ];
            put(&mut picture, &keys[kind], value, 1);
        }
    }
}
