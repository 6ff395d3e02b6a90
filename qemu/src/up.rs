//! Brings up the machines of a cluster, and takes them down.
//!
//! Knows the order: record, network, machines, power; and back. Refuses to know what the machines do with each
//! other. Invariant: what could not be brought up whole is gone again, unless a machine runs that a person may
//! want to look at.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vm::Machine;
use vm::cluster::folder::{ClusterError, ClusterFolder};
use vm::cluster::metadata::{ClusterSeed, MetadataValues, metadata_files};
use vm::cluster::plan::{ClusterMember, plan_cluster};
use vm::cluster::template::{TemplateValues, expand_user_data};
use vm::disk::{self, DiskSize};
use vm::options::{ClusterCard, SeedBy};
use vm::registry::{MachineRegistry, MachineState, RegistryError};
use vm::seed::random_hex;
use vm::ssh::SshKey;

use crate::cable::port_of;
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
    if arguments.seed_by == ClusterSeed::Metadata {
        find_busybox()?;
    }
    let cluster = ClusterFolder::beside_machines(root);
    if cluster.path().exists() {
        return Err(ClusterError::Exists.into());
    }
    refuse_names_in_use(registry, &members)?;
    // The record comes first: vm down finds what it names, however far this process gets.
    cluster.create_folder(&members)?;
    let made = make_machines(registry, root, arguments, &members, document.as_deref());
    let outcome = made.and_then(|machines| start_machines(root, machines, arguments.timeout));
    match &outcome {
        Ok(()) => print_note("all are up: vm ls, vm ssh 1, vm cut 1, vm heal 1, vm down"),
        Err(failure) if leaves_machines(failure) => print_note("the others stay on; vm down ends them"),
        Err(_) => take_down(registry, root)?,
    }
    outcome
}

/// A program that carries the connections to a metadata service, and is not here.
#[derive(Debug, thiserror::Error)]
#[error("cannot run busybox, which --seed-by metadata needs; install it with: apt-get install busybox")]
struct NoBusybox(#[source] io::Error);

/// QEMU would start without it, and each machine would wait for its metadata in vain.
fn find_busybox() -> Result<(), NoBusybox> {
    Command::new("busybox").arg("true").status().map(drop).map_err(NoBusybox)
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
    let network = NetworkArguments {
        update_server: update_server.transpose()?,
        update_port: arguments.update_port,
        seed_by: arguments.seed_by,
        metadata_port: Vec::new(),
    };
    let cluster = ClusterFolder::beside_machines(root);
    // Before the machines, since only the network knows the port that the user-data may ask for.
    let record = start_network(root, &network)?;
    let address = record.update_port.map(|port| format!("http://{HOST_FROM_GUEST}:{port}"));
    if let Some(address) = &address {
        print_note(format!("updates are served to the machines at {address}"));
    }
    let make = |member: &ClusterMember| {
        let values = TemplateValues { member, cluster: members, update_server: address.as_deref() };
        let document = document.map(|document| expand_user_data(document, &values)).transpose()?;
        let metadata_port = record.metadata_ports.get(port_of(member).0).copied();
        let order = MachineOrder { member, document, metadata_port, cluster: &cluster };
        make_machine(registry, arguments, order)
    };
    members.iter().map(make).collect()
}

/// What is special of one machine.
struct MachineOrder<'a> {
    member: &'a ClusterMember,
    document: Option<Vec<u8>>,
    metadata_port: Option<u16>,
    cluster: &'a ClusterFolder,
}

fn make_machine(
    registry: &MachineRegistry,
    arguments: &UpArguments,
    order: MachineOrder<'_>,
) -> Result<Machine, CommandFailure> {
    let MachineOrder { member, document, metadata_port, cluster } = order;
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
        .cluster_card(ClusterCard { mac: member.mac.clone(), metadata_port })
        .user(&arguments.user);
    if metadata_port.is_some() {
        let key = SshKey::generate_pair(&claim.folder().join("key"))?;
        write_metadata(&cluster.metadata_root(member), member, &key, document.as_deref())?;
        return Ok(builder.seed_by(SeedBy::Nothing).key(key).build()?);
    }
    builder = builder.network_config(&member.network_config());
    if let Some(document) = document {
        builder = builder.user_data(document);
    }
    Ok(builder.build()?)
}

/// Fills the folder that the machine's metadata service hands out.
fn write_metadata(
    root: &Path,
    member: &ClusterMember,
    key: &SshKey,
    user_data: Option<&[u8]>,
) -> Result<(), CommandFailure> {
    let instance_id = format!("i-{}", random_hex());
    let values =
        MetadataValues { member, instance_id: &instance_id, public_key: key.public_line(), user_data };
    for (path, content) in metadata_files(&values) {
        let path = root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content)?;
    }
    Ok(())
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
        Ok((name, DetachedStart::spawn_start(root, machine)?))
    });
    let starts: Vec<(String, DetachedStart)> = starts.collect::<Result<_, CommandFailure>>()?;
    let wait = |(name, start): (String, DetachedStart)| {
        let took = start.wait_until_up(Duration::from_secs(timeout))?;
        let number = up.fetch_add(1, Ordering::Relaxed) + 1;
        print_note(format!("{name} is up after {:.1} s ({number} of {count})", took.as_secs_f64()));
        Ok(())
    };
    // All are started before the first is waited for: on a busy host one boots while another waits for its disk.
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
    let members = match cluster.read_members() {
        // A folder without a record: whoever made it ended before it had made any machine.
        Err(ClusterError::NoCluster) if cluster.path().is_dir() => Vec::new(),
        members => members?,
    };
    for member in &members {
        remove_member(registry, &member.name)?;
    }
    end_network(&cluster)?;
    cluster.remove_folder()?;
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
