//! Facts about which release is chosen, and what is said when none is.

use super::super::channel;
use super::super::wave::Wave;
use super::*;
use crate::digest::Sha256;

const NOW: UnixTime = UnixTime::from_seconds(1_795_825_359);

fn release(version: &str) -> OfferedRelease {
    let file = FileReference { bytes: 1, sha256: Sha256::digest_of(version.as_bytes()) };
    OfferedRelease {
        version: version.parse().unwrap(),
        manifest: file,
        index: file,
        sbom: file,
        security_epoch: 0,
        floor: false,
        waves: Vec::new(),
        least_agent: None,
        least_free_bytes: 0,
        withdrawn: None,
    }
}

fn channel(releases: impl IntoIterator<Item = OfferedRelease>) -> ChannelMetadata {
    ChannelMetadata {
        format: channel::FORMAT,
        channel: "stable".parse().unwrap(),
        image: "cloud".into(),
        architecture: "x86_64".into(),
        root: 1,
        counter: 1,
        written: NOW,
        expires: NOW,
        paused: None,
        security_epoch: 0,
        releases: releases.into_iter().collect(),
    }
}

fn machine() -> MachineFacts {
    MachineFacts {
        image: "cloud".into(),
        architecture: "x86_64".into(),
        version: Version::new(1, 0, 0),
        agent: Version::new(1, 0, 0),
        place: WavePlace::new(250).unwrap(),
        security_epoch: 0,
        free_bytes: 1 << 30,
        pin: None,
        failed: Vec::new(),
        asked_by: AskedBy::Service,
    }
}

fn wave(percent: &str, offset: i64) -> Wave {
    let not_before = UnixTime::from_seconds(NOW.seconds().checked_add_signed(offset).unwrap());
    Wave { machines: percent.parse().unwrap(), not_before }
}

fn failed(release: &OfferedRelease) -> FailedRelease {
    let (version, manifest) = (release.version.clone(), release.manifest);
    FailedRelease { version, manifest, reason: "the unit sshd.service failed".into() }
}

fn said(channel: &ChannelMetadata, facts: &MachineFacts) -> String {
    choose_release(channel, facts, NOW).to_string()
}

#[test]
fn the_newest_release_is_chosen() {
    let channel = channel(["0.9.0", "1.0.0", "1.1.0", "1.2.0"].map(release));

    assert_eq!(said(&channel, &machine()), "release 1.2.0 is for this machine");
    let newest = MachineFacts { version: Version::new(1, 2, 0), ..machine() };
    assert_eq!(said(&channel, &newest), "release 1.2.0 is the newest that the channel has");
    let newer = MachineFacts { version: Version::new(2, 0, 0), ..machine() };
    assert_eq!(said(&channel, &newer), "release 2.0.0 is the newest that the channel has");
    assert_eq!(said(&self::channel([]), &machine()), "release 1.0.0 is the newest that the channel has");
}

#[test]
fn a_wave_opens_by_place_and_time() {
    let waves = |waves: &[Wave]| channel([OfferedRelease { waves: waves.to_vec(), ..release("1.1.0") }]);
    let stays = "no newer release than 1.0.0 is for this machine now";

    assert_eq!(said(&waves(&[wave("25.1%", 0)]), &machine()), "release 1.1.0 is for this machine");
    assert_eq!(
        said(&waves(&[wave("25%", 0), wave("50%", 3600)]), &machine()),
        format!(
            "{stays}; release 1.1.0 is offered to this machine from 2026-11-28T01:22:39Z on (place 250 of 1000)"
        )
    );
    assert_eq!(
        said(&waves(&[wave("25%", 0)]), &machine()),
        format!("{stays}; release 1.1.0 is not yet offered to machines at place 250 of 1000")
    );
}

#[test]
fn the_moment_to_ask_again_is_the_next_opening() {
    let channel = channel([
        OfferedRelease { waves: vec![wave("100%", 60)], ..release("1.1.0") },
        OfferedRelease { waves: vec![wave("100%", 3600)], ..release("1.2.0") },
    ]);

    let choice = choose_release(&channel, &machine(), NOW);

    assert_eq!(choice.next_opening(), Some(UnixTime::from_seconds(NOW.seconds() + 60)));
}

#[test]
fn until_its_wave_a_machine_may_have_the_release_before() {
    let channel = channel([
        release("1.1.0"),
        OfferedRelease { waves: vec![wave("1%", -60), wave("100%", 60)], ..release("1.2.0") },
    ]);

    let said = said(&channel, &machine());

    assert!(said.starts_with("release 1.1.0 is for this machine; release 1.2.0 is offered"), "{said}");
}

#[test]
fn a_pause_stops_the_service_but_no_person() {
    let mut channel = channel([release("1.1.0")]);
    channel.paused = Some("1.1.0 is looked into".into());

    assert_eq!(said(&channel, &machine()), "the channel is paused: 1.1.0 is looked into");
    let person = MachineFacts { asked_by: AskedBy::Person, ..machine() };
    assert_eq!(said(&channel, &person), "release 1.1.0 is for this machine");
}

#[test]
fn no_floor_is_passed_by() {
    let floor = |version| OfferedRelease { floor: true, ..release(version) };
    let channel = channel([floor("1.1.0"), release("1.2.0"), floor("2.0.0"), release("2.1.0")]);
    let at = |version: Version| said(&channel, &MachineFacts { version, ..machine() });

    assert_eq!(at(Version::new(1, 0, 0)), "release 1.1.0 is for this machine, on the way to 2.1.0");
    assert_eq!(at(Version::new(1, 1, 0)), "release 2.0.0 is for this machine, on the way to 2.1.0");
    assert_eq!(at(Version::new(2, 0, 0)), "release 2.1.0 is for this machine");
    let pinned = MachineFacts { pin: Some(Version::new(2, 1, 0)), asked_by: AskedBy::Person, ..machine() };
    assert_eq!(said(&channel, &pinned), "release 1.1.0 is for this machine, on the way to 2.1.0");
}

#[test]
fn a_floor_that_is_not_for_this_machine_is_named() {
    let floor = OfferedRelease { floor: true, ..release("1.1.0") };
    let channel = channel([floor.clone(), release("1.2.0")]);
    let facts = MachineFacts { failed: vec![failed(&floor)], ..machine() };

    let said = said(&channel, &facts);

    let reason = "failed on this machine: the unit sshd.service failed; it is not tried again by itself";
    assert_eq!(
        said,
        format!(
            "no newer release than 1.0.0 is for this machine now; release 1.2.0 must be reached by way of release \
             1.1.0, which {reason}; release 1.1.0 {reason}"
        )
    );
}

#[test]
fn a_floor_may_bring_the_agent_that_the_newest_release_needs() {
    let floor = OfferedRelease { floor: true, ..release("1.1.0") };
    let newest = OfferedRelease { least_agent: Some(Version::new(1, 1, 0)), ..release("1.2.0") };
    let without = channel([newest.clone()]);
    let with = channel([floor, newest]);

    assert_eq!(
        said(&without, &machine()),
        "no newer release than 1.0.0 is for this machine now; release 1.2.0 needs agent 1.1.0 or newer, but this \
         one is 1.0.0"
    );
    assert_eq!(said(&with, &machine()), "release 1.1.0 is for this machine, on the way to 1.2.0");
}

#[test]
fn a_withdrawn_release_is_for_nobody() {
    let withdrawn = OfferedRelease { withdrawn: Some("it loses data".into()), ..release("1.2.0") };
    let channel = channel([release("1.1.0"), withdrawn]);

    let service = said(&channel, &machine());
    assert_eq!(service, "release 1.1.0 is for this machine; release 1.2.0 was withdrawn: it loses data");
    let facts = MachineFacts { asked_by: AskedBy::Person, pin: Some(Version::new(1, 2, 0)), ..machine() };
    assert_eq!(
        said(&channel, &facts),
        "the machine is pinned to release 1.2.0, which is not for it now; release 1.2.0 was withdrawn: it loses data"
    );
    let facts = MachineFacts { version: Version::new(1, 2, 0), ..machine() };
    assert_eq!(
        said(&channel, &facts),
        "release 1.2.0 runs, which was withdrawn (it loses data), and there is no newer one for this machine"
    );
}

#[test]
fn a_withdrawn_floor_is_no_floor() {
    let floor =
        OfferedRelease { floor: true, withdrawn: Some("it does not boot".into()), ..release("1.1.0") };

    let said = said(&channel([floor, release("1.2.0")]), &machine());

    assert_eq!(said, "release 1.2.0 is for this machine");
}

#[test]
fn nothing_goes_below_the_security_epoch() {
    let epoch = |version, security_epoch| OfferedRelease { security_epoch, ..release(version) };
    let mut channel = channel([epoch("0.9.0", 1), epoch("0.9.5", 2), epoch("1.1.0", 1)]);
    let facts = MachineFacts { security_epoch: 2, ..machine() };
    let refused = "has security epoch 1, but nothing below 2 may be installed here";

    assert_eq!(
        said(&channel, &facts),
        format!("no newer release than 1.0.0 is for this machine now; release 1.1.0 {refused}")
    );
    // Somebody asks for an older one: fine, as long as the epoch is not lower.
    let pinned = |version| MachineFacts { pin: Some(version), asked_by: AskedBy::Person, ..facts.clone() };
    assert_eq!(said(&channel, &pinned(Version::new(0, 9, 5))), "release 0.9.5 is for this machine");
    assert!(said(&channel, &pinned(Version::new(0, 9, 0))).contains(refused));
    // The channel's own limit counts for machines on which nothing has proved itself yet.
    channel.security_epoch = 2;
    assert!(said(&channel, &machine()).contains(refused));
}

#[test]
fn what_failed_here_is_not_tried_again_until_something_changed() {
    // bottlerocket-update-operator#123, fedora-coreos-tracker#1938: the same bad version again and again.
    let bad = release("1.2.0");
    let facts = MachineFacts { failed: vec![failed(&bad)], ..machine() };
    let alone = channel([bad.clone()]);

    assert_eq!(
        said(&alone, &facts),
        "no newer release than 1.0.0 is for this machine now; release 1.2.0 failed on this machine: the unit \
         sshd.service failed; it is not tried again by itself"
    );
    // A good release after a failed one is tried afresh.
    let next = channel([bad.clone(), release("1.2.1")]);
    assert_eq!(said(&next, &facts), "release 1.2.1 is for this machine");
    // So is the same version with other bytes, and the same release when a person asks.
    let rebuilt = channel([OfferedRelease { manifest: FileReference::of_bytes(b"rebuilt"), ..bad }]);
    assert_eq!(said(&rebuilt, &facts), "release 1.2.0 is for this machine");
    assert_eq!(
        said(&alone, &MachineFacts { asked_by: AskedBy::Person, ..facts }),
        "release 1.2.0 is for this machine"
    );
}

#[test]
fn too_little_space_is_said_with_both_numbers() {
    // Flatcar#1461: "update failed" on a full disk.
    let channel = channel([OfferedRelease { least_free_bytes: 2 << 30, ..release("1.1.0") }]);

    let said = said(&channel, &machine());

    assert!(said.ends_with("release 1.1.0 needs 2 GiB free for it on STATE, but there are 1 GiB"), "{said}");
}

#[test]
fn a_pin_holds_a_machine_and_moves_it() {
    let channel = channel(["0.9.0", "1.0.0", "1.1.0", "1.2.0"].map(release));
    let pinned = |version| said(&channel, &MachineFacts { pin: Some(version), ..machine() });

    assert_eq!(pinned(Version::new(1, 0, 0)), "the machine is pinned to release 1.0.0, which it runs");
    assert_eq!(pinned(Version::new(1, 1, 0)), "release 1.1.0 is for this machine");
    assert_eq!(pinned(Version::new(0, 9, 0)), "release 0.9.0 is for this machine");
    assert_eq!(
        pinned(Version::new(3, 0, 0)),
        "the machine is pinned to release 3.0.0, which the channel does not offer"
    );
}

#[test]
fn releases_of_another_image_are_not_for_this_machine() {
    let channel = channel([release("1.1.0")]);

    assert_eq!(
        said(&channel, &MachineFacts { image: "metal".into(), ..machine() }),
        "the channel has releases of image cloud, but this machine runs image metal"
    );
    assert_eq!(
        said(&channel, &MachineFacts { architecture: "aarch64".into(), ..machine() }),
        "the channel has machines of architecture x86_64, but this one is aarch64"
    );
}

#[test]
fn reasons_are_read_by_programs_too() {
    let reason = PassReason::WaveOpens { at: NOW, place: WavePlace::FIRST };

    let json = serde_json::to_string(&PassedOver { version: Version::new(1, 1, 0), reason }).unwrap();

    assert_eq!(json, r#"{"version":"1.1.0","reason":{"kind":"wave-opens","at":1795825359,"place":0}}"#);
}
