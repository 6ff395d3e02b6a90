//! The dm-verity hash tree: version 1, SHA-256, salted, blocks of 4096 bytes, no superblock.
//!
//! Knows the tree's shape and how to fill it on every core. Refuses to know files: the data comes
//! through [`ReadAt`]. Invariant: the bytes are the ones that the kernel and veritysetup compute.
//!
//! Documentation: <https://docs.kernel.org/admin-guide/device-mapper/verity.html> and veritysetup(8).

use std::io;
use std::sync::{Mutex, PoisonError};

use sha2::Digest as _;

use crate::digest::Sha256;

/// A tree that was checked once, by which single blocks are checked before they are written.
pub mod checked;
pub mod leaves;

/// Bytes of a block, of the data and of the tree.
// The kernel takes no blocks that are larger than a page, and x86-64's pages have 4096 bytes.
pub const BLOCK_BYTES: usize = 4096;

const DIGEST_BYTES: usize = 32;
const DIGESTS_PER_BLOCK: u64 = (BLOCK_BYTES / DIGEST_BYTES) as u64;
/// Blocks that a core reads and hashes at a time: 2 MiB, or 16 KiB of digests.
const BATCH_BLOCKS: usize = 512;
static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Something that can be read at any place by many threads at once.
pub trait ReadAt: Sync {
    /// Fills the buffer from that place on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for std::fs::File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..));
        let found = rest.and_then(|rest| rest.get(..buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}

/// A hash tree and the hash of its topmost block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTree {
    /// The blocks, the topmost first, as they lie behind the data.
    pub bytes: Vec<u8>,
    /// What the signed manifest promises.
    pub root_hash: Sha256,
}

/// Blocks of the hash tree over that many blocks of data.
#[must_use]
pub fn tree_blocks(data_blocks: u64) -> u64 {
    level_blocks(data_blocks).iter().sum()
}

/// Builds the tree over the first `data_bytes` bytes, on `threads` cores.
pub fn build_tree(
    data: &dyn ReadAt,
    data_bytes: u64,
    salt: &[u8],
    threads: usize,
) -> Result<HashTree, BuildTreeError> {
    let whole = data_bytes != 0 && data_bytes.is_multiple_of(BLOCK_BYTES as u64);
    let blocks = usize::try_from(data_bytes / BLOCK_BYTES as u64).ok().filter(|_| whole);
    let blocks = blocks.ok_or(BuildTreeError::Size { given: data_bytes })?;
    let hasher = SaltedHasher::new(salt);
    let mut levels = vec![hash_data(data, blocks, &hasher, threads)?];
    while let Some(below) = levels.last().filter(|level| level.len() > BLOCK_BYTES) {
        levels.push(hasher.level_above(below));
    }
    let root_hash = match levels.last() {
        Some(top) if blocks > 1 => hasher.hash(top),
        // One block of data has no tree: its hash is the root hash.
        top => top.and_then(|digests| digests.first_chunk()).copied().unwrap_or_default(),
    };
    let bytes = if blocks > 1 { levels.into_iter().rev().flatten().collect() } else { Vec::new() };
    Ok(HashTree { bytes, root_hash: Sha256::from_bytes(root_hash) })
}

/// Checks data and tree against the root hash, as the kernel would while reading all of it.
pub fn verify_tree(
    data: &dyn ReadAt,
    data_bytes: u64,
    salt: &[u8],
    threads: usize,
    expected: &HashTree,
) -> Result<(), VerifyTreeError> {
    let built = build_tree(data, data_bytes, salt, threads)?;
    // The quick way first: nearly always they are the same, and only otherwise does it matter where.
    if built == *expected {
        return Ok(());
    }
    let leaves = data_bytes.div_ceil(BLOCK_BYTES as u64 * DIGESTS_PER_BLOCK);
    let leaves = usize::try_from(leaves).map_or(0, |blocks| blocks * BLOCK_BYTES);
    let tails = [&built.bytes, &expected.bytes].map(|bytes| &bytes[bytes.len().saturating_sub(leaves)..]);
    let pairs = tails[0].chunks(DIGEST_BYTES).zip(tails[1].chunks(DIGEST_BYTES));
    match pairs.into_iter().position(|(one, two)| one != two) {
        Some(block) if built.bytes.len() == expected.bytes.len() => {
            Err(VerifyTreeError::Data { block: block as u64 })
        }
        _ => Err(VerifyTreeError::Tree),
    }
}

/// Where a root lies in a slot, and by what it is checked.
#[derive(Debug, Clone, Copy)]
pub struct VerityPlacement<'a> {
    /// Blocks of data, from the beginning of the slot.
    pub data_blocks: u64,
    /// The block at which the hash tree begins.
    pub tree_block: u64,
    /// What is hashed before each block.
    pub salt: &'a [u8],
    /// The hash of the tree's topmost block.
    pub root_hash: Sha256,
}

/// Checks one block of data and its path up the tree, reading nothing else.
pub fn verify_block(
    slot: &dyn ReadAt,
    place: VerityPlacement<'_>,
    block: u64,
) -> Result<(), VerifyBlockError> {
    let hasher = SaltedHasher::new(place.salt);
    let mut hash = hasher.hash(&read_block(slot, block)?);
    let levels = level_blocks(place.data_blocks);
    let mut index = block;
    for (level, _) in levels.iter().enumerate() {
        // The levels above this one lie before it.
        let above: u64 = levels[level + 1..].iter().sum();
        let node = place.tree_block + above + index / DIGESTS_PER_BLOCK;
        let digests = read_block(slot, node)?;
        let at = usize::try_from(index % DIGESTS_PER_BLOCK).map_or(0, |slot| slot * DIGEST_BYTES);
        if digests[at..at + DIGEST_BYTES] != hash {
            return Err(VerifyBlockError::Mismatch { block });
        }
        hash = hasher.hash(&digests);
        index /= DIGESTS_PER_BLOCK;
    }
    if hash == *place.root_hash.as_bytes() { Ok(()) } else { Err(VerifyBlockError::Mismatch { block }) }
}

fn read_block(slot: &dyn ReadAt, block: u64) -> Result<Vec<u8>, VerifyBlockError> {
    let mut bytes = vec![0; BLOCK_BYTES];
    let read = slot.read_exact_at(&mut bytes, block.saturating_mul(BLOCK_BYTES as u64));
    read.map(|()| bytes).map_err(|source| VerifyBlockError::Read { block, source })
}

/// Why a block is not believed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum VerifyBlockError {
    #[error("block {block} of the root is not what its root hash says")]
    Mismatch { block: u64 },
    #[error("cannot read block {block} of the slot")]
    Read { block: u64, source: io::Error },
}

/// Why no tree could be built.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum BuildTreeError {
    #[error("cannot read the data at byte {offset}")]
    Read { offset: u64, source: io::Error },
    #[error("the data has {given} bytes, which is not a number of whole blocks")]
    Size { given: u64 },
}

/// Why data, tree and root hash do not belong together.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum VerifyTreeError {
    #[error("cannot compute the hash tree")]
    Build(#[from] BuildTreeError),
    #[error("block {block} of the data is not what the hash tree says")]
    Data { block: u64 },
    #[error("the hash tree is not the one of the root hash")]
    Tree,
}

/// Blocks of each level, the lowest first.
fn level_blocks(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut below = data_blocks;
    while below > 1 {
        below = below.div_ceil(DIGESTS_PER_BLOCK);
        levels.push(below);
    }
    levels
}

/// SHA-256 that has already taken the salt in.
#[derive(Debug, Clone)]
struct SaltedHasher {
    salted: sha2::Sha256,
    /// The hash of an empty block, of which an image has many.
    zeros: [u8; DIGEST_BYTES],
}

impl SaltedHasher {
    fn new(salt: &[u8]) -> Self {
        // Version 1 of the format hashes the salt before the block. Version 0, which hashes it behind, could
        // not be prepared so.
        let salted = sha2::Sha256::new_with_prefix(salt);
        let zeros = salted.clone().chain_update(ZEROS).finalize().into();
        Self { salted, zeros }
    }

    fn hash(&self, block: &[u8]) -> [u8; DIGEST_BYTES] {
        // To compare is many times faster than to hash.
        if block == ZEROS { self.zeros } else { self.salted.clone().chain_update(block).finalize().into() }
    }

    fn level_above(&self, below: &[u8]) -> Vec<u8> {
        let digests: Vec<u8> = below.chunks_exact(BLOCK_BYTES).flat_map(|block| self.hash(block)).collect();
        pad_block(digests)
    }
}

fn pad_block(mut digests: Vec<u8>) -> Vec<u8> {
    // The kernel hashes whole blocks of digests, the last one filled up with zeros.
    digests.resize(digests.len().next_multiple_of(BLOCK_BYTES), 0);
    digests
}

/// The lowest level: batches of blocks, each taken by whichever core is free.
fn hash_data(
    data: &dyn ReadAt,
    blocks: usize,
    hasher: &SaltedHasher,
    threads: usize,
) -> Result<Vec<u8>, BuildTreeError> {
    let mut digests = vec![0; blocks * DIGEST_BYTES];
    // Taken and not dealt: cores and disks are not equally fast at each place.
    let batches = Mutex::new(digests.chunks_mut(BATCH_BLOCKS * DIGEST_BYTES).enumerate());
    let work = || {
        let mut buffer = vec![0; BATCH_BLOCKS * BLOCK_BYTES];
        loop {
            let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, digests)) = batch else { return Ok(()) };
            let buffer = &mut buffer[..digests.len() / DIGEST_BYTES * BLOCK_BYTES];
            let offset = (index * BATCH_BLOCKS * BLOCK_BYTES) as u64;
            data.read_exact_at(buffer, offset).map_err(|source| BuildTreeError::Read { offset, source })?;
            for (block, digest) in
                buffer.chunks_exact(BLOCK_BYTES).zip(digests.chunks_exact_mut(DIGEST_BYTES))
            {
                digest.copy_from_slice(&hasher.hash(block));
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mine = work();
        let joined = others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.fold(mine, Result::and)
    })?;
    Ok(pad_block(digests))
}

#[cfg(test)]
mod tests;
