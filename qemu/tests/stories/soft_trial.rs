//! A release is tried without a restart of the kernel, and every accident ends on the old slot by itself.
//!
//! One release serves all attempts, since the machine comes back from each but the last: a check fails, the machine is
//! reset in the middle, and then it is well. What a soft trial interrupts is measured against a restart of the same
//! machine, both from the order to the first command over ssh.

use std::thread;
use std::time::{Duration, Instant};

use image_format::slot::{Slot, SlotState};
use image_format::version::Version;
use vm::RunningMachine;
use vm::options::Bus;

use crate::scene::{PATIENCE, Scene, discard, run, slot, switch_off, wait_until_back};
use crate::update::{device, make_release};

/// A check that fails in slot B when it is told to, and a unit that asks to outlive the switch.
const SETTINGS: &str = "set -e
    sudo mkdir -p /etc/catamaran/update.d /etc/catamaran/health.d/required.d
    printf 'TRIAL_SOFT=auto\\nTRIAL_SOAK=3s\\nTRIAL_PATIENCE=20s\\n' | sudo tee /etc/catamaran/update.d/10-story.conf >/dev/null
    printf '%s\\n' '#!/bin/sh' 'grep -q \"slot.: .A\" /run/catamaran/boot.json && exit 0' \\
        '[ ! -e /etc/story-sick ] || { echo the database is gone; exit 3; }' |
        sudo tee /etc/catamaran/health.d/required.d/10-story.sh >/dev/null
    sudo chmod 755 /etc/catamaran/health.d/required.d/10-story.sh
    printf '%s\\n' '[Unit]' DefaultDependencies=no SurviveFinalKillSignal=yes IgnoreOnIsolate=yes \\
        'Conflicts=reboot.target poweroff.target halt.target kexec.target' '[Service]' \\
        'ExecStart=/bin/sleep infinity' | sudo tee /etc/systemd/system/story-survivor.service >/dev/null
    sudo systemctl daemon-reload; sudo touch /etc/story-sick; sync";

const INSTALL: &str = "set -e
    sudo initagent update install DEVICE
    test -e /run/reboot-required
    sudo initagent update status; sudo initagent slots
    manager='com.coreos.update1 /com/coreos/update1 com.coreos.update1.Manager'
    busctl call $manager GetStatus
    ! busctl call $manager ResetStatus 2>&1";

/// Which root runs; the kernel's command line goes on naming the slot of the last boot from the disk.
const RUNNING: &str = "grep -o '\"slot\": \"[AB]\"' /run/catamaran/boot.json";

pub(crate) fn ends_on_the_slot_it_earned(scene: &Scene) {
    let release = make_release(scene, &scene.settling().disk, Version::new(90, 1, 0), 4);
    let machine = scene.settled("soft-trial").beside(&release, Bus::Virtio).watchdog();
    let mut running = machine.build().unwrap().start_machine().unwrap();
    wait_until_back(&mut running);
    run(&running, SETTINGS);
    let release = device(&running, &release);

    comes_back_from_a_failed_check(&mut running, &release);
    comes_back_from_a_reset(&mut running, &release);
    let soft = passes_without_a_restart(&mut running, &release);
    let restart = is_counted_at_its_first_cold_boot(&mut running);
    println!("    interrupted for {soft:.1?} by a soft trial, {restart:.1?} by a restart");

    let (machine, map) = switch_off(running);
    assert_eq!(map.slot_table().slot_state(Slot::A), SlotState::GOOD);
    assert!(map.slot_table().slot_state(Slot::B).good && map.slot_table().priority == Slot::B);
    discard(&machine);
}

fn comes_back_from_a_failed_check(running: &mut RunningMachine, device: &str) {
    let said = run(running, &INSTALL.replace("DEVICE", device));
    assert!(said.contains("trial:     by a soft-reboot"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("B ") && line.contains("empty")), "{said}");
    // Everybody may ask, and only root may change.
    let status = said.lines().find(|line| line.starts_with("xdssx")).unwrap_or_else(|| panic!("{said}"));
    assert!(status.contains("\"UPDATE_STATUS_UPDATED_NEED_REBOOT\" \"90.1.0\""), "{said}");
    assert!(said.contains("denied"), "{said}");
    order(running, "systemctl soft-reboot");

    for words in ["the database is gone", "starting slot A"] {
        running.wait_for_words(words, PATIENCE).unwrap_or_else(|error| panic!("{words}: {error}"));
    }
    wait_until_back(running);
    assert_eq!(slot(running), Slot::A);
    let said = run(running, SHOWN);
    for words in [
        "UPDATE FAILED: release 90.1.0 came to nothing in slot B",
        "the check \"10-story.sh\" failed: exit code 3: the database is gone",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// The agent says it while ssh answers already.
const SHOWN: &str = "until systemctl is-active -q catamaran-update-failed.target; do sleep 1; done
    until test -e /run/motd.d/60-catamaran-update; do sleep 1; done
    cat /run/motd.d/60-catamaran-update; sudo initagent update status";

fn comes_back_from_a_reset(running: &mut RunningMachine, device: &str) {
    run(
        running,
        "sudo rm /etc/story-sick; printf 'TRIAL_SOAK=10m\\n' | sudo tee /etc/catamaran/update.d/20-story.conf; sync",
    );
    run(running, &INSTALL.replace("DEVICE", device));
    soft_reboot(running, Slot::A);
    let said = run(running, "sudo initagent update status; sudo initagent slots");
    assert!(said.contains("phase:     trial") && said.contains("running:   90.1.0 in slot B"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("B ") && line.contains("empty")), "{said}");

    running.reset_machine().unwrap();
    running.wait_for_words("starting slot A", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    wait_until_back(running);

    assert_eq!(slot(running), Slot::A);
    let said = run(running, SHOWN);
    assert!(said.contains("its soft trial ended without a verdict"), "{said}");
    run(running, "sudo rm /etc/catamaran/update.d/20-story.conf; sync");
}

fn passes_without_a_restart(running: &mut RunningMachine, device: &str) -> Duration {
    run(running, &INSTALL.replace("DEVICE", device));
    run(
        running,
        "sudo systemctl start story-survivor.service; echo kept | sudo tee /var/kept /etc/kept >/dev/null",
    );
    let survivor = run(running, SURVIVOR);
    let interrupted = soft_reboot(running, Slot::A);

    let said = run(running, PASSED);

    assert_eq!(run(running, SURVIVOR), survivor, "the unit outlives the switch");
    assert!(said.contains("running:   90.1.0 in slot B"), "{said}");
    assert!(said.contains("passed without a restart"), "{said}");
    assert!(
        said.lines()
            .any(|line| line.starts_with("B ") && line.contains("first") && line.contains("unproven")),
        "{said}"
    );
    assert!(
        run(running, "cat /var/kept /etc/kept; findmnt -no SOURCE /run/catamaran/state")
            .starts_with("kept\nkept\n/dev/")
    );
    interrupted
}

const SURVIVOR: &str = "systemctl show -P MainPID story-survivor.service";

/// The trial ends by itself; nothing that it armed is left, and the watch over it has ended.
const PASSED: &str = "set -e
    until sudo initagent update status | grep -q 'passed without'; do sleep 1; done
    until ! systemctl is-active -q catamaran-update-guard.service; do sleep 1; done
    ! systemctl is-active -q catamaran-update-deadline.timer
    test ! -e /run/reboot-required
    sudo initagent update status; sudo initagent slots";

fn is_counted_at_its_first_cold_boot(running: &mut RunningMachine) -> Duration {
    let began = Instant::now();
    order(running, "systemctl reboot");
    running.wait_for_words("starting slot B", PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    wait_until_back(running);
    let interrupted = began.elapsed();

    assert_eq!(slot(running), Slot::B);
    let said = run(running, COLD);
    assert!(said.contains("90.1.0 in slot B: good"), "{said}");
    interrupted
}

const COLD: &str = "set -e
    until sudo initagent update status | grep -q 'phase: *steady'; do sleep 1; done
    sudo initagent update history";

/// Gives an order that ends the connection.
fn order(running: &RunningMachine, command: &str) {
    run(running, &format!("nohup sh -c 'sleep 0.5; sudo {command}' >/dev/null 2>&1 &"));
}

/// Switches to the other root, and says how long nobody got in. The old root answers until sshd ends.
fn soft_reboot(running: &mut RunningMachine, from: Slot) -> Duration {
    let began = Instant::now();
    order(running, "systemctl soft-reboot");
    let wanted = format!("\"slot\": \"{}\"", !from);
    let until = began + PATIENCE;
    loop {
        let said = running.ssh_access().run_checked(RUNNING, Duration::from_secs(20));
        if said.is_err() {
            running.ssh_access().log_out();
        }
        if said.is_ok_and(|said| said.trim() == wanted) {
            return began.elapsed();
        }
        assert!(Instant::now() < until, "no soft-reboot: {}", running.console().last_lines(30));
        thread::sleep(Duration::from_millis(100));
    }
}
