//! The process that is a cluster's network: the switch, and the server for updates.
//!
//! Knows how it is started and found. It lives as long as the cluster's folder, and holds that folder's lock.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vm::cluster::folder::{ClusterFolder, NETWORK_LOG, NetworkRecord};
use vm::cluster::metadata::ClusterSeed;
use vm::cluster::plan::ClusterMember;
use vm::file_server::FileServer;
use vm::switch::control::{ControlRequest, bind_control_socket, send_request};
use vm::switch::process::SwitchProcess;

use crate::cable::port_of;
use crate::cli::NetworkArguments;
use crate::failure::CommandFailure;

/// Generous: the process only binds two sockets, but a busy host may start it late.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The switch ends within a round of its loop.
const END_TIMEOUT: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(20);

/// A directory that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {path} as updates")]
pub(crate) struct ServeError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// A network that did not come up.
#[derive(Debug, thiserror::Error)]
#[error("the network of the machines did not come up: {0}")]
struct NetworkError(String);

/// Is the network, until the cluster ends.
pub(crate) fn run_network(root: &Path, arguments: &NetworkArguments) -> Result<(), CommandFailure> {
    // A session of its own, so that the terminal's end is not ours. It fails only if we have one already.
    let _ = nix::unistd::setsid();
    let cluster = ClusterFolder::beside_machines(root);
    let members = cluster.read_members()?;
    let _claim = cluster.claim_network()?;
    let update_port = match &arguments.update_server {
        Some(path) => Some(
            serve_files(path, arguments.update_port)
                .map_err(|source| ServeError { path: path.clone(), source })?,
        ),
        None => None,
    };
    let metadata_ports = match arguments.seed_by {
        ClusterSeed::Disk => Vec::new(),
        ClusterSeed::Metadata => {
            let port = |member: &ClusterMember| arguments.metadata_port.get(port_of(member).0).copied();
            let serve = |one| serve_metadata(&cluster.metadata_root(one), port(one).unwrap_or(0));
            members.iter().map(serve).collect::<Result<_, _>>()?
        }
    };
    let update_server = arguments.update_server.clone();
    let pid = std::process::id();
    cluster.record_network(&NetworkRecord { pid, update_server, update_port, metadata_ports })?;
    let folders: Vec<PathBuf> = members.iter().map(|member| root.join(&member.name)).collect();
    let listener = bind_control_socket(cluster.path())?;
    // A fixed seed: a run that found a fault is the next one again, as far as the guests are the same.
    SwitchProcess::new(cluster.path(), &folders, listener, 1)?.run_switch()?;
    Ok(())
}

/// Serves the directory in a thread that ends with this process, and returns the port. Guests reach this host's
/// loopback, and other hosts do not.
fn serve_files(path: &Path, port: u16) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let port = listener.local_addr()?.port();
    let server = FileServer::serve_folder(path, listener)?;
    thread::spawn(|| server.serve_forever());
    Ok(port)
}

/// Serves what one machine alone may know, at a port of its own: the service does not see who asks it.
fn serve_metadata(root: &Path, port: u16) -> io::Result<u16> {
    // Filled before the machine starts.
    fs::create_dir_all(root)?;
    serve_files(root, port)
}

/// Starts the network of the cluster in the background, and waits until it answers.
pub(crate) fn start_network(
    root: &Path,
    arguments: &NetworkArguments,
) -> Result<NetworkRecord, CommandFailure> {
    let cluster = ClusterFolder::beside_machines(root);
    let log_path = cluster.path().join(NETWORK_LOG);
    let mut command = Command::new(std::env::current_exe()?);
    // Absolute, since the process leaves this directory: it must not keep a file system busy that a person wants to
    // unmount.
    command.arg("--state").arg(std::path::absolute(root)?).arg("network");
    if let Some(path) = &arguments.update_server {
        command.arg("--update-server").arg(path).args(["--update-port", &arguments.update_port.to_string()]);
    }
    if arguments.seed_by == ClusterSeed::Metadata {
        command.args(["--seed-by", "metadata"]);
    }
    for port in &arguments.metadata_port {
        command.args(["--metadata-port", &port.to_string()]);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log_path)?);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if send_request(cluster.path(), &ControlRequest::Status {}).is_ok()
            && let Some(record) = cluster.running_network()?
        {
            return Ok(record);
        }
        if child.try_wait()?.is_some() {
            let said = fs::read_to_string(&log_path)?;
            // It says "vm: " before its own words, and so does this process.
            return Err(NetworkError(said.trim().trim_start_matches("vm: ").to_owned()).into());
        }
        if Instant::now() >= deadline {
            return Err(NetworkError(format!("it does not answer after {START_TIMEOUT:?}")).into());
        }
        thread::sleep(PAUSE);
    }
}

/// Starts the network again after its process ended, at the same ports: the machines remember them.
pub(crate) fn resume_network(root: &Path, cluster: &ClusterFolder) -> Result<(), CommandFailure> {
    let Some(last) = cluster.last_network()? else { return Ok(()) };
    let arguments = NetworkArguments {
        update_server: last.update_server,
        update_port: last.update_port.unwrap_or(0),
        seed_by: if last.metadata_ports.is_empty() { ClusterSeed::Disk } else { ClusterSeed::Metadata },
        metadata_port: last.metadata_ports,
    };
    start_network(root, &arguments).map(drop)
}

/// Ends the network, if it is there.
pub(crate) fn end_network(cluster: &ClusterFolder) -> Result<(), CommandFailure> {
    // One that does not answer is killed below.
    let _ = send_request(cluster.path(), &ControlRequest::Quit {});
    let deadline = Instant::now() + END_TIMEOUT;
    while let Some(record) = cluster.running_network()? {
        if Instant::now() >= deadline {
            // Its lock is held, so the process id still means the process it meant.
            kill(Pid::from_raw(i32::try_from(record.pid)?), Signal::SIGKILL)?;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
