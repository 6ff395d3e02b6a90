//! Removes what no channel needs.
//!
//! Knows what is needed: everything that any channel offers, the newest releases that wait to be offered, and the
//! objects of all of these. Refuses to guess: a channel or an index that cannot be read stops it.
//! Invariants: roots and channels are never removed; of a release that goes, the manifest goes first, so that what
//! an interruption leaves is no release.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use image_format::release::paths;
use image_format::version::Version;
use serde::Serialize;

use super::channels::{ChannelFileError, offered_versions, read_channels};
use super::objects::{PayloadError, PayloadFormat};
use super::repository::{Repository, RepositoryError};
use super::roots::RootChain;
use super::stored::{MAX_FILE, StoredReleaseError, read_file};

/// What is to be kept beyond what channels offer.
#[derive(Debug, Clone, Copy)]
pub(super) struct CollectPolicy {
    /// Releases that no channel offers, the newest first.
    pub(super) keep: usize,
    /// Files that are younger stay: a machine may be fetching what it was offered a minute ago.
    pub(super) min_age: Duration,
    pub(super) now: SystemTime,
}

/// What goes.
#[derive(Debug, PartialEq, Eq, Default, Serialize)]
pub(super) struct CollectPlan {
    /// Releases, of which nothing stays.
    pub(super) releases: Vec<Version>,
    /// Files in the order in which they go.
    pub(super) files: Vec<String>,
    pub(super) bytes: u64,
}

/// Decides what goes.
pub(super) fn plan_collection(
    repository: &Repository,
    chain: &RootChain,
    format: &dyn PayloadFormat,
    policy: CollectPolicy,
) -> Result<CollectPlan, CollectError> {
    let offered = offered_versions(&read_channels(repository, chain)?);
    let versions = repository.list_versions()?;
    let waiting: Vec<&Version> =
        versions.iter().filter(|version| !offered.contains(&version.to_string())).collect();
    let kept = waiting.len().saturating_sub(policy.keep);
    let releases: Vec<Version> = waiting[..kept].iter().map(|version| (*version).clone()).collect();
    let live: BTreeSet<String> =
        offered.into_iter().chain(waiting[kept..].iter().map(ToString::to_string)).collect();
    let needed = needed_objects(repository, format, &live)?;

    let mut plan = CollectPlan { releases, ..CollectPlan::default() };
    for version in repository.list_names("release")?.iter().filter(|name| !live.contains(*name)) {
        // The manifest first: see the module's text.
        let mut names = repository.list_names(&format!("release/{version}"))?;
        names.sort_by_key(|name| name != "manifest");
        add_files(
            repository,
            &mut plan,
            policy,
            names.iter().map(|name| format!("release/{version}/{name}")),
        )?;
    }
    for folder in ["chunk", "patch"] {
        for part in repository.list_names(folder)? {
            let names = repository.list_names(&format!("{folder}/{part}"))?;
            let files = names.iter().map(|name| format!("{folder}/{part}/{name}"));
            add_files(repository, &mut plan, policy, files.filter(|file| !needed.contains(file)))?;
        }
    }
    for folder in ["channel", "root"] {
        let names = repository.list_names(folder)?;
        let unfinished = names.iter().filter(|name| name.starts_with(super::repository::UNFINISHED));
        add_files(repository, &mut plan, policy, unfinished.map(|name| format!("{folder}/{name}")))?;
    }
    Ok(plan)
}

/// Carries it out.
pub(super) fn remove_files(repository: &Repository, plan: &CollectPlan) -> Result<(), RepositoryError> {
    plan.files.iter().try_for_each(|file| repository.remove_file(file))?;
    for name in repository.list_names("release")? {
        // A folder that still holds something stays, whoever put it there.
        let _ = std::fs::remove_dir(repository.file_path(&format!("release/{name}")));
    }
    Ok(())
}

fn needed_objects(
    repository: &Repository,
    format: &dyn PayloadFormat,
    live: &BTreeSet<String>,
) -> Result<BTreeSet<String>, CollectError> {
    let mut needed = BTreeSet::new();
    for version in live.iter().filter_map(|text| text.parse::<Version>().ok()) {
        let index = read_file(repository, &paths::index(&version), MAX_FILE, &version)?;
        let objects = format.objects(&index);
        let objects = objects.map_err(|source| CollectError::Index { version, source })?;
        needed.extend(objects.into_iter().map(|object| object.path));
    }
    Ok(needed)
}

fn add_files(
    repository: &Repository,
    plan: &mut CollectPlan,
    policy: CollectPolicy,
    files: impl Iterator<Item = String>,
) -> Result<(), RepositoryError> {
    for file in files {
        let path = repository.file_path(&file);
        let metadata = std::fs::metadata(&path).map_err(|source| RepositoryError::Read { path, source })?;
        // A time in the future is no age.
        let age =
            metadata.modified().ok().and_then(|at| policy.now.duration_since(at).ok()).unwrap_or_default();
        if age >= policy.min_age {
            plan.bytes += metadata.len();
            plan.files.push(file);
        }
    }
    Ok(())
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    #[error("nothing was removed, since a channel cannot be read")]
    Channel(#[from] ChannelFileError),
    #[error("nothing was removed, since the index of release {version} cannot be read")]
    Index { version: Version, source: PayloadError },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("nothing was removed, since a release that is needed is not whole")]
    Stored(#[from] StoredReleaseError),
}
