//! Switches a machine on, with this terminal as its console or in a process of its own in the background.
//!
//! Knows who holds a machine's lock while it runs. Refuses to know how the machine was made. Invariant: a machine
//! this process runs is off, or its supervisor's, when it returns.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vm::acceleration::Acceleration;
use vm::arguments::CONSOLE_LOG;
use vm::registry::{MachineClaim, MachineRegistry, MachineState, RunningRecord};
use vm::running::{GuestError, press_until_off};
use vm::ssh::ForwardedPorts;
use vm::terminal::{ConversationEnd, EndSignals, SerialLine};
use vm::{Machine, RunningMachine};

use crate::cli::RunMode;
use crate::failure::CommandFailure;
use crate::report::print_note;

/// A background process that ended before its machine was up.
#[derive(Debug, thiserror::Error)]
#[error("the machine {name} did not come up: {message}")]
struct DetachError {
    name: String,
    message: String,
}

/// How often a machine is asked whether it is up.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a guest gets after a polite request, when a person or a signal made it.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long QEMU may take to start, on a machine that is busy with others.
const PREPARATION: Duration = Duration::from_mins(2);

/// Switches it on in the way that was asked for.
pub(crate) fn switch_on(
    root: &Path,
    machine: Machine,
    claim: MachineClaim,
    how: &RunMode,
) -> Result<(), CommandFailure> {
    if how.detach {
        // The lock goes to the background process. It cannot be handed over: a lock of flock(2) survives a fork, and
        // then this process would hold it too.
        drop(claim);
        return start_detached(root, machine, Duration::from_secs(how.timeout));
    }
    let signals = EndSignals::block_signals()?;
    if how.supervise {
        // A session of its own, so that the terminal's end is not ours. It fails only if we have one already.
        let _ = nix::unistd::setsid();
    }
    let outcome = if how.supervise {
        run_in_background(machine, &claim, &signals)
    } else {
        run_in_foreground(machine, &claim, &signals)
    };
    claim.release_machine()?;
    outcome
}

/// Runs the machine with this terminal as its console.
fn run_in_foreground(
    machine: Machine,
    claim: &MachineClaim,
    signals: &EndSignals,
) -> Result<(), CommandFailure> {
    print_note(describe_start(&machine));
    let running = power_on(machine, claim)?;
    let name = running.machine().name();
    print_note(format!("in another terminal: vm ssh {name} --wait 120; here, Ctrl-] shuts the machine down"));
    let Some(line) = SerialLine::open_serial(running.machine().folder())? else { return Ok(()) };
    if line.relay_terminal(signals, None)? == ConversationEnd::Closed {
        return report_end(running);
    }
    print_note("shutting down; Ctrl-] pulls the plug");
    let mut ending = ConversationEnd::Timeout;
    let is_over = |until: Instant| {
        ending = line.relay_terminal(signals, Some(until.saturating_duration_since(Instant::now())))?;
        Ok::<_, CommandFailure>(ending != ConversationEnd::Timeout)
    };
    press_until_off(Instant::now() + PATIENCE, || Ok(running.press_power_button()?), is_over)?;
    if ending == ConversationEnd::Closed {
        return report_end(running);
    }
    running.power_cut()?;
    print_note("the plug is pulled");
    Ok(())
}

/// Runs the machine for others to talk to.
fn run_in_background(
    machine: Machine,
    claim: &MachineClaim,
    signals: &EndSignals,
) -> Result<(), CommandFailure> {
    let mut running = power_on(machine, claim)?;
    loop {
        if running.try_wait()?.is_some() {
            return report_end(running);
        }
        running.bound_console()?;
        if signals.wait_for_signal(Duration::from_millis(200))? {
            let asked = running.power_off(PATIENCE);
            return asked.map(drop).map_err(CommandFailure::from);
        }
    }
}

fn power_on(machine: Machine, claim: &MachineClaim) -> Result<RunningMachine, CommandFailure> {
    let running = machine.start_machine()?;
    let on = RunningRecord { pid: std::process::id(), qemu: running.id(), ports: running.ssh_access().ports };
    claim.record_running(&on)?;
    Ok(running)
}

fn report_end(running: RunningMachine) -> Result<(), CommandFailure> {
    running.wait_until_off("its console closed", Duration::from_secs(10))?;
    Ok(())
}

/// What runs, and on what.
pub(crate) fn describe_start(machine: &Machine) -> String {
    let acceleration = match machine.acceleration() {
        Acceleration::Kvm => "KVM",
        Acceleration::Tcg => "TCG",
    };
    format!(
        "{}: {} on {acceleration} ({})",
        machine.name(),
        machine.firmware(),
        machine.acceleration_reason()
    )
}

/// Starts a process in the background that runs the machine, and waits until ssh answers.
fn start_detached(root: &Path, machine: Machine, within: Duration) -> Result<(), CommandFailure> {
    print_note(describe_start(&machine));
    let name = machine.name().to_owned();
    let took = DetachedStart::spawn_start(root, machine)?.wait_until_up(within)?;
    print_note(format!("{name} answers after {:.1} s: vm ssh {name}", took.as_secs_f64()));
    Ok(())
}

/// A machine that a process in the background switches on.
pub(crate) struct DetachedStart {
    machine: Machine,
    registry: MachineRegistry,
    supervisor: Child,
    log: File,
    since: Instant,
}

impl DetachedStart {
    /// Starts the process. Nobody may hold the machine's lock, which goes to it.
    pub(crate) fn spawn_start(root: &Path, machine: Machine) -> Result<Self, CommandFailure> {
        let log_path = machine.folder().join("supervisor.log");
        let log = File::create(&log_path)?;
        let supervisor = Command::new(std::env::current_exe()?)
            .arg("--state")
            .arg(root)
            .args(["start", "--supervise", machine.name()])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self {
            machine,
            registry: MachineRegistry::open_registry(root)?,
            supervisor,
            // Opened before it is wanted: it may be gone with the machine's folder then.
            log: File::open(&log_path)?,
            since: Instant::now(),
        })
    }

    /// Waits until a command can be run in the guest, and returns how long that took. `within` counts from the
    /// moment when QEMU runs.
    pub(crate) fn wait_until_up(mut self, within: Duration) -> Result<Duration, CommandFailure> {
        let ports = self.wait_for_qemu()?;
        let ssh = self.machine.ssh_through(ports);
        let (name, booting) = (self.machine.name().to_owned(), Instant::now());
        while !ssh.lets_in(booting.elapsed()) {
            if self.supervisor.try_wait()?.is_some() {
                let message = "it went off before ssh answered".to_owned();
                return Err(DetachError { name, message }.into());
            }
            if booting.elapsed() >= within {
                print_note(format!("{name} stays on; look at it with: vm console {name}"));
                let tail = console_tail(self.machine.folder());
                return Err(GuestError::NoSsh { name, within: booting.elapsed(), tail }.into());
            }
            thread::sleep(PAUSE);
        }
        Ok(self.since.elapsed())
    }

    fn wait_for_qemu(&mut self) -> Result<ForwardedPorts, CommandFailure> {
        let name = self.machine.name();
        let failed = |message: String| DetachError { name: name.to_owned(), message };
        loop {
            // A machine that could not start is gone again.
            let state = self.registry.find_machine(Some(name)).map(|entry| entry.state);
            if let Ok(MachineState::On(on)) = state {
                return Ok(on.ports);
            }
            if self.supervisor.try_wait()?.is_some() {
                return Err(failed(io::read_to_string(&self.log)?.trim().to_owned()).into());
            }
            if self.since.elapsed() >= PREPARATION {
                return Err(failed("it is still being prepared".to_owned()).into());
            }
            thread::sleep(PAUSE);
        }
    }
}

fn console_tail(folder: &Path) -> String {
    let log = fs::read(folder.join(CONSOLE_LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
