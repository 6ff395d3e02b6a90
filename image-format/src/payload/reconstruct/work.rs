//! Carries out one step of a plan.
//!
//! Knows the fallbacks. Invariant: a step either writes checked blocks or fails, and what it planned to spare never
//! makes it fail: the chunk's own object is tried before.

use std::sync::{Mutex, PoisonError};

use super::assemble::{read_places, read_runs};
use super::{ChunkError, Event, FetchError, ReconstructError, Site, write_blocks};
use crate::payload::index::{Chunk, PayloadIndex, Piece};
use crate::payload::lookup::OldSlot;
use crate::payload::object::ObjectReference;
use crate::payload::plan::{ReconstructionPlan, Step};
use crate::payload::survey::{block_bytes, check_chunk, range_mut};
use crate::payload::zstandard::decompress_exactly;
use crate::verity::BLOCK_BYTES;
use crate::verity::leaves::LeafHasher;

/// What all workers share.
pub(super) struct Job<'a> {
    pub(super) index: &'a PayloadIndex,
    pub(super) plan: &'a ReconstructionPlan,
    pub(super) hasher: &'a LeafHasher,
    pub(super) site: &'a Site<'a>,
    pub(super) leaves: Mutex<Vec<[u8; 32]>>,
}

/// The blocks of a chunk, not yet checked.
struct Made {
    bytes: Vec<u8>,
    /// What is said of it once it was checked.
    how: Event<'static>,
}

impl Job<'_> {
    pub(super) fn perform_step(&self, step: &Step) -> Result<(), ReconstructError> {
        match step {
            Step::Copy { chunk } => self.make_chunk(*chunk, |chunk| self.copy_chunk(chunk)),
            Step::Fetch { chunk } => self.fetch_chunk(*chunk),
            Step::Patch { slot, object, pieces } => match fetch_object(object, self.site) {
                Ok(pack) => pieces.iter().try_for_each(|(offset, piece)| {
                    self.make_chunk(piece.chunk, |chunk| {
                        self.patch_chunk(chunk, *slot, object, &pack, *offset, piece)
                    })
                }),
                // Each of its chunks says why it is fetched, not the pack once: the reasons are few, and equal.
                Err(source) => pieces.iter().try_for_each(|(_, piece)| {
                    self.fall_back(
                        piece.chunk,
                        &ChunkError::Fetch { object: *object, source: source.for_another_chunk() },
                    )
                }),
            },
        }
    }

    fn find_chunk(&self, number: u32) -> Option<&Chunk> {
        self.index.chunks.get(number as usize)
    }

    /// Makes a chunk in the cheap way, or else fetches it.
    fn make_chunk(
        &self,
        number: u32,
        make: impl FnOnce(&Chunk) -> Result<Made, ChunkError>,
    ) -> Result<(), ReconstructError> {
        let Some(chunk) = self.find_chunk(number) else { return Ok(()) };
        let made =
            make(chunk).and_then(|made| self.check_chunk(chunk, &made.bytes).map(|leaves| (made, leaves)));
        match made {
            Ok((Made { bytes, how }, leaves)) => {
                self.site.observer.observe(&how);
                self.write(chunk, &bytes, &leaves)
            }
            Err(reason) => self.fall_back(number, &reason),
        }
    }

    fn fall_back(&self, number: u32, reason: &ChunkError) -> Result<(), ReconstructError> {
        if let Some(chunk) = self.find_chunk(number) {
            self.site.observer.observe(&Event::FellBack { chunk, reason });
        }
        self.fetch_chunk(number)
    }

    fn fetch_chunk(&self, number: u32) -> Result<(), ReconstructError> {
        let Some(chunk) = self.find_chunk(number) else { return Ok(()) };
        let opened = fetch_object(&chunk.object, self.site)
            .map_err(|source| ChunkError::Fetch { object: chunk.object, source })
            .and_then(|object| {
                let opened = decompress_exactly(&object, &[], block_bytes(chunk.run.blocks));
                opened.map_err(|source| ChunkError::Frame { object: chunk.object, source })
            })
            .and_then(|bytes| self.check_chunk(chunk, &bytes).map(|leaves| (bytes, leaves)));
        let failed = |source| ReconstructError::Chunk {
            first: chunk.run.first,
            last: chunk.run.end_block() - 1,
            source,
        };
        let (bytes, leaves) = opened.map_err(failed)?;
        self.write(chunk, &bytes, &leaves)
    }

    fn check_chunk(&self, chunk: &Chunk, bytes: &[u8]) -> Result<Vec<[u8; 32]>, ChunkError> {
        check_chunk(chunk, bytes, self.hasher).ok_or(ChunkError::Guard)
    }

    fn write(&self, chunk: &Chunk, bytes: &[u8], leaves: &[[u8; 32]]) -> Result<(), ReconstructError> {
        write_blocks(self.site, chunk.run.first.into(), bytes)?;
        let mut all = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = range_mut(&mut all, chunk.run) {
            place.copy_from_slice(leaves);
        }
        Ok(())
    }

    fn copy_chunk(&self, chunk: &Chunk) -> Result<Made, ChunkError> {
        let mut bytes = vec![0; block_bytes(chunk.run.blocks)];
        read_places(self.site.slots, &self.plan.places, chunk.run, &mut bytes)?;
        Ok(Made { bytes, how: Event::Copied { blocks: chunk.run.blocks } })
    }

    fn patch_chunk(
        &self,
        chunk: &Chunk,
        slot: OldSlot,
        object: &ObjectReference,
        pack: &[u8],
        offset: usize,
        piece: &Piece,
    ) -> Result<Made, ChunkError> {
        let frame = pack.get(offset..offset + piece.frame_bytes as usize).unwrap_or_default();
        let prefix = read_runs(self.site.slots, slot, &piece.sources)?;
        let blocks: u32 = piece.targets.iter().map(|run| run.blocks).sum();
        let opened = decompress_exactly(frame, &prefix, block_bytes(blocks));
        let opened = opened.map_err(|source| ChunkError::Frame { object: *object, source })?;
        drop(prefix);
        let mut bytes = vec![0; block_bytes(chunk.run.blocks)];
        read_places(self.site.slots, &self.plan.places, chunk.run, &mut bytes)?;
        let targets = piece.targets.iter().flat_map(|run| run.first..run.end_block());
        for (target, block) in targets.zip(opened.chunks_exact(BLOCK_BYTES)) {
            let at = block_bytes(target);
            if let Some(place) = bytes.get_mut(at..at + BLOCK_BYTES) {
                place.copy_from_slice(block);
            }
        }
        Ok(Made { bytes, how: Event::Patched { blocks } })
    }
}

impl FetchError {
    /// The same for another chunk of the pack. An `io::Error` has no copy, so its text stands for it.
    fn for_another_chunk(&self) -> Self {
        match self {
            Self::Content(reason) => Self::Content(*reason),
            Self::NoMirror => Self::NoMirror,
            Self::Transport(source) => {
                Self::Transport(std::io::Error::new(source.kind(), source.to_string()))
            }
        }
    }
}

/// Asks one mirror after the other; what comes is checked before anybody sees it.
pub(super) fn fetch_object(object: &ObjectReference, site: &Site<'_>) -> Result<Vec<u8>, FetchError> {
    // The last mirror's reason is told; those of the others went to the observer.
    let mut last = FetchError::NoMirror;
    for mirror in 0..site.objects.mirrors() {
        let fetched = site.objects.fetch_object(object, mirror).map_err(FetchError::Transport);
        let checked =
            fetched.and_then(|bytes| object.check_bytes(&bytes).map_err(FetchError::Content).map(|()| bytes));
        match checked {
            Ok(bytes) => {
                site.observer.observe(&Event::Fetched { object });
                return Ok(bytes);
            }
            Err(reason) => {
                site.observer.observe(&Event::Refused { object, mirror, reason: &reason });
                last = reason;
            }
        }
        if site.observer.wants_stop() {
            break;
        }
    }
    Err(last)
}
