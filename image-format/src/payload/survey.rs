//! Reads both slots once: what is already right, and what blocks there are.
//!
//! Knows digests and places. Refuses to know objects. An interrupted installation goes on from here: what the idle
//! slot already has is found by its digests, so that nothing needs to be remembered.
//! Invariant: a chunk counts as written only by its guard, computed from what was read back.

use std::sync::Mutex;

use super::index::{Chunk, PayloadIndex, Run};
use super::lookup::{BlockId, ContentMap, OldSlot, block_id};
use crate::digest::Sha256;
use crate::verity::leaves::LeafHasher;
use crate::verity::{BLOCK_BYTES, ReadAt};

/// Blocks that a thread reads at once: 2 MiB.
const BATCH: u32 = 512;

/// A slot as it is before the installation.
#[derive(Clone, Copy)]
pub struct SlotContent<'a> {
    /// Its bytes.
    pub data: &'a dyn ReadAt,
    /// How many blocks of it may be read: of the running slot its root, of the idle one the partition.
    pub blocks: u32,
    /// The release that it holds, if its manifest says so. For the idle slot only a hint: guards judge.
    pub release: Option<InstalledRelease>,
}

impl std::fmt::Debug for SlotContent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { data: _, blocks, release } = self;
        f.debug_struct("SlotContent")
            .field("blocks", blocks)
            .field("release", release)
            .finish_non_exhaustive()
    }
}

/// By what a slot's content is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstalledRelease {
    /// The root hash of its manifest.
    pub root_hash: Sha256,
    /// The data blocks of its manifest.
    pub data_blocks: u32,
}

/// The two slots. Each may be missing: a new disk has no running one, a reader of repositories neither.
#[derive(Debug, Clone, Copy, Default)]
pub struct OldSlots<'a> {
    /// The slot that runs.
    pub running: Option<SlotContent<'a>>,
    /// The slot that will be written.
    pub idle: Option<SlotContent<'a>>,
}

impl<'a> OldSlots<'a> {
    /// One of the two.
    #[must_use]
    pub const fn slot_content(&self, slot: OldSlot) -> Option<SlotContent<'a>> {
        match slot {
            OldSlot::Running => self.running,
            OldSlot::Idle => self.idle,
        }
    }
}

/// What was found in the slots.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Which blocks there are.
    pub content: ContentMap,
    /// The digests of the blocks of the new root that are written already, by their chunk; and all zeros.
    pub(crate) leaves: Vec<[u8; 32]>,
    /// Which chunks are written already.
    pub(crate) written: Vec<bool>,
    /// Zero blocks of the new root that still need to be written.
    pub(crate) unwritten_zeros: Vec<Run>,
    /// The identifiers of all blocks of the release that a slot holds, by which block lists are patched.
    pub(crate) base_ids: Vec<(OldSlot, InstalledRelease, Vec<u8>)>,
}

impl Survey {
    /// Reads both slots on that many threads.
    #[must_use]
    pub fn read_slots(index: &PayloadIndex, salt: &[u8], slots: OldSlots<'_>, threads: usize) -> Self {
        let hasher = LeafHasher::new(salt);
        let running = slots.running.map(|slot| hash_blocks(slot, &hasher, threads)).unwrap_or_default();
        let running_ids = block_ids(&running);
        // 32 bytes a block. Of the running slot only the identifiers are needed from here on.
        drop(running);
        let idle = slots.idle.map(|slot| hash_blocks(slot, &hasher, threads)).unwrap_or_default();
        let idle_ids = block_ids(&idle);
        let content = ContentMap::new(&running_ids, &idle_ids, &hasher);
        let base_ids = [(OldSlot::Running, &running_ids), (OldSlot::Idle, &idle_ids)];
        let base_ids = base_ids.into_iter().filter_map(|(slot, ids)| {
            let release = slots.slot_content(slot)?.release?;
            let ids = ids.get(..usize::try_from(release.data_blocks).ok()?)?;
            // Only where patches are offered: elsewhere nobody asks for these bytes.
            index.bases.iter().find(|base| base.root_hash == release.root_hash)?;
            Some((slot, release, ids.iter().flat_map(|id| id.unwrap_or_default()).collect()))
        });
        let base_ids = base_ids.collect();
        let mut survey = Self {
            content,
            leaves: vec![hasher.zero_block(); index.data_blocks as usize],
            written: Vec::new(),
            unwritten_zeros: Vec::new(),
            base_ids,
        };
        survey.compare_in_place(index, &idle, &hasher);
        survey
    }

    /// Whether that chunk is in its place already.
    #[must_use]
    pub fn is_written(&self, chunk: usize) -> bool {
        self.written.get(chunk).copied().unwrap_or_default()
    }

    fn compare_in_place(&mut self, index: &PayloadIndex, idle: &[Option<[u8; 32]>], hasher: &LeafHasher) {
        for chunk in &index.chunks {
            let found: Option<Vec<[u8; 32]>> =
                items_of_run(idle, chunk.run).and_then(|found| found.iter().copied().collect());
            // Read back and compared: a note of what was written would be wrong after a power cut, and on a
            // disk that lies.
            let found = found.filter(|digests| chunk_guard(digests) == chunk.guard);
            self.written.push(found.is_some());
            if let (Some(found), Some(leaves)) = (found, range_mut(&mut self.leaves, chunk.run)) {
                leaves.copy_from_slice(&found);
            }
        }
        let zeros = Some(hasher.zero_block());
        for gap in zero_runs(index) {
            let blocks =
                (gap.first..gap.end_block()).filter(|block| idle.get(*block as usize) != Some(&zeros));
            for block in blocks {
                match self.unwritten_zeros.last_mut().filter(|run| run.end_block() == block) {
                    Some(run) => run.blocks += 1,
                    None => self.unwritten_zeros.push(Run { first: block, blocks: 1 }),
                }
            }
        }
    }
}

/// The guard of a chunk whose blocks have these digests.
#[must_use]
pub fn chunk_guard(digests: &[[u8; 32]]) -> Sha256 {
    Sha256::digest_of(digests.as_flattened())
}

/// Whether blocks are those of a chunk, and their digests.
#[must_use]
pub fn check_chunk(chunk: &Chunk, bytes: &[u8], hasher: &LeafHasher) -> Option<Vec<[u8; 32]>> {
    let digests: Vec<_> = bytes.chunks(BLOCK_BYTES).map(|block| hasher.hash_block(block)).collect();
    (bytes.len() == block_bytes(chunk.run.blocks) && chunk_guard(&digests) == chunk.guard).then_some(digests)
}

/// The runs of zeros between and behind the chunks.
pub fn zero_runs(index: &PayloadIndex) -> impl Iterator<Item = Run> + '_ {
    let starts = std::iter::once(0).chain(index.chunks.iter().map(|chunk| chunk.run.end_block()));
    let ends = index.chunks.iter().map(|chunk| chunk.run.first).chain([index.data_blocks]);
    let runs = starts.zip(ends).map(|(first, end)| Run { first, blocks: end.saturating_sub(first) });
    runs.filter(|run| run.blocks > 0)
}

/// Bytes of that many blocks.
pub(crate) const fn block_bytes(blocks: u32) -> usize {
    blocks as usize * BLOCK_BYTES
}

pub(crate) fn items_of_run<T>(of: &[T], run: Run) -> Option<&[T]> {
    of.get(run.first as usize..run.end_block() as usize)
}

pub(crate) fn range_mut<T>(of: &mut [T], run: Run) -> Option<&mut [T]> {
    of.get_mut(run.first as usize..run.end_block() as usize)
}

fn block_ids(digests: &[Option<[u8; 32]>]) -> Vec<Option<BlockId>> {
    digests.iter().map(|digest| digest.as_ref().map(block_id)).collect()
}

/// The digest of each block; none where the slot cannot be read, which a worn disk's user should survive.
fn hash_blocks(slot: SlotContent<'_>, hasher: &LeafHasher, threads: usize) -> Vec<Option<[u8; 32]>> {
    let mut digests = vec![None; slot.blocks as usize];
    let batches = Mutex::new(digests.chunks_mut(BATCH as usize).zip((0_u64..).step_by(BATCH as usize)));
    let work = || {
        let mut buffer = vec![0; block_bytes(BATCH)];
        loop {
            let batch = batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
            let Some((digests, first)) = batch else { return };
            hash_batch(slot.data, first, digests, &mut buffer, hasher);
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    digests
}

fn hash_batch(
    data: &dyn ReadAt,
    first: u64,
    digests: &mut [Option<[u8; 32]>],
    buffer: &mut [u8],
    hasher: &LeafHasher,
) {
    let offset = |index: usize| (first + index as u64) * BLOCK_BYTES as u64;
    let buffer = &mut buffer[..digests.len() * BLOCK_BYTES];
    let whole = data.read_exact_at(buffer, offset(0)).is_ok();
    for (index, (digest, block)) in digests.iter_mut().zip(buffer.chunks_exact_mut(BLOCK_BYTES)).enumerate() {
        // After a failure each block is tried alone, so that one bad sector does not cost 2 MiB.
        let read = whole || data.read_exact_at(block, offset(index)).is_ok();
        *digest = read.then(|| hasher.hash_block(block));
    }
}
