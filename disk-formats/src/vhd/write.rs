//! Writes VHDs.

use std::io;

use super::{
    BITMAP, BLOCK_BYTES, COOKIE, DYNAMIC, DYNAMIC_COOKIE, FIXED, FOOTER_BYTES, MAX_VHD_BYTES, NO_BLOCK,
    footer_checksum,
};
use crate::content::Content;
use crate::encode::Encoder;
use crate::packing::{Packed, Packing};
use crate::piece::Piece;
use crate::raw::write_runs;
use crate::target::Target;

/// Writes a fixed VHD: the disk, and a footer.
#[derive(Debug)]
pub struct VhdFixedEncoder<T> {
    target: T,
}

impl<T: Target> VhdFixedEncoder<T> {
    /// Writes into an empty target.
    pub const fn new(target: T) -> Self {
        Self { target }
    }
}

impl<T: Target> Encoder for VhdFixedEncoder<T> {
    fn wanted_packing(&self) -> Packing {
        Packing::Plain
    }

    fn add(&mut self, piece: &Piece, _: &Packed) -> io::Result<()> {
        write_runs(&mut self.target, piece, piece.offset)
    }

    fn finish_artefact(mut self: Box<Self>, content: &Content) -> io::Result<()> {
        let footer = encode_footer(content, FIXED)?;
        self.target.write_at(&footer, content.size)
    }
}

/// Where the table of blocks begins: behind the copy of the footer and the header.
const TABLE_AT: u64 = 1536;

/// Writes a dynamic VHD.
#[derive(Debug)]
pub struct VhdDynamicEncoder<T> {
    target: T,
    /// The sector of each block.
    blocks: Vec<u32>,
    end: u64,
}

impl<T: Target> VhdDynamicEncoder<T> {
    /// Writes a disk of that size into an empty target.
    #[must_use]
    pub fn new(target: T, size: u64) -> Self {
        let table = (size.div_ceil(BLOCK_BYTES) * 4).next_multiple_of(512);
        Self { target, blocks: Vec::new(), end: TABLE_AT + table }
    }
}

impl<T: Target> Encoder for VhdDynamicEncoder<T> {
    fn wanted_packing(&self) -> Packing {
        Packing::Plain
    }

    fn add(&mut self, piece: &Piece, _: &Packed) -> io::Result<()> {
        if piece.data.is_none() {
            self.blocks.push(NO_BLOCK);
            return Ok(());
        }
        self.blocks.push(u32::try_from(self.end / 512).map_err(io::Error::other)?);
        // Every sector is there. Readers that do not know the bitmap take the block for whole.
        self.target.write_at(&BITMAP, self.end)?;
        write_runs(&mut self.target, piece, self.end + BITMAP.len() as u64)?;
        self.end += BITMAP.len() as u64 + BLOCK_BYTES;
        Ok(())
    }

    fn finish_artefact(mut self: Box<Self>, content: &Content) -> io::Result<()> {
        let footer = encode_footer(content, DYNAMIC)?;
        self.target.write_at(&footer, 0)?;
        let entries = u32::try_from(self.blocks.len()).map_err(io::Error::other)?;
        self.target.write_at(&dynamic_header(entries), FOOTER_BYTES as u64)?;
        let mut table: Vec<u8> = self.blocks.iter().flat_map(|sector| sector.to_be_bytes()).collect();
        table.resize(table.len().next_multiple_of(512), 0xff);
        self.target.write_at(&table, TABLE_AT)?;
        self.target.write_at(&footer, self.end)
    }
}

fn dynamic_header(entries: u32) -> [u8; 1024] {
    let mut header = [0; 1024];
    header[..8].copy_from_slice(&DYNAMIC_COOKIE);
    header[8..16].fill(0xff);
    header[16..24].copy_from_slice(&TABLE_AT.to_be_bytes());
    header[24..28].copy_from_slice(&0x0001_0000_u32.to_be_bytes());
    header[28..32].copy_from_slice(&entries.to_be_bytes());
    header[32..36].copy_from_slice(&0x0020_0000_u32.to_be_bytes());
    let sum = footer_checksum(&header, 36);
    header[36..40].copy_from_slice(&sum.to_be_bytes());
    header
}

fn encode_footer(content: &Content, kind: u32) -> io::Result<[u8; FOOTER_BYTES]> {
    if content.size > MAX_VHD_BYTES {
        return Err(io::Error::other("a VHD cannot hold more than 2040 GiB; a VHDX can"));
    }
    let mut footer = [0; FOOTER_BYTES];
    footer[..8].copy_from_slice(&COOKIE);
    footer[8..12].copy_from_slice(&2_u32.to_be_bytes());
    footer[12..16].copy_from_slice(&0x0001_0000_u32.to_be_bytes());
    let data_offset = if kind == FIXED { u64::MAX } else { FOOTER_BYTES as u64 };
    footer[16..24].copy_from_slice(&data_offset.to_be_bytes());
    // The time stays zero, 2000-01-01. By the creator's name, readers decide what the size is: QEMU takes
    // cylinders x heads x sectors for "vpc " and "qemu", and the exact size for this one. The cylinders cannot say every
    // size, and Azure counts in MiB.
    footer[28..32].copy_from_slice(b"win ");
    footer[32..36].copy_from_slice(&0x000a_0000_u32.to_be_bytes());
    footer[36..40].copy_from_slice(b"Wi2k");
    footer[40..48].copy_from_slice(&content.size.to_be_bytes());
    footer[48..56].copy_from_slice(&content.size.to_be_bytes());
    footer[56..60].copy_from_slice(&disk_geometry(content.size));
    footer[60..64].copy_from_slice(&kind.to_be_bytes());
    footer[68..84].copy_from_slice(&content.derive_identifier(if kind == FIXED {
        "vhd-fixed"
    } else {
        "vhd"
    }));
    let sum = footer_checksum(&footer, 64);
    footer[64..68].copy_from_slice(&sum.to_be_bytes());
    Ok(footer)
}

/// Cylinders, heads and sectors, as the specification's appendix computes them.
fn disk_geometry(size: u64) -> [u8; 4] {
    let total = (size / 512).min(65535 * 16 * 255);
    let (spt, heads, tracks) = if total >= 65535 * 16 * 63 {
        (255, 16, total / 255)
    } else {
        let heads_of = |tracks: u64| tracks.div_ceil(1024).max(4);
        let (mut spt, mut tracks) = (17, total / 17);
        let mut heads = heads_of(tracks);
        if tracks >= heads * 1024 || heads > 16 {
            (spt, heads, tracks) = (31, 16, total / 31);
        }
        if tracks >= heads * 1024 {
            (spt, heads, tracks) = (63, 16, total / 63);
        }
        (spt, heads, tracks)
    };
    let cylinders = u16::try_from(tracks / heads).unwrap_or(u16::MAX).to_be_bytes();
    [cylinders[0], cylinders[1], u8::try_from(heads).unwrap_or(16), u8::try_from(spt).unwrap_or(255)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `qemu-img create -f vpc` computes them.
    #[test]
    fn geometries_are_the_specifications() {
        assert_eq!(disk_geometry(1 << 20), [0, 30, 4, 17]);
        assert_eq!(disk_geometry(1 << 30), [0x08, 0x20, 16, 63]);
        assert_eq!(disk_geometry(2040 << 30), [0xff, 0xff, 16, 255]);
    }
}
