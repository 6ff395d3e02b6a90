//! A publisher for tests: small chunks, one pack for each base. The real one is image-builder's.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Base, BlockList, Chunk, Pack, PayloadIndex, Piece, Run};
use super::lookup::block_id;
use super::object::{ObjectKind, ObjectReference};
use super::survey::chunk_guard;
use super::zstandard::compress_frame;
use crate::digest::Sha256;
use crate::verity::BLOCK_BYTES;
use crate::verity::leaves::LeafHasher;

pub(super) const SALT: &[u8] = b"a salt";
/// Blocks of a chunk.
const CHUNK: usize = 4;

/// What a publisher put on a server.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) index: PayloadIndex,
    pub(super) objects: BTreeMap<ObjectReference, Vec<u8>>,
}

pub(super) fn block_digests(root: &[u8]) -> Vec<[u8; 32]> {
    let hasher = LeafHasher::new(SALT);
    root.chunks_exact(BLOCK_BYTES).map(|block| hasher.hash_block(block)).collect()
}

pub(super) fn root_hash(root: &[u8]) -> Sha256 {
    LeafHasher::new(SALT).build_tree(&block_digests(root)).root_hash
}

/// Publishes a root, with patches against those.
pub(super) fn publish_root(root: &[u8], bases: &[&[u8]]) -> Published {
    let mut objects = BTreeMap::new();
    let digests = block_digests(root);
    let mut chunks = Vec::new();
    for (number, blocks) in root.chunks(CHUNK * BLOCK_BYTES).enumerate() {
        if blocks.iter().all(|byte| *byte == 0) {
            continue;
        }
        let first = number * CHUNK;
        let run = Run { first: block_number(first), blocks: block_number(blocks.len() / BLOCK_BYTES) };
        let guard = chunk_guard(&digests[first..run.end_block() as usize]);
        let object = put_object(&mut objects, ObjectKind::Chunk, compress_frame(blocks, &[], 1).unwrap());
        chunks.push(Chunk { run, guard, object });
    }
    let list: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| &digests[chunk.run.first as usize..chunk.run.end_block() as usize])
        .flat_map(block_id)
        .collect();
    let object = put_object(&mut objects, ObjectKind::Chunk, compress_frame(&list, &[], 1).unwrap());
    let block_list = Some(BlockList { sha256: Sha256::digest_of(&list), object });
    let bases = bases.iter().map(|base| publish_base(root, &chunks, base, &list, &mut objects)).collect();
    let data_blocks = block_number(digests.len());
    let index = PayloadIndex { data_blocks, root_hash: root_hash(root), chunks, block_list, bases };
    Published { index, objects }
}

fn publish_base(
    root: &[u8],
    chunks: &[Chunk],
    base: &[u8],
    list: &[u8],
    objects: &mut BTreeMap<ObjectReference, Vec<u8>>,
) -> Base {
    let (of_root, of_base) = (block_digests(root), block_digests(base));
    let known: BTreeSet<_> = of_base.iter().collect();
    let data_blocks = block_number(of_base.len());
    let (mut frames, mut pieces) = (Vec::new(), Vec::new());
    for (number, chunk) in chunks.iter().enumerate() {
        let blocks = (0..chunk.run.blocks).map(|at| (at, (chunk.run.first + at) as usize));
        let missing: Vec<_> = blocks.filter(|(_, block)| !known.contains(&of_root[*block])).collect();
        if missing.is_empty() {
            continue;
        }
        let content: Vec<u8> = missing
            .iter()
            .flat_map(|(_, block)| &root[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES])
            .copied()
            .collect();
        let frame = compress_frame(&content, base, 3).unwrap();
        pieces.push(Piece {
            chunk: block_number(number),
            frame_bytes: block_number(frame.len()),
            targets: missing.iter().map(|(at, _)| Run { first: *at, blocks: 1 }).collect(),
            sources: vec![Run { first: 0, blocks: data_blocks }],
        });
        frames.extend(frame);
    }
    let ids: Vec<u8> = of_base.iter().flat_map(block_id).collect();
    let list_patch = Some(put_object(objects, ObjectKind::Patch, compress_frame(list, &ids, 3).unwrap()));
    let packs = if pieces.is_empty() {
        Vec::new()
    } else {
        vec![Pack { object: put_object(objects, ObjectKind::Patch, frames), pieces }]
    };
    Base { version: "1.0.0".into(), root_hash: root_hash(base), data_blocks, list_patch, packs }
}

fn put_object(
    objects: &mut BTreeMap<ObjectReference, Vec<u8>>,
    kind: ObjectKind,
    bytes: Vec<u8>,
) -> ObjectReference {
    let object = ObjectReference::to_bytes(kind, &bytes).unwrap();
    objects.insert(object, bytes);
    object
}

/// Roots of tests have few blocks.
pub(super) fn block_number(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}
