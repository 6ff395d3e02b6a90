//! The chain of root metadata in a repository, walked as a machine would that has only the first.
//!
//! Knows numbers and signatures. Refuses to know who asks. Invariant: a chain that was read has no gap, and each
//! of its roots was signed by the one before.

use image_format::release::paths;
use image_format::release::root::{FollowRootError, TrustRootError, TrustedRoot};
use image_format::signed::MAX_ENVELOPE;

use super::repository::{Repository, RepositoryError};

/// Every root of a repository, the first one first. There is at least one.
#[derive(Debug)]
pub(super) struct RootChain {
    earlier: Vec<TrustedRoot>,
    newest: TrustedRoot,
}

impl RootChain {
    /// Reads and verifies the chain.
    pub(super) fn read(repository: &Repository) -> Result<Self, ReadRootsError> {
        let fetch = |number: u64| repository.read_bounded(&paths::root_path(number), MAX_ENVELOPE);
        let missing = || ReadRootsError::None { folder: repository.folder().display().to_string() };
        let mut newest = TrustedRoot::anchor_chain(&fetch(1)?.ok_or_else(missing)?)?;
        let mut earlier = Vec::new();
        while let Some(envelope) = fetch(newest.number() + 1)? {
            let number = newest.number() + 1;
            let next = newest.next(&envelope).map_err(|source| ReadRootsError::Follow { number, source })?;
            earlier.push(std::mem::replace(&mut newest, next));
        }
        Ok(Self { earlier, newest })
    }

    /// The one that counts now.
    pub(super) fn newest_root(&self) -> &TrustedRoot {
        &self.newest
    }

    /// All of them, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &TrustedRoot> {
        std::iter::once(&self.newest).chain(self.earlier.iter().rev())
    }
}

/// Why there is no chain of roots.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadRootsError {
    #[error("root metadata {number} does not follow the one before it")]
    Follow { number: u64, source: FollowRootError },
    #[error("{folder} has no root metadata: make it with `image-builder keys init {folder} ...`")]
    None { folder: String },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("root metadata 1 is not in order")]
    Trust(#[from] TrustRootError),
}
