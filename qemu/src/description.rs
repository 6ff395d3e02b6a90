//! What of a machine is written down, so that another process can switch it on again.
//!
//! Knows how a description becomes hardware, and the names of the files in a machine's folder. Invariant: the
//! same description is always the same hardware.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::acceleration::Acceleration;
use crate::arguments::{self, BootFirmware, DeviceSet, DiskFormat, DriveFile, Hardware, OtherDisk, Reach};
use crate::builder::SeedBy;
use crate::disk::MachineDisk;
use crate::firmware::Firmware;
use crate::ssh::SshKey;

pub(crate) const DESCRIPTION: &str = "machine.json";
pub(crate) const SEED_DISK: &str = "seed.img";
pub(crate) const USER_DATA: &str = "user-data";
pub(crate) const VARIABLES: &str = "variables.fd";
pub(crate) const WRITE_LOG: &str = "writes.log";

/// What of a machine is written down, to switch it on again from another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MachineDescription {
    pub(crate) name: String,
    pub(crate) disk: MachineDisk,
    pub(crate) firmware: Firmware,
    pub(crate) flash_code: Option<String>,
    pub(crate) acceleration: Acceleration,
    pub(crate) because: String,
    pub(crate) cpus: u32,
    pub(crate) memory: u32,
    pub(crate) seed_by: SeedBy,
    pub(crate) user_data: bool,
    pub(crate) key: SshKey,
    pub(crate) user: String,
    pub(crate) mac: String,
    #[serde(default)]
    pub(crate) devices: DeviceSet,
    #[serde(default)]
    pub(crate) beside: Vec<OtherDisk>,
    #[serde(default)]
    pub(crate) metadata_service: Option<u16>,
    #[serde(default)]
    pub(crate) reach: Reach,
    pub(crate) watchdog: bool,
    pub(crate) log_writes: bool,
    pub(crate) extra: Vec<OsString>,
}

impl MachineDescription {
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?)
    }

    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// The machine as QEMU sees it.
    pub(crate) fn to_hardware(&self) -> Hardware {
        Hardware {
            name: self.name.clone(),
            acceleration: self.acceleration,
            cpus: self.cpus,
            memory: self.memory,
            boot: self.boot_firmware(),
            disk: DriveFile {
                // The builder refused what is not UTF-8.
                path: self.disk.path().to_string_lossy().into_owned(),
                format: match self.disk {
                    MachineDisk::Overlay(..) => DiskFormat::Qcow2,
                    MachineDisk::Raw(_) => DiskFormat::Raw,
                },
                log: self.log_writes.then(|| WRITE_LOG.to_owned()),
            },
            devices: self.devices,
            beside: self.beside.clone(),
            seed: self.seed_source(),
            mac: self.mac.clone(),
            metadata_service: self.metadata_service,
            reach: self.reach,
            watchdog: self.watchdog,
            extra: self.extra.clone(),
        }
    }

    fn boot_firmware(&self) -> BootFirmware {
        match &self.flash_code {
            None => BootFirmware::Bios,
            Some(code) => BootFirmware::Flash {
                code: code.clone(),
                variables: VARIABLES.to_owned(),
                locked: self.firmware == Firmware::Secure,
            },
        }
    }

    fn seed_source(&self) -> arguments::SeedSource {
        match self.seed_by {
            SeedBy::Nothing => arguments::SeedSource::None,
            SeedBy::Disk => arguments::SeedSource::Disk(SEED_DISK.to_owned()),
            SeedBy::FwCfg => arguments::SeedSource::FwCfg {
                user_data: self.user_data.then(|| USER_DATA.to_owned()),
                root_key: format!("{}\n", self.key.public_line()),
            },
        }
    }
}
