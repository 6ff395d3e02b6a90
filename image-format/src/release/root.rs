//! Root metadata: which keys may sign what, and how many of them must agree.
//!
//! Knows the document, the step from one to the next, and what each role's keys may open. Refuses to know
//! where documents come from: a caller brings each by its number. Invariant: a [`TrustedRoot`] was signed by
//! enough of its own root keys, and was reached from one that the machine had, one number at a time, each
//! signed by the one before it too.
//!
//! A root that has expired still leads to its successor: otherwise a machine that slept through a year could
//! never be reached again. Only the last of the chain must be young, and [`super::trust`] asks that.
//!
//! Documentation: <https://theupdateframework.github.io/specification/latest/>, section 5.3.

use serde::{Deserialize, Serialize};

use super::channel::{ChannelError, ChannelMetadata};
use super::time::UnixTime;
use super::{FormatError, check_format};
use crate::manifest::{Manifest, ManifestError};
use crate::signed::{
    Keyring, MakeKeyringError, ParseEnvelopeError, ParseKeyError, PublicKey, Signed, SignedPayload, Verified,
    VerifyError,
};

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;
/// Bytes of the largest root metadata that is read.
// With sixteen signatures it must fit into an envelope.
pub const MAX_ROOT: usize = 32 << 10;
/// Keys that a role may have: as many as an envelope has room for signatures.
pub const MAX_KEYS: usize = 16;
/// Steps that are followed at one time. A server that makes roots without end is stopped by it; a machine that
/// is more steps behind goes on at its next check (TUF's clients allow 1024 of up to 500 kB; ours are smaller).
pub const MAX_STEPS: u64 = 256;

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Channel metadata: what is offered, to whom, until when.
    Channel,
    /// Manifests of releases: what a slot may hold.
    Release,
    /// Root metadata: who may sign.
    Root,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Release, Self::Root];

    /// Its name in documents and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Release => "release",
            Self::Root => "root",
        }
    }
}

/// The keys of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// How many different ones must sign.
    pub threshold: usize,
    /// Each one as the line of its file. A line of a kind that is not known here is kept, and counts for nothing.
    pub keys: Vec<String>,
}

impl RoleKeys {
    /// The role's keys that are of a kind known here, each once.
    pub fn known_keys(&self) -> Result<Vec<PublicKey>, ParseKeyError> {
        let known = self.keys.iter().filter(|line| PublicKey::is_known_kind(line));
        let mut keys: Vec<PublicKey> = Vec::new();
        for key in known.map(|line| line.parse::<PublicKey>()) {
            let key = key?;
            // A key that is listed twice, with two comments, must not count twice.
            if keys.iter().all(|other| other.key_id() != key.key_id()) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// A role of these keys.
    #[must_use]
    pub fn from_keys(keys: &[PublicKey], threshold: usize) -> Self {
        let keys = keys.iter().map(|key| key.to_text().trim_end().to_owned()).collect();
        Self { threshold, keys }
    }

    fn check_threshold(&self, role: Role) -> Result<(), RootError> {
        let Self { threshold, keys } = self;
        if keys.len() > MAX_KEYS {
            return Err(RootError::TooManyKeys { role: role.name(), given: keys.len() });
        }
        let known = self.known_keys().map_err(|source| RootError::Key { role: role.name(), source })?;
        // Keys of a later kind may be what makes the number whole; whether one can verify is asked when one must.
        let unknown = keys.iter().filter(|line| !PublicKey::is_known_kind(line)).count();
        let different = known.len() + unknown;
        if *threshold == 0 || *threshold > different {
            return Err(RootError::Threshold { role: role.name(), threshold: *threshold, keys: different });
        }
        Ok(())
    }
}

/// The keys of each role. A role that is not known here is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Who signs channel metadata.
    pub channel: RoleKeys,
    /// Who signs manifests.
    pub release: RoleKeys,
    /// Who signs the next root metadata.
    pub root: RoleKeys,
}

/// Who may sign what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMetadata {
    /// [`FORMAT`].
    pub format: u32,
    /// Its place in the chain, from 1.
    pub number: u64,
    /// When it was written. A clock floor that a thief of a channel key has pushed into the future goes back to this.
    pub written: UnixTime,
    /// When it stops being the last of the chain that may be believed.
    pub expires: UnixTime,
    /// The keys.
    pub roles: Roles,
}

impl RootMetadata {
    /// The keys of a role.
    #[must_use]
    pub const fn role_keys(&self, role: Role) -> &RoleKeys {
        match role {
            Role::Channel => &self.roles.channel,
            Role::Release => &self.roles.release,
            Role::Root => &self.roles.root,
        }
    }

    /// The bytes to sign.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RootError> {
        self.check_metadata()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|source| RootError::Json { source })?;
        bytes.push(b'\n');
        check_size(&bytes)?;
        Ok(bytes)
    }

    /// What opens documents of a role.
    pub fn role_keyring(&self, role: Role) -> Result<Keyring, MakeKeyringError> {
        let keys = self.role_keys(role);
        // Each line was parsed when the metadata was read, so none is lost here.
        Keyring::new(keys.known_keys().unwrap_or_default(), keys.threshold)
    }

    fn check_metadata(&self) -> Result<(), RootError> {
        if self.format != FORMAT {
            return Err(FormatError { given: self.format, known: FORMAT }.into());
        }
        if self.number == 0 {
            return Err(RootError::Number);
        }
        Role::ALL.into_iter().try_for_each(|role| self.role_keys(role).check_threshold(role))
    }
}

impl SignedPayload for RootMetadata {
    const ROLE: &'static str = "root";
    type Error = RootError;

    fn from_bytes(bytes: &[u8]) -> Result<Self, RootError> {
        check_size(bytes)?;
        let json = |source| RootError::Json { source };
        check_format(bytes, FORMAT).map_err(json)??;
        let root: Self = serde_json::from_slice(bytes).map_err(json)?;
        root.check_metadata()?;
        Ok(root)
    }
}

fn check_size(bytes: &[u8]) -> Result<(), RootError> {
    if bytes.len() > MAX_ROOT { Err(RootError::TooLarge { given: bytes.len() }) } else { Ok(()) }
}

/// Root metadata that this machine believes.
#[derive(Debug, Clone)]
pub struct TrustedRoot {
    metadata: Verified<RootMetadata>,
    envelope: Vec<u8>,
}

impl TrustedRoot {
    /// Begins a chain with an envelope that was already trusted: one from a verified root file system, or
    /// one that this machine had accepted and kept. It must still be signed by its own keys, so that a publisher's
    /// mistake shows before an image is built with it.
    pub fn anchor_chain(envelope: &[u8]) -> Result<Self, TrustRootError> {
        let signed = Signed::<RootMetadata>::from_envelope(envelope)?;
        // Nobody has vouched for these keys but who brought the envelope: the caller says that this is enough.
        let unverified = RootMetadata::from_bytes(signed.unverified_payload())?;
        let metadata = unverified.role_keyring(Role::Root)?.verify_signed(&signed)?;
        Ok(Self { metadata, envelope: envelope.to_vec() })
    }

    /// The root that follows: exactly one number on, signed by enough root keys of both.
    pub fn next(&self, envelope: &[u8]) -> Result<Self, FollowRootError> {
        let signed = Signed::<RootMetadata>::from_envelope(envelope)?;
        let old = self.metadata.role_keyring(Role::Root).map_err(FollowRootError::Keyring)?;
        // TUF 5.3.4: by the keys of the old root and by those of the new one, so that a thief of new keys
        // alone gets nowhere.
        let metadata = old.verify_signed(&signed).map_err(|source| FollowRootError::Old { source })?;
        let expected = self.number().saturating_add(1);
        // TUF 5.3.5: no number is left out, or a server could hide the root that took a key away.
        if metadata.number != expected {
            return Err(FollowRootError::Number { given: metadata.number, expected });
        }
        let new = metadata.role_keyring(Role::Root).map_err(FollowRootError::Keyring)?;
        let metadata = new.verify_signed(&signed).map_err(|source| FollowRootError::New { source })?;
        Ok(Self { metadata, envelope: envelope.to_vec() })
    }

    /// Follows the chain to its end. `fetch` brings the root of a number, reads no more than
    /// [`crate::signed::MAX_ENVELOPE`] bytes and one, and gives `None` only where the server
    /// says that there is none: a connection that failed says nothing about the chain, and is an error.
    /// What was reached before an error stays.
    pub fn follow_chain<E: std::error::Error + 'static>(
        &mut self,
        mut fetch: impl FnMut(u64) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<u64, FollowRootsError<E>> {
        for steps in 0..MAX_STEPS {
            let number = self.number().saturating_add(1);
            let found = fetch(number).map_err(|source| FollowRootsError::Fetch { number, source })?;
            let Some(envelope) = found else { return Ok(steps) };
            *self = self.next(&envelope).map_err(|source| FollowRootsError::Follow { number, source })?;
        }
        Ok(MAX_STEPS)
    }

    /// What it says.
    #[must_use]
    pub fn metadata(&self) -> &RootMetadata {
        &self.metadata
    }

    /// The bytes by which it can be believed again after a restart.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Its place in the chain.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.metadata.number
    }

    /// Opens a document of a role.
    pub(super) fn open_document<T: SignedPayload>(
        &self,
        role: Role,
        signed: &Signed<T>,
    ) -> Result<Verified<T>, OpenError<T::Error>> {
        Ok(self.metadata.role_keyring(role)?.verify_signed(signed)?)
    }

    /// Opens a channel's metadata as its publisher does, who has accepted nothing before it. A machine asks
    /// [`super::trust::verify_channel`].
    pub fn open_channel(
        &self,
        envelope: &[u8],
    ) -> Result<Verified<ChannelMetadata>, OpenError<ChannelError>> {
        self.open_document(Role::Channel, &Signed::from_envelope(envelope)?)
    }

    /// Opens a release's manifest, whichever channel offers it.
    pub fn open_manifest(&self, envelope: &[u8]) -> Result<Verified<Manifest>, OpenError<ManifestError>> {
        self.open_document(Role::Release, &Signed::from_envelope(envelope)?)
    }
}

/// Why bytes are not root metadata.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RootError {
    #[error("the root metadata is not for this program")]
    Format(#[from] FormatError),
    #[error("the root metadata is not the JSON it should be")]
    Json { source: serde_json::Error },
    #[error("a key of the role {role} cannot be read")]
    Key { role: &'static str, source: ParseKeyError },
    #[error("root metadata is counted from 1, not from 0")]
    Number,
    #[error("the role {role} wants {threshold} of {keys} different keys to agree, which is not possible")]
    Threshold { role: &'static str, threshold: usize, keys: usize },
    #[error("the root metadata has {given} bytes, at most {MAX_ROOT} are read")]
    TooLarge { given: usize },
    #[error("the role {role} has {given} keys, at most {MAX_KEYS} are read")]
    TooManyKeys { role: &'static str, given: usize },
}

/// Why root metadata cannot begin a chain.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum TrustRootError {
    #[error("the root metadata is no signed document")]
    Envelope(#[from] ParseEnvelopeError),
    #[error("the root metadata cannot be used")]
    Keyring(#[from] MakeKeyringError),
    #[error("the root metadata cannot be read")]
    Root(#[from] RootError),
    #[error("the root metadata is not signed by its own keys")]
    Signature(#[from] VerifyError<RootError>),
}

/// Why root metadata does not follow.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum FollowRootError {
    #[error("it is no signed document")]
    Envelope(#[from] ParseEnvelopeError),
    #[error("too few of its root keys are of a kind known here")]
    Keyring(#[source] MakeKeyringError),
    #[error("its own root keys did not sign it")]
    New { source: VerifyError<RootError> },
    #[error("it has number {given}, but only number {expected} follows")]
    Number { given: u64, expected: u64 },
    #[error("the root keys of the one before it did not sign it")]
    Old { source: VerifyError<RootError> },
}

/// Why the chain of roots was not followed to its end.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum FollowRootsError<E: std::error::Error + 'static> {
    #[error("cannot fetch root metadata {number}")]
    Fetch { number: u64, source: E },
    #[error("cannot follow to root metadata {number}")]
    Follow { number: u64, source: FollowRootError },
}

/// Why a document of a role is not believed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum OpenError<E: std::error::Error + 'static> {
    #[error("it is no signed document of this kind")]
    Envelope(#[from] ParseEnvelopeError),
    #[error("too few of the keys that may sign it are of a kind known here")]
    Keyring(#[from] MakeKeyringError),
    #[error("its signatures are not those that the root metadata wants")]
    Verify(#[from] VerifyError<E>),
}

#[cfg(test)]
mod tests;
