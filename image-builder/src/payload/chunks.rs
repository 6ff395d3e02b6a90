//! Cuts a root into chunks, and compresses those that no release has yet.
//!
//! Knows where to cut. Refuses to know files: a cut depends on the blocks around it alone, so that a root of which one
//! file grew has the same chunks before and behind it, wherever they moved. Fixed cuts would store the whole root
//! again for each release. Invariant: chunks have no zeros of [`GAP`] blocks, and lie in order.

use std::collections::HashMap;

use image_format::digest::Sha256;
use image_format::payload::index::{Chunk, Run};
use image_format::payload::object::{ObjectKind, ObjectReference};
use image_format::payload::survey::chunk_guard;
use image_format::payload::zstandard;
use image_format::verity::BLOCK_BYTES;

use super::previous::RebuiltRelease;
use super::root::RootImage;
use super::store::ObjectStore;
use super::{PayloadWork, WritePayloadError, parallel};

/// Blocks of the smallest chunk, but for those before zeros and at the end.
const SMALLEST: u32 = 64;
/// Blocks of the largest.
const LARGEST: u32 = 512;
/// One block in so many ends a chunk: 1 MiB on average. Of the same 44 MiB, chunks of 256 KiB leave 16.9 MB, of 1 MiB
/// 16.1, of 2 MiB 15.8; but what falls back fetches a whole chunk, and each worker has one in memory.
const ONE_IN: u64 = 192;
/// So many blocks of zeros are left out.
const GAP: u32 = 8;

/// Writes the chunks of a root that the repository lacks.
pub(super) fn write_chunks(
    root: &RootImage,
    leaves: &[[u8; 32]],
    previous: &[RebuiltRelease<'_>],
    work: &PayloadWork,
) -> Result<Vec<Chunk>, WritePayloadError> {
    let PayloadWork { store, level, threads } = work;
    let (level, threads) = (*level, *threads);
    let known = known_chunks(previous, store, threads)?;
    let runs = cut_chunks(&mark_blocks(root, threads)?);
    parallel::map_parallel(&runs, threads, |run| {
        let content = root.read_runs(&[*run])?;
        let object = match known.get(&Sha256::digest_of(&content)) {
            Some(object) => *object,
            None => store.put_object(ObjectKind::Chunk, &zstandard::compress_frame(&content, &[], level)?)?,
        };
        let digests = leaves.get(run.first as usize..run.end_block() as usize).unwrap_or_default();
        Ok(Chunk { run: *run, guard: chunk_guard(digests), object })
    })
}

/// The chunks of older releases, by the digest of their content: they need not be compressed again, and another
/// version of zstd would give them another name.
fn known_chunks(
    previous: &[RebuiltRelease<'_>],
    store: &ObjectStore,
    threads: usize,
) -> Result<HashMap<Sha256, ObjectReference>, WritePayloadError> {
    let mut known = HashMap::new();
    for base in previous {
        let chunks = parallel::map_parallel(&base.release.index.chunks, threads, |chunk| {
            Ok::<_, WritePayloadError>((Sha256::digest_of(&base.root.read_runs(&[chunk.run])?), chunk.object))
        })?;
        known.extend(chunks.into_iter().filter(|(_, object)| store.has_object(object)));
    }
    Ok(known)
}

/// What a block means for cutting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It may end a chunk.
    Cut,
    Plain,
    Zero,
}

fn mark_blocks(root: &RootImage, threads: usize) -> Result<Vec<Mark>, WritePayloadError> {
    let batches: Vec<u32> = (0..root.data_blocks()).step_by(LARGEST as usize).collect();
    let marks = parallel::map_parallel(&batches, threads, |first| {
        let blocks = LARGEST.min(root.data_blocks() - first);
        let bytes = root.read_runs(&[Run { first: *first, blocks }])?;
        Ok::<_, WritePayloadError>(bytes.as_chunks().0.iter().map(mark_block).collect::<Vec<_>>())
    })?;
    Ok(marks.into_iter().flatten().collect())
}

fn mark_block(block: &[u8; BLOCK_BYTES]) -> Mark {
    if block.iter().all(|byte| *byte == 0) {
        return Mark::Zero;
    }
    // Any function of the content will do: this one is fast, and stays. Who could choose blocks could choose cuts.
    let words = block.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let sum = words.fold(0_u64, |sum, word| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    if (sum >> 32).is_multiple_of(ONE_IN) { Mark::Cut } else { Mark::Plain }
}

fn cut_chunks(marks: &[Mark]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut open = Run { first: 0, blocks: 0 };
    // Zeros that end the open chunk, if enough of them come.
    let mut zeros = 0;
    for (block, mark) in (0..).zip(marks) {
        zeros = if *mark == Mark::Zero { zeros + 1 } else { 0 };
        if open.blocks == 0 && *mark == Mark::Zero {
            continue;
        }
        if open.blocks == 0 {
            open.first = block;
        }
        open.blocks += 1;
        let cut = open.blocks >= SMALLEST && *mark == Mark::Cut || open.blocks == LARGEST;
        if zeros == GAP || cut {
            runs.push(Run { blocks: open.blocks - zeros, ..open });
            open.blocks = 0;
        }
    }
    runs.push(Run { blocks: open.blocks - zeros.min(open.blocks), ..open });
    runs.retain(|run| run.blocks > 0);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(text: &str) -> Vec<Mark> {
        let mark = |letter| match letter {
            'c' => Mark::Cut,
            ' ' => Mark::Zero,
            _ => Mark::Plain,
        };
        text.chars().map(mark).collect()
    }

    #[test]
    fn zeros_end_a_chunk_and_belong_to_none() {
        let runs = cut_chunks(&marks(&format!("  ab c{}x  y{}", " ".repeat(20), " ".repeat(3))));

        assert_eq!(runs, [Run { first: 2, blocks: 4 }, Run { first: 26, blocks: 4 }]);
        assert_eq!(cut_chunks(&marks("    ")), []);
        assert_eq!(cut_chunks(&[]), []);
    }

    #[test]
    fn what_is_inserted_moves_the_cuts_behind_it_and_changes_none() {
        let text: String = (0..4000_u32).map(|at| if at * at % 97 == 1 { 'c' } else { 'x' }).collect();
        let (head, tail) = text.split_at(700);
        let moved = format!("{head}xxxxxxx{tail}");

        let lengths = |text: &str| cut_chunks(&marks(text)).iter().map(|run| run.blocks).collect::<Vec<_>>();

        let (before, after) = (lengths(&text), lengths(&moved));
        let same = before.iter().rev().zip(after.iter().rev()).take_while(|(one, two)| one == two).count();
        assert!(same > 20 && same + 15 > before.len(), "{same} of {}", before.len());
        assert!(before.iter().all(|blocks| *blocks <= LARGEST));
    }
}
