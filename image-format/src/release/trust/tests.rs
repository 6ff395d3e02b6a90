//! Facts about what is accepted, and what is never accepted again.

use std::time::Duration;

use super::super::channel::{self, FileReference};
use super::super::root::{self, RoleKeys, Roles, RootMetadata};
use super::super::session::TrustSession;
use super::*;
use crate::manifest::{BootFile, RootPlacement, Salt};
use crate::signed::{PublicKey, SecretKey};
use crate::verity;
use crate::version::Version;

const DAY: u64 = 86_400;
/// When the channel metadata of these tests was written.
const WRITTEN: u64 = 20_000 * DAY;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn role(seeds: &[u8]) -> RoleKeys {
    let keys: Vec<PublicKey> = seeds.iter().map(|seed| key(*seed).public_key("test")).collect();
    RoleKeys::from_keys(&keys, 1)
}

/// A root whose channel role has this key.
fn root_envelope(number: u64, channel_key: u8) -> Vec<u8> {
    let metadata = RootMetadata {
        format: root::FORMAT,
        number,
        written: UnixTime::from_seconds(WRITTEN - 100 * DAY),
        expires: UnixTime::from_seconds(WRITTEN + 1000 * DAY),
        roles: Roles { channel: role(&[channel_key]), release: role(&[30]), root: role(&[1]) },
    };
    Signed::<RootMetadata>::sign_payload(metadata.to_bytes().unwrap(), &[key(1)]).to_envelope()
}

fn root(number: u64, channel_key: u8) -> TrustedRoot {
    TrustedRoot::anchor_chain(&root_envelope(number, channel_key)).unwrap()
}

fn manifest(version: &str, security_epoch: u32) -> Vec<u8> {
    let file = |path: &str| BootFile { path: path.to_owned(), sha256: Sha256::digest_of(path.as_bytes()) };
    let manifest = Manifest {
        format: crate::manifest::FORMAT,
        name: "cloud".into(),
        version: version.parse().unwrap(),
        channel: "alpha".into(),
        architecture: "x86_64".into(),
        built: 0,
        development: false,
        security_epoch,
        root: RootPlacement {
            data_bytes: 4096,
            tree_offset: 4096,
            tree_bytes: verity::tree_blocks(1) * 4096,
            root_hash: Sha256::digest_of(b"root"),
            salt: Salt::new(vec![7; 32]).unwrap(),
        },
        kernel: file("/boot/vmlinuz"),
        initrd: file("/boot/initrd.img"),
        command_line: "quiet".parse().unwrap(),
    };
    Signed::<Manifest>::sign_payload(manifest.to_bytes().unwrap(), &[key(30)]).to_envelope()
}

fn metadata(counter: u64) -> ChannelMetadata {
    let manifest = FileReference::of_bytes(&manifest("1.0.0", 0));
    let release = OfferedRelease {
        version: Version::new(1, 0, 0),
        manifest,
        index: manifest,
        sbom: manifest,
        security_epoch: 0,
        floor: false,
        waves: Vec::new(),
        least_agent: None,
        least_free_bytes: 0,
        withdrawn: None,
    };
    ChannelMetadata {
        format: channel::FORMAT,
        channel: "stable".parse().unwrap(),
        image: "cloud".into(),
        architecture: "x86_64".into(),
        root: 1,
        counter,
        written: UnixTime::from_seconds(WRITTEN),
        expires: UnixTime::from_seconds(WRITTEN + 30 * DAY),
        paused: None,
        security_epoch: 0,
        releases: vec![release],
    }
}

fn signed(metadata: &ChannelMetadata, seed: u8) -> Vec<u8> {
    Signed::<ChannelMetadata>::sign_payload(metadata.to_bytes().unwrap(), &[key(seed)]).to_envelope()
}

/// A machine of root 1.
struct Machine {
    state: TrustState,
    root: TrustedRoot,
    clock: u64,
}

impl Machine {
    fn new() -> Self {
        let root = root(1, 20);
        let mut state = TrustState::default();
        state.record_root(&root);
        Self { state, root, clock: WRITTEN + DAY }
    }

    fn now(&self) -> UnixTime {
        self.state.judged_time(UnixTime::from_seconds(self.clock), UnixTime::from_seconds(WRITTEN - 10 * DAY))
    }

    fn check(&mut self, envelope: &[u8]) -> Result<(), VerifyChannelError> {
        let now = self.now();
        let accepted = verify_channel(envelope, &"stable".parse().unwrap(), &self.root, &self.state, now)?;
        self.state.record_channel(&accepted, now);
        Ok(())
    }

    /// Forgets all that is not on STATE.
    fn reboot(&mut self) {
        self.state = TrustState::from_bytes(&self.state.to_bytes().unwrap()).unwrap();
        self.root = self.state.newest_root(root(1, 20));
    }

    fn follow(&mut self, next: TrustedRoot) {
        self.root = next;
        self.state.record_root(&self.root);
    }
}

#[test]
fn counters_never_go_back_even_after_a_reboot() {
    // updog kept them in a temporary folder, and forgot them at each start.
    let mut machine = Machine::new();
    machine.check(&signed(&metadata(17), 20)).unwrap();
    machine.check(&signed(&metadata(17), 20)).unwrap();
    machine.reboot();

    let refused = machine.check(&signed(&metadata(16), 20)).unwrap_err();

    assert_eq!(
        refused.to_string(),
        "the channel metadata went back: counter 16 of root 1 was given, but counter 17 of root 1 was accepted before"
    );
    machine.check(&signed(&metadata(18), 20)).unwrap();
}

#[test]
fn two_honest_documents_of_one_counter_are_noticed() {
    let mut machine = Machine::new();
    machine.check(&signed(&metadata(17), 20)).unwrap();
    let mut other = metadata(17);
    other.releases.clear();

    assert!(matches!(machine.check(&signed(&other, 20)), Err(VerifyChannelError::Forked { .. })));
}

#[test]
fn another_channels_metadata_is_refused() {
    let mut beta = metadata(99);
    beta.channel = "beta".parse().unwrap();

    let refused = Machine::new().check(&signed(&beta, 20)).unwrap_err();

    assert_eq!(
        refused.to_string(),
        "the server gave the metadata of channel beta for that of channel stable"
    );
}

#[test]
fn signatures_that_are_missing_wrong_or_of_another_role_are_refused() {
    let metadata = metadata(17);
    let unsigned = Signed::<ChannelMetadata>::sign_payload(metadata.to_bytes().unwrap(), &[]).to_envelope();
    let changed =
        String::from_utf8(signed(&metadata, 20)).unwrap().replacen("\"counter\": 17", "\"counter\": 18", 1);

    for forged in
        [unsigned, signed(&metadata, 1), signed(&metadata, 30), signed(&metadata, 99), changed.into_bytes()]
    {
        assert!(matches!(Machine::new().check(&forged), Err(VerifyChannelError::Open(_))));
    }
    assert!(Machine::new().check(b"<html>please log in</html>").is_err());
}

#[test]
fn a_mirror_that_stands_still_is_noticed() {
    let mut machine = Machine::new();
    machine.clock = WRITTEN + 31 * DAY;

    let refused = machine.check(&signed(&metadata(17), 20)).unwrap_err();

    assert!(refused.to_string().starts_with("the metadata of channel stable expired at 2024-"), "{refused}");
}

#[test]
fn a_clock_of_1970_counts_for_nothing() {
    let mut machine = Machine::new();
    machine.check(&signed(&metadata(17), 20)).unwrap();
    machine.clock = WRITTEN + 29 * DAY;
    machine.check(&signed(&metadata(17), 20)).unwrap();
    machine.clock = 0;
    machine.reboot();

    // Not earlier than what it had seen, so that metadata which expired then stays expired.
    assert_eq!(machine.now().seconds(), WRITTEN + 29 * DAY);
    let mut old = metadata(18);
    old.expires = UnixTime::from_seconds(WRITTEN + 28 * DAY);
    assert!(matches!(machine.check(&signed(&old, 20)), Err(VerifyChannelError::Expired { .. })));
    machine.check(&signed(&metadata(18), 20)).unwrap();
}

#[test]
fn a_new_machine_without_a_clock_judges_by_the_time_its_image_was_built() {
    let mut machine = Machine::new();
    machine.clock = 0;
    let mut old = metadata(1);
    old.written = UnixTime::from_seconds(WRITTEN - 60 * DAY);
    old.expires = UnixTime::from_seconds(WRITTEN - 30 * DAY);

    assert_eq!(machine.now().seconds(), WRITTEN - 10 * DAY);
    assert!(matches!(machine.check(&signed(&old, 20)), Err(VerifyChannelError::Expired { .. })));
}

#[test]
fn a_clock_of_2100_stops_updates_only_as_long_as_it_says_so() {
    let mut machine = Machine::new();
    machine.clock = 47_482 * DAY;
    // The root is the first to look expired.
    assert!(matches!(machine.check(&signed(&metadata(17), 20)), Err(VerifyChannelError::RootExpired { .. })));
    machine.reboot();
    machine.clock = WRITTEN + 2 * DAY;

    machine.check(&signed(&metadata(17), 20)).unwrap();
}

#[test]
fn a_clock_that_steps_back_is_held_where_it_was() {
    let mut machine = Machine::new();
    machine.check(&signed(&metadata(17), 20)).unwrap();
    let before = machine.now();
    machine.clock -= 400 * DAY;

    assert_eq!(machine.now(), before);
}

#[test]
fn a_thief_who_ran_ahead_is_undone_by_the_next_root() {
    // The thief has the channel key: the largest counter, and a time that makes all else look expired.
    let mut machine = Machine::new();
    let mut ahead = metadata(u64::MAX);
    ahead.written = UnixTime::from_seconds(WRITTEN + 900 * DAY);
    ahead.expires = UnixTime::from_seconds(u64::MAX);
    machine.check(&signed(&ahead, 20)).unwrap();
    assert!(machine.check(&signed(&metadata(18), 20)).is_err());

    machine.follow(machine.root.next(&root_envelope(2, 21)).unwrap());
    machine.reboot();

    assert!(matches!(machine.check(&signed(&ahead, 20)), Err(VerifyChannelError::Open(_))));
    let mut mended = metadata(18);
    mended.root = 2;
    machine.check(&signed(&mended, 21)).unwrap();
    assert!(matches!(machine.check(&signed(&metadata(19), 21)), Err(VerifyChannelError::WentBack { .. })));
}

#[test]
fn a_mirror_that_hides_a_root_is_noticed() {
    let mut hidden = metadata(17);
    hidden.root = 2;

    let refused = Machine::new().check(&signed(&hidden, 20)).unwrap_err();

    assert_eq!(
        refused.to_string(),
        "the channel metadata needs root metadata 2, but the server shows none after 1"
    );
}

#[test]
fn a_channel_that_was_signed_before_the_root_was_rotated_is_still_good() {
    let mut machine = Machine::new();
    machine.follow(machine.root.next(&root_envelope(2, 20)).unwrap());

    machine.check(&signed(&metadata(17), 20)).unwrap();
}

#[test]
fn the_root_is_kept_over_a_reboot_and_over_a_fall_back_to_an_older_image() {
    let mut machine = Machine::new();
    machine.follow(machine.root.next(&root_envelope(2, 21)).unwrap());
    machine.reboot();
    assert_eq!(machine.root.number(), 2);

    // A newer image brings a newer root; damage of the kept one costs only the way.
    assert_eq!(machine.state.newest_root(root(3, 20)).number(), 3);
    machine.state.root = Some("nonsense".into());
    assert_eq!(machine.state.newest_root(root(1, 20)).number(), 1);
}

#[test]
fn the_epoch_rises_with_what_proved_itself_and_never_falls() {
    let mut state = TrustState::default();
    state.record_good_release(3);
    state.record_good_release(2);

    assert_eq!(state.security_epoch, 3);
}

#[test]
fn a_state_from_the_future_is_read_or_refused_by_name() {
    let text = String::from_utf8(Machine::new().state.to_bytes().unwrap()).unwrap();
    let read = |text: String| TrustState::from_bytes(text.as_bytes());

    assert_eq!(read(text.replacen('{', "{\"more\": [1],", 1)).unwrap(), Machine::new().state);
    assert!(matches!(
        read(text.replacen("\"format\": 1", "\"format\": 2", 1)),
        Err(TrustStateError::Format(_))
    ));
    assert!(matches!(read(" ".repeat(MAX_STATE + 1)), Err(TrustStateError::TooLarge { .. })));
    assert!(matches!(read(String::new()), Err(TrustStateError::Json { .. })));
}

#[test]
fn a_state_does_not_grow_with_the_channels_that_were_tried() {
    let mut machine = Machine::new();
    let now = machine.now();
    for number in 0..100 {
        let mut other = metadata(1);
        other.channel = format!("channel-{number}").parse().unwrap();
        let accepted =
            verify_channel(&signed(&other, 20), &other.channel, &machine.root, &machine.state, now).unwrap();
        machine.state.record_channel(&accepted, now);
        assert!(machine.state.channels.contains_key(&other.channel));
    }

    assert_eq!(machine.state.channels.len(), MAX_CHANNELS);
}

#[test]
fn parts_of_two_releases_do_not_mix() {
    let root = root(1, 20);
    let channel = metadata(17);
    let offered = &channel.releases[0];
    let verify =
        |offered: &OfferedRelease, envelope: &[u8]| verify_manifest(envelope, offered, &channel, &root);

    assert_eq!(verify(offered, &manifest("1.0.0", 0)).unwrap().version, Version::new(1, 0, 0));
    assert!(matches!(verify(offered, &manifest("1.0.1", 0)), Err(VerifyManifestError::File(_))));
    // A thief of the channel key names an old, honest manifest as a new version, or with a higher epoch.
    let mixed = OfferedRelease { version: Version::new(2, 0, 0), ..offered.clone() };
    let refused = verify(&mixed, &manifest("1.0.0", 0)).unwrap_err();
    assert_eq!(refused.to_string(), "the manifest's version is 1.0.0, but the channel promised 2.0.0");
    let mixed = OfferedRelease { security_epoch: 1, ..offered.clone() };
    assert!(matches!(verify(&mixed, &manifest("1.0.0", 0)), Err(VerifyManifestError::Differs { .. })));
    let other = ChannelMetadata { image: "metal".into(), ..channel.clone() };
    assert!(verify_manifest(&manifest("1.0.0", 0), offered, &other, &root).is_err());
}

#[test]
fn a_moment_in_the_future_of_the_metadata_is_no_fault() {
    // A machine whose clock is an hour behind must not refuse what was signed just now.
    let mut machine = Machine::new();
    machine.clock = WRITTEN - 3600;

    machine.check(&signed(&metadata(17), 20)).unwrap();

    assert_eq!(machine.now(), UnixTime::from_seconds(WRITTEN));
    assert_eq!(machine.now().duration_until(metadata(1).expires), Duration::from_secs(30 * DAY));
}

/// A repository's roots from number 2 on.
fn serve(roots: Vec<Vec<u8>>) -> impl FnMut(u64) -> Result<Option<Vec<u8>>, std::io::Error> {
    move |number| Ok(roots.get(usize::try_from(number).unwrap() - 2).cloned())
}

#[test]
fn a_session_undoes_a_thief_in_the_same_run_and_keeps_the_root_when_the_rest_fails() {
    let stable = "stable".parse().unwrap();
    let begin = |state: TrustState| {
        let (clock, built) = (WRITTEN + DAY, WRITTEN - 10 * DAY);
        let [clock, built] = [clock, built].map(UnixTime::from_seconds);
        TrustSession::begin_session(state, root(1, 20), clock, built)
    };
    let mut ahead = metadata(u64::MAX);
    ahead.written = UnixTime::from_seconds(WRITTEN + 900 * DAY);
    ahead.expires = UnixTime::from_seconds(u64::MAX);
    let mut session = begin(TrustState::default());
    session.accept_channel(&signed(&ahead, 20), &stable).unwrap();

    // The mirror has the new root, and still the thief's channel.
    let mut session = begin(session.trust_state().clone());
    session.follow_roots(serve(vec![root_envelope(2, 21)])).unwrap();
    assert!(session.accept_channel(&signed(&ahead, 20), &stable).is_err());

    // At the next start it knows the root, and judges by a time that the thief did not choose.
    let mut session = begin(session.trust_state().clone());
    assert_eq!((session.trusted_root().number(), session.judged_time().seconds()), (2, WRITTEN + DAY));
    let mended = ChannelMetadata { root: 2, ..metadata(18) };
    session.accept_channel(&signed(&mended, 21), &stable).unwrap();
}

#[test]
fn a_session_without_a_clock_judges_by_the_time_its_image_was_built() {
    let built = UnixTime::from_seconds(WRITTEN + 60 * DAY);
    let mut session =
        TrustSession::begin_session(TrustState::default(), root(1, 20), UnixTime::default(), built);

    let refused = session.accept_channel(&signed(&metadata(17), 20), &"stable".parse().unwrap());

    assert!(matches!(refused, Err(VerifyChannelError::Expired { .. })));
}

#[test]
fn a_session_keeps_what_it_reached_before_a_mirror_failed() {
    let (clock, built) = (UnixTime::from_seconds(WRITTEN), UnixTime::default());
    let mut session = TrustSession::begin_session(TrustState::default(), root(1, 20), clock, built);

    session.follow_roots(serve(vec![root_envelope(2, 20), b"<html>".to_vec()])).unwrap_err();

    assert_eq!(session.trust_state().root_number, 2);
}
