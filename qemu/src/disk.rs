//! Makes the disks machines run on, and edits them while nobody does.
//!
//! Two kinds: an overlay (qcow2, instant, for a person's machine) and a sparse copy (raw, for tests that edit
//! it by offset). Knows files, holes and qemu-img; refuses to know what is on the disk. Invariant: the base
//! image is opened for reading only.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::unistd::Whence;
use serde::{Deserialize, Serialize};

/// A disk a machine can start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineDisk {
    /// A qcow2 overlay, and the image it is over
    Overlay(PathBuf, ImageStamp),
    /// The disk's bytes
    Raw(PathBuf),
}

impl MachineDisk {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Overlay(path, _) | Self::Raw(path) => path,
        }
    }
}

/// What tells one state of an image from another, without reading it. An overlay holds only what differs from
/// its image, so it is worthless over any other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageStamp {
    image: PathBuf,
    size: u64,
    modified: i64,
    modified_nanoseconds: i64,
}

impl ImageStamp {
    /// The stamp of `image` as it is now.
    pub fn of_image(image: &Path) -> Result<Self, DiskError> {
        let open = |source| DiskError::OpenImage { path: image.into(), source };
        let image = image.canonicalize().map_err(open)?;
        let metadata = image.metadata().map_err(open)?;
        Ok(Self {
            image,
            size: metadata.size(),
            modified: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
        })
    }

    /// Fails if the image is another by now.
    pub fn check_unchanged(&self) -> Result<(), DiskError> {
        if Self::of_image(&self.image)? == *self {
            Ok(())
        } else {
            Err(DiskError::Changed(self.image.clone()))
        }
    }
}

/// How big a machine's disk is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSize {
    /// As its image
    Same,
    /// So many bytes more than its image
    More(u64),
    /// So many bytes, which must not be fewer than the image's
    Exactly(u64),
}

/// What a machine needs more than its image, which is as small as it can be: room for etcd and containers.
pub const ROOM: u64 = 4 << 30;

impl DiskSize {
    fn bytes_for(self, image: &Path, has: u64) -> Result<u64, DiskError> {
        match self {
            Self::Same => Ok(has),
            Self::More(more) => Ok(has.saturating_add(more)),
            Self::Exactly(asked) if asked < has => {
                Err(DiskError::TooSmall { image: image.into(), asked, has })
            }
            Self::Exactly(size) => Ok(size),
        }
    }
}

/// Why a disk could not be made or edited.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum DiskError {
    #[error("cannot open the image {path}")]
    OpenImage { path: PathBuf, source: io::Error },
    #[error("cannot create the disk {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot copy {from} to {to}")]
    Copy { from: PathBuf, to: PathBuf, source: io::Error },
    #[error("cannot run qemu-img; install it with: apt-get install qemu-utils")]
    NoQemuImg(#[source] io::Error),
    #[error("qemu-img cannot make an overlay of {image}: {message}")]
    QemuImg { image: PathBuf, message: String },
    #[error("a disk of {asked} bytes is smaller than the image {image}, which has {has}")]
    TooSmall { image: PathBuf, asked: u64, has: u64 },
    #[error(
        "the image {0} was changed, and this machine's disk only holds what differs from the image as it was"
    )]
    Changed(PathBuf),
    #[error("cannot edit {path} at byte {offset}")]
    Edit { path: PathBuf, offset: u64, source: io::Error },
}

/// What the file under an overlay is, by the words of `qemu-img --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackingFormat {
    /// QEMU's own
    Qcow2,
    /// The disk's bytes
    Raw,
    /// Hyper-V's first and Azure's, fixed or dynamic
    Vhd,
    /// Hyper-V's
    Vhdx,
    /// `VMware`'s
    Vmdk,
}

impl BackingFormat {
    const fn word(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            // "vhd" is unknown to QEMU, which names the format after Virtual PC.
            Self::Vhd => "vpc",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
        }
    }
}

/// Makes a copy-on-write overlay of the raw `image` at `overlay`, of that virtual size.
pub fn create_overlay(image: &Path, overlay: &Path, size: DiskSize) -> Result<MachineDisk, DiskError> {
    let has = open_image(image)?.1;
    overlay_of_format(image, BackingFormat::Raw, overlay, Some(size.bytes_for(image, has)?))
}

/// Makes an overlay of an image in that format, as large as the disk in it.
pub fn create_overlay_of(
    image: &Path,
    format: BackingFormat,
    overlay: &Path,
) -> Result<MachineDisk, DiskError> {
    overlay_of_format(image, format, overlay, None)
}

fn overlay_of_format(
    image: &Path,
    format: BackingFormat,
    overlay: &Path,
    size: Option<u64>,
) -> Result<MachineDisk, DiskError> {
    // A qcow2 file remembers the name of what it is over, relative to its own folder and not to ours.
    let image =
        &image.canonicalize().map_err(|source| DiskError::OpenImage { path: image.into(), source })?;
    let stamp = ImageStamp::of_image(image)?;
    let output = Command::new("qemu-img")
        // With the format said, since QEMU would guess it from the image's first bytes, which a guest can write: a
        // raw disk that looks like qcow2 could name any file of this host as its own backing.
        .args(["create", "-q", "-f", "qcow2", "-F", format.word(), "-b"])
        .args([image, overlay])
        // Without a size, qemu-img asks the format how large the disk in it is.
        .args(size.map(|size| OsString::from(size.to_string())))
        .output()
        .map_err(DiskError::NoQemuImg)?;
    if output.status.success() {
        return Ok(MachineDisk::Overlay(overlay.into(), stamp));
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DiskError::QemuImg { image: image.clone(), message })
}

/// Makes a sparse copy of `image` at `copy`, of that size, sharing the blocks where the
/// file system can.
pub fn copy_image(image: &Path, copy: &Path, size: DiskSize) -> Result<MachineDisk, DiskError> {
    let (from, has) = open_image(image)?;
    let size = size.bytes_for(image, has)?;
    let create = |source| DiskError::Create { path: copy.into(), source };
    let to = OpenOptions::new().write(true).create_new(true).open(copy).map_err(create)?;
    // Sharing costs nothing where the file system can (btrfs, XFS). Else only the data is copied: an image is
    // mostly holes, and each story copies it.
    let copied = if share_blocks(&from, &to) { Ok(()) } else { copy_data(&from, &to, has) };
    copied.and_then(|()| to.set_len(size)).map_err(|source| DiskError::Copy {
        from: image.into(),
        to: copy.into(),
        source,
    })?;
    Ok(MachineDisk::Raw(copy.into()))
}

fn open_image(path: &Path) -> Result<(File, u64), DiskError> {
    let open = || {
        let mut file = File::open(path)?;
        // A directory opens too; seeking tells the size of files and block devices alike.
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let size = file.seek(SeekFrom::End(0))?;
        Ok((file, size))
    };
    open().map_err(|source| DiskError::OpenImage { path: path.into(), source })
}

mod clone {
    nix::ioctl_write_int!(
        /// Makes the file the same as the one whose descriptor is given, sharing its blocks.
        ficlone,
        0x94,
        9
    );
}

fn share_blocks(from: &File, to: &File) -> bool {
    let Ok(descriptor) = u64::try_from(from.as_raw_fd()) else { return false };
    #[expect(unsafe_code, reason = "nix has no safe binding of FICLONE")]
    // SAFETY: both descriptors are open files of ours, and the call changes nothing but the second file.
    let outcome = unsafe { clone::ficlone(to.as_raw_fd(), descriptor) };
    outcome.is_ok()
}

fn copy_data(from: &File, to: &File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, size)? {
        copy_range(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

/// The next range with data at or after `at`; all of the rest where holes cannot be asked for.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let offset = |position: u64| i64::try_from(position).map_err(io::Error::other);
    let start = match nix::unistd::lseek(file, offset(at)?, Whence::SeekData) {
        Ok(start) => start.unsigned_abs(),
        Err(Errno::ENXIO) => return Ok(None),
        // Old file systems and block devices know no holes.
        Err(_) => return Ok(Some((at, size))),
    };
    let end = nix::unistd::lseek(file, offset(start)?, Whence::SeekHole)?.unsigned_abs();
    Ok(Some((start, end)))
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut from = from;
    let mut to = to;
    from.seek(SeekFrom::Start(start))?;
    to.seek(SeekFrom::Start(start))?;
    let copied = io::copy(&mut from.take(end - start), &mut to)?;
    to.flush()?;
    if copied == end - start { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A raw disk nobody runs on, open for edits.
#[derive(Debug)]
pub struct DiskEditor {
    path: PathBuf,
    file: File,
}

impl DiskEditor {
    /// Opens the raw disk at `path`.
    pub fn open_disk(path: &Path) -> Result<Self, DiskError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| DiskError::OpenImage { path: path.into(), source })?;
        Ok(Self { path: path.into(), file })
    }

    /// The file, for parsers that want `Read` and `Seek`.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads `length` bytes at `offset`.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset).map_err(|source| self.access_error(offset, source))?;
        Ok(bytes)
    }

    /// Writes `bytes` at `offset`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, offset).map_err(|source| self.access_error(offset, source))
    }

    /// Overwrites `length` bytes at `offset` with zeros.
    pub fn write_zeros(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let zeros = vec![0; 1 << 20];
        let mut done = 0;
        while done < length {
            let step = (length - done).min(1 << 20);
            let step_bytes = usize::try_from(step).unwrap_or(zeros.len());
            self.write(offset + done, &zeros[..step_bytes])?;
            done += step;
        }
        Ok(())
    }

    /// Turns around the lowest bit of the byte at `offset`.
    pub fn flip_bit(&self, offset: u64) -> Result<(), DiskError> {
        let byte = self.read(offset, 1)?[0];
        self.write(offset, &[byte ^ 1])
    }

    /// Copies `length` bytes within the disk, from `from` to `to`; the ranges must not overlap.
    pub fn copy_within(&self, from: u64, to: u64, length: u64) -> Result<(), DiskError> {
        let mut done = 0;
        while done < length {
            let step = (length - done).min(1 << 20);
            let bytes = self.read(from + done, usize::try_from(step).unwrap_or(1 << 20))?;
            self.write(to + done, &bytes)?;
            done += step;
        }
        Ok(())
    }

    fn access_error(&self, offset: u64, source: io::Error) -> DiskError {
        DiskError::Edit { path: self.path.clone(), offset, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn sparse_image(folder: &Path) -> PathBuf {
        let path = folder.join("image.raw");
        let file = File::create(&path).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"head", 0).unwrap();
        file.write_all_at(b"tail", (40 << 20) + 5).unwrap();
        path
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_stays_sparse() {
        let folder = tempfile::tempdir().unwrap();
        let image = sparse_image(folder.path());
        let target = folder.path().join("copy.raw");

        copy_image(&image, &target, DiskSize::Same).unwrap();

        assert!(fs::read(&image).unwrap() == fs::read(&target).unwrap());
        assert!(fs::metadata(&target).unwrap().blocks() * 512 < 4 << 20);
    }

    #[test]
    fn a_copy_can_be_bigger_but_not_smaller_than_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let image = sparse_image(folder.path());
        let bigger = folder.path().join("bigger.raw");

        copy_image(&image, &bigger, DiskSize::Exactly(100 << 20)).unwrap();
        let error = copy_image(&image, &folder.path().join("smaller.raw"), DiskSize::Exactly(1)).unwrap_err();

        assert_eq!(fs::metadata(&bigger).unwrap().len(), 100 << 20);
        assert!(matches!(error, DiskError::TooSmall { asked: 1, has: 67_108_864, .. }));
    }

    #[test]
    fn edits_land_where_they_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let image = sparse_image(folder.path());
        let edit = DiskEditor::open_disk(&image).unwrap();

        edit.copy_within(0, 1 << 20, 4).unwrap();
        edit.flip_bit(1 << 20).unwrap();
        edit.write_zeros(0, 2).unwrap();

        assert_eq!(edit.read(0, 4).unwrap(), b"\0\0ad");
        assert_eq!(edit.read(1 << 20, 4).unwrap(), b"iead");
    }

    #[test]
    fn a_stamp_knows_a_changed_image() {
        let folder = tempfile::tempdir().unwrap();
        let image = sparse_image(folder.path());
        let stamp = ImageStamp::of_image(&image).unwrap();
        assert!(stamp.check_unchanged().is_ok());

        File::options().write(true).open(&image).unwrap().set_len(65 << 20).unwrap();

        assert!(matches!(stamp.check_unchanged(), Err(DiskError::Changed(_))));
    }

    #[test]
    fn a_folder_is_no_image() {
        let folder = tempfile::tempdir().unwrap();

        let error = copy_image(folder.path(), &folder.path().join("copy"), DiskSize::Same).unwrap_err();

        assert!(matches!(error, DiskError::OpenImage { .. }));
    }
}
