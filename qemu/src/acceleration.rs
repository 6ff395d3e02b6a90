//! Chooses between KVM and emulation, by trying.
//!
//! `/dev/kvm` that opens proves nothing: on nested hosts it can open and then hang, or abort in the middle of
//! a kernel. So KVM is taken only if the processor announces hardware virtualisation *and* a guest of six
//! bytes runs to its end on it within a few seconds. Invariant: what is chosen comes with its reason.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::OwnedChild;

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AccelerationChoice {
    /// KVM if it really works here, else TCG
    #[default]
    Auto,
    /// KVM, untried
    Kvm,
    /// QEMU's emulation, which works everywhere and is slow
    Tcg,
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// The processor, through the kernel
    Kvm,
    /// QEMU, through translation
    Tcg,
}

/// An acceleration and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenAcceleration {
    /// What to use
    pub acceleration: Acceleration,
    /// One clause for the user
    pub because: String,
}

/// Fulfils a wish; `auto` looks at `/proc/cpuinfo` and `/dev/kvm` and runs the guest of six bytes.
#[must_use]
pub fn choose_acceleration(wish: AccelerationChoice) -> ChosenAcceleration {
    let (acceleration, because) = match wish {
        AccelerationChoice::Kvm => (Acceleration::Kvm, "asked for".to_owned()),
        AccelerationChoice::Tcg => (Acceleration::Tcg, "asked for".to_owned()),
        AccelerationChoice::Auto => match probe_kvm() {
            Ok(()) => (Acceleration::Kvm, "a trial guest ran on it".to_owned()),
            Err(obstacle) => (Acceleration::Tcg, format!("KVM does not work here: {obstacle}")),
        },
    };
    ChosenAcceleration { acceleration, because }
}

fn probe_kvm() -> Result<(), String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").map_err(|error| format!("/proc/cpuinfo: {error}"))?;
    // First, since it costs nothing: without the flags a device node is left over from the host of a container.
    if !announces_virtualisation(&cpuinfo) {
        return Err("the processor announces neither vmx nor svm".to_owned());
    }
    let kvm = Path::new("/dev/kvm");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(kvm)
        .map_err(|error| format!("{}: {error} (is your user in the group kvm?)", kvm.display()))?;
    // On the nested hosts that were tried the guest hung, or QEMU aborted at once. Six bytes take no time where KVM
    // works: the five seconds are for hosts that are busy.
    match run_trial(Acceleration::Kvm, Duration::from_secs(5)) {
        Ok(true) => Ok(()),
        Ok(false) => Err("a trial guest did not run to its end on it".to_owned()),
        Err(error) => Err(format!("the trial guest could not be started: {error}")),
    }
}

fn announces_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

/// Writes [`TRIAL_EXIT`] to QEMU's isa-debug-exit port: `mov al, 0x10; out 0xf4, al; jmp $`.
const TRIAL_GUEST: [u8; 6] = [0xb0, 0x10, 0xe6, 0xf4, 0xeb, 0xfe];
/// What QEMU makes of the value 0x10: twice it plus one.
const TRIAL_EXIT: i32 = 0x21;

/// Whether the guest of six bytes, started by the firmware as a boot sector, runs to its end.
fn run_trial(acceleration: Acceleration, within: Duration) -> io::Result<bool> {
    let mut sector = [0_u8; 512];
    sector[..TRIAL_GUEST.len()].copy_from_slice(&TRIAL_GUEST);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut disk = tempfile::tempfile()?;
    disk.write_all(&sector)?;
    // SeaBIOS finds no geometry for less than a cylinder.
    disk.set_len(1 << 20)?;
    let mut command = Command::new("qemu-system-x86_64");
    command.args(trial_arguments(acceleration)).stdin(disk).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = OwnedChild::start_command(command)?;
    Ok(child.wait_within(within)?.is_some_and(|status| status.code() == Some(TRIAL_EXIT)))
}

fn trial_arguments(acceleration: Acceleration) -> Vec<OsString> {
    let words = match acceleration {
        Acceleration::Kvm => "-accel kvm -cpu host",
        // As in the real command line, so that the trial tells of the same processor.
        Acceleration::Tcg => "-accel tcg -cpu max,-cx16",
    };
    let rest = "-machine q35 -m 64 -nodefaults -no-user-config -display none -no-reboot \
                -device isa-debug-exit,iobase=0xf4,iosize=4 \
                -drive if=none,id=disk,format=raw,readonly=on,file=/dev/stdin \
                -device virtio-blk-pci,drive=disk,bootindex=1";
    words.split_whitespace().chain(rest.split_whitespace()).map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_counts_as_a_whole_word_only() {
        assert!(announces_virtualisation("model name : x\nflags\t\t: fpu svm sse\n"));
        assert!(!announces_virtualisation("model name : svm\nflags\t\t: fpu svme avmx sse\n"));
    }

    #[test]
    fn the_trial_guest_runs_to_its_end_under_emulation() {
        if !crate::process::tests::can_run("qemu-system-x86_64") {
            return;
        }
        assert!(run_trial(Acceleration::Tcg, Duration::from_mins(1)).unwrap());
    }

    #[test]
    fn a_wish_is_fulfilled_untried() {
        assert_eq!(choose_acceleration(AccelerationChoice::Tcg).acceleration, Acceleration::Tcg);
        assert_eq!(choose_acceleration(AccelerationChoice::Kvm).acceleration, Acceleration::Kvm);
    }
}
