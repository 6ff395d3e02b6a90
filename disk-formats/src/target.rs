//! Where an encoder writes: a file, or memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes that can be written anywhere. What was never written reads as zero.
pub trait Target: Send {
    /// Writes all of them there.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes it so long, whatever was written.
    fn set_length(&mut self, length: u64) -> io::Result<()>;
}

impl Target for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// For tests.
impl Target for std::sync::Arc<std::sync::Mutex<Vec<u8>>> {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut whole = self.lock().map_err(|_| io::ErrorKind::Other)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        if whole.len() < end {
            whole.resize(end, 0);
        }
        whole[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.lock().map_err(|_| io::ErrorKind::Other)?.resize(length, 0);
        Ok(())
    }
}

/// A target that is written from its beginning to its end, and may be mended before.
#[derive(Debug)]
pub(crate) struct Appender<T> {
    pub(crate) target: T,
    /// How long it is by now.
    pub(crate) end: u64,
}

impl<T: Target> Appender<T> {
    pub(crate) const fn new(target: T) -> Self {
        Self { target, end: 0 }
    }

    pub(crate) fn append_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.target.write_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Goes on at the next multiple of `unit`.
    pub(crate) const fn align_position(&mut self, unit: u64) {
        self.end = self.end.next_multiple_of(unit);
    }
}
