//! Raw disks, compressed as a stream: zstd (RFC 8878), gzip (RFC 1952), xz (xz-file-format 1.2).
//!
//! Each is made of parts that were compressed alone, and is one ordinary stream: zstd frames and xz blocks may follow
//! each other, and deflate blocks that end at a byte, too. Readers need not know.
//! Invariant: no time, no name and no level of the machine is in the headers.

use std::io::{self, Read};
use std::sync::Arc;

use flate2::Crc;

use crate::content::Content;
use crate::encode::Encoder;
use crate::packing::{Packed, Packing, StreamPart};
use crate::piece::Piece;
use crate::target::{Appender, Target};
use crate::xz::write_xz_number;

/// A compression of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip, which every cloud takes.
    Gzip,
    /// xz, the smallest and the slowest.
    Xz,
    /// zstd, the fastest.
    Zstd,
}

impl Compression {
    /// The compression of a file that begins so.
    #[must_use]
    pub fn detect_compression(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Decompresses, with memory that a hostile stream cannot raise.
    pub fn open_decoder<'a>(self, from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        /// `xz -9` needs 65 MiB.
        const MAX_XZ_KIB: u32 = 96 << 10;
        /// 64 MiB; `zstd --long` without a number, and all levels, need less than twice that.
        const MAX_ZSTD_WINDOW_LOG: u32 = 26;
        Ok(match self {
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(from)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(from, true, MAX_XZ_KIB)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(from)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

/// Writes a compressed raw disk.
#[derive(Debug)]
pub struct StreamEncoder<T> {
    out: Appender<T>,
    state: State,
}

#[derive(Debug)]
enum State {
    Gzip(Crc),
    Xz(Vec<(u64, u64)>),
    Zstd,
}

impl<T: Target> StreamEncoder<T> {
    /// Writes into an empty target.
    pub fn new(target: T, compression: Compression) -> io::Result<Self> {
        let mut out = Appender::new(target);
        let state = match compression {
            Compression::Gzip => {
                out.append_bytes(&GZIP_HEADER)?;
                State::Gzip(Crc::new())
            }
            Compression::Xz => {
                out.append_bytes(&xz_header())?;
                State::Xz(Vec::new())
            }
            Compression::Zstd => State::Zstd,
        };
        Ok(Self { out, state })
    }
}

/// Deflate, no flags, no time, no level, of Unix.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
/// A last block of deflate that is empty: `BFINAL`, fixed codes, end of block (RFC 1951, 3.2.6).
const LAST_BLOCK: [u8; 2] = [3, 0];

impl<T: Target> Encoder for StreamEncoder<T> {
    fn wanted_packing(&self) -> Packing {
        match self.state {
            State::Gzip(_) => Packing::GzipBlocks,
            State::Xz(_) => Packing::XzBlock,
            State::Zstd => Packing::ZstdFrame,
        }
    }

    fn add(&mut self, _: &Piece, packed: &Packed) -> io::Result<()> {
        let Packed::Stream(part) = packed else { return Err(io::ErrorKind::InvalidInput.into()) };
        self.out.append_bytes(&part.bytes)?;
        match (&mut self.state, &part.crc) {
            (State::Gzip(crc), Some(more)) => crc.combine(more),
            (State::Xz(records), _) => records.push((part.unpadded, part.length as u64)),
            _ => {}
        }
        Ok(())
    }

    fn finish_artefact(mut self: Box<Self>, content: &Content) -> io::Result<()> {
        match &self.state {
            State::Gzip(crc) => {
                let end = gzip_end(crc.sum(), content.size);
                self.out.append_bytes(&end)
            }
            State::Xz(records) => {
                let end = xz_end(records);
                self.out.append_bytes(&end)
            }
            State::Zstd => Ok(()),
        }
    }
}

fn gzip_end(crc: u32, size: u64) -> Vec<u8> {
    let mut end = LAST_BLOCK.to_vec();
    end.extend(crc.to_le_bytes());
    // RFC 1952: the size modulo 2^32.
    end.extend(&size.to_le_bytes()[..4]);
    end
}

/// Compresses any stream by gzip with what a disk's pieces are compressed with: for archives.
pub struct GzipWriter<T> {
    out: Appender<T>,
    waiting: Vec<u8>,
    crc: Crc,
    size: u64,
}

impl<T: Target> GzipWriter<T> {
    /// Writes into an empty target.
    pub fn new(target: T) -> io::Result<Self> {
        let mut out = Appender::new(target);
        out.append_bytes(&GZIP_HEADER)?;
        Ok(Self { out, waiting: Vec::new(), crc: Crc::new(), size: 0 })
    }

    fn pack_block(&mut self) -> io::Result<()> {
        let length = self.waiting.len();
        let mut bytes = std::mem::take(&mut self.waiting);
        bytes.resize(crate::piece::PIECE_BYTES, 0);
        let piece = Piece { offset: 0, length, data: Some(Arc::new(bytes)) };
        let packed = crate::packing::Toolbox::default().pack_piece(Packing::GzipBlocks, &piece, &[])?;
        if let Packed::Stream(part) = packed {
            self.append_part(&part)?;
        }
        Ok(())
    }

    /// Appends what was packed elsewhere.
    pub fn append_part(&mut self, part: &StreamPart) -> io::Result<()> {
        self.out.append_bytes(&part.bytes)?;
        self.size += part.length as u64;
        if let Some(crc) = &part.crc {
            self.crc.combine(crc);
        }
        Ok(())
    }

    /// Writes the end.
    pub fn finish_stream(mut self) -> io::Result<()> {
        self.pack_block()?;
        let end = gzip_end(self.crc.sum(), self.size);
        self.out.append_bytes(&end)
    }
}

impl<T> std::fmt::Debug for GzipWriter<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GzipWriter").field("size", &self.size).finish_non_exhaustive()
    }
}

impl<T: Target> io::Write for GzipWriter<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = crate::piece::PIECE_BYTES - self.waiting.len();
        let (now, _) = bytes.split_at(bytes.len().min(room));
        self.waiting.extend(now);
        if self.waiting.len() == crate::piece::PIECE_BYTES {
            self.pack_block()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// CRC-32 of ISO-HDLC, which zlib, xz and gzip call CRC-32.
const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
/// Stream flags: the check is CRC64 (xz-file-format 2.1.1.2).
const XZ_FLAGS: [u8; 2] = [0, 4];

fn xz_header() -> Vec<u8> {
    let mut header = vec![0xfd, b'7', b'z', b'X', b'Z', 0];
    header.extend(XZ_FLAGS);
    header.extend(CRC32.checksum(&XZ_FLAGS).to_le_bytes());
    header
}

fn xz_end(records: &[(u64, u64)]) -> Vec<u8> {
    let mut index = vec![0];
    write_xz_number(&mut index, records.len() as u64);
    for (unpadded, length) in records {
        write_xz_number(&mut index, *unpadded);
        write_xz_number(&mut index, *length);
    }
    index.resize(index.len().next_multiple_of(4), 0);
    index.extend(CRC32.checksum(&index).to_le_bytes());
    let words = u32::try_from(index.len() / 4 - 1).unwrap_or(u32::MAX);
    let mut footer = words.to_le_bytes().to_vec();
    footer.extend(XZ_FLAGS);
    index.extend(CRC32.checksum(&footer).to_le_bytes());
    index.extend(footer);
    index.extend(*b"YZ");
    index
}
