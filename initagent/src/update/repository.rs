//! What the channel offers this machine, and the release itself, believed step by step.
//!
//! Knows the order: the chain of roots, the channel, the choice, the manifest. Judging is `image_format::release`;
//! what was accepted is kept on STATE before it is acted on, so that a replay or a freeze is seen even after a
//! restart. Refuses to write slots. Invariant: a document is bounded before it is fetched, believed only after its
//! signatures held, and a mirror that shows something older is passed over for the next one.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use image_format::release::channel::{ChannelMetadata, FileReference, MAX_CHANNEL, OfferedRelease};
use image_format::release::paths::{self, ChannelName, ParseChannelNameError};
use image_format::release::rollout::{AskedBy, FailedRelease, MachineFacts, ReleaseChoice, choose_release};
use image_format::release::root::{FollowRootsError, MAX_ROOT, TrustRootError, TrustedRoot};
use image_format::release::time::UnixTime;
use image_format::release::trust::{
    AcceptedChannel, TrustState, TrustStateError, VerifyChannelError, VerifyManifestError, verify_channel,
    verify_manifest,
};
use image_format::release::wave::WavePlace;
use image_format::signed::MAX_ENVELOPE;
use image_format::version::Version;

use super::install::TrustedRelease;
use super::journal::Journal;
use super::machine::UpdateMachine;
use super::transport::{FetchError, FetchFileError, Mirrors};

/// The root of the chain that came with the image, inside the verified root.
const IMAGE_ROOT: &str = "usr/share/catamaran/root";
/// What was accepted before.
const TRUST: &str = "var/lib/catamaran/update/trust.json";
const MACHINE_ID: &str = "etc/machine-id";

/// A repository, as this machine believes it.
#[derive(Debug)]
pub(crate) struct Repository<'a> {
    machine: &'a UpdateMachine,
    mirrors: &'a Mirrors,
    root: TrustedRoot,
    state: TrustState,
    now: UnixTime,
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
    #[error("cannot keep what was accepted in /{TRUST}")]
    Keep { source: io::Error },
    #[error("cannot encode what was accepted")]
    Encode(#[from] TrustStateError),
    #[error("the manifest of {version} is not believed")]
    Manifest { version: Version, source: Box<VerifyManifestError> },
}

impl<'a> Repository<'a> {
    /// Reads what is trusted, without asking anyone.
    pub(crate) fn open(
        machine: &'a UpdateMachine,
        mirrors: &'a Mirrors,
        clock: u64,
    ) -> Result<Self, AskChannelError> {
        let anchor = read_bounded(&machine.root.join(IMAGE_ROOT), MAX_ENVELOPE as u64);
        let anchor = anchor.map_err(|source| AskChannelError::NoRoot { source })?;
        let anchor = TrustedRoot::anchor(&anchor)
            .map_err(|source| AskChannelError::Root { source: Box::new(source) })?;
        let state = read_state(&machine.root);
        let root = state.newest_root(anchor);
        let now = state.judged_time(UnixTime::from_seconds(clock), UnixTime::default());
        Ok(Self { machine, mirrors, root, state, now })
    }

    /// Asks the mirrors in turn until one shows a channel that can be believed.
    pub(crate) fn ask_channel(&mut self, name: &str) -> Result<SeenChannel, AskChannelError> {
        let channel = name.parse::<ChannelName>();
        let channel = channel.map_err(|source| AskChannelError::Name { name: name.to_owned(), source })?;
        let mut last = AskChannelError::Fetch(FetchError::NoMirror);
        for mirror in 0..self.mirrors.count() {
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
        let mirrors = self.mirrors;
        let followed = self.root.follow(|number| {
            match mirrors.fetch_from(mirror, &paths::root(number), MAX_ROOT as u64) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.is_missing() => Ok(None),
                Err(error) => Err(error),
            }
        });
        // What was reached before an error stays, and is kept.
        self.state.record_root(&self.root);
        followed.map_err(|source| AskChannelError::Follow { source: Box::new(source) })?;
        let path = paths::channel(channel);
        let limit = (MAX_CHANNEL + MAX_ENVELOPE) as u64;
        let envelope = mirrors.fetch_from(mirror, &path, limit);
        let envelope = envelope.map_err(|source| FetchError::Nowhere { path, source })?;
        let accepted =
            verify_channel(&envelope, channel, &self.root, &self.state, self.now).map_err(|source| {
                AskChannelError::Channel { mirror: mirrors.name(mirror), source: Box::new(source) }
            })?;
        self.state.record_channel(&accepted, self.now);
        self.keep()?;
        Ok(accepted)
    }

    /// Which of its releases is for this machine now.
    pub(crate) fn choose<'b>(
        &self,
        channel: &'b ChannelMetadata,
        journal: &Journal,
        asked_by: AskedBy,
    ) -> ReleaseChoice<'b> {
        choose_release(channel, &self.machine_facts(journal, asked_by), self.now)
    }

    /// Fetches the signed manifest of an offered release, from any mirror that has the promised bytes.
    pub(crate) fn fetch_manifest(
        &self,
        channel: &ChannelMetadata,
        offered: &OfferedRelease,
    ) -> Result<TrustedRelease, AskChannelError> {
        let envelope = self.fetch_file(&paths::manifest(&offered.version), &offered.manifest)?;
        let manifest = verify_manifest(&envelope, offered, channel, &self.root).map_err(|source| {
            AskChannelError::Manifest { version: offered.version.clone(), source: Box::new(source) }
        })?;
        Ok(TrustedRelease { manifest, envelope })
    }

    /// Fetches a file whose bytes the signed channel promises: a mirror that has others is passed over.
    pub(crate) fn fetch_file(
        &self,
        path: &str,
        promised: &FileReference,
    ) -> Result<Vec<u8>, AskChannelError> {
        let mut last = FetchError::NoMirror;
        for mirror in 0..self.mirrors.count() {
            match self.mirrors.fetch_from(mirror, path, promised.bytes) {
                Ok(bytes) if promised.check(&bytes).is_ok() => return Ok(bytes),
                Ok(_) => {
                    let source =
                        FetchFileError::Forged { address: format!("{}/{path}", self.mirrors.name(mirror)) };
                    last = FetchError::Nowhere { path: path.to_owned(), source };
                }
                Err(source) => last = FetchError::Nowhere { path: path.to_owned(), source },
            }
        }
        Err(last.into())
    }

    fn machine_facts(&self, journal: &Journal, asked_by: AskedBy) -> MachineFacts {
        let record = &self.machine.record;
        let condemned = journal.failed.iter().filter(|failed| journal.objection(failed.root_hash).is_some());
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
            security_epoch: self.state.security_epoch,
            free_bytes: free_bytes(&self.machine.root.join("var")),
            pin: journal.pinned.clone(),
            failed: failed.collect(),
            asked_by,
        }
    }

    fn keep(&self) -> Result<(), AskChannelError> {
        let bytes = self.state.to_bytes()?;
        keep_file(&self.machine.root.join(TRUST), &bytes).map_err(|source| AskChannelError::Keep { source })
    }
}

/// Raises the machine's security epoch to that of a release that has proven itself.
pub(crate) fn record_good_release(root: &Path, security_epoch: u32) -> Result<(), AskChannelError> {
    let mut state = read_state(root);
    if state.security_epoch >= security_epoch {
        return Ok(());
    }
    state.record_good_release(security_epoch);
    keep_file(&root.join(TRUST), &state.to_bytes()?).map_err(|source| AskChannelError::Keep { source })
}

/// What was accepted before. A lost or damaged file is begun anew: the image's root and clock still hold.
fn read_state(root: &Path) -> TrustState {
    let bytes = read_bounded(&root.join(TRUST), image_format::release::trust::MAX_STATE as u64);
    bytes.ok().and_then(|bytes| TrustState::from_bytes(&bytes).ok()).unwrap_or_default()
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

fn read_bounded(path: &PathBuf, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn keep_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
