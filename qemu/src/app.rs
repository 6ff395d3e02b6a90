//! Does what the arguments ask for.
//!
//! Each verb is a short story told with the library's words; what is said to the person goes through
//! [`crate::report`]. Invariant: a machine this process runs is off, or its supervisor's, when it returns.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use vm::Machine;
use vm::arguments::CONSOLE_LOG;
use vm::cluster::folder::ClusterFolder;
use vm::disk;
use vm::registry::{MachineClaim, MachineEntry, MachineRegistry};
use vm::terminal::{self, ConversationEnd, EndSignals, SerialLine};

use crate::cli::{Arguments, RunArguments, SshArguments, StartArguments, Verb};
use crate::failure::CommandFailure;
use crate::report::{print_note, print_result};
use crate::start::switch_on;
use crate::stop::switch_off;
use crate::user_file::read_user_file;
use crate::{cable, list, network, race, up};

/// How often a guest is asked whether it lets somebody in.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs one verb.
pub(crate) fn run_verb(arguments: Arguments) -> Result<(), CommandFailure> {
    let root = arguments.state.unwrap_or_else(default_root);
    let registry = || MachineRegistry::open_registry(&root);
    let find = |name: &Option<String>| find_entry(&registry()?, &root, name.as_deref());
    match arguments.verb {
        Verb::Run(run) => boot_image(&registry()?, &root, &run),
        Verb::Start(start) => start_again(&registry()?, &root, &start),
        Verb::Ssh(ssh) => open_shell(&find(&ssh.name)?, &ssh),
        Verb::Console(named) => attach_console(&find(&named.name)?),
        Verb::Stop(stop) => switch_off(&find(&stop.name)?, Duration::from_secs(stop.timeout)),
        Verb::Kill(named) => switch_off(&find(&named.name)?, Duration::ZERO),
        Verb::List(list) => list::print_list(&registry()?, &root, &list),
        Verb::Remove(named) => remove_machine(&registry()?, &find(&named.name)?),
        Verb::Up(up) => up::bring_up(&registry()?, &root, &up),
        Verb::Down => up::take_down(&registry()?, &root),
        Verb::Cut(cables) => cable::cut_cables(&root, &cables),
        Verb::Heal(cables) => cable::heal_cables(&root, &cables),
        Verb::Link(link) => cable::shape_cable(&root, &link),
        Verb::Network(network) => network::run_network(&root, &network),
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

/// The machine of that name, or of that number in the cluster. Names begin with a letter, so a number is none.
fn find_entry(
    registry: &MachineRegistry,
    root: &Path,
    name: Option<&str>,
) -> Result<MachineEntry, CommandFailure> {
    match name {
        Some(number) if number.parse::<u64>().is_ok() => {
            let member = ClusterFolder::beside_machines(root).find_member(number)?;
            Ok(registry.find_machine(Some(&member.name))?)
        }
        name => Ok(registry.find_machine(name)?),
    }
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
        .seed_by(run.seed_by)
        .options(run.options.clone());
    if let Some(path) = &run.user_data {
        builder = builder.user_data(read_user_file(path)?);
    }
    if let Some(user) = &run.user {
        builder = builder.user(user);
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
    let entry = find_entry(registry, root, start.name.as_deref())?;
    let claim = registry.claim_machine(&entry.name)?;
    let machine = Machine::open_folder(claim.folder())?;
    if !start.how.supervise {
        resume_network_of(root, &entry.name)?;
    }
    switch_on(root, machine, claim, &start.how)
}

/// A machine of a cluster would start without its network too, and meet nobody without a word: after a restart of this
/// computer, the disks are there and the switch is not.
fn resume_network_of(root: &Path, name: &str) -> Result<(), CommandFailure> {
    let cluster = ClusterFolder::beside_machines(root);
    if cluster.find_member(name).is_ok() && cluster.running_network()?.is_none() {
        network::resume_network(root, &cluster)?;
        print_note("the cluster's network had ended, and runs again");
    }
    Ok(())
}

fn open_shell(entry: &MachineEntry, arguments: &SshArguments) -> Result<(), CommandFailure> {
    let ssh = Machine::open_folder(&entry.folder)?.ssh_through(entry.running_record()?.ports);
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

fn attach_console(entry: &MachineEntry) -> Result<(), CommandFailure> {
    entry.running_record()?;
    let signals = EndSignals::block_signals()?;
    let log = entry.folder.join(CONSOLE_LOG);
    let Some(line) = SerialLine::open_serial(&entry.folder)? else {
        print_note("another terminal has the console; showing what it shows, Ctrl-C leaves");
        terminal::follow_log(&log, &signals, || !entry.is_claimed())?;
        return Ok(());
    };
    print_note("Ctrl-] leaves");
    terminal::show_output(&fs::read(&log)?)?;
    if line.relay_terminal(&signals, None)? == ConversationEnd::Closed {
        print_note(format!("{} is off", entry.name));
    }
    Ok(())
}

fn remove_machine(registry: &MachineRegistry, entry: &MachineEntry) -> Result<(), CommandFailure> {
    registry.claim_machine(&entry.name)?.remove_machine()?;
    print_note(format!("{} is removed", entry.name));
    Ok(())
}
