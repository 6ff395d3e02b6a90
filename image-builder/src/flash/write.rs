//! Writes an image to a disk, so that the disk starts only when all of it is there.
//!
//! The order is the safety: both ends of the disk are emptied first, the first MiB, with the partition table and the boot
//! code, comes last, after all else was read back and the signature holds. Invariant: a disk on which this was
//! interrupted has no partition table.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use disk_formats::disk::ReadDisk;
use disk_formats::piece::{PIECE_BYTES, Piece};
use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, PRIMARY_OFFSET, PartitionTable};
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use sha2::{Digest as _, Sha256};

use crate::convert::mapped::needed_ranges;

/// The part that is held back: boot code, partition table, and nothing else (partitions begin behind it).
pub(crate) const HEAD_BYTES: usize = 1 << 20;
/// At the end: the backup table, and what RAID and ZFS leave there.
const TAIL_BYTES: u64 = 1 << 20;

/// A disk while it is written.
#[derive(Debug)]
pub(crate) struct DiskWriter {
    file: File,
    size: u64,
    head: Vec<u8>,
    /// The whole disk was made zero at once.
    zeroed: bool,
    /// What was written, with its SHA-256.
    runs: Vec<(Range<u64>, [u8; 32])>,
    image_bytes: u64,
}

impl DiskWriter {
    /// Takes a disk, and empties both its ends.
    pub(crate) fn start_writing(file: File, size: u64) -> io::Result<Self> {
        let mut writer =
            Self { file, size, head: Vec::new(), zeroed: false, runs: Vec::new(), image_bytes: 0 };
        let tail = size.saturating_sub(TAIL_BYTES);
        writer.write_zeros(tail..size)?;
        writer.write_zeros(0..size.min(HEAD_BYTES as u64))?;
        writer.file.sync_all()?;
        // Where the disk can do it without writing, it forgets all, and zeros need not be written later.
        writer.zeroed = writer.punch_hole(0..size);
        Ok(writer)
    }

    /// Makes a stretch zero, if that costs nothing: fallocate(2) on a block device is a discard that guarantees zeros.
    fn punch_hole(&self, range: Range<u64>) -> bool {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (Ok(start), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start))
        else {
            return false;
        };
        fallocate(&self.file, flags, start, length).is_ok()
    }

    fn write_zeros(&self, range: Range<u64>) -> io::Result<()> {
        let zeros = vec![0; PIECE_BYTES];
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).map_or(PIECE_BYTES, |rest| rest.min(PIECE_BYTES));
            self.file.write_all_at(&zeros[..length], at)?;
            at += length as u64;
        }
        Ok(())
    }

    /// Writes what of a piece is not zero; of the first one, all but its head.
    pub(crate) fn add(&mut self, piece: &Piece) -> io::Result<()> {
        self.image_bytes = piece.offset + piece.length as u64;
        if self.image_bytes > self.size {
            return Err(io::Error::other("the image is larger than the disk"));
        }
        let empty = vec![0; if piece.data.is_none() { PIECE_BYTES } else { 0 }];
        let data = piece.data.as_deref().unwrap_or(&empty);
        let held = if piece.offset == 0 { HEAD_BYTES.min(piece.length) } else { 0 };
        if held > 0 {
            self.head = data[..held].to_vec();
        }
        for run in piece.block_runs(|_| false) {
            let run = run.start.max(held)..run.end;
            if run.start < run.end {
                let at = piece.offset + run.start as u64;
                let bytes = &data[run];
                self.file.write_all_at(bytes, at)?;
                self.runs.push((at..at + bytes.len() as u64, Sha256::digest(bytes).into()));
            }
        }
        Ok(())
    }

    /// Where zeros matter and the disk did not forget, writes them.
    pub(crate) fn write_needed_zeros(&self, table: &PartitionTable) -> io::Result<()> {
        if self.zeroed {
            return Ok(());
        }
        let last_data = |range: Range<u64>| {
            let before = self.runs.iter().rev().find(|(run, _)| run.start < range.end);
            Ok(before.map_or(range.start, |(run, _)| run.end.clamp(range.start, range.end)))
        };
        let mut runs = self.runs.iter().map(|(run, _)| run).peekable();
        for needed in needed_ranges(table, self.image_bytes, &last_data)? {
            let mut at = needed.start.max(HEAD_BYTES as u64);
            while at < needed.end {
                while runs.next_if(|run| run.end <= at).is_some() {}
                let next = runs.peek().map_or(needed.end, |run| run.start.min(needed.end));
                if at < next {
                    self.write_zeros(at..next)?;
                }
                at = runs.peek().map_or(needed.end, |run| run.end).max(next);
            }
        }
        Ok(())
    }

    /// Reads back all that was written, from the disk and not from memory.
    pub(crate) fn read_back(&self, watch: &mut dyn FnMut(u64, u64) -> io::Result<()>) -> io::Result<()> {
        self.file.sync_all()?;
        // What is synced may be dropped, so that the next read is the disk's own word (posix_fadvise(2)).
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        let total = self.runs.iter().map(|(run, _)| run.end - run.start).sum();
        let mut done = 0;
        for (run, sha256) in &self.runs {
            let mut bytes = vec![0; usize::try_from(run.end - run.start).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, run.start)?;
            if <[u8; 32]>::from(Sha256::digest(&bytes)) != *sha256 {
                let Range { start, end } = run;
                return Err(io::Error::other(format!(
                    "bytes {start} to {end} do not read as they were written"
                )));
            }
            done += bytes.len() as u64;
            watch(done, total)?;
        }
        Ok(())
    }

    /// The table that the image has.
    pub(crate) fn partition_table(&self) -> io::Result<PartitionTable> {
        let start = usize::try_from(PRIMARY_OFFSET.get()).map_err(io::Error::other)?;
        let copy = self.head.get(start..start + COPY_BYTES).ok_or(io::ErrorKind::UnexpectedEof)?;
        let found = gpt::read_primary(copy, Bytes::new(self.size)).map_err(io::Error::other)?;
        Ok(found.table)
    }

    /// The disk as it will be, to look at it before it is.
    pub(crate) fn disk_view(&self) -> io::Result<Arc<dyn ReadDisk>> {
        Ok(Arc::new(HeldBackDisk { file: self.file.try_clone()?, head: self.head.clone(), size: self.size }))
    }

    /// Puts the backup table to the real end, then the head to its place; only now the disk can start.
    pub(crate) fn finish_disk(mut self, table: &PartitionTable) -> io::Result<()> {
        let copies = gpt::encode_table(table, Bytes::new(self.size)).map_err(io::Error::other)?;
        let backup = gpt::backup_offset(Bytes::new(self.size)).ok_or(io::ErrorKind::InvalidInput)?;
        // The image's own backup would be a ghost inside of the grown STATE.
        if let Some(old) = gpt::backup_offset(Bytes::new(self.image_bytes)).filter(|old| *old != backup) {
            self.file.write_all_at(&vec![0; COPY_BYTES], old.get())?;
        }
        self.file.write_all_at(&copies.backup, backup.get())?;
        self.file.sync_all()?;
        let start = usize::try_from(PRIMARY_OFFSET.get()).map_err(io::Error::other)?;
        self.head[start..start + COPY_BYTES].copy_from_slice(&copies.primary);
        self.file.write_all_at(&self.head, 0)?;
        self.file.sync_all()?;
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        let (mut head, mut tail) = (vec![0; self.head.len()], vec![0; COPY_BYTES]);
        self.file.read_exact_at(&mut head, 0)?;
        self.file.read_exact_at(&mut tail, backup.get())?;
        if head != self.head || tail != copies.backup {
            self.write_zeros(0..HEAD_BYTES as u64)?;
            return Err(io::Error::other("the partition table does not read as it was written"));
        }
        Ok(())
    }
}

/// A disk whose head is still in memory.
#[derive(Debug)]
struct HeldBackDisk {
    file: File,
    head: Vec<u8>,
    size: u64,
}

impl ReadDisk for HeldBackDisk {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(held) = self.head.get(start..) {
            let length = held.len().min(buffer.len());
            buffer[..length].copy_from_slice(&held[..length]);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok((offset < self.size).then_some(offset..self.size))
    }
}

/// Why an image is not on the disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlashError {
    #[error("cannot read the image {image}")]
    Image { image: String, source: io::Error },
    #[error("cannot use {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{image} is no image of ours that can be installed: {because}. Nothing was written")]
    Refused { image: String, because: String },
    #[error("cannot write {path}; it has no partition table now, does not start, and can be written again")]
    Unfinished { path: PathBuf, source: Box<dyn std::error::Error> },
}
