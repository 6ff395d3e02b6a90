//! A disk's content, readable anywhere and from many threads.
//!
//! Knows files with holes. Refuses to know formats: [`crate::open`] finds those.
//! Invariant: what lies between two runs of [`ReadDisk::next_data`] reads as zeros.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// No format here describes a larger disk: 64 TiB is what VHDX and VMDK can hold. The bound keeps every sum of offsets
/// far from overflowing.
pub const MAX_DISK_BYTES: u64 = 64 << 40;

/// Bytes of a sector, in which every format counts.
pub const SECTOR: u64 = 512;

/// Bytes that can be read anywhere: a file, a part of one, or memory.
pub trait ReadAt: Send + Sync {
    /// How many there are.
    fn byte_length(&self) -> io::Result<u64>;

    /// Reads exactly so many from there.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// The first run of bytes at or behind `offset` that may be other than zero.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let length = self.byte_length()?;
        Ok((offset < length).then_some(offset..length))
    }
}

impl ReadAt for File {
    fn byte_length(&self) -> io::Result<u64> {
        let found = self.metadata()?;
        if found.is_file() {
            return Ok(found.len());
        }
        // A block device has no length in its metadata. This moves the place from which others read on.
        let mut file = self;
        file.seek(SeekFrom::End(0))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    /// By lseek(2) with `SEEK_DATA`, which file systems without holes answer as if all were data.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let at = i64::try_from(offset).map_err(io::Error::other)?;
        let start = match lseek(self, at, Whence::SeekData) {
            Ok(start) => start,
            // Nothing but hole behind it.
            Err(Errno::ENXIO) => return Ok(None),
            // Block devices do not know it.
            Err(Errno::EINVAL) => {
                let length = self.byte_length()?;
                return Ok((offset < length).then_some(offset..length));
            }
            Err(error) => return Err(error.into()),
        };
        let end = lseek(self, start, Whence::SeekHole)?;
        Ok(Some(start.unsigned_abs()..end.unsigned_abs()))
    }
}

impl ReadAt for Vec<u8> {
    fn byte_length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = start.checked_add(buffer.len()).and_then(|end| self.get(start..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file inside a file, as an archive holds it.
#[derive(Debug)]
pub struct FilePart {
    file: File,
    range: Range<u64>,
}

impl FilePart {
    /// The bytes of that range.
    #[must_use]
    pub const fn new(file: File, range: Range<u64>) -> Self {
        Self { file, range }
    }
}

impl ReadAt for FilePart {
    fn byte_length(&self) -> io::Result<u64> {
        Ok(self.range.end.saturating_sub(self.range.start))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| self.range.end.saturating_sub(self.range.start) < end) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        ReadAt::read_exact_at(&self.file, buffer, self.range.start + offset)
    }
}

/// A disk's content.
pub trait ReadDisk: Send + Sync + fmt::Debug {
    /// How large the disk is, a multiple of [`SECTOR`].
    fn disk_size(&self) -> u64;

    /// Reads exactly so many bytes from there.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// The first run of bytes at or behind `offset` that may be other than zero; none if the rest is zero.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // The inner loop has no early exit, so the compiler makes it one of vectors: 20 GB/s instead of 2.
    let mut chunks = bytes.chunks_exact(256);
    chunks.by_ref().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}

/// Why a file is no disk that can be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum OpenDiskError {
    #[error("the {format} file is damaged at byte {at}: {what}")]
    Damaged { format: &'static str, at: u64, what: &'static str },
    #[error("cannot read it")]
    Read(#[from] io::Error),
    #[error(
        "it has {size} bytes, which is no number of sectors of 512 bytes: it is no raw disk, and no other that is known"
    )]
    Sectors { size: u64 },
    #[error("the {format} file has {what}, which is not read here")]
    Unsupported { format: &'static str, what: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_no_data() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&[1; 4096], 4 << 20).unwrap();

        let run = file.next_data(0).unwrap().unwrap();

        assert!(run.start > 0 && run.contains(&(4 << 20)) && run.end < 8 << 20, "{run:?}");
        assert_eq!(file.next_data(run.end).unwrap(), None);
    }

    #[test]
    fn a_single_bit_is_not_zero() {
        for at in [0, 255, 256, 999] {
            let mut bytes = vec![0; 1000];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
        assert!(is_zero(&[0; 1000]));
    }

    #[test]
    fn a_part_of_a_file_ends_where_it_ends() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        let part = FilePart::new(file, 2..6);
        let mut bytes = [0; 3];

        part.read_exact_at(&mut bytes, 1).unwrap();

        assert_eq!(&bytes, b"345");
        assert!(part.read_exact_at(&mut bytes, 2).is_err());
        assert!(part.read_exact_at(&mut bytes, u64::MAX).is_err());
    }
}
