//! Writes the payload of a release into a repository: chunks, patches against older releases, and the index.
//!
//! Knows how to cut, to compress and to pair files. Refuses to know keys, channels and who may publish.
//! Invariants: what a repository has is kept; the same root and the same older releases give the same bytes, on any
//! number of cores; the index is returned only after all objects that it names lie in the repository.

mod chunks;
mod files;
mod parallel;
mod patches;
mod previous;
mod root;
mod store;

use std::io;
use std::path::PathBuf;

use image_format::digest::Sha256;
use image_format::payload::index::{Base, BlockList, ParsePayloadError, PayloadIndex};
use image_format::payload::lookup::block_id;
use image_format::payload::object::{ObjectKind, ObjectReference};
use image_format::payload::reconstruct::ReconstructError;
use image_format::payload::zstandard::{self, FrameError};
use image_format::verity::leaves::LeafHasher;
use serde::Serialize;

pub use previous::{PatchChoice, PreviousRelease};
pub use root::RootImage;
use store::ObjectStore;

/// How hard a release for many machines is compressed. Of 44 MiB of a root, in pieces of 1 MiB: level 3 leaves 18.6 MB, 12
/// 17.4, 15 17.4, 19 16.1, at 90, 12, 4 and 2 MB a second. A release is compressed once and fetched many times.
pub const RELEASE_LEVEL: i32 = 19;

/// What a payload is made from.
#[derive(Debug)]
pub struct PayloadRequest<'a> {
    /// The root, without its tree.
    pub root: &'a RootImage,
    /// The salt of its tree.
    pub salt: &'a [u8],
    /// What its signed manifest says.
    pub root_hash: Sha256,
    /// Releases whose chunks to share, and against some of which to write patches.
    pub previous: &'a [PreviousRelease],
    /// The repository's folder.
    pub repository: PathBuf,
    /// A folder for the roots of older releases, for as long as this takes.
    pub workspace: PathBuf,
    /// The level of zstd: [`RELEASE_LEVEL`], or a low one for releases that hardly anybody fetches.
    pub level: i32,
    /// How many cores work.
    pub threads: usize,
}

/// What was written.
#[derive(Debug)]
pub struct WrittenPayload {
    /// The bytes of the index, for `release/VERSION/index`.
    pub index: Vec<u8>,
    /// What it costs whom.
    pub costs: PayloadCosts,
}

/// What a release costs, in bytes that are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PayloadCosts {
    /// A machine that has nothing: all chunks and the index.
    pub whole_bytes: u64,
    /// The index alone.
    pub index_bytes: u64,
    /// Objects of this release that the repository did not have.
    pub new_object_bytes: u64,
    /// Machines that run an older release, with the patches and the index.
    pub from: Vec<BaseCosts>,
}

/// What a machine fetches that runs an older release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaseCosts {
    /// Its version.
    pub version: String,
    /// Bytes of the patches and the index.
    pub bytes: u64,
}

/// What all parts of the work need.
#[derive(Debug)]
struct PayloadWork {
    store: ObjectStore,
    level: i32,
    threads: usize,
}

/// Writes all objects of a release, and returns the index that names them.
pub fn write_payload(request: &PayloadRequest<'_>) -> Result<WrittenPayload, WritePayloadError> {
    let PayloadRequest { root, salt, root_hash, level, threads, .. } = *request;
    let work = PayloadWork { store: ObjectStore::open_store(&request.repository)?, level, threads };
    let store = &work.store;
    let hasher = LeafHasher::new(salt);
    let leaves = root.hash_blocks(&hasher, threads)?;
    let actual = hasher.build_tree(&leaves).root_hash;
    if actual != root_hash {
        return Err(WritePayloadError::RootHash { actual, expected: root_hash });
    }
    let mut bases = Vec::new();
    for release in request.previous {
        bases.push(release.rebuild_root(&request.repository, &request.workspace, threads)?);
    }
    let chunks = chunks::write_chunks(root, &leaves, &bases, &work)?;
    let mut index = PayloadIndex {
        data_blocks: root.data_blocks(),
        root_hash,
        chunks,
        block_list: None,
        bases: Vec::new(),
    };
    let list = list_blocks(&index, &leaves);
    let object = store.put_object(ObjectKind::Chunk, &zstandard::compress_frame(&list, &[], level)?)?;
    index.block_list = Some(BlockList { sha256: Sha256::digest_of(&list), object });
    for base in bases.iter().filter(|base| base.release.patches == PatchChoice::Write) {
        let hashed = base.root.hash_blocks(&hasher, threads)?;
        let ids: Vec<u8> = hashed.iter().flat_map(block_id).collect();
        let list_patch =
            Some(store.put_object(ObjectKind::Patch, &zstandard::compress_frame(&list, &ids, level)?)?);
        let pair = patches::RootPair {
            new: root,
            new_leaves: &leaves,
            old: &base.root,
            old_leaves: &hashed,
            hasher: &hasher,
        };
        let packs = patches::write_packs(&pair, &index.chunks, &work)?;
        let PreviousRelease { version, index: old, .. } = base.release;
        let (version, root_hash, data_blocks) = (version.clone(), old.root_hash, old.data_blocks);
        index.bases.push(Base { version, root_hash, data_blocks, list_patch, packs });
    }
    let bytes = index.to_bytes()?;
    let costs = sum_costs(&index, bytes.len() as u64, store);
    Ok(WrittenPayload { index: bytes, costs })
}

fn list_blocks(index: &PayloadIndex, leaves: &[[u8; 32]]) -> Vec<u8> {
    let blocks = index.chunks.iter().flat_map(|chunk| chunk.run.first..chunk.run.end_block());
    blocks.filter_map(|block| leaves.get(block as usize)).flat_map(block_id).collect()
}

/// An estimate for those who publish: packs that cost more than what they spare are counted, and not taken.
fn sum_costs(index: &PayloadIndex, index_bytes: u64, store: &ObjectStore) -> PayloadCosts {
    let size = |object: &ObjectReference| u64::from(object.bytes);
    let from = index.bases.iter().map(|base| {
        let packs: u64 = base.packs.iter().map(|pack| size(&pack.object)).sum();
        let list = base.list_patch.as_ref().map_or(0, size);
        BaseCosts { version: base.version.clone(), bytes: index_bytes + packs + list }
    });
    PayloadCosts {
        whole_bytes: index.whole_bytes() + index_bytes,
        index_bytes,
        new_object_bytes: store.new_bytes(),
        from: from.collect(),
    }
}

/// Why there is no payload.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum WritePayloadError {
    #[error("cannot compress a part of the root")]
    Frame(#[from] FrameError),
    #[error("the payload would not be read by any machine")]
    Index(#[from] ParsePayloadError),
    #[error("cannot read {what}")]
    Read { what: String, source: io::Error },
    #[error("cannot rebuild the release {version} from the repository: run `release verify` on it")]
    Rebuild { version: String, source: ReconstructError },
    #[error("the root has the root hash {actual}, but its manifest says {expected}")]
    RootHash { actual: Sha256, expected: Sha256 },
    #[error("an object would have more bytes than any may have")]
    TooLarge,
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests;
