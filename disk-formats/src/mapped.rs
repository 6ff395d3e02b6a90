//! A disk whose file holds it in units, which a table places: what qcow2, VHD, VHDX and VMDK have in common.
//!
//! Knows caching and decompression; each format only says where a unit is. Tables are read page by page when they are
//! asked for, so a file that claims a huge table takes no memory for it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read as _};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::{ReadAt, ReadDisk};

/// Where a unit's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In so many bytes from there, compressed.
    Packed { offset: u64, length: u64, method: Method },
    /// From there.
    Stored(u64),
    /// Nowhere: they are zero.
    Zeros,
}

/// How a unit is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Deflate,
    Zlib,
    Zstd,
}

/// A format's table.
pub(crate) trait UnitMap: Send + Sync + fmt::Debug {
    /// How large the disk is.
    fn disk_size(&self) -> u64;

    /// Bytes of a unit.
    fn unit_bytes(&self) -> u64;

    /// Where the unit with that number is. It is asked only for units of the disk.
    fn locate_unit(&self, file: &dyn ReadAt, number: u64) -> io::Result<Place>;

    /// The next unit that may be other than zero, if the table says it of many at once.
    fn skip_zeros(&self, _file: &dyn ReadAt, number: u64) -> io::Result<u64> {
        Ok(number)
    }
}

/// How many unpacked units are kept: two readers, each with some that a file system goes back to.
const KEPT_UNITS: usize = 8;

/// A disk that a table places.
pub(crate) struct MappedDisk<R, M> {
    file: R,
    map: M,
    /// The newest first.
    kept: Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>,
}

impl<R, M: fmt::Debug> fmt::Debug for MappedDisk<R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedDisk").field("map", &self.map).finish_non_exhaustive()
    }
}

impl<R: ReadAt, M: UnitMap> MappedDisk<R, M> {
    pub(crate) const fn new(file: R, map: M) -> Self {
        Self { file, map, kept: Mutex::new(VecDeque::new()) }
    }

    fn read_packed(&self, number: u64, offset: u64, length: u64, method: Method) -> io::Result<Arc<Vec<u8>>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = lock().iter().find(|(kept, _)| *kept == number) {
            return Ok(Arc::clone(bytes));
        }
        let unit = usize::try_from(self.map.unit_bytes()).map_err(io::Error::other)?;
        // No compressor makes more of a unit than this; a table that says so is wrong.
        let most = self.map.unit_bytes() + self.map.unit_bytes() / 8 + 1024;
        if length > most {
            return Err(damage_error(offset, "a compressed unit is longer than it can be"));
        }
        // A qcow2 counts in sectors, of which the file's last may be cut.
        let length = length.min(self.file.byte_length()?.saturating_sub(offset));
        let mut packed = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut packed, offset)?;
        let mut bytes = Vec::with_capacity(unit);
        let limit = unit as u64;
        match method {
            Method::Deflate => {
                flate2::read::DeflateDecoder::new(&packed[..]).take(limit).read_to_end(&mut bytes)
            }
            Method::Zlib => flate2::read::ZlibDecoder::new(&packed[..]).take(limit).read_to_end(&mut bytes),
            Method::Zstd => zstd::stream::read::Decoder::new(&packed[..])?
                .single_frame()
                .take(limit)
                .read_to_end(&mut bytes),
        }
        .map_err(|_| damage_error(offset, "a compressed unit cannot be unpacked"))?;
        if bytes.is_empty() {
            return Err(damage_error(offset, "a compressed unit is empty"));
        }
        // The last one of a disk may be shorter.
        bytes.resize(unit, 0);
        let bytes = Arc::new(bytes);
        let mut kept = lock();
        kept.push_front((number, Arc::clone(&bytes)));
        kept.truncate(KEPT_UNITS);
        Ok(bytes)
    }
}

impl<R: ReadAt, M: UnitMap> ReadDisk for MappedDisk<R, M> {
    fn disk_size(&self) -> u64 {
        self.map.disk_size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.disk_size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let unit = self.map.unit_bytes();
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let (number, within) = (at / unit, at % unit);
            let length = usize::try_from(unit - within).map_or(rest.len(), |room| room.min(rest.len()));
            let (now, later) = rest.split_at_mut(length);
            match self.map.locate_unit(&self.file, number)? {
                Place::Packed { offset, length, method } => {
                    let start = usize::try_from(within).map_err(io::Error::other)?;
                    let bytes = self.read_packed(number, offset, length, method)?;
                    now.copy_from_slice(&bytes[start..start + now.len()]);
                }
                Place::Stored(offset) => self.file.read_exact_at(now, offset + within).map_err(|error| {
                    if error.kind() == io::ErrorKind::UnexpectedEof {
                        damage_error(offset, "the file ends before a unit that its table names")
                    } else {
                        error
                    }
                })?,
                Place::Zeros => now.fill(0),
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        /// A table of zeros may be longer than anyone wants to wait; what is called data there is read as zeros.
        const MAX_STEPS: u32 = 1 << 20;
        let (unit, size) = (self.map.unit_bytes(), self.disk_size());
        if offset >= size {
            return Ok(None);
        }
        let mut number = offset / unit;
        for _ in 0..MAX_STEPS {
            number = self.map.skip_zeros(&self.file, number)?;
            let start = number.saturating_mul(unit);
            if start >= size {
                return Ok(None);
            }
            if self.map.locate_unit(&self.file, number)? != Place::Zeros {
                return Ok(Some(start.max(offset)..start.saturating_add(unit).min(size)));
            }
            number += 1;
        }
        let start = number.saturating_mul(unit);
        Ok((start < size).then(|| start..start.saturating_add(unit).min(size)))
    }
}

/// A table of numbers in the file, read page by page.
pub(crate) struct Table {
    at: u64,
    entries: u64,
    kept: Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("at", &self.at).field("entries", &self.entries).finish_non_exhaustive()
    }
}

const PAGE: u64 = 4096;
/// 256 KiB: the tables of 8 GiB of a qcow2, and a bound for any.
const KEPT_PAGES: usize = 64;

impl Table {
    pub(crate) const fn new(at: u64, entries: u64) -> Self {
        Self { at, entries, kept: Mutex::new(VecDeque::new()) }
    }

    /// The bytes of an entry.
    pub(crate) fn read_entry<const N: usize>(&self, file: &dyn ReadAt, index: u64) -> io::Result<[u8; N]> {
        if index >= self.entries {
            return Err(damage_error(self.at, "a table is shorter than the disk"));
        }
        let width = N as u64;
        let at = index.checked_mul(width).and_then(|from| from.checked_add(self.at));
        self.bytes_at(
            file,
            at.ok_or_else(|| damage_error(self.at, "a table lies behind the end of any file"))?,
        )
    }

    /// The bytes at that place of the file, which must not cross a page.
    pub(crate) fn bytes_at<const N: usize>(&self, file: &dyn ReadAt, at: u64) -> io::Result<[u8; N]> {
        let page = self.read_page(file, at / PAGE * PAGE)?;
        let start = usize::try_from(at % PAGE).map_err(io::Error::other)?;
        let found = page.get(start..start + N).and_then(|bytes| bytes.try_into().ok());
        found.ok_or_else(|| damage_error(at, "the file ends inside of a table"))
    }

    fn read_page(&self, file: &dyn ReadAt, at: u64) -> io::Result<Arc<Vec<u8>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = kept.iter().position(|(page, _)| *page == at) {
            if index > 0 {
                kept.swap(0, index);
            }
            return Ok(Arc::clone(&kept[0].1));
        }
        let length = PAGE.min(file.byte_length()?.saturating_sub(at));
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, at)?;
        let bytes = Arc::new(bytes);
        kept.push_front((at, Arc::clone(&bytes)));
        kept.truncate(KEPT_PAGES);
        Ok(bytes)
    }
}

/// What is wrong with a file, and where.
pub(crate) fn damage_error(at: u64, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged at byte {at}: {what}"))
}

/// The big-endian numbers of a header that is long enough for them.
pub(crate) fn read_be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_be_bytes)
}

pub(crate) fn read_be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_be_bytes)
}

pub(crate) fn read_le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|field| field.try_into().ok()).map_or(0, u16::from_le_bytes)
}

pub(crate) fn read_le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(crate) fn read_le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}
