//! Finds blocks by their content, wherever they lie.
//!
//! Knows identifiers, which are the first bytes of a block's digest, and the two slots. Refuses to know whether a
//! block still is what it was: an answer is a place to try, and a guard judges what is read there.

use super::index::ID_BYTES;
use crate::verity::leaves::LeafHasher;

/// The first bytes of a block's digest.
pub type BlockId = [u8; ID_BYTES];

/// One of the two places that blocks may be had from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OldSlot {
    /// The slot that runs, which nobody writes.
    Running,
    /// The slot that is written.
    Idle,
}

/// Where a block may be had without fetching it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockPlace {
    /// It was seen in a slot.
    Slot {
        /// In which.
        slot: OldSlot,
        /// At which block of it.
        block: u32,
    },
    /// It is empty, and nobody needs to be told where to find zeros.
    Zeros,
}

/// The identifier of a block with that digest.
#[must_use]
pub fn block_id(digest: &[u8; 32]) -> BlockId {
    digest.first_chunk().copied().unwrap_or_default()
}

/// What blocks the two slots have.
///
/// One sorted list of numbers: 5 bytes of identifier, a bit for the slot, 23 bits of place. That is 8 bytes a block,
/// a fourth of what a hash map of the same takes.
#[derive(Debug, Clone)]
pub struct ContentMap {
    entries: Vec<u64>,
    zeros: BlockId,
}

const PLACE_BITS: u32 = 24;
// 23 bits count 8 million blocks, which is 32 GiB: twice the largest root.
const IDLE_BIT: u64 = 1 << 23;

impl ContentMap {
    /// The map of the blocks with these identifiers, of which `None` could not be read.
    #[must_use]
    pub fn new(running: &[Option<BlockId>], idle: &[Option<BlockId>], hasher: &LeafHasher) -> Self {
        let zeros = block_id(&hasher.zero_block());
        let entries = |ids: &[Option<BlockId>], slot: u64| -> Vec<u64> {
            let known = ids.iter().zip(0_u64..IDLE_BIT).filter_map(|(id, block)| Some((id.as_ref()?, block)));
            let known = known.filter(|(id, _)| **id != zeros);
            known.map(|(id, block)| id_bits(*id) | slot | block).collect()
        };
        let mut all = entries(running, 0);
        all.append(&mut entries(idle, IDLE_BIT));
        all.sort_unstable();
        // The first of each is of the running slot, if that has it: nobody writes over it in the meantime.
        all.dedup_by_key(|entry| *entry >> PLACE_BITS);
        all.shrink_to_fit();
        Self { entries: all, zeros }
    }

    /// How many different blocks are known, empty ones aside.
    #[must_use]
    pub const fn known_blocks(&self) -> usize {
        self.entries.len()
    }

    /// A place that had such a block.
    #[must_use]
    pub fn find_block(&self, id: &BlockId) -> Option<BlockPlace> {
        if *id == self.zeros {
            return Some(BlockPlace::Zeros);
        }
        let bits = id_bits(*id);
        let at = self.entries.partition_point(|entry| *entry < bits);
        let entry = self.entries.get(at).filter(|entry| *entry >> PLACE_BITS == bits >> PLACE_BITS)?;
        let slot = if entry & IDLE_BIT == 0 { OldSlot::Running } else { OldSlot::Idle };
        let block = u32::try_from(entry & (IDLE_BIT - 1)).ok()?;
        Some(BlockPlace::Slot { slot, block })
    }
}

fn id_bits(id: BlockId) -> u64 {
    id.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte)) << PLACE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_where_it_lies_and_in_the_running_slot_first() {
        let hasher = LeafHasher::new(b"salt");
        let id = |byte: u8| Some(block_id(&hasher.hash_block(&[byte; 4096])));
        let map = ContentMap::new(&[id(1), None, id(0), id(2)], &[id(2), id(3)], &hasher);

        let found = [0, 1, 2, 3, 4].map(|byte| id(byte).and_then(|id| map.find_block(&id)));

        let place = |slot, block| Some(BlockPlace::Slot { slot, block });
        assert_eq!(
            found,
            [
                Some(BlockPlace::Zeros),
                place(OldSlot::Running, 0),
                place(OldSlot::Running, 3),
                place(OldSlot::Idle, 1),
                None
            ]
        );
    }
}
