//! The disk image while it is written: a sparse file with regions.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk_formats::disk::ReadDisk;
use image_format::bytes::Bytes;
use image_format::verity::ReadAt;

use crate::source::{self, SourceError};

/// Zeros in runs of this many bytes stay holes.
// Smaller ones would cost more calls than room. File systems on the disk have blocks of 4 KiB.
const HOLE: usize = 64 << 10;

/// A disk image.
#[derive(Debug)]
pub(crate) struct DiskImage {
    path: PathBuf,
    content: DiskContent,
}

/// Where a disk's bytes are.
#[derive(Debug)]
enum DiskContent {
    /// In another format, or compressed: to be read only.
    Encoded(Arc<dyn ReadDisk>),
    /// As they are.
    File(File),
}

impl DiskImage {
    /// A new, empty disk of that size, all hole.
    pub(crate) fn create_image(path: &Path, size: Bytes) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(size.get())?;
        Ok(Self { path: path.to_owned(), content: DiskContent::File(file) })
    }

    /// An existing image, to change it.
    pub(crate) fn open_image(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { path: path.to_owned(), content: DiskContent::File(file) })
    }

    /// An existing image of any format, to look at it.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, SourceError> {
        let content = DiskContent::Encoded(Arc::from(source::open_source(path)?.disk));
        Ok(Self { path: path.to_owned(), content })
    }

    /// A disk that was opened elsewhere, to look at it.
    pub(crate) fn of_disk(path: &Path, disk: impl Into<Arc<dyn ReadDisk>>) -> Self {
        Self { path: path.to_owned(), content: DiskContent::Encoded(disk.into()) }
    }

    /// The same disk for another reader.
    pub(crate) fn reopen_image(&self) -> io::Result<Self> {
        let content = match &self.content {
            DiskContent::Encoded(disk) => DiskContent::Encoded(Arc::clone(disk)),
            DiskContent::File(file) => DiskContent::File(file.try_clone()?),
        };
        Ok(Self { path: self.path.clone(), content })
    }

    pub(crate) fn byte_size(&self) -> io::Result<Bytes> {
        match &self.content {
            DiskContent::Encoded(disk) => Ok(Bytes::new(disk.disk_size())),
            // By its end, since a block device has no length in its metadata.
            DiskContent::File(file) => disk_formats::disk::ReadAt::byte_length(file).map(Bytes::new),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes bytes where they are not zero; where they are, the disk must be a hole already.
    pub(crate) fn write_sparse(&self, offset: Bytes, bytes: &[u8]) -> io::Result<()> {
        for (index, chunk) in bytes.chunks(HOLE).enumerate() {
            if chunk.iter().any(|byte| *byte != 0) {
                self.writable_file()?.write_all_at(chunk, offset.get() + (index * HOLE) as u64)?;
            }
        }
        Ok(())
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&self, offset: Bytes, bytes: &[u8]) -> io::Result<()> {
        // By place and not by cursor, so that many threads may use one file: pwrite(2).
        self.writable_file()?.write_all_at(bytes, offset.get())
    }

    pub(crate) fn read(&self, offset: Bytes, length: Bytes) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length.get()).map_err(io::Error::other)?];
        self.read_into(offset, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn read_into(&self, offset: Bytes, into: &mut [u8]) -> io::Result<()> {
        match &self.content {
            DiskContent::Encoded(disk) => disk.read_exact_at(into, offset.get()),
            DiskContent::File(file) => std::os::unix::fs::FileExt::read_exact_at(file, into, offset.get()),
        }
    }

    /// The file that can be written.
    fn writable_file(&self) -> io::Result<&File> {
        match &self.content {
            DiskContent::Encoded(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            DiskContent::File(file) => Ok(file),
        }
    }

    /// The stretch of the disk that begins at `offset`.
    pub(crate) fn region_at(&self, offset: Bytes) -> DiskRegion<'_> {
        DiskRegion { disk: self, offset }
    }

    pub(crate) fn sync_image(&self) -> io::Result<()> {
        self.writable_file()?.sync_all()
    }
}

impl ReadDisk for DiskImage {
    fn disk_size(&self) -> u64 {
        // A file whose size is unknown has nothing that could be read.
        Self::byte_size(self).map_or(0, Bytes::get)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_into(Bytes::new(offset), buffer)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<std::ops::Range<u64>>> {
        match &self.content {
            DiskContent::Encoded(disk) => disk.next_data(offset),
            DiskContent::File(file) => disk_formats::disk::ReadAt::next_data(file, offset),
        }
    }
}

/// A stretch of a disk, readable from many threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskRegion<'a> {
    disk: &'a DiskImage,
    offset: Bytes,
}

impl ReadAt for DiskRegion<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_into(Bytes::new(self.offset.get() + offset), buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn zeros_take_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let disk = DiskImage::create_image(&folder.path().join("disk"), Bytes::from_mib(8)).unwrap();
        let mut bytes = vec![0; 4 << 20];
        bytes[3 << 20] = 7;

        disk.write_sparse(Bytes::MIB, &bytes).unwrap();

        assert_eq!(disk.read(Bytes::from_mib(4), Bytes::new(1)).unwrap(), [7]);
        assert!(disk.writable_file().unwrap().metadata().unwrap().blocks() * 512 <= 1 << 20);
    }
}
