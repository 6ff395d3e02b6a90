//! Zstandard frames of known length, with and without a prefix.
//!
//! Knows how to compress for the builder and how to open for the machine. The format is RFC 8878; the prefix is
//! what `zstd --patch-from` calls the reference: raw content that matches may point into. Refuses to know digests.
//! Invariant: opening writes only into a buffer of the length that the index says, so no frame can be a bomb, and
//! needs no window beside it, since the output itself is the window.
//!
//! Documentation: RFC 8878, and zstd(1), `--patch-from`.

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx};

/// Opens a frame that must hold exactly `bytes` bytes.
pub fn decompress_exactly(frame: &[u8], prefix: &[u8], bytes: usize) -> Result<Vec<u8>, FrameError> {
    let mut context = DCtx::try_create().ok_or(FrameError::Memory)?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(refuse_frame)?;
    }
    // A slice, since a vector may have more room than was asked for, and zstd would fill all of it.
    let mut content = vec![0; bytes];
    let given = context.decompress(content.as_mut_slice(), frame).map_err(refuse_frame)?;
    if given == bytes { Ok(content) } else { Err(FrameError::Length { given, needed: bytes }) }
}

/// Compresses content into one frame, the same for the same input on every machine.
pub fn compress_frame(content: &[u8], prefix: &[u8], level: i32) -> Result<Vec<u8>, FrameError> {
    let mut context = CCtx::try_create().ok_or(FrameError::Memory)?;
    let reach = (content.len() + prefix.len()).max(1 << 10);
    // The window must reach back over the whole prefix, or most of it would be of no use.
    // 10 is the smallest window of the format, and 27 the largest that zstd's decoder takes without being
    // asked to.
    let window = reach.next_power_of_two().trailing_zeros().clamp(10, 27);
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window),
        // The reader knows the length. With it in the frame, a wrong one is refused before anything is
        // unpacked.
        CParameter::ContentSizeFlag(true),
        // The object's own digest is checked before the frame is opened, and the guard after it.
        CParameter::ChecksumFlag(false),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).map_err(refuse_frame)?;
    }
    if !prefix.is_empty() {
        // Finds the long matches of a prefix that the hash chains alone would step over.
        context.set_parameter(CParameter::EnableLongDistanceMatching(true)).map_err(refuse_frame)?;
        context.ref_prefix(prefix).map_err(refuse_frame)?;
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    context.compress2(&mut frame, content).map_err(refuse_frame)?;
    Ok(frame)
}

fn refuse_frame(code: zstd_safe::ErrorCode) -> FrameError {
    FrameError::Zstandard { reason: zstd_safe::get_error_name(code) }
}

/// Why a frame cannot be made or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum FrameError {
    #[error("the compressed content has {given} bytes, but the index says {needed}")]
    Length { given: usize, needed: usize },
    #[error("there is no memory for a zstd context")]
    Memory,
    #[error("zstd refuses it: {reason}")]
    Zstandard { reason: &'static str },
}
