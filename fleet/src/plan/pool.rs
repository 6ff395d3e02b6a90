//! The machines that suit one kind of unit, least loaded first.
//!
//! Knows a queue that may lag behind: entries are brought up to date only when they come to its top, so
//! a placement costs nothing in the pools that do not ask. Invariant: the entry that counts for a member
//! never shows more load than the machine has, unless the machine was set aside as unable; whoever
//! lowers a load or makes a machine able again calls [`Pool::requeue`].

use std::{cmp::Reverse, collections::BinaryHeap};

/// The number of a machine in the index.
pub type MachineSlot = u32;
/// The number of a unit in the index.
pub type UnitSlot = u32;

const STRANGER: u32 = u32::MAX;
const ASIDE: u32 = u32::MAX - 1;

/// What the pool asks about a machine: its load, its rank among equals, and whether it is able now.
pub trait Candidates {
    /// Units it holds.
    fn load(&self, machine: MachineSlot) -> u32;
    /// Its place among machines of equal load.
    fn rank(&self, machine: MachineSlot) -> u64;
    /// Whether it can take one more unit of the kind of this pool.
    fn is_able(&self, machine: MachineSlot) -> bool;
}

/// A queue of machines.
#[derive(Debug, Default)]
pub struct Pool {
    queue: BinaryHeap<Reverse<u128>>,
    /// For each slot the load of the entry that counts, or [`STRANGER`], or [`ASIDE`].
    standing: Vec<u32>,
    members: usize,
}

fn entry(load: u32, rank: u64, slot: MachineSlot) -> Reverse<u128> {
    Reverse(u128::from(load) << 96 | u128::from(rank) << 32 | u128::from(slot))
}

#[expect(clippy::cast_possible_truncation, reason = "the entry was put together from these widths")]
fn parts(Reverse(entry): Reverse<u128>) -> (u32, MachineSlot) {
    ((entry >> 96) as u32, entry as u32)
}

impl Pool {
    /// Lets a machine in.
    pub fn admit(&mut self, slot: MachineSlot, candidates: &impl Candidates) {
        if self.standing.len() <= slot as usize {
            self.standing.resize(slot as usize + 1, STRANGER);
        }
        if self.standing[slot as usize] == STRANGER {
            self.members += 1;
            self.standing[slot as usize] = ASIDE;
        }
        self.requeue(slot, candidates);
    }

    /// Shuts a machine out.
    pub fn expel(&mut self, slot: MachineSlot) {
        if let Some(standing) = self.standing.get_mut(slot as usize).filter(|standing| **standing != STRANGER)
        {
            *standing = STRANGER;
            self.members -= 1;
        }
    }

    /// Looks at a member anew, after its load sank or it may have become able.
    pub fn requeue(&mut self, slot: MachineSlot, candidates: &impl Candidates) {
        let Some(standing) = self.standing.get_mut(slot as usize).filter(|standing| **standing != STRANGER)
        else {
            return;
        };
        let load = candidates.load(slot);
        if *standing == load {
            return;
        }
        *standing = load;
        self.queue.push(entry(load, candidates.rank(slot), slot));
        if self.queue.len() > 4 * self.members + 64 {
            self.tidy();
        }
    }

    /// The least loaded able member; among equals the one of the lowest rank.
    pub fn best(&mut self, candidates: &impl Candidates) -> Option<MachineSlot> {
        loop {
            let (queued, slot) = parts(*self.queue.peek()?);
            let standing = self.standing.get_mut(slot as usize)?;
            if *standing != queued {
                self.queue.pop();
                continue;
            }
            let load = candidates.load(slot);
            if load == queued && candidates.is_able(slot) {
                return Some(slot);
            }
            self.queue.pop();
            *standing = ASIDE;
            if load != queued {
                *standing = load;
                self.queue.push(entry(load, candidates.rank(slot), slot));
            }
        }
    }

    /// Drops the entries that no longer count, so that a pool nobody asks does not grow.
    fn tidy(&mut self) {
        let standing = &self.standing;
        let mut seen = vec![false; standing.len()];
        let entries = std::mem::take(&mut self.queue).into_vec();
        let counts = |entry: &Reverse<u128>| {
            let (load, slot) = parts(*entry);
            standing[slot as usize] == load && !std::mem::replace(&mut seen[slot as usize], true)
        };
        self.queue = entries.into_iter().filter(counts).collect();
    }
}
