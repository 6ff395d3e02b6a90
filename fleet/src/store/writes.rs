//! Every change of the store as a value: what must hold, and what is written if it does.
//!
//! Knows which conditions make a command or a machine's word safe against others who write at the same time;
//! refuses to carry it out, and to know what the engine decides (`engine/writes.rs`). Invariant: nothing is written over a value that was not seen, but metadata,
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
    store::{
        cluster::{ChangeDirection, SubmittedUnit},
        keys::{OperatorOrder, StoreKey},
        picture::ClusterView,
        records::{MetadataRecord, OrderRecord, PresenceRecord, StateRecord, UnitRecord, encode_record},
        registry::{CommandError, DrainChange, RegistryCommand},
        revision::{LeaseId, Revision},
    },
};

/// The most conditions, and the most operations, of one transaction of ours. etcd takes 128 (`--max-txn-ops`); the
/// rest is for what is added later, as the condition that the leadership was not lost.
pub const MAX_TRANSACTION_OPERATIONS: usize = 120;

/// What must hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteCondition {
    /// The key does not exist.
    Absent(StoreKey),
    /// The key exists.
    Present(StoreKey),
    /// The key was last changed in this revision.
    Unchanged(StoreKey, Revision),
    /// The key came into being in this revision, and has existed since.
    SameLife(StoreKey, Revision),
    /// The key exists and lives by this lease, which is never [`LeaseId::NONE`].
    LivesBy(StoreKey, LeaseId),
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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

/// Sets a key until it is deleted.
#[must_use]
pub fn put_key(key: StoreKey, value: Vec<u8>) -> WriteOperation {
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
                // Compared with the revision that was shown, so that somebody who changed the unit
                // meanwhile is not overwritten.
                when: vec![WriteCondition::Unchanged(key.clone(), *revision)],
                then: vec![WriteOperation::Delete(key)],
            }
        }
        RegistryCommand::Drain { machine, drain } => {
            let key = StoreKey::Drain(machine);
            let then = match drain {
                DrainChange::Begin => put_key(key, b"{}".to_vec()),
                DrainChange::End => WriteOperation::Delete(key),
            };
            StoreWrite { when: Vec::new(), then: vec![then] }
        }
        RegistryCommand::Rebalance { budget } => {
            order_write(OperatorOrder::Rebalance, &OrderRecord { budget })
        }
        RegistryCommand::ReleaseBrake => order_write(OperatorOrder::ReleaseBrake, &OrderRecord::default()),
        RegistryCommand::Replace { name, file, desired } => replace_write(picture, name, &file, desired)?,
        RegistryCommand::Restart { name } => change_write(picture, name, |unit| unit.restarts += 1)?,
        RegistryCommand::SetDesired { name, desired } => set_desired(picture, name, desired)?,
        // No condition for metadata, drains and orders: two people who set them at once mean the same key,
        // and the last word wins.
        RegistryCommand::SetMetadata { machine, key, value } => {
            let record = encode_record(&MetadataRecord { value });
            StoreWrite { when: Vec::new(), then: vec![put_key(StoreKey::Metadata(machine, key), record)] }
        }
    })
}

fn known_unit<'a>(
    picture: &'a ClusterView,
    name: &UnitName,
) -> Result<&'a (UnitRecord, Revision), CommandError> {
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
    // The file is written even if it is there: the sweep of unused files then sees it changed.
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
            // A second change in the middle of a first one must not go back to a text that never proved
            // well.
            unit.previous.filter(|_| unit.rollout == Some(ChangeDirection::Forward)).unwrap_or(unit.hash);
        *unit = UnitRecord {
            hash,
            desired,
            restarts: unit.restarts,
            previous: changed.then_some(proven),
            // A unit that becomes global, or ceases to be, has other machines. There is nobody to bring the
            // new text to step by step.
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

/// Announces the start of a fenced unit: an engine that wants to move it sees that it may be running, and if
/// it was moved already it is not started.
#[must_use]
pub fn intent_write(machine: &MachineId, unit: &UnitName, record: &StateRecord) -> StoreWrite {
    StoreWrite {
        when: vec![WriteCondition::Present(StoreKey::Assignment(machine.clone(), unit.clone()))],
        then: vec![state_operation(machine, unit, Some(record))],
    }
}

/// Changes reboot slots that were seen in this revision.
#[must_use]
pub fn semaphore_write(group: &GroupName, slots: &GroupSemaphore, revision: Revision) -> StoreWrite {
    let key = StoreKey::Lock(group.clone());
    let unchanged = if revision == Revision::NEVER {
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
                .apply_event(
                    &KeyEvent { key: key.clone(), value, revision: Revision(1), created: Revision(1) },
                    &mut Vec::new(),
                )
                .unwrap();

            let outcome = create_write(&picture, name.clone(), &file, JobState::Inactive);

            assert_eq!(matches!(outcome, Err(CommandError::Collision(_))), collides, "{stored}");
        }
    }
}
