//! A slot somewhere else as a source: in the image of a disk, in a file of its own, or the slot that runs.
//!
//! Knows how to find the root in a disk image, and its manifest at its end. Refuses to believe either: the caller
//! brings the keys, and every block is compared with the signed hash tree before it is written.
//! Invariant: what the source says once is not believed the second time: a file that changes while it is read
//! yields no byte that was not verified.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use image_format::bytes::Bytes;
use image_format::gpt::{self, ReadTableError};
use image_format::layout::{Partition, PartitionRole};
use image_format::slot::Slot;
use image_format::trailer::{self, TRAILER_BYTES, TrailerError};
use image_format::verity::checked::CheckedTree;
use image_format::verity::{BLOCK_BYTES, ReadAt, VerifyTreeError};

use super::install::{Progress, RootContent, Stage, TrustedRelease, WriteDataError};
use super::slot_device::{Purpose, SlotDevice};

/// Bytes compared and written at a time.
const CHUNK: usize = 1 << 20;
/// The largest hash tree that is held in memory: that of a root of 4 GiB.
const MAX_TREE: u64 = 33 << 20;

/// A slot that is read and not written.
pub(crate) struct SlotImage {
    source: Box<dyn ReadAt>,
    path: PathBuf,
    start: u64,
    size: u64,
}

/// Why a file holds no release.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenImageError {
    #[error("{path} is neither a disk image nor a slot with a manifest at its end")]
    Neither { path: PathBuf, source: TrailerError },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is a disk image whose slot A holds no release")]
    Slot { path: PathBuf, source: TrailerError },
    #[error("the partition table of {path} is not one of a Catamaran disk")]
    Table { path: PathBuf, source: Option<ReadTableError> },
}

/// The hash tree of the source is not the signed one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadTreeError {
    #[error("the hash tree of {path} is not the signed one")]
    Forged { path: PathBuf, source: VerifyTreeError },
    #[error("the hash tree of the release has {given}, more than is held in memory")]
    TooLarge { given: Bytes },
}

impl SlotImage {
    /// Opens the image of a disk, or of a slot.
    pub(crate) fn open_image(path: &Path) -> Result<Self, OpenImageError> {
        let unread = |source| OpenImageError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unread)?;
        // A stick may hold an image as it is: a block device has no length among its metadata.
        let size = (&file).seek(SeekFrom::End(0)).map_err(unread)?;
        let slot = Self { source: Box::new(file), path: path.to_owned(), start: 0, size };
        match slot.read_envelope() {
            Ok(_) => Ok(slot),
            Err(ReadEnvelopeError::Read(source)) if source.kind() != io::ErrorKind::UnexpectedEof => {
                Err(unread(source))
            }
            Err(ReadEnvelopeError::Read(_)) => {
                Err(OpenImageError::Neither { path: path.to_owned(), source: TrailerError::Magic })
            }
            Err(ReadEnvelopeError::Trailer(source)) => slot.of_disk(source),
        }
    }

    /// The slot that runs, to be copied.
    pub(crate) fn of_running(path: &Path) -> io::Result<Self> {
        let device = SlotDevice::open_slot(path, Purpose::Read)?;
        let size = device.byte_size()?.get();
        Ok(Self { source: Box::new(device), path: path.to_owned(), start: 0, size })
    }

    /// The same file, taken for the image of a whole disk.
    fn of_disk(self, no_slot: TrailerError) -> Result<Self, OpenImageError> {
        let path = self.path.clone();
        let copy = |offset: Option<Bytes>| {
            let mut bytes = vec![0; gpt::COPY_BYTES];
            // A copy that cannot be read is a damaged one: the other may do.
            let read = offset.and_then(|offset| self.source.read_exact_at(&mut bytes, offset.get()).ok());
            read.map_or_else(Vec::new, |()| bytes)
        };
        let (primary, backup) =
            (copy(Some(gpt::PRIMARY_OFFSET)), copy(gpt::backup_offset(Bytes::new(self.size))));
        let table = match gpt::read(&primary, &backup, Bytes::new(self.size)) {
            Ok(table) => table,
            Err(_) if !primary.get(..).is_some_and(|bytes| bytes.starts_with(b"EFI PART")) => {
                return Err(OpenImageError::Neither { path, source: no_slot });
            }
            Err(source) => return Err(OpenImageError::Table { path, source: Some(source) }),
        };
        let entry = table.find_label(Partition::of_role(PartitionRole::Root(Slot::A)).label);
        let Some(entry) = entry else { return Err(OpenImageError::Table { path, source: None }) };
        let slot = Self { start: entry.byte_offset().get(), size: entry.byte_size().get(), ..self };
        match slot.read_envelope() {
            Ok(_) => Ok(slot),
            Err(ReadEnvelopeError::Read(source)) => Err(OpenImageError::Read { path, source }),
            Err(ReadEnvelopeError::Trailer(source)) => Err(OpenImageError::Slot { path, source }),
        }
    }

    /// The signed manifest at the end of the slot.
    pub(crate) fn read_envelope(&self) -> Result<Vec<u8>, ReadEnvelopeError> {
        let offset = trailer::trailer_offset(Bytes::new(self.size));
        let offset = offset.ok_or_else(|| ReadEnvelopeError::Read(io::ErrorKind::UnexpectedEof.into()))?;
        let mut bytes = vec![0; TRAILER_BYTES];
        self.source.read_exact_at(&mut bytes, self.start + offset.get())?;
        Ok(trailer::decode_trailer(&bytes)?.to_vec())
    }

    fn read_tree(&self, release: &TrustedRelease) -> Result<CheckedTree, WriteDataError> {
        let root = &release.manifest.root;
        let length = usize::try_from(root.tree_bytes).ok().filter(|_| root.tree_bytes <= MAX_TREE);
        let Some(length) = length else {
            let given = Bytes::new(root.tree_bytes);
            return Err(WriteDataError::Source(Box::new(ReadTreeError::TooLarge { given })));
        };
        let mut bytes = vec![0; length];
        let read = self.source.read_exact_at(&mut bytes, self.start + root.tree_offset);
        read.map_err(|source| WriteDataError::Read { source })?;
        CheckedTree::check_tree(&bytes, root.verity_placement()).map_err(|source| {
            WriteDataError::Source(Box::new(ReadTreeError::Forged { path: self.path.clone(), source }))
        })
    }
}

/// Why there is no manifest to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadEnvelopeError {
    #[error("cannot read the end of the slot")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Trailer(#[from] TrailerError),
}

impl RootContent for SlotImage {
    fn write_data(
        &mut self,
        release: &TrustedRelease,
        slot: &SlotDevice,
        progress: &dyn Progress,
    ) -> Result<(), WriteDataError> {
        let tree = self.read_tree(release)?;
        let total = release.manifest.root.data_bytes;
        let (mut wanted, mut present) = (vec![0; CHUNK], vec![0; CHUNK]);
        for offset in (0..total).step_by(CHUNK) {
            if progress.advance(Stage::Writing, offset, total).is_break() {
                return Err(WriteDataError::Cancelled);
            }
            let length = usize::try_from(total - offset).map_or(CHUNK, |left| left.min(CHUNK));
            let (wanted, present) = (&mut wanted[..length], &mut present[..length]);
            let read = self.source.read_exact_at(wanted, self.start + offset);
            read.map_err(|source| WriteDataError::Read { source })?;
            let first = offset / BLOCK_BYTES as u64;
            for (block, bytes) in (first..).zip(wanted.chunks_exact(BLOCK_BYTES)) {
                if !tree.holds_block(block, bytes) {
                    return Err(WriteDataError::Mismatch { block });
                }
            }
            // After a cut most of it is there already. What cannot be read is written: disks mend such sectors so.
            let is_there = slot.read_exact_at(present, offset).is_ok() && present == wanted;
            if !is_there {
                let path = || slot.path().to_owned();
                slot.write(offset, wanted).map_err(|source| WriteDataError::Write {
                    path: path(),
                    offset,
                    source,
                })?;
            }
        }
        Ok(())
    }
}
