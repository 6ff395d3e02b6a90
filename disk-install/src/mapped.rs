//! Which zeros of an image matter.
//!
//! A block that is not written to a used disk has old bytes. In a slot that holds a system, dm-verity would refuse
//! them; in a FAT they would be files. Only what no reader looks at may stay as it was: what a slot does not use.

use std::io;
use std::ops::Range;

use disk_formats::disk::ReadDisk;
use disk_formats::piece::{PIECE_BYTES, Piece};
use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, PRIMARY_OFFSET, PartitionTable};
use image_format::layout::{Partition, PartitionRole};

/// At both ends of a slot: a file system that was there before, and a manifest.
const EDGE: u64 = 1 << 20;

/// The stretches that must be written even where they are zero, in order. A disk that is none of ours has no others.
pub fn needed(disk: &dyn ReadDisk) -> io::Result<Vec<Range<u64>>> {
    match partition_table(disk).filter(PartitionTable::is_of_image) {
        Some(table) => needed_ranges(&table, disk.disk_size(), &|range| last_data(disk, range)),
        None => Ok(vec![Range { start: 0, end: disk.disk_size() }]),
    }
}

/// The same of a disk with that table and size; `last_data` says where in a stretch the last bytes end that are not
/// zero.
pub fn needed_ranges(
    table: &PartitionTable,
    size: u64,
    last_data: &dyn Fn(Range<u64>) -> io::Result<u64>,
) -> io::Result<Vec<Range<u64>>> {
    let mut entries: Vec<_> = table.entries.iter().collect();
    entries.sort_by_key(|entry| entry.first_lba);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut add = |range: Range<u64>| match ranges.last_mut() {
        Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
        _ => ranges.push(range),
    };
    add(0..EDGE.min(size));
    for entry in entries {
        let start = entry.byte_offset().get();
        let end = (start + entry.byte_size().get()).min(size);
        // ext4 replays what it finds in its journal. An older journal of the same image has the same identifier, and
        // its next number may follow the last one of the new.
        let whole = entry.label == Partition::of_role(PartitionRole::State).label;
        if whole || end.saturating_sub(start) <= 4 * EDGE {
            add(start..end.max(start));
        } else {
            let tail = end - EDGE;
            add(start..last_data(start..tail)?.max(start + EDGE));
            // In a slot, the manifest.
            add(tail..end);
        }
    }
    add(size.saturating_sub(EDGE)..size);
    Ok(ranges)
}

/// The table of a disk of any format.
#[must_use]
pub fn partition_table(disk: &dyn ReadDisk) -> Option<PartitionTable> {
    let size = Bytes::new(disk.disk_size());
    let mut copies = [vec![0; COPY_BYTES], vec![0; COPY_BYTES]];
    let backup = gpt::backup_offset(size)?;
    for (copy, at) in copies.iter_mut().zip([PRIMARY_OFFSET, backup]) {
        disk.read_exact_at(copy, at.get()).ok()?;
    }
    gpt::read(&copies[0], &copies[1], size).ok()
}

/// Where the last block that is not zero ends: from behind, since most of a slot is empty.
fn last_data(disk: &dyn ReadDisk, range: Range<u64>) -> io::Result<u64> {
    let piece_bytes = PIECE_BYTES as u64;
    let (first, last) = (range.start / piece_bytes, range.end.div_ceil(piece_bytes));
    for number in (first..last).rev() {
        let piece = Piece::read(disk, number)?;
        let runs = piece.block_runs(|_| false);
        let ends =
            runs.iter().rev().map(|run| (piece.offset + run.start as u64, piece.offset + run.end as u64));
        for (start, end) in ends {
            if start < range.end {
                return Ok(end.min(range.end).max(range.start));
            }
        }
    }
    Ok(range.start)
}
