//! Puts first-boot data into the ESP of an image: NoCloud files that any computer can also drop there.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use disk_formats::disk::ReadDisk;
use disk_formats::format::Format;
use disk_formats::raw::RawDisk;
use disk_install::esp::{FatFile, MAX_SEED_BYTES, SEED, plan_files};
use image_format::bytes::Bytes;
use image_format::gpt::PartitionTable;
use image_format::layout::{Partition, PartitionRole};

use crate::cli;
use crate::convert::{self, ConvertError};
use crate::disk::DiskImage;
use crate::inspect::table::{self, ReadTableError};
use crate::source::{SourceError, SourceKind, open_source};

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
fn add_files(disk: &DiskImage, table: &PartitionTable, files: &[FatFile]) -> Result<(), SeedError> {
    let image = disk.path();
    let failed = |source| SeedError::Image { image: image.to_owned(), source };
    let esp = table
        .find_label(Partition::of_role(PartitionRole::Esp).label)
        .ok_or_else(|| SeedError::NoEsp { image: image.to_owned() })?;
    let start = esp.byte_offset().get();
    let read = |buffer: &mut [u8], offset: u64| disk.read_into(Bytes::new(start + offset), buffer);
    // Planned first, so that a full ESP is noticed before the image is touched.
    let changed = plan_files(&read, esp.byte_size().get(), files).map_err(failed)?;
    for (offset, block) in changed.iter().rev() {
        disk.write(Bytes::new(start + offset), block).map_err(failed)?;
    }
    disk.sync_image().map_err(failed)
}

/// What is seeded may have passwords and keys in it, so from now on the image is its owner's alone. A disk's node
/// has its rights from the system.
fn keep_private(image: &Path) -> io::Result<()> {
    let found = fs::metadata(image)?;
    let mode = found.permissions().mode() & 0o700;
    if found.is_file() { fs::set_permissions(image, Permissions::from_mode(mode)) } else { Ok(()) }
}

/// A file that machines will read.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, SeedError> {
    let failed = |source| SeedError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_SEED_BYTES {
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
    #[error("{path} has {size} bytes; machines read at most {MAX_SEED_BYTES}")]
    TooLarge { path: PathBuf, size: u64 },
}
