//! Writes an image to a disk, so that the disk starts only when all of it is there.
//!
//! The order is the safety: the marks of what was there are emptied first, boot sector and partition table among them.
//! The first MiB comes last, after all else was read back and the signature holds, and of it the boot sector.
//! Invariant: a disk on which this was interrupted has no boot sector and no partition table in front. What is kept is
//! never written to.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use disk_formats::disk::ReadDisk;
use disk_formats::piece::{PIECE_BYTES, Piece};
use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, PRIMARY_OFFSET, PartitionTable};
use sha2::{Digest as _, Sha256};

use crate::mapped::needed_ranges;
use crate::old_partitions::partition_edges;
use crate::target::InstallTarget;

/// The part that is held back: boot code, partition table, and nothing else (partitions begin behind it).
pub const HEAD_BYTES: usize = 1 << 20;
/// Emptied at the end of the disk. A MiB holds the backup table. The mark of an array lies at the end of its partition,
/// where STATE will end once it has grown, and ZFS leaves 8 MiB behind the partition that it makes of a whole disk.
const TAIL_BYTES: u64 = 16 << 20;
/// The boot sector: without it neither a BIOS nor UEFI firmware (5.2.3, the protective MBR) takes the disk for one.
const BOOT_SECTOR: usize = 512;

/// What of an old disk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EraseScope {
    /// What the image needs, the marks of old partitions, and all else that the disk discards at once.
    Marks,
    /// Every byte, be it by writing zeros.
    WholeDisk,
}

/// A disk while it is written.
#[derive(Debug)]
pub struct DiskWriter {
    target: Arc<dyn InstallTarget>,
    size: u64,
    /// What stays as it is; empty without.
    kept: Range<u64>,
    head: Vec<u8>,
    /// All but what is kept was made zero at once.
    zeroed: bool,
    /// What was written, with its SHA-256.
    runs: Vec<(Range<u64>, [u8; 32])>,
    image_bytes: u64,
}

/// What is watched while it goes on: so many bytes of so many. An error ends it.
pub type Watch<'a> = &'a mut dyn FnMut(u64, u64) -> io::Result<()>;

impl DiskWriter {
    /// Empties what would look like something: both ends of the disk, and of its old partitions.
    pub fn start(
        target: Arc<dyn InstallTarget>,
        size: u64,
        kept: Range<u64>,
        erase: EraseScope,
        watch: Watch<'_>,
    ) -> io::Result<Self> {
        // Read before the tables go.
        let edges = partition_edges(target.as_ref(), size)?;
        let head = Vec::new();
        let mut writer = Self { target, size, kept, head, zeroed: false, runs: Vec::new(), image_bytes: 0 };
        writer.write_zeros(size.saturating_sub(TAIL_BYTES)..size)?;
        writer.write_zeros(0..size.min(HEAD_BYTES as u64))?;
        writer.target.sync()?;
        for edge in edges {
            writer.write_zeros(edge)?;
        }
        // Where the disk can do it without writing, it forgets all, and zeros need not be written later.
        writer.zeroed = writer.outside_kept(0..size).into_iter().all(|range| writer.target.discard(range));
        if erase == EraseScope::WholeDisk && !writer.zeroed {
            writer.erase_all(watch)?;
        }
        Ok(writer)
    }

    fn erase_all(&mut self, watch: Watch<'_>) -> io::Result<()> {
        const STEP: u64 = 64 << 20;
        let mut at = 0;
        while at < self.size {
            let end = self.size.min(at + STEP);
            self.write_zeros(at..end)?;
            watch(end, self.size)?;
            at = end;
        }
        self.zeroed = true;
        Ok(())
    }

    /// The parts of a stretch in front of and behind what is kept.
    fn outside_kept(&self, range: Range<u64>) -> [Range<u64>; 2] {
        let Range { start, end } = self.kept;
        if start >= end {
            return [range, 0..0];
        }
        [range.start..range.end.min(start).max(range.start), range.start.max(end).min(range.end)..range.end]
    }

    fn write_zeros(&self, range: Range<u64>) -> io::Result<()> {
        let zeros = vec![0; PIECE_BYTES];
        for Range { start: mut at, end } in self.outside_kept(range) {
            while at < end {
                let length = usize::try_from(end - at).map_or(PIECE_BYTES, |rest| rest.min(PIECE_BYTES));
                self.target.write_all_at(&zeros[..length], at)?;
                at += length as u64;
            }
        }
        Ok(())
    }

    /// Writes what of a piece is not zero; of the first one, all but its head.
    pub fn add(&mut self, piece: &Piece) -> io::Result<()> {
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
            let run = piece.offset + run.start.max(held) as u64..piece.offset + run.end as u64;
            for run in self.outside_kept(run).into_iter().filter(|run| run.start < run.end) {
                let place = |at: u64| usize::try_from(at - piece.offset).map_err(io::Error::other);
                let bytes = &data[place(run.start)?..place(run.end)?];
                self.target.write_all_at(bytes, run.start)?;
                self.runs.push((run, Sha256::digest(bytes).into()));
            }
        }
        Ok(())
    }

    /// Where zeros matter and the disk did not forget, writes them.
    pub fn write_needed_zeros(&self, table: &PartitionTable) -> io::Result<()> {
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
    pub fn read_back(&self, watch: Watch<'_>) -> io::Result<()> {
        self.target.sync()?;
        let total = self.runs.iter().map(|(run, _)| run.end - run.start).sum();
        let mut done = 0;
        for (run, sha256) in &self.runs {
            let mut bytes = vec![0; usize::try_from(run.end - run.start).map_err(io::Error::other)?];
            self.target.read_exact_at(&mut bytes, run.start)?;
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
    pub fn table(&self) -> io::Result<PartitionTable> {
        let found = gpt::read_primary(self.held_table()?, Bytes::new(self.size)).map_err(io::Error::other)?;
        Ok(found.table)
    }

    fn held_table(&self) -> io::Result<&[u8]> {
        let start = usize::try_from(PRIMARY_OFFSET.get()).map_err(io::Error::other)?;
        self.head.get(start..start + COPY_BYTES).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The disk as it will be, to look at it before it is.
    #[must_use]
    pub fn view(&self) -> Arc<dyn ReadDisk> {
        Arc::new(HeldBackDisk { target: Arc::clone(&self.target), head: self.head.clone(), size: self.size })
    }

    /// The disk below the view.
    pub(crate) fn target(&self) -> &dyn InstallTarget {
        self.target.as_ref()
    }

    /// Puts the backup table to the real end, then the head to its place; only now the disk can start.
    pub fn finish(mut self, table: &PartitionTable) -> io::Result<()> {
        let copies = gpt::encode_table(table, Bytes::new(self.size)).map_err(io::Error::other)?;
        let backup = gpt::backup_offset(Bytes::new(self.size)).ok_or(io::ErrorKind::InvalidInput)?;
        // The image's own backup would be a ghost inside of the grown STATE.
        if let Some(old) = gpt::backup_offset(Bytes::new(self.image_bytes)).filter(|old| *old != backup) {
            self.write_zeros(old.get()..old.get() + COPY_BYTES as u64)?;
        }
        self.target.write_all_at(&copies.backup, backup.get())?;
        self.target.sync()?;
        let start = usize::try_from(PRIMARY_OFFSET.get()).map_err(io::Error::other)?;
        self.head[start..start + COPY_BYTES].copy_from_slice(&copies.primary);
        // A write of a MiB can be cut anywhere, one of a sector nowhere.
        self.target.write_all_at(&self.head[BOOT_SECTOR..], BOOT_SECTOR as u64)?;
        self.target.sync()?;
        self.check_ends(backup.get(), &copies.backup)?;
        self.target.write_all_at(&self.head[..BOOT_SECTOR], 0)?;
        self.target.sync()
    }

    fn check_ends(&self, backup_at: u64, backup: &[u8]) -> io::Result<()> {
        let (mut head, mut tail) = (vec![0; self.head.len() - BOOT_SECTOR], vec![0; backup.len()]);
        self.target.read_exact_at(&mut head, BOOT_SECTOR as u64)?;
        self.target.read_exact_at(&mut tail, backup_at)?;
        if head == self.head[BOOT_SECTOR..] && tail == backup {
            return Ok(());
        }
        self.write_zeros(0..HEAD_BYTES as u64)?;
        Err(io::Error::other("the partition table does not read as it was written"))
    }
}

/// A disk whose head is still in memory.
#[derive(Debug)]
struct HeldBackDisk {
    target: Arc<dyn InstallTarget>,
    head: Vec<u8>,
    size: u64,
}

impl ReadDisk for HeldBackDisk {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.target.read_exact_at(buffer, offset)?;
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
