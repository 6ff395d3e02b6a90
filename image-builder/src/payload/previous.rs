//! Older releases, put together again from their repository.
//!
//! Knows how. Refuses to trust the repository: the rebuilt root has the root hash of its index, or is none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use image_format::payload::index::PayloadIndex;
use image_format::payload::reconstruct::{BlockSink, Event, Observer, Site, prepare_reconstruction};
use image_format::payload::survey::OldSlots;
use image_format::verity::BLOCK_BYTES;

use super::WritePayloadError;
use super::root::RootImage;
use super::store::ObjectStore;

/// A release that is in the repository.
#[derive(Debug, Clone)]
pub struct PreviousRelease {
    /// Its version, for people.
    pub version: String,
    /// Its payload.
    pub index: PayloadIndex,
    /// The salt of its hash tree, from its manifest.
    pub salt: Vec<u8>,
    /// Whether to write patches against it. Its chunks are shared anyway.
    pub patches: PatchChoice,
}

/// Whether patches are written. Against the last few releases they are worth their bytes in the repository: machines
/// that are further behind fetch what they lack in whole chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchChoice {
    /// Only chunks are shared.
    Omit,
    /// Machines with this release get patches.
    Write,
}

/// A release whose root is a file again.
#[derive(Debug)]
pub(crate) struct RebuiltRelease<'a> {
    pub(super) release: &'a PreviousRelease,
    pub(super) root: RootImage,
}

impl PreviousRelease {
    /// Puts the root together, in a file that goes away with its reader.
    pub(crate) fn rebuild_root(
        &self,
        repository: &Path,
        workspace: &Path,
        threads: usize,
    ) -> Result<RebuiltRelease<'_>, WritePayloadError> {
        let create = || {
            let file = tempfile::tempfile_in(workspace)?;
            file.set_len(u64::from(self.index.data_blocks) * BLOCK_BYTES as u64)?;
            Ok(file)
        };
        let write = |source| WritePayloadError::Write { path: workspace.to_owned(), source };
        let file: File = create().map_err(write)?;
        let store = ObjectStore::open_store(repository)?;
        let sink = SparseFile(&file);
        let site =
            Site { slots: OldSlots::default(), objects: &store, sink: &sink, observer: &Silent, threads };
        let rebuilt = prepare_reconstruction(&self.index, &self.salt, &site).and_then(|prepared| {
            prepared.reconstruct_root(&self.index, self.index.data_blocks.into(), &site)
        });
        rebuilt.map_err(|source| WritePayloadError::Rebuild { version: self.version.clone(), source })?;
        Ok(RebuiltRelease { release: self, root: RootImage::new(file, 0, self.index.data_blocks) })
    }
}

/// Holes stay holes: a new file is all zeros already.
struct SparseFile<'a>(&'a File);

impl BlockSink for SparseFile<'_> {
    fn write_blocks(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        self.0.write_all_at(bytes, first * BLOCK_BYTES as u64)
    }
}

struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Event<'_>) {}
}
