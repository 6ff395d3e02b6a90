//! VMDK, in one file: streamOptimized, which OVA and VMware's imports want, and monolithicSparse, which runs.
//!
//! Format: "Virtual Disk Format 5.0", VMware 2011. All numbers are little-endian, and count sectors.

mod read;
mod sparse;
mod stream;

pub use read::open_vmdk;
pub use sparse::VmdkSparseEncoder;
pub use stream::VmdkStreamEncoder;

use crate::content::Content;

const MAGIC: [u8; 4] = *b"KDMV";
const SECTOR: u64 = 512;
/// Sectors of a grain of 64 KiB, VMware's default and a grain of ours.
const GRAIN_SECTORS: u64 = 128;
/// Entries of a grain table.
const TABLE_ENTRIES: u64 = 512;
/// Where the text that describes the disk lies, and how long it may be.
const DESCRIPTOR_SECTOR: u64 = 1;
const DESCRIPTOR_SECTORS: u64 = 20;
/// Line ends are as they should be, bit 0; all of the flags that say more are by kind.
const FLAG_NEWLINES: u32 = 1;
/// There is a second copy of the tables.
const FLAG_REDUNDANT: u32 = 2;
/// Grains are compressed; markers lie between them.
const FLAG_COMPRESSED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;
/// The tables are where the footer says.
const AT_END: u64 = u64::MAX;

/// What differs between the headers of the two kinds.
struct Header {
    version: u32,
    flags: u32,
    capacity: u64,
    redundant_at: u64,
    directory_at: u64,
    overhead: u64,
    compression: u16,
}

impl Header {
    fn to_sector(&self) -> [u8; 512] {
        let mut sector = [0; 512];
        sector[..4].copy_from_slice(&MAGIC);
        sector[4..8].copy_from_slice(&self.version.to_le_bytes());
        sector[8..12].copy_from_slice(&self.flags.to_le_bytes());
        sector[12..20].copy_from_slice(&self.capacity.to_le_bytes());
        sector[20..28].copy_from_slice(&GRAIN_SECTORS.to_le_bytes());
        sector[28..36].copy_from_slice(&DESCRIPTOR_SECTOR.to_le_bytes());
        sector[36..44].copy_from_slice(&DESCRIPTOR_SECTORS.to_le_bytes());
        sector[44..48].copy_from_slice(&512_u32.to_le_bytes());
        sector[48..56].copy_from_slice(&self.redundant_at.to_le_bytes());
        sector[56..64].copy_from_slice(&self.directory_at.to_le_bytes());
        sector[64..72].copy_from_slice(&self.overhead.to_le_bytes());
        // Damaged by whoever copies it as a text.
        sector[73..77].copy_from_slice(b"\n \r\n");
        sector[77..79].copy_from_slice(&self.compression.to_le_bytes());
        sector
    }
}

/// The text that describes the disk, with zeros up to its end.
fn encode_descriptor(content: &Content, kind: &str, name: &str, purpose: &str) -> Vec<u8> {
    let id = content.derive_identifier(purpose);
    // Of the content, but none of the two that mean that there is none.
    let cid = u32::from_be_bytes([id[0], id[1], id[2], id[3]]).clamp(1, 0xffff_fffd);
    let long = crate::bmap::encode_hex(&content.derive_identifier("vmdk-long-content"));
    let sectors = content.size / SECTOR;
    let cylinders = (sectors / (255 * 63)).min(65535);
    let mut text = format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n\
         # Extent description\nRW {sectors} SPARSE \"{name}\"\n\n\
         # The Disk Data Base\n#DDB\n\n\
         ddb.adapterType = \"lsilogic\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"255\"\n\
         ddb.geometry.sectors = \"63\"\n\
         ddb.longContentID = \"{long}\"\n\
         ddb.toolsInstallType = \"4\"\n\
         ddb.toolsVersion = \"2147483647\"\n\
         ddb.virtualHWVersion = \"13\"\n"
    )
    .into_bytes();
    text.resize(usize::try_from(DESCRIPTOR_SECTORS * SECTOR).unwrap_or_default(), 0);
    text
}

/// A file's name as the text may quote it.
fn quotable_name(name: &str) -> String {
    // Room for all else that the text says, in 20 sectors.
    name.chars().filter(|char| *char != '"' && !char.is_control()).take(255).collect()
}
