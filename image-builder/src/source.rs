//! A disk out of whatever file holds it: an image in any format, compressed, or in the archive of a cloud.
//!
//! Knows which file of an archive is the disk. Refuses to know the formats: `disk-formats` does.
//! What cannot be read in the middle is unpacked into a file without a name first, which goes away with its owner.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use disk_formats::disk::{FilePart, MAX_DISK_BYTES, OpenDiskError, ReadDisk, is_zero};
use disk_formats::format::Format;
use disk_formats::open::{Opened, open_disk};
use disk_formats::stream::Compression;
use disk_install::stream::read_full;

/// How a file holds its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// In an archive: OVA, a box, Google's tar.gz.
    Archive,
    /// As such.
    Disk(Format),
}

/// A disk, ready to be read.
#[derive(Debug)]
pub(crate) struct SourceDisk {
    pub(crate) kind: SourceKind,
    pub(crate) disk: Box<dyn ReadDisk>,
}

/// Names in archives that may be the disk.
const DISK_SUFFIXES: [&str; 5] = [".vmdk", ".raw", ".img", ".qcow2", ".vhdx"];
/// Where a tar archive has its mark.
const TAR_MAGIC_AT: usize = 257;

/// Opens an image of any kind.
pub(crate) fn open_source(path: &Path) -> Result<SourceDisk, SourceError> {
    let failed = |source| SourceError::Open { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    if has_tar_magic(&file) {
        return open_tar(path, &file).map_err(failed);
    }
    match open_disk(file).map_err(failed)? {
        Opened::Disk(format, disk) => Ok(SourceDisk { kind: SourceKind::Disk(format), disk }),
        Opened::Stream(compression) => open_stream(path, compression).map_err(failed),
    }
}

fn has_tar_magic(file: &File) -> bool {
    let mut magic = [0; 5];
    file.read_exact_at(&mut magic, TAR_MAGIC_AT as u64).is_ok() && magic == *b"ustar"
}

/// A disk as it lies in an archive that is not compressed.
fn open_tar(path: &Path, file: &File) -> Result<SourceDisk, OpenDiskError> {
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if !is_disk(&entry) {
            continue;
        }
        let start = entry.raw_file_position();
        let part = FilePart::new(file.try_clone()?, start..start + entry.size());
        return match open_disk(part)? {
            Opened::Disk(_, disk) => Ok(SourceDisk { kind: SourceKind::Archive, disk }),
            Opened::Stream(compression) => {
                let mut stream = file;
                stream.seek(SeekFrom::Start(start))?;
                let unpacked = unpack_stream(compression.open_decoder(stream.take(entry.size()))?, path)?;
                reopen_unpacked(unpacked, SourceKind::Archive)
            }
        };
    }
    Err(no_disk())
}

fn open_stream(path: &Path, compression: Compression) -> Result<SourceDisk, OpenDiskError> {
    let mut stream = compression.open_decoder(File::open(path)?)?;
    let mut head = Vec::new();
    stream.by_ref().take(512).read_to_end(&mut head)?;
    let is_tar = head.get(TAR_MAGIC_AT..TAR_MAGIC_AT + 5) == Some(b"ustar");
    let whole = io::Cursor::new(head).chain(stream);
    if !is_tar {
        let format = match compression {
            Compression::Gzip => Format::RawGz,
            Compression::Xz => Format::RawXz,
            Compression::Zstd => Format::RawZst,
        };
        return reopen_unpacked(unpack_stream(whole, path)?, SourceKind::Disk(format));
    }
    let mut archive = tar::Archive::new(whole);
    for entry in archive.entries()? {
        let entry = entry?;
        if is_disk(&entry) {
            return reopen_unpacked(unpack_stream(entry, path)?, SourceKind::Archive);
        }
    }
    Err(no_disk())
}

fn is_disk(entry: &tar::Entry<'_, impl Read>) -> bool {
    let kind = entry.header().entry_type();
    let name = entry.path_bytes();
    let name = String::from_utf8_lossy(&name).to_lowercase();
    (kind.is_file() || kind.is_gnu_sparse()) && DISK_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn no_disk() -> OpenDiskError {
    io::Error::new(io::ErrorKind::InvalidData, "the archive has no file that could be a disk").into()
}

fn reopen_unpacked(unpacked: File, kind: SourceKind) -> Result<SourceDisk, OpenDiskError> {
    match open_disk(unpacked)? {
        Opened::Disk(_, disk) => Ok(SourceDisk { kind, disk }),
        Opened::Stream(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is compressed twice").into()),
    }
}

/// Writes a stream into a sparse file without a name, beside the image where there is room for images.
fn unpack_stream(mut from: impl Read, path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let file = match tempfile::tempfile_in(folder.unwrap_or_else(|| Path::new("."))) {
        Ok(file) => file,
        // The image may be where its reader cannot write.
        Err(_) => tempfile::tempfile()?,
    };
    let length = copy_sparse(&mut from, &file, MAX_DISK_BYTES)?;
    file.set_len(length)?;
    Ok(file)
}

/// Copies a stream, leaving out what is zero; gives its length. An error says how far it came.
pub(crate) fn copy_sparse(from: &mut impl Read, to: &File, most: u64) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let read = read_full(from, &mut buffer).map_err(|error| {
            io::Error::new(error.kind(), format!("{error}, {at} bytes into the unpacked disk"))
        })?;
        if read == 0 {
            return Ok(at);
        }
        if at + read as u64 > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it unpacks to more than any disk has"));
        }
        for (index, block) in buffer[..read].chunks(4096).enumerate() {
            if !is_zero(block) {
                to.write_all_at(block, at + (index * 4096) as u64)?;
            }
        }
        at += read as u64;
    }
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("cannot read the image {path}")]
    Open { path: PathBuf, source: OpenDiskError },
}
