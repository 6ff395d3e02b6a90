//! Puts a finished image into a repository, and offers it on a channel.
//!
//! Knows the order of what is written: objects, the release's files with the manifest last, the channel last of
//! all. Refuses to know how images and payloads are made.
//! Invariant: whatever step is the last that happens, every channel says what it said before or what it is to say,
//! and all that it names is there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image_format::layout::{Partition, PartitionRole};
use image_format::manifest::{Manifest, ManifestError};
use image_format::release::channel::{ChannelMetadata, FileReference};
use image_format::release::paths::{self, ChannelName};
use image_format::release::root::OpenError;
use image_format::signed::{MAX_ENVELOPE, Verified};
use image_format::slot::Slot;
use image_format::version::Version;

use super::change::{ChannelChange, OfferTerms, StoredRelease, empty_channel};
use super::channels::{ChannelFileError, Publisher, read_channel};
use super::objects::{BaseRelease, PayloadError, PayloadFormat, PayloadOrder};
use super::repository::RepositoryError;
use super::stored::{self, MAX_FILE, StoredReleaseError, lock_path, recipe_path};
use crate::disk::DiskImage;
use crate::inspect::table::{self, ReadTableError};

/// What is to be published.
#[derive(Debug)]
pub(super) struct PublishOrder<'a> {
    /// The folder that `build` made.
    pub(super) image: &'a Path,
    /// The channel to offer it on; without one it only lies there until `promote`.
    pub(super) channel: Option<&'a ChannelName>,
    pub(super) terms: OfferTerms,
    /// How many of the newest releases get patches.
    pub(super) patch_bases: usize,
    /// The digest of what it was made of beside packages, if that is known.
    pub(super) recipe: Option<String>,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
pub(super) struct PublishedRelease {
    pub(super) version: Version,
    /// Whether it lay there already, the same.
    pub(super) known: bool,
    /// What it costs to fetch.
    pub(super) payload: Option<String>,
    pub(super) channel: Option<ChannelMetadata>,
}

/// A file to write, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublishStep {
    /// Makes what was written outlast a power cut.
    Sync,
    /// Puts a file in its place at once.
    Write { relative: String, bytes: Vec<u8> },
}

/// Publishes.
pub(super) fn publish_image(
    publisher: &Publisher<'_>,
    order: &PublishOrder<'_>,
    format: &dyn PayloadFormat,
) -> Result<PublishedRelease, PublishError> {
    let _lock = publisher.repository.lock_repository()?;
    let image = FinishedImage::read(order.image, publisher)?;
    let version = image.manifest.version.clone();
    // Before hours of compression: a channel that cannot be changed is found out now.
    sign_offer(publisher, order, image.stored_release(FileReference::of_bytes(b"")))?;
    let known = is_known(publisher, &image)?;
    let (index, payload) = if known {
        (stored::read_file(publisher.repository, &paths::index(&version), MAX_FILE, &version)?, None)
    } else {
        let payload = write_payload(publisher, order, &image, format)?;
        (payload.index, Some(payload.summary))
    };
    let offer = sign_offer(publisher, order, image.stored_release(FileReference::of_bytes(&index)))?;
    let (channel, envelope) =
        offer.map_or((None, None), |(channel, envelope)| (Some(channel), Some(envelope)));
    let files = if known { Vec::new() } else { image.release_files(index, order.recipe.clone()) };
    let offered = order.channel.zip(envelope).map(|(name, bytes)| (paths::channel_path(name), bytes));
    apply_steps(publisher, &plan_steps(files, offered))?;
    Ok(PublishedRelease { version, known, payload, channel })
}

/// The order in which files appear.
pub(super) fn plan_steps(
    files: Vec<(String, Vec<u8>)>,
    channel: Option<(String, Vec<u8>)>,
) -> Vec<PublishStep> {
    let write = |(relative, bytes)| PublishStep::Write { relative, bytes };
    let mut steps = vec![PublishStep::Sync];
    steps.extend(files.into_iter().map(write));
    steps.push(PublishStep::Sync);
    steps.extend(channel.map(write));
    steps
}

fn apply_steps(publisher: &Publisher<'_>, steps: &[PublishStep]) -> Result<(), RepositoryError> {
    steps.iter().try_for_each(|step| match step {
        PublishStep::Sync => publisher.repository.sync_all(),
        PublishStep::Write { relative, bytes } => publisher.repository.write_file(relative, bytes),
    })
}

type SignedOffer = Option<(ChannelMetadata, Vec<u8>)>;

fn sign_offer(
    publisher: &Publisher<'_>,
    order: &PublishOrder<'_>,
    release: StoredRelease,
) -> Result<SignedOffer, PublishError> {
    let Some(name) = order.channel else { return Ok(None) };
    let channel = read_channel(publisher.repository, publisher.chain, name)?;
    let channel = channel.unwrap_or_else(|| empty_channel(name, &release));
    let change = ChannelChange::Promote { release: Box::new(release), terms: order.terms.clone() };
    Ok(Some(publisher.sign_change(channel, change)?))
}

/// Whether the repository has this very release. Another one of the same version is refused: machines remember
/// what they saw, and a release never changes.
fn is_known(publisher: &Publisher<'_>, image: &FinishedImage) -> Result<bool, PublishError> {
    let version = &image.manifest.version;
    match publisher.repository.read_bounded(&paths::manifest_path(version), MAX_ENVELOPE)? {
        None => Ok(false),
        Some(envelope) if envelope == image.envelope => Ok(true),
        Some(_) => Err(PublishError::Exists { version: version.clone() }),
    }
}

fn write_payload(
    publisher: &Publisher<'_>,
    order: &PublishOrder<'_>,
    image: &FinishedImage,
    format: &dyn PayloadFormat,
) -> Result<super::objects::OrderedPayload, PublishError> {
    let Publisher { repository, chain, .. } = publisher;
    let mut bases = Vec::new();
    for version in repository.list_versions()?.iter().rev() {
        // Machines go forward, and a release that nobody may install any more is nobody's base.
        if bases.len() == order.patch_bases {
            break;
        }
        let Ok(manifest) = stored::read_manifest(repository, chain.newest_root(), version) else { continue };
        if manifest.name != image.manifest.name || manifest.version >= image.manifest.version {
            continue;
        }
        let index = stored::read_file(repository, &paths::index(version), MAX_FILE, version)?;
        bases.push(BaseRelease { manifest: (*manifest).clone(), index });
    }
    let order = PayloadOrder {
        manifest: &image.manifest,
        disk: &image.disk,
        offset: image.offset,
        bases,
        repository: repository.folder().to_owned(),
    };
    format.write(&order).map_err(|source| PublishError::Payload { source })
}

/// What `build` left in a folder.
struct FinishedImage {
    manifest: Verified<Manifest>,
    envelope: Vec<u8>,
    sbom: Vec<u8>,
    lock: Vec<u8>,
    disk: PathBuf,
    offset: u64,
}

impl FinishedImage {
    fn read(folder: &Path, publisher: &Publisher<'_>) -> Result<Self, PublishError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|source| PublishError::Image { path, source })
        };
        let envelope = read("manifest")?;
        let manifest = publisher.chain.newest_root().open_manifest(&envelope);
        let manifest = manifest.map_err(|source| PublishError::Manifest { source })?;
        let disk = folder.join("disk.raw");
        let offset = find_root(&disk)?;
        let (sbom, lock) = (read("sbom.spdx.json")?, read("packages.lock")?);
        Ok(Self { manifest, envelope, sbom, lock, disk, offset })
    }

    fn stored_release(&self, index: FileReference) -> StoredRelease {
        StoredRelease {
            image: self.manifest.name.clone(),
            architecture: self.manifest.architecture.clone(),
            version: self.manifest.version.clone(),
            security_epoch: self.manifest.security_epoch,
            manifest: FileReference::of_bytes(&self.envelope),
            index,
            sbom: FileReference::of_bytes(&self.sbom),
        }
    }

    /// The files of the release, the manifest last: a folder with a manifest is a whole release.
    fn release_files(self, index: Vec<u8>, recipe: Option<String>) -> Vec<(String, Vec<u8>)> {
        let version = &self.manifest.version;
        let mut files = vec![(paths::sbom_path(version), self.sbom), (lock_path(version), self.lock)];
        files.extend(recipe.map(|recipe| (recipe_path(version), recipe.into_bytes())));
        files.push((paths::index(version), index));
        files.push((paths::manifest_path(version), self.envelope));
        files
    }
}

/// Where slot A begins, which is what a fresh image has its root in.
fn find_root(disk: &Path) -> Result<u64, PublishError> {
    let failed = |source| PublishError::Image { path: disk.to_owned(), source };
    let image = DiskImage::open_read_only(disk).map_err(|error| failed(io::Error::other(error)))?;
    let label = Partition::of_role(PartitionRole::Root(Slot::A)).label;
    let table =
        table::read(&image).map_err(|source| PublishError::Table { path: disk.to_owned(), source })?;
    let missing = || failed(io::Error::other(format!("it has no partition {label}")));
    Ok(table.find_label(label).ok_or_else(missing)?.byte_offset().get())
}

/// Why a release was not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error(transparent)]
    Channel(#[from] ChannelFileError),
    #[error(
        "the repository has another release {version}, and a release never changes: raise `version:` in the spec, or \
         build with --as, such as --as {version}+1"
    )]
    Exists { version: Version },
    #[error("cannot read {path} of the built image")]
    Image { path: PathBuf, source: io::Error },
    #[error(
        "the image is not signed as the newest root metadata of the repository wants it: build it with --key and \
         a key of the role release"
    )]
    Manifest { source: OpenError<ManifestError> },
    #[error("cannot write the payload")]
    Payload { source: PayloadError },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Stored(#[from] StoredReleaseError),
    #[error("cannot find the root in {path}")]
    Table { path: PathBuf, source: ReadTableError },
}
