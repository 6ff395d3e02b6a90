//! VHD ("vpc" to QEMU), fixed and dynamic: what Azure takes, and Hyper-V's first generation.
//!
//! Format: "Virtual Hard Disk Image Format Specification", Microsoft 2006. All numbers are big-endian.

mod read;
mod write;

pub(crate) use read::has_footer;
pub use read::open_vhd;
pub use write::{VhdDynamicEncoder, VhdFixedEncoder};

/// Bytes of the footer, which is also the copy at the beginning of a dynamic one.
const FOOTER_BYTES: usize = 512;
const COOKIE: [u8; 8] = *b"conectix";
const DYNAMIC_COOKIE: [u8; 8] = *b"cxsparse";
/// 2040 GiB: sectors of blocks are counted in 32 bits.
pub const MAX_VHD_BYTES: u64 = 2040 << 30;
/// The default of the specification, and a piece.
const BLOCK_BYTES: u64 = 2 << 20;
/// A bit for each sector of a block: every sector is there.
const BITMAP: [u8; 512] = [0xff; 512];
/// An entry of the table whose block is not there.
const NO_BLOCK: u32 = u32::MAX;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;

/// The one's complement of the sum of all bytes but the checksum's own.
fn footer_checksum(bytes: &[u8], at: usize) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    !sum(&bytes[..at]).wrapping_add(sum(&bytes[at + 4..]))
}
