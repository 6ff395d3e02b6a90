//! What becomes of a table: which entries stay, go, grow or are made, and where.
//!
//! Knows gaps and Ignition's rules. Refuses to touch a disk. Invariant: in a table that comes out of here no two
//! entries overlap, and what was to be kept is as it was.
//!
//! Documentation: <https://coreos.github.io/ignition/operator-notes/#partition-reuse-semantics>.

use std::fmt::{self, Display, Formatter};

use user_data::plan::step::{PartitionRule, Partitions, WantedPartition};

use super::table::{Entry, Table};

/// The type of a partition that asks for none.
// "Linux filesystem data" in
// <https://uapi-group.org/specifications/specs/discoverable_partitions_specification/>. sfdisk's default,
// too.
const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";

/// A GPT as every tool makes it has so many entries.
// UEFI 5.3.1 asks for 16 KiB at least, which are 128 entries of 128 bytes.
const MOST_ENTRIES: u32 = 128;

/// Why a table cannot be as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    /// One that is there differs.
    Differs { number: u32, what: &'static str },
    /// One that must not be there is.
    Forbidden { number: u32 },
    /// There is no gap for one.
    NoRoom { name: String, mib: u64 },
}

impl Display for Flaw {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { number, what } => write!(
                out,
                "has a partition {number} with another {what}; set `wipePartitionEntry` to have it replaced"
            ),
            Self::Forbidden { number } => write!(
                out,
                "has a partition {number}, which must not exist; set `wipePartitionEntry` to have it removed"
            ),
            Self::NoRoom { name, mib: 0 } => write!(out, "has no room left for partition {name}"),
            Self::NoRoom { name, mib } => write!(out, "has no {mib} MiB left for partition {name}"),
        }
    }
}

/// The table with everything that is wanted.
pub(super) fn edit_table(before: &Table, request: &Partitions) -> Result<Table, Flaw> {
    let mut table = before.clone();
    // First what goes, so that others may have its place.
    for wanted in request.wanted.iter().filter(|wanted| wanted.rule.is_removal()) {
        let is_there = table.entries.iter().any(|entry| entry.number == wanted.number);
        if is_there && wanted.rule == PartitionRule::Forbidden {
            return Err(Flaw::Forbidden { number: wanted.number });
        }
        table.entries.retain(|entry| entry.number != wanted.number);
    }
    let mut missing = Vec::new();
    for wanted in request.wanted.iter().filter(|wanted| !wanted.rule.is_removal()) {
        if !ensure_present(&mut table, wanted)? {
            missing.push(wanted);
        }
    }
    // A number that another one was given by its author is not free, although nothing has it yet.
    let taken: Vec<u32> = request.wanted.iter().map(|wanted| wanted.number).collect();
    let mut numbered = Vec::new();
    for wanted in missing {
        let free = || free_number(&table, &taken, &numbered).ok_or_else(|| no_room(0, wanted));
        let number = if wanted.number == 0 { free()? } else { wanted.number };
        numbered.push((number, wanted));
    }
    // What has its place gets it first, and what takes the rest takes what the others leave.
    numbered.sort_by_key(|(_, wanted)| {
        (given_length(wanted.start_mib).is_none(), given_length(wanted.size_mib).is_none())
    });
    for (number, wanted) in numbered {
        let entry = place_entry(&table, number, wanted)?;
        table.entries.push(entry);
    }
    table.entries.sort_by_key(|entry| entry.number);
    Ok(table)
}

/// Whether an entry that is wanted is there, once it was resized if need be; one to be replaced is not any more.
fn ensure_present(table: &mut Table, wanted: &WantedPartition) -> Result<bool, Flaw> {
    // Without a number the label tells which one is meant, so that a second run makes no second partition.
    let is_meant = |entry: &Entry| match wanted.number {
        0 => wanted.label.as_ref().is_some_and(|label| !label.is_empty() && *label == entry.name),
        number => entry.number == number,
    };
    let Some(index) = table.entries.iter().position(is_meant) else { return Ok(false) };
    let entry = table.entries.remove(index);
    let Some(what) = entry_difference(table, &entry, wanted) else {
        table.entries.push(entry);
        return Ok(true);
    };
    match wanted.rule {
        PartitionRule::Resized { .. } if what == "size" => {
            // A file system begins at its partition's first sector, so only the end may move.
            let resized = resize_entry(table, &entry, wanted)?;
            table.entries.push(resized);
            Ok(true)
        }
        PartitionRule::Replaced | PartitionRule::Resized { replace: true } => Ok(false),
        _ => Err(Flaw::Differs { number: entry.number, what }),
    }
}

/// In what an entry differs from the one that is wanted; its size is looked at last. `others` is the table
/// without it.
fn entry_difference(others: &Table, entry: &Entry, wanted: &WantedPartition) -> Option<&'static str> {
    let differs = |wanted: &Option<String>, known: &str| {
        wanted.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(known))
    };
    let (gap_start, gap_end) = gap_around(others, entry);
    let starts = match wanted.start_mib {
        None => true,
        Some(0) => entry.start <= align_sector(gap_start, others.grain),
        Some(start) => entry.start == start * others.grain,
    };
    let fits = match wanted.size_mib {
        None => true,
        // Tools leave less than one MiB at the end, each in its own way.
        Some(0) => gap_end - entry.last_sector() < others.grain,
        Some(size) => entry.size == size * others.grain,
    };
    if wanted.label.as_ref().is_some_and(|label| *label != entry.name) {
        Some("label")
    } else if differs(&wanted.type_guid, &entry.kind) {
        Some("type")
    } else if differs(&wanted.guid, entry.guid.as_deref().unwrap_or_default()) {
        Some("GUID")
    } else if !starts {
        Some("start")
    } else {
        (!fits).then_some("size")
    }
}

/// An entry that begins where it did and has the size that is wanted.
fn resize_entry(others: &Table, entry: &Entry, wanted: &WantedPartition) -> Result<Entry, Flaw> {
    let (_, gap_end) = gap_around(others, entry);
    let room = gap_end + 1 - entry.start;
    let size =
        given_length(wanted.size_mib).map_or(room / others.grain * others.grain, |size| size * others.grain);
    if size == 0 || size > room {
        return Err(no_room(entry.number, wanted));
    }
    Ok(Entry { size, ..entry.clone() })
}

/// A new entry in a gap.
fn place_entry(table: &Table, number: u32, wanted: &WantedPartition) -> Result<Entry, Flaw> {
    let grain = table.grain;
    let gaps = free_gaps(table);
    let gap = match given_length(wanted.start_mib).map(|start| start * grain) {
        Some(start) => {
            gaps.into_iter().find(|(from, to)| (*from..=*to).contains(&start)).map(|(_, to)| (start, to))
        }
        None => gaps
            .into_iter()
            .map(|(from, to)| (align_sector(from, grain), to))
            .filter(|(from, to)| from <= to)
            // Of gaps of one size the first.
            // sgdisk's rule, by which Ignition makes partitions: the largest gap, not the first that would
            // do.
            .max_by_key(|(from, to)| (to - from, u64::MAX - from)),
    };
    let (start, end) = gap.ok_or_else(|| no_room(number, wanted))?;
    let room = (end + 1 - start) / grain * grain;
    let size = given_length(wanted.size_mib).map_or(room, |size| size.saturating_mul(grain));
    if size == 0 || size > room {
        return Err(no_room(number, wanted));
    }
    Ok(Entry {
        number,
        start,
        size,
        kind: wanted.type_guid.clone().unwrap_or_else(|| LINUX.to_owned()),
        guid: wanted.guid.clone(),
        name: wanted.label.clone().unwrap_or_default(),
        attributes: None,
    })
}

fn no_room(number: u32, wanted: &WantedPartition) -> Flaw {
    let name = wanted.label.clone().filter(|label| !label.is_empty()).unwrap_or_else(|| number.to_string());
    Flaw::NoRoom { name, mib: given_length(wanted.size_mib).unwrap_or_default() }
}

/// What is free, as first and last sectors.
fn free_gaps(table: &Table) -> Vec<(u64, u64)> {
    let mut taken: Vec<(u64, u64)> =
        table.entries.iter().map(|entry| (entry.start, entry.last_sector())).collect();
    taken.sort_unstable();
    let mut gaps = Vec::new();
    let mut free = table.first;
    for (start, end) in taken {
        if start > free {
            gaps.push((free, start - 1));
        }
        free = free.max(end + 1);
    }
    if free <= table.last {
        gaps.push((free, table.last));
    }
    gaps
}

/// The gap that an entry would leave.
fn gap_around(others: &Table, entry: &Entry) -> (u64, u64) {
    let around = free_gaps(others).into_iter().find(|(from, to)| (*from..=*to).contains(&entry.start));
    around.unwrap_or_else(|| (entry.start, entry.last_sector()))
}

fn align_sector(sector: u64, grain: u64) -> u64 {
    sector.div_ceil(grain) * grain
}

/// A length that is more than nothing: 0 means whatever there is.
fn given_length(mib: Option<u64>) -> Option<u64> {
    mib.filter(|mib| *mib > 0)
}

fn free_number(table: &Table, wanted: &[u32], given: &[(u32, &WantedPartition)]) -> Option<u32> {
    let is_free = |number: &u32| {
        table.entries.iter().all(|entry| entry.number != *number)
            && !wanted.contains(number)
            && given.iter().all(|(known, _)| known != number)
    };
    (1..=MOST_ENTRIES).find(is_free)
}

#[cfg(test)]
mod tests;
