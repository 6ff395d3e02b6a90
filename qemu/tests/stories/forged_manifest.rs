//! The active slot's manifest is not what a release key signed: the slot is refused, with a reason.

use image_format::manifest::Manifest;
use image_format::signed::{SecretKey, Signed};
use image_format::slot::{Slot, SlotState, SlotTable};
use image_format::trailer;
use vm::Running;

use crate::disk_map::DiskMap;
use crate::scene::{PATIENCE, Scene, pull_the_plug, slot, start_damaged, throw_away, wait_until_back};

/// Three forgeries in one machine: after each refusal it is forged anew, and only the last time it may come
/// back all the way.
pub(crate) fn is_refused(scene: &Scene) {
    let mut machine = scene.two_slots("forged-manifest").build().unwrap();
    let forgeries: [(Forge, &str); 2] = [(unsigned, "0 trusted keys signed"), (tampered, "does not match")];
    for (forge, because) in forgeries {
        let mut running = start_damaged(machine, |map| put(map, forge));
        sees_the_refusal(&mut running, because);
        machine = pull_the_plug(running);
    }
    let mut running = start_damaged(machine, |map| put(map, by_a_stranger));
    sees_the_refusal(&mut running, "0 trusted keys signed");
    wait_until_back(&mut running);

    assert_eq!(slot(&running), Slot::B);
    throw_away(running);
}

/// From an envelope and its payload to another envelope.
type Forge = fn(&[u8], &[u8]) -> Vec<u8>;

fn unsigned(_: &[u8], payload: &[u8]) -> Vec<u8> {
    Signed::<Manifest>::sign(payload.to_vec(), &[]).to_envelope()
}

/// The last digit in the payload: another number, the same syntax, the same signatures.
fn tampered(envelope: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut forged = envelope.to_vec();
    let start = forged.len() - payload.len();
    let digit = forged[start..].iter().rposition(u8::is_ascii_digit).unwrap() + start;
    forged[digit] = if forged[digit] == b'9' { b'8' } else { forged[digit] + 1 };
    forged
}

fn by_a_stranger(_: &[u8], payload: &[u8]) -> Vec<u8> {
    Signed::<Manifest>::sign(payload.to_vec(), &[SecretKey::from_seed(&[7; 32])]).to_envelope()
}

/// Forges what slot B still has whole, and makes slot A the first and good again.
fn put(map: &DiskMap, forge: Forge) {
    let (envelope, _) = map.envelope(Slot::B);
    let (_, at) = map.envelope(Slot::A);
    let payload_at = envelope.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
    let forged = forge(&envelope, &envelope[payload_at..]);
    assert_ne!(forged, envelope);
    map.edit().write(at, &trailer::encode(&forged).unwrap()).unwrap();
    map.write_slot_table(SlotTable { b: SlotState::GOOD, ..SlotTable::FRESH });
}

fn sees_the_refusal(running: &mut Running, because: &str) {
    for words in ["starting slot A", "its manifest is not trusted", because, "starting slot B"] {
        running.expect(words, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    }
}
