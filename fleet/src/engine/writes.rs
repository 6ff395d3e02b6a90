//! What the engine writes: its decisions, the steps of rollouts, what it removes, its leadership.
//!
//! Knows which conditions make a decision safe against others who write at the same time. Refuses to carry a write
//! out. Invariant: nothing is written over a value that was not seen, so a decision on an old view changes nothing.

use crate::{
    model::machine::MachineId,
    plan::{place::PlacementDecision, rollout::RolloutStep},
    store::{
        cluster::{ChangeDirection, SubmittedUnit},
        keys::{OperatorOrder, StoreKey},
        picture::ClusterView,
        records::{AssignmentRecord, LeaderRecord, NoteRecord, UnitRecord, encode_record},
        revision::Revision,
        writes::{
            KeyLifetime, MAX_TRANSACTION_OPERATIONS, StoreWrite, WriteCondition, WriteOperation, put_key,
        },
    },
};

/// The most admissions that are taken back with the end of a rollout; the rest is swept up.
const DELETED_AT_ONCE: usize = MAX_TRANSACTION_OPERATIONS - 20;

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
        // The decision was made for this text with these requirements. If a person changed the unit
        // meanwhile, it may belong elsewhere.
        write.when.push(WriteCondition::Unchanged(StoreKey::Unit(unit.name.clone()), unit.revision));
        // A machine that left between the plan and the write would keep a unit that nobody runs until the
        // next plan.
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
                    // The former text is in use as long as the unit names it. This guards it against a
                    // sweep that was planned before.
                    WriteCondition::Present(StoreKey::File(*to)),
                ],
                then: vec![put_key(key, encode_record(&record))],
            })
        }
    }
}

/// The leadership must not have been lost for the write to happen.
#[must_use]
pub fn as_leader(mut write: StoreWrite, created: Revision) -> StoreWrite {
    // The life of the key and not its value: the same machine may have lost the leadership and won it
    // again, and its old decisions are void then.
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
    // Each by itself: one that somebody needs again fails alone, and does not keep the others.
    files.chain(strays).map(|(key, revision)| unchanged(key, revision)).chain(admissions).collect()
}

/// Ticks off an order.
#[must_use]
pub fn fulfil_write(order: OperatorOrder, revision: Revision) -> StoreWrite {
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
