//! A disk that can be written, as far as an installation needs it.
//!
//! A trait, so that tests can record each write and cut the power between any two. Refuses to know what is written.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::{FallocateFlags, OFlag, PosixFadviseAdvice, fallocate, posix_fadvise};

/// A disk while it is written.
pub trait InstallTarget: Send + Sync + fmt::Debug {
    /// Reads exactly so many bytes from there.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes these bytes to there.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes a stretch zero, if the disk can do that without writing.
    fn discard(&self, range: Range<u64>) -> bool;

    /// Returns when all that was written is stored. What is read then comes from the disk, not from memory.
    fn sync(&self) -> io::Result<()>;
}

/// A disk's node, or a file that stands for a disk.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
}

impl DiskFile {
    /// Opens it for this installation alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if std::fs::metadata(path)?.file_type().is_block_device() {
            // open(2): on a block device this fails while the system uses it, whatever was found before.
            options.custom_flags(OFlag::O_EXCL.bits());
        }
        Ok(Self { file: options.open(path)? })
    }
}

impl InstallTarget for DiskFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// By fallocate(2), which on a block device is a discard that guarantees zeros.
    fn discard(&self, range: Range<u64>) -> bool {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let length = range.end.saturating_sub(range.start);
        match (i64::try_from(range.start), i64::try_from(length)) {
            (Ok(start), Ok(length)) => length == 0 || fallocate(&self.file, flags, start, length).is_ok(),
            _ => false,
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        // What is synced may be dropped, so that the next read is the disk's own word (posix_fadvise(2)).
        Ok(posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    }
}
