//! What the channel offers this machine, and the release itself, believed step by step.
//!
//! Knows the order: the chain of roots, the channel, the choice, the manifest. Judging is `image_format::release`;
//! what was accepted is kept on STATE before it is acted on, so that a replay or a freeze is seen even after a
//! restart. Refuses to write slots. Invariant: a document is bounded before it is fetched, believed only after its
//! signatures held, and a mirror that shows something older is passed over for the next one.

use std::fs;
use std::io;
use std::path::Path;

use image_format::release::channel::{ChannelMetadata, FileReference, OfferedRelease};
use image_format::release::paths::{self, ChannelName, ParseChannelNameError};
use image_format::release::rollout::{AskedBy, FailedRelease, MachineFacts, ReleaseChoice, choose_release};
use image_format::release::root::{FollowRootsError, TrustRootError, TrustedRoot};
use image_format::release::session::TrustSession;
use image_format::release::time::UnixTime;
use image_format::release::trust::{
    AcceptedChannel, TrustState, VerifyChannelError, VerifyManifestError, verify_manifest,
};
use image_format::release::wave::WavePlace;
use image_format::signed::MAX_ENVELOPE;
use image_format::version::Version;

use super::install::TrustedRelease;
use super::journal::Journal;
use super::kept_trust::{KeepTrustError, keep_trust, read_bounded, read_trust};
use super::machine::UpdateMachine;
use super::transport::{FetchError, FetchFileError, Mirrors};

/// The root of the chain that came with the image, inside the verified root.
pub(crate) const IMAGE_ROOT: &str = "usr/share/catamaran/root";
const MACHINE_ID: &str = "etc/machine-id";

/// A repository, as this machine believes it.
#[derive(Debug)]
pub(crate) struct Repository<'a> {
    machine: &'a UpdateMachine,
    mirrors: &'a Mirrors,
    session: TrustSession,
    /// What the file on STATE holds.
    kept: TrustState,
}

/// What a channel said, and which mirror said it.
#[derive(Debug)]
pub(crate) struct SeenChannel {
    /// Accepted and kept.
    pub(crate) metadata: AcceptedChannel,
    /// The mirror that had it.
    pub(crate) mirror: usize,
}

/// Why the channel could not be asked, or is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskChannelError {
    #[error(
        "this image has no root of trust for updates (/{IMAGE_ROOT}): build it with --update-root, or install by hand"
    )]
    NoRoot { source: io::Error },
    #[error("/{IMAGE_ROOT} is not root metadata")]
    Root { source: Box<TrustRootError> },
    #[error("cannot follow the chain of roots")]
    Follow { source: Box<FollowRootsError<FetchFileError>> },
    #[error("no mirror answers")]
    Fetch(#[from] FetchError),
    #[error("mirror {mirror} cannot be believed")]
    Channel { mirror: String, source: Box<VerifyChannelError> },
    #[error("{name:?} is not the name of a channel")]
    Name { name: String, source: ParseChannelNameError },
    #[error(transparent)]
    Keep(#[from] KeepTrustError),
    #[error("the manifest of {version} is not believed")]
    Manifest { version: Version, source: Box<VerifyManifestError> },
}

impl<'a> Repository<'a> {
    /// Reads what is trusted, without asking anyone.
    pub(crate) fn open_trusted(
        machine: &'a UpdateMachine,
        mirrors: &'a Mirrors,
        clock: u64,
    ) -> Result<Self, AskChannelError> {
        let anchor = read_bounded(&machine.root.join(IMAGE_ROOT), MAX_ENVELOPE);
        let anchor = anchor.map_err(|source| AskChannelError::NoRoot { source })?;
        let anchor = TrustedRoot::anchor_chain(&anchor)
            .map_err(|source| AskChannelError::Root { source: Box::new(source) })?;
        let kept = read_trust(&machine.root);
        let [clock, built] = [clock, machine.record.built].map(UnixTime::from_seconds);
        let session = TrustSession::begin_session(kept.clone(), anchor, clock, built);
        Ok(Self { machine, mirrors, session, kept })
    }

    /// Asks the mirrors in turn until one shows a channel that can be believed.
    pub(crate) fn ask_channel(&mut self, name: &str) -> Result<SeenChannel, AskChannelError> {
        let channel = name.parse::<ChannelName>();
        let channel = channel.map_err(|source| AskChannelError::Name { name: name.to_owned(), source })?;
        let mut last = AskChannelError::Fetch(FetchError::NoMirror);
        for mirror in 0..self.mirrors.count_mirrors() {
            match self.ask_mirror(&channel, mirror) {
                Ok(metadata) => return Ok(SeenChannel { metadata, mirror }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn ask_mirror(
        &mut self,
        channel: &ChannelName,
        mirror: usize,
    ) -> Result<AcceptedChannel, AskChannelError> {
        self.follow_roots(mirror)?;
        let path = paths::channel_path(channel);
        let envelope = self.mirrors.fetch_from(mirror, &path, MAX_ENVELOPE as u64);
        let envelope = envelope.map_err(|source| FetchError::Nowhere { path, source })?;
        let accepted = self.session.accept_channel(&envelope, channel);
        self.keep_trust()?;
        accepted.map_err(|source| AskChannelError::Channel {
            mirror: self.mirrors.mirror_name(mirror),
            source: Box::new(source),
        })
    }

    /// Follows the chain of roots as this mirror shows it.
    fn follow_roots(&mut self, mirror: usize) -> Result<(), AskChannelError> {
        let mirrors = self.mirrors;
        let followed = self.session.follow_roots(|number| {
            match mirrors.fetch_from(mirror, &paths::root_path(number), MAX_ENVELOPE as u64) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.is_missing() => Ok(None),
                Err(error) => Err(error),
            }
        });
        // Before its error, and before the channel: a root that took a stolen key away must not be forgotten because
        // something after it failed. A thief of that key can make the channel fail at each check.
        self.keep_trust()?;
        followed.map(drop).map_err(|source| AskChannelError::Follow { source: Box::new(source) })
    }

    /// Which of its releases is for this machine now.
    pub(crate) fn choose_release<'b>(
        &self,
        channel: &'b ChannelMetadata,
        journal: &Journal,
        asked_by: AskedBy,
    ) -> ReleaseChoice<'b> {
        choose_release(channel, &self.machine_facts(journal, asked_by), self.session.judged_time())
    }

    /// Fetches the signed manifest of an offered release, from any mirror that has the promised bytes.
    pub(crate) fn fetch_manifest(
        &self,
        channel: &ChannelMetadata,
        offered: &OfferedRelease,
    ) -> Result<TrustedRelease, AskChannelError> {
        let envelope =
            self.fetch_file(&paths::manifest_path(&offered.version), &offered.manifest, MAX_ENVELOPE)?;
        let manifest =
            verify_manifest(&envelope, offered, channel, self.session.trusted_root()).map_err(|source| {
                AskChannelError::Manifest { version: offered.version.clone(), source: Box::new(source) }
            })?;
        Ok(TrustedRelease { manifest, envelope })
    }

    /// Fetches a file of at most `limit` bytes whose bytes the signed channel promises. A mirror that has others is
    /// passed over.
    pub(crate) fn fetch_file(
        &self,
        path: &str,
        promised: &FileReference,
        limit: usize,
    ) -> Result<Vec<u8>, AskChannelError> {
        // A thief of a channel key can promise any length, and the file is read into memory.
        let limit = limit as u64;
        if promised.bytes > limit {
            let source = FetchFileError::TooLong { address: path.to_owned(), limit };
            return Err(FetchError::Nowhere { path: path.to_owned(), source }.into());
        }
        let mut last = FetchError::NoMirror;
        for mirror in 0..self.mirrors.count_mirrors() {
            match self.mirrors.fetch_from(mirror, path, promised.bytes) {
                Ok(bytes) if promised.check_bytes(&bytes).is_ok() => return Ok(bytes),
                Ok(_) => {
                    let source = FetchFileError::Forged {
                        address: format!("{}/{path}", self.mirrors.mirror_name(mirror)),
                    };
                    last = FetchError::Nowhere { path: path.to_owned(), source };
                }
                Err(source) => last = FetchError::Nowhere { path: path.to_owned(), source },
            }
        }
        Err(last.into())
    }

    fn machine_facts(&self, journal: &Journal, asked_by: AskedBy) -> MachineFacts {
        let record = &self.machine.record;
        let condemned =
            journal.failed.iter().filter(|failed| journal.find_objection(failed.root_hash).is_some());
        let failed = condemned.map(|failed| FailedRelease {
            version: failed.version.clone(),
            manifest: FileReference { bytes: failed.manifest.bytes, sha256: failed.manifest.sha256 },
            reason: failed.reason.clone(),
        });
        let id = fs::read_to_string(self.machine.root.join(MACHINE_ID)).unwrap_or_default();
        MachineFacts {
            image: record.name.clone(),
            architecture: machine_architecture(),
            version: record.version.clone(),
            agent: env!("CARGO_PKG_VERSION").parse().unwrap_or(Version::new(0, 0, 0)),
            place: WavePlace::of_machine(id.trim()),
            security_epoch: self.machine.security_epoch(),
            free_bytes: free_bytes(&self.machine.root.join("var")),
            pin: journal.pinned.clone(),
            failed: failed.collect(),
            asked_by,
        }
    }

    /// Keeps what the session knows, unless that is kept already: each write wears the disk.
    fn keep_trust(&mut self) -> Result<(), KeepTrustError> {
        if self.kept != *self.session.trust_state() {
            keep_trust(&self.machine.root, self.session.trust_state())?;
            self.kept = self.session.trust_state().clone();
        }
        Ok(())
    }
}

/// The machine, as `uname -m` names it.
pub(crate) fn machine_architecture() -> String {
    let name = nix::sys::utsname::uname();
    name.map_or_else(|_| String::new(), |name| name.machine().to_string_lossy().into_owned())
}

fn free_bytes(folder: &Path) -> u64 {
    let found = nix::sys::statvfs::statvfs(folder);
    found.map_or(0, |found| found.blocks_available().saturating_mul(found.fragment_size()))
}

#[cfg(test)]
mod tests;
