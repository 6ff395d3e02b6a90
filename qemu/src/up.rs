//! Brings up the machines of a cluster, and takes them down.
//!
//! Knows the order: record, network, machines, power; and back. Refuses to know what the machines do with each
//! other. Invariant: what could not be brought up whole is gone again, unless a machine runs that a person may
//! want to look at.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vm::Machine;
use vm::cluster::folder::{ClusterError, ClusterFolder};
use vm::cluster::plan::{ClusterMember, plan_cluster};
use vm::cluster::template::{TemplateValues, expand_user_data};
use vm::disk::{self, DiskSize};
use vm::registry::{MachineRegistry, MachineState, RegistryError};

use crate::cli::{NetworkArguments, UpArguments};
use crate::failure::CommandFailure;
use crate::network::{ServeError, end_network, start_network};
use crate::report::print_note;
use crate::start::{DetachedStart, describe_start};
use crate::stop::pull_the_plug;
use crate::user_file::read_user_file;

/// Where the guests see this host: the second address of the network that QEMU makes for their first card.
const HOST_FROM_GUEST: &str = "169.254.169.2";

/// How long a machine may be neither on nor off, which is while another process starts or ends it.
const CHANGE_TIMEOUT: Duration = Duration::from_mins(2);

/// How often such a machine is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// `vm up`.
pub(crate) fn bring_up(
    registry: &MachineRegistry,
    root: &Path,
    arguments: &UpArguments,
) -> Result<(), CommandFailure> {
    let members = plan_cluster(arguments.machines, arguments.proxies)?;
    let document = arguments.user_data.as_deref().map(read_user_file).transpose()?;
    let cluster = ClusterFolder::beside_machines(root);
    if cluster.path().exists() {
        return Err(ClusterError::Exists.into());
    }
    refuse_names_in_use(registry, &members)?;
    // The record comes first: vm down finds what it names, however far this process gets.
    cluster.create(&members)?;
    let made = make_machines(registry, root, arguments, &members, document.as_deref());
    let outcome = made.and_then(|machines| start_machines(root, machines, arguments.timeout));
    match &outcome {
        Ok(()) => print_note("all are up: vm ls, vm ssh 1, vm cut 1, vm heal 1, vm down"),
        Err(failure) if leaves_machines(failure) => print_note("the others stay on; vm down ends them"),
        Err(_) => take_down(registry, root)?,
    }
    outcome
}

/// A machine that does not answer is worth a look; one that could not be made or started is not there.
fn leaves_machines(failure: &CommandFailure) -> bool {
    failure.0.downcast_ref::<vm::running::GuestError>().is_some()
}

/// A machine of that name that a person made must not be taken for one of the cluster, and removed with it.
fn refuse_names_in_use(registry: &MachineRegistry, members: &[ClusterMember]) -> Result<(), CommandFailure> {
    for member in members {
        match registry.find_machine(Some(&member.name)) {
            Ok(_) => return Err(RegistryError::Taken(member.name.clone()).into()),
            Err(RegistryError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn make_machines(
    registry: &MachineRegistry,
    root: &Path,
    arguments: &UpArguments,
    members: &[ClusterMember],
    document: Option<&[u8]>,
) -> Result<Vec<Machine>, CommandFailure> {
    let update_server = arguments
        .update_server
        .as_ref()
        .map(|path| path.canonicalize().map_err(|source| ServeError { path: path.clone(), source }));
    let network =
        NetworkArguments { update_server: update_server.transpose()?, update_port: arguments.update_port };
    // Before the machines, since only the network knows the port that the user-data may ask for.
    let record = start_network(root, &network)?;
    let address = record.update_port.map(|port| format!("http://{HOST_FROM_GUEST}:{port}"));
    if let Some(address) = &address {
        print_note(format!("updates are served to the machines at {address}"));
    }
    let make = |member: &ClusterMember| {
        let values = TemplateValues { member, cluster: members, update_server: address.as_deref() };
        let document = document.map(|document| expand_user_data(document, &values)).transpose()?;
        make_machine(registry, arguments, member, document)
    };
    members.iter().map(make).collect()
}

fn make_machine(
    registry: &MachineRegistry,
    arguments: &UpArguments,
    member: &ClusterMember,
    document: Option<Vec<u8>>,
) -> Result<Machine, CommandFailure> {
    let (_, claim) = registry.create_machine(Some(&member.name), "")?;
    // Its disk stays when it goes off, so that a machine that was killed can be started again.
    claim.keep_machine()?;
    let size = arguments.disk_size.map_or(DiskSize::More(disk::ROOM), DiskSize::Exactly);
    let overlay = disk::create_overlay(&arguments.image, &claim.folder().join("disk.qcow2"), size)?;
    let mut builder = Machine::builder(overlay)
        .name(&member.name)
        .folder(claim.folder())
        .options(arguments.options.clone())
        .mac(&member.world_mac)
        .cluster_card(&member.mac)
        .network_config(&member.network_config())
        .user(&arguments.user);
    if let Some(document) = document {
        builder = builder.user_data(document);
    }
    Ok(builder.build()?)
}

/// Starts all, then waits for all at once, and says of each when it is up. Fails if any of them did not come up.
fn start_machines(root: &Path, machines: Vec<Machine>, timeout: u64) -> Result<(), CommandFailure> {
    if let Some(first) = machines.first() {
        print_note(format!("{} machines, as {}", machines.len(), describe_start(first)));
    }
    let count = machines.len();
    let up = AtomicUsize::new(0);
    let starts = machines.into_iter().map(|machine| {
        let name = machine.name().to_owned();
        Ok((name, DetachedStart::spawn(root, machine)?))
    });
    let starts: Vec<(String, DetachedStart)> = starts.collect::<Result<_, CommandFailure>>()?;
    let wait = |(name, start): (String, DetachedStart)| {
        let took = start.wait_until_up(Duration::from_secs(timeout))?;
        let number = up.fetch_add(1, Ordering::Relaxed) + 1;
        print_note(format!("{name} is up after {:.1} s ({number} of {count})", took.as_secs_f64()));
        Ok(())
    };
    // A thread for each, since a login can hang for as long as a busy guest takes.
    let outcomes: Vec<Result<(), CommandFailure>> = thread::scope(|scope| {
        let threads: Vec<_> = starts.into_iter().map(|start| scope.spawn(|| wait(start))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    outcomes.into_iter().collect()
}

/// `vm down`. The disks go too, so that an orderly shutdown would only take time.
pub(crate) fn take_down(registry: &MachineRegistry, root: &Path) -> Result<(), CommandFailure> {
    let cluster = ClusterFolder::beside_machines(root);
    let members = match cluster.members() {
        // A folder without a record: whoever made it ended before it had made any machine.
        Err(ClusterError::NoCluster) if cluster.path().is_dir() => Vec::new(),
        members => members?,
    };
    for member in &members {
        remove_member(registry, &member.name)?;
    }
    end_network(&cluster)?;
    cluster.remove()?;
    print_note(format!("{} machines and their network are gone", members.len()));
    Ok(())
}

fn remove_member(registry: &MachineRegistry, name: &str) -> Result<(), CommandFailure> {
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    loop {
        let entry = match registry.find_machine(Some(name)) {
            Err(RegistryError::Unknown { .. }) => return Ok(()),
            entry => entry?,
        };
        match &entry.state {
            MachineState::On(on) => pull_the_plug(&entry, on)?,
            MachineState::Changing if Instant::now() < deadline => thread::sleep(PAUSE),
            MachineState::Off | MachineState::Changing => {
                return Ok(registry.claim_machine(name)?.remove_machine()?);
            }
        }
    }
}
