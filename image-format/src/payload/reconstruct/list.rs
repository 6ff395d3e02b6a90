//! Gets the block list.
//!
//! Knows the ways to it. Refuses to fail: without a list a machine fetches chunks.
//! Invariant: a list that is returned has the digest that the index names.

use super::Site;
use super::work::fetch_object;
use crate::digest::Sha256;
use crate::payload::index::{ID_BYTES, PayloadIndex};
use crate::payload::plan::ListChoice;
use crate::payload::survey::Survey;
use crate::payload::zstandard::decompress_exactly;

/// The block list, by the cheapest way that works.
pub(super) fn fetch_list(
    index: &PayloadIndex,
    survey: &Survey,
    choices: &[ListChoice],
    site: &Site<'_>,
) -> Option<Vec<u8>> {
    let bytes = index.listed_blocks() as usize * ID_BYTES;
    for choice in choices {
        let (object, prefix) = match choice {
            ListChoice::Skip => return None,
            ListChoice::Whole { object } => (object, &[][..]),
            ListChoice::Patch { slot, object } => {
                let base = survey.base_ids.iter().find(|(of, _, _)| of == slot);
                (object, base.map_or(&[][..], |(_, _, ids)| ids.as_slice()))
            }
        };
        let opened =
            fetch_object(object, site).ok().and_then(|frame| decompress_exactly(&frame, prefix, bytes).ok());
        let list = opened
            .filter(|list| index.block_list.is_some_and(|known| known.sha256 == Sha256::digest_of(list)));
        if list.is_some() {
            return list;
        }
    }
    None
}
