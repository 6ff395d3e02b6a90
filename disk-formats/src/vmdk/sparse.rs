//! Writes a monolithicSparse VMDK: tables at the beginning, twice, then grains as they are.

use std::io;

use super::{DESCRIPTOR_SECTOR, DESCRIPTOR_SECTORS};
use super::{
    FLAG_NEWLINES, FLAG_REDUNDANT, GRAIN_SECTORS, Header, SECTOR, TABLE_ENTRIES, encode_descriptor,
    quotable_name,
};
use crate::content::Content;
use crate::disk::is_zero;
use crate::encode::Encoder;
use crate::packing::{GRAIN_BYTES, Packed, Packing};
use crate::piece::Piece;
use crate::target::{Appender, Target};

/// Sectors of a grain table.
const TABLE_SECTORS: u64 = TABLE_ENTRIES * 4 / SECTOR;

/// Writes a monolithicSparse VMDK.
#[derive(Debug)]
pub struct VmdkSparseEncoder<T> {
    out: Appender<T>,
    name: String,
    size: u64,
}

impl<T: Target> VmdkSparseEncoder<T> {
    /// Writes a disk of that size into an empty target, which will be a file of that name.
    #[must_use]
    pub fn new(target: T, size: u64, name: &str) -> Self {
        let mut encoder = Self { out: Appender::new(target), name: quotable_name(name), size };
        encoder.out.end = encoder.overhead_sectors() * SECTOR;
        encoder
    }

    fn count_tables(&self) -> u64 {
        self.size.div_ceil(TABLE_ENTRIES * GRAIN_SECTORS * SECTOR)
    }

    fn directory_sectors(&self) -> u64 {
        (self.count_tables() * 4).div_ceil(SECTOR)
    }

    /// Where each copy of directory and tables begins, in sectors.
    fn directory_starts(&self) -> [u64; 2] {
        let first = DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS;
        [first, first + self.directory_sectors() + self.count_tables() * TABLE_SECTORS]
    }

    fn overhead_sectors(&self) -> u64 {
        let [first, second] = self.directory_starts();
        (second + (second - first)).next_multiple_of(GRAIN_SECTORS)
    }
}

impl<T: Target> Encoder for VmdkSparseEncoder<T> {
    fn wanted_packing(&self) -> Packing {
        Packing::Plain
    }

    fn add(&mut self, piece: &Piece, _: &Packed) -> io::Result<()> {
        let Some(data) = &piece.data else { return Ok(()) };
        for (index, grain) in data.chunks(GRAIN_BYTES).enumerate().filter(|(_, grain)| !is_zero(grain)) {
            let sector = u32::try_from(self.out.end / SECTOR)
                .map_err(|_| io::Error::other("a VMDK's file cannot be larger than 2 TiB"))?;
            self.out.append_bytes(grain)?;
            let number = piece.offset / GRAIN_BYTES as u64 + index as u64;
            for directory in self.directory_starts() {
                // The tables of a copy lie behind each other, so their entries are one array.
                let at = (directory + self.directory_sectors()) * SECTOR + number * 4;
                self.out.target.write_at(&sector.to_le_bytes(), at)?;
            }
        }
        Ok(())
    }

    fn finish_artefact(mut self: Box<Self>, content: &Content) -> io::Result<()> {
        let [redundant_at, directory_at] = self.directory_starts();
        for directory in [redundant_at, directory_at] {
            let table = |index| directory + self.directory_sectors() + index * TABLE_SECTORS;
            let entries =
                (0..self.count_tables()).map(|index| u32::try_from(table(index)).unwrap_or(u32::MAX));
            let bytes: Vec<u8> = entries.flat_map(u32::to_le_bytes).collect();
            self.out.target.write_at(&bytes, directory * SECTOR)?;
        }
        let header = Header {
            version: 1,
            flags: FLAG_NEWLINES | FLAG_REDUNDANT,
            capacity: self.size / SECTOR,
            redundant_at,
            directory_at,
            overhead: self.overhead_sectors(),
            compression: 0,
        };
        self.out.target.write_at(&header.to_sector(), 0)?;
        let text = encode_descriptor(content, "monolithicSparse", &self.name, "vmdk-sparse");
        self.out.target.write_at(&text, SECTOR)?;
        self.out.target.set_length(self.out.end)
    }
}
