//! Machines as the library runs them, with a guest of two hundred bytes: a boot sector that counts its boots
//! on its disk, says the number on the serial port, and echoes what is typed. `q` switches it off, `r` resets.
//!
//! The library must work under it as under an operating system: the guest is small so that this takes seconds.

#![expect(clippy::disallowed_methods, reason = "effects live here")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail them too")]

mod guest;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use vm::acceleration::AccelerationChoice;
use vm::builder::MachineBuilder;
use vm::disk::{self, DiskEditor, DiskSize, MachineDisk};
use vm::firmware::Firmware;
use vm::machine::StartError;
use vm::running::GuestError;
use vm::seeded_random::SeededRandom;
use vm::write_log::{WriteEvent, WriteLog};
use vm::{Machine, RunningMachine};

/// Where the guest counts its boots on its disk.
const COUNTER: u64 = 512;
/// Long enough for a machine under load; nothing waits that long when all is well.
const SOON: Duration = Duration::from_secs(90);

/// A folder with an image in it; none where the tools are missing.
fn workshop() -> Option<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("guest.raw");
    fs::write(&image, guest::disk()).unwrap();
    guest::can_run().then_some((folder, image))
}

fn builder(disk: MachineDisk) -> MachineBuilder {
    Machine::builder(disk).name("guest").acceleration(AccelerationChoice::Tcg).memory(64)
}

fn raw(folder: &tempfile::TempDir, image: &std::path::Path) -> MachineDisk {
    disk::copy_image(image, &folder.path().join("disk.raw"), DiskSize::Same).unwrap()
}

fn boot(machine: Machine, words: &str) -> RunningMachine {
    let mut running = machine.start_machine().unwrap();
    running.wait_for_words(words, SOON).unwrap();
    running
}

#[test]
fn a_cut_and_a_restart_keep_the_disk_and_leave_the_image_alone() {
    let Some((folder, image)) = workshop() else { return };
    let before = fs::read(&image).unwrap();
    let overlay =
        disk::create_overlay(&image, &folder.path().join("disk.qcow2"), DiskSize::More(8 << 20)).unwrap();

    let first = boot(builder(overlay).build().unwrap(), "this is boot 1");
    let machine = first.power_cut().unwrap();
    let second = boot(machine, "this is boot 2");
    drop(second);

    assert!(fs::read(&image).unwrap() == before);
}

#[test]
fn a_disk_is_edited_between_boots() {
    let Some((folder, image)) = workshop() else { return };

    let machine = boot(builder(raw(&folder, &image)).build().unwrap(), "boot 1").power_cut().unwrap();
    machine.edit_disk().unwrap().write(COUNTER, &[6]).unwrap();

    boot(machine, "this is boot 7");
}

#[test]
fn what_is_typed_reaches_the_guest_and_it_switches_itself_off() {
    let Some((folder, image)) = workshop() else { return };
    let mut running = boot(builder(raw(&folder, &image)).build().unwrap(), "boot 1");

    running.type_in(b"hello").unwrap();
    running.wait_for_words("hello", SOON).unwrap();
    running.type_in(b"r").unwrap();
    running.wait_for_words("boot 2", SOON).unwrap();
    running.reset_machine().unwrap();
    running.wait_for_words("boot 3", SOON).unwrap();
    running.type_in(b"q").unwrap();

    running.wait_until_off("q was typed", SOON).unwrap();
}

#[test]
fn silence_is_reported_with_the_end_of_the_console() {
    let Some((folder, image)) = workshop() else { return };
    let mut running = boot(builder(raw(&folder, &image)).build().unwrap(), "this is");

    let error = running.wait_for_words("login:", Duration::from_secs(1)).unwrap_err();

    assert!(matches!(error, GuestError::Silent { .. }));
    assert!(error.to_string().contains("login:") && error.to_string().contains("boot 1"), "{error}");
}

#[test]
fn a_machine_that_goes_off_ends_the_wait() {
    let Some((folder, image)) = workshop() else { return };
    let mut running = boot(builder(raw(&folder, &image)).build().unwrap(), "boot 1");
    running.type_in(b"q").unwrap();

    let error = running.wait_for_words("login:", SOON).unwrap_err();

    assert!(matches!(error, GuestError::Off { .. }), "{error}");
}

#[test]
fn a_guest_that_ignores_the_power_button_is_still_on() {
    let Some((folder, image)) = workshop() else { return };
    let running = boot(builder(raw(&folder, &image)).build().unwrap(), "boot 1");

    let error = running.power_off(Duration::from_secs(1)).unwrap_err();

    assert!(matches!(error, GuestError::StillOn { .. }), "{error}");
}

#[test]
fn a_guest_without_ssh_is_waited_for_in_vain() {
    let Some((folder, image)) = workshop() else { return };
    let mut running = boot(builder(raw(&folder, &image)).build().unwrap(), "boot 1");

    let error = running.wait_for_ssh(Duration::from_secs(2)).unwrap_err();

    assert!(matches!(error, GuestError::NoSsh { .. }), "{error}");
}

#[test]
fn wrong_arguments_are_reported_in_qemu_s_words() {
    let Some((folder, image)) = workshop() else { return };

    let machine = builder(raw(&folder, &image)).extra(["-device".into(), "nonsense".into()]).build().unwrap();
    let error = machine.start_machine().unwrap_err();

    assert!(matches!(error, StartError::Ended { .. }));
    assert!(error.to_string().contains("nonsense"), "{error}");
}

#[test]
fn a_guest_whose_kernel_panicked_is_not_waited_for() {
    let Some((folder, image)) = workshop() else { return };
    fs::write(&image, guest::disk_that_says("Kernel panic - not syncing: ")).unwrap();
    let mut running = builder(raw(&folder, &image)).build().unwrap().start_machine().unwrap();

    let error = running.wait_for_ssh_at_once(SOON).unwrap_err();

    assert!(matches!(error, GuestError::Panicked { .. }), "{error}");
}

#[test]
fn the_write_log_replays_to_the_disk_the_guest_left() {
    let Some((folder, image)) = workshop() else { return };
    let machine = builder(raw(&folder, &image)).log_writes().build().unwrap();

    let machine = boot(machine, "boot 1").power_cut().unwrap();
    let log = WriteLog::read_log(&machine.write_log().unwrap()).unwrap();

    let written = WriteEvent::Write { sector: 1, count: 1, data: 1024, forced: false };
    assert_eq!(
        log.write_events().iter().filter(|event| **event == written).count(),
        1,
        "{:?}",
        log.write_events()
    );
    let replayed = folder.path().join("replayed.raw");
    disk::copy_image(&image, &replayed, DiskSize::Same).unwrap();
    let edit = DiskEditor::open_disk(&replayed).unwrap();
    // A seed whose first coin keeps the one write.
    let kept = (0..100).find(|seed| SeededRandom::from_seed(*seed).next_number() & 1 == 1).unwrap();
    log.cut_power(&edit, log.write_events().len(), &mut SeededRandom::from_seed(kept)).unwrap();
    assert!(fs::read(&replayed).unwrap() == fs::read(machine.disk_path()).unwrap());
}

#[test]
fn uefi_firmware_starts_with_variables_of_its_own() {
    for firmware in [Firmware::Uefi, Firmware::Secure] {
        let Some((folder, image)) = workshop() else { return };
        let machine = builder(raw(&folder, &image)).firmware(firmware).memory(256).build().unwrap();

        let mut running = machine.start_machine().unwrap();

        // No boot loader for UEFI is on the disk: the firmware says so.
        running.wait_for_words("BdsDxe: ", SOON).unwrap();
    }
}

#[test]
fn a_process_that_is_killed_leaves_no_machine_behind() {
    let Some((folder, image)) = workshop() else { return };
    let state = folder.path().join("state");
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_vm"))
        .arg("--state")
        .arg(&state)
        .args(["run", "--accel", "tcg", "--memory", "64", "--name", "doomed"])
        .arg(&image)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let registry = vm::registry::MachineRegistry::open_registry(&state).unwrap();
    let qemu =
        wait_for(|| registry.find_machine(Some("doomed")).ok()?.running_record().ok().map(|on| on.qemu));
    let alive = || fs::read_to_string(format!("/proc/{qemu}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(alive());

    process.kill().unwrap();
    process.wait().unwrap();

    wait_for(|| (!alive()).then_some(()));
    assert_eq!(registry.find_machine(Some("doomed")).unwrap().state, vm::registry::MachineState::Off);
}

fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> T {
    for _ in 0..900 {
        if let Some(value) = what() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("nothing came in 90 seconds");
}
