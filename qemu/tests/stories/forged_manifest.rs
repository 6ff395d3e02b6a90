//! What the active slot says of itself is not what a release key signed, or older than what the machine had: the
//! slot is refused, with a reason, and the other one boots.

use image_format::manifest::Manifest;
use image_format::signed::{SecretKey, Signed};
use image_format::slot::{BLOCK_BYTES, Slot, SlotState, SlotTable};
use image_format::trailer;
use vm::{Machine, RunningMachine};

use crate::disk_map::DiskMap;
use crate::scene::{PATIENCE, Scene, pull_the_plug, run, slot, start_damaged, throw_away, wait_until_back};

/// Forgeries in one machine: after each refusal it is forged anew, and only the last time it may come back all the
/// way.
pub(crate) fn is_refused(scene: &Scene) {
    let mut machine = scene.two_slots("forged-manifest").build().unwrap();
    machine = refuses_another_command_line(machine);
    let forgeries: [(Forge, &str); 2] = [(unsigned, "0 trusted keys signed"), (tampered, "does not match")];
    for (forge, because) in forgeries {
        let mut running = start_damaged(machine, |map| put(map, forge));
        sees_the_refusal(&mut running, NOT_TRUSTED, because);
        machine = pull_the_plug(running);
    }
    let mut running = start_damaged(machine, |map| put(map, by_a_stranger));
    sees_the_refusal(&mut running, NOT_TRUSTED, "0 trusted keys signed");
    wait_until_back(&mut running);

    assert_eq!(slot(&running), Slot::B);
    is_not_set_back(&mut running);
    throw_away(running);
}

fn refuses_another_command_line(machine: Machine) -> Machine {
    let map = DiskMap::of(machine.edit_disk().unwrap());
    let at = map.first_block(Slot::A, "/boot/env");
    let signed = map.edit().read(at, BLOCK_BYTES).unwrap();
    let forged = with_an_order(&signed);
    let mut running = start_damaged(machine, |map| map.edit().write(at, &forged).unwrap());
    sees_the_refusal(&mut running, "its kernel command line is not the signed one", "systemd.debug_shell");
    let machine = pull_the_plug(running);
    machine.edit_disk().unwrap().write(at, &signed).unwrap();
    machine
}

/// Slot A is whole again, but older than what the machine has proven, and not what it has proven in slot A.
fn is_not_set_back(running: &mut RunningMachine) {
    run(running, OLD_RELEASE_IN_SLOT_A);
    sees_the_refusal(running, "but this machine has proven 99.0.0 already", "lower-floor");
}

/// Once boot-complete has written its own note, which it would otherwise write later. The restart waits until ssh
/// has said that all went well.
const OLD_RELEASE_IN_SLOT_A: &str = "set -e
    until systemctl is-active -q catamaran-boot-complete.service; do sleep 1; done
    floor=/var/lib/catamaran/release-floor.json
    sudo grep -q '\"B\"' $floor
    sudo sed -i 's/\"version\": .*/\"version\": \"99.0.0\"/; s/\"A\":/\"B\":/' $floor
    end=$(($(sudo blockdev --getsize64 /dev/vda5) / 65536 - 1))
    sudo dd if=/dev/vda5 of=/dev/vda4 bs=64k count=1 skip=$end seek=$end conv=fsync status=none
    sudo initagent slots activate A | grep 'older than 99.0.0'
    nohup sh -c 'sleep 1; sudo systemctl reboot' >/dev/null 2>&1 &";

const NOT_TRUSTED: &str = "its manifest is not trusted";

/// A word more in the file that GRUB reads and dm-verity has not seen yet.
fn with_an_order(block: &[u8]) -> Vec<u8> {
    let text = str::from_utf8(block).unwrap();
    let line = text.trim_end_matches('#').trim_end();
    let mut forged = format!("{line} systemd.debug_shell=ttyS0\n").into_bytes();
    forged.resize(BLOCK_BYTES, b'#');
    forged
}

/// From an envelope and its payload to another envelope.
type Forge = fn(&[u8], &[u8]) -> Vec<u8>;

fn unsigned(_: &[u8], payload: &[u8]) -> Vec<u8> {
    Signed::<Manifest>::sign_payload(payload.to_vec(), &[]).to_envelope()
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
    Signed::<Manifest>::sign_payload(payload.to_vec(), &[SecretKey::from_seed(&[7; 32])]).to_envelope()
}

/// Forges what slot B still has whole, and makes slot A the first and good again.
fn put(map: &DiskMap, forge: Forge) {
    let (envelope, _) = map.envelope(Slot::B);
    let (_, at) = map.envelope(Slot::A);
    let payload_at = envelope.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
    let forged = forge(&envelope, &envelope[payload_at..]);
    assert_ne!(forged, envelope);
    map.edit().write(at, &trailer::encode_trailer(&forged).unwrap()).unwrap();
    map.write_slot_table(SlotTable { b: SlotState::GOOD, ..SlotTable::FRESH });
}

fn sees_the_refusal(running: &mut RunningMachine, refused: &str, because: &str) {
    for words in ["starting slot A", refused, because, "starting slot B"] {
        running.wait_for_words(words, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    }
}
