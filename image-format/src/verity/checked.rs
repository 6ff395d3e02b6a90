//! A hash tree that was checked against its root hash once, by which each block of data is checked before it is
//! written anywhere.
//!
//! [`crate::verity::verify_block`] reads the path up the tree for each block, four hashes instead of one; that is right
//! for a single block, and too slow for a whole root. Refuses to know where tree and data come from.
//! Invariant: a digest is believed only if the signed root hash vouches for it.

use super::{BLOCK_BYTES, DIGEST_BYTES, SaltedHasher, VerifyTreeError, VerityPlacement, level_blocks};

/// The digests of all data blocks, all of them vouched for by the root hash.
#[derive(Debug, Clone)]
pub struct CheckedTree {
    hasher: SaltedHasher,
    leaves: Vec<u8>,
}

impl CheckedTree {
    /// Checks a whole tree, as it lies behind the data, from its root hash down.
    pub fn check_tree(tree: &[u8], place: VerityPlacement<'_>) -> Result<Self, VerifyTreeError> {
        let hasher = SaltedHasher::new(place.salt);
        let mut expected = place.root_hash.as_bytes().to_vec();
        let mut rest = tree;
        for blocks in level_blocks(place.data_blocks).into_iter().rev() {
            let bytes = usize::try_from(blocks).ok().and_then(|blocks| blocks.checked_mul(BLOCK_BYTES));
            let (level, below) =
                bytes.and_then(|bytes| rest.split_at_checked(bytes)).ok_or(VerifyTreeError::Tree)?;
            let mut nodes = level.chunks_exact(BLOCK_BYTES).zip(expected.chunks_exact(DIGEST_BYTES));
            if !nodes.all(|(node, digest)| hasher.hash(node) == *digest) {
                return Err(VerifyTreeError::Tree);
            }
            expected = level.to_vec();
            rest = below;
        }
        let length =
            usize::try_from(place.data_blocks).ok().and_then(|count| count.checked_mul(DIGEST_BYTES));
        match length.filter(|length| rest.is_empty() && *length <= expected.len()) {
            Some(length) => {
                expected.truncate(length);
                Ok(Self { hasher, leaves: expected })
            }
            None => Err(VerifyTreeError::Tree),
        }
    }

    /// Whether these bytes are block number `index` of the data.
    #[must_use]
    pub fn holds_block(&self, index: u64, block: &[u8]) -> bool {
        let at = usize::try_from(index).ok().and_then(|index| index.checked_mul(DIGEST_BYTES));
        let digest = at.and_then(|at| self.leaves.get(at..)?.get(..DIGEST_BYTES));
        block.len() == BLOCK_BYTES && digest.is_some_and(|digest| self.hasher.hash(block) == *digest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::build_tree;
    use super::*;

    fn data(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK_BYTES).map(|at| u8::try_from(at / BLOCK_BYTES % 251).unwrap()).collect()
    }

    #[test]
    fn each_block_is_held_at_its_own_place_only() {
        // One block has no tree, 128 have one level, and 129 two.
        for blocks in [1, 2, 128, 129, 300] {
            let data = data(blocks);
            let tree = build_tree(&data.as_slice(), data.len() as u64, b"salt", 1).unwrap();
            let place = VerityPlacement {
                data_blocks: blocks as u64,
                tree_block: 0,
                salt: b"salt",
                root_hash: tree.root_hash,
            };

            let checked = CheckedTree::check_tree(&tree.bytes, place).unwrap();

            for (index, block) in data.chunks_exact(BLOCK_BYTES).enumerate() {
                assert!(checked.holds_block(index as u64, block), "{index} of {blocks}");
            }
            assert!(!checked.holds_block(0, &[0xff; BLOCK_BYTES]) && !checked.holds_block(0, b"short"));
            assert!(
                !checked.holds_block(blocks as u64, &data[..BLOCK_BYTES])
                    && !checked.holds_block(u64::MAX, &data[..BLOCK_BYTES])
            );
        }
    }

    #[test]
    fn a_tree_that_the_root_hash_does_not_vouch_for_is_refused() {
        let data = data(300);
        let tree = build_tree(&data.as_slice(), data.len() as u64, b"salt", 1).unwrap();
        let place =
            VerityPlacement { data_blocks: 300, tree_block: 0, salt: b"salt", root_hash: tree.root_hash };
        for at in [0, BLOCK_BYTES, tree.bytes.len() - 1] {
            let mut forged = tree.bytes.clone();
            forged[at] ^= 1;
            assert!(
                matches!(CheckedTree::check_tree(&forged, place), Err(VerifyTreeError::Tree)),
                "byte {at}"
            );
        }
        for wrong in [&tree.bytes[1..], &tree.bytes[..BLOCK_BYTES], &[]] {
            assert!(CheckedTree::check_tree(wrong, place).is_err());
        }
        assert!(
            CheckedTree::check_tree(&tree.bytes, VerityPlacement { data_blocks: 301, ..place })
                .is_ok_and(|tree| !tree.holds_block(300, &data[..BLOCK_BYTES]))
        );
        assert!(
            CheckedTree::check_tree(&tree.bytes, VerityPlacement { data_blocks: u64::MAX / 2, ..place })
                .is_err()
        );
    }
}
