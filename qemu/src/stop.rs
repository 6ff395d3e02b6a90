//! Switches off machines that other processes run.
//!
//! Knows three ways, each less polite than the one before: the power button, the guest's own account, the plug.
//! Invariant: a process is killed only while its machine's lock is held, since its number may be another's after.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::thread;
use std::time::{Duration, Instant};

use vm::Machine;
use vm::qmp::QmpConnection;
use vm::registry::{MachineEntry, RunningRecord};
use vm::running::press_until_off;

use crate::failure::CommandFailure;
use crate::report::print_note;

/// Asks a machine to shut down, and pulls the plug when it has not within `within`. No time pulls it at once.
pub(crate) fn switch_off(entry: &MachineEntry, within: Duration) -> Result<(), CommandFailure> {
    let on = entry.running_record()?;
    let deadline = Instant::now() + within;
    if !within.is_zero() {
        // Half of the time for the button: a guest without a handler for it needs the other half to shut down.
        let half = Instant::now() + within / 2;
        if is_off_by_button(entry, half)? || ask_by_ssh(entry, on) && is_off_by(entry, deadline) {
            print_note(format!("{} has shut down", entry.name));
            return Ok(());
        }
    }
    pull_the_plug(entry, on)?;
    print_note(format!("{}: the plug is pulled", entry.name));
    Ok(())
}

/// Asks the machine of another process to shut down.
fn is_off_by_button(entry: &MachineEntry, deadline: Instant) -> Result<bool, CommandFailure> {
    let press = || {
        Ok(QmpConnection::connect_qemu(&entry.folder, Duration::from_secs(10))
            .and_then(|mut qmp| qmp.press_power_button())?)
    };
    press_until_off(deadline, press, |until| Ok(is_off_by(entry, until)))
}

/// A guest without a button handler may still listen to its own account.
fn ask_by_ssh(entry: &MachineEntry, on: &RunningRecord) -> bool {
    let Ok(machine) = Machine::open_folder(&entry.folder) else { return false };
    let ssh = machine.ssh_through(on.ports);
    // The connection may well end before the answer: only the machine's end counts.
    let _ = ssh.run_script("sudo -n systemctl poweroff || systemctl poweroff", Duration::from_secs(20));
    true
}

/// Ends a machine at once.
pub(crate) fn pull_the_plug(entry: &MachineEntry, on: &RunningRecord) -> Result<(), CommandFailure> {
    let quit = QmpConnection::connect_qemu(&entry.folder, Duration::from_secs(5))
        .and_then(|mut qmp| qmp.quit_qemu());
    if quit.is_ok() && is_off_by(entry, Instant::now() + Duration::from_secs(10)) {
        return Ok(());
    }
    if entry.is_claimed() {
        // The lock is held, so the process id still means the process it meant.
        let qemu = nix::unistd::Pid::from_raw(i32::try_from(on.qemu)?);
        nix::sys::signal::kill(qemu, nix::sys::signal::Signal::SIGKILL)?;
    }
    is_off_by(entry, Instant::now() + Duration::from_secs(10));
    Ok(())
}

fn is_off_by(entry: &MachineEntry, deadline: Instant) -> bool {
    while entry.is_claimed() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}
