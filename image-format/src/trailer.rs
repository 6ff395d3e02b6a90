//! The last 64 KiB of a slot: the signed manifest of what the slot holds.
//!
//! Knows where it is and how long it is; refuses to know what it says.
//! Invariant: a trailer is exactly [`TRAILER_BYTES`], and what is not envelope is zero.

use crate::bytes::Bytes;
use crate::signed::MAX_ENVELOPE;

/// Bytes of the trailer, at the very end of the partition.
// Of one length, at the end: it is found by the partition's size alone, before anything in the slot is
// believed.
pub const TRAILER_BYTES: usize = 64 << 10;

const MAGIC: &[u8; 16] = b"catamaran-slot1\n";
const HEAD: usize = MAGIC.len() + 4;

/// Where the trailer of a slot of that size begins; none fits into a smaller one.
#[must_use]
pub fn trailer_offset(slot: Bytes) -> Option<Bytes> {
    slot.get().checked_sub(TRAILER_BYTES as u64).map(Bytes::new)
}

/// Why bytes are not a trailer, or an envelope can not become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum TrailerError {
    #[error("the trailer says its envelope has {given} bytes, but at most {MAX_ENVELOPE} are allowed")]
    Length { given: usize },
    #[error("the slot ends without a manifest")]
    Magic,
    #[error("the trailer has bytes behind its envelope")]
    Padding,
    #[error("the trailer has {given} bytes, not {TRAILER_BYTES}")]
    Size { given: usize },
}

/// The trailer that carries this envelope.
pub fn encode_trailer(envelope: &[u8]) -> Result<Vec<u8>, TrailerError> {
    let length = u32::try_from(envelope.len()).ok().filter(|_| envelope.len() <= MAX_ENVELOPE);
    let length = length.ok_or(TrailerError::Length { given: envelope.len() })?;
    let mut trailer = [MAGIC.as_slice(), &length.to_le_bytes(), envelope].concat();
    trailer.resize(TRAILER_BYTES, 0);
    Ok(trailer)
}

/// The envelope that this trailer carries.
pub fn decode_trailer(trailer: &[u8]) -> Result<&[u8], TrailerError> {
    if trailer.len() != TRAILER_BYTES {
        return Err(TrailerError::Size { given: trailer.len() });
    }
    let (head, rest) = trailer.split_at(HEAD);
    let [magic @ .., a, b, c, d] = head else { return Err(TrailerError::Magic) };
    if magic != MAGIC.as_slice() {
        return Err(TrailerError::Magic);
    }
    let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
    if length > MAX_ENVELOPE {
        return Err(TrailerError::Length { given: length });
    }
    let (envelope, padding) = rest.split_at(length);
    // What is not signed must not be able to say anything.
    if padding.iter().any(|byte| *byte != 0) {
        return Err(TrailerError::Padding);
    }
    Ok(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_survives_its_trailer() {
        let trailer = encode_trailer(b"an envelope").unwrap();

        assert_eq!(trailer.len(), TRAILER_BYTES);
        assert_eq!(decode_trailer(&trailer), Ok(b"an envelope".as_slice()));
    }

    #[test]
    fn what_is_not_exactly_a_trailer_is_refused() {
        let good = encode_trailer(b"an envelope").unwrap();
        let with = |at: usize, byte: u8| {
            let mut trailer = good.clone();
            trailer[at] = byte;
            decode_trailer(&trailer).unwrap_err().to_string()
        };

        assert_eq!(with(0, 0), "the slot ends without a manifest");
        assert_eq!(with(TRAILER_BYTES - 1, 1), "the trailer has bytes behind its envelope");
        assert_eq!(
            with(19, 0xff),
            "the trailer says its envelope has 4278190091 bytes, but at most 49152 are allowed"
        );
        assert_eq!(decode_trailer(&good[1..]), Err(TrailerError::Size { given: TRAILER_BYTES - 1 }));
        assert_eq!(
            encode_trailer(&vec![0; MAX_ENVELOPE + 1]),
            Err(TrailerError::Length { given: MAX_ENVELOPE + 1 })
        );
        assert_eq!(trailer_offset(Bytes::KIB), None);
    }
}
