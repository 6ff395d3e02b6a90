//! What publishing needs of payloads, whatever their format is.
//!
//! Knows which questions are asked: write one, name its objects, prove that it gives the root back. Refuses to
//! know chunks, patches and indexes, which are [`crate::payload`]'s.

use std::path::{Path, PathBuf};

use image_format::manifest::Manifest;
use image_format::release::channel::FileReference;

/// An object that a payload index names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PayloadObject {
    /// Its path in the repository.
    pub(super) path: String,
    /// Its length and digest.
    pub(super) file: FileReference,
}

/// A release of the repository that patches are made against.
#[derive(Debug, Clone)]
pub(super) struct BaseRelease {
    pub(super) manifest: Manifest,
    pub(super) index: Vec<u8>,
}

/// What a payload is made of.
#[derive(Debug)]
pub(super) struct PayloadOrder<'a> {
    /// The release's manifest.
    pub(super) manifest: &'a Manifest,
    /// A file with the root in it.
    pub(super) disk: &'a Path,
    /// Where the root begins in it.
    pub(super) offset: u64,
    /// What machines are likely to run.
    pub(super) bases: Vec<BaseRelease>,
    /// The repository's folder.
    pub(super) repository: PathBuf,
}

/// A payload that lies in the repository.
#[derive(Debug)]
pub(super) struct OrderedPayload {
    /// The bytes of its index.
    pub(super) index: Vec<u8>,
    /// What it costs a machine to fetch, in a sentence for people.
    pub(super) summary: String,
}

/// The format of payloads.
pub(super) trait PayloadFormat {
    /// Writes the objects of a payload into the repository, and gives the index that names them.
    fn write(&self, order: &PayloadOrder<'_>) -> Result<OrderedPayload, PayloadError>;

    /// Names every object of an index, patches too.
    fn objects(&self, index: &[u8]) -> Result<Vec<PayloadObject>, PayloadError>;

    /// Puts the root together from chunks alone, as a machine does that has nothing, and compares its root hash
    /// with the manifest's.
    fn prove(&self, repository: &Path, manifest: &Manifest, index: &[u8]) -> Result<(), PayloadError>;
}

/// Why a payload cannot be written or is not sound.
pub(super) type PayloadError = Box<dyn std::error::Error + Send + Sync>;
