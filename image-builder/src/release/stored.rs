//! Releases as they lie in a repository.
//!
//! Knows their files and that a manifest must be signed by the release role. Refuses to know channels.

use image_format::manifest::{Manifest, ManifestError};
use image_format::release::channel::FileReference;
use image_format::release::paths;
use image_format::release::root::{OpenError, TrustedRoot};
use image_format::signed::{MAX_ENVELOPE, Verified};
use image_format::version::Version;

use super::change::StoredRelease;
use super::repository::{Repository, RepositoryError};

/// Bytes of the largest payload index, bill of materials or lock that is read here. An index of a root of 16 GiB has
/// less than 2 MiB, and a bill of 1000 packages about 1 MB.
pub(super) const MAX_FILE: usize = 16 << 20;

/// The lock of a release's packages: what `release build --if-changed` compares with.
pub(super) fn lock_path(version: &Version) -> String {
    format!("release/{version}/packages.lock")
}

/// The digest of what a release was made of beside packages.
pub(super) fn recipe_path(version: &Version) -> String {
    format!("release/{version}/recipe")
}

/// Opens a release's manifest.
pub(super) fn read_manifest(
    repository: &Repository,
    root: &TrustedRoot,
    version: &Version,
) -> Result<Verified<Manifest>, StoredReleaseError> {
    let envelope = read_file(repository, &paths::manifest_path(version), MAX_ENVELOPE, version)?;
    let manifest = root.open_manifest(&envelope);
    let manifest =
        manifest.map_err(|source| StoredReleaseError::Open { version: version.clone(), source })?;
    if manifest.version != *version {
        let (version, given) = (version.clone(), manifest.version.clone());
        return Err(StoredReleaseError::Version { version, given });
    }
    Ok(manifest)
}

/// Reads what a channel says of a release.
pub(super) fn read_release(
    repository: &Repository,
    root: &TrustedRoot,
    version: &Version,
) -> Result<StoredRelease, StoredReleaseError> {
    let manifest = read_manifest(repository, root, version)?;
    let reference = |relative: String, limit| {
        read_file(repository, &relative, limit, version).map(|bytes| FileReference::of_bytes(&bytes))
    };
    Ok(StoredRelease {
        image: manifest.name.clone(),
        architecture: manifest.architecture.clone(),
        version: version.clone(),
        security_epoch: manifest.security_epoch,
        manifest: reference(paths::manifest_path(version), MAX_ENVELOPE)?,
        index: reference(paths::index(version), MAX_FILE)?,
        sbom: reference(paths::sbom_path(version), MAX_FILE)?,
    })
}

/// Reads a file that every release has.
pub(super) fn read_file(
    repository: &Repository,
    relative: &str,
    limit: usize,
    version: &Version,
) -> Result<Vec<u8>, StoredReleaseError> {
    let missing = || StoredReleaseError::Missing { version: version.clone(), relative: relative.to_owned() };
    repository.read_bounded(relative, limit)?.ok_or_else(missing)
}

/// Why a release cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredReleaseError {
    #[error(
        "the repository has no release {version}: there is no {relative}. `release list` shows what there is"
    )]
    Missing { version: Version, relative: String },
    #[error(
        "the manifest of release {version} is not signed as the newest root metadata wants it: build the release \
         anew, or add a signature with `keys sign`"
    )]
    Open { version: Version, source: OpenError<ManifestError> },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("the manifest in the folder of release {version} is that of {given}")]
    Version { version: Version, given: Version },
}
