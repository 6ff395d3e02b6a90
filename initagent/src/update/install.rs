//! Brings a release into the idle slot: data first, its hash tree, the signed manifest last.
//!
//! Knows the order, and reads everything back. Refuses to know where the data comes from (`RootContent`) and to
//! let the slot start (the slot table does, later). The hash tree does not travel: it is computed from what the
//! disk says it holds, and the signed root hash judges both at once, so that the read-back costs one pass.
//! Invariant: a slot has a manifest at its end only after every block before it was read back from the disk and
//! found to be the signed one. What was cut off before is no slot: nothing believes a root without a manifest.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use image_format::bytes::Bytes;
use image_format::digest::Sha256;
use image_format::manifest::Manifest;
use image_format::signed::Verified;
use image_format::trailer::{self, TRAILER_BYTES, TrailerError};
use image_format::verity::{self, BuildTreeError, ReadAt as _};

use super::slot_device::SlotDevice;

/// Threads that hash the read-back. More than two would be felt by what the machine is there for.
const HASH_THREADS: usize = 2;

/// A release that is trusted, and the bytes by which the next boot trusts it.
#[derive(Debug, Clone)]
pub(crate) struct TrustedRelease {
    /// What the slot will hold.
    pub(crate) manifest: Verified<Manifest>,
    /// The manifest as it was signed.
    pub(crate) envelope: Vec<u8>,
}

/// Whatever the data of a root comes from.
pub(crate) trait RootContent {
    /// Writes what the slot does not hold yet. Every byte is verified before it is written.
    fn write_data(
        &mut self,
        release: &TrustedRelease,
        slot: &SlotDevice,
        progress: &dyn Progress,
    ) -> Result<(), WriteDataError>;
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Data is fetched and written.
    Writing,
    /// The slot is read back.
    Verifying,
}

/// Who wants to know how far it is, and may stop it.
pub(crate) trait Progress: Sync {
    /// So many bytes of so many are done. `Break` cancels.
    fn advance(&self, stage: Stage, done: u64, total: u64) -> ControlFlow<()>;
}

/// Why the data of a root could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteDataError {
    #[error("the install was cancelled")]
    Cancelled,
    #[error("block {block} of the source is not the signed one, so it was not written")]
    Mismatch { block: u64 },
    #[error("cannot read the source")]
    Read { source: io::Error },
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot write {path} at byte {offset}")]
    Write { path: PathBuf, offset: u64, source: io::Error },
}

/// Why a release is not in the slot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteReleaseError {
    #[error(transparent)]
    Data(#[from] WriteDataError),
    #[error("cannot read {path} back")]
    ReadBack { path: PathBuf, source: BuildTreeError },
    #[error("{path} holds something else than what was written: its root hash is {found}, not {signed}")]
    Rotten { path: PathBuf, found: Sha256, signed: Sha256 },
    #[error("{path} kept something else than its {what}")]
    RottenPart { path: PathBuf, what: &'static str },
    #[error("{path} has {given}, but {version} needs {needed}")]
    Size { path: PathBuf, given: Bytes, needed: Bytes, version: String },
    #[error("the manifest does not fit into the end of a slot")]
    Trailer(#[from] TrailerError),
    #[error("cannot write the {what} to {path}")]
    Write { path: PathBuf, what: &'static str, source: io::Error },
}

impl WriteReleaseError {
    /// Whether the disk is at fault, so that another mirror would not help.
    pub(crate) const fn is_about_disk(&self) -> bool {
        match self {
            Self::Data(error) => matches!(error, WriteDataError::Write { .. }),
            Self::Trailer(_) => false,
            Self::ReadBack { .. }
            | Self::Rotten { .. }
            | Self::RottenPart { .. }
            | Self::Size { .. }
            | Self::Write { .. } => true,
        }
    }
}

/// Brings the release into the slot, which no slot table may start meanwhile.
pub(crate) fn write_release(
    slot: &SlotDevice,
    release: &TrustedRelease,
    content: &mut dyn RootContent,
    progress: &dyn Progress,
) -> Result<(), WriteReleaseError> {
    let trailer_at = check_size(slot, release)?;
    let trailer = trailer::encode_trailer(&release.envelope)?;
    // Without its manifest the slot is none, whatever the slot table says, until this one is complete.
    write_part(slot, "end of the slot", trailer_at, &vec![0; TRAILER_BYTES])?;
    content.write_data(release, slot, progress)?;
    write_tree(slot, release, progress)?;
    write_part(slot, "manifest", trailer_at, &trailer)
}

fn check_size(slot: &SlotDevice, release: &TrustedRelease) -> Result<u64, WriteReleaseError> {
    let path = || slot.path().to_owned();
    let unread = |source| WriteReleaseError::Write { path: path(), what: "end of the slot", source };
    let (given, needed) = (slot.byte_size().map_err(unread)?, release.manifest.root.slot_bytes());
    let offset = trailer::trailer_offset(given).filter(|_| needed <= given);
    let version = release.manifest.version.to_string();
    offset.map(Bytes::get).ok_or_else(|| WriteReleaseError::Size { path: path(), given, needed, version })
}

/// Computes the tree from what the disk holds, and stores it if it is the signed one.
fn write_tree(
    slot: &SlotDevice,
    release: &TrustedRelease,
    progress: &dyn Progress,
) -> Result<(), WriteReleaseError> {
    let root = &release.manifest.root;
    let path = || slot.path().to_owned();
    let synced = slot.sync_device().and_then(|()| slot.drop_caches());
    synced.map_err(|source| WriteReleaseError::Write { path: path(), what: "data", source })?;
    if progress.advance(Stage::Verifying, 0, root.data_bytes).is_break() {
        return Err(WriteDataError::Cancelled.into());
    }
    let tree = verity::build_tree(slot, root.data_bytes, root.salt.as_bytes(), HASH_THREADS)
        .map_err(|source| WriteReleaseError::ReadBack { path: path(), source })?;
    if tree.root_hash != root.root_hash {
        return Err(WriteReleaseError::Rotten {
            path: path(),
            found: tree.root_hash,
            signed: root.root_hash,
        });
    }
    // A cancelled install ends here at the latest: the last step of it is short.
    if progress.advance(Stage::Verifying, root.data_bytes, root.data_bytes).is_break() {
        return Err(WriteDataError::Cancelled.into());
    }
    write_part(slot, "hash tree", root.tree_offset, &tree.bytes)
}

/// Writes one part, waits for the disk, and asks it for the part again.
fn write_part(
    slot: &SlotDevice,
    what: &'static str,
    offset: u64,
    bytes: &[u8],
) -> Result<(), WriteReleaseError> {
    let path = || slot.path().to_owned();
    let failed = |source| WriteReleaseError::Write { path: path(), what, source };
    slot.write(offset, bytes)
        .and_then(|()| slot.sync_device())
        .and_then(|()| slot.drop_caches())
        .map_err(failed)?;
    let mut read = vec![0; bytes.len()];
    slot.read_exact_at(&mut read, offset).map_err(failed)?;
    if read == bytes { Ok(()) } else { Err(WriteReleaseError::RottenPart { path: path(), what }) }
}

#[cfg(test)]
pub(super) mod tests;
