//! What a repository has, for people and for programs.
//!
//! Knows how it is put into words. Refuses to verify more than signatures: that is [`super::verify`]'s.

use std::fmt;

use image_format::release::channel::{ChannelMetadata, OfferedRelease};
use image_format::release::root::{Role, RootMetadata};
use image_format::release::time::UnixTime;
use image_format::version::Version;
use serde::Serialize;

use super::channels::{ChannelFileError, offered_versions, read_channels};
use super::repository::{Repository, RepositoryError};
use super::roots::{ReadRootsError, RootChain};

/// What a repository has.
#[derive(Debug, Serialize)]
pub(super) struct RepositoryListing {
    pub(super) root: RootMetadata,
    pub(super) channels: Vec<ChannelMetadata>,
    /// Releases that no channel offers.
    pub(super) waiting: Vec<Version>,
    #[serde(skip)]
    now: UnixTime,
}

impl RepositoryListing {
    pub(super) fn read(repository: &Repository, now: UnixTime) -> Result<Self, ListError> {
        let chain = RootChain::read(repository)?;
        let channels = read_channels(repository, &chain)?;
        let offered = offered_versions(&channels);
        let versions = repository.list_versions()?;
        let waiting =
            versions.into_iter().filter(|version| !offered.contains(&version.to_string())).collect();
        Ok(Self { root: chain.newest_root().metadata().clone(), channels, waiting, now })
    }
}

impl fmt::Display for RepositoryListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "root {}, until {}", self.root.number, self.root.expires)?;
        for channel in &self.channels {
            writeln!(f)?;
            self.write_channel(f, channel)?;
        }
        if !self.waiting.is_empty() {
            let versions: Vec<String> = self.waiting.iter().map(Version::to_string).collect();
            writeln!(f, "\nnot offered: {}", versions.join(", "))?;
        }
        Ok(())
    }
}

impl RepositoryListing {
    fn write_channel(&self, f: &mut fmt::Formatter<'_>, channel: &ChannelMetadata) -> fmt::Result {
        let ChannelMetadata { channel: name, image, architecture, counter, expires, paused, .. } = channel;
        writeln!(f, "channel {name}: image {image} for {architecture}, counter {counter}, until {expires}")?;
        if let Some(reason) = paused {
            writeln!(f, "  PAUSED: {reason}")?;
        }
        if channel.security_epoch > 0 {
            writeln!(f, "  nothing below security epoch {}", channel.security_epoch)?;
        }
        channel
            .releases
            .iter()
            .rev()
            .try_for_each(|release| writeln!(f, "  {}", self.describe_release(release)))
    }

    fn describe_release(&self, release: &OfferedRelease) -> String {
        let mut words = vec![release.version.to_string()];
        if let Some(reason) = &release.withdrawn {
            words.push(format!("WITHDRAWN: {reason}"));
        }
        if release.floor {
            words.push("floor".to_owned());
        }
        if release.security_epoch > 0 {
            words.push(format!("security epoch {}", release.security_epoch));
        }
        words.push(self.describe_waves(release));
        if let Some(agent) = &release.least_agent {
            words.push(format!("from agent {agent} on"));
        }
        words.join(", ")
    }

    fn describe_waves(&self, release: &OfferedRelease) -> String {
        let open = release.waves.iter().rev().find(|wave| wave.not_before <= self.now);
        let next = release.waves.iter().find(|wave| wave.not_before > self.now);
        match (open, next) {
            (None, None) => "to all machines".to_owned(),
            (Some(open), None) => format!("to {} of the machines", open.machines),
            (open, Some(next)) => {
                let now = open.map_or_else(
                    || "no machine".to_owned(),
                    |wave| format!("{} of the machines", wave.machines),
                );
                format!("to {now}, to {} from {} on", next.machines, next.not_before)
            }
        }
    }
}

/// Says which keys count.
pub(super) fn describe_keys(root: &RootMetadata) -> String {
    let mut lines = vec![format!("root metadata {}, until {}", root.number, root.expires)];
    for role in Role::ALL {
        let keys = root.role_keys(role);
        lines.push(format!("{}: {} of {} must sign", role.name(), keys.threshold, keys.keys.len()));
        let known = keys.known_keys().unwrap_or_default();
        lines.extend(known.iter().map(|key| format!("  {} {}", key.key_id(), key.comment())));
    }
    lines.join("\n")
}

/// Why a repository cannot be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error(transparent)]
    Channel(#[from] ChannelFileError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Roots(#[from] ReadRootsError),
}
