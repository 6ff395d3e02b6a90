//! Every change of the store as a value: what must hold, and what is written if it does.
//!
//! Knows which conditions make a command or a decision safe against others who write at the same time;
//! refuses to carry it out. Invariant: nothing is written over a value that was not seen, but metadata,
//! drains and orders, where the last word is meant to win.

use crate::{
    lock::semaphore::{GroupName, Semaphore},
    model::{
        machine::MachineId,
        requirements::Requirements,
        state::{DesiredState, JobState},
        unit_file::UnitFile,
        unit_name::UnitName,
    },
    plan::{place::Decision, rollout::Step},
    store::{
        cluster::{Direction, Unit},
        keys::{Key, Order},
        picture::Picture,
        records::{
            AssignmentRecord, LeaderRecord, MetadataRecord, NoteRecord, OrderRecord, PresenceRecord,
            StateRecord, UnitRecord, encode,
        },
        registry::{Command, CommandError},
    },
};

/// The most admissions that are taken back with the end of a rollout; the rest is swept up.
const DELETED_AT_ONCE: usize = 100;

/// What must hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(Key),
    /// The key exists.
    Present(Key),
    /// The key was last changed in this revision.
    Unchanged(Key, i64),
    /// The key came into being in this revision, and has existed since.
    SameLife(Key, i64),
    /// The key exists and lives by this lease, which is never 0.
    LivesBy(Key, i64),
}

/// Which lease a key lives by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Until it is deleted.
    Unlimited,
    /// As long as the machine is there.
    OfMachine,
    /// As long as this engine leads.
    OfLeader,
}

/// One key written or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value.
    Put(Key, Vec<u8>, Life),
    /// Removes the key.
    Delete(Key),
}

/// A transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// All of this must hold.
    pub when: Vec<Condition>,
    /// Then all of this happens.
    pub then: Vec<Operation>,
}

impl Write {
    /// Both or neither.
    pub fn join(&mut self, other: Self) {
        self.when.extend(other.when);
        self.then.extend(other.then);
    }
}

fn put(key: Key, value: Vec<u8>) -> Operation {
    Operation::Put(key, value, Life::Unlimited)
}

/// What a command writes, as the picture stands.
pub fn command(picture: &Picture, command: Command) -> Result<Write, CommandError> {
    Ok(match command {
        Command::Create { name, file, desired } => create(picture, name, &file, desired)?,
        Command::Destroy { name } => {
            let (_, revision) = known(picture, &name)?;
            let key = Key::Unit(name);
            Write {
                when: vec![Condition::Unchanged(key.clone(), *revision)],
                then: vec![Operation::Delete(key)],
            }
        }
        Command::Drain { machine, draining } => {
            let key = Key::Drain(machine);
            let then = if draining { put(key, b"{}".to_vec()) } else { Operation::Delete(key) };
            Write { when: Vec::new(), then: vec![then] }
        }
        Command::Rebalance { budget } => order(Order::Rebalance, &OrderRecord { budget }),
        Command::ReleaseBrake => order(Order::ReleaseBrake, &OrderRecord::default()),
        Command::Replace { name, file, desired } => replace(picture, name, &file, desired)?,
        Command::Restart { name } => change(picture, name, |unit| unit.restarts += 1)?,
        Command::SetDesired { name, desired } => set_desired(picture, name, desired)?,
        Command::SetMetadata { machine, key, value } => {
            let record = encode(&MetadataRecord { value });
            Write { when: Vec::new(), then: vec![put(Key::Metadata(machine, key), record)] }
        }
    })
}

fn known<'a>(picture: &'a Picture, name: &UnitName) -> Result<&'a (UnitRecord, i64), CommandError> {
    picture.unit_record(name).ok_or_else(|| CommandError::NotFound(name.clone()))
}

fn order(order: Order, record: &OrderRecord) -> Write {
    Write { when: Vec::new(), then: vec![put(Key::Order(order), encode(record))] }
}

/// Texts are stored by their SHA-1, which the API shows and old clients compute, so that units of one text
/// share one record. Two texts of one SHA-1 can be made (<https://shattered.io>): the second must not take the
/// place of the first, or who submits it changes somebody else's unit.
fn check_collision(picture: &Picture, name: &UnitName, file: &UnitFile) -> Result<(), CommandError> {
    match picture.cluster().files.get(&file.hash()) {
        Some(stored) if stored.text() != file.text() => Err(CommandError::Collision(name.clone())),
        _ => Ok(()),
    }
}

fn create(
    picture: &Picture,
    name: UnitName,
    file: &UnitFile,
    desired: DesiredState,
) -> Result<Write, CommandError> {
    if picture.unit_record(&name).is_some() {
        return Err(CommandError::Exists(name));
    }
    let hash = file.hash();
    check_collision(picture, &name, file)?;
    let record =
        UnitRecord { hash, desired, restarts: 0, previous: None, rollout: None, note: String::new() };
    let key = Key::Unit(name);
    // The file is written even if it is there: whoever removes unused files then sees it changed.
    Ok(Write {
        when: vec![Condition::Absent(key.clone())],
        then: vec![put(Key::File(hash), file.text().into_bytes()), put(key, encode(&record))],
    })
}

fn replace(
    picture: &Picture,
    name: UnitName,
    file: &UnitFile,
    desired: DesiredState,
) -> Result<Write, CommandError> {
    let hash = file.hash();
    check_collision(picture, &name, file)?;
    let was_global = picture.cluster().units.get(&name).is_some_and(Unit::is_global);
    let is_global = Requirements::of(&name, file).global;
    let mut write = change(picture, name, |unit| {
        let stays_up = unit.desired == JobState::Launched && desired == JobState::Launched;
        let changed = stays_up && unit.hash != hash;
        // In the middle of a change the content before it is still the last one that proved well.
        let proven = unit.previous.filter(|_| unit.rollout == Some(Direction::Forward)).unwrap_or(unit.hash);
        *unit = UnitRecord {
            hash,
            desired,
            restarts: unit.restarts,
            previous: changed.then_some(proven),
            rollout: (changed && was_global == is_global).then_some(Direction::Forward),
            note: String::new(),
        };
    })?;
    write.then.insert(0, put(Key::File(hash), file.text().into_bytes()));
    Ok(write)
}

fn set_desired(picture: &Picture, name: UnitName, desired: DesiredState) -> Result<Write, CommandError> {
    let is_global = picture.cluster().units.get(&name).is_some_and(Unit::is_global);
    change(picture, name, |unit| {
        unit.desired = desired;
        if desired != JobState::Launched && !is_global {
            // Nothing will be proven of a unit that does not run. Machines that were told of the new content
            // of a global unit keep it, so that the engine ends such a change itself.
            unit.rollout = None;
        }
    })
}

fn change(
    picture: &Picture,
    name: UnitName,
    change: impl FnOnce(&mut UnitRecord),
) -> Result<Write, CommandError> {
    let (record, revision) = known(picture, &name)?;
    let mut record = record.clone();
    change(&mut record);
    let key = Key::Unit(name);
    Ok(Write {
        when: vec![Condition::Unchanged(key.clone(), *revision)],
        then: vec![put(key, encode(&record))],
    })
}

/// What a decision of the engine writes; nothing when the picture has moved on.
#[must_use]
pub fn decision(picture: &Picture, decision: &Decision) -> Option<Write> {
    let mut write = Write::default();
    let current = picture.cluster().assignments.get(&decision.unit);
    if let Some(from) = &decision.from {
        let place = current.filter(|place| place.machine == *from)?;
        let key = Key::Assignment(from.clone(), decision.unit.clone());
        let fenced = picture.cluster().units.get(&decision.unit).is_some_and(|unit| unit.requirements.fence);
        if fenced && decision.to.is_some() {
            // The agent announces the start of a fenced unit before it starts it: see `intent`.
            write.when.push(Condition::Absent(Key::State(from.clone(), decision.unit.clone())));
        }
        write.when.push(Condition::Unchanged(key.clone(), place.revision));
        write.then.push(Operation::Delete(key));
    } else if current.is_some() {
        return None;
    }
    if let Some(to) = &decision.to {
        let unit = picture.cluster().units.get(&decision.unit)?;
        let key = Key::Assignment(to.clone(), decision.unit.clone());
        write.when.push(Condition::Unchanged(Key::Unit(unit.name.clone()), unit.revision));
        write.when.push(Condition::Present(Key::Presence(to.clone())));
        write.when.push(Condition::Absent(key.clone()));
        write.then.push(put(key, encode(&AssignmentRecord { hash: unit.file.hash() })));
    }
    Some(write)
}

/// What a step of a rollout writes; nothing when the picture has moved on.
#[must_use]
pub fn rollout_step(picture: &Picture, step: &Step) -> Option<Write> {
    match step {
        Step::Change { unit, machine, hash } => {
            let place = picture.cluster().assignments.get(unit).filter(|place| place.machine == *machine)?;
            let key = Key::Assignment(machine.clone(), unit.clone());
            Some(Write {
                when: vec![Condition::Unchanged(key.clone(), place.revision)],
                then: vec![put(key, encode(&AssignmentRecord { hash: *hash }))],
            })
        }
        Step::Admit { unit, machine, hash } => {
            let (_, revision) = picture.unit_record(unit).filter(|(record, _)| record.hash == *hash)?;
            let put =
                put(Key::Admission(machine.clone(), unit.clone()), encode(&AssignmentRecord { hash: *hash }));
            Some(Write {
                when: vec![
                    Condition::Unchanged(Key::Unit(unit.clone()), *revision),
                    Condition::Present(Key::Presence(machine.clone())),
                ],
                then: vec![put],
            })
        }
        Step::Finish { unit, hash, note } => {
            let (record, revision) = picture.unit_record(unit).filter(|(record, _)| record.hash == *hash)?;
            // The note of a change that was taken back stays: the way back ends with it.
            let note = if note.is_empty() { record.note.clone() } else { note.clone() };
            let record = UnitRecord { rollout: None, note, ..record.clone() };
            let admitted = picture.cluster().admissions.get(unit).into_iter().flatten();
            let forget = admitted
                .take(DELETED_AT_ONCE)
                .map(|(machine, _)| Operation::Delete(Key::Admission(machine.clone(), unit.clone())));
            let key = Key::Unit(unit.clone());
            Some(Write {
                when: vec![Condition::Unchanged(key.clone(), *revision)],
                then: forget.chain([put(key, encode(&record))]).collect(),
            })
        }
        Step::Revert { unit, from, to, note } => {
            let (record, revision) = picture.unit_record(unit).filter(|(record, _)| record.hash == *from)?;
            // A global unit goes back as it came, and its machines need what they run until then.
            let is_global = picture.cluster().units.get(unit).is_some_and(Unit::is_global);
            let back = record.rollout.filter(|_| is_global).map(|_| Direction::Back);
            let previous = back.map(|_| *from);
            let record =
                UnitRecord { hash: *to, previous, rollout: back, note: note.clone(), ..record.clone() };
            let key = Key::Unit(unit.clone());
            Some(Write {
                when: vec![Condition::Unchanged(key.clone(), *revision), Condition::Present(Key::File(*to))],
                then: vec![put(key, encode(&record))],
            })
        }
    }
}

/// The leadership must not have been lost for the write to happen.
#[must_use]
pub fn as_leader(mut write: Write, created: i64) -> Write {
    write.when.insert(0, Condition::SameLife(Key::Leader, created));
    write
}

/// Removes what nothing needs any more, each by itself: files that no unit and no machine has, leftover
/// assignments, and admissions to contents that are not being rolled out any more.
#[must_use]
pub fn sweep(picture: &Picture) -> Vec<Write> {
    let unchanged = |key: Key, revision| Write {
        when: vec![Condition::Unchanged(key.clone(), revision)],
        then: vec![Operation::Delete(key)],
    };
    let files = picture.unused_files().into_iter().map(|(hash, revision)| (Key::File(hash), revision));
    let strays = picture
        .strays()
        .map(|(unit, machine, revision)| (Key::Assignment(machine.clone(), unit.clone()), revision));
    let admissions = picture.old_admissions().map(|(unit, machine)| {
        let key = Key::Admission(machine.clone(), unit.clone());
        Write { when: Vec::new(), then: vec![Operation::Delete(key)] }
    });
    files.chain(strays).map(|(key, revision)| unchanged(key, revision)).chain(admissions).collect()
}

/// Ticks off an order.
#[must_use]
pub fn fulfil(order: Order, revision: i64) -> Write {
    let key = Key::Order(order);
    Write { when: vec![Condition::Unchanged(key.clone(), revision)], then: vec![Operation::Delete(key)] }
}

/// Claims the leadership that nobody has.
#[must_use]
pub fn claim_leadership(me: &MachineId) -> Write {
    let record = encode(&LeaderRecord { machine: me.clone() });
    Write {
        when: vec![Condition::Absent(Key::Leader)],
        then: vec![Operation::Put(Key::Leader, record, Life::OfLeader)],
    }
}

/// Says why the engine moves nothing, or that it works again.
#[must_use]
pub fn brake(note: Option<&str>) -> Write {
    let then = match note {
        Some(note) => {
            Operation::Put(Key::Brake, encode(&NoteRecord { note: note.to_owned() }), Life::OfLeader)
        }
        None => Operation::Delete(Key::Brake),
    };
    Write { when: Vec::new(), then: vec![then] }
}

/// Says that a machine is there.
#[must_use]
pub fn presence(record: &PresenceRecord) -> Operation {
    Operation::Put(Key::Presence(record.machine.id.clone()), encode(record), Life::OfMachine)
}

/// Says how a unit is on a machine; nothing takes the word back.
#[must_use]
pub fn state(machine: &MachineId, unit: &UnitName, record: Option<&StateRecord>) -> Operation {
    let key = Key::State(machine.clone(), unit.clone());
    match record {
        Some(record) => Operation::Put(key, encode(record), Life::OfMachine),
        None => Operation::Delete(key),
    }
}

/// Announces the start of a fenced unit: whoever wants to move it sees that it may be running, and if
/// it was moved already it is not started.
#[must_use]
pub fn intent(machine: &MachineId, unit: &UnitName, record: &StateRecord) -> Write {
    Write {
        when: vec![Condition::Present(Key::Assignment(machine.clone(), unit.clone()))],
        then: vec![state(machine, unit, Some(record))],
    }
}

/// Changes reboot slots that were seen in this revision, 0 for never.
#[must_use]
pub fn semaphore(group: &GroupName, slots: &Semaphore, revision: i64) -> Write {
    let key = Key::Lock(group.clone());
    let unchanged = if revision == 0 {
        Condition::Absent(key.clone())
    } else {
        Condition::Unchanged(key.clone(), revision)
    };
    Write { when: vec![unchanged], then: vec![put(key, encode(slots))] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        keys::{DEFAULT_PREFIX, Keys},
        picture::Event,
    };

    #[test]
    fn a_text_never_takes_the_place_of_another_of_its_sha_1() {
        let file = UnitFile::parse("[Service]\nExecStart=mine\n").unwrap();
        let name = UnitName::parse("a.service").unwrap();
        let keys = Keys::under(DEFAULT_PREFIX);
        let key = keys.path(&Key::File(file.hash())).into_bytes();
        // To make a real collision takes months of a computer; the store only sees what lies under the hash.
        for (stored, collides) in [("[Service]\nExecStart=theirs\n", true), (file.text().as_str(), false)] {
            let mut picture = Picture::of(keys.clone());
            let value = Some(stored.as_bytes().to_vec());
            picture
                .apply(&Event { key: key.clone(), value, revision: 1, created: 1 }, &mut Vec::new())
                .unwrap();

            let outcome = create(&picture, name.clone(), &file, JobState::Inactive);

            assert_eq!(matches!(outcome, Err(CommandError::Collision(_))), collides, "{stored}");
        }
    }
}
