//! Writes a streamOptimized VMDK: compressed grains in order, each table behind its grains, the directory at the end.
//!
//! Version 3, as VMware's own exporter writes: `ESXi` refuses older ones whose tables are at the end.

use std::io;

use super::{
    AT_END, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_NEWLINES, GRAIN_SECTORS, Header, SECTOR, TABLE_ENTRIES,
    encode_descriptor, quotable_name,
};
use crate::content::Content;
use crate::encode::Encoder;
use crate::packing::{GRAIN_BYTES, Grain, Packed, Packing};
use crate::piece::{PIECE_BYTES, Piece};
use crate::target::{Appender, Target};

/// Grains begin behind header and text, at a grain.
const OVERHEAD: u64 = GRAIN_SECTORS;
/// What a marker says comes next.
const MARKER_TABLE: u32 = 1;
const MARKER_DIRECTORY: u32 = 2;
const MARKER_FOOTER: u32 = 3;
/// What one grain table describes: 32 MiB, a multiple of a piece.
const TABLE_REACH: u64 = TABLE_ENTRIES * GRAIN_BYTES as u64;

/// Writes a streamOptimized VMDK.
#[derive(Debug)]
pub struct VmdkStreamEncoder<T> {
    out: Appender<T>,
    name: String,
    size: u64,
    table: Vec<u32>,
    directory: Vec<u32>,
}

impl<T: Target> VmdkStreamEncoder<T> {
    /// Writes a disk of that size into an empty target, which will be a file of that name.
    #[must_use]
    pub fn new(target: T, size: u64, name: &str) -> Self {
        let mut out = Appender::new(target);
        out.end = OVERHEAD * SECTOR;
        Self { out, name: quotable_name(name), size, table: Vec::new(), directory: Vec::new() }
    }

    /// A grain: its first sector of the disk, its length, and a zlib stream (RFC 1950) made of the bare deflate.
    fn store_grain(&mut self, lba: u64, grain: &Grain) -> io::Result<u32> {
        let sector = self.current_sector()?;
        let length = u32::try_from(grain.bytes.len() + 6).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(grain.bytes.len() + 18);
        bytes.extend(lba.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend([0x78, 0x9c]);
        bytes.extend(&grain.bytes);
        bytes.extend(grain.adler32.to_be_bytes());
        self.out.append_bytes(&bytes)?;
        self.out.align_position(SECTOR);
        Ok(sector)
    }

    fn current_sector(&self) -> io::Result<u32> {
        u32::try_from(self.out.end / SECTOR)
            .map_err(|_| io::Error::other("a VMDK's file cannot be larger than 2 TiB"))
    }

    fn write_marker(&mut self, sectors: u64, kind: u32) -> io::Result<()> {
        let mut marker = [0; 512];
        marker[..8].copy_from_slice(&sectors.to_le_bytes());
        marker[12..16].copy_from_slice(&kind.to_le_bytes());
        self.out.append_bytes(&marker)
    }

    fn end_table(&mut self) -> io::Result<()> {
        let table = std::mem::take(&mut self.table);
        if table.iter().all(|sector| *sector == 0) {
            self.directory.push(0);
            return Ok(());
        }
        self.write_marker(TABLE_ENTRIES * 4 / SECTOR, MARKER_TABLE)?;
        let sector = self.current_sector()?;
        self.directory.push(sector);
        let mut bytes: Vec<u8> = table.iter().flat_map(|sector| sector.to_le_bytes()).collect();
        bytes.resize(usize::try_from(TABLE_ENTRIES * 4).map_err(io::Error::other)?, 0);
        self.out.append_bytes(&bytes)
    }

    fn encode_header(&self, directory_at: u64) -> [u8; 512] {
        Header {
            version: 3,
            flags: FLAG_NEWLINES | FLAG_COMPRESSED | FLAG_MARKERS,
            capacity: self.size / SECTOR,
            redundant_at: 0,
            directory_at,
            overhead: OVERHEAD,
            compression: 1,
        }
        .to_sector()
    }
}

impl<T: Target> Encoder for VmdkStreamEncoder<T> {
    fn wanted_packing(&self) -> Packing {
        Packing::DeflateGrains
    }

    fn add(&mut self, piece: &Piece, packed: &Packed) -> io::Result<()> {
        let Packed::Grains(grains) = packed else { return Err(io::ErrorKind::InvalidInput.into()) };
        for index in 0..PIECE_BYTES / GRAIN_BYTES {
            let sector = match grains.get(index) {
                Some(Some(grain)) => {
                    let lba = (piece.offset + (index * GRAIN_BYTES) as u64) / SECTOR;
                    self.store_grain(lba, grain)?
                }
                _ => 0,
            };
            self.table.push(sector);
        }
        let end = piece.offset + piece.length as u64;
        if end.is_multiple_of(TABLE_REACH) || end == self.size { self.end_table() } else { Ok(()) }
    }

    fn finish_artefact(mut self: Box<Self>, content: &Content) -> io::Result<()> {
        let mut directory: Vec<u8> = self.directory.iter().flat_map(|sector| sector.to_le_bytes()).collect();
        directory.resize(directory.len().next_multiple_of(512).max(512), 0);
        self.write_marker(directory.len() as u64 / SECTOR, MARKER_DIRECTORY)?;
        let directory_at = u64::from(self.current_sector()?);
        self.out.append_bytes(&directory)?;
        self.write_marker(1, MARKER_FOOTER)?;
        let footer = self.encode_header(directory_at);
        self.out.append_bytes(&footer)?;
        // The end of the stream: a marker of zeros.
        self.out.append_bytes(&[0; 512])?;
        let header = self.encode_header(AT_END);
        self.out.target.write_at(&header, 0)?;
        let text = encode_descriptor(content, "streamOptimized", &self.name, "vmdk");
        self.out.target.write_at(&text, SECTOR)
    }
}
