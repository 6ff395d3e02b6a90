//! Puts a root together, each byte checked before it is written.
//!
//! Knows the plan and the fallbacks: a mirror that fails is followed by the next, a patch or a copy that fails by the
//! chunk's own object. Refuses to know networks and devices, and to write the running slot: it has no way to.
//! Invariants: what is written passed its chunk's guard; the hash tree is written last, and only if it has the root
//! hash of the index; memory is one object, one prefix and one chunk for each worker.

mod assemble;
mod list;
mod work;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::index::{Chunk, PayloadIndex};
use super::object::{CheckObjectError, ObjectReference};
use super::plan::{ReconstructionPlan, list_choices, plan_reconstruction};
use super::survey::{OldSlots, Survey, block_bytes};
use super::zstandard::FrameError;
use crate::digest::Sha256;
use crate::verity::BLOCK_BYTES;
use crate::verity::leaves::LeafHasher;

/// The most threads that carry out steps. Each may have a pack of 4 MiB, a prefix of 16 MiB and two chunks of 4 MiB in
/// memory at once, so that two stay below 64 MiB; disks and networks are slower than two cores.
const MAX_WORKERS: usize = 2;

/// Where objects come from.
pub trait ObjectSource: Sync {
    /// How many mirrors there are; each object is asked for in their order.
    fn mirrors(&self) -> usize;
    /// Fetches an object. It must not read more than [`ObjectReference::bytes`]; what it returns is not yet trusted.
    fn fetch_object(&self, object: &ObjectReference, mirror: usize) -> io::Result<Vec<u8>>;
}

/// Where the new root is written.
pub trait BlockSink: Sync {
    /// Writes whole blocks at that block of the slot.
    fn write_blocks(&self, first: u64, bytes: &[u8]) -> io::Result<()>;
}

/// Who follows the reconstruction, and may stop it.
pub trait Observer: Sync {
    /// Something happened, on any of the workers' threads.
    fn observe(&self, event: &Event<'_>);
    /// Whether to stop before the next step. What was written stays, and the next run goes on from there.
    fn wants_stop(&self) -> bool {
        false
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Blocks were copied from the slots.
    Copied {
        /// How many.
        blocks: u32,
    },
    /// A chunk's own object is fetched, because what was planned failed.
    FellBack {
        /// The chunk.
        chunk: &'a Chunk,
        /// Why.
        reason: &'a ChunkError,
    },
    /// An object came and is what it should be.
    Fetched {
        /// Which.
        object: &'a ObjectReference,
    },
    /// Blocks were in their place already.
    Kept {
        /// How many.
        blocks: u32,
    },
    /// Blocks came out of a patch.
    Patched {
        /// How many.
        blocks: u32,
    },
    /// A mirror did not give what it should.
    Refused {
        /// The object.
        object: &'a ObjectReference,
        /// The mirror, by its number.
        mirror: usize,
        /// Why.
        reason: &'a FetchError,
    },
    /// The hash tree has the signed root hash.
    Verified {
        /// That hash.
        root_hash: Sha256,
    },
    /// Blocks were checked and written.
    Written {
        /// How many.
        blocks: u32,
    },
}

/// What a reconstruction needs of the world.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The slots as they are.
    pub slots: OldSlots<'a>,
    /// Where objects come from.
    pub objects: &'a dyn ObjectSource,
    /// The slot that is written.
    pub sink: &'a dyn BlockSink,
    /// Who follows it.
    pub observer: &'a dyn Observer,
    /// How many threads hash; at most two of them fetch and write.
    pub threads: usize,
}

impl std::fmt::Debug for Site<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site")
            .field("slots", &self.slots)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// Reads the slots, chooses, and fetches the block list if that pays. Writes nothing.
pub fn prepare_reconstruction(
    index: &PayloadIndex,
    salt: &[u8],
    site: &Site<'_>,
) -> Result<Prepared, ReconstructError> {
    let survey = Survey::read_slots(index, salt, site.slots, site.threads);
    let list = list::fetch_list(index, &survey, &list_choices(index, &survey), site);
    let plan = plan_reconstruction(index, &survey, list.as_deref());
    if site.observer.wants_stop() {
        return Err(ReconstructError::Stopped);
    }
    let kept = index.chunks.iter().enumerate().filter(|(chunk, _)| survey.is_written(*chunk));
    site.observer.observe(&Event::Kept { blocks: kept.map(|(_, chunk)| chunk.run.blocks).sum() });
    Ok(Prepared { hasher: LeafHasher::new(salt), survey, plan })
}

/// A reconstruction that can begin.
#[derive(Debug, Clone)]
pub struct Prepared {
    hasher: LeafHasher,
    survey: Survey,
    plan: ReconstructionPlan,
}

impl Prepared {
    /// What will be done.
    #[must_use]
    pub const fn plan(&self) -> &ReconstructionPlan {
        &self.plan
    }

    /// Writes the root and, behind it, at `tree_block`, its hash tree. Flushing is the caller's.
    pub fn reconstruct_root(
        self,
        index: &PayloadIndex,
        tree_block: u64,
        site: &Site<'_>,
    ) -> Result<(), ReconstructError> {
        let Self { hasher, survey, plan } = self;
        write_zeros(&survey, site)?;
        let Survey { leaves, .. } = survey;
        let job = work::Job { index, plan: &plan, hasher: &hasher, site, leaves: Mutex::new(leaves) };
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), ReconstructError> {
            // `Relaxed` is enough: only the number counts here, and joining the threads orders what they
            // wrote.
            while let Some(step) = plan.steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                if site.observer.wants_stop() {
                    return Err(ReconstructError::Stopped);
                }
                let done = job.perform_step(step);
                if done.is_err() {
                    // The others need not go on either.
                    next.store(plan.steps.len(), Ordering::Relaxed);
                }
                // A stop shows as a failure of what it interrupted.
                done.map_err(
                    |error| if site.observer.wants_stop() { ReconstructError::Stopped } else { error },
                )?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..site.threads.min(MAX_WORKERS)).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let joined = others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.fold(mine, Result::and)
        })?;
        let leaves = job.leaves.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        write_tree(index, tree_block, &hasher.build_tree(&leaves), site)
    }
}

fn write_zeros(survey: &Survey, site: &Site<'_>) -> Result<(), ReconstructError> {
    // One MiB at a time: a root has long runs of zeros, and the buffer is all that they cost.
    const MOST: u32 = 256;
    let zeros = vec![0; block_bytes(MOST)];
    for run in &survey.unwritten_zeros {
        for first in (run.first..run.end_block()).step_by(MOST as usize) {
            let blocks = MOST.min(run.end_block() - first);
            write_blocks(site, first.into(), &zeros[..block_bytes(blocks)])?;
        }
    }
    Ok(())
}

fn write_tree(
    index: &PayloadIndex,
    tree_block: u64,
    tree: &crate::verity::HashTree,
    site: &Site<'_>,
) -> Result<(), ReconstructError> {
    // Before the tree is written: without it nothing can open the slot.
    if tree.root_hash != index.root_hash {
        return Err(ReconstructError::RootHash { actual: tree.root_hash, expected: index.root_hash });
    }
    if !tree.bytes.is_empty() {
        write_blocks(site, tree_block, &tree.bytes)?;
    }
    site.observer.observe(&Event::Verified { root_hash: tree.root_hash });
    Ok(())
}

fn write_blocks(site: &Site<'_>, first: u64, bytes: &[u8]) -> Result<(), ReconstructError> {
    let written = site.sink.write_blocks(first, bytes);
    written.map_err(|source| ReconstructError::Write { block: first, source })?;
    let blocks = u32::try_from(bytes.len() / BLOCK_BYTES).unwrap_or(u32::MAX);
    site.observer.observe(&Event::Written { blocks });
    Ok(())
}

/// Why a root was not put together.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ReconstructError {
    #[error("cannot get blocks {first} to {last} of the root")]
    Chunk { first: u32, last: u32, source: ChunkError },
    #[error(
        "the rebuilt root has the root hash {actual}, but the payload index says {expected}: the release was \
         published wrong; publish it again"
    )]
    RootHash { actual: Sha256, expected: Sha256 },
    #[error("the reconstruction was stopped; the next one goes on from here")]
    Stopped,
    #[error("cannot write block {block} of the slot")]
    Write { block: u64, source: io::Error },
}

/// Why a chunk could not be had in some way.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ChunkError {
    #[error("no mirror has {}", object.repository_path())]
    Fetch { object: ObjectReference, source: FetchError },
    #[error("cannot open {}", object.repository_path())]
    Frame { object: ObjectReference, source: FrameError },
    #[error("the blocks are not those that the payload index means")]
    Guard,
    #[error("cannot read block {block} of a slot")]
    Read { block: u32, source: io::Error },
}

/// Why one mirror did not give an object.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum FetchError {
    #[error("what came is not the object: {0}")]
    Content(CheckObjectError),
    #[error("there is no mirror to ask")]
    NoMirror,
    #[error("cannot fetch it")]
    Transport(#[source] io::Error),
}
