//! Arms what restarts the machine when nothing runs on it any more: a timer of systemd's and a hardware watchdog.
//!
//! Knows the modules and systemd's property. Refuses to judge. Invariant: the timer is armed before the checks of a
//! trial begin, and both are disarmed by a verdict alone.

use std::path::Path;
use std::time::Duration;

use first_boot::{ProgramCall, ProgramRunner, RunError};

/// What the kernel makes of a watchdog that has a driver.
const DEVICE: &str = "dev/watchdog0";
/// Drivers of watchdogs that machines have, and last the kernel's own, which a dead kernel does not outlive.
/// Debian's kernel packages keep udev from loading them, so they are asked for by name.
const MODULES: [&str; 4] = ["iTCO_wdt", "i6300esb", "sp5100_tco", "softdog"];
/// systemd pings at half of it. Busy hosts starve their guests for many seconds.
const PING_WITHIN: Duration = Duration::from_mins(1);
const TIMER: &str = "catamaran-update-deadline";

/// Arms the watchdog, if this machine can have one.
pub(crate) fn arm_watchdog(root: &Path, programs: &dyn ProgramRunner) {
    for module in MODULES {
        if root.join(DEVICE).exists() {
            break;
        }
        // Most machines lack most of them.
        let _ = programs.run_program(&ProgramCall::new("modprobe", ["--quiet", module]));
    }
    set_runtime_watchdog(programs, PING_WITHIN);
}

/// Disarms it: how long a machine may hang is otherwise its owner's choice.
pub(crate) fn disarm_watchdog(programs: &dyn ProgramRunner) {
    set_runtime_watchdog(programs, Duration::ZERO);
}

fn set_runtime_watchdog(programs: &dyn ProgramRunner, timeout: Duration) {
    let microseconds = timeout.as_micros().to_string();
    let manager =
        ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
    let words =
        ["set-property"].into_iter().chain(manager).chain(["RuntimeWatchdogUSec", "t", &microseconds]);
    // Without a watchdog the timer remains, and the count of tries.
    let _ = programs.run_program(&ProgramCall::new("busctl", words));
}

/// Restarts the machine after this time, unless [`stop_deadline`] comes before: by `expire`, which journals why, or
/// by systemd itself if that fails.
pub(crate) fn start_deadline(programs: &dyn ProgramRunner, deadline: Duration) -> Result<(), RunError> {
    let words = [
        "--quiet",
        // By default a timer and its service wait for sysinit.target. The boot must not wait for that here, since
        // hooks that migrate data stand between, and systemd-run waits for a timer, `--no-block` or not. A boot that
        // never comes so far has a deadline, too.
        "--timer-property=DefaultDependencies=no",
        "--property=DefaultDependencies=no",
        "--unit",
        TIMER,
        "--on-active",
        &format!("{}s", deadline.as_secs()),
        "--timer-property=AccuracySec=1s",
        "--property=Type=oneshot",
        "--property=TimeoutStartSec=60",
        "--property=FailureAction=reboot-force",
        "/usr/bin/initagent",
        "update",
        "expire",
    ];
    programs.run_program(&ProgramCall::new("systemd-run", words)).map(drop)
}

/// A verdict is there.
pub(crate) fn stop_deadline(programs: &dyn ProgramRunner) {
    // A deadline that is over cannot be stopped; it finds no trial then.
    let _ = programs.run_program(&ProgramCall::new("systemctl", ["stop", &format!("{TIMER}.timer")]));
}
