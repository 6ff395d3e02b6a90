//! Facts about channel metadata.

use super::super::wave::Share;
use super::*;

fn release(version: &str) -> OfferedRelease {
    let file = |name: &str| FileReference { bytes: 4711, sha256: Sha256::digest_of(name.as_bytes()) };
    OfferedRelease {
        version: version.parse().unwrap(),
        manifest: file("manifest"),
        index: file("index"),
        sbom: file("sbom"),
        security_epoch: 0,
        floor: false,
        waves: Vec::new(),
        least_agent: None,
        least_free_bytes: 0,
        withdrawn: None,
    }
}

fn waves(count: u16) -> Vec<Wave> {
    let wave = |number: u16| Wave {
        machines: Share::per_mille(number * 10).unwrap(),
        not_before: UnixTime::from_seconds(1_795_825_359 + 86_400 * u64::from(number)),
    };
    (1..=count).map(wave).collect()
}

fn channel() -> ChannelMetadata {
    ChannelMetadata {
        format: FORMAT,
        channel: "stable".parse().unwrap(),
        image: "cloud".into(),
        architecture: "x86_64".into(),
        root: 3,
        counter: 17,
        written: UnixTime::from_seconds(1_795_825_359),
        expires: UnixTime::from_seconds(1_798_417_359),
        paused: None,
        security_epoch: 0,
        releases: vec![release("1.0.0"), release("1.2.3+20261128")],
    }
}

fn refused(change: impl FnOnce(&mut ChannelMetadata)) -> ChannelError {
    let mut channel = channel();
    change(&mut channel);
    let bytes = serde_json::to_vec(&channel).unwrap();
    ChannelMetadata::from_bytes(&bytes).unwrap_err()
}

#[test]
fn channel_metadata_survives_its_bytes_and_they_are_this_text() {
    let mut channel = channel();
    channel.paused = Some("a bug in the loader".into());
    channel.releases[0] = OfferedRelease {
        security_epoch: 2,
        floor: true,
        waves: waves(1),
        least_agent: Some(Version::new(0, 1, 0)),
        least_free_bytes: 1 << 20,
        withdrawn: Some("it loses data".into()),
        ..release("1.0.0")
    };

    let bytes = channel.to_bytes().unwrap();

    assert_eq!(String::from_utf8(bytes.clone()).unwrap(), include_str!("../../../tests/data/channel.golden"));
    assert_eq!(ChannelMetadata::from_bytes(&bytes).unwrap(), channel);
}

#[test]
fn a_check_with_nothing_new_costs_less_than_4_kib() {
    // What `release promote` leaves: the newest with waves, and three before it. With an answer's headers and the
    // question for the next root, about 500 bytes more travel.
    let mut channel = channel();
    channel.releases = ["1.0.0", "1.1.0", "1.2.0", "1.3.0"].map(release).to_vec();
    channel.releases[3].waves = waves(7);
    let key = crate::signed::SecretKey::from_seed(&[1; 32]);

    let signed = crate::signed::Signed::<ChannelMetadata>::sign_payload(channel.to_bytes().unwrap(), &[key]);

    let bytes = signed.to_envelope().len();
    assert!(bytes < 3500, "{bytes}");
}

#[test]
fn a_channel_of_a_decade_fits_into_its_envelope() {
    let mut channel = channel();
    channel.releases = (0..u32::try_from(MAX_RELEASES).unwrap())
        .map(|number| OfferedRelease { floor: true, ..release(&format!("{number}.0.0")) })
        .collect();
    channel.releases[MAX_RELEASES - 1].waves = waves(16);

    let bytes = channel.to_bytes().unwrap();

    assert!(bytes.len() + 4096 < crate::signed::MAX_ENVELOPE, "{}", bytes.len());
}

#[test]
fn a_channel_from_the_future_is_read_or_refused_by_name() {
    let text = String::from_utf8(channel().to_bytes().unwrap()).unwrap();
    let read = |text: String| ChannelMetadata::from_bytes(text.as_bytes());

    let later = text
        .replacen('{', "{\"mirrors\": [\"https://a\"], \"holidays\": {\"deep\": [[[1]]]},", 1)
        .replacen("\"version\": ", "\"delta\": {\"from\": \"0.9.0\"}, \"version\": ", 1)
        .replacen("\"bytes\": ", "\"blake3\": \"00\", \"bytes\": ", 1);
    assert_eq!(read(later).unwrap(), channel());

    let format_2 = text.replacen("\"format\": 1", "\"format\": 2, \"releases\": 7", 1);
    let ChannelError::Format(refused) = read(format_2).unwrap_err() else { panic!("not by its name") };
    assert_eq!(refused.to_string(), "it has format 2, but format 1 is read here: it is for later agents");
}

#[test]
fn releases_stand_once_and_in_order() {
    assert!(matches!(refused(|c| c.releases.reverse()), ChannelError::ReleaseOrder { .. }));
    assert!(matches!(refused(|c| c.releases = vec![release("1.0.0"); 2]), ChannelError::ReleaseOrder { .. }));
    assert!(matches!(
        refused(|c| c.releases = vec![release("1.0.0"); MAX_RELEASES + 1]),
        ChannelError::TooManyReleases { .. }
    ));
}

#[test]
fn no_wave_shrinks_or_moves_back() {
    assert!(matches!(
        refused(|c| c.releases[0].waves = waves(2).into_iter().rev().collect()),
        ChannelError::WaveOrder { .. }
    ));
    assert!(matches!(
        refused(|c| c.releases[0].waves = vec![waves(1)[0]; 17]),
        ChannelError::TooManyWaves { .. }
    ));
}

#[test]
fn a_version_is_no_way_out_of_its_folder() {
    let text = String::from_utf8(channel().to_bytes().unwrap()).unwrap();
    for version in ["../../root/1", "1.0.0/../2", "1.0.0+..", "1.0.0%2f", ""] {
        let forged = text.replacen("\"1.0.0\"", &format!("{version:?}"), 1);
        assert!(
            matches!(ChannelMetadata::from_bytes(forged.as_bytes()), Err(ChannelError::Json { .. })),
            "{version}"
        );
    }
}

#[test]
fn a_reason_moves_no_cursor() {
    for reason in ["", "a\u{1b}[2J", "two\nlines", &"a".repeat(MAX_REASON + 1)] {
        assert!(
            matches!(refused(|c| c.paused = Some(reason.to_owned())), ChannelError::Reason),
            "{reason:?}"
        );
        assert!(matches!(
            refused(|c| c.releases[0].withdrawn = Some(reason.to_owned())),
            ChannelError::Reason
        ));
    }
}

#[test]
fn what_is_too_large_or_too_deep_is_not_read() {
    assert!(matches!(
        ChannelMetadata::from_bytes(&vec![b' '; MAX_CHANNEL + 1]),
        Err(ChannelError::TooLarge { .. })
    ));
    let deep = format!("{{\"format\": 1, \"x\": {}", "[".repeat(10_000));
    assert!(matches!(ChannelMetadata::from_bytes(deep.as_bytes()), Err(ChannelError::Json { .. })));
    assert!(matches!(refused(|c| c.expires = UnixTime::default()), ChannelError::Times { .. }));
    assert!(matches!(refused(|c| c.image = "../cloud".into()), ChannelError::Word { .. }));
}

#[test]
fn bytes_that_were_not_promised_are_refused() {
    let promised = FileReference::of_bytes(b"hello");

    assert_eq!(promised.check_bytes(b"hello"), Ok(()));
    for bytes in [&b""[..], b"hell", b"hello ", b"hellO"] {
        assert!(promised.check_bytes(bytes).is_err());
    }
}
