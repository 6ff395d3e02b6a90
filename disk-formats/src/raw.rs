//! The disk as it is: a sparse file.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::content::Content;
use crate::disk::OpenDiskError;
use crate::disk::{ReadAt, ReadDisk, SECTOR};
use crate::encode::Encoder;
use crate::packing::{Packed, Packing};
use crate::piece::Piece;
use crate::target::Target;

/// Writes a raw disk: what is zero stays a hole.
#[derive(Debug)]
pub struct RawEncoder<T> {
    target: T,
}

impl<T: Target> RawEncoder<T> {
    /// Writes into an empty target.
    pub const fn new(target: T) -> Self {
        Self { target }
    }
}

impl<T: Target> Encoder for RawEncoder<T> {
    fn wanted_packing(&self) -> Packing {
        Packing::Plain
    }

    fn add(&mut self, piece: &Piece, _: &Packed) -> io::Result<()> {
        write_runs(&mut self.target, piece, piece.offset)
    }

    fn finish_artefact(mut self: Box<Self>, content: &Content) -> io::Result<()> {
        self.target.set_length(content.size)
    }
}

/// Writes what of a piece is not zero, as if it began at `offset` of the target.
pub(crate) fn write_runs(target: &mut dyn Target, piece: &Piece, offset: u64) -> io::Result<()> {
    let Some(data) = &piece.data else { return Ok(()) };
    for run in piece.block_runs(|_| false) {
        target.write_at(&data[run.clone()], offset + run.start as u64)?;
    }
    Ok(())
}

/// A raw disk, to read.
pub struct RawDisk<R> {
    file: R,
    size: u64,
}

impl<R> fmt::Debug for RawDisk<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawDisk").field("size", &self.size).finish_non_exhaustive()
    }
}

impl<R: ReadAt> RawDisk<R> {
    /// All of the file is the disk.
    pub fn new(file: R) -> Result<Self, OpenDiskError> {
        let size = file.byte_length().map_err(OpenDiskError::Read)?;
        Self::with_size(file, size)
    }

    /// The first bytes of the file are the disk.
    pub(crate) fn with_size(file: R, size: u64) -> Result<Self, OpenDiskError> {
        if !size.is_multiple_of(SECTOR) {
            return Err(OpenDiskError::Sectors { size });
        }
        Ok(Self { file, size })
    }
}

impl<R: ReadAt> ReadDisk for RawDisk<R> {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        // Behind a VHD's disk is its footer.
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let run = self.file.next_data(offset)?.filter(|run| run.start < self.size);
        Ok(run.map(|run| run.start..run.end.min(self.size)))
    }
}
