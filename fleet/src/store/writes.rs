//! Every change of the store as a value: what must hold, and what is written if it does.
//!
//! Knows which conditions make a command or a decision safe against others who write at the same time;
//! refuses to carry it out. Invariant: nothing is written over a value that was not seen, but metadata,
//! drains and orders, where the last word is meant to win.

use crate::{
    lock::semaphore::{GroupName, GroupSemaphore},
    model::{
        machine::MachineId,
        requirements::UnitRequirements,
        state::{DesiredState, JobState},
        unit_file::UnitFile,
        unit_name::UnitName,
    },
    plan::{place::PlacementDecision, rollout::RolloutStep},
    store::{
        cluster::{ChangeDirection, SubmittedUnit},
        keys::{OperatorOrder, StoreKey},
        picture::ClusterView,
        records::{
            AssignmentRecord, LeaderRecord, MetadataRecord, NoteRecord, OrderRecord, PresenceRecord,
            StateRecord, UnitRecord, encode_record,
        },
        registry::{CommandError, RegistryCommand},
    },
};

/// The most admissions that are taken back with the end of a rollout; the rest is swept up.
const DELETED_AT_ONCE: usize = 100;

/// What must hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteCondition {
    /// The key does not exist.
    Absent(StoreKey),
    /// The key exists.
    Present(StoreKey),
    /// The key was last changed in this revision.
    Unchanged(StoreKey, i64),
    /// The key came into being in this revision, and has existed since.
    SameLife(StoreKey, i64),
    /// The key exists and lives by this lease, which is never 0.
    LivesBy(StoreKey, i64),
}

/// Which lease a key lives by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyLifetime {
    /// Until it is deleted.
    Unlimited,
    /// As long as the machine is there.
    OfMachine,
    /// As long as this engine leads.
    OfLeader,
}

/// One key written or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOperation {
    /// Sets the value.
    Put(StoreKey, Vec<u8>, KeyLifetime),
    /// Removes the key.
    Delete(StoreKey),
}

/// A transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreWrite {
    /// All of this must hold.
    pub when: Vec<WriteCondition>,
    /// Then all of this happens.
    pub then: Vec<WriteOperation>,
}

impl StoreWrite {
    /// Both or neither.
    pub fn join_with(&mut self, other: Self) {
        self.when.extend(other.when);
        self.then.extend(other.then);
    }
}

fn put_key(key: StoreKey, value: Vec<u8>) -> WriteOperation {
    WriteOperation::Put(key, value, KeyLifetime::Unlimited)
}

/// What a command writes, as the picture stands.
pub fn command_write(picture: &ClusterView, command: RegistryCommand) -> Result<StoreWrite, CommandError> {
    Ok(match command {
        RegistryCommand::Create { name, file, desired } => create_write(picture, name, &file, desired)?,
        RegistryCommand::Destroy { name } => {
            let (_, revision) = known_unit(picture, &name)?;
            let key = StoreKey::Unit(name);
            StoreWrite {
                when: vec![WriteCondition::Unchanged(key.clone(), *revision)],
                then: vec![WriteOperation::Delete(key)],
            }
        }
        RegistryCommand::Drain { machine, draining } => {
            let key = StoreKey::Drain(machine);
            let then = if draining { put_key(key, b"{}".to_vec()) } else { WriteOperation::Delete(key) };
            StoreWrite { when: Vec::new(), then: vec![then] }
        }
        RegistryCommand::Rebalance { budget } => {
            order_write(OperatorOrder::Rebalance, &OrderRecord { budget })
        }
        RegistryCommand::ReleaseBrake => order_write(OperatorOrder::ReleaseBrake, &OrderRecord::default()),
        RegistryCommand::Replace { name, file, desired } => replace_write(picture, name, &file, desired)?,
        RegistryCommand::Restart { name } => change_write(picture, name, |unit| unit.restarts += 1)?,
        RegistryCommand::SetDesired { name, desired } => set_desired(picture, name, desired)?,
        RegistryCommand::SetMetadata { machine, key, value } => {
            let record = encode_record(&MetadataRecord { value });
            StoreWrite { when: Vec::new(), then: vec![put_key(StoreKey::Metadata(machine, key), record)] }
        }
    })
}

fn known_unit<'a>(picture: &'a ClusterView, name: &UnitName) -> Result<&'a (UnitRecord, i64), CommandError> {
    picture.unit_record(name).ok_or_else(|| CommandError::NotFound(name.clone()))
}

fn order_write(order: OperatorOrder, record: &OrderRecord) -> StoreWrite {
    StoreWrite { when: Vec::new(), then: vec![put_key(StoreKey::Order(order), encode_record(record))] }
}

/// Texts are stored by their SHA-1, which the API shows and old clients compute, so that units of one text
/// share one record. Two texts of one SHA-1 can be made (<https://shattered.io>): the second must not take the
/// place of the first, or who submits it changes somebody else's unit.
fn check_collision(picture: &ClusterView, name: &UnitName, file: &UnitFile) -> Result<(), CommandError> {
    match picture.cluster().files.get(&file.hash()) {
        Some(stored) if stored.canonical_text() != file.canonical_text() => {
            Err(CommandError::Collision(name.clone()))
        }
        _ => Ok(()),
    }
}

fn create_write(
    picture: &ClusterView,
    name: UnitName,
    file: &UnitFile,
    desired: DesiredState,
) -> Result<StoreWrite, CommandError> {
    if picture.unit_record(&name).is_some() {
        return Err(CommandError::Exists(name));
    }
    let hash = file.hash();
    check_collision(picture, &name, file)?;
    let record =
        UnitRecord { hash, desired, restarts: 0, previous: None, rollout: None, note: String::new() };
    let key = StoreKey::Unit(name);
    // The file is written even if it is there: whoever removes unused files then sees it changed.
    Ok(StoreWrite {
        when: vec![WriteCondition::Absent(key.clone())],
        then: vec![
            put_key(StoreKey::File(hash), file.canonical_text().into_bytes()),
            put_key(key, encode_record(&record)),
        ],
    })
}

fn replace_write(
    picture: &ClusterView,
    name: UnitName,
    file: &UnitFile,
    desired: DesiredState,
) -> Result<StoreWrite, CommandError> {
    let hash = file.hash();
    check_collision(picture, &name, file)?;
    let was_global = picture.cluster().units.get(&name).is_some_and(SubmittedUnit::is_global);
    let is_global = UnitRequirements::of_unit(&name, file).global;
    let mut write = change_write(picture, name, |unit| {
        let stays_up = unit.desired == JobState::Launched && desired == JobState::Launched;
        let changed = stays_up && unit.hash != hash;
        // In the middle of a change the content before it is still the last one that proved well.
        let proven =
            unit.previous.filter(|_| unit.rollout == Some(ChangeDirection::Forward)).unwrap_or(unit.hash);
        *unit = UnitRecord {
            hash,
            desired,
            restarts: unit.restarts,
            previous: changed.then_some(proven),
            rollout: (changed && was_global == is_global).then_some(ChangeDirection::Forward),
            note: String::new(),
        };
    })?;
    write.then.insert(0, put_key(StoreKey::File(hash), file.canonical_text().into_bytes()));
    Ok(write)
}

fn set_desired(
    picture: &ClusterView,
    name: UnitName,
    desired: DesiredState,
) -> Result<StoreWrite, CommandError> {
    let is_global = picture.cluster().units.get(&name).is_some_and(SubmittedUnit::is_global);
    change_write(picture, name, |unit| {
        unit.desired = desired;
        if desired != JobState::Launched && !is_global {
            // Nothing will be proven of a unit that does not run. Machines that were told of the new content
            // of a global unit keep it, so that the engine ends such a change itself.
            unit.rollout = None;
        }
    })
}

fn change_write(
    picture: &ClusterView,
    name: UnitName,
    change: impl FnOnce(&mut UnitRecord),
) -> Result<StoreWrite, CommandError> {
    let (record, revision) = known_unit(picture, &name)?;
    let mut record = record.clone();
    change(&mut record);
    let key = StoreKey::Unit(name);
    Ok(StoreWrite {
        when: vec![WriteCondition::Unchanged(key.clone(), *revision)],
        then: vec![put_key(key, encode_record(&record))],
    })
}

/// What a decision of the engine writes; nothing when the picture has moved on.
#[must_use]
pub fn decision_write(picture: &ClusterView, decision: &PlacementDecision) -> Option<StoreWrite> {
    let mut write = StoreWrite::default();
    let current = picture.cluster().assignments.get(&decision.unit);
    if let Some(from) = &decision.from {
        let place = current.filter(|place| place.machine == *from)?;
        let key = StoreKey::Assignment(from.clone(), decision.unit.clone());
        let fenced = picture.cluster().units.get(&decision.unit).is_some_and(|unit| unit.requirements.fence);
        if fenced && decision.to.is_some() {
            // The agent announces the start of a fenced unit before it starts it: see `intent`.
            write.when.push(WriteCondition::Absent(StoreKey::State(from.clone(), decision.unit.clone())));
        }
        write.when.push(WriteCondition::Unchanged(key.clone(), place.revision));
        write.then.push(WriteOperation::Delete(key));
    } else if current.is_some() {
        return None;
    }
    if let Some(to) = &decision.to {
        let unit = picture.cluster().units.get(&decision.unit)?;
        let key = StoreKey::Assignment(to.clone(), decision.unit.clone());
        write.when.push(WriteCondition::Unchanged(StoreKey::Unit(unit.name.clone()), unit.revision));
        write.when.push(WriteCondition::Present(StoreKey::Presence(to.clone())));
        write.when.push(WriteCondition::Absent(key.clone()));
        write.then.push(put_key(key, encode_record(&AssignmentRecord { hash: unit.file.hash() })));
    }
    Some(write)
}

/// What a step of a rollout writes; nothing when the picture has moved on.
#[must_use]
pub fn rollout_step(picture: &ClusterView, step: &RolloutStep) -> Option<StoreWrite> {
    match step {
        RolloutStep::Change { unit, machine, hash } => {
            let place = picture.cluster().assignments.get(unit).filter(|place| place.machine == *machine)?;
            let key = StoreKey::Assignment(machine.clone(), unit.clone());
            Some(StoreWrite {
                when: vec![WriteCondition::Unchanged(key.clone(), place.revision)],
                then: vec![put_key(key, encode_record(&AssignmentRecord { hash: *hash }))],
            })
        }
        RolloutStep::Admit { unit, machine, hash } => {
            let (_, revision) = picture.unit_record(unit).filter(|(record, _)| record.hash == *hash)?;
            let put = put_key(
                StoreKey::Admission(machine.clone(), unit.clone()),
                encode_record(&AssignmentRecord { hash: *hash }),
            );
            Some(StoreWrite {
                when: vec![
                    WriteCondition::Unchanged(StoreKey::Unit(unit.clone()), *revision),
                    WriteCondition::Present(StoreKey::Presence(machine.clone())),
                ],
                then: vec![put],
            })
        }
        RolloutStep::Finish { unit, hash, note } => {
            let (record, revision) = picture.unit_record(unit).filter(|(record, _)| record.hash == *hash)?;
            // The note of a change that was taken back stays: the way back ends with it.
            let note = if note.is_empty() { record.note.clone() } else { note.clone() };
            let record = UnitRecord { rollout: None, note, ..record.clone() };
            let admitted = picture.cluster().admissions.get(unit).into_iter().flatten();
            let forget = admitted.take(DELETED_AT_ONCE).map(|(machine, _)| {
                WriteOperation::Delete(StoreKey::Admission(machine.clone(), unit.clone()))
            });
            let key = StoreKey::Unit(unit.clone());
            Some(StoreWrite {
                when: vec![WriteCondition::Unchanged(key.clone(), *revision)],
                then: forget.chain([put_key(key, encode_record(&record))]).collect(),
            })
        }
        RolloutStep::Revert { unit, from, to, note } => {
            let (record, revision) = picture.unit_record(unit).filter(|(record, _)| record.hash == *from)?;
            // A global unit goes back as it came, and its machines need what they run until then.
            let is_global = picture.cluster().units.get(unit).is_some_and(SubmittedUnit::is_global);
            let back = record.rollout.filter(|_| is_global).map(|_| ChangeDirection::Back);
            let previous = back.map(|_| *from);
            let record =
                UnitRecord { hash: *to, previous, rollout: back, note: note.clone(), ..record.clone() };
            let key = StoreKey::Unit(unit.clone());
            Some(StoreWrite {
                when: vec![
                    WriteCondition::Unchanged(key.clone(), *revision),
                    WriteCondition::Present(StoreKey::File(*to)),
                ],
                then: vec![put_key(key, encode_record(&record))],
            })
        }
    }
}

/// The leadership must not have been lost for the write to happen.
#[must_use]
pub fn as_leader(mut write: StoreWrite, created: i64) -> StoreWrite {
    write.when.insert(0, WriteCondition::SameLife(StoreKey::Leader, created));
    write
}

/// Removes what nothing needs any more, each by itself: files that no unit and no machine has, leftover
/// assignments, and admissions to contents that are not being rolled out any more.
#[must_use]
pub fn sweep_writes(picture: &ClusterView) -> Vec<StoreWrite> {
    let unchanged = |key: StoreKey, revision| StoreWrite {
        when: vec![WriteCondition::Unchanged(key.clone(), revision)],
        then: vec![WriteOperation::Delete(key)],
    };
    let files = picture.unused_files().into_iter().map(|(hash, revision)| (StoreKey::File(hash), revision));
    let strays = picture
        .orphaned_assignments()
        .map(|(unit, machine, revision)| (StoreKey::Assignment(machine.clone(), unit.clone()), revision));
    let admissions = picture.old_admissions().map(|(unit, machine)| {
        let key = StoreKey::Admission(machine.clone(), unit.clone());
        StoreWrite { when: Vec::new(), then: vec![WriteOperation::Delete(key)] }
    });
    files.chain(strays).map(|(key, revision)| unchanged(key, revision)).chain(admissions).collect()
}

/// Ticks off an order.
#[must_use]
pub fn fulfil_write(order: OperatorOrder, revision: i64) -> StoreWrite {
    let key = StoreKey::Order(order);
    StoreWrite {
        when: vec![WriteCondition::Unchanged(key.clone(), revision)],
        then: vec![WriteOperation::Delete(key)],
    }
}

/// Claims the leadership that nobody has.
#[must_use]
pub fn claim_leadership(me: &MachineId) -> StoreWrite {
    let record = encode_record(&LeaderRecord { machine: me.clone() });
    StoreWrite {
        when: vec![WriteCondition::Absent(StoreKey::Leader)],
        then: vec![WriteOperation::Put(StoreKey::Leader, record, KeyLifetime::OfLeader)],
    }
}

/// Says why the engine moves nothing, or that it works again.
#[must_use]
pub fn brake_write(note: Option<&str>) -> StoreWrite {
    let then = match note {
        Some(note) => WriteOperation::Put(
            StoreKey::Brake,
            encode_record(&NoteRecord { note: note.to_owned() }),
            KeyLifetime::OfLeader,
        ),
        None => WriteOperation::Delete(StoreKey::Brake),
    };
    StoreWrite { when: Vec::new(), then: vec![then] }
}

/// Says that a machine is there.
#[must_use]
pub fn presence_operation(record: &PresenceRecord) -> WriteOperation {
    WriteOperation::Put(
        StoreKey::Presence(record.machine.id.clone()),
        encode_record(record),
        KeyLifetime::OfMachine,
    )
}

/// Says how a unit is on a machine; nothing takes the word back.
#[must_use]
pub fn state_operation(machine: &MachineId, unit: &UnitName, record: Option<&StateRecord>) -> WriteOperation {
    let key = StoreKey::State(machine.clone(), unit.clone());
    match record {
        Some(record) => WriteOperation::Put(key, encode_record(record), KeyLifetime::OfMachine),
        None => WriteOperation::Delete(key),
    }
}

/// Announces the start of a fenced unit: whoever wants to move it sees that it may be running, and if
/// it was moved already it is not started.
#[must_use]
pub fn intent_write(machine: &MachineId, unit: &UnitName, record: &StateRecord) -> StoreWrite {
    StoreWrite {
        when: vec![WriteCondition::Present(StoreKey::Assignment(machine.clone(), unit.clone()))],
        then: vec![state_operation(machine, unit, Some(record))],
    }
}

/// Changes reboot slots that were seen in this revision, 0 for never.
#[must_use]
pub fn semaphore_write(group: &GroupName, slots: &GroupSemaphore, revision: i64) -> StoreWrite {
    let key = StoreKey::Lock(group.clone());
    let unchanged = if revision == 0 {
        WriteCondition::Absent(key.clone())
    } else {
        WriteCondition::Unchanged(key.clone(), revision)
    };
    StoreWrite { when: vec![unchanged], then: vec![put_key(key, encode_record(slots))] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        keys::{DEFAULT_PREFIX, KeySpace},
        picture::KeyEvent,
    };

    #[test]
    fn a_text_never_takes_the_place_of_another_of_its_sha_1() {
        let file = UnitFile::parse("[Service]\nExecStart=mine\n").unwrap();
        let name = UnitName::parse("a.service").unwrap();
        let keys = KeySpace::with_prefix(DEFAULT_PREFIX);
        let key = keys.key_path(&StoreKey::File(file.hash())).into_bytes();
        // To make a real collision takes months of a computer; the store only sees what lies under the hash.
        for (stored, collides) in
            [("[Service]\nExecStart=theirs\n", true), (file.canonical_text().as_str(), false)]
        {
            let mut picture = ClusterView::of_keys(keys.clone());
            let value = Some(stored.as_bytes().to_vec());
            picture
                .apply_event(&KeyEvent { key: key.clone(), value, revision: 1, created: 1 }, &mut Vec::new())
                .unwrap();

            let outcome = create_write(&picture, name.clone(), &file, JobState::Inactive);

            assert_eq!(matches!(outcome, Err(CommandError::Collision(_))), collides, "{stored}");
        }
    }
}
