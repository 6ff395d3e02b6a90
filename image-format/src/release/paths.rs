//! Where things stand in a repository: a folder of plain files that any static web server can serve.
//!
//! Knows every name, so that the publisher and the client cannot disagree. Refuses to know folders and
//! addresses: each path is relative, with `/` between its names. Invariant: no text from outside becomes part of
//! a path but by a type whose grammar has no `/`, no `..` and nothing that an address must escape.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::version::Version;

/// The longest name of a channel. It is a file's name and a word of configuration: as long as a host's label.
pub const MAX_CHANNEL_NAME: usize = 63;

/// The name of a channel, such as `stable`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelName(String);

impl ChannelName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ChannelName {
    type Err = ParseChannelNameError;

    fn from_str(text: &str) -> Result<Self, ParseChannelNameError> {
        // No capital letters: a repository may lie on a file system that does not tell them apart. No dot in
        // front: publishers hide their unfinished files by one.
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let allowed = |byte: u8| plain(byte) || b".-_".contains(&byte);
        let begins = text.bytes().next().is_some_and(plain);
        if begins && text.len() <= MAX_CHANNEL_NAME && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseChannelNameError { given: text.chars().take(MAX_CHANNEL_NAME).collect() })
    }
}

impl TryFrom<String> for ChannelName {
    type Error = ParseChannelNameError;

    fn try_from(text: String) -> Result<Self, ParseChannelNameError> {
        text.parse()
    }
}

impl From<ChannelName> for String {
    fn from(name: ChannelName) -> Self {
        name.0
    }
}

/// A text that names no channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no name of a channel: it needs 1 to {MAX_CHANNEL_NAME} characters out of a-z, 0-9, '.', '-' and '_', \
     and begins with a letter or a digit"
)]
pub struct ParseChannelNameError {
    given: String,
}

/// The root metadata of that number.
#[must_use]
pub fn root_path(number: u64) -> String {
    // A name for each number and no name for the newest: files never change, so every cache may keep them for
    // ever.
    format!("root/{number}")
}

/// The channel's metadata: the one file that changes in place.
#[must_use]
pub fn channel_path(name: &ChannelName) -> String {
    format!("channel/{name}")
}

/// The signed manifest of a release.
#[must_use]
pub fn manifest_path(version: &Version) -> String {
    format!("release/{version}/manifest")
}

/// The payload index of a release.
#[must_use]
pub fn index(version: &Version) -> String {
    format!("release/{version}/index")
}

/// The bill of materials of a release.
#[must_use]
pub fn sbom_path(version: &Version) -> String {
    format!("release/{version}/sbom")
}

/// A compressed piece, by the digest of its file.
#[must_use]
pub fn chunk_path(digest: Sha256) -> String {
    content_addressed("chunk", digest)
}

/// A patch, by the digest of its file.
#[must_use]
pub fn patch_path(digest: Sha256) -> String {
    content_addressed("patch", digest)
}

/// Two digits are a folder of their own: some file systems and tools are slow with 100 000 names in one.
fn content_addressed(folder: &str, digest: Sha256) -> String {
    let digest = digest.to_string();
    format!("{folder}/{}/{digest}", &digest[..2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channels_name_is_no_way_out_of_its_folder() {
        let long = "a".repeat(MAX_CHANNEL_NAME + 1);
        for text in
            ["", ".", "..", "../root", "a/b", ".hidden", "-x", "Stable", "a b", "ä", "a%2f", "a\0", &long]
        {
            assert!(text.parse::<ChannelName>().is_err(), "{text:?} was accepted");
        }
        for text in ["stable", "beta-2", "0", "lts_13.1"] {
            assert_eq!(text.parse::<ChannelName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_file_has_its_place() {
        let version: Version = "1.2.3+20261128".parse().unwrap();
        let digest = Sha256::digest_of(b"");

        assert_eq!(root_path(12), "root/12");
        assert_eq!(channel_path(&"stable".parse().unwrap()), "channel/stable");
        assert_eq!(manifest_path(&version), "release/1.2.3+20261128/manifest");
        assert_eq!(index(&version), "release/1.2.3+20261128/index");
        assert_eq!(sbom_path(&version), "release/1.2.3+20261128/sbom");
        assert_eq!(chunk_path(digest), format!("chunk/e3/{digest}"));
        assert_eq!(patch_path(digest), format!("patch/e3/{digest}"));
    }
}
