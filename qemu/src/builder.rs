//! Makes machines: chooses, copies and writes what a machine needs before it can be switched on.
//!
//! Knows the defaults and what goes into a machine's folder; refuses to start anything but the acceleration's
//! trial. Invariant: a machine that was built has everything it needs, so only QEMU itself can fail its start.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::acceleration::{self, AccelerationChoice};
use crate::description::{DESCRIPTION, MachineDescription, SEED_DISK, USER_DATA, VARIABLES};
use crate::disk::MachineDisk;
use crate::firmware::{FindFirmwareError, Firmware};
use crate::machine::{Machine, MachineFolder};
use crate::options::{Bus, ClusterCard, DeviceSet, MachineOptions, OtherDisk, Reach, SeedBy};
use crate::running::RunningMachine;
use crate::seed::{self, SeedData};
use crate::ssh::{SshError, SshKey};

/// A machine to be made.
#[derive(Debug)]
pub struct MachineBuilder {
    name: String,
    folder: Option<PathBuf>,
    disk: MachineDisk,
    user_data: Option<Vec<u8>>,
    network_config: Option<String>,
    seed_by: SeedBy,
    instance_id: Option<String>,
    key: Option<SshKey>,
    user: Option<String>,
    /// As they were named; QEMU needs them absolute
    beside: Vec<(PathBuf, Bus)>,
    options: MachineOptions,
}

/// Why a machine could not be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum BuildError {
    #[error("cannot make the machine's folder {path}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the path {0:?} is not UTF-8, which QEMU's options need")]
    Path(PathBuf),
    #[error(transparent)]
    Firmware(#[from] FindFirmwareError),
    #[error(transparent)]
    Key(#[from] SshError),
}

// Here and not beside the rest of `Machine`, which needs not know how it is made.
impl Machine {
    /// Begins a machine that boots from `disk`.
    #[must_use]
    pub fn builder(disk: MachineDisk) -> MachineBuilder {
        MachineBuilder::new(disk)
    }
}

impl MachineBuilder {
    /// The defaults: BIOS, one processor, 1 GiB, a seed disk.
    pub(crate) fn new(disk: MachineDisk) -> Self {
        Self {
            name: "machine".to_owned(),
            folder: None,
            disk,
            user_data: None,
            network_config: None,
            seed_by: SeedBy::Disk,
            instance_id: None,
            key: None,
            user: None,
            beside: Vec::new(),
            options: MachineOptions::default(),
        }
    }

    /// The name in messages, and the guest's host name unless user-data says another.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Keeps everything of the machine in `folder`, which is made if need be and stays; else it goes to a
    /// temporary one that is deleted with the machine.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// All that was chosen of the hardware, at once. The methods below each choose one thing.
    #[must_use]
    pub fn options(mut self, options: MachineOptions) -> Self {
        self.options = options;
        self
    }

    /// Joins the machine to others with a second network card, to which the switch connects.
    #[must_use]
    pub fn cluster_card(mut self, card: ClusterCard) -> Self {
        self.options.cluster_card = Some(card);
        self
    }

    /// How the guest's network cards are to be configured, in any format that `NoCloud` knows.
    #[must_use]
    pub fn network_config(mut self, document: &str) -> Self {
        self.network_config = Some(document.to_owned());
        self
    }

    /// The firmware that starts the disk; BIOS unless said.
    #[must_use]
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.options.hardware.firmware = firmware;
        self
    }

    /// KVM or TCG.
    #[must_use]
    pub fn acceleration(mut self, wish: AccelerationChoice) -> Self {
        self.options.hardware.acceleration_choice = wish;
        self
    }

    /// Virtual processors; 1 unless said.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.options.hardware.cpus = cpus;
        self
    }

    /// Memory in MiB; 1024 unless said.
    #[must_use]
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.options.hardware.memory = mebibytes;
        self
    }

    /// The user's document.
    #[must_use]
    pub fn user_data(mut self, document: impl Into<Vec<u8>>) -> Self {
        self.user_data = Some(document.into());
        self
    }

    /// How the document and the key go in.
    #[must_use]
    pub fn seed_by(mut self, way: SeedBy) -> Self {
        self.seed_by = way;
        self
    }

    /// What `NoCloud` tells one machine from the next by; random unless said.
    #[must_use]
    pub fn instance_id(mut self, id: &str) -> Self {
        self.instance_id = Some(id.to_owned());
        self
    }

    /// A key pair that may already be on the disk; a new one unless said.
    #[must_use]
    pub fn key(mut self, key: SshKey) -> Self {
        self.key = Some(key);
        self
    }

    /// The account ssh logs in to; `core`, or `root` with [`SeedBy::FwCfg`], unless said.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// What the disk and the network card are.
    #[must_use]
    pub fn devices(mut self, devices: DeviceSet) -> Self {
        self.options.devices = devices;
        self
    }

    /// Attaches a raw disk that the firmware does not start from, before the one that it starts from.
    #[must_use]
    pub fn beside(mut self, disk: &Path, bus: Bus) -> Self {
        self.beside.push((disk.into(), bus));
        self
    }

    /// Puts in a hardware watchdog (i6300esb) that resets the machine.
    #[must_use]
    pub fn watchdog(mut self) -> Self {
        self.options.watchdog = true;
        self
    }

    /// Records each write and flush of the guest, to be read by [`crate::write_log`].
    #[must_use]
    pub fn log_writes(mut self) -> Self {
        self.options.log_writes = true;
        self
    }

    /// The network card's address; random unless said.
    #[must_use]
    pub fn mac(mut self, address: &str) -> Self {
        address.clone_into(&mut self.options.mac);
        self
    }

    /// Makes `port` of this host's loopback a cloud's metadata service, at its link-local address on a second
    /// network card; the guest then reaches nothing else, not even the metadata service of this host. Needs
    /// busybox.
    #[must_use]
    pub fn metadata_service(mut self, port: u16) -> Self {
        self.options.metadata_service = Some(port);
        self
    }

    /// Lets the guest's network reach nobody: neither the world nor what listens on this host's loopback.
    #[must_use]
    pub fn isolated(mut self) -> Self {
        self.options.reach = Reach::Nothing;
        self
    }

    /// More words for QEMU's command line.
    #[must_use]
    pub fn extra(mut self, words: impl IntoIterator<Item = OsString>) -> Self {
        self.options.extra.extend(words);
        self
    }

    /// Makes the machine's folder and what belongs into it.
    pub fn build(mut self) -> Result<Machine, BuildError> {
        let flash = self.options.hardware.firmware.find_flash(Path::new("/"))?;
        let folder = self.make_folder()?;
        let at = |name: &str| folder.path().join(name);
        if let Some(flash) = &flash {
            let path = at(VARIABLES);
            // A copy for each machine: the firmware writes boot entries into it, and another's would be started.
            fs::copy(&flash.variables, &path).map_err(|source| BuildError::Write { path, source })?;
        }
        let key = match &self.key {
            Some(key) => key.clone(),
            None => SshKey::generate_pair(&at("key"))?,
        };
        self.write_seed(folder.path(), &key)?;
        let choice = acceleration::choose_acceleration(self.options.hardware.acceleration_choice);
        self.options.beside = self.beside.into_iter().map(other_disk).collect::<Result<_, _>>()?;
        let description = MachineDescription {
            disk: absolute_disk(self.disk)?,
            flash_code: flash.map(|flash| path_as_utf8(&flash.code)).transpose()?,
            acceleration: choice.acceleration,
            because: choice.because,
            user: self.user.unwrap_or_else(|| default_user(self.seed_by).to_owned()),
            name: self.name,
            seed_by: self.seed_by,
            user_data: self.user_data.is_some(),
            key,
            options: self.options,
        };
        let path = folder.path().join(DESCRIPTION);
        description.write(&path).map_err(|source| BuildError::Write { path, source })?;
        Ok(Machine { folder, description })
    }

    /// Makes the machine and switches it on.
    pub fn start(self) -> Result<RunningMachine, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.build()?.start_machine()?)
    }

    fn make_folder(&self) -> Result<MachineFolder, BuildError> {
        let Some(path) = &self.folder else {
            let source_path = std::env::temp_dir();
            let made = tempfile::Builder::new().prefix("vm-").tempdir();
            return made
                .map(MachineFolder::Temporary)
                .map_err(|source| BuildError::Folder { path: source_path, source });
        };
        fs::DirBuilder::new()
            .recursive(true)
            // It gets a private key, and a console's output is nobody else's business.
            .mode(0o700)
            .create(path)
            .map_err(|source| BuildError::Folder { path: path.clone(), source })?;
        Ok(MachineFolder::Kept(path.clone()))
    }

    fn write_seed(&self, folder: &Path, key: &SshKey) -> Result<(), BuildError> {
        let (name, bytes) = match (self.seed_by, &self.user_data) {
            (SeedBy::Nothing, _) | (SeedBy::FwCfg, None) => return Ok(()),
            (SeedBy::FwCfg, Some(document)) => (USER_DATA, Ok(document.clone())),
            (SeedBy::Disk, _) => (SEED_DISK, self.seed(key).to_disk()),
        };
        let path = folder.join(name);
        bytes.and_then(|bytes| fs::write(&path, bytes)).map_err(|source| BuildError::Write { path, source })
    }

    fn seed(&self, key: &SshKey) -> SeedData {
        SeedData {
            instance_id: self.instance_id.clone().unwrap_or_else(|| format!("i-{}", seed::random_hex())),
            host_name: self.name.clone(),
            public_keys: vec![key.public_line().to_owned()],
            user_data: self.user_data.clone(),
            network_config: self.network_config.clone(),
        }
    }
}

fn default_user(seed_by: SeedBy) -> &'static str {
    match seed_by {
        SeedBy::FwCfg => "root",
        SeedBy::Disk | SeedBy::Nothing => "core",
    }
}

fn absolute_disk(disk: MachineDisk) -> Result<MachineDisk, BuildError> {
    let absolute = |path: PathBuf| {
        let full = std::path::absolute(&path).map_err(|source| BuildError::Folder { path, source })?;
        path_as_utf8(&full).map(PathBuf::from)
    };
    Ok(match disk {
        MachineDisk::Overlay(path, stamp) => MachineDisk::Overlay(absolute(path)?, stamp),
        MachineDisk::Raw(path) => MachineDisk::Raw(absolute(path)?),
    })
}

fn other_disk((path, bus): (PathBuf, Bus)) -> Result<OtherDisk, BuildError> {
    let path = std::path::absolute(&path).map_err(|source| BuildError::Folder { path, source })?;
    Ok(OtherDisk { path: path_as_utf8(&path)?, bus })
}

fn path_as_utf8(path: &Path) -> Result<String, BuildError> {
    path.to_str().map(str::to_owned).ok_or_else(|| BuildError::Path(path.into()))
}
