//! A slot, open past the page cache for long runs of blocks.
//!
//! Knows alignment and large buffers. [`crate::block_device`] waits for the disk after every write, which suits
//! a sector of the slot table and would make an install take minutes. Refuses to know what the bytes mean.
//! Invariant: what is read comes from the disk, not from the memory of what was just written.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use image_format::bytes::Bytes;
use image_format::verity::ReadAt;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;

/// Bytes moved at a time. Larger ones are not faster on a virtual disk, and memory has to stay small.
const CHUNK: usize = 1 << 20;
/// What `O_DIRECT` asks of buffers, on every disk of 512 or 4096 bytes a sector.
const ALIGNMENT: usize = 4096;

/// A slot, or an image of one.
#[derive(Debug)]
pub(crate) struct SlotDevice {
    file: File,
    path: PathBuf,
}

/// What a slot is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be copied from; the kernel may be using it.
    Read,
    /// To be overwritten; nobody else may be using it.
    Replace,
}

impl SlotDevice {
    /// Opens a slot. One to be replaced is claimed: `O_EXCL` on a block device fails while it is mounted or
    /// under a device-mapper device (open(2)), so the kernel itself refuses the running slot. It is never
    /// created: a missing node must not become a file in /dev.
    pub(crate) fn open_slot(path: &Path, purpose: Purpose) -> io::Result<Self> {
        let is_block_device = std::fs::metadata(path)?.file_type().is_block_device();
        let direct = if is_block_device { libc::O_DIRECT } else { 0 };
        let claim = if is_block_device && purpose == Purpose::Replace { libc::O_EXCL } else { 0 };
        let flags = libc::O_CLOEXEC | direct | claim;
        let file = OpenOptions::new()
            .read(true)
            .write(purpose == Purpose::Replace)
            .custom_flags(flags)
            .open(path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Where it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How large it is.
    pub(crate) fn byte_size(&self) -> io::Result<Bytes> {
        (&self.file).seek(SeekFrom::End(0)).map(Bytes::new)
    }

    /// Writes whole sectors. They are on the disk for good only after [`Self::sync_device`].
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut memory = AlignedMemory::new(bytes.len().min(CHUNK));
        for (index, chunk) in bytes.chunks(CHUNK).enumerate() {
            let buffer = memory.first_bytes(chunk.len());
            buffer.copy_from_slice(chunk);
            self.file.write_all_at(buffer, offset + (index * CHUNK) as u64)?;
        }
        Ok(())
    }

    /// Returns when everything that was written is stored for good.
    pub(crate) fn sync_device(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Forgets what memory holds of it, so that the next read asks the disk. `O_DIRECT` leaves nothing there;
    /// another program that looked at the slot may have, and an image in a file always has.
    pub(crate) fn drop_caches(&self) -> io::Result<()> {
        let dropped = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        dropped.map_err(io::Error::from)
    }
}

impl ReadAt for SlotDevice {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut memory = AlignedMemory::new(bytes.len().min(CHUNK));
        for (index, chunk) in bytes.chunks_mut(CHUNK).enumerate() {
            let buffer = memory.first_bytes(chunk.len());
            FileExt::read_exact_at(&self.file, buffer, offset + (index * CHUNK) as u64)?;
            chunk.copy_from_slice(buffer);
        }
        Ok(())
    }
}

/// Memory that begins at a multiple of [`ALIGNMENT`]: a little more than is needed, and the first such place.
struct AlignedMemory {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedMemory {
    fn new(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, start }
    }

    fn first_bytes(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_across_chunks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        let device = SlotDevice::open_slot(file.path(), Purpose::Replace).unwrap();
        let bytes: Vec<u8> = (0..2 * CHUNK + 4096).map(|at| u8::try_from(at % 251).unwrap()).collect();

        device.write(4096, &bytes).unwrap();
        device.sync_device().unwrap();
        device.drop_caches().unwrap();

        let mut read = vec![0; bytes.len()];
        device.read_exact_at(&mut read, 4096).unwrap();
        assert!(read == bytes);
        assert_eq!(device.byte_size().unwrap(), Bytes::from_mib(4));
    }

    #[test]
    fn a_slot_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vda5");

        let error = SlotDevice::open_slot(&path, Purpose::Replace).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!path.exists());
    }
}
