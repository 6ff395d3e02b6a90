//! Reads blocks out of the slots.
//!
//! Knows runs and places. Refuses to trust: what is read here is judged by a guard, since the idle slot changes under
//! the reader, and disks lie. Invariant: neighbours are read at once, which spinning disks and SD cards need.

use super::ChunkError;
use crate::payload::index::Run;
use crate::payload::lookup::{BlockPlace, OldSlot};
use crate::payload::survey::{OldSlots, block_bytes, items_of_run};
use crate::verity::BLOCK_BYTES;

/// The blocks of these runs, one behind the other.
pub(super) fn read_runs(slots: OldSlots<'_>, slot: OldSlot, runs: &[Run]) -> Result<Vec<u8>, ChunkError> {
    let mut bytes = vec![0; runs.iter().map(|run| block_bytes(run.blocks)).sum()];
    let mut rest = bytes.as_mut_slice();
    for run in runs {
        let (into, behind) = rest.split_at_mut(block_bytes(run.blocks));
        read_run(slots, slot, run.first, into)?;
        rest = behind;
    }
    Ok(bytes)
}

/// Fills the blocks of a run that have a place, and leaves the others.
pub(super) fn read_places(
    slots: OldSlots<'_>,
    places: &[Option<BlockPlace>],
    run: Run,
    into: &mut [u8],
) -> Result<(), ChunkError> {
    let mut places = items_of_run(places, run).unwrap_or_default();
    let mut rest = into;
    while let Some(first) = places.first() {
        let count = places
            .iter()
            .zip(0..)
            .take_while(|(place, index)| is_contiguous(*first, **place, *index))
            .count();
        let (into, behind) = rest.split_at_mut(count * BLOCK_BYTES);
        match first {
            Some(BlockPlace::Slot { slot, block }) => read_run(slots, *slot, *block, into)?,
            Some(BlockPlace::Zeros) => into.fill(0),
            None => {}
        }
        (places, rest) = (&places[count..], behind);
    }
    Ok(())
}

/// Whether a place is the one that lies `index` blocks behind the first.
fn is_contiguous(first: Option<BlockPlace>, place: Option<BlockPlace>, index: u32) -> bool {
    match (first, place) {
        (Some(BlockPlace::Slot { slot, block }), Some(BlockPlace::Slot { slot: other, block: at })) => {
            slot == other && block.checked_add(index) == Some(at)
        }
        (first, place) => first == place && (index == 0 || !matches!(first, Some(BlockPlace::Slot { .. }))),
    }
}

fn read_run(slots: OldSlots<'_>, slot: OldSlot, first: u32, into: &mut [u8]) -> Result<(), ChunkError> {
    let failed = |source| ChunkError::Read { block: first, source };
    let content = slots.slot_content(slot).ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    content.data.read_exact_at(into, u64::from(first) * BLOCK_BYTES as u64).map_err(failed)
}
