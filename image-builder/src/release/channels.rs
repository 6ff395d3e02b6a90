//! A channel's file: read, changed and signed anew.
//!
//! Knows where it lies and which keys sign it. Refuses to know what a change means. Invariant: the file is the
//! last thing that a publisher writes, when all that it names lies synced in the repository.

use std::collections::BTreeSet;

use image_format::release::channel::{ChannelError, ChannelMetadata};
use image_format::release::paths::{self, ChannelName};
use image_format::release::root::Role;
use image_format::release::time::UnixTime;
use image_format::signed::MAX_ENVELOPE;

use super::change::{ChangeChannelError, ChannelChange, Stamp, change_channel};
use super::repository::{Repository, RepositoryError};
use super::roots::RootChain;
use super::signers::{Signers, TooFewSigners};

/// Who changes a channel, and when.
#[derive(Debug)]
pub(super) struct Publisher<'a> {
    pub(super) repository: &'a Repository,
    pub(super) chain: &'a RootChain,
    pub(super) signers: &'a Signers,
    pub(super) now: UnixTime,
    pub(super) lifetime: std::time::Duration,
}

impl Publisher<'_> {
    /// Signs the change of a channel; nothing is written yet.
    pub(super) fn sign_change(
        &self,
        channel: ChannelMetadata,
        change: ChannelChange,
    ) -> Result<(ChannelMetadata, Vec<u8>), ChannelFileError> {
        let root = self.chain.newest_root().metadata();
        let stamp = Stamp { root: root.number, written: self.now, lifetime: self.lifetime };
        let changed = change_channel(channel, change, stamp)?;
        let envelope =
            self.signers.sign_payload::<ChannelMetadata>(root, Role::Channel, changed.to_bytes()?)?;
        Ok((changed, envelope))
    }

    /// Changes a channel that exists.
    pub(super) fn change_existing(
        &self,
        name: &ChannelName,
        change: ChannelChange,
    ) -> Result<ChannelMetadata, ChannelFileError> {
        let missing = || ChannelFileError::None { name: name.clone() };
        let channel = read_channel(self.repository, self.chain, name)?.ok_or_else(missing)?;
        let (changed, envelope) = self.sign_change(channel, change)?;
        self.repository.sync_all()?;
        self.repository.write_file(&paths::channel_path(name), &envelope)?;
        Ok(changed)
    }
}

/// Reads a channel. One that was signed before its keys were rotated is read by the root of that time: machines no
/// longer believe it, but the publisher goes on from it.
pub(super) fn read_channel(
    repository: &Repository,
    chain: &RootChain,
    name: &ChannelName,
) -> Result<Option<ChannelMetadata>, ChannelFileError> {
    let Some(envelope) = repository.read_bounded(&paths::channel_path(name), MAX_ENVELOPE)? else {
        return Ok(None);
    };
    let mut refused = None;
    for root in chain.newest_first() {
        match root.open_channel(&envelope) {
            Ok(channel) => return Ok(Some((*channel).clone())),
            Err(error) => refused = refused.or(Some(error.into())),
        }
    }
    let source = refused.unwrap_or_else(|| "there is no root metadata".into());
    Err(ChannelFileError::Open { name: name.clone(), source })
}

/// Every channel; one that cannot be read may need anything.
pub(super) fn read_channels(
    repository: &Repository,
    chain: &RootChain,
) -> Result<Vec<ChannelMetadata>, ChannelFileError> {
    let names = repository.list_channels()?;
    let read = names.iter().map(|name| {
        read_channel(repository, chain, name)?.ok_or_else(|| ChannelFileError::None { name: name.clone() })
    });
    read.collect()
}

/// The versions that any channel offers.
pub(super) fn offered_versions(channels: &[ChannelMetadata]) -> BTreeSet<String> {
    let releases = channels.iter().flat_map(|channel| &channel.releases);
    releases.map(|release| release.version.to_string()).collect()
}

/// Why a channel cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelFileError {
    #[error(transparent)]
    Change(#[from] ChangeChannelError),
    #[error("the changed channel is one that no machine would read")]
    Metadata(#[from] ChannelError),
    #[error("there is no channel {name} in the repository: `release promote` begins one")]
    None { name: ChannelName },
    #[error("the metadata of channel {name} is not signed by keys of any root of the repository")]
    Open { name: ChannelName, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("cannot sign channel metadata")]
    Signers(#[from] TooFewSigners),
}
