//! Writes a qcow2 in one pass: header, clusters, and each table when its last cluster is known.

use std::io;

use super::{CLUSTER_BITS, COMPRESSED, COMPRESSION_TYPE_BIT, COPIED, MAGIC};
use crate::content::Content;
use crate::encode::Encoder;
use crate::packing::{GRAIN_BYTES, Grain, Packed, Packing};
use crate::piece::{PIECE_BYTES, Piece};
use crate::target::Target;

const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of an L2 table, which fills a cluster.
const L2_ENTRIES: u64 = CLUSTER / 8;
/// What one L2 table describes: 512 MiB, a multiple of a piece.
const L2_BYTES: u64 = L2_ENTRIES * CLUSTER;
/// 16-bit reference counts in a cluster.
const REFCOUNTS: u64 = CLUSTER / 2;
/// Compressed clusters are packed into runs of so many bytes. They may not cross into a cluster that is stored plain, so
/// each run loses half a compressed cluster at its end: 0.4 % of 4 MiB.
const RUN_BYTES: u64 = 4 << 20;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qcow2Compression {
    /// Every QEMU and every cloud reads it.
    Deflate,
    /// QEMU since 5.1 reads it.
    Zstd,
}

/// Writes a compressed qcow2.
#[derive(Debug)]
pub struct Qcow2Encoder<T> {
    target: T,
    size: u64,
    compression: Qcow2Compression,
    /// References of every cluster of the file.
    references: Vec<u16>,
    /// Where the next compressed cluster goes, and where its run ends.
    run: (u64, u64),
    level1: Vec<u64>,
    level2: Vec<u64>,
}

impl<T: Target> Qcow2Encoder<T> {
    /// Writes a disk of that size into an empty target.
    #[must_use]
    pub fn new(target: T, size: u64, compression: Qcow2Compression) -> Self {
        // The header's cluster is written last.
        Self {
            target,
            size,
            compression,
            references: vec![1],
            run: (0, 0),
            level1: Vec::new(),
            level2: Vec::new(),
        }
    }

    /// Adds so many clusters to the file.
    fn allocate_clusters(&mut self, clusters: u64, references: u16) -> io::Result<u64> {
        let first = self.references.len() as u64;
        let clusters = usize::try_from(clusters).map_err(io::Error::other)?;
        self.references.resize(self.references.len() + clusters, references);
        Ok(first * CLUSTER)
    }

    fn store_plain(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let offset = self.allocate_clusters(1, 1)?;
        self.target.write_at(bytes, offset)?;
        Ok(offset | COPIED)
    }

    /// "Compressed Clusters Descriptor": the offset in the low bits, the sectors beyond the first in the high ones.
    fn store_packed(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let length = bytes.len() as u64;
        if self.run.1 - self.run.0 < length {
            let more = self.allocate_clusters(RUN_BYTES / CLUSTER, 0)?;
            // What comes right behind the old run makes it longer.
            self.run =
                if self.run.1 == more { (self.run.0, more + RUN_BYTES) } else { (more, more + RUN_BYTES) };
        }
        let offset = self.run.0;
        self.target.write_at(bytes, offset)?;
        self.run.0 += length;
        for cluster in offset / CLUSTER..=(offset + length - 1) / CLUSTER {
            self.references[usize::try_from(cluster).map_err(io::Error::other)?] += 1;
        }
        let sectors = (offset % 512 + length).div_ceil(512) - 1;
        Ok(COMPRESSED | sectors << (62 - (CLUSTER_BITS - 8)) | offset)
    }

    fn place_cluster(&mut self, plain: &[u8], grain: &Grain) -> io::Result<u64> {
        // One that a sector does not help is read faster as it is.
        if grain.bytes.len() + 512 > plain.len() {
            self.store_plain(plain)
        } else {
            self.store_packed(&grain.bytes)
        }
    }

    fn end_level2(&mut self) -> io::Result<()> {
        let entries = std::mem::take(&mut self.level2);
        if entries.iter().all(|entry| *entry == 0) {
            self.level1.push(0);
            return Ok(());
        }
        let mut bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        bytes.resize(GRAIN_BYTES, 0);
        let offset = self.store_plain(&bytes)?;
        self.level1.push(offset);
        Ok(())
    }

    /// Gives back what is left of the last run of compressed clusters, if nothing came behind it.
    fn trim_run(&mut self) {
        while self.references.last() == Some(&0) {
            self.references.pop();
        }
    }

    /// The counts of all clusters, and of those that hold the counts themselves.
    fn write_references(&mut self) -> io::Result<(u64, u64)> {
        let used = self.references.len() as u64;
        let (mut blocks, mut table) = (0, 0);
        loop {
            let need = (used + blocks + table).div_ceil(REFCOUNTS);
            let need_table = need.div_ceil(CLUSTER / 8);
            if (need, need_table) == (blocks, table) {
                break;
            }
            (blocks, table) = (need, need_table);
        }
        let first = self.allocate_clusters(blocks, 1)?;
        let table_at = self.allocate_clusters(table, 1)?;
        let mut counts: Vec<u8> = self.references.iter().flat_map(|count| count.to_be_bytes()).collect();
        counts.resize(usize::try_from(blocks * CLUSTER).map_err(io::Error::other)?, 0);
        self.target.write_at(&counts, first)?;
        let entries = (0..blocks).flat_map(|block| (first + block * CLUSTER).to_be_bytes());
        self.target.write_at(&entries.collect::<Vec<u8>>(), table_at)?;
        Ok((table_at, table))
    }

    fn encode_header(&self, level1_at: u64, table_at: u64, table: u64) -> io::Result<Vec<u8>> {
        let narrow = |number: u64| u32::try_from(number).map(u32::to_be_bytes).map_err(io::Error::other);
        let zstd = self.compression == Qcow2Compression::Zstd;
        let mut header = MAGIC.to_vec();
        header.extend(3_u32.to_be_bytes());
        header.extend([0; 12]); // no backing file
        header.extend(CLUSTER_BITS.to_be_bytes());
        header.extend(self.size.to_be_bytes());
        header.extend(0_u32.to_be_bytes()); // not encrypted
        header.extend(narrow(self.level1.len() as u64)?);
        header.extend(level1_at.to_be_bytes());
        header.extend(table_at.to_be_bytes());
        header.extend(narrow(table)?);
        header.extend([0; 12]); // no snapshots
        header.extend(if zstd { COMPRESSION_TYPE_BIT } else { 0 }.to_be_bytes());
        header.extend([0; 16]); // compatible and autoclear features
        header.extend(4_u32.to_be_bytes()); // counts of 2^4 bits
        header.extend(if zstd { 112_u32 } else { 104 }.to_be_bytes());
        if zstd {
            header.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        }
        header.extend([0; 8]); // no extensions
        Ok(header)
    }
}

impl<T: Target> Encoder for Qcow2Encoder<T> {
    fn wanted_packing(&self) -> Packing {
        match self.compression {
            Qcow2Compression::Deflate => Packing::DeflateGrains,
            Qcow2Compression::Zstd => Packing::ZstdGrains,
        }
    }

    fn add(&mut self, piece: &Piece, packed: &Packed) -> io::Result<()> {
        let Packed::Grains(grains) = packed else { return Err(io::ErrorKind::InvalidInput.into()) };
        let data = piece.data.as_deref().map_or(&[][..], Vec::as_slice);
        for index in 0..PIECE_BYTES / GRAIN_BYTES {
            let entry = match grains.get(index) {
                Some(Some(grain)) => {
                    self.place_cluster(&data[index * GRAIN_BYTES..(index + 1) * GRAIN_BYTES], grain)?
                }
                _ => 0,
            };
            self.level2.push(entry);
        }
        let end = piece.offset + piece.length as u64;
        if end.is_multiple_of(L2_BYTES) || end == self.size { self.end_level2() } else { Ok(()) }
    }

    fn finish_artefact(mut self: Box<Self>, _: &Content) -> io::Result<()> {
        self.trim_run();
        let level1: Vec<u8> = self.level1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let level1_at = self.allocate_clusters((level1.len() as u64).div_ceil(CLUSTER), 1)?;
        self.target.write_at(&level1, level1_at)?;
        let (table_at, table) = self.write_references()?;
        let header = self.encode_header(level1_at, table_at, table)?;
        self.target.write_at(&header, 0)?;
        self.target.set_length(self.references.len() as u64 * CLUSTER)
    }
}
