//! Facts about root metadata and the chain of them.

use std::io;

use super::*;
use crate::signed::SecretKey;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn keys(seeds: &[u8]) -> Vec<SecretKey> {
    seeds.iter().map(|seed| key(*seed)).collect()
}

fn role(seeds: &[u8], threshold: usize) -> RoleKeys {
    let keys: Vec<PublicKey> = seeds.iter().map(|seed| key(*seed).public_key("test")).collect();
    RoleKeys::from_keys(&keys, threshold)
}

fn metadata(number: u64, root: RoleKeys) -> RootMetadata {
    RootMetadata {
        format: FORMAT,
        number,
        written: UnixTime::from_seconds(1_000),
        expires: UnixTime::from_seconds(2_000),
        roles: Roles { channel: role(&[20], 1), release: role(&[30], 1), root },
    }
}

fn envelope(metadata: &RootMetadata, signers: &[u8]) -> Vec<u8> {
    Signed::<RootMetadata>::sign_payload(metadata.to_bytes().unwrap(), &keys(signers)).to_envelope()
}

fn first() -> TrustedRoot {
    TrustedRoot::anchor_chain(&envelope(&metadata(1, role(&[1, 2, 3], 2)), &[1, 2])).unwrap()
}

/// A server that has these roots, numbered from 2.
fn serve(roots: Vec<Vec<u8>>) -> impl FnMut(u64) -> Result<Option<Vec<u8>>, io::Error> {
    move |number| Ok(roots.get(usize::try_from(number).unwrap() - 2).cloned())
}

#[test]
fn root_metadata_survives_its_bytes() {
    let root = metadata(7, role(&[1, 2, 3], 2));

    assert_eq!(RootMetadata::from_bytes(&root.to_bytes().unwrap()).unwrap(), root);
}

#[test]
fn a_chain_is_followed_one_number_at_a_time() {
    let mut root = first();

    let steps = root
        .follow_chain(serve(vec![
            envelope(&metadata(2, role(&[2, 3, 4], 2)), &[2, 3]),
            envelope(&metadata(3, role(&[4, 5], 1)), &[3, 4]),
        ]))
        .unwrap();

    assert_eq!((steps, root.number()), (2, 3));
    assert_eq!(TrustedRoot::anchor_chain(root.envelope()).unwrap().number(), 3);
}

#[test]
fn a_gap_in_the_chain_is_refused() {
    // 1 -> 3, properly signed by both: whoever skips a root may skip a revocation.
    let third = envelope(&metadata(3, role(&[1, 2, 3], 2)), &[1, 2]);
    for number in [0, 1, 3, u64::MAX] {
        let given = metadata(number.max(1), role(&[1, 2, 3], 2));
        let refused = first().next(&envelope(&given, &[1, 2])).unwrap_err();
        assert!(matches!(refused, FollowRootError::Number { expected: 2, .. }), "{refused}");
    }

    let refused = first().follow_chain(serve(vec![third])).unwrap_err();

    assert!(matches!(refused, FollowRootsError::Follow { number: 2, .. }), "{refused}");
}

#[test]
fn the_old_keys_alone_and_the_new_keys_alone_make_no_root() {
    let second = metadata(2, role(&[4, 5], 2));

    assert!(matches!(first().next(&envelope(&second, &[1, 2])), Err(FollowRootError::New { .. })));
    assert!(matches!(first().next(&envelope(&second, &[4, 5])), Err(FollowRootError::Old { .. })));
    assert!(matches!(first().next(&envelope(&second, &[1, 4, 5])), Err(FollowRootError::Old { .. })));
    assert_eq!(first().next(&envelope(&second, &[1, 2, 4, 5])).unwrap().number(), 2);
}

#[test]
fn a_key_counts_once_however_often_it_signs_or_stands_there() {
    let second = metadata(2, role(&[1, 2, 3], 2));
    assert!(matches!(first().next(&envelope(&second, &[1, 1])), Err(FollowRootError::Old { .. })));

    // tough counted a key id that stood twice as two keys.
    let twice = serde_json::to_vec(&metadata(2, role(&[1, 1], 2))).unwrap();
    assert!(matches!(RootMetadata::from_bytes(&twice), Err(RootError::Threshold { keys: 1, .. })));

    // The same key under another comment is the same key.
    let mut renamed = metadata(2, role(&[1, 1], 2));
    renamed.roles.root.keys[1] = key(1).public_key("another").to_text().trim_end().to_owned();
    assert!(matches!(renamed.to_bytes(), Err(RootError::Threshold { keys: 1, .. })));
}

#[test]
fn a_connection_that_failed_does_not_end_the_chain() {
    // tough took any error of the transport for "there is no newer root".
    let mut root = first();

    let refused = root.follow_chain(|_| Err::<Option<Vec<u8>>, _>(io::Error::other("reset"))).unwrap_err();

    assert!(matches!(refused, FollowRootsError::Fetch { number: 2, .. }), "{refused}");
}

#[test]
fn what_was_reached_before_an_error_stays() {
    let mut root = first();
    let second = envelope(&metadata(2, role(&[1, 2, 3], 2)), &[1, 2]);

    root.follow_chain(serve(vec![second, b"<html>please log in</html>".to_vec()])).unwrap_err();

    assert_eq!(root.number(), 2);
}

#[test]
fn a_server_with_roots_without_end_is_left() {
    let mut root = first();

    let steps = root
        .follow_chain(|number| {
            Ok::<_, io::Error>(Some(envelope(&metadata(number, role(&[1, 2, 3], 2)), &[1, 2])))
        })
        .unwrap();

    assert_eq!((steps, root.number()), (MAX_STEPS, 1 + MAX_STEPS));
}

#[test]
fn an_expired_root_still_leads_to_its_successor() {
    let mut old = metadata(2, role(&[1, 2, 3], 2));
    old.expires = UnixTime::from_seconds(1);
    let mut root = first();

    root.follow_chain(serve(vec![envelope(&old, &[1, 2]), envelope(&metadata(3, role(&[1], 1)), &[1, 2])]))
        .unwrap();

    assert_eq!(root.number(), 3);
}

#[test]
fn a_root_that_its_own_keys_did_not_sign_begins_no_chain() {
    let metadata = metadata(1, role(&[1, 2, 3], 2));

    for signers in [&[1][..], &[], &[4, 5], &[20, 30]] {
        assert!(matches!(
            TrustedRoot::anchor_chain(&envelope(&metadata, signers)),
            Err(TrustRootError::Signature(_))
        ));
    }
}

#[test]
fn keys_of_one_role_sign_nothing_of_another() {
    let root = first();
    let manifest = |seed| Signed::<Manifest>::sign_payload(b"{}".to_vec(), &keys(&[seed])).to_envelope();

    for seed in [1, 2, 20] {
        let refused = root.open_manifest(&manifest(seed)).unwrap_err();
        assert!(matches!(refused, OpenError::Verify(VerifyError::Threshold { found: 0, .. })), "{refused}");
    }
    // The right key, but its signature was for another role's document.
    let as_root = Signed::<RootMetadata>::sign_payload(b"{}".to_vec(), &keys(&[30])).to_envelope();
    let renamed = String::from_utf8(as_root).unwrap().replacen("v1 root ", "v1 manifest ", 1);
    let refused = root.open_manifest(renamed.as_bytes()).unwrap_err();
    assert!(matches!(refused, OpenError::Verify(VerifyError::Signature { .. })), "{refused}");
}

#[test]
fn a_root_from_the_future_is_followed_as_far_as_it_can_be_understood() {
    let text = String::from_utf8(metadata(2, role(&[1, 2, 3], 2)).to_bytes().unwrap()).unwrap();
    let next = |text: &str| {
        let signed = Signed::<RootMetadata>::sign_payload(text.as_bytes().to_vec(), &keys(&[1, 2]));
        first().next(&signed.to_envelope())
    };

    let later = text
        .replacen('{', "{\"mirrors\": [{\"url\": null}],", 1)
        .replacen("\"roles\": {", "\"roles\": {\"timestamp\": {\"keys\": 7},", 1)
        .replacen("\"keys\": [", "\"keys\": [\"catamaran-public-key-v2 ml-dsa-65 00ff Ann\", ", 3);
    let root = next(&later).unwrap();
    assert_eq!((root.number(), root.metadata().role_keys(Role::Root).keys.len()), (2, 4));

    let refused = next(&text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap_err();
    let mut causes = Vec::new();
    let mut error: Option<&dyn std::error::Error> = Some(&refused);
    while let Some(cause) = error {
        causes.push(cause.to_string());
        error = cause.source();
    }
    assert!(
        causes.contains(&"it has format 2, but format 1 is read here: it is for later agents".to_owned()),
        "{causes:?}"
    );
}

#[test]
fn keys_of_a_later_kind_count_for_nothing() {
    let mut second = metadata(2, role(&[1, 2, 3], 2));
    second.roles.release = RoleKeys { threshold: 2, ..role(&[30], 1) };
    second.roles.release.keys.push("catamaran-public-key-v2 00ff".to_owned());
    let root = first().next(&envelope(&second, &[1, 2])).unwrap();

    let manifest = Signed::<Manifest>::sign_payload(b"{}".to_vec(), &keys(&[30])).to_envelope();

    assert!(matches!(root.open_manifest(&manifest), Err(OpenError::Keyring(_))));
}

#[test]
fn what_is_no_root_metadata_is_refused() {
    let good = String::from_utf8(metadata(1, role(&[1, 2], 2)).to_bytes().unwrap()).unwrap();
    let refused = |text: String| RootMetadata::from_bytes(text.as_bytes()).unwrap_err();

    assert!(matches!(refused("[".repeat(20_000)), RootError::Json { .. }));
    assert!(matches!(refused(" ".repeat(MAX_ROOT + 1)), RootError::TooLarge { .. }));
    assert!(matches!(refused(good.replacen("\"number\": 1", "\"number\": 0", 1)), RootError::Number));
    assert!(matches!(refused(good.replacen("\"number\": 1", "\"number\": NaN", 1)), RootError::Json { .. }));
    assert!(matches!(
        refused(good.replacen("\"number\": 1", "\"number\": 1, \"number\": 2", 1)),
        RootError::Json { .. }
    ));
    assert!(matches!(
        refused(good.replace("\"threshold\": 2", "\"threshold\": 0")),
        RootError::Threshold { .. }
    ));
    assert!(matches!(
        refused(good.replace("\"threshold\": 2", "\"threshold\": 3")),
        RootError::Threshold { .. }
    ));
    assert!(matches!(refused(good.replacen("v1 ", "v1 zz", 1)), RootError::Key { .. }));
    let many = (0..17).map(|seed| key(seed).public_key("").to_text()).collect::<Vec<_>>();
    let many = RoleKeys { threshold: 1, keys: many.iter().map(|line| line.trim_end().to_owned()).collect() };
    assert!(matches!(metadata(1, many).to_bytes(), Err(RootError::TooManyKeys { given: 17, .. })));
}
