//! Builds the picture of the cluster from the keys of etcd, one event after the other.
//!
//! Knows how records combine: a machine is its presence, overlaid with metadata and drains set through
//! the API; a unit is its record and the file that the record names. Refuses to know where events come
//! from. Invariant: a record that cannot be read leaves the picture as it was without that key.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use crate::{
    lock::semaphore::{GroupName, GroupSemaphore},
    model::{
        machine::{Machine, MachineId},
        requirements::UnitRequirements,
        state::UnitState,
        unit_file::{MAX_SIZE, UnitFile, UnitHash},
        unit_name::UnitName,
    },
    store::{
        cluster::{Cluster, SubmittedUnit, UnitAssignment},
        keys::{KeySpace, OperatorOrder, StoreKey},
        records::{
            AssignmentRecord, LeaderRecord, MetadataRecord, NoteRecord, OrderRecord, PresenceRecord,
            RecordError, SchemaRecord, StateRecord, UnitRecord, decode_record,
        },
        registry::ClusterChange,
        revision::Revision,
    },
};

/// A key and what it holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEvent {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; `None` when it is gone.
    pub value: Option<Vec<u8>>,
    /// The revision of the change.
    pub revision: Revision,
    /// The revision in which the key came into being.
    pub created: Revision,
}

/// A value that could not be read.
#[derive(Debug)]
pub struct UnreadableValue {
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
    pub created: Revision,
}

/// The picture and the pieces it is made of.
#[derive(Debug)]
pub struct ClusterView {
    keys: KeySpace,
    cluster: Cluster,
    units: BTreeMap<UnitName, (UnitRecord, Revision)>,
    presences: BTreeMap<MachineId, PresenceRecord>,
    overlays: BTreeMap<MachineId, BTreeMap<String, Option<String>>>,
    drains: BTreeSet<MachineId>,
    places: BTreeMap<UnitName, BTreeMap<MachineId, UnitAssignment>>,
    file_revisions: BTreeMap<UnitHash, Revision>,
    leader: Option<Leadership>,
    orders: BTreeMap<OperatorOrder, (OrderRecord, Revision)>,
    locks: BTreeMap<GroupName, (GroupSemaphore, Revision)>,
    schema: Option<SchemaRecord>,
}

impl ClusterView {
    /// An empty picture of what lies under these keys.
    #[must_use]
    pub fn of_keys(keys: KeySpace) -> Self {
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
    pub fn reset_to(&mut self, entries: &[KeyEvent], revision: Revision) -> Vec<UnreadableValue> {
        *self = Self::of_keys(self.keys.clone());
        let mut unreadable = Vec::new();
        let mut changes = Vec::new();
        for entry in entries {
            unreadable.extend(self.apply_event(entry, &mut changes).err());
            changes.clear();
        }
        self.advance_to(revision);
        unreadable
    }

    /// Takes in one event and adds what it changed.
    pub fn apply_event(
        &mut self,
        event: &KeyEvent,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<(), UnreadableValue> {
        self.advance_to(event.revision);
        let Some(key) = self.keys.parse_key(&event.key) else { return Ok(()) };
        let path = self.keys.key_path(&key);
        self.apply_key(key.clone(), event.value.as_deref(), event.revision, event.created, changes).map_err(
            |source| {
                // The old value is not what the store holds, and the new one cannot be read: as if there were none.
                let _ = self.apply_key(key, None, event.revision, event.created, changes);
                UnreadableValue { key: path, source }
            },
        )
    }

    /// The picture shows this revision.
    pub fn advance_to(&mut self, revision: Revision) {
        self.cluster.revision = self.cluster.revision.max(revision);
    }

    /// The picture.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The keys it is made from.
    #[must_use]
    pub fn key_space(&self) -> &KeySpace {
        &self.keys
    }

    /// Who leads.
    #[must_use]
    pub fn current_leader(&self) -> Option<&Leadership> {
        self.leader.as_ref()
    }

    /// The presence of a machine.
    #[must_use]
    pub fn presence_of(&self, machine: &MachineId) -> Option<&PresenceRecord> {
        self.presences.get(machine)
    }

    /// What people ordered and the engine did not do yet, with the revision of each order.
    pub fn operator_orders(&self) -> impl Iterator<Item = (OperatorOrder, &OrderRecord, Revision)> {
        self.orders.iter().map(|(order, (record, revision))| (*order, record, *revision))
    }

    /// The reboot slots of a group, with the revision of their last change, 0 for never.
    #[must_use]
    pub fn reboot_lock(&self, group: &GroupName) -> (GroupSemaphore, Revision) {
        self.locks.get(group).cloned().unwrap_or_default()
    }

    /// Every group with reboot slots.
    pub fn reboot_locks(&self) -> impl Iterator<Item = (&GroupName, &GroupSemaphore)> {
        self.locks.iter().map(|(group, (slots, _))| (group, slots))
    }

    /// Whether a newer fleetd has shut this program out.
    #[must_use]
    pub fn newer_schema(&self) -> Option<&SchemaRecord> {
        self.schema.as_ref()
    }

    /// A unit's record and its revision.
    #[must_use]
    pub fn unit_record(&self, name: &UnitName) -> Option<&(UnitRecord, Revision)> {
        self.units.get(name)
    }

    /// Assignments beside the one that counts: leftovers, with their revisions.
    pub fn orphaned_assignments(&self) -> impl Iterator<Item = (&UnitName, &MachineId, Revision)> {
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
    pub fn unused_files(&self) -> Vec<(UnitHash, Revision)> {
        let mut used: BTreeSet<UnitHash> = BTreeSet::new();
        for (unit, _) in self.units.values() {
            used.insert(unit.hash);
            used.extend(unit.previous);
        }
        used.extend(self.places.values().flat_map(BTreeMap::values).map(|place| place.hash));
        let files = self.file_revisions.iter();
        files.filter(|(hash, _)| !used.contains(hash)).map(|(hash, revision)| (*hash, *revision)).collect()
    }

    fn apply_key(
        &mut self,
        key: StoreKey,
        value: Option<&[u8]>,
        revision: Revision,
        created: Revision,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<(), RecordError> {
        match key {
            StoreKey::Admission(machine, unit) => {
                self.set_admission(&unit, machine, decode_optional(value)?);
                changes.push(ClusterChange::Unit(unit));
            }
            StoreKey::Assignment(machine, unit) => {
                let place = decode_optional::<AssignmentRecord>(value)?;
                let assignment = |place: AssignmentRecord| UnitAssignment {
                    machine: machine.clone(),
                    hash: place.hash,
                    revision,
                };
                let place = place.map(assignment);
                self.set_assignment(&unit, machine, place);
                changes.push(ClusterChange::Unit(unit));
            }
            StoreKey::Brake => {
                self.cluster.brake =
                    decode_optional::<NoteRecord>(value)?.map(|record| record.note).unwrap_or_default();
            }
            StoreKey::File(hash) => self.take_file(hash, value, revision, changes)?,
            StoreKey::Leader => self.set_leader(decode_optional(value)?, created),
            StoreKey::Lock(group) => {
                let slots = decode_optional::<GroupSemaphore>(value)?;
                set_or_remove(&mut self.locks, group, slots.map(|slots| (slots, revision)));
            }
            StoreKey::Drain(machine) => {
                match value {
                    Some(_) => self.drains.insert(machine.clone()),
                    None => self.drains.remove(&machine),
                };
                self.compose_machine(machine, changes);
            }
            StoreKey::Metadata(machine, key) => {
                let record = decode_optional::<MetadataRecord>(value)?;
                let overlay = self.overlays.entry(machine.clone()).or_default();
                set_or_remove(overlay, key, record.map(|record| record.value));
                self.compose_machine(machine, changes);
            }
            StoreKey::Presence(machine) => {
                let presence = decode_optional::<PresenceRecord>(value)?
                    .filter(|presence| presence.machine.id == machine);
                set_or_remove(&mut self.presences, machine.clone(), presence);
                self.compose_machine(machine, changes);
            }
            StoreKey::Order(order) => {
                let record = decode_optional::<OrderRecord>(value)?;
                set_or_remove(&mut self.orders, order, record.map(|record| (record, revision)));
                changes.push(ClusterChange::Order);
            }
            StoreKey::Schema => self.schema = decode_optional(value)?,
            StoreKey::State(machine, unit) => {
                let state =
                    decode_optional::<StateRecord>(value)?.map(|record| to_state(&unit, &machine, record));
                self.take_state(&unit, &machine, state);
                changes.push(ClusterChange::State(unit, machine));
            }
            StoreKey::Unit(unit) => {
                let record = decode_optional::<UnitRecord>(value)?;
                set_or_remove(&mut self.units, unit.clone(), record.map(|record| (record, revision)));
                self.compose_unit(unit, changes);
            }
        }
        Ok(())
    }

    fn set_admission(&mut self, unit: &UnitName, machine: MachineId, record: Option<AssignmentRecord>) {
        let machines = self.cluster.admissions.entry(unit.clone()).or_default();
        set_or_remove(machines, machine, record.map(|record| record.hash));
        if machines.is_empty() {
            self.cluster.admissions.remove(unit);
        }
    }

    fn set_leader(&mut self, leader: Option<LeaderRecord>, created: Revision) {
        self.cluster.leader = leader.as_ref().map(|leader| leader.machine.clone());
        self.leader = leader.map(|leader| Leadership { machine: leader.machine, created });
    }

    fn take_file(
        &mut self,
        hash: UnitHash,
        value: Option<&[u8]>,
        revision: Revision,
        changes: &mut Vec<ClusterChange>,
    ) -> Result<(), RecordError> {
        let Some(value) = value else {
            self.cluster.files.remove(&hash);
            self.file_revisions.remove(&hash);
            return Ok(());
        };
        self.file_revisions.insert(hash, revision);
        // Content is named by its hash, so what is there is the same. Parsing it again would cost each unit
        // of a template.
        if self.cluster.files.contains_key(&hash) {
            return Ok(());
        }
        // Anybody who can write to etcd may write anything. The bound of the API holds here, too, before any byte is
        // looked at.
        if value.len() > MAX_SIZE {
            return Err(RecordError::TooLarge(value.len()));
        }
        // Strict here and lenient in the API: we stored UTF-8, so other bytes are damage and no Latin-1
        // file of a user.
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

    fn set_assignment(&mut self, unit: &UnitName, machine: MachineId, place: Option<UnitAssignment>) {
        let places = self.places.entry(unit.clone()).or_default();
        set_or_remove(places, machine, place);
        // The engine moves a unit with one transaction, so two assignments mean that an older one was left
        // behind. The newest is the decision; the other one is swept up.
        let newest = places.values().max_by_key(|place| place.revision).cloned();
        if places.is_empty() {
            self.places.remove(unit);
        }
        set_or_remove(&mut self.cluster.assignments, unit.clone(), newest);
    }

    fn compose_machine(&mut self, id: MachineId, changes: &mut Vec<ClusterChange>) {
        let machine = self.presences.get(&id).map(|presence| {
            let mut machine: Machine = presence.machine.clone();
            for (key, value) in self.overlays.get(&id).into_iter().flatten() {
                set_or_remove(&mut machine.metadata, key.clone(), value.clone());
            }
            machine.draining |= self.drains.contains(&id);
            machine
        });
        set_or_remove(&mut self.cluster.machines, id.clone(), machine);
        changes.push(ClusterChange::Machine(id));
    }

    fn compose_unit(&mut self, name: UnitName, changes: &mut Vec<ClusterChange>) {
        let former = self.cluster.units.get(&name);
        let unit = self.units.get(&name).and_then(|(record, revision)| {
            let file = self.cluster.files.get(&record.hash)?;
            // The same text asks for the same, and a state or a note changes a unit far more often than its
            // text does.
            let requirements = former.filter(|former| former.file.hash() == record.hash).map_or_else(
                || UnitRequirements::of_unit(&name, file).into(),
                |former| former.requirements.clone(),
            );
            Some(SubmittedUnit {
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
        set_or_remove(&mut self.cluster.units, name.clone(), unit);
        changes.push(ClusterChange::Unit(name));
    }
}

fn to_state(unit: &UnitName, machine: &MachineId, record: StateRecord) -> UnitState {
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

fn decode_optional<T: DeserializeOwned>(value: Option<&[u8]>) -> Result<Option<T>, RecordError> {
    value.map(decode_record).transpose()
}

fn set_or_remove<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

#[cfg(test)]
mod tests;
