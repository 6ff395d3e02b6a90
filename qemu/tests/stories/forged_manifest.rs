//! The active slot's manifest is not what a release key signed: the slot is refused, with a reason.

use image_format::manifest::Manifest;
use image_format::signed::{SecretKey, Signed};
use image_format::slot::Slot;
use image_format::trailer;
use vm::firmware::Firmware;

use crate::scene::{PATIENCE, Scene, slot, throw_away, wait_until_back};

pub(crate) fn unsigned(scene: &Scene) {
    is_refused(scene, "unsigned", |_, payload| Signed::<Manifest>::sign(payload, &[]).to_envelope());
}

pub(crate) fn tampered(scene: &Scene) {
    is_refused(scene, "tampered", |envelope, payload| {
        let mut forged = envelope.to_vec();
        // The last digit in the payload: another number, the same syntax, the same signatures.
        let start = forged.len() - payload.len();
        let digit = forged[start..].iter().rposition(u8::is_ascii_digit).unwrap() + start;
        forged[digit] = if forged[digit] == b'9' { b'8' } else { forged[digit] + 1 };
        forged
    });
}

pub(crate) fn by_a_stranger(scene: &Scene) {
    is_refused(scene, "stranger", |_, payload| {
        Signed::<Manifest>::sign(payload, &[SecretKey::from_seed(&[7; 32])]).to_envelope()
    });
}

fn is_refused(scene: &Scene, name: &str, forge: impl Fn(&[u8], Vec<u8>) -> Vec<u8>) {
    let mut running = scene.damaged(&format!("manifest-{name}"), Firmware::Bios, |map| {
        let (envelope, at) = map.envelope(Slot::A);
        let payload_at = envelope.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
        let forged = forge(&envelope, envelope[payload_at..].to_vec());
        assert_ne!(forged, envelope);
        map.edit().write(at, &trailer::encode(&forged).unwrap()).unwrap();
    });

    let reason = running.expect("manifest", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    wait_until_back(&mut running);

    assert!(reason.contains("manifest"), "{reason}");
    assert_eq!(slot(&running), Slot::B);
    throw_away(running);
}
