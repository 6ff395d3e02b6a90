//! A member of etcd that runs for a moment, on loopback, for this machine's root alone.
//!
//! Knows etcd's arguments. Refuses to know what is done with it. Invariants: nobody without root's certificate
//! comes to it; it is gone when dropped.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::etcd_client::EtcdClient;
use crate::membership::confirm_membership;

/// A store of our quota is read in seconds from a disk; an SD card takes a minute.
const START_PATIENCE: Duration = Duration::from_mins(3);
/// After which a member that was asked to end is made to.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// Why it did not run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ScratchError {
    #[error("etcd ended when it was started on {data}; its last words: {last}")]
    Ended { data: PathBuf, last: String },
    #[error("cannot find a free port on loopback")]
    Port { source: io::Error },
    #[error("etcd was started on {data} and has no leader after {} seconds", START_PATIENCE.as_secs())]
    Silent { data: PathBuf },
    #[error("cannot start {program}: is the package with it in the image?")]
    Start { program: &'static str, source: io::Error },
}

/// How a member begins with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScratchStart {
    /// As the only member, whoever the others were.
    AsOnlyMember,
    /// As the data says.
    AsWritten,
}

/// A member that runs.
#[derive(Debug)]
pub(super) struct ScratchMember {
    child: Child,
    /// Its URL.
    pub(super) endpoint: String,
}

impl ScratchMember {
    /// Starts one on these data, with the certificates in `keys`, and waits until it answers.
    pub(super) fn start(
        client: &EtcdClient,
        data: &Path,
        keys: &Path,
        start: ScratchStart,
    ) -> Result<Self, ScratchError> {
        let (client_port, peer_port) = (free_port()?, free_port()?);
        let endpoint = format!("https://127.0.0.1:{client_port}");
        let peers = format!("https://127.0.0.1:{peer_port}");
        let log = data.with_extension("log");
        let key = |name: &str| keys.join(name);
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data).args(["--enable-v2", "--log-level=warn", "--logger=zap"]);
        command.args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint]);
        command.args(["--listen-peer-urls", &peers, "--client-cert-auth", "--peer-client-cert-auth"]);
        command.arg("--cert-file").arg(key("etcd/server.pem")).arg("--key-file").arg(key("etcd/server.key"));
        command.arg("--trusted-ca-file").arg(key("client-ca.pem"));
        command.arg("--peer-cert-file").arg(key("etcd/peer.pem"));
        command.arg("--peer-key-file").arg(key("etcd/peer.key"));
        command.arg("--peer-trusted-ca-file").arg(key("peer-ca.pem"));
        if start == ScratchStart::AsOnlyMember {
            command.arg("--force-new-cluster");
        }
        let started = File::create(&log)
            .and_then(|file| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn());
        let child = started.map_err(|source| ScratchError::Start { program: "etcd", source })?;
        let mut member = Self { child, endpoint };
        member.await_leader(client, data, &log)?;
        Ok(member)
    }

    fn await_leader(&mut self, client: &EtcdClient, data: &Path, log: &Path) -> Result<(), ScratchError> {
        let start = Instant::now();
        while confirm_membership(client, &self.endpoint).is_err() {
            if !matches!(self.child.try_wait(), Ok(None)) {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("none").to_owned();
                return Err(ScratchError::Ended { data: data.to_owned(), last });
            }
            if start.elapsed() > START_PATIENCE {
                return Err(ScratchError::Silent { data: data.to_owned() });
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for ScratchMember {
    fn drop(&mut self) {
        // Asked first, so that its last writes are on the disk and its lock is gone.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < STOP_PATIENCE {
            thread::sleep(PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Free now; whoever takes it before etcd does makes etcd end, which is said.
fn free_port() -> Result<u16, ScratchError> {
    let listener = TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|source| ScratchError::Port { source })
}
