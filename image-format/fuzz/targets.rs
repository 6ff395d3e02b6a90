//! What each fuzz target does with its bytes. The fuzzer and the corpus test both include this file,
//! so that a past crash is a plain test from then on.

use image_format::bytes::Bytes;
use image_format::command_line::{CommandLine, GivenLine};
use image_format::manifest::Manifest;
use image_format::modules::ModuleIndex;
use image_format::payload::index::PayloadIndex;
use image_format::payload::plan::plan_reconstruction;
use image_format::payload::survey::{OldSlots, SlotContent, Survey};
use image_format::release::channel::{ChannelMetadata, FileReference};
use image_format::release::paths::ChannelName;
use image_format::release::rollout::{AskedBy, FailedRelease, MachineFacts, ReleaseChoice, choose_release};
use image_format::release::root::{RootMetadata, TrustedRoot};
use image_format::release::time::UnixTime;
use image_format::release::trust::TrustState;
use image_format::release::wave::{Share, WavePlace};
use image_format::signed::{PublicKey, Signed, SignedPayload};
use image_format::slot::{SlotTable, boot_decision};
use image_format::version::Version;
use image_format::{gpt, trailer};

/// A slot table must read as what it writes, and the selector must agree.
pub(crate) fn slot_table(bytes: &[u8]) {
    if let Ok(table) = SlotTable::from_block(bytes) {
        assert_eq!(SlotTable::from_block(&table.to_block()), Ok(table));
        assert_eq!(boot_decision(bytes, &[]).attempts, boot_decision(&[], bytes).attempts);
    }
    let _ = boot_decision(bytes, bytes);
}

/// Envelopes, trailers, manifests and keys, none of which may panic or differ when written again.
pub(crate) fn envelope(bytes: &[u8]) {
    if let Ok(signed) = Signed::<Manifest>::from_envelope(bytes) {
        assert_eq!(Signed::from_envelope(&signed.to_envelope()), Ok(signed));
    }
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        let again = manifest.to_bytes().map(|bytes| Manifest::from_bytes(&bytes));
        assert!(matches!(again, Ok(Ok(same)) if same == manifest));
    }
    if let Ok(key) = String::from_utf8_lossy(bytes).parse::<PublicKey>() {
        assert_eq!(key.to_text().parse(), Ok(key));
    }
    let _ = trailer::decode_trailer(bytes);
}

/// A command line of any bytes: if it can be signed, a kernel that was given it passes, and no kernel that was
/// given one more word.
pub(crate) fn command_line(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = CommandLine::default().check_given(&GivenLine::parse(&text), "/k");
    if let Ok(line) = text.parse::<CommandLine>() {
        assert_eq!(line.to_string().parse(), Ok(line.clone()));
        let given = format!("BOOT_IMAGE=(hd0)/k {line} catamaran.slot=a");
        assert_eq!(line.check_given(&GivenLine::parse(&given), "/k"), Ok(()));
        let more = format!("BOOT_IMAGE=(hd0)/k {line} init=/x catamaran.slot=a");
        assert!(line.check_given(&GivenLine::parse(&more), "/k").is_err());
    }
}

/// A partition table of any bytes: read, planned for growth, and if whole, written as it was read.
pub(crate) fn partition_table(bytes: &[u8]) {
    let (primary, rest) = bytes.split_at(bytes.len().min(gpt::COPY_BYTES));
    let mut backup = rest.to_vec();
    backup.resize(gpt::COPY_BYTES, 0);
    let disk = Bytes::from_mib(64);
    let _ = gpt::plan_growth(disk, primary, &backup, "STATE", [7; 16]);
    if let Ok(found) = gpt::read_primary(primary, disk)
        && let Ok(copies) = gpt::encode_table(&found.table, disk)
    {
        let again = gpt::read_primary(&copies.primary, disk);
        assert!(matches!(again, Ok(again) if again.table == found.table));
    }
}

/// A module index, and the walks over it.
pub(crate) fn modules(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(index) = ModuleIndex::parse(text) {
        let names: Vec<&str> = index.depends.keys().map(String::as_str).collect();
        assert_eq!(index.load_order(names.iter().copied()).len(), names.len());
        assert_eq!(ModuleIndex::parse(&index.to_string()), Ok(index.clone()));
        let _ = index.drivers_of(text).count();
    }
}

/// A payload index of any bytes: it must read as what it writes, and be planned for any list and slot.
pub(crate) fn payload(bytes: &[u8]) {
    let Ok(index) = PayloadIndex::parse(bytes) else { return };
    assert_eq!(index.to_bytes().map(|bytes| PayloadIndex::parse(&bytes)), Ok(Ok(index.clone())));
    if index.data_blocks > 1 << 10 {
        return;
    }
    let slot = SlotContent { data: &[0_u8; 4096].as_slice(), blocks: 2, release: None };
    let survey = Survey::read_slots(&index, b"salt", OldSlots { running: Some(slot), idle: None }, 1);
    let plan = plan_reconstruction(&index, &survey, Some(bytes));
    assert!(plan.steps.len() <= index.chunks.len());
}

/// Root metadata of any bytes, in and out of an envelope: it is written as it was read, and no root follows itself.
pub(crate) fn release_root(bytes: &[u8]) {
    if let Ok(root) = RootMetadata::from_bytes(bytes) {
        let again = root.to_bytes().map(|bytes| RootMetadata::from_bytes(&bytes));
        assert!(matches!(again, Ok(Ok(same)) if same == root));
    }
    if let Ok(root) = TrustedRoot::anchor_chain(bytes) {
        assert!(root.next(bytes).is_err());
        let _ = root.open_manifest(bytes);
    }
}

/// Channel metadata of any bytes: it is written as it was read, and nothing is chosen that must not be.
pub(crate) fn release_channel(bytes: &[u8]) {
    let _ = Signed::<ChannelMetadata>::from_envelope(bytes);
    let text = String::from_utf8_lossy(bytes);
    if let Ok(share) = text.parse::<Share>() {
        assert_eq!(Share::try_from(u16::from(share)), Ok(share));
    }
    if let Ok(name) = text.parse::<ChannelName>() {
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    let Ok(channel) = ChannelMetadata::from_bytes(bytes) else { return };
    let again = channel.to_bytes().map(|bytes| ChannelMetadata::from_bytes(&bytes));
    assert!(matches!(again, Ok(Ok(same)) if same == channel));
    for asked_by in [AskedBy::Person, AskedBy::Service] {
        for pin in std::iter::once(None).chain(channel.releases.iter().map(|release| Some(&release.version)))
        {
            check_choice(&channel, &machine(&channel, asked_by, pin));
        }
    }
}

fn machine(channel: &ChannelMetadata, asked_by: AskedBy, pin: Option<&Version>) -> MachineFacts {
    let failed = channel.releases.first().map(|release| FailedRelease {
        version: release.version.clone(),
        manifest: release.manifest,
        reason: "no reason".to_owned(),
    });
    MachineFacts {
        image: channel.image.clone(),
        architecture: channel.architecture.clone(),
        version: Version::new(1, 0, 0),
        agent: Version::new(1, 0, 0),
        place: WavePlace::of_machine(&channel.image),
        security_epoch: 1,
        free_bytes: 1 << 20,
        pin: pin.cloned(),
        failed: failed.into_iter().collect(),
        asked_by,
    }
}

fn check_choice(channel: &ChannelMetadata, facts: &MachineFacts) {
    let choice = choose_release(channel, facts, UnixTime::from_seconds(1 << 31));
    assert!(!choice.to_string().is_empty());
    let ReleaseChoice::Install { release, on_the_way_to, .. } = choice else { return };
    assert!(release.withdrawn.is_none() && release.security_epoch >= channel.security_epoch.max(1));
    assert!(release.least_free_bytes <= facts.free_bytes && release.version != facts.version);
    let target = on_the_way_to.unwrap_or(release);
    let floors = channel.releases.iter().filter(|floor| floor.floor && floor.withdrawn.is_none());
    let passed_by = floors.filter(|floor| floor.version > facts.version && floor.version < target.version);
    assert!(passed_by.into_iter().all(|floor| floor.version >= release.version));
}

/// What a machine kept, or what is left of it, and a file's reference in it.
pub(crate) fn trust_state(bytes: &[u8]) {
    assert!(FileReference::of_bytes(bytes).check_bytes(bytes).is_ok());
    if let Ok(state) = TrustState::from_bytes(bytes) {
        let again = state.to_bytes().map(|bytes| TrustState::from_bytes(&bytes));
        assert!(matches!(again, Ok(Ok(same)) if same == state));
        let (clock, built) = (UnixTime::from_seconds(u64::MAX), UnixTime::default());
        assert_eq!(state.judged_time(clock, built), clock);
    }
}
