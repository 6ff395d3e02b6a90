//! What is done with a piece before it is written: hashing and the compressions.
//!
//! Pure functions of one piece, so that any number of threads gives the same bytes.

use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use flate2::{Compress, Compression, Crc, FlushCompress};
use libdeflater::{CompressionLvl, Compressor};
use lzma_rust2::{CheckType, XzOptions, XzWriter};
use sha2::{Digest as _, Sha256};

use crate::content::HashedRun;
use crate::disk::is_zero;
use crate::piece::{PIECE_BYTES, Piece};

/// Bytes of a grain: a cluster of a qcow2, a grain of a VMDK. Both default to it, and so they share their deflate.
pub const GRAIN_BYTES: usize = 64 << 10;

/// What an encoder wants of each piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Each grain as a stream of raw deflate.
    DeflateGrains,
    /// The whole piece as deflate blocks that end at a byte.
    GzipBlocks,
    /// The hashes of what a block map lists.
    MapHashes,
    /// The piece as it is.
    Plain,
    /// The whole piece as one block of an xz stream.
    XzBlock,
    /// The whole piece as one frame.
    ZstdFrame,
    /// Each grain as a zstd frame.
    ZstdGrains,
}

/// A packed piece.
#[derive(Debug, Clone)]
pub enum Packed {
    /// Of [`Packing::DeflateGrains`] and [`Packing::ZstdGrains`]: one item a grain, none where it is zero.
    Grains(Vec<Option<Grain>>),
    /// Of [`Packing::MapHashes`].
    Hashes(Vec<HashedRun>),
    /// Of [`Packing::Plain`].
    Plain,
    /// Of [`Packing::GzipBlocks`], [`Packing::XzBlock`] and [`Packing::ZstdFrame`].
    Stream(StreamPart),
}

/// A packed grain.
#[derive(Debug, Clone)]
pub struct Grain {
    /// The compressed bytes, without any frame.
    pub bytes: Vec<u8>,
    /// The Adler-32 of the plain bytes, which a zlib frame wants.
    pub adler32: u32,
}

/// A part of a compressed stream.
#[derive(Debug, Clone)]
pub struct StreamPart {
    /// The compressed bytes.
    pub bytes: Arc<Vec<u8>>,
    /// The plain bytes' checksum, where the stream's end wants it.
    pub crc: Option<Arc<Crc>>,
    /// What xz's index says of a block: its size without padding.
    pub unpadded: u64,
    /// How many plain bytes.
    pub length: usize,
}

/// The levels are those at which the artefacts of a cloud image are no larger than what `qemu-img convert` writes with
/// its defaults (zlib 6, zstd 3), as `ci/bench formats` shows; one level more costs a third more time for 0.5 %.
const DEFLATE_LEVEL: i32 = 4;
/// `gzip` and `pigz` have 6; zlib-rs comes to their size at this one.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// Who asks for xz wants it small.
const XZ_PRESET: u32 = 6;

/// Compressors that a worker keeps, since setting one up costs as much as a grain.
#[derive(Default)]
pub(crate) struct Toolbox {
    deflate: Option<Compressor>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Toolbox {
    /// Packs a piece. `mapped` are stretches of the disk that a map lists though they are zero.
    pub(crate) fn pack_piece(
        &mut self,
        packing: Packing,
        piece: &Piece,
        mapped: &[Range<u64>],
    ) -> io::Result<Packed> {
        match packing {
            Packing::DeflateGrains => {
                pack_grains(piece, |bytes| self.deflate_grain(bytes).map(Some)).map(Packed::Grains)
            }
            Packing::GzipBlocks => gzip_blocks(piece).map(Packed::Stream),
            Packing::MapHashes => Ok(Packed::Hashes(hash_runs(piece, mapped))),
            Packing::Plain => Ok(Packed::Plain),
            Packing::XzBlock => xz_block(piece).map(Packed::Stream),
            Packing::ZstdFrame => self.zstd_frame(piece).map(Packed::Stream),
            Packing::ZstdGrains => pack_grains(piece, |bytes| {
                let bytes = self.zstd_compressor()?.compress(bytes)?;
                Ok(Some(Grain { bytes, adler32: 0 }))
            })
            .map(Packed::Grains),
        }
    }

    fn deflate_grain(&mut self, plain: &[u8]) -> io::Result<Grain> {
        let level = CompressionLvl::new(DEFLATE_LEVEL).map_err(|_| io::ErrorKind::InvalidInput)?;
        let deflate = self.deflate.get_or_insert_with(|| Compressor::new(level));
        let mut bytes = vec![0; deflate.deflate_compress_bound(plain.len())];
        let length = deflate.deflate_compress(plain, &mut bytes).map_err(io::Error::other)?;
        bytes.truncate(length);
        bytes.shrink_to_fit();
        Ok(Grain { bytes, adler32: libdeflater::adler32(plain) })
    }

    fn zstd_compressor(&mut self) -> io::Result<&mut zstd::bulk::Compressor<'static>> {
        if self.zstd.is_none() {
            let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
            zstd.include_checksum(true)?;
            zstd.include_contentsize(true)?;
            self.zstd = Some(zstd);
        }
        self.zstd.as_mut().ok_or_else(|| io::ErrorKind::Other.into())
    }

    fn zstd_frame(&mut self, piece: &Piece) -> io::Result<StreamPart> {
        let bytes = self.zstd_compressor()?.compress(piece_content(piece))?;
        Ok(StreamPart { bytes: Arc::new(bytes), crc: None, unpadded: 0, length: piece.length })
    }
}

static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// The piece's bytes as far as the disk goes.
pub(crate) fn piece_content(piece: &Piece) -> &[u8] {
    piece.data.as_ref().map_or(&ZEROS[..piece.length], |data| &data[..piece.length])
}

fn pack_grains(
    piece: &Piece,
    mut pack: impl FnMut(&[u8]) -> io::Result<Option<Grain>>,
) -> io::Result<Vec<Option<Grain>>> {
    let Some(data) = &piece.data else { return Ok(Vec::new()) };
    let whole = piece.length.div_ceil(GRAIN_BYTES);
    let grains = data.chunks(GRAIN_BYTES).take(whole);
    grains.map(|grain| if is_zero(grain) { Ok(None) } else { pack(grain) }).collect()
}

fn hash_runs(piece: &Piece, mapped: &[Range<u64>]) -> Vec<HashedRun> {
    let wanted = |at: u64| {
        let index = mapped.partition_point(|range| range.end <= at);
        mapped.get(index).is_some_and(|range| range.start <= at)
    };
    let whole = piece_content(piece);
    let run = |run: Range<usize>| HashedRun {
        range: piece.offset + run.start as u64..piece.offset + run.end as u64,
        sha256: Sha256::digest(&whole[run]).into(),
    };
    piece.block_runs(wanted).into_iter().map(run).collect()
}

/// Deflate that ends with an empty stored block, at a byte (`Z_SYNC_FLUSH` of zlib, RFC 1979): parts of it can be put one
/// behind the other, and make one gzip member. Members of their own would be simpler, and gzip reads them, but some
/// readers of clouds stop at the end of the first one.
fn gzip_blocks(piece: &Piece) -> io::Result<StreamPart> {
    let plain = piece_content(piece);
    let mut bytes = Vec::with_capacity(plain.len() / 2 + 1024);
    let mut deflate = Compress::new(Compression::new(GZIP_LEVEL), false);
    while deflate.total_in() < plain.len() as u64 || bytes.len() == bytes.capacity() {
        let done = usize::try_from(deflate.total_in()).map_err(io::Error::other)?;
        bytes.reserve(64 << 10);
        deflate.compress_vec(&plain[done..], &mut bytes, FlushCompress::Sync).map_err(io::Error::other)?;
    }
    let mut crc = Crc::new();
    crc.update(plain);
    Ok(StreamPart { bytes: Arc::new(bytes), crc: Some(Arc::new(crc)), unpadded: 0, length: piece.length })
}

/// One block out of an xz stream that has no other: what is around it is the stream's header, index and footer.
fn xz_block(piece: &Piece) -> io::Result<StreamPart> {
    const HEADER: usize = 12;
    let mut options = XzOptions::with_preset(XZ_PRESET);
    options.lzma_options.dict_size = u32::try_from(PIECE_BYTES).map_err(io::Error::other)?;
    options.set_check_sum_type(CheckType::Crc64);
    options.set_block_size(NonZeroU64::new(PIECE_BYTES as u64));
    let mut writer = XzWriter::new(Vec::new(), options)?;
    io::Write::write_all(&mut writer, piece_content(piece))?;
    let mut whole = writer.finish()?;
    // xz-file-format 2.1.2: the footer says how long the index is, in words of four bytes, less one.
    let footer = whole.len().checked_sub(HEADER).and_then(|start| whole[start..].get(4..8));
    let words = footer.and_then(|words| words.try_into().ok()).map_or(0, u32::from_le_bytes);
    let index = (words as usize + 1) * 4;
    let end = whole.len() - HEADER - index;
    // 4.3: indicator, number of records (one), then the unpadded size.
    let (unpadded, _) = crate::xz::read_xz_number(&whole[end + 2..])
        .ok_or_else(|| io::Error::other("the xz encoder wrote an index without a record"))?;
    whole.truncate(end);
    whole.drain(..HEADER);
    whole.shrink_to_fit();
    Ok(StreamPart { bytes: Arc::new(whole), crc: None, unpadded, length: piece.length })
}
