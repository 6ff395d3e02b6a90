//! A machine that is on: waited for, talked to, switched off one way or another.
//!
//! Knows QEMU's end from the guest's silence, and puts the end of the console into every failure. Refuses to
//! know what a guest should say. Invariant: every wait has a deadline, and ends early if the machine does.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::{self, CONSOLE_SOCKET};
use crate::console::Console;
use crate::machine::Machine;
use crate::process::OwnedChild;
use crate::qmp::{self, QmpConnection, QmpError};
use crate::ssh::{ForwardedPorts, SshAccess, SshError};

/// How much of a console goes into an error message.
const TAIL: usize = 40;

/// Bytes of a console's log before it begins anew: many boots' worth, and little of a disk.
const LONGEST_CONSOLE: u64 = 64 << 20;

/// How a Linux kernel says that it gives up, whether it restarts then or not.
const PANIC: &str = "Kernel panic - not syncing";

/// How long a guest may be deaf for its power button: it takes logins before it has looked at all its devices.
const PRESS_AGAIN: Duration = Duration::from_secs(5);

/// A machine that is on. Dropping it pulls the plug.
#[derive(Debug)]
pub struct RunningMachine {
    machine: Machine,
    child: OwnedChild,
    console: Console,
    ssh: SshAccess,
    since: Instant,
    keyboard: Option<ConsoleInput>,
}

/// A connection to the serial console that stays, since QEMU drops what a guest has not yet read when it ends.
#[derive(Debug)]
struct ConsoleInput(UnixStream);

impl ConsoleInput {
    fn plug_in(machine: &Machine) -> io::Result<Self> {
        let stream = qmp::connect_in(machine.folder(), CONSOLE_SOCKET)?;
        let mut output = stream.try_clone()?;
        // What the guest says is in the log; unread here it would make the guest wait.
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        Ok(Self(stream))
    }
}

/// Why a running machine did not do what was expected of it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum GuestError {
    #[error("{name}: the console did not say {words:?} within {within:?}; it ends with:\n{tail}")]
    Silent { name: String, words: Vec<String>, within: Duration, tail: String },
    #[error("{name}: ssh did not answer within {within:?}; the console ends with:\n{tail}")]
    NoSsh { name: String, within: Duration, tail: String },
    #[error("{name}: the machine went off ({status}) while {waiting}; the console ends with:\n{tail}")]
    Off { name: String, status: ExitStatus, waiting: &'static str, tail: String },
    #[error("{name}: the guest's kernel panicked; the console ends with:\n{tail}")]
    Panicked { name: String, tail: String },
    #[error("{name}: the machine was still on {within:?} after {asked}; the console ends with:\n{tail}")]
    StillOn { name: String, asked: &'static str, within: Duration, tail: String },
    #[error("cannot read the console")]
    Console(#[source] io::Error),
    #[error("cannot watch QEMU")]
    Watch(#[source] io::Error),
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error(transparent)]
    Ssh(#[from] SshError),
}

impl RunningMachine {
    pub(crate) fn new(
        machine: Machine,
        child: OwnedChild,
        console: Console,
        ports: ForwardedPorts,
        since: Instant,
    ) -> Self {
        let ssh = machine.ssh_through(ports);
        // That of the last start is dead.
        ssh.log_out();
        Self { ssh, machine, child, console, since, keyboard: None }
    }

    /// The machine behind it.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// QEMU's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How long QEMU has kept processors busy.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // User and system time, in hundredths of a second, counted behind the name in parentheses.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
    }

    /// How long it has been on.
    #[must_use]
    pub fn time_running(&self) -> Duration {
        self.since.elapsed()
    }

    /// What it says.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The way in.
    #[must_use]
    pub fn ssh_access(&self) -> &SshAccess {
        &self.ssh
    }

    /// Waits until the console says `words`, after what was expected before, and returns the line.
    pub fn wait_for_words(&mut self, words: &str, within: Duration) -> Result<String, GuestError> {
        self.expect_any(&[words], within).map(|(_, line)| line)
    }

    /// Waits until the console says one of `words`, and returns which, and the line.
    pub fn expect_any(&mut self, words: &[&str], within: Duration) -> Result<(usize, String), GuestError> {
        let deadline = Instant::now() + within;
        loop {
            // The order matters: what was said before the end must be found.
            let ended = self.child.try_wait().map_err(GuestError::Watch)?;
            if let Some(found) = self.console.find_words(words).map_err(GuestError::Console)? {
                return Ok(found);
            }
            if let Some(status) = ended {
                return Err(self.went_off(status, "it was to speak"));
            }
            if Instant::now() >= deadline {
                let words = words.iter().map(|&word| word.to_owned()).collect();
                return Err(GuestError::Silent {
                    name: self.name(),
                    words,
                    within,
                    tail: self.console_tail(),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a command can be run in the guest, and returns how long after power-on that was.
    pub fn wait_for_ssh(&mut self, within: Duration) -> Result<Duration, GuestError> {
        self.wait_for_ssh_unless(None, within)
    }

    /// The same, but not of a guest that comes back, or does not, after its kernel panicked.
    pub fn wait_for_ssh_at_once(&mut self, within: Duration) -> Result<Duration, GuestError> {
        self.wait_for_ssh_unless(Some(PANIC), within)
    }

    fn wait_for_ssh_unless(&mut self, end: Option<&str>, within: Duration) -> Result<Duration, GuestError> {
        let deadline = Instant::now() + within;
        loop {
            if self.ssh.lets_in(self.time_running()) {
                return Ok(self.time_running());
            }
            if end
                .map(|end| self.console.find_words(&[end]))
                .transpose()
                .map_err(GuestError::Console)?
                .flatten()
                .is_some()
            {
                // A Debian guest waits for its plug after a panic, and the wait for it would last until the end.
                return Err(GuestError::Panicked { name: self.name(), tail: self.console_tail() });
            }
            if let Some(status) = self.child.try_wait().map_err(GuestError::Watch)? {
                return Err(self.went_off(status, "ssh was to answer"));
            }
            if Instant::now() >= deadline {
                return Err(GuestError::NoSsh { name: self.name(), within, tail: self.console_tail() });
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends bytes to the serial console, as a person would type them.
    pub fn type_in(&mut self, bytes: &[u8]) -> io::Result<()> {
        // One connection for the machine's whole run: QEMU drops what the guest has not read when it ends.
        if self.keyboard.is_none() {
            self.keyboard = Some(ConsoleInput::plug_in(&self.machine)?);
        }
        self.keyboard.as_mut().map_or(Ok(()), |keyboard| keyboard.0.write_all(bytes))
    }

    /// Presses the reset button.
    pub fn reset_machine(&self) -> Result<(), GuestError> {
        self.ssh.log_out();
        Ok(connect_monitor(&self.machine)?.reset_machine()?)
    }

    /// Detaches a disk that was attached beside the machine's own, counted from 0.
    pub fn detach_disk(&self, index: usize) -> Result<(), GuestError> {
        Ok(connect_monitor(&self.machine)?.detach_device(&arguments::other_disk_name(index))?)
    }

    /// Pulls the plug.
    pub fn power_cut(mut self) -> Result<Machine, GuestError> {
        self.child.kill_child().map_err(GuestError::Watch)?;
        Ok(self.machine)
    }

    /// Presses the power button, which asks the guest to shut down.
    pub fn press_power_button(&self) -> Result<(), GuestError> {
        Ok(connect_monitor(&self.machine)?.press_power_button()?)
    }

    /// Presses the power button, again and again as a person would, and waits for the guest to shut down.
    pub fn power_off(mut self, within: Duration) -> Result<Machine, GuestError> {
        let press = || Ok(connect_monitor(&self.machine)?.press_power_button()?);
        let is_off = |until: Instant| {
            let left = until.saturating_duration_since(Instant::now());
            Ok(self.child.wait_within(left).map_err(GuestError::Watch)?.is_some())
        };
        press_until_off::<GuestError>(Instant::now() + within, press, is_off)?;
        self.wait_until_off("the power button was pressed", Duration::ZERO)
    }

    /// Waits until the guest has switched itself off.
    pub fn wait_until_off(mut self, asked: &'static str, within: Duration) -> Result<Machine, GuestError> {
        match self.child.wait_within(within).map_err(GuestError::Watch)? {
            Some(status) if status.success() => Ok(self.machine),
            Some(status) => Err(self.went_off(status, "it was to shut down")),
            None => Err(GuestError::StillOn { name: self.name(), asked, within, tail: self.console_tail() }),
        }
    }

    /// Keeps what the console's log takes of this host's disk within bounds.
    pub fn bound_console(&mut self) -> io::Result<()> {
        self.console.bound_log(LONGEST_CONSOLE)
    }

    /// Whether it went off by itself.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    fn went_off(&self, status: ExitStatus, waiting: &'static str) -> GuestError {
        let mut tail = self.console_tail();
        let message = self.machine.qemu_log();
        if !message.is_empty() {
            tail.push_str("\n--- QEMU\n");
            tail.push_str(&message);
        }
        GuestError::Off { name: self.name(), status, waiting, tail }
    }

    fn name(&self) -> String {
        self.machine.name().to_owned()
    }

    fn console_tail(&self) -> String {
        self.console.last_lines(TAIL)
    }
}

fn connect_monitor(machine: &Machine) -> Result<QmpConnection, QmpError> {
    QmpConnection::connect_qemu(machine.folder(), Duration::from_secs(20))
}

/// Presses the power button, again and again as a person would, until the machine is off or it is late, and
/// says which. `is_off` waits for the end until the moment that it is given, at most.
pub fn press_until_off<E>(
    deadline: Instant,
    mut press: impl FnMut() -> Result<(), E>,
    mut is_off: impl FnMut(Instant) -> Result<bool, E>,
) -> Result<bool, E> {
    loop {
        // A machine that goes off meanwhile does not hear it any more.
        let pressed = press();
        if is_off(deadline.min(Instant::now() + PRESS_AGAIN))? {
            return Ok(true);
        }
        pressed?;
        if Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_button_is_pressed_until_it_is_heard() {
        let mut pressed = 0;
        let mut looked = 0;
        let is_off = |until: Instant| {
            assert!(until <= Instant::now() + PRESS_AGAIN);
            looked += 1;
            Ok::<_, ()>(looked == 3)
        };
        let deadline = Instant::now() + Duration::from_mins(1);

        let press = || {
            pressed += 1;
            Ok(())
        };

        let heard = press_until_off(deadline, press, is_off);

        assert_eq!((heard, pressed), (Ok(true), 3));
    }

    #[test]
    fn a_deaf_machine_is_given_up_and_a_dead_button_is_told() {
        assert_eq!(press_until_off(Instant::now(), || Ok::<_, ()>(()), |_| Ok(false)), Ok(false));
        assert_eq!(press_until_off(Instant::now(), || Err("no monitor"), |_| Ok(false)), Err("no monitor"));
        assert_eq!(press_until_off(Instant::now(), || Err("no monitor"), |_| Ok(true)), Ok(true));
    }
}
