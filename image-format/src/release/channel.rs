//! Channel metadata: what a channel offers now, to which share of its machines, and until when that is true.
//!
//! Knows the document and which values make sense. Refuses to know who reads it ([`super::trust`]) and which of
//! its releases is for a machine ([`super::rollout`]). Invariant: the releases of metadata that was read
//! are in ascending order of version, each once, and no wave shrinks or moves back.

use serde::{Deserialize, Serialize};

use super::paths::ChannelName;
use super::time::UnixTime;
use super::wave::Wave;
use super::{FormatError, check_format};
use crate::digest::Sha256;
use crate::signed::SignedPayload;
use crate::version::Version;

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;
/// Bytes of the largest channel metadata that is read.
// With sixteen signatures it must fit into an envelope.
pub const MAX_CHANNEL: usize = 32 << 10;
/// Releases that a channel may offer at one time: floors add up over the years, and the rest are few.
pub const MAX_RELEASES: usize = 48;
/// Waves of one release.
pub const MAX_WAVES: usize = 16;
/// Bytes of a reason that a person gave.
pub const MAX_REASON: usize = 256;
/// The longest word: the name of an image or of an architecture.
pub const MAX_WORD: usize = 64;

/// What a file of the repository is: nothing of it is read before both are as promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReference {
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Sha256,
}

impl FileReference {
    /// The reference of these bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: Sha256::digest_of(bytes) }
    }

    /// Whether these are the bytes that were promised.
    pub fn check_bytes(&self, bytes: &[u8]) -> Result<(), FileMismatch> {
        let found = Self::of_bytes(bytes);
        if found == *self { Ok(()) } else { Err(FileMismatch { promised: *self, found }) }
    }
}

/// Bytes that are not the promised ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} bytes with SHA-256 {} were promised, but {} bytes with SHA-256 {} came",
    promised.bytes, promised.sha256, found.bytes, found.sha256
)]
pub struct FileMismatch {
    promised: FileReference,
    found: FileReference,
}

/// A release that a channel offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedRelease {
    /// Its version, which names its folder.
    pub version: Version,
    /// The signed manifest.
    pub manifest: FileReference,
    /// The payload index.
    pub index: FileReference,
    /// The bill of materials.
    pub sbom: FileReference,
    /// Its security epoch: a machine never goes below the highest that proved itself on it.
    #[serde(default)]
    pub security_epoch: u32,
    /// Whether no machine may pass it by: one that is older installs it before anything newer.
    #[serde(default)]
    pub floor: bool,
    /// Which share of the machines may have it from when on. None means all machines, at once.
    #[serde(default)]
    pub waves: Vec<Wave>,
    /// The oldest agent that can install it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_agent: Option<Version>,
    /// Bytes that must be free on STATE.
    #[serde(default)]
    pub least_free_bytes: u64,
    /// Why it is no longer to be installed, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}

impl OfferedRelease {
    fn check_release(&self) -> Result<(), ChannelError> {
        let version = &self.version;
        if self.waves.len() > MAX_WAVES {
            return Err(ChannelError::TooManyWaves { version: version.clone(), given: self.waves.len() });
        }
        // A wave that shrinks would take a release back from machines that may have it already.
        let in_order =
            |pair: &[Wave]| pair[0].machines <= pair[1].machines && pair[0].not_before <= pair[1].not_before;
        if !self.waves.windows(2).all(in_order) {
            return Err(ChannelError::WaveOrder { version: version.clone() });
        }
        check_reason(self.withdrawn.as_deref())
    }
}

/// What a channel offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelMetadata {
    /// [`FORMAT`].
    pub format: u32,
    /// The channel. A mirror that answers with another channel's metadata is found out by it.
    pub channel: ChannelName,
    /// The image that its releases are of, as their manifests name it.
    pub image: String,
    /// The machine that they run on, as `uname -m` names it.
    pub architecture: String,
    /// The number of the root metadata that was the newest when this was signed. A mirror that hides a newer root,
    /// and with it a key's revocation, is found out by it.
    pub root: u64,
    /// Grows with each change, and never goes back below the same root.
    pub counter: u64,
    /// When it was signed.
    pub written: UnixTime,
    /// When it must no longer be believed: a mirror that stands still is found out by it.
    pub expires: UnixTime,
    /// Why nothing is to be installed by itself, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// The lowest security epoch that is still offered.
    #[serde(default)]
    pub security_epoch: u32,
    /// The releases, oldest first: the newest, some before it, and the floors.
    pub releases: Vec<OfferedRelease>,
}

impl ChannelMetadata {
    /// The bytes to sign.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ChannelError> {
        self.check_metadata()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|source| ChannelError::Json { source })?;
        bytes.push(b'\n');
        check_size(&bytes)?;
        Ok(bytes)
    }

    /// The release of a version.
    #[must_use]
    pub fn find_release(&self, version: &Version) -> Option<&OfferedRelease> {
        self.releases.iter().find(|release| release.version == *version)
    }

    fn check_metadata(&self) -> Result<(), ChannelError> {
        if self.format != FORMAT {
            return Err(FormatError { given: self.format, known: FORMAT }.into());
        }
        for (field, value) in [("image", &self.image), ("architecture", &self.architecture)] {
            if !is_word(value) {
                return Err(ChannelError::Word { field, value: value.chars().take(MAX_WORD).collect() });
            }
        }
        if self.expires < self.written {
            return Err(ChannelError::Times { written: self.written, expires: self.expires });
        }
        if self.releases.len() > MAX_RELEASES {
            return Err(ChannelError::TooManyReleases { given: self.releases.len() });
        }
        // In order, so that the search for the newest and for floors need not sort what a stranger wrote.
        if let Some(pair) = self.releases.windows(2).find(|pair| pair[0].version >= pair[1].version) {
            return Err(ChannelError::ReleaseOrder { version: pair[1].version.clone() });
        }
        check_reason(self.paused.as_deref())?;
        self.releases.iter().try_for_each(OfferedRelease::check_release)
    }
}

impl SignedPayload for ChannelMetadata {
    const ROLE: &'static str = "channel";
    type Error = ChannelError;

    fn from_bytes(bytes: &[u8]) -> Result<Self, ChannelError> {
        check_size(bytes)?;
        let json = |source| ChannelError::Json { source };
        check_format(bytes, FORMAT).map_err(json)??;
        let channel: Self = serde_json::from_slice(bytes).map_err(json)?;
        channel.check_metadata()?;
        Ok(channel)
    }
}

fn check_size(bytes: &[u8]) -> Result<(), ChannelError> {
    if bytes.len() > MAX_CHANNEL { Err(ChannelError::TooLarge { given: bytes.len() }) } else { Ok(()) }
}

fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(allowed)
}

/// A reason is shown on consoles and at logins: one line, and no control characters that would move a cursor.
fn check_reason(reason: Option<&str>) -> Result<(), ChannelError> {
    let fine = |text: &str| (1..=MAX_REASON).contains(&text.len()) && !text.chars().any(char::is_control);
    if reason.is_none_or(fine) { Ok(()) } else { Err(ChannelError::Reason) }
}

/// Why bytes are not channel metadata.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ChannelError {
    #[error("the channel metadata is not for this program")]
    Format(#[from] FormatError),
    #[error("the channel metadata is not the JSON it should be")]
    Json { source: serde_json::Error },
    #[error("a reason is one line of 1 to {MAX_REASON} bytes without control characters")]
    Reason,
    #[error("release {version} stands behind one that is as new: releases are listed once, oldest first")]
    ReleaseOrder { version: Version },
    #[error("it was written at {written}, but expires before that, at {expires}")]
    Times { written: UnixTime, expires: UnixTime },
    #[error("the channel metadata has {given} bytes, at most {MAX_CHANNEL} are read")]
    TooLarge { given: usize },
    #[error("the channel offers {given} releases, at most {MAX_RELEASES} are read")]
    TooManyReleases { given: usize },
    #[error("release {version} has {given} waves, at most {MAX_WAVES} are read")]
    TooManyWaves { version: Version, given: usize },
    #[error("a wave of release {version} has fewer machines, or comes earlier, than the one before it")]
    WaveOrder { version: Version },
    #[error("the {field} is {value:?}, which is not 1 to {MAX_WORD} letters, digits, '.', '-' or '_'")]
    Word { field: &'static str, value: String },
}

#[cfg(test)]
mod tests;
