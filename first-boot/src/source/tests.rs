use super::*;

const HERE: &str = "4c4c4544-0000-0000-0000-000000000001";
const ELSEWHERE: &str = "4c4c4544-0000-0000-0000-000000000002";

fn source(platform: &str, volume: Option<&str>) -> Source {
    Source { platform: platform.to_owned(), evidence: "a test".to_owned(), volume: volume.map(str::to_owned) }
}

/// An offer as a word: `gce`, or `nocloud:a` for a volume with content a.
fn offer(word: &str) -> Source {
    let (platform, volume) = word.split_once(':').map_or((word, None), |(name, one)| (name, Some(one)));
    source(platform, volume)
}

/// What is asked, as a word, and who is turned away.
fn chosen(before: &str, switch: Switch, machine: &str, words: &str) -> String {
    let remembered =
        (!before.is_empty()).then(|| Remembered { source: offer(before), machine: Some(HERE.to_owned()) });
    let offers: Vec<Source> = words.split_whitespace().map(offer).collect();
    let known =
        Circumstances { remembered: remembered.as_ref(), is_settled: true, machine: Some(machine), switch };
    let Choice { asked, refused } = choose_source(&offers, known);
    let word = |number: usize| words.split_whitespace().nth(number).unwrap_or_default().to_owned();
    let refused: Vec<String> = refused.into_iter().map(word).collect();
    format!("{} | {}", asked.map_or_else(|| "kept".to_owned(), word), refused.join(" "))
}

#[test]
fn on_the_machine_that_was_configured_only_its_source_is_heard() {
    use Switch::{Always, Locked, Once};
    for (before, switch, offers, expected) in [
        // The first one, whatever it is.
        ("", Once, "nocloud:a gce", "nocloud:a | "),
        ("", Always, "gce", "gce | "),
        ("", Once, "", "kept | "),
        // It was told nothing, and is closed.
        ("", Locked, "nocloud:a", "kept | nocloud:a"),
        // A stray volume, before and behind the one that is remembered.
        ("nocloud", Once, "nocloud:evil nocloud", "nocloud | nocloud:evil"),
        ("nocloud", Always, "nocloud:evil nocloud", "nocloud | nocloud:evil"),
        ("nocloud", Locked, "nocloud:evil nocloud", "nocloud | nocloud:evil"),
        ("nocloud:a", Once, "nocloud:evil nocloud:a", "nocloud:a | nocloud:evil"),
        ("gce", Once, "gce nocloud:evil", "gce | nocloud:evil"),
        ("gce", Once, "gce config-drive:evil", "gce | config-drive:evil"),
        ("config-drive:a", Once, "config-drive:a openstack", "config-drive:a | "),
        (
            "config-drive:a",
            Once,
            "config-drive:evil config-drive:a openstack",
            "config-drive:a | config-drive:evil",
        ),
        // The remembered one is gone, such as the stick of an installation.
        ("nocloud:a", Once, "", "kept | "),
        ("nocloud:a", Once, "nocloud:evil", "kept | nocloud:evil"),
        ("nocloud:a", Locked, "nocloud:evil", "kept | nocloud:evil"),
        ("nocloud:a", Always, "nocloud:b", "nocloud:b | "),
        ("nocloud", Once, "nocloud:evil", "kept | nocloud:evil"),
        ("gce", Once, "nocloud:evil", "kept | nocloud:evil"),
        ("gce", Once, "ec2", "kept | ec2"),
        ("gce", Always, "ec2 nocloud:b", "ec2 | nocloud:b"),
        ("gce", Locked, "ec2", "kept | ec2"),
        ("qemu", Once, "nocloud:evil qemu", "qemu | nocloud:evil"),
    ] {
        let got = chosen(before, switch, HERE, offers);

        assert_eq!(got, expected, "{before:?} {switch:?} {offers:?}");
    }
}

#[test]
fn a_copy_in_another_machine_hears_its_own_volume_of_the_same_kind() {
    use Switch::{Always, Locked, Once};
    for (before, switch, offers, expected) in [
        ("nocloud:a", Once, "nocloud:b", "nocloud:b | "),
        ("config-drive:a", Once, "config-drive:b openstack", "config-drive:b | "),
        ("nocloud:a", Once, "nocloud:a nocloud:b", "nocloud:a | nocloud:b"),
        ("nocloud:a", Locked, "nocloud:b", "kept | nocloud:b"),
        ("nocloud:a", Always, "nocloud:b", "nocloud:b | "),
        ("gce", Once, "gce", "gce | "),
        // Another kind of place is another source, wherever the disk is.
        ("gce", Once, "nocloud:b", "kept | nocloud:b"),
        ("nocloud:a", Once, "gce", "kept | gce"),
    ] {
        let got = chosen(before, switch, ELSEWHERE, offers);

        assert_eq!(got, expected, "{before:?} {switch:?} {offers:?}");
    }
}

#[test]
fn a_machine_without_a_name_is_the_one_that_it_was() {
    let remembered = Remembered { source: offer("nocloud:a"), machine: None };
    let known = Circumstances {
        remembered: Some(&remembered),
        is_settled: true,
        machine: Some(HERE),
        switch: Switch::Once,
    };

    assert_eq!(choose_source(&[offer("nocloud:b")], known), Choice { asked: None, refused: vec![0] });
}

#[test]
fn what_is_remembered_is_read_back() {
    for volume in [None, Some("a")] {
        let remembered = Remembered { source: source("nocloud", volume), machine: Some(HERE.to_owned()) };

        assert_eq!(Remembered::from_json(&remembered.to_json()), Some(remembered));
    }
    assert_eq!(Remembered::from_json(&json!({"platform": 5})), None);
}

#[test]
fn switches_have_words() {
    for switch in Switch::ALL {
        assert_eq!(Switch::from_word(switch.switch_word()), Some(switch));
    }
    assert_eq!(Switch::from_word("Locked"), None);
}
