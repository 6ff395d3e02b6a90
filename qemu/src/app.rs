//! Does what the arguments ask for.
//!
//! Each verb is a short story told with the library's words; what is said to the person goes through
//! [`crate::report`]. Invariant: a machine this process runs is off, or its supervisor's, when it returns.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use vm::acceleration::Acceleration;
use vm::arguments::CONSOLE_LOG;
use vm::disk;
use vm::qmp::QmpConnection;
use vm::registry::{MachineClaim, MachineEntry, MachineRegistry, MachineState, RunningRecord};
use vm::running::{GuestError, press_until_off};
use vm::ssh::ForwardedPorts;
use vm::terminal::{self, ConversationEnd, EndSignals, SerialLine};
use vm::{Machine, RunningMachine};

use crate::cli::{
    Arguments, MachineName, RunArguments, RunMode, SshArguments, StartArguments, StopArguments, Verb,
};
use crate::report::{print_note, print_result};
use crate::{list, race};

/// How a verb ended badly.
#[derive(Debug)]
pub(crate) struct CommandFailure(pub(crate) Box<dyn Error>);

impl<E: Error + 'static> From<E> for CommandFailure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

/// A file of the user's that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub(crate) struct ReadError {
    path: PathBuf,
    source: io::Error,
}

/// A background process that ended before its machine was up.
#[derive(Debug, thiserror::Error)]
#[error("the machine {name} did not come up: {message}")]
struct DetachError {
    name: String,
    message: String,
}

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a guest gets after a polite request, when a person or a signal made it.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long QEMU may take to start, on a machine that is busy with others.
const PREPARATION: Duration = Duration::from_mins(2);

/// Runs one verb.
pub(crate) fn run_verb(arguments: Arguments) -> Result<(), CommandFailure> {
    let root = arguments.state.unwrap_or_else(default_root);
    let registry = || MachineRegistry::open(&root);
    match arguments.verb {
        Verb::Run(run) => boot_image(&registry()?, &root, &run),
        Verb::Start(start) => start_again(&registry()?, &root, &start),
        Verb::Ssh(ssh) => open_shell(&registry()?, &ssh),
        Verb::Console(named) => attach_console(&registry()?, &named),
        Verb::Stop(stop) => switch_off(&registry()?, &stop),
        Verb::List(list) => list::print_list(&registry()?, &list),
        Verb::Remove(named) => remove_machine(&registry()?, &named),
        Verb::BenchBoot(bench) => race::bench_boot(&bench),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "vm", &mut script);
            print_result(String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

fn default_root() -> PathBuf {
    let base = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    base.join(format!("vm-{}", nix::unistd::geteuid()))
}

fn boot_image(registry: &MachineRegistry, root: &Path, run: &RunArguments) -> Result<(), CommandFailure> {
    let stem = run.image.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let (name, claim) = registry.create_machine(run.name.as_deref(), &stem)?;
    match build_machine(&claim, &name, run) {
        Ok(machine) => switch_on(root, machine, claim, &run.how),
        Err(failure) => {
            claim.remove_machine()?;
            Err(failure)
        }
    }
}

fn build_machine(claim: &MachineClaim, name: &str, run: &RunArguments) -> Result<Machine, CommandFailure> {
    let size = run.disk_size.map_or(disk::DiskSize::More(disk::ROOM), disk::DiskSize::Exactly);
    let disk = disk::create_overlay(&run.image, &claim.folder().join("disk.qcow2"), size)?;
    let mut builder = Machine::builder(disk)
        .name(name)
        .folder(claim.folder())
        .firmware(run.hardware.firmware)
        .acceleration(run.hardware.accel)
        .cpus(run.hardware.cpus)
        .memory(run.hardware.memory)
        .seed_by(run.seed_by)
        .devices(run.devices)
        .extra(run.extra.iter().cloned());
    if let Some(path) = &run.user_data {
        builder = builder.user_data(read(path)?);
    }
    if let Some(user) = &run.user {
        builder = builder.user(user);
    }
    if run.isolate {
        builder = builder.isolated();
    }
    if run.watchdog {
        builder = builder.watchdog();
    }
    if run.keep {
        claim.keep_machine()?;
    }
    Ok(builder.build()?)
}

fn start_again(
    registry: &MachineRegistry,
    root: &Path,
    start: &StartArguments,
) -> Result<(), CommandFailure> {
    let entry = registry.find_machine(start.name.as_deref())?;
    let claim = registry.claim_machine(&entry.name)?;
    let machine = Machine::open(claim.folder())?;
    switch_on(root, machine, claim, &start.how)
}

fn switch_on(
    root: &Path,
    machine: Machine,
    claim: MachineClaim,
    how: &RunMode,
) -> Result<(), CommandFailure> {
    if how.detach {
        // The lock goes to the background process.
        drop(claim);
        return start_detached(root, &machine, Duration::from_secs(how.timeout));
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
    claim.release()?;
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
    if line.relay(signals, None)? == ConversationEnd::Closed {
        return report_end(running);
    }
    print_note("shutting down; Ctrl-] pulls the plug");
    let mut ending = ConversationEnd::Timeout;
    let is_over = |until: Instant| {
        ending = line.relay(signals, Some(until.saturating_duration_since(Instant::now())))?;
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
    let running = machine.start()?;
    let on = RunningRecord { pid: std::process::id(), qemu: running.id(), ports: running.ssh().ports };
    claim.record_running(&on)?;
    Ok(running)
}

fn report_end(running: RunningMachine) -> Result<(), CommandFailure> {
    running.wait_until_off("its console closed", Duration::from_secs(10))?;
    Ok(())
}

fn describe_start(machine: &Machine) -> String {
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
fn start_detached(root: &Path, machine: &Machine, within: Duration) -> Result<(), CommandFailure> {
    print_note(describe_start(machine));
    let name = machine.name();
    let log_path = machine.folder().join("supervisor.log");
    let log = fs::File::create(&log_path)?;
    // The log may be gone with the machine's folder when it is wanted.
    let log_again = fs::File::open(&log_path)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--state")
        .arg(root)
        .args(["start", "--supervise", name])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let registry = MachineRegistry::open(root)?;
    let prepared_by = Instant::now() + PREPARATION;
    let failed = |message: String| DetachError { name: name.to_owned(), message };
    loop {
        // A machine that could not start is gone again.
        if let Ok(MachineState::On(on)) = registry.find_machine(Some(name)).map(|entry| entry.state) {
            return wait_and_tell(machine, on.ports, Instant::now() + within, &mut child);
        }
        if child.try_wait()?.is_some() {
            return Err(failed(io::read_to_string(log_again)?.trim().to_owned()).into());
        }
        if Instant::now() >= prepared_by {
            return Err(failed("it is still being prepared".to_owned()).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn wait_and_tell(
    machine: &Machine,
    ports: ForwardedPorts,
    deadline: Instant,
    supervisor: &mut std::process::Child,
) -> Result<(), CommandFailure> {
    let since = Instant::now();
    let ssh = machine.ssh_through(ports);
    while !ssh.lets_in(since.elapsed()) {
        let name = machine.name().to_owned();
        if supervisor.try_wait()?.is_some() {
            let message = "it went off before ssh answered".to_owned();
            return Err(DetachError { name, message }.into());
        }
        if Instant::now() >= deadline {
            print_note(format!("{name} stays on; look at it with: vm console {name}"));
            let tail = console_tail(machine.folder());
            return Err(GuestError::NoSsh { name, within: since.elapsed(), tail }.into());
        }
        thread::sleep(PAUSE);
    }
    let name = machine.name();
    print_note(format!("{name} answers after {:.1} s: vm ssh {name}", since.elapsed().as_secs_f64()));
    Ok(())
}

fn console_tail(folder: &Path) -> String {
    let log = fs::read(folder.join(CONSOLE_LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn open_shell(registry: &MachineRegistry, arguments: &SshArguments) -> Result<(), CommandFailure> {
    let entry = registry.find_machine(arguments.name.as_deref())?;
    let ssh = Machine::open(&entry.folder)?.ssh_through(entry.running_record()?.ports);
    let (since, within) = (Instant::now(), Duration::from_secs(arguments.wait));
    while since.elapsed() < within && !ssh.lets_in(since.elapsed()) && entry.is_claimed() {
        thread::sleep(PAUSE);
    }
    let mut command = ssh.client_command();
    if !arguments.command.is_empty() {
        command.arg("--").args(&arguments.command);
    }
    // Returns only if it fails.
    let error = command.exec();
    Err(vm::ssh::SshError::NoProgram { program: "ssh", source: error }.into())
}

fn attach_console(registry: &MachineRegistry, named: &MachineName) -> Result<(), CommandFailure> {
    let entry = registry.find_machine(named.name.as_deref())?;
    entry.running_record()?;
    let signals = EndSignals::block_signals()?;
    let log = entry.folder.join(CONSOLE_LOG);
    let Some(line) = SerialLine::open_serial(&entry.folder)? else {
        print_note("another terminal has the console; showing what it shows, Ctrl-C leaves");
        terminal::follow_log(&log, &signals, || !entry.is_claimed())?;
        return Ok(());
    };
    print_note("Ctrl-] leaves");
    terminal::show(&fs::read(&log)?)?;
    if line.relay(&signals, None)? == ConversationEnd::Closed {
        print_note(format!("{} is off", entry.name));
    }
    Ok(())
}

fn switch_off(registry: &MachineRegistry, stop: &StopArguments) -> Result<(), CommandFailure> {
    let entry = registry.find_machine(stop.name.as_deref())?;
    let on = entry.running_record()?;
    let deadline = Instant::now() + Duration::from_secs(stop.timeout);
    if stop.timeout > 0 {
        let half = Instant::now() + Duration::from_secs(stop.timeout / 2);
        if is_off_by_button(&entry, half)? || ask_by_ssh(&entry, on) && is_off_by(&entry, deadline) {
            print_note(format!("{} has shut down", entry.name));
            return Ok(());
        }
    }
    pull_the_plug(&entry, on)?;
    print_note(format!("{}: the plug is pulled", entry.name));
    Ok(())
}

/// Asks the machine of another process to shut down.
fn is_off_by_button(entry: &MachineEntry, deadline: Instant) -> Result<bool, CommandFailure> {
    let press = || {
        Ok(QmpConnection::connect(&entry.folder, Duration::from_secs(10))
            .and_then(|mut qmp| qmp.press_power_button())?)
    };
    press_until_off(deadline, press, |until| Ok(is_off_by(entry, until)))
}

/// A guest without a button handler may still listen to its own account.
fn ask_by_ssh(entry: &MachineEntry, on: &RunningRecord) -> bool {
    let Ok(machine) = Machine::open(&entry.folder) else { return false };
    let ssh = machine.ssh_through(on.ports);
    // The connection may well end before the answer: only the machine's end counts.
    let _ = ssh.run_script("sudo -n systemctl poweroff || systemctl poweroff", Duration::from_secs(20));
    true
}

fn pull_the_plug(entry: &MachineEntry, on: &RunningRecord) -> Result<(), CommandFailure> {
    let quit = QmpConnection::connect(&entry.folder, Duration::from_secs(5)).and_then(|mut qmp| qmp.quit());
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

fn remove_machine(registry: &MachineRegistry, named: &MachineName) -> Result<(), CommandFailure> {
    let entry = registry.find_machine(named.name.as_deref())?;
    registry.claim_machine(&entry.name)?.remove_machine()?;
    print_note(format!("{} is removed", entry.name));
    Ok(())
}

/// Reads a file of the user's.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    fs::read(path).map_err(|source| ReadError { path: path.into(), source })
}
