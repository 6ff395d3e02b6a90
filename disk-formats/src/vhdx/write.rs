//! Writes a VHDX.

use std::io;

use super::{
    CRC32C, FULLY_PRESENT, HEADER_BYTES, HEADERS_AT, MIB, REGION_TABLE_BYTES, REGIONS_AT, SIGNATURE,
    chunk_ratio, guid,
};
use crate::content::Content;
use crate::encode::Encoder;
use crate::packing::{Packed, Packing};
use crate::piece::{PIECE_BYTES, Piece};
use crate::raw::write_runs;
use crate::target::Target;

/// A piece. Hyper-V's default of 32 MiB would write 31 MiB of zeros beside a small file.
const BLOCK_BYTES: u64 = PIECE_BYTES as u64;
const SECTOR_BYTES: u32 = 512;
/// What lies where: an empty log, the metadata, the table of blocks, the blocks.
const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 2 * MIB;
const BAT_AT: u64 = 3 * MIB;

/// Writes a dynamic VHDX.
#[derive(Debug)]
pub struct VhdxEncoder<T> {
    target: T,
    bat_bytes: u64,
    end: u64,
}

impl<T: Target> VhdxEncoder<T> {
    /// Writes a disk of that size into an empty target.
    #[must_use]
    pub fn new(target: T, size: u64) -> Self {
        let blocks = size.div_ceil(BLOCK_BYTES);
        let entries = blocks + blocks.saturating_sub(1) / chunk_ratio(BLOCK_BYTES, SECTOR_BYTES.into());
        let bat_bytes = (entries * 8).next_multiple_of(MIB);
        Self { target, bat_bytes, end: BAT_AT + bat_bytes }
    }
}

impl<T: Target> Encoder for VhdxEncoder<T> {
    fn wanted_packing(&self) -> Packing {
        Packing::Plain
    }

    fn add(&mut self, piece: &Piece, _: &Packed) -> io::Result<()> {
        if piece.data.is_none() {
            return Ok(());
        }
        let block = piece.offset / BLOCK_BYTES;
        let index = block + block / chunk_ratio(BLOCK_BYTES, SECTOR_BYTES.into());
        // The offset counts in MiB from bit 20 on, and so is the offset itself.
        self.target.write_at(&(self.end | FULLY_PRESENT).to_le_bytes(), BAT_AT + index * 8)?;
        write_runs(&mut self.target, piece, self.end)?;
        self.end += BLOCK_BYTES;
        Ok(())
    }

    fn finish_artefact(mut self: Box<Self>, content: &Content) -> io::Result<()> {
        let mut identifier = SIGNATURE.to_vec();
        identifier.extend("catamaran".encode_utf16().flat_map(u16::to_le_bytes));
        self.target.write_at(&identifier, 0)?;
        for (sequence, at) in (1_u64..).zip(HEADERS_AT) {
            self.target.write_at(&encode_header(content, sequence), at)?;
        }
        let regions = region_table(self.bat_bytes)?;
        for at in REGIONS_AT {
            self.target.write_at(&regions, at)?;
        }
        self.target.write_at(&encode_metadata(content), METADATA_AT)?;
        self.target.set_length(self.end)
    }
}

fn encode_header(content: &Content, sequence: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(b"head");
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..32].copy_from_slice(&content.derive_identifier("vhdx-file"));
    header[32..48].copy_from_slice(&content.derive_identifier("vhdx-data"));
    // The log's GUID stays zero: there is nothing to replay.
    header[66..68].copy_from_slice(&1_u16.to_le_bytes());
    header[68..72].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    header[72..80].copy_from_slice(&LOG_AT.to_le_bytes());
    let sum = CRC32C.checksum(&header);
    header[4..8].copy_from_slice(&sum.to_le_bytes());
    header
}

fn region_table(bat_bytes: u64) -> io::Result<Vec<u8>> {
    let mut table = vec![0; REGION_TABLE_BYTES];
    table[..4].copy_from_slice(b"regi");
    table[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let bat = u32::try_from(bat_bytes).map_err(io::Error::other)?;
    for (at, id, offset, length) in [(16, guid::BAT, BAT_AT, bat), (48, guid::METADATA, METADATA_AT, 1 << 20)]
    {
        table[at..at + 16].copy_from_slice(&id);
        table[at + 16..at + 24].copy_from_slice(&offset.to_le_bytes());
        table[at + 24..at + 28].copy_from_slice(&length.to_le_bytes());
        table[at + 28] = 1; // whoever does not know it must not open the file
    }
    let sum = CRC32C.checksum(&table);
    table[4..8].copy_from_slice(&sum.to_le_bytes());
    Ok(table)
}

/// A table of items, and the items from 64 KiB on.
fn encode_metadata(content: &Content) -> Vec<u8> {
    const ITEMS_AT: usize = 64 << 10;
    /// It is required; and it is about the disk, not the file.
    const REQUIRED: u32 = 4;
    const OF_THE_DISK: u32 = 2;
    let parameters = BLOCK_BYTES.to_le_bytes(); // and no flags: no parent, nothing left allocated
    let items: [([u8; 16], Vec<u8>, u32); 5] = [
        (guid::FILE_PARAMETERS, parameters.to_vec(), REQUIRED),
        (guid::DISK_SIZE, content.size.to_le_bytes().to_vec(), REQUIRED | OF_THE_DISK),
        (guid::DISK_ID, content.derive_identifier("vhdx-disk").to_vec(), REQUIRED | OF_THE_DISK),
        (guid::LOGICAL_SECTOR, SECTOR_BYTES.to_le_bytes().to_vec(), REQUIRED | OF_THE_DISK),
        (guid::PHYSICAL_SECTOR, 4096_u32.to_le_bytes().to_vec(), REQUIRED | OF_THE_DISK),
    ];
    let mut table = vec![0; ITEMS_AT];
    table[..8].copy_from_slice(b"metadata");
    table[10] = 5;
    for (index, (id, value, flags)) in items.iter().enumerate() {
        let at = 32 + index * 32;
        let offset = u32::try_from(table.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        table[at..at + 16].copy_from_slice(id);
        table[at + 16..at + 20].copy_from_slice(&offset.to_le_bytes());
        table[at + 20..at + 24].copy_from_slice(&length.to_le_bytes());
        table[at + 24..at + 28].copy_from_slice(&flags.to_le_bytes());
        table.extend(value);
    }
    table
}
