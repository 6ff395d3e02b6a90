//! The folder that says that machines belong together, beside those of the machines.
//!
//! Knows the record of the cluster and that of its network. The process that is the network holds the lock of the
//! folder; as with machines, a held lock is what "up" means, so that no crash leaves a cluster that only seems to be
//! there. Invariant: the record names every machine that was made for the cluster, also one that is only half made.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::plan::ClusterMember;

/// No machine can have this name, since names begin with a letter.
const FOLDER: &str = ".cluster";
const RECORD: &str = "cluster.json";
const NETWORK: &str = "network.json";
const METADATA: &str = "metadata";
const LOCK: &str = "lock";

/// What the network says to its processes, on this host's disk.
pub const NETWORK_LOG: &str = "network.log";

/// Where the cluster of a folder of machines is.
#[derive(Debug, Clone)]
pub struct ClusterFolder {
    path: PathBuf,
}

/// The right to be the network of a cluster, until dropped.
#[derive(Debug)]
pub struct NetworkClaim {
    _lock: Flock<File>,
}

/// What is known of a network that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Its process
    pub pid: u32,
    /// The directory that the update server serves
    pub update_server: Option<PathBuf>,
    /// The port of this host's loopback where it listens
    pub update_port: Option<u16>,
    /// The ports where the metadata services listen, in the order of the machines; none without such services
    pub metadata_ports: Vec<u16>,
}

/// Why a cluster cannot be found or made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ClusterError {
    #[error("there is no cluster here; make one with: vm up 3 IMAGE")]
    NoCluster,
    #[error("there is a cluster already; end it with: vm down, or make another with: vm --state DIR up")]
    Exists,
    #[error("the cluster has no machine {number}; it has 1 to {count}")]
    NoMachine { number: u64, count: usize },
    #[error("the machine {0} belongs to no cluster, so it has no cable; only machines of vm up have one")]
    NoCable(String),
    #[error("the cluster's network runs already")]
    NetworkRuns,
    #[error("cannot use {path}")]
    Folder { path: PathBuf, source: io::Error },
}

impl ClusterFolder {
    /// The one beside the machines in `root`; it may not be there.
    #[must_use]
    pub fn beside_machines(root: &Path) -> Self {
        Self { path: root.join(FOLDER) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the files are that a machine's metadata service hands out.
    #[must_use]
    pub fn metadata_root(&self, member: &ClusterMember) -> PathBuf {
        self.path.join(METADATA).join(&member.name)
    }

    /// Makes it for these machines.
    pub fn create_folder(&self, members: &[ClusterMember]) -> Result<(), ClusterError> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => write_record(&self.path.join(RECORD), &members),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(ClusterError::Exists),
            Err(source) => Err(ClusterError::Folder { path: self.path.clone(), source }),
        }
    }

    /// The machines.
    pub fn read_members(&self) -> Result<Vec<ClusterMember>, ClusterError> {
        read_record(&self.path.join(RECORD))?.ok_or(ClusterError::NoCluster)
    }

    /// The machine of that name or number.
    pub fn find_member(&self, name: &str) -> Result<ClusterMember, ClusterError> {
        let members = self.read_members()?;
        let count = members.len();
        let number = name.parse::<u64>().ok();
        let is_meant = |one: &ClusterMember| one.name == name || number == Some(u64::from(one.number));
        let no_machine = match number {
            Some(number) => ClusterError::NoMachine { number, count },
            None => ClusterError::NoCable(name.to_owned()),
        };
        members.into_iter().find(is_meant).ok_or(no_machine)
    }

    /// Becomes the network of the cluster.
    pub fn claim_network(&self) -> Result<NetworkClaim, ClusterError> {
        let failed = |source| ClusterError::Folder { path: self.path.join(LOCK), source };
        match Flock::lock(self.open_lock().map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(NetworkClaim { _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(ClusterError::NetworkRuns),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Tells others about the network.
    pub fn record_network(&self, record: &NetworkRecord) -> Result<(), ClusterError> {
        write_record(&self.path.join(NETWORK), record)
    }

    /// The network as it is or was.
    pub fn last_network(&self) -> Result<Option<NetworkRecord>, ClusterError> {
        read_record(&self.path.join(NETWORK))
    }

    /// The network, while its process lives.
    pub fn running_network(&self) -> Result<Option<NetworkRecord>, ClusterError> {
        let Ok(lock) = File::open(self.path.join(LOCK)) else { return Ok(None) };
        // A shared lock, so that two who only look do not take each other for the network.
        match Flock::lock(lock, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(None),
            Err(_) => self.last_network(),
        }
    }

    /// Removes it; the cluster is no more. The machines are the registry's.
    pub fn remove_folder(&self) -> Result<(), ClusterError> {
        fs::remove_dir_all(&self.path)
            .map_err(|source| ClusterError::Folder { path: self.path.clone(), source })
    }

    fn open_lock(&self) -> io::Result<File> {
        // Not truncated: it has no content, and another process may hold it.
        OpenOptions::new().create(true).write(true).truncate(false).open(self.path.join(LOCK))
    }
}

fn write_record(path: &Path, record: &impl Serialize) -> Result<(), ClusterError> {
    let new = path.with_extension("new");
    // Renamed over, so that a reader sees a whole record or none.
    serde_json::to_vec_pretty(record)
        .map_err(io::Error::from)
        .and_then(|bytes| fs::write(&new, bytes))
        .and_then(|()| fs::rename(&new, path))
        .map_err(|source| ClusterError::Folder { path: path.into(), source })
}

/// None where there is none.
fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ClusterError> {
    let failed = |source| ClusterError::Folder { path: path.into(), source };
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::plan::plan_cluster;

    fn cluster() -> (tempfile::TempDir, ClusterFolder) {
        let root = tempfile::tempdir().unwrap();
        let folder = ClusterFolder::beside_machines(root.path());
        folder.create_folder(&plan_cluster(3, 0).unwrap()).unwrap();
        (root, folder)
    }

    #[test]
    fn machines_are_found_by_number_and_by_name() {
        let (_root, folder) = cluster();

        assert_eq!(folder.find_member("2").unwrap().name, "core-02");
        assert_eq!(folder.find_member("core-03").unwrap().number, 3);
        for (name, message) in [
            ("4", "the cluster has no machine 4; it has 1 to 3"),
            ("0", "the cluster has no machine 0; it has 1 to 3"),
            ("web", "the machine web belongs to no cluster"),
        ] {
            assert!(folder.find_member(name).unwrap_err().to_string().starts_with(message), "{name}");
        }
    }

    #[test]
    fn there_is_one_cluster_in_a_folder_until_it_is_removed() {
        let (_root, folder) = cluster();
        assert!(matches!(folder.create_folder(&[]), Err(ClusterError::Exists)));

        folder.remove_folder().unwrap();

        assert!(matches!(folder.read_members(), Err(ClusterError::NoCluster)));
        folder.create_folder(&[]).unwrap();
    }

    #[test]
    fn a_network_is_known_while_its_lock_is_held() {
        let (_root, folder) = cluster();
        let record = NetworkRecord {
            pid: 7,
            update_server: None,
            update_port: Some(8080),
            metadata_ports: vec![8081],
        };
        let claim = folder.claim_network().unwrap();
        folder.record_network(&record).unwrap();
        assert_eq!(folder.running_network().unwrap().as_ref(), Some(&record));
        assert!(matches!(folder.claim_network(), Err(ClusterError::NetworkRuns)));

        drop(claim);

        assert_eq!(folder.running_network().unwrap(), None);
        assert_eq!(folder.last_network().unwrap(), Some(record));
    }
}
