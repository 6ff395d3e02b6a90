//! Patches of a root against an older one.
//!
//! Knows which file was which, and which blocks of it help a compressor. Refuses to know the format of a patch.
//! Invariants: a patch is kept only where it spares a machine something; the choice depends on the two roots alone.

mod sources;

use image_format::payload::index::{Chunk, Pack, Piece, Run};
use image_format::payload::object::ObjectKind;
use image_format::payload::zstandard;
use image_format::verity::leaves::LeafHasher;

use super::files::{BlockPlaces, map_files};
use super::root::RootImage;
use super::store::ObjectStore;
use super::{PayloadWork, WritePayloadError, parallel};
use sources::SourceChooser;

/// A pack is closed once it has so many bytes: fewer requests, and what one bad object spoils is still little.
const PACK_BYTES: usize = 256 << 10;

/// Two roots and the digests of their blocks, with the salt of the new one.
#[derive(Debug)]
pub(super) struct RootPair<'a> {
    pub(super) new: &'a RootImage,
    pub(super) new_leaves: &'a [[u8; 32]],
    pub(super) old: &'a RootImage,
    pub(super) old_leaves: &'a [[u8; 32]],
    pub(super) hasher: &'a LeafHasher,
}

/// The blocks of a chunk that the old root lacks.
struct MissingBlocks<'a> {
    number: u32,
    chunk: &'a Chunk,
    blocks: Vec<u32>,
}

/// Writes what an old root lacks of the chunks.
pub(super) fn write_packs(
    pair: &RootPair<'_>,
    chunks: &[Chunk],
    work: &PayloadWork,
) -> Result<Vec<Pack>, WritePayloadError> {
    let old_places = BlockPlaces::new(pair.old_leaves, pair.hasher);
    let missing: Vec<MissingBlocks<'_>> = (0..)
        .zip(chunks)
        .map(|(number, chunk)| {
            let lacks = |block: &u32| {
                pair.new_leaves.get(*block as usize).is_some_and(|leaf| old_places.lacks_block(leaf))
            };
            MissingBlocks {
                number,
                chunk,
                blocks: (chunk.run.first..chunk.run.end_block()).filter(lacks).collect(),
            }
        })
        .filter(|missing| !missing.blocks.is_empty())
        .collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let new_files = map_files(pair.new, &BlockPlaces::new(pair.new_leaves, pair.hasher), pair.hasher)?;
    let old_files = map_files(pair.old, &old_places, pair.hasher)?;
    let chooser = SourceChooser::new(pair, &new_files, &old_files);
    let made = parallel::map_parallel(&missing, work.threads, |missing| {
        make_piece(pair, &chooser, missing, work.level)
    })?;
    pack_pieces(made.into_iter().flatten(), &work.store)
}

/// The patch of a chunk and its frame, unless the chunk itself is hardly more.
fn make_piece(
    pair: &RootPair<'_>,
    chooser: &SourceChooser<'_>,
    missing: &MissingBlocks<'_>,
    level: i32,
) -> Result<Option<(Piece, Vec<u8>)>, WritePayloadError> {
    let sources = chooser.choose_sources(&missing.blocks);
    let blocks = join_runs(missing.blocks.iter().copied());
    let content = pair.new.read_runs(&blocks)?;
    let frame = zstandard::compress_frame(&content, &pair.old.read_runs(&sources)?, level)?;
    // A tenth of a chunk is not worth the second way to it.
    if frame.len() as u64 * 10 > u64::from(missing.chunk.object.bytes) * 9 {
        return Ok(None);
    }
    let frame_bytes = u32::try_from(frame.len()).map_err(|_| WritePayloadError::TooLarge)?;
    let first = missing.chunk.run.first;
    let targets = blocks.iter().map(|run| Run { first: run.first - first, ..*run }).collect();
    Ok(Some((Piece { chunk: missing.number, frame_bytes, targets, sources }, frame)))
}

fn pack_pieces(
    pieces: impl Iterator<Item = (Piece, Vec<u8>)>,
    store: &ObjectStore,
) -> Result<Vec<Pack>, WritePayloadError> {
    let mut packs = Vec::new();
    let (mut open, mut frames) = (Vec::new(), Vec::new());
    for (piece, frame) in pieces {
        open.push(piece);
        frames.extend(frame);
        if frames.len() >= PACK_BYTES {
            let object = store.put_object(ObjectKind::Patch, &frames)?;
            packs.push(Pack { object, pieces: std::mem::take(&mut open) });
            frames.clear();
        }
    }
    if !open.is_empty() {
        packs.push(Pack { object: store.put_object(ObjectKind::Patch, &frames)?, pieces: open });
    }
    Ok(packs)
}

/// Neighbours as runs, in the order given.
fn join_runs(blocks: impl Iterator<Item = u32>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for block in blocks {
        match runs.last_mut().filter(|run| run.end_block() == block) {
            Some(run) => run.blocks += 1,
            None => runs.push(Run { first: block, blocks: 1 }),
        }
    }
    runs
}
