//! The order of trust: by which time documents are judged, and what is kept when a later step fails.

use image_format::payload::index::MAX_INDEX;

use super::*;

/// The channel key that a thief has.
const STOLEN: u8 = 3;
/// The channel key that the second root brings instead.
const NEW: u8 = 4;

/// What the thief signs: a counter that nobody exceeds, and times that no clock of the machine reaches.
fn stolen_channel() -> Vec<u8> {
    let mut channel = channel_metadata(u64::MAX, Vec::new());
    channel.written = UnixTime::from_seconds(1000 * NOW);
    channel.expires = UnixTime::from_seconds(u64::MAX);
    sign_channel(&channel, STOLEN)
}

/// A repository whose second root took the stolen key away, and whose channel has this envelope.
fn rotated(channel: Vec<u8>) -> Files {
    let mut files = publish(6, 21);
    files.insert("root/2".into(), root_envelope(2, NEW));
    files.insert("channel/stable".into(), channel);
    files
}

/// The honest channel of [`rotated`].
fn renewed_channel() -> Vec<u8> {
    let mut channel = channel_metadata(6, vec![offered_release(&publish(6, 21))]);
    channel.root = 2;
    sign_channel(&channel, NEW)
}

fn stolen() -> Files {
    Files::from([("channel/stable".to_owned(), stolen_channel())])
}

/// Asks a mirror with these files for the channel, as after a restart.
fn ask(bench: &Bench, files: Files) -> Result<u64, String> {
    let server = serve(files, |_, bytes| bytes);
    let mirrors = mirrors(&[&server.address]);
    let mut repository = Repository::open_trusted(&bench.machine, &mirrors, NOW).unwrap();
    let seen = repository.ask_channel("stable").map_err(|error| error_text::error_chain(&error))?;
    Ok(seen.metadata.metadata.counter)
}

#[test]
fn a_new_machine_with_a_clock_of_1970_judges_by_the_time_its_image_was_built() {
    let server = serve(publish(5, 21), |_, bytes| bytes);
    let mirrors = mirrors(&[&server.address]);
    let mut bench = bench();

    bench.machine.record.built = NOW + 1001;
    let refused = install(&bench, &mirrors, 0).unwrap_err();
    assert!(refused.contains("expired at"), "{refused}");

    bench.machine.record.built = NOW;
    install(&bench, &mirrors, 0).unwrap();
}

#[test]
fn a_new_root_undoes_a_thief_who_pushed_time_ahead_in_the_same_run() {
    let bench = bench();
    assert_eq!(ask(&bench, stolen()), Ok(u64::MAX));

    let server = serve(rotated(renewed_channel()), |_, bytes| bytes);
    install(&bench, &mirrors(&[&server.address]), NOW).unwrap();

    assert_eq!(held(&bench), Some(Version::new(1, 1, 0)));
}

#[test]
fn a_root_is_kept_although_the_channel_beside_it_is_refused() {
    let bench = bench();
    assert_eq!(ask(&bench, stolen()), Ok(u64::MAX));

    // The mirror has the new root, and still the thief's channel.
    assert!(ask(&bench, rotated(stolen_channel())).is_err());

    // Another mirror hides the new root. The machine knows it, so the stolen key counts for nothing.
    assert!(ask(&bench, stolen()).is_err());
    assert_eq!(ask(&bench, rotated(renewed_channel())), Ok(6));
}

#[test]
fn a_root_is_kept_although_the_chain_breaks_behind_it_or_the_channel_is_missing() {
    for (path, bytes) in [("root/3", Some(b"<html>".to_vec())), ("channel/stable", None)] {
        let bench = bench();
        let mut files = rotated(renewed_channel());
        match bytes {
            Some(bytes) => files.insert(path.to_owned(), bytes),
            None => files.remove(path),
        };

        assert!(ask(&bench, files).is_err(), "{path}");

        assert!(ask(&bench, stolen()).is_err(), "after {path}");
    }
}

#[test]
fn a_mirror_with_the_thiefs_channel_is_passed_over_for_the_next_one() {
    let bench = bench();
    assert_eq!(ask(&bench, stolen()), Ok(u64::MAX));
    let channels = [stolen_channel(), renewed_channel()];
    let [liar, honest] = channels.map(|channel| serve(rotated(channel), |_, bytes| bytes));

    install(&bench, &mirrors(&[&liar.address, &honest.address]), NOW).unwrap();

    assert_eq!(held(&bench), Some(Version::new(1, 1, 0)));
}

#[test]
fn a_root_may_be_as_large_as_its_format_allows() {
    let bench = bench();
    let mut files = rotated(renewed_channel());
    let mut payload = root_document(2, NEW);
    // JSON may end with spaces. With its signature, the envelope is longer than the largest document.
    payload.resize(image_format::release::root::MAX_ROOT, b' ');
    files.insert("root/2".into(), sign::<RootMetadata>(payload));

    assert_eq!(ask(&bench, files), Ok(6));
}

#[test]
fn an_envelope_that_nobody_may_read_is_not_fetched() {
    for path in ["root/2", "channel/stable"] {
        let mut files = rotated(renewed_channel());
        files.insert(path.to_owned(), vec![b' '; MAX_ENVELOPE + 1]);

        let refused = ask(&bench(), files).unwrap_err();

        assert!(refused.contains("is longer than the 49152 bytes"), "{path}: {refused}");
    }
}

/// A thief of a channel key can promise files of any length, and serve them without an end.
#[test]
fn a_file_that_is_promised_too_large_is_not_asked_for() {
    for (path, limit) in [("release/1.1.0/manifest", MAX_ENVELOPE), ("release/1.1.0/index", MAX_INDEX)] {
        let mut files = publish(5, 21);
        let mut offered = offered_release(&files);
        let promised = if path.ends_with("index") { &mut offered.index } else { &mut offered.manifest };
        promised.bytes = limit as u64 + 1;
        files.insert("channel/stable".into(), sign_channel(&channel_metadata(5, vec![offered]), STOLEN));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let server = serve(files, move |path, bytes| {
            seen.lock().unwrap().push(path.to_owned());
            bytes
        });

        let refused = install(&bench(), &mirrors(&[&server.address]), NOW).unwrap_err();

        assert!(refused.contains("longer than"), "{refused}");
        let asked = asked.lock().unwrap();
        assert!(
            asked.contains(&"/channel/stable".to_owned()) && !asked.contains(&format!("/{path}")),
            "{asked:?}"
        );
    }
}
