//! Knows the machines of one user: a folder each, found by name.
//!
//! Whoever runs a machine holds the lock on its folder; a held lock is what "on" means, so a process that dies
//! in any way leaves no machine that only seems to run. Refuses to know what is in a machine. Invariant: the
//! root folder belongs to this user and is open to no other.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::ssh::ForwardedPorts;

const LOCK: &str = "lock";
const ON: &str = "on.json";
const KEPT: &str = "kept";

/// All machines of a user.
#[derive(Debug)]
pub struct MachineRegistry {
    root: PathBuf,
}

/// The right to run, change or remove one machine, until dropped.
#[derive(Debug)]
pub struct MachineClaim {
    folder: PathBuf,
    _lock: Flock<File>,
}

/// What others may know of a machine that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningRecord {
    /// The process that runs it
    pub pid: u32,
    /// QEMU's process
    pub qemu: u32,
    /// The ports of this host that lead into it
    pub ports: ForwardedPorts,
}

/// A machine as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineEntry {
    /// Its name
    pub name: String,
    /// Where its things are
    pub folder: PathBuf,
    /// Whether it stays when it goes off
    pub kept: bool,
    /// Whether somebody holds its lock
    pub state: MachineState,
}

/// Whether a machine is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineState {
    /// Nobody runs it
    Off,
    /// Somebody is about to run it, or has just stopped
    Changing,
    /// Somebody runs it
    On(RunningRecord),
}

/// Why a machine cannot be found or had.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RegistryError {
    #[error("cannot use the folder of machines {path}")]
    Root { path: PathBuf, source: io::Error },
    #[error("the folder of machines {path} belongs to another user or is open to others; remove it")]
    Unsafe { path: PathBuf },
    #[error("{0:?} cannot name a machine: a name has 1 to 40 of a-z, 0-9 and -, and starts with a letter")]
    Name(String),
    #[error("there is no machine called {name}; there {}", list_known(names))]
    Unknown { name: String, names: Vec<String> },
    #[error("say which machine: there {}", list_known(names))]
    Which { names: Vec<String> },
    #[error("the machine {0} is on; stop it first: vm stop {0}")]
    Busy(String),
    #[error("the machine {0} is off; switch it on: vm start {0}")]
    Off(String),
    #[error("the machine {0} is there already; boot it again with: vm start {0}, or: vm remove {0}")]
    Taken(String),
    #[error("cannot change {path}")]
    Change { path: PathBuf, source: io::Error },
}

fn list_known(names: &[String]) -> String {
    if names.is_empty() { "is none".to_owned() } else { format!("are: {}", names.join(", ")) }
}

impl MachineRegistry {
    /// The machines under `root`, which is made if need be.
    pub fn open_registry(root: &Path) -> Result<Self, RegistryError> {
        let failed = |source| RegistryError::Root { path: root.into(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        let metadata = fs::symlink_metadata(root).map_err(failed)?;
        // In /var/tmp anybody may have made a folder of this name first, to read the keys that go into it.
        let ours = metadata.uid() == nix::unistd::geteuid().as_raw();
        let others = metadata.mode() & 0o077;
        if !metadata.is_dir() || !ours || others != 0 {
            return Err(RegistryError::Unsafe { path: root.into() });
        }
        Ok(Self { root: root.into() })
    }

    /// All machines, by name.
    pub fn list_machines(&self) -> Result<Vec<MachineEntry>, RegistryError> {
        let mut entries = Vec::new();
        for name in self.machine_names()? {
            entries.extend(self.read_entry(&name)?);
        }
        Ok(entries)
    }

    /// The machine called `name`; without a name the only one there is, of those that are on if any is.
    pub fn find_machine(&self, name: Option<&str>) -> Result<MachineEntry, RegistryError> {
        let names = self.machine_names()?;
        if let Some(name) = name {
            let unknown = RegistryError::Unknown { name: name.to_owned(), names };
            return self.read_entry(name)?.ok_or(unknown);
        }
        let mut all = self.list_machines()?;
        // With one machine on and others kept, the one that is on is meant.
        if all.iter().any(|entry| entry.state != MachineState::Off) {
            all.retain(|entry| entry.state != MachineState::Off);
        }
        match <[MachineEntry; 1]>::try_from(all) {
            Ok([only]) => Ok(only),
            Err(all) => {
                Err(RegistryError::Which { names: all.into_iter().map(|entry| entry.name).collect() })
            }
        }
    }

    /// Makes a folder for a new machine, and claims it. Without a name, one is made from `stem`. What is
    /// left of an unkept machine whose process was killed gives way.
    pub fn create_machine(
        &self,
        name: Option<&str>,
        stem: &str,
    ) -> Result<(String, MachineClaim), RegistryError> {
        let name = match name {
            Some(name) => check_name(name)?.to_owned(),
            None => self.free_name(&name_from(stem))?,
        };
        if let Some(entry) = self.read_entry(&name)? {
            if entry.kept || entry.state != MachineState::Off {
                return Err(RegistryError::Taken(name));
            }
            self.claim_machine(&name)?.remove_machine()?;
        }
        let folder = self.root.join(&name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|source| RegistryError::Change { path: folder, source })?;
        let claim = self.claim_machine(&name)?;
        Ok((name, claim))
    }

    /// Claims a machine that is off.
    pub fn claim_machine(&self, name: &str) -> Result<MachineClaim, RegistryError> {
        let folder = self.root.join(check_name(name)?);
        let change = |source| RegistryError::Change { path: folder.join(LOCK), source };
        let lock = open_lock(&folder).map_err(change)?;
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(MachineClaim { folder, _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(RegistryError::Busy(name.to_owned())),
            Err((_, errno)) => Err(change(errno.into())),
        }
    }

    fn machine_names(&self) -> Result<Vec<String>, RegistryError> {
        let failed = |source| RegistryError::Root { path: self.root.clone(), source };
        let mut names = Vec::new();
        for item in fs::read_dir(&self.root).map_err(failed)? {
            let name = item.map_err(failed)?.file_name();
            names.extend(name.to_str().filter(|name| check_name(name).is_ok()).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read_entry(&self, name: &str) -> Result<Option<MachineEntry>, RegistryError> {
        let folder = self.root.join(check_name(name)?);
        if !folder.is_dir() {
            return Ok(None);
        }
        let state = if is_locked(&folder) { state_of(&folder) } else { MachineState::Off };
        let kept = folder.join(KEPT).exists();
        Ok(Some(MachineEntry { name: name.to_owned(), folder, kept, state }))
    }

    fn free_name(&self, stem: &str) -> Result<String, RegistryError> {
        let names = self.machine_names()?;
        let mut name = stem.to_owned();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{stem}-{number}");
            number += 1;
        }
        Ok(name)
    }
}

impl MachineEntry {
    /// What is known of it if it is on.
    pub fn running_record(&self) -> Result<&RunningRecord, RegistryError> {
        match &self.state {
            MachineState::On(on) => Ok(on),
            MachineState::Off | MachineState::Changing => Err(RegistryError::Off(self.name.clone())),
        }
    }

    /// Whether somebody still holds its lock.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        is_locked(&self.folder)
    }
}

impl MachineClaim {
    /// Where the machine's things are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Tells others that the machine is on.
    pub fn record_running(&self, on: &RunningRecord) -> Result<(), RegistryError> {
        let path = self.folder.join(ON);
        let new = self.folder.join("on.json.new");
        serde_json::to_vec(on)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&new, bytes))
            // Renamed over: others read it at any moment, and must find all of it or none.
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|source| RegistryError::Change { path, source })
    }

    /// Makes the machine stay when it goes off.
    pub fn keep_machine(&self) -> Result<(), RegistryError> {
        let path = self.folder.join(KEPT);
        fs::write(&path, "").map_err(|source| RegistryError::Change { path, source })
    }

    /// Gives the machine back: kept ones stay, the others are removed.
    pub fn release_machine(self) -> Result<(), RegistryError> {
        if !self.folder.join(KEPT).exists() {
            return self.remove_machine();
        }
        let path = self.folder.join(ON);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RegistryError::Change { path, source })
            }
            _ => Ok(()),
        }
    }

    /// Removes the machine.
    pub fn remove_machine(self) -> Result<(), RegistryError> {
        fs::remove_dir_all(&self.folder)
            .map_err(|source| RegistryError::Change { path: self.folder.clone(), source })
    }
}

fn open_lock(folder: &Path) -> io::Result<File> {
    // Not truncated: it has no content, and the holder of the lock would not notice.
    OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(LOCK))
}

fn is_locked(folder: &Path) -> bool {
    let Ok(lock) = OpenOptions::new().write(true).open(folder.join(LOCK)) else { return false };
    // A shared lock, so that two who only look do not take each other for the owner.
    Flock::lock(lock, FlockArg::LockSharedNonblock).is_err()
}

fn state_of(folder: &Path) -> MachineState {
    let read = || serde_json::from_slice(&fs::read(folder.join(ON)).ok()?).ok();
    read().map_or(MachineState::Changing, MachineState::On)
}

fn check_name(name: &str) -> Result<&str, RegistryError> {
    // It becomes a folder, a host name and a word on ssh's command line: nothing that a shell, a path or RFC 1123
    // reads in another way. With a letter first, a number can name a machine of the cluster.
    let fits = name.len() <= 40
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if fits { Ok(name) } else { Err(RegistryError::Name(name.to_owned())) }
}

fn name_from(stem: &str) -> String {
    let lower = stem.to_ascii_lowercase();
    let name: String =
        lower.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_lowercase()).trim_end_matches('-');
    if name.is_empty() { "machine".to_owned() } else { name.chars().take(30).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (tempfile::TempDir, MachineRegistry) {
        let folder = tempfile::tempdir().unwrap();
        let registry = MachineRegistry::open_registry(&folder.path().join("vm")).unwrap();
        (folder, registry)
    }

    const SOMEONE: RunningRecord =
        RunningRecord { pid: 1, qemu: 2, ports: ForwardedPorts { ssh: 3, closed: 4 } };

    #[test]
    fn a_machine_is_on_while_its_claim_lives() {
        let (_folder, registry) = registry();
        let (name, claim) = registry.create_machine(None, "Disk 01.raw").unwrap();
        claim.record_running(&SOMEONE).unwrap();
        let seen = registry.find_machine(None).unwrap();

        drop(claim);

        assert_eq!(name, "disk-01-raw");
        assert_eq!(seen.state, MachineState::On(SOMEONE));
        assert_eq!(registry.find_machine(Some(&name)).unwrap().state, MachineState::Off);
    }

    #[test]
    fn a_kept_machine_stays_and_another_goes() {
        let (_folder, registry) = registry();
        let (_, kept) = registry.create_machine(Some("kept"), "").unwrap();
        kept.keep_machine().unwrap();
        let (_, gone) = registry.create_machine(Some("gone"), "").unwrap();

        kept.release_machine().unwrap();
        gone.release_machine().unwrap();

        let names: Vec<String> =
            registry.list_machines().unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["kept"]);
    }

    #[test]
    fn a_machine_that_is_on_cannot_be_claimed_or_replaced() {
        let (_folder, registry) = registry();
        let (_, _claim) = registry.create_machine(Some("web"), "").unwrap();

        assert!(matches!(registry.claim_machine("web"), Err(RegistryError::Busy(_))));
        assert!(matches!(registry.create_machine(Some("web"), ""), Err(RegistryError::Taken(_))));
        assert_eq!(registry.create_machine(None, "web").unwrap().0, "web-2");
    }

    #[test]
    fn what_a_killed_process_left_gives_way() {
        let (_folder, registry) = registry();
        let (_, claim) = registry.create_machine(Some("web"), "").unwrap();
        fs::write(claim.folder().join("rest"), "").unwrap();
        drop(claim);

        let (_, claim) = registry.create_machine(Some("web"), "").unwrap();

        assert!(!claim.folder().join("rest").exists());
    }

    #[test]
    fn names_cannot_leave_the_root() {
        let (_folder, registry) = registry();

        for name in ["../x", "", "-x", "A", "x/y", "."] {
            assert!(matches!(registry.find_machine(Some(name)), Err(RegistryError::Name(_))), "{name}");
        }
    }

    #[test]
    fn a_missing_name_lists_those_there_are() {
        let (_folder, registry) = registry();
        let _claims = ["a", "b"].map(|name| registry.create_machine(Some(name), "").unwrap());

        assert_eq!(
            registry.find_machine(None).unwrap_err().to_string(),
            "say which machine: there are: a, b"
        );
        assert_eq!(
            registry.find_machine(Some("c")).unwrap_err().to_string(),
            "there is no machine called c; there are: a, b"
        );
    }

    #[test]
    fn a_root_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("vm");
        fs::DirBuilder::new().mode(0o755).create(&open).unwrap();

        assert!(matches!(MachineRegistry::open_registry(&open), Err(RegistryError::Unsafe { .. })));
    }
}
