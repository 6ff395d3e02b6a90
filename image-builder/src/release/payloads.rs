//! Payloads in the one format there is: chunks, patches and their index.
//!
//! Knows how [`super::objects`] asks and how [`crate::payload`] and [`image_format::payload`] answer. Refuses to
//! decide anything.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use image_format::manifest::Manifest;
use image_format::payload::index::PayloadIndex;
use image_format::payload::object::ObjectReference;
use image_format::payload::reconstruct::{
    BlockSink, Event, ObjectSource, Observer, Site, prepare_reconstruction,
};
use image_format::payload::survey::OldSlots;
use image_format::release::channel::FileReference;
use image_format::verity::BLOCK_BYTES;

use super::objects::{OrderedPayload, PayloadError, PayloadFormat, PayloadObject, PayloadOrder};

/// The format, and with how many threads it works.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkPayloads {
    threads: usize,
}

impl ChunkPayloads {
    /// With as many threads as this computer has processors.
    pub(super) fn here() -> Self {
        Self { threads: std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

impl PayloadFormat for ChunkPayloads {
    fn write(&self, order: &PayloadOrder<'_>) -> Result<OrderedPayload, PayloadError> {
        // The writer comes with the module `payload`; until then there is nothing to write with.
        let PayloadOrder { manifest, disk, offset, bases, repository } = order;
        let bases: Vec<_> = bases.iter().map(|base| (&base.manifest.version, base.index.len())).collect();
        let (version, disk, folder) = (&manifest.version, disk.display(), repository.display());
        Err(format!(
            "no payload of {version} can be written yet, from {offset} of {disk} into {folder}: {bases:?}"
        )
        .into())
    }

    fn objects(&self, index: &[u8]) -> Result<Vec<PayloadObject>, PayloadError> {
        let object = |object: ObjectReference| PayloadObject {
            path: object.path(),
            file: FileReference { bytes: object.bytes.into(), sha256: object.sha256 },
        };
        Ok(PayloadIndex::parse(index)?.objects().map(object).collect())
    }

    fn prove(&self, repository: &Path, manifest: &Manifest, index: &[u8]) -> Result<(), PayloadError> {
        let index = PayloadIndex::parse(index)?;
        if index.root_hash != manifest.root.root_hash
            || u64::from(index.data_blocks) != manifest.root.data_blocks()
        {
            return Err("the index is of another root than the manifest".into());
        }
        let file = tempfile::tempfile()?;
        file.set_len(manifest.root.data_bytes)?;
        let (objects, sink) = (FolderObjects(repository.to_owned()), ScratchRoot(&file));
        let slots = OldSlots::default();
        let site =
            Site { slots, objects: &objects, sink: &sink, observer: &SilentObserver, threads: self.threads };
        let prepared = prepare_reconstruction(&index, manifest.root.salt.as_bytes(), &site)?;
        // It ends with the root hash of what was put together, which is the proof.
        Ok(prepared.reconstruct(&index, manifest.root.data_blocks(), &site)?)
    }
}

/// A repository, as a mirror of itself.
struct FolderObjects(PathBuf);

impl ObjectSource for FolderObjects {
    fn mirrors(&self) -> usize {
        1
    }

    fn fetch_object(&self, object: &ObjectReference, _mirror: usize) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(object.path()))
    }
}

/// A file that goes away with its reader. Holes stay holes: a new file is all zeros already.
struct ScratchRoot<'a>(&'a File);

impl BlockSink for ScratchRoot<'_> {
    fn write_blocks(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        self.0.write_all_at(bytes, first * BLOCK_BYTES as u64)
    }
}

struct SilentObserver;

impl Observer for SilentObserver {
    fn observe(&self, _: &Event<'_>) {}
}
