//! The stream in which QEMU sends Ethernet frames: a length of four bytes, big-endian, then the frame.
//!
//! Knows QEMU's `-netdev stream` (<https://www.qemu.org/docs/master/system/invocation.html>, and the function
//! `net_fill_rstate` of its `net/net.c`). Refuses to know what is in a frame. Invariant: a decoder holds at most one
//! frame and what one read brought behind it, whatever length a broken peer announces.

/// QEMU's own limit (`NET_BUFSIZE`: 4096 + 65536). A longer frame is no frame: the stream has lost its step.
pub const MAX_FRAME: usize = 4096 + 65536;

/// The bytes of the length.
const HEADER: usize = 4;

/// A peer that does not speak the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes was announced, and the longest has {MAX_FRAME}")]
pub struct FrameTooLong(pub usize);

/// Puts frames together from the pieces in which they arrive.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    bytes: Vec<u8>,
    read: usize,
}

impl FrameDecoder {
    /// Adds what was read.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        // Once a read, not once a frame: to move the rest up costs as much as to read it.
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameTooLong> {
        let unread = self.bytes.get(self.read..).unwrap_or_default();
        let Some((header, rest)) = unread.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(FrameTooLong(length));
        }
        let frame = rest.get(..length);
        if frame.is_some() {
            self.read += HEADER + length;
        }
        Ok(frame)
    }
}

/// The bytes that carry a frame.
#[must_use]
pub fn encode_frame(frame: &[u8]) -> Vec<u8> {
    // The switch got the frame from a decoder, so its length fits.
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], frame].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_in_pieces(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut decoder = FrameDecoder::default();
        let mut frames = Vec::new();
        for bytes in stream.chunks(piece) {
            decoder.push_bytes(bytes);
            while let Some(frame) = decoder.next_frame().unwrap() {
                frames.push(frame.to_vec());
            }
        }
        frames
    }

    #[test]
    fn frames_survive_every_way_to_cut_the_stream() {
        let frames = [vec![1; 60], vec![], vec![2; 1514], vec![3]];
        let stream: Vec<u8> = frames.iter().flat_map(|frame| encode_frame(frame)).collect();

        for piece in 1..=stream.len() {
            assert_eq!(decode_in_pieces(&stream, piece), frames, "pieces of {piece}");
        }
    }

    #[test]
    fn the_longest_frame_passes_and_a_longer_one_ends_the_stream() {
        let mut decoder = FrameDecoder::default();
        decoder.push_bytes(&encode_frame(&vec![7; MAX_FRAME]));
        assert_eq!(decoder.next_frame().unwrap().map(<[u8]>::len), Some(MAX_FRAME));

        decoder.push_bytes(&[0, 1, 0x10, 1]);

        assert_eq!(decoder.next_frame(), Err(FrameTooLong(MAX_FRAME + 1)));
    }

    #[test]
    fn what_was_read_is_not_kept() {
        let mut decoder = FrameDecoder::default();
        for _ in 0..1000 {
            decoder.push_bytes(&encode_frame(&[0; 1000]));
            assert!(decoder.next_frame().unwrap().is_some());
        }

        assert!(decoder.bytes.len() <= 1004, "{}", decoder.bytes.len());
    }
}
