//! How much the packed contents of a document may grow, all of them together.
//!
//! Knows gzip. Refuses to know what is unpacked. Invariant: however many contents there are, what is kept
//! of them stays below one bound, and what is looked at below another.
//!
//! Documentation: RFC 1952.

use std::io::Read;

/// What all contents of what is handed over at once may grow to.
// Each content had 16 MiB of its own before. Thirty of them in a document of 650 kB took 989 MB, a hundred in
// an Ignition configuration 1.6 GB.
const MOST_KEPT: u64 = 16 << 20;
/// What may be unpacked to find out that it is too much.
// What is refused was unpacked, too. This bounds the time that it takes to find that out.
const MOST_TRIED: u64 = 48 << 20;

/// The room that is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecompressionBudget {
    kept: u64,
    tried: u64,
}

impl Default for DecompressionBudget {
    fn default() -> Self {
        Self { kept: MOST_KEPT, tried: MOST_TRIED }
    }
}

impl DecompressionBudget {
    /// Unpacks gzip into the room that is left.
    pub fn unpack_gzip(&mut self, bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
        let most = self.kept.min(self.tried);
        let mut unpacked = Vec::new();
        // A gzip file may have several members (RFC 1952, section 2.2), as `cat a.gz b.gz` makes them.
        let read = flate2::read::MultiGzDecoder::new(bytes).take(most + 1).read_to_end(&mut unpacked);
        let length = unpacked.len() as u64;
        self.tried = self.tried.saturating_sub(length);
        match read {
            _ if length > most => Err("unpacks to more than 16 MiB, or all contents together do"),
            Err(_) => Err("is not gzip, or is cut off"),
            Ok(_) => {
                self.kept -= length;
                // A buffer that grew by doubling may be twice as large as what is in it.
                unpacked.shrink_to_fit();
                Ok(unpacked)
            }
        }
    }
}

/// Unpacks one gzip of its own.
pub fn unpack_gzip(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    DecompressionBudget::default().unpack_gzip(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(mebibytes: usize) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0_u8; 1 << 20];
        (0..mebibytes).for_each(|_| packer.write_all(&zeros).unwrap());
        packer.finish().unwrap()
    }

    #[test]
    fn a_gzip_bomb_is_refused() {
        assert!(unpack_gzip(&packed(64)).is_err_and(|flaw| flaw.contains("16 MiB")));
        assert!(unpack_gzip(b"no gzip").is_err_and(|flaw| flaw.contains("not gzip")));
    }

    #[test]
    fn many_small_bombs_are_as_bad_as_one() {
        let (mut room, one) = (DecompressionBudget::default(), packed(6));

        assert_eq!(room.unpack_gzip(&one).map(|bytes| bytes.len()), Ok(6 << 20));
        assert!(room.unpack_gzip(&one).is_ok());
        assert!(room.unpack_gzip(&one).is_err());
        assert!(room.unpack_gzip(&packed(1)).is_ok(), "what is too large costs the others nothing");
        (0..20).for_each(|_| assert!(room.unpack_gzip(&packed(20)).is_err()));
        assert!(room.unpack_gzip(&packed(1)).is_err(), "to find out takes time, of which there is no more");
    }
}
