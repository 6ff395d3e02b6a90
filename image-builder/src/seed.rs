//! Puts first-boot data into the ESP of an image: NoCloud files that any computer can also drop there.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use disk_formats::disk::ReadDisk;
use disk_formats::format::Format;
use disk_formats::raw::RawDisk;
use image_format::gpt::PartitionTable;
use image_format::layout::{Partition, PartitionRole};

use crate::boot::esp::SEED;
use crate::boot::fat::{self, FatFile};
use crate::cli;
use crate::convert::{self, ConvertError};
use crate::disk::DiskImage;
use crate::inspect::table::{self, ReadTableError};
use crate::source::{SourceError, SourceKind, open_source};

/// No cloud hands over more; the agent reads no more.
const MOST_BYTES: u64 = 1 << 20;

/// Writes the given files; gives the names of those it wrote.
pub(crate) fn write(arguments: &cli::SeedArguments) -> Result<Vec<&'static str>, SeedError> {
    let image = &arguments.image;
    let mut files = Vec::new();
    let mut names = Vec::new();
    for (name, source) in [
        ("user-data", &arguments.user_data),
        ("meta-data", &arguments.meta_data),
        ("network-config", &arguments.network_config),
    ] {
        let Some(source) = source else { continue };
        files.push(FatFile { path: format!("{SEED}/{name}"), bytes: read_file(source)? });
        names.push(name);
    }
    if files.is_empty() {
        return Err(SeedError::Nothing);
    }
    let source = open_source(image)?;
    match source.kind {
        SourceKind::Disk(Format::Raw) => write_raw(image, &files)?,
        SourceKind::Disk(format) => write_encoded(image, format, source.disk.as_ref(), &files)?,
        SourceKind::Archive => return Err(SeedError::Archive { image: image.clone() }),
    }
    Ok(names)
}

/// Seeds an image of another format: unpacks it, and writes it anew in the same format.
fn write_encoded(
    image: &Path,
    format: Format,
    disk: &dyn ReadDisk,
    files: &[FatFile],
) -> Result<(), SeedError> {
    let failed = |source| SeedError::Image { image: image.to_owned(), source };
    let beside = image.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = beside.unwrap_or_else(|| Path::new("."));
    let workspace = tempfile::Builder::new().prefix(".seeding-").tempdir_in(folder).map_err(failed)?;
    let raw = workspace.path().join("disk.raw");
    convert::write_disk(disk, Format::Raw, &raw)?;
    write_raw(&raw, files)?;
    // A VMDK says its own name.
    let again = workspace.path().join(image.file_name().unwrap_or_default());
    let seeded = RawDisk::new(File::open(&raw).map_err(failed)?).map_err(io::Error::other).map_err(failed)?;
    convert::write_disk(&seeded, format, &again)?;
    fs::set_permissions(&again, fs::metadata(image).map_err(failed)?.permissions()).map_err(failed)?;
    keep_private(&again).map_err(failed)?;
    fs::rename(&again, image).map_err(failed)
}

fn write_raw(image: &Path, files: &[FatFile]) -> Result<(), SeedError> {
    let failed = |source| SeedError::Image { image: image.to_owned(), source };
    let disk = DiskImage::open_image(image).map_err(failed)?;
    keep_private(image).map_err(failed)?;
    let table = table::read(&disk).map_err(|source| SeedError::Table { image: image.to_owned(), source })?;
    add_files(&disk, &table, files)
}

/// Adds files to the EFI partition of a disk with that table.
pub(crate) fn add_files(
    disk: &DiskImage,
    table: &PartitionTable,
    files: &[FatFile],
) -> Result<(), SeedError> {
    let image = disk.path();
    let failed = |source| SeedError::Image { image: image.to_owned(), source };
    let esp = table
        .find_label(Partition::of_role(PartitionRole::Esp).label)
        .ok_or_else(|| SeedError::NoEsp { image: image.to_owned() })?;
    let before = disk.read(esp.byte_offset(), esp.byte_size()).map_err(failed)?;
    // In memory, so that a full ESP is noticed before the image is touched.
    let after = fat::add(before.clone(), files).map_err(failed)?;
    write_changes(disk, esp.byte_offset().get(), &before, &after).map_err(failed)
}

/// What is seeded may have passwords and keys in it, so from now on the image is its owner's alone. A disk's node
/// has its rights from the system.
fn keep_private(image: &Path) -> io::Result<()> {
    let found = fs::metadata(image)?;
    let mode = found.permissions().mode() & 0o700;
    if found.is_file() { fs::set_permissions(image, Permissions::from_mode(mode)) } else { Ok(()) }
}

/// Writes only what differs, so that a sparse image stays sparse; the FAT after the files' data, which
/// nothing refers to until then.
fn write_changes(disk: &DiskImage, start: u64, before: &[u8], after: &[u8]) -> io::Result<()> {
    const PIECE: usize = 4096;
    for (index, (old, new)) in before.chunks(PIECE).zip(after.chunks(PIECE)).enumerate().rev() {
        if old != new {
            disk.write(image_format::bytes::Bytes::new(start + (index * PIECE) as u64), new)?;
        }
    }
    disk.sync_image()
}

/// A file that machines will read.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, SeedError> {
    let failed = |source| SeedError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MOST_BYTES {
        return Err(SeedError::TooLarge { path: path.to_owned(), size });
    }
    fs::read(path).map_err(failed)
}

/// Why an image could not be seeded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    #[error("{image} is an archive: seed the disk that it was made of, and convert that again")]
    Archive { image: PathBuf },
    #[error("cannot write the image in its format again")]
    Convert(#[from] ConvertError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot change the image {image}")]
    Image { image: PathBuf, source: io::Error },
    #[error("{image} has no EFI partition, so it is no image of ours")]
    NoEsp { image: PathBuf },
    #[error("nothing to seed: give --user-data, --meta-data or --network-config")]
    Nothing,
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot find the partitions of {image}")]
    Table { image: PathBuf, source: ReadTableError },
    #[error("{path} has {size} bytes; machines read at most {MOST_BYTES}")]
    TooLarge { path: PathBuf, size: u64 },
}
