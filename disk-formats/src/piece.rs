//! The piece of a disk that is read, packed and written as one.
//!
//! Invariant: the size of a piece is part of what every format's bytes follow from. It never depends on the machine.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{ReadDisk, is_zero};

/// Bytes of a piece. A VHD's and a VHDX's block, so that one piece is one block; large enough that a zstd frame of its
/// own costs 1 % of size, and small enough that a few of them with all their packings stay under 128 MiB.
pub const PIECE_BYTES: usize = 2 << 20;

/// Bytes of a block: what the map of a disk counts in, the smallest piece that a file system or a bmap knows.
pub const BLOCK_BYTES: usize = 4096;

/// A stretch of the disk.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// How much of it is disk. Only the last one is shorter than [`PIECE_BYTES`].
    pub length: usize,
    /// Its bytes, with zeros behind the end of the disk; none if all are zero.
    pub data: Option<Arc<Vec<u8>>>,
}

impl Piece {
    /// Reads the piece with that number.
    pub fn read(disk: &dyn ReadDisk, number: u64) -> io::Result<Self> {
        let offset = number * PIECE_BYTES as u64;
        let end = disk.disk_size().min(offset + PIECE_BYTES as u64);
        let length = usize::try_from(end.saturating_sub(offset)).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        let mut at = offset;
        while let Some(run) = disk.next_data(at)?.filter(|run| run.start < end) {
            if bytes.is_empty() {
                bytes = vec![0; PIECE_BYTES];
            }
            let stop = run.end.min(end);
            let range = index_of_offset(run.start.max(at), offset)?..index_of_offset(stop, offset)?;
            disk.read_exact_at(&mut bytes[range], run.start.max(at))?;
            at = stop;
            if at >= end {
                break;
            }
        }
        let data = (!is_zero(&bytes)).then(|| Arc::new(bytes));
        Ok(Self { offset, length, data })
    }

    /// Stretches of blocks that are not zero, or that `wanted` says must be there, as offsets in the piece.
    pub fn block_runs(&self, wanted: impl Fn(u64) -> bool) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for start in (0..self.length).step_by(BLOCK_BYTES) {
            let end = self.length.min(start + BLOCK_BYTES);
            let zero = self.data.as_ref().is_none_or(|data| is_zero(&data[start..end]));
            if zero && !wanted(self.offset + start as u64) {
                continue;
            }
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        runs
    }
}

fn index_of_offset(at: u64, offset: u64) -> io::Result<usize> {
    usize::try_from(at - offset).map_err(io::Error::other)
}

/// How many pieces a disk has.
#[must_use]
pub const fn count_pieces(size: u64) -> u64 {
    size.div_ceil(PIECE_BYTES as u64)
}
