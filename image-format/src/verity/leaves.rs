//! The tree from digests that were computed while the data passed by.
//!
//! Knows how one block is hashed and how the levels above follow from the lowest. Refuses to know where the data
//! came from. Invariant: the tree is the one that [`super::build_tree`] makes of the same blocks.

use super::{BLOCK_BYTES, DIGEST_BYTES, HashTree, SaltedHasher};
use crate::digest::Sha256;

/// Hashes blocks as the tree's lowest level does.
#[derive(Debug, Clone)]
pub struct LeafHasher(SaltedHasher);

impl LeafHasher {
    /// A hasher for trees with that salt.
    #[must_use]
    pub fn new(salt: &[u8]) -> Self {
        Self(SaltedHasher::new(salt))
    }

    /// The digest of one block of [`BLOCK_BYTES`].
    #[must_use]
    pub fn hash_block(&self, block: &[u8]) -> [u8; DIGEST_BYTES] {
        self.0.hash(block)
    }

    /// The digest of an empty block.
    #[must_use]
    pub const fn zero_block(&self) -> [u8; DIGEST_BYTES] {
        self.0.zeros
    }

    /// The tree over blocks with these digests, of which there is at least one.
    #[must_use]
    pub fn build_tree(&self, leaves: &[[u8; DIGEST_BYTES]]) -> HashTree {
        if let [only] = leaves {
            return HashTree { bytes: Vec::new(), root_hash: Sha256::from_bytes(*only) };
        }
        let mut levels = vec![super::pad_block(leaves.as_flattened().to_vec())];
        while let Some(below) = levels.last().filter(|level| level.len() > BLOCK_BYTES) {
            levels.push(self.0.level_above(below));
        }
        let root_hash = levels.last().map(|top| self.0.hash(top)).unwrap_or_default();
        let bytes = levels.into_iter().rev().flatten().collect();
        HashTree { bytes, root_hash: Sha256::from_bytes(root_hash) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_from_leaves_is_the_one_from_data() {
        for blocks in [1_usize, 2, 128, 129, 300] {
            let data: Vec<u8> =
                (0..blocks * BLOCK_BYTES).map(|at| u8::try_from(at / 5000 % 256).unwrap()).collect();
            let hasher = LeafHasher::new(b"salt");
            let leaves: Vec<_> =
                data.chunks_exact(BLOCK_BYTES).map(|block| hasher.hash_block(block)).collect();

            let tree = hasher.build_tree(&leaves);

            let built = super::super::build_tree(&data.as_slice(), data.len() as u64, b"salt", 1).unwrap();
            assert_eq!(tree, built, "{blocks}");
        }
    }
}
