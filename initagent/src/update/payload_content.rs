//! The root of a release, rebuilt from the least bytes: from both slots, patches and chunks.
//!
//! Knows how the payload's traits meet this machine's slots and mirrors. What is chosen and checked is
//! `image_format::payload`'s. Refuses to write anything but the idle slot, which is all that it is given.
//! Invariant: the index is the one that the signed channel promises, and is of the root that the manifest names.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use image_format::payload::index::{MAX_INDEX, ParsePayloadError, PayloadIndex};
use image_format::payload::object::ObjectReference;
use image_format::payload::reconstruct::{
    BlockSink, Event, ObjectSource, Observer, ReconstructError, Site, prepare_reconstruction,
};
use image_format::payload::survey::{InstalledRelease, OldSlots, SlotContent};
use image_format::release::channel::OfferedRelease;
use image_format::release::paths;
use image_format::verity::BLOCK_BYTES;

use super::install::{Progress, RootContent, Stage, TrustedRelease, WriteDataError};
use super::machine::UpdateMachine;
use super::repository::{AskChannelError, Repository};
use super::slot_device::{Purpose, SlotDevice};
use super::transport::Mirrors;

/// Each has a chunk, an object and a prefix in memory.
const THREADS: usize = 2;

/// A release's payload and where its bytes come from.
#[derive(Debug)]
pub(crate) struct PayloadContent<'a> {
    index: PayloadIndex,
    mirrors: &'a Mirrors,
    machine: &'a UpdateMachine,
    running: Option<InstalledRelease>,
    idle: Option<InstalledRelease>,
}

/// Why the payload of a release cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("the payload index of {version} cannot be read")]
    Index { version: String, source: ParsePayloadError },
    #[error("the payload index is of another root than the manifest")]
    OtherRoot,
}

impl<'a> PayloadContent<'a> {
    /// Fetches the index of an offered release. The slots are looked at now: an install erases the idle one's
    /// manifest first.
    pub(crate) fn fetch_index(
        repository: &Repository<'_>,
        mirrors: &'a Mirrors,
        offered: &OfferedRelease,
        machine: &'a UpdateMachine,
        held: [Option<InstalledRelease>; 2],
    ) -> Result<Self, FetchPayloadError> {
        let bytes = repository.fetch_file(&paths::index(&offered.version), &offered.index, MAX_INDEX)?;
        let index = PayloadIndex::parse(&bytes)
            .map_err(|source| PayloadError::Index { version: offered.version.to_string(), source })?;
        let [running, idle] = held;
        Ok(Self { index, mirrors, machine, running, idle })
    }
}

/// Why there is no payload to use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchPayloadError {
    #[error(transparent)]
    Ask(#[from] AskChannelError),
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

impl RootContent for PayloadContent<'_> {
    fn write_data(
        &mut self,
        release: &TrustedRelease,
        slot: &SlotDevice,
        progress: &dyn Progress,
    ) -> Result<(), WriteDataError> {
        let root = &release.manifest.root;
        if self.index.root_hash != root.root_hash || u64::from(self.index.data_blocks) != root.data_blocks() {
            return Err(WriteDataError::Source(Box::new(PayloadError::OtherRoot)));
        }
        let unread = |source| WriteDataError::Read { source };
        let running =
            SlotDevice::open_slot(&self.machine.record.devices.root, Purpose::Read).map_err(unread)?;
        let idle_blocks = slot.byte_size().map_err(unread)?.get() / BLOCK_BYTES as u64;
        let slots = OldSlots {
            running: self.running.map(|held| SlotContent {
                data: &running,
                blocks: held.data_blocks,
                release: Some(held),
            }),
            idle: Some(SlotContent {
                data: slot,
                blocks: u32::try_from(idle_blocks).unwrap_or(u32::MAX),
                release: self.idle,
            }),
        };
        let follower = Follower { progress, total: root.data_bytes, done: AtomicU64::new(0) };
        let site = Site { slots, objects: self, sink: slot, observer: &follower, threads: THREADS };
        let prepared =
            prepare_reconstruction(&self.index, root.salt.as_bytes(), &site).map_err(data_error)?;
        prepared.reconstruct_root(&self.index, root.tree_block(), &site).map_err(data_error)
    }
}

impl ObjectSource for PayloadContent<'_> {
    fn mirrors(&self) -> usize {
        self.mirrors.count_mirrors()
    }

    fn fetch_object(&self, object: &ObjectReference, mirror: usize) -> io::Result<Vec<u8>> {
        let fetched = self.mirrors.fetch_from(mirror, &object.repository_path(), u64::from(object.bytes));
        fetched.map_err(|error| io::Error::other(error_text::error_chain(&error)))
    }
}

impl BlockSink for SlotDevice {
    fn write_blocks(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(first * BLOCK_BYTES as u64, bytes)
    }
}

/// Counts what is in its place, for whoever asks how far it is.
struct Follower<'a> {
    progress: &'a dyn Progress,
    total: u64,
    done: AtomicU64,
}

impl Observer for Follower<'_> {
    fn observe(&self, event: &Event<'_>) {
        let (Event::Kept { blocks } | Event::Written { blocks }) = event else { return };
        self.done.fetch_add(u64::from(*blocks) * BLOCK_BYTES as u64, Ordering::Relaxed);
    }

    fn wants_stop(&self) -> bool {
        // The tree is written, too, and is not counted.
        let done = self.done.load(Ordering::Relaxed).min(self.total);
        self.progress.advance(Stage::Writing, done, self.total).is_break()
    }
}

fn data_error(error: ReconstructError) -> WriteDataError {
    match error {
        ReconstructError::Stopped => WriteDataError::Cancelled,
        other => WriteDataError::Source(Box::new(other)),
    }
}
