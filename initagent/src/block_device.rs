//! Reads and writes a disk or an image of one past the page cache, sector by sector.
//!
//! Knows alignment and that a regular file may refuse to be read directly. Refuses to know what the
//! bytes mean. Invariant: when a write returns, the device has said that the bytes are stored.
//!
//! Documentation: open(2), "`O_DIRECT`", and ext4's and tmpfs' refusals there.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use image_format::bytes::Bytes;
use image_format::verity::ReadAt;
use nix::libc;

/// Bytes moved at a time, and the alignment of the buffer that holds them.
// open(2): with `O_DIRECT` memory, place and length must be multiples of the logical block, and a page is one
// on all disks.
const CHUNK: usize = 4096;

#[repr(C, align(4096))]
struct AlignedBuffer([u8; CHUNK]);

/// What a device is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessMode {
    /// To be looked at.
    Read,
    /// To be changed.
    Write,
}

/// A disk, a partition, or an image of one.
#[derive(Debug)]
pub(crate) struct BlockDevice {
    file: File,
    path: PathBuf,
}

impl BlockDevice {
    /// Opens it past the page cache; an image in a regular file through it, but synchronously.
    pub(crate) fn open_device(path: &Path, access: AccessMode) -> io::Result<Self> {
        // The page cache could hold what the boot loader wrote past it, or give back what the disk never
        // stored.
        let direct = std::fs::metadata(path)?.file_type().is_block_device();
        // open(2): each write returns only when the device has said that it is stored.
        let flags = libc::O_DSYNC | libc::O_CLOEXEC | if direct { libc::O_DIRECT } else { 0 };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(access == AccessMode::Write).custom_flags(flags).open(path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Where it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for calls that take one.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// How large it is.
    pub(crate) fn byte_size(&self) -> io::Result<Bytes> {
        // stat(2) gives no size for a device.
        (&self.file).seek(SeekFrom::End(0)).map(Bytes::new)
    }

    /// Reads whole sectors.
    pub(crate) fn read(&self, offset: Bytes, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, offset.get())?;
        Ok(bytes)
    }

    /// Writes whole sectors.
    pub(crate) fn write(&self, offset: Bytes, bytes: &[u8]) -> io::Result<()> {
        let mut aligned = Box::new(AlignedBuffer([0; CHUNK]));
        for (index, chunk) in bytes.chunks(CHUNK).enumerate() {
            let buffer = &mut aligned.0[..chunk.len()];
            buffer.copy_from_slice(chunk);
            self.file.write_all_at(buffer, offset.get() + (index * CHUNK) as u64)?;
        }
        Ok(())
    }

    /// Returns when everything written before is stored for good.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl ReadAt for BlockDevice {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut aligned = Box::new(AlignedBuffer([0; CHUNK]));
        for (index, chunk) in bytes.chunks_mut(CHUNK).enumerate() {
            let buffer = &mut aligned.0[..chunk.len()];
            FileExt::read_exact_at(&self.file, buffer, offset + (index * CHUNK) as u64)?;
            chunk.copy_from_slice(buffer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_across_chunks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let device = BlockDevice::open_device(file.path(), AccessMode::Write).unwrap();
        let bytes: Vec<u8> = (0..3 * CHUNK + 512).map(|n| u8::try_from(n % 251).unwrap()).collect();

        device.write(Bytes::new(1536), &bytes).unwrap();

        assert_eq!(device.read(Bytes::new(1536), bytes.len()).unwrap(), bytes);
        assert_eq!(device.byte_size().unwrap(), Bytes::MIB);
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let device = BlockDevice::open_device(file.path(), AccessMode::Read).unwrap();

        assert!(device.read(Bytes::new(0), 512).is_err());
    }
}
