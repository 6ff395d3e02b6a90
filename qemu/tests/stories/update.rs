//! A machine replaces its own system, and comes back from a release that is bad, with the reason shown.
//!
//! The releases are the image's own root under other versions and salts, signed with the image's key, which is what
//! a release is to a machine; they come on disks beside its own, as on USB sticks. A clone of the machine's disk is
//! attached all the while, and nothing of it may be written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use image_format::manifest::{Manifest, Salt};
use image_format::signed::{SecretKey, Signed, SignedPayload as _};
use image_format::slot::{Slot, SlotState};
use image_format::trailer::{self, TRAILER_BYTES};
use image_format::verity::{self, ReadAt};
use image_format::version::Version;
use vm::RunningMachine;
use vm::disk::DiskEditor;
use vm::options::Bus;

use crate::disk_map::DiskMap;
use crate::scene::{PATIENCE, Scene, discard, run, slot, switch_off, wait_until_back};

/// Quick checks, and one of a person's own that fails in slot A when it is told to. The kernel would wait ten
/// seconds before it restarts, and burn them.
const SETTINGS: &str = "set -e
    sudo mkdir -p /etc/catamaran/update.d /etc/catamaran/health.d/required.d
    printf 'TRIAL_SOAK=3s\\nTRIAL_PATIENCE=20s\\n' | sudo tee /etc/catamaran/update.d/10-story.conf >/dev/null
    printf '%s\\n' '#!/bin/sh' 'grep -q catamaran.slot=b /proc/cmdline && exit 0' '[ ! -e /etc/story-sick ] || { echo the database is gone; exit 3; }' |
        sudo tee /etc/catamaran/health.d/required.d/10-story.sh >/dev/null
    sudo chmod 755 /etc/catamaran/health.d/required.d/10-story.sh";

/// Kills an install as soon as it writes, and shows what is left of it.
const KILLED_INSTALL: &str = "sudo systemd-run --quiet --unit=story-install initagent update install DEVICE
    until sudo test -e /run/catamaran/update/progress.json; do sleep 0.1; done
    sudo systemctl kill --signal=KILL story-install.service
    while systemctl is-active -q story-install.service; do sleep 0.1; done
    sudo initagent update status; sudo initagent slots";

/// Restarts once ssh has said that all went well.
const INSTALL_AND_RESTART: &str = "set -e
    sudo initagent update install DEVICE
    test -e /run/reboot-required
    nohup sh -c 'sleep 1; sudo systemctl reboot' >/dev/null 2>&1 &";

const PANIC_UNIT: &str = "set -e
    printf '%s\\n' '[Unit]' DefaultDependencies=no After=systemd-remount-fs.service Before=sysinit.target \\
        'ConditionKernelCommandLine=catamaran.slot=a' '[Service]' Type=oneshot \\
        \"ExecStart=/bin/sh -c 'cd /proc; echo 1 >sys/kernel/panic; echo 1 >sys/kernel/sysrq; echo c >sysrq-trigger'\" \\
        '[Install]' WantedBy=sysinit.target | sudo tee /etc/systemd/system/story-panic.service >/dev/null
    sudo systemctl enable -q story-panic.service; sudo rm -f /etc/story-sick; sync";

pub(crate) fn moves_and_comes_back(scene: &Scene) {
    let (clone, disk) = (scene.settled_copy(), &scene.settling().disk);
    let newer = make_release(scene, disk, Version::new(90, 1, 0), 1);
    let newest = make_release(scene, disk, Version::new(90, 2, 0), 2);
    let machine = scene.settled("update").beside(clone.path(), Bus::Virtio);
    let machine = machine.beside(&newer, Bus::Virtio).beside(&newest, Bus::Virtio).watchdog();
    let mut running = machine.build().unwrap().start_machine().unwrap();
    wait_until_back(&mut running);
    run(&running, SETTINGS);

    let [newer, newest] = [&newer, &newest].map(|release| device(&running, release));
    survives_a_kill(&running, &newer);
    moves_to_the_newer(&mut running, &newer);
    comes_back_from_a_failed_check(&mut running, &newest);
    comes_back_from_a_panic(&mut running, &newest);

    let (machine, map) = switch_off(running);
    assert_eq!(map.slot_table().slot_state(Slot::A), SlotState::EMPTY);
    // It was switched off before it had given itself back the try that its last boot cost.
    assert!(map.slot_table().slot_state(Slot::B).good);
    discard(&machine);
    clone.assert_untouched();
}

fn survives_a_kill(running: &RunningMachine, device: &str) {
    let said = run(running, &KILLED_INSTALL.replace("DEVICE", device));

    assert!(said.contains("phase:     fetching") && said.contains("target:    90.1.0 in slot B"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("B ") && line.contains("empty")), "{said}");
}

fn moves_to_the_newer(running: &mut RunningMachine, device: &str) {
    run(running, &INSTALL_AND_RESTART.replace("DEVICE", device));
    running.wait_for_words("starting slot B", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    wait_until_back(running);
    assert_eq!(slot(running), Slot::B);

    let said = run(running, ENDED_WELL);

    assert!(
        said.contains("90.1.0 in slot B: good") && said.contains("running:   90.1.0 in slot B"),
        "{said}"
    );
    assert_eq!(said.lines().filter(|line| line.contains(" good ")).count(), 2, "both slots are good: {said}");
}

/// The trial ends by itself; the watchdog was armed until then.
const ENDED_WELL: &str = "set -e
    until sudo initagent update status | grep -q 'phase: *steady'; do
        busctl get-property org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \\
            RuntimeWatchdogUSec >/tmp/watchdog
        sleep 1
    done
    test -e /dev/watchdog0
    test \"$(cat /tmp/watchdog)\" = 't 60000000'
    until systemctl is-active -q catamaran-update-succeeded.target; do sleep 1; done
    ! systemctl is-active -q catamaran-update-deadline.timer
    test ! -e /run/reboot-required
    sudo initagent update status; sudo initagent update history; sudo initagent slots";

fn comes_back_from_a_failed_check(running: &mut RunningMachine, device: &str) {
    run(running, "sudo touch /etc/story-sick; sync");
    run(running, &INSTALL_AND_RESTART.replace("DEVICE", device));
    for words in ["starting slot A", "the database is gone", "starting slot B"] {
        running.wait_for_words(words, PATIENCE).unwrap_or_else(|error| panic!("{words}: {error}"));
    }
    wait_until_back(running);
    assert_eq!(slot(running), Slot::B);

    let said = run(running, SHOWN);

    for words in [
        "UPDATE FAILED: release 90.2.0 came to nothing in slot A, and 90.1.0 runs.",
        "failed:    90.2.0 in slot A: the check \"10-story.sh\" failed: exit code 3: the database is gone",
        "avoided:   90.2.0",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// The agent says it while ssh answers already.
const SHOWN: &str = "until systemctl is-active -q catamaran-update-failed.target; do sleep 1; done
    until test -e /run/motd.d/60-catamaran-update; do sleep 1; done
    cat /run/motd.d/60-catamaran-update; sudo initagent update status";

/// A person may try it again. It panics now, before the agent runs: the tries are spent, and the old slot knows why.
fn comes_back_from_a_panic(running: &mut RunningMachine, device: &str) {
    run(running, PANIC_UNIT);
    run(running, &INSTALL_AND_RESTART.replace("DEVICE", device));
    for _ in 0..3 {
        for words in ["starting slot A", "Kernel panic"] {
            running.wait_for_words(words, PATIENCE).unwrap_or_else(|error| panic!("{words}: {error}"));
        }
    }
    wait_until_back(running);
    assert_eq!(slot(running), Slot::B);

    let said = run(running, SHOWN);

    assert!(said.contains("it never came as far as the agent"), "{said}");
}

/// The node of a disk beside, told by its size: no two have the same.
pub(crate) fn device(running: &RunningMachine, release: &Path) -> String {
    let sectors = std::fs::metadata(release).unwrap().len() / 512;
    let script = format!("grep -lx {sectors} /sys/block/vd*/size | cut -d / -f 4");
    format!("/dev/{}", run(running, &script).trim())
}

/// The root of a machine under another version and salt: another root hash, so another release. The seed is another
/// for each release of all stories, since they run beside each other and files are named by it.
pub(crate) fn make_release(scene: &Scene, disk: &Path, version: Version, seed: u8) -> PathBuf {
    let map = DiskMap::of(DiskEditor::open_disk(disk).unwrap());
    let (envelope, _) = map.envelope(Slot::A);
    let payload_at = envelope.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
    let mut manifest = Manifest::from_bytes(&envelope[payload_at..]).unwrap();
    let partition = map.root(Slot::A);
    let root = SlotData { file: File::open(disk).unwrap(), start: partition.start };
    manifest.version = version;
    manifest.root.salt = Salt::new(vec![seed; 32]).unwrap();
    let tree = verity::build_tree(&root, manifest.root.data_bytes, &[seed; 32], 2).unwrap();
    manifest.root.root_hash = tree.root_hash;
    let signed = Signed::<Manifest>::sign_payload(manifest.to_bytes().unwrap(), &[secret_key()]);
    // A little longer than the slot, by which the device is told from others.
    let size = partition.end - partition.start + u64::from(seed) * (1 << 20);
    let path = scene.keep(&format!("release-{seed}.raw"), b"");
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(size).unwrap();
    copy_data(&root, manifest.root.data_bytes, &file);
    file.write_all_at(&tree.bytes, manifest.root.tree_offset).unwrap();
    let end = trailer::encode_trailer(&signed.to_envelope()).unwrap();
    file.write_all_at(&end, size - TRAILER_BYTES as u64).unwrap();
    path
}

/// Leaves out what is empty, so that the host's disk holds it once.
fn copy_data(root: &SlotData, bytes: u64, file: &File) {
    let mut buffer = vec![0; 1 << 20];
    for offset in (0..bytes).step_by(buffer.len()) {
        let length = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(buffer.len());
        root.read_exact_at(&mut buffer[..length], offset).unwrap();
        if buffer[..length].iter().any(|byte| *byte != 0) {
            file.write_all_at(&buffer[..length], offset).unwrap();
        }
    }
}

fn secret_key() -> SecretKey {
    let path = std::env::var_os("CATAMARAN_KEY").unwrap();
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

struct SlotData {
    file: File,
    start: u64,
}

impl ReadAt for SlotData {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.file, bytes, self.start + offset)
    }
}
