//! Chooses where each chunk comes from, by the least bytes that are fetched.
//!
//! Knows the index, the survey and the block list. Refuses to fetch and to write. All sizes are from the index,
//! which was signed, so no mirror can make a bad choice look good.
//! Invariant: each chunk that is not in place is in exactly one step.

use super::index::{Base, ID_BYTES, PayloadIndex, Piece, Run};
use super::lookup::{BlockId, BlockPlace, OldSlot};
use super::object::ObjectReference;
use super::survey::Survey;

/// What will be done, in this order.
#[derive(Debug, Clone, Default)]
pub struct ReconstructionPlan {
    /// One for each object, or for each chunk that needs none.
    pub steps: Vec<Step>,
    /// Where the blocks of chunks with patches and of copied chunks come from, by their place in the new root.
    pub(crate) places: Vec<Option<BlockPlace>>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Both slots together have all blocks of this chunk.
    Copy {
        /// Which chunk.
        chunk: u32,
    },
    /// The chunk's object is fetched.
    Fetch {
        /// Which chunk.
        chunk: u32,
    },
    /// A pack is fetched, and these pieces of it are applied.
    Patch {
        /// Which slot has the base.
        slot: OldSlot,
        /// The pack.
        object: ObjectReference,
        /// Its pieces that are needed, with the place of their frames in the pack.
        pieces: Vec<(usize, Piece)>,
    },
}

impl Step {
    fn first_chunk(&self) -> u32 {
        match self {
            Self::Copy { chunk } | Self::Fetch { chunk } => *chunk,
            Self::Patch { pieces, .. } => pieces.first().map_or(0, |(_, piece)| piece.chunk),
        }
    }
}

/// How the block list may be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListChoice {
    /// As a patch against the identifiers of the blocks of a slot's release.
    Patch {
        /// Which slot.
        slot: OldSlot,
        /// The patch.
        object: ObjectReference,
    },
    /// It would cost more than what it could save.
    Skip,
    /// As it is.
    Whole {
        /// The list.
        object: ObjectReference,
    },
}

/// The ways to the block list, the cheapest first.
#[must_use]
pub fn list_choices(index: &PayloadIndex, survey: &Survey) -> Vec<ListChoice> {
    let written = index.chunks.iter().enumerate().filter(|(chunk, _)| survey.is_written(*chunk));
    let written: usize = written.map(|(_, chunk)| chunk.run.blocks as usize).sum();
    // Where the slots have nothing but what is in place, as when a first installation goes on, a list finds nothing.
    let Some(list) = index.block_list.filter(|_| survey.content.known_blocks() > written) else {
        return vec![ListChoice::Skip];
    };
    let patches = survey.base_ids.iter().filter_map(|(slot, release, _)| {
        let base = index.bases.iter().find(|base| base.root_hash == release.root_hash)?;
        base.list_patch.map(|object| (object.bytes, ListChoice::Patch { slot: *slot, object }))
    });
    let whole = (list.object.bytes, ListChoice::Whole { object: list.object });
    let skip = (bounded_bytes(fetch_bytes(index, survey)), ListChoice::Skip);
    let mut choices: Vec<_> = patches.chain([whole, skip]).collect();
    choices.sort_by_key(|(bytes, _)| *bytes);
    let skip = choices.iter().position(|(_, choice)| *choice == ListChoice::Skip).unwrap_or_default();
    // A list that costs more than all that it could save is not worth a try.
    choices.truncate(skip + 1);
    choices.into_iter().map(|(_, choice)| choice).collect()
}

/// Bytes of the chunks that are not in place.
fn fetch_bytes(index: &PayloadIndex, survey: &Survey) -> u64 {
    let missing = index.chunks.iter().enumerate().filter(|(chunk, _)| !survey.is_written(*chunk));
    missing.map(|(_, chunk)| u64::from(chunk.object.bytes)).sum()
}

fn bounded_bytes(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Chooses for every chunk. Without a block list, chunks are fetched or in place already.
#[must_use]
pub fn plan_reconstruction(index: &PayloadIndex, survey: &Survey, list: Option<&[u8]>) -> ReconstructionPlan {
    let mut plan = ReconstructionPlan::default();
    let mut open: Vec<bool> = (0..index.chunks.len()).map(|chunk| !survey.is_written(chunk)).collect();
    if let Some(list) = list {
        plan.places = find_places(index, survey, list);
        plan.copy_chunks(index, &mut open);
        plan.patch_chunks(index, survey, &mut open);
    }
    let fetched = (0..).zip(&open).filter(|(_, open)| **open);
    plan.steps.extend(fetched.map(|(chunk, _)| Step::Fetch { chunk }));
    // In the order of the slot: disks like it, and two runs do the same.
    plan.steps.sort_by_key(Step::first_chunk);
    plan
}

impl ReconstructionPlan {
    /// Bytes of the objects that will be fetched if all of them are good.
    #[must_use]
    pub fn fetched_bytes(&self, index: &PayloadIndex) -> u64 {
        let bytes = |step: &Step| match step {
            Step::Copy { .. } => 0,
            Step::Fetch { chunk } => index.chunks.get(*chunk as usize).map_or(0, |chunk| chunk.object.bytes),
            Step::Patch { object, .. } => object.bytes,
        };
        self.steps.iter().map(|step| u64::from(bytes(step))).sum()
    }

    fn copy_chunks(&mut self, index: &PayloadIndex, open: &mut [bool]) {
        for ((number, chunk), open) in (0..).zip(&index.chunks).zip(open) {
            if *open && self.missing_blocks(chunk.run).next().is_none() {
                *open = false;
                self.steps.push(Step::Copy { chunk: number });
            }
        }
    }

    /// Takes each pack that costs less than the chunks that it spares.
    fn patch_chunks(&mut self, index: &PayloadIndex, survey: &Survey, open: &mut [bool]) {
        for (slot, release, _) in &survey.base_ids {
            let matching = index.bases.iter().filter(|base| base.root_hash == release.root_hash);
            for (object, pieces) in matching.flat_map(Base::packs_with_frames) {
                let useful: Vec<_> =
                    pieces.into_iter().filter(|(_, piece)| self.covers_missing(index, open, piece)).collect();
                let spared = useful.iter().filter_map(|(_, piece)| index.chunks.get(piece.chunk as usize));
                let spared: u64 = spared.map(|chunk| u64::from(chunk.object.bytes)).sum();
                if u64::from(object.bytes) >= spared {
                    continue;
                }
                for (_, piece) in &useful {
                    open[piece.chunk as usize] = false;
                }
                self.steps.push(Step::Patch { slot: *slot, object, pieces: useful });
            }
        }
    }

    /// Whether a piece has all blocks of its chunk that are found nowhere.
    fn covers_missing(&self, index: &PayloadIndex, open: &[bool], piece: &Piece) -> bool {
        let chunk = index.chunks.get(piece.chunk as usize);
        let Some(chunk) = chunk.filter(|_| open.get(piece.chunk as usize) == Some(&true)) else {
            return false;
        };
        self.missing_blocks(chunk.run).all(|block| {
            let offset = block - chunk.run.first;
            piece.targets.iter().any(|run| (run.first..run.end_block()).contains(&offset))
        })
    }

    fn missing_blocks(&self, run: Run) -> impl Iterator<Item = u32> + '_ {
        (run.first..run.end_block())
            .filter(|block| self.places.get(*block as usize).copied().flatten().is_none())
    }
}

impl Base {
    /// The packs, with the place of each piece's frame.
    fn packs_with_frames(&self) -> impl Iterator<Item = (ObjectReference, Vec<(usize, Piece)>)> + '_ {
        self.packs.iter().map(|pack| {
            let mut offset = 0;
            let pieces = pack.pieces.iter().map(|piece| {
                let at = offset;
                offset += piece.frame_bytes as usize;
                (at, piece.clone())
            });
            (pack.object, pieces.collect())
        })
    }
}

/// Where each block of the new root may be had.
fn find_places(index: &PayloadIndex, survey: &Survey, list: &[u8]) -> Vec<Option<BlockPlace>> {
    let mut places = vec![None; index.data_blocks as usize];
    let blocks = index.chunks.iter().flat_map(|chunk| chunk.run.first..chunk.run.end_block());
    for (block, id) in blocks.zip(list.as_chunks::<ID_BYTES>().0) {
        let id: &BlockId = id;
        if let Some(place) = places.get_mut(block as usize) {
            *place = survey.content.find_block(id);
        }
    }
    places
}
