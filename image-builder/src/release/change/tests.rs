//! Facts about what each verb changes.

use super::*;

const NOW: UnixTime = UnixTime::from_seconds(1_795_825_359);

fn stamp() -> Stamp {
    Stamp { root: 3, written: NOW, lifetime: Duration::from_hours(30 * 24) }
}

fn stored(version: &str) -> StoredRelease {
    let file = FileReference::of_bytes(version.as_bytes());
    StoredRelease {
        image: "cloud".into(),
        architecture: "x86_64".into(),
        version: version.parse().unwrap(),
        security_epoch: 0,
        manifest: file,
        index: file,
        sbom: file,
    }
}

fn promote(channel: ChannelMetadata, version: &str) -> ChannelMetadata {
    let change = ChannelChange::Promote { release: Box::new(stored(version)), terms: OfferTerms::default() };
    change_channel(channel, change, stamp()).unwrap()
}

fn channel(versions: &[&str]) -> ChannelMetadata {
    let empty = empty_channel(&"stable".parse().unwrap(), &stored("0.0.0"));
    versions.iter().fold(empty, |channel, version| promote(channel, version))
}

fn versions(channel: &ChannelMetadata) -> Vec<String> {
    channel.releases.iter().map(|release| release.version.to_string()).collect()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

#[test]
fn each_change_counts_and_holds_for_its_lifetime() {
    let before = channel(&["1.0.0"]);
    let reason = || "1.0.0 is looked into".to_owned();
    for change in [
        ChannelChange::Renew { counter: 0 },
        ChannelChange::Pause { reason: reason() },
        ChannelChange::Resume,
        ChannelChange::Floor { version: version("1.0.0"), floor: true },
        ChannelChange::Withdraw { version: version("1.0.0"), reason: reason() },
    ] {
        let after = change_channel(before.clone(), change, stamp()).unwrap();

        assert_eq!((after.counter, after.root), (before.counter + 1, 3));
        assert_eq!(after.written.duration_until(after.expires), Duration::from_hours(30 * 24));
        assert!(after.to_bytes().is_ok());
    }
}

#[test]
fn a_publisher_whose_clock_is_behind_does_not_move_time_back() {
    let earlier = Stamp { written: UnixTime::from_seconds(1), ..stamp() };

    let after = change_channel(channel(&["1.0.0"]), ChannelChange::Renew { counter: 0 }, earlier).unwrap();

    assert_eq!(after.written, NOW);
    // A new root is the way out for a publisher whose clock was ahead.
    let of_next_root = Stamp { root: 4, ..earlier };
    let after = change_channel(after, ChannelChange::Renew { counter: 0 }, of_next_root).unwrap();
    assert_eq!(after.written, UnixTime::from_seconds(1));
}

#[test]
fn the_newest_releases_and_all_floors_stay() {
    let mut channel = channel(&["1.0.0", "1.1.0", "1.2.0"]);
    let floor = ChannelChange::Floor { version: version("1.0.0"), floor: true };
    channel = change_channel(channel, floor, stamp()).unwrap();
    for newer in ["1.3.0", "1.4.0", "1.5.0", "1.6.0"] {
        channel = promote(channel, newer);
    }

    assert_eq!(versions(&channel), ["1.0.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0"]);
    // New waves for a release do not take its floor away.
    assert!(promote(channel, "1.0.0").releases[0].floor);
}

#[test]
fn a_release_that_is_promoted_again_is_no_longer_withdrawn() {
    let withdraw = ChannelChange::Withdraw { version: version("1.0.0"), reason: "it loses data".into() };
    let withdrawn = change_channel(channel(&["1.0.0"]), withdraw, stamp()).unwrap();
    assert!(withdrawn.releases[0].withdrawn.is_some());

    assert_eq!(promote(withdrawn, "1.0.0").releases[0].withdrawn, None);
}

#[test]
fn what_the_channel_does_not_offer_is_named_with_what_it_does() {
    let withdraw = ChannelChange::Withdraw { version: version("9.0.0"), reason: "it loses data".into() };

    let refused = change_channel(channel(&["1.0.0", "1.1.0"]), withdraw, stamp()).unwrap_err();

    assert_eq!(refused.to_string(), "channel stable does not offer 9.0.0, but 1.0.0, 1.1.0");
}

#[test]
fn a_channel_stays_with_its_image_and_its_epochs_rise() {
    let offer = |release| ChannelChange::Promote { release: Box::new(release), terms: OfferTerms::default() };
    let metal = StoredRelease { image: "metal".into(), ..stored("1.1.0") };
    let with_epoch = |version, security_epoch| offer(StoredRelease { security_epoch, ..stored(version) });

    let refused = change_channel(channel(&["1.0.0"]), offer(metal), stamp()).unwrap_err();
    assert!(
        refused.to_string().ends_with("and this one is of metal for x86_64: use another channel"),
        "{refused}"
    );

    let raised = change_channel(channel(&["1.0.0"]), with_epoch("1.1.0", 1), stamp()).unwrap();
    for (version, epoch) in [("1.2.0", 0), ("0.9.0", 2)] {
        let refused = change_channel(raised.clone(), with_epoch(version, epoch), stamp()).unwrap_err();
        assert!(matches!(refused, ChangeChannelError::EpochOrder { .. }), "{refused}");
    }
    for (version, epoch) in [("1.2.0", 1), ("0.9.0", 0), ("1.2.0", 2)] {
        assert!(change_channel(raised.clone(), with_epoch(version, epoch), stamp()).is_ok());
    }
}

#[test]
fn waves_are_a_name_or_a_list() {
    let read = |text: &str| {
        let waves = parse_waves(text, UnixTime::default()).unwrap();
        waves
            .iter()
            .map(|wave| format!("{} {}", wave.machines, wave.not_before.seconds()))
            .collect::<Vec<_>>()
    };

    assert_eq!(read("all"), Vec::<String>::new());
    assert_eq!(read("1%@0m, 25%@+12h,100%@3d"), ["1 % 0", "25 % 43200", "100 % 259200"]);
    assert_eq!(read("quick").last().unwrap(), "100 % 86400");
    for text in
        ["", "10%", "10%@", "10%@5", "10%@5w", "@5d", "101%@1d", "10%@-1d", "fast", "1%@9999999d", "10%@ä"]
    {
        assert!(parse_waves(text, NOW).is_err(), "{text:?} was accepted");
    }
}

#[test]
fn every_preset_can_be_published() {
    for (name, _) in PRESETS {
        let waves = parse_waves(name, NOW).unwrap();
        let terms = OfferTerms { waves, ..OfferTerms::default() };
        let change = ChannelChange::Promote { release: Box::new(stored("1.0.0")), terms };
        assert!(change_channel(channel(&[]), change, stamp()).unwrap().to_bytes().is_ok(), "{name}");
    }
}

#[test]
fn a_repository_that_came_back_from_an_old_copy_goes_on_from_a_higher_counter() {
    let renew = |counter| {
        change_channel(channel(&["1.0.0"]), ChannelChange::Renew { counter }, stamp()).unwrap().counter
    };

    assert_eq!([renew(0), renew(2), renew(500)], [2, 2, 500]);
}
