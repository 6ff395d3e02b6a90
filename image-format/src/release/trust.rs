//! What a client has accepted, and what it therefore never accepts again.
//!
//! Knows the state that a machine keeps over restarts, and judges channel metadata and manifests by it.
//! Refuses to know files and clocks: a caller brings the bytes, the moment, and a place to keep the state.
//! Invariant: of one root, counters only grow; and whatever time a clock or a thief of a channel key claims, the
//! next root undoes it.
//!
//! Counters are compared together with the root's number, `(root, counter)`. A thief of a channel key could sign
//! the largest counter there is, and the true publisher could never exceed it. The thief cannot sign a root:
//! the one that takes his key away begins the count anew (TUF deletes its stored files for the same reason, 5.3.11).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::channel::{ChannelError, ChannelMetadata, FileMismatch, OfferedRelease};
use super::paths::ChannelName;
use super::root::{OpenError, Role, TrustedRoot};
use super::time::UnixTime;
use super::{FormatError, check_format};
use crate::digest::Sha256;
use crate::manifest::{Manifest, ManifestError};
use crate::signed::{MAX_ENVELOPE, Signed, Verified};

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;
/// Bytes of the largest state that is read: one root and what is known of some channels.
pub const MAX_STATE: usize = 2 * MAX_ENVELOPE;
/// Channels that are remembered: more than anybody switches between. The ones of the oldest roots are forgotten first.
const MAX_CHANNELS: usize = 32;

/// What a machine keeps of all that it accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustState {
    /// [`FORMAT`].
    pub format: u32,
    /// The number of the newest root.
    pub root_number: u64,
    /// Its envelope, unless the image's own root is the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The latest moment at which something was accepted, or that something accepted claims for itself.
    pub latest_time: UnixTime,
    /// The highest security epoch that proved itself on this machine.
    #[serde(default)]
    pub security_epoch: u32,
    /// The newest metadata of each channel.
    #[serde(default)]
    pub channels: BTreeMap<ChannelName, SeenChannel>,
}

/// The newest metadata of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenChannel {
    /// The root it was signed under.
    pub root: u64,
    /// Its counter.
    pub counter: u64,
    /// The digest of what was signed.
    pub sha256: Sha256,
}

impl Default for TrustState {
    fn default() -> Self {
        Self {
            format: FORMAT,
            root_number: 0,
            root: None,
            latest_time: UnixTime::default(),
            security_epoch: 0,
            channels: BTreeMap::new(),
        }
    }
}

impl TrustState {
    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TrustStateError> {
        if bytes.len() > MAX_STATE {
            return Err(TrustStateError::TooLarge { given: bytes.len() });
        }
        let json = |source| TrustStateError::Json { source };
        check_format(bytes, FORMAT).map_err(json)??;
        serde_json::from_slice(bytes).map_err(json)
    }

    /// The bytes to keep. The caller syncs them before it acts on what was accepted.
    pub fn to_bytes(&self) -> Result<Vec<u8>, TrustStateError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|source| TrustStateError::Json { source })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The newer of the running image's root and the kept one. A kept root that cannot be read counts as lost:
    /// the chain is then followed again from the image's.
    #[must_use]
    pub fn newest_root(&self, image: TrustedRoot) -> TrustedRoot {
        let kept = self.root.as_ref().and_then(|text| TrustedRoot::anchor_chain(text.as_bytes()).ok());
        kept.filter(|kept| kept.number() > image.number()).unwrap_or(image)
    }

    /// Keeps a root that was reached. A newer one sets the clock's floor to its own time: see the module's text.
    pub fn record_root(&mut self, root: &TrustedRoot) {
        if root.number() <= self.root_number {
            return;
        }
        self.root_number = root.number();
        // The signed bytes were JSON in a text envelope, so this loses nothing.
        self.root = Some(String::from_utf8_lossy(root.envelope()).into_owned());
        self.latest_time = root.metadata().written;
    }

    /// The moment to judge by: never before the running image was built, nor before what was accepted. A clock
    /// that says 1970 counts for nothing; one that says 2100 makes everything look expired, but only as long as it
    /// does, since nothing of it is kept.
    #[must_use]
    pub fn judged_time(&self, clock: UnixTime, built: UnixTime) -> UnixTime {
        clock.max(built).max(self.latest_time)
    }

    /// Keeps what was accepted at this moment.
    pub fn record_channel(&mut self, accepted: &AcceptedChannel, now: UnixTime) {
        let AcceptedChannel { metadata, sha256 } = accepted;
        let seen = SeenChannel { root: metadata.root, counter: metadata.counter, sha256: *sha256 };
        // Before it expired, the clock cannot be so wrong that the next metadata would look expired too.
        self.latest_time = self.latest_time.max(metadata.written).max(now.min(metadata.expires));
        self.channels.insert(metadata.channel.clone(), seen);
        while self.channels.len() > MAX_CHANNELS {
            let others = self.channels.iter().filter(|(name, _)| **name != metadata.channel);
            let Some(oldest) = others.min_by_key(|(_, seen)| seen.root).map(|(name, _)| name.clone()) else {
                return;
            };
            self.channels.remove(&oldest);
        }
    }

    /// Raises the security epoch to that of a release which proved itself here. Not earlier: a release that never
    /// becomes good must leave the way back open.
    pub fn record_good_release(&mut self, security_epoch: u32) {
        self.security_epoch = self.security_epoch.max(security_epoch);
    }
}

/// Channel metadata that may be acted on, once [`TrustState::record_channel`] has been kept.
#[derive(Debug, Clone)]
pub struct AcceptedChannel {
    /// What it says.
    pub metadata: Verified<ChannelMetadata>,
    sha256: Sha256,
}

/// Judges the metadata that a mirror gave for a channel, at [`TrustState::judged_time`].
pub fn verify_channel(
    envelope: &[u8],
    name: &ChannelName,
    root: &TrustedRoot,
    state: &TrustState,
    now: UnixTime,
) -> Result<AcceptedChannel, VerifyChannelError> {
    let signed = Signed::<ChannelMetadata>::from_envelope(envelope).map_err(OpenError::Envelope)?;
    let metadata = root.open_document(Role::Channel, &signed)?;
    if metadata.channel != *name {
        return Err(VerifyChannelError::Other { given: metadata.channel.clone(), asked: name.clone() });
    }
    // Before anything else of it counts: the root that is hidden may have taken this very key away.
    if metadata.root > root.number() {
        return Err(VerifyChannelError::RootHidden { named: metadata.root, known: root.number() });
    }
    let accepted = AcceptedChannel { sha256: signed.payload_digest(), metadata };
    if let Some(seen) = state.channels.get(name) {
        check_progress(&accepted, seen)?;
    }
    // Last, as in TUF, 5.4: signatures, then going back, then expiry.
    check_expiry(&accepted.metadata, root, now)?;
    Ok(accepted)
}

fn check_progress(accepted: &AcceptedChannel, seen: &SeenChannel) -> Result<(), VerifyChannelError> {
    let given = (accepted.metadata.root, accepted.metadata.counter);
    let known = (seen.root, seen.counter);
    if given < known {
        return Err(VerifyChannelError::WentBack { given, known });
    }
    // Two publishers with one key, or a thief. Whichever came first stays until the count goes on.
    if given == known && accepted.sha256 != seen.sha256 {
        return Err(VerifyChannelError::Forked { root: seen.root, counter: seen.counter });
    }
    Ok(())
}

fn check_expiry(
    metadata: &ChannelMetadata,
    root: &TrustedRoot,
    now: UnixTime,
) -> Result<(), VerifyChannelError> {
    if now > root.metadata().expires {
        let (number, expires) = (root.number(), root.metadata().expires);
        return Err(VerifyChannelError::RootExpired { number, expires, now });
    }
    if now > metadata.expires {
        let (channel, expires) = (metadata.channel.clone(), metadata.expires);
        return Err(VerifyChannelError::Expired { channel, expires, now });
    }
    Ok(())
}

/// Opens the manifest of an offered release. It must be the very bytes that the channel promised, signed by the
/// release role, and say of itself what the channel said: parts of two honest releases do not mix.
pub fn verify_manifest(
    envelope: &[u8],
    offered: &OfferedRelease,
    channel: &ChannelMetadata,
    root: &TrustedRoot,
) -> Result<Verified<Manifest>, VerifyManifestError> {
    // Its digest before its signatures, since a file that is not the promised one need not be parsed at all.
    offered.manifest.check_bytes(envelope)?;
    let manifest = root.open_manifest(envelope)?;
    let pairs = [
        ("image", manifest.name.clone(), channel.image.clone()),
        ("architecture", manifest.architecture.clone(), channel.architecture.clone()),
        ("version", manifest.version.to_string(), offered.version.to_string()),
        ("security epoch", manifest.security_epoch.to_string(), offered.security_epoch.to_string()),
    ];
    match pairs.into_iter().find(|(_, signed, promised)| signed != promised) {
        Some((field, signed, promised)) => Err(VerifyManifestError::Differs { field, signed, promised }),
        None => Ok(manifest),
    }
}

/// Why kept bytes are no state.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum TrustStateError {
    #[error("what was accepted before was not kept by a program of this format")]
    Format(#[from] FormatError),
    #[error("what was accepted before is not the JSON it should be")]
    Json { source: serde_json::Error },
    #[error("what was accepted before has {given} bytes, at most {MAX_STATE} are read")]
    TooLarge { given: usize },
}

/// Why channel metadata is not accepted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum VerifyChannelError {
    #[error(
        "the metadata of channel {channel} expired at {expires}, and it is {now} here: the server stands still, \
         its publisher did not sign it anew, or this machine's clock is wrong"
    )]
    Expired { channel: ChannelName, expires: UnixTime, now: UnixTime },
    #[error(
        "there are two different documents with counter {counter} of root {root}: the server is not the one that \
         was asked before, or two publishers work at once"
    )]
    Forked { root: u64, counter: u64 },
    #[error("the channel metadata is not believed")]
    Open(#[from] OpenError<ChannelError>),
    #[error("the server gave the metadata of channel {given} for that of channel {asked}")]
    Other { given: ChannelName, asked: ChannelName },
    #[error(
        "root metadata {number} expired at {expires}, and it is {now} here: its publisher must sign the next, or \
         this machine's clock is wrong"
    )]
    RootExpired { number: u64, expires: UnixTime, now: UnixTime },
    #[error("the channel metadata needs root metadata {named}, but the server shows none after {known}")]
    RootHidden { named: u64, known: u64 },
    #[error(
        "the channel metadata went back: counter {} of root {} was given, but counter {} of root {} was accepted before",
        given.1, given.0, known.1, known.0
    )]
    WentBack { given: (u64, u64), known: (u64, u64) },
}

/// Why a release's manifest is not accepted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum VerifyManifestError {
    #[error("the manifest's {field} is {signed}, but the channel promised {promised}")]
    Differs { field: &'static str, signed: String, promised: String },
    #[error("the manifest is not the file that the channel promised")]
    File(#[from] FileMismatch),
    #[error("the manifest is not believed")]
    Open(#[from] OpenError<ManifestError>),
}

#[cfg(test)]
mod tests;
