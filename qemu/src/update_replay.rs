//! Judges a recorded update: after a power cut at any of its writes, would the selector start a slot that is whole?
//!
//! Knows the record of writes, the slot table and the selector's rules, all in memory; booting some of these disks
//! is left to the stories. Only two things differ from disk to disk: which bytes of the table have reached the
//! platter, and whether the new slot is there. So every prefix is judged with every subset of the table's unflushed
//! writes, and the one under way torn at each place within its sector. Refuses to know what a slot holds: the
//! recorded machine booted from it, and nothing wrote to it after that. Invariant: a slot that is written to counts
//! as whole only once its last write cannot be lost any more.

use std::collections::HashSet;
use std::ops::Range;

use image_format::slot::{BLOCK_BYTES, LoadCondition, SECTOR_BYTES, Slot, boot_decision};

use crate::write_log::{WriteEvent, WriteLog, WriteLogError};

const SECTOR: u64 = 512;
/// Of one change each copy is one write, and the boot loader may change it once more before anything is flushed.
/// More than this at once would be a fault of its own, and too many subsets.
const MOST_PENDING: usize = 10;
/// Places within a sector where a write is torn: each byte of the text would be the same a hundred times over.
const TORN_STEP: usize = 7;

/// Where things are on the recorded disk, in bytes.
#[derive(Debug, Clone)]
pub struct UpdatePlaces {
    /// The slot that runs at the beginning.
    pub running: Slot,
    /// Its partition.
    pub running_root: Range<u64>,
    /// The partition that the update fills.
    pub idle_root: Range<u64>,
    /// The first bytes of both copies of the slot table.
    pub table_copies: [u64; 2],
    /// Both copies before the first write.
    pub table_before: [Vec<u8>; 2],
}

/// What was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayCount {
    /// Moments at which the power was cut: one before each event, and one after the last.
    pub moments: usize,
    /// States of the slot table that such a cut could leave.
    pub tables: usize,
    /// Of these, how many start the new slot first.
    pub starts_new: usize,
}

/// Why a cut would lose the machine, or the record cannot be judged.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ReplayFault {
    #[error("event {event} writes to the slot that runs")]
    RunningSlot { event: usize },
    #[error(
        "the new slot is written to by event {event}, after the table named it; \
         so it is not known to be whole before that"
    )]
    LateWrite { event: usize },
    #[error("cut before event {event}: the selector starts slot {slot} first, which is not whole")]
    Broken { event: usize, slot: Slot },
    #[error(
        "{count} writes of the slot table wait for a flush at event {event}, which are too many to judge"
    )]
    Pending { event: usize, count: usize },
    #[error("the update never named the new slot: nothing was judged")]
    NoUpdate,
    #[error(transparent)]
    Log(#[from] WriteLogError),
}

/// A write to a copy of the table, or to several sectors of which one is a copy.
#[derive(Debug, Clone)]
struct TableWrite {
    copy: usize,
    bytes: Vec<u8>,
    event: usize,
    forced: bool,
}

/// Judges every prefix of a record.
pub fn judge_update(log: &WriteLog, places: &UpdatePlaces) -> Result<ReplayCount, ReplayFault> {
    let writes = table_writes(log, places)?;
    judge_events(log.write_events(), &writes, places)
}

/// The events that change the slot table, of which those around them are worth a closer look.
#[must_use]
pub fn table_moments(log: &WriteLog, places: &UpdatePlaces) -> Vec<usize> {
    let copies = places.table_copies.map(|offset| offset..offset + BLOCK_BYTES as u64);
    let changes = |event: &WriteEvent| copies.iter().any(|copy| overlap(&touched(event), copy).is_some());
    let events = log.write_events().iter().enumerate();
    events.filter(|(_, event)| changes(event)).map(|(event, _)| event).collect()
}

fn table_writes(log: &WriteLog, places: &UpdatePlaces) -> Result<Vec<TableWrite>, ReplayFault> {
    let mut writes = Vec::new();
    for (event, one) in log.write_events().iter().enumerate() {
        let WriteEvent::Write { sector, data, forced, .. } = *one else { continue };
        for (copy, offset) in places.table_copies.into_iter().enumerate() {
            let range = offset..offset + BLOCK_BYTES as u64;
            if let Some(covered) =
                overlap(&touched(one), &range).filter(|covered| covered.start == range.start)
            {
                let length = usize::try_from(covered.end - covered.start).unwrap_or(BLOCK_BYTES);
                let bytes = log.read_data(data + (covered.start - sector * SECTOR), length)?;
                writes.push(TableWrite { copy, bytes, event, forced });
            }
        }
    }
    Ok(writes)
}

fn judge_events(
    events: &[WriteEvent],
    writes: &[TableWrite],
    places: &UpdatePlaces,
) -> Result<ReplayCount, ReplayFault> {
    let touches = |range: &Range<u64>| {
        let range = range.clone();
        move |event: &WriteEvent| overlap(&touched(event), &range).is_some()
    };
    if let Some(event) = events.iter().position(touches(&places.running_root)) {
        return Err(ReplayFault::RunningSlot { event });
    }
    let last = events.iter().rposition(touches(&places.idle_root)).ok_or(ReplayFault::NoUpdate)?;
    let whole_from = durable_from(events, last);
    let mut count = ReplayCount { moments: events.len() + 1, ..ReplayCount::default() };
    let mut judged = HashSet::new();
    let (mut base, mut pending, mut next) =
        (places.table_before.clone(), Vec::new(), writes.iter().peekable());
    for cut in 0..=events.len() {
        while let Some(write) = next.next_if(|write| write.event < cut) {
            if write.forced { apply(&mut base, write, write.bytes.len()) } else { pending.push(write) }
        }
        if cut > 0 && events[cut - 1] == WriteEvent::Flush {
            pending.drain(..).for_each(|write| apply(&mut base, write, write.bytes.len()));
        }
        if pending.len() > MOST_PENDING {
            return Err(ReplayFault::Pending { event: cut, count: pending.len() });
        }
        let under_way = next.peek().copied().filter(|write| write.event == cut);
        for tables in possible_tables(&base, &pending, under_way) {
            let whole = cut > whole_from;
            if !judged.insert((tables.clone(), whole)) {
                continue;
            }
            count.tables += 1;
            let first = first_started(&tables);
            count.starts_new += usize::from(first != places.running);
            if first != places.running && !whole {
                let fault = if cut > last {
                    ReplayFault::Broken { event: cut, slot: first }
                } else {
                    ReplayFault::LateWrite { event: last }
                };
                return Err(fault);
            }
        }
    }
    if count.starts_new == 0 { Err(ReplayFault::NoUpdate) } else { Ok(count) }
}

/// The event after which a write cannot be lost any more.
fn durable_from(events: &[WriteEvent], write: usize) -> usize {
    if matches!(events[write], WriteEvent::Write { forced: true, .. }) {
        return write;
    }
    let flush = events[write..].iter().position(|event| *event == WriteEvent::Flush);
    flush.map_or(events.len(), |after| write + after)
}

/// What both copies may hold: any subset of what waits for a flush, and of the write under way a part, or garbage.
fn possible_tables(
    base: &[Vec<u8>; 2],
    pending: &[&TableWrite],
    under_way: Option<&TableWrite>,
) -> Vec<[Vec<u8>; 2]> {
    let mut all = Vec::new();
    for subset in 0..1_usize << pending.len() {
        let mut tables = base.clone();
        for (index, write) in pending.iter().enumerate() {
            if subset & 1 << index != 0 {
                apply(&mut tables, write, write.bytes.len());
            }
        }
        if let Some(write) = under_way {
            for torn in (0..=write.bytes.len()).step_by(TORN_STEP) {
                let mut tables = tables.clone();
                apply(&mut tables, write, torn);
                all.push(tables);
            }
            // Drives without a promise of whole sectors can leave one that is neither.
            let mut garbage = tables.clone();
            garbage[write.copy][..SECTOR_BYTES].fill(0xa5);
            all.push(garbage);
        }
        all.push(tables);
    }
    all
}

fn apply(tables: &mut [Vec<u8>; 2], write: &TableWrite, length: usize) {
    tables[write.copy][..length].copy_from_slice(&write.bytes[..length]);
}

/// The slot that the selector starts, if its kernel can be read. It saves the try first wherever it must: it writes
/// the copies that it has just read.
fn first_started(tables: &[Vec<u8>; 2]) -> Slot {
    let attempts = boot_decision(&tables[0], &tables[1]).attempts;
    let counted = attempts.iter().find(|attempt| attempt.condition != LoadCondition::LastResort);
    // There are always attempts: the last resort tries both.
    counted.or_else(|| attempts.first()).map_or(Slot::A, |attempt| attempt.slot)
}

/// The bytes of the disk that an event changes.
fn touched(event: &WriteEvent) -> Range<u64> {
    match *event {
        WriteEvent::Flush => 0..0,
        WriteEvent::Write { sector, count, .. } | WriteEvent::Discard { sector, count } => {
            sector * SECTOR..(sector + count) * SECTOR
        }
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> Option<Range<u64>> {
    let both = one.start.max(other.start)..one.end.min(other.end);
    (both.start < both.end).then_some(both)
}

#[cfg(test)]
mod tests;
