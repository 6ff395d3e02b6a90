//! VHDX, dynamic: Hyper-V's format.
//!
//! Format: \[MS-VHDX\], "Virtual Hard Disk v2 (VHDX) File Format". All numbers are little-endian.

mod read;
mod write;

pub use read::open_vhdx;
pub use write::VhdxEncoder;

/// GUIDs as they lie in the file.
mod guid {
    pub(super) const BAT: [u8; 16] = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
    pub(super) const METADATA: [u8; 16] =
        *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
    pub(super) const FILE_PARAMETERS: [u8; 16] =
        *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
    pub(super) const DISK_SIZE: [u8; 16] =
        *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
    pub(super) const DISK_ID: [u8; 16] = *b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46";
    pub(super) const LOGICAL_SECTOR: [u8; 16] =
        *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
    pub(super) const PHYSICAL_SECTOR: [u8; 16] =
        *b"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56";
}

const MIB: u64 = 1 << 20;
/// Places that the format fixes.
const HEADERS_AT: [u64; 2] = [64 << 10, 128 << 10];
const REGIONS_AT: [u64; 2] = [192 << 10, 256 << 10];
/// A table of regions with its checksum.
const REGION_TABLE_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 4096;
const SIGNATURE: [u8; 8] = *b"vhdxfile";
/// A block that is there.
const FULLY_PRESENT: u64 = 6;
/// CRC-32C (Castagnoli), over headers and tables with their own checksum zero.
const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// After how many blocks of the table one entry belongs to a bitmap of sectors.
const fn chunk_ratio(block: u64, sector: u64) -> u64 {
    (1 << 23) * sector / block
}
