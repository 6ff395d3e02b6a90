//! What of a machine is written down, so that another process can switch it on again.
//!
//! Knows how a description becomes hardware, and the names of the files in a machine's folder. Invariant: the
//! same description is always the same hardware.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::acceleration::Acceleration;
use crate::arguments::{self, BootFirmware, DiskFormat, DriveFile, Hardware};
use crate::disk::MachineDisk;
use crate::firmware::Firmware;
use crate::options::{MachineOptions, SeedBy};
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
    pub(crate) flash_code: Option<String>,
    pub(crate) acceleration: Acceleration,
    pub(crate) because: String,
    pub(crate) seed_by: SeedBy,
    pub(crate) user_data: bool,
    pub(crate) key: SshKey,
    pub(crate) user: String,
    // Beside the others in the file, where they were when each was a field here.
    #[serde(flatten)]
    pub(crate) options: MachineOptions,
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
            boot: self.boot_firmware(),
            disk: DriveFile {
                // The builder refused what is not UTF-8.
                path: self.disk.path().to_string_lossy().into_owned(),
                format: match self.disk {
                    MachineDisk::Overlay(..) => DiskFormat::Qcow2,
                    MachineDisk::Raw(_) => DiskFormat::Raw,
                },
                log: self.options.log_writes.then(|| WRITE_LOG.to_owned()),
            },
            seed: self.seed_source(),
            options: self.options.clone(),
        }
    }

    fn boot_firmware(&self) -> BootFirmware {
        match &self.flash_code {
            None => BootFirmware::Bios,
            Some(code) => BootFirmware::Flash {
                code: code.clone(),
                variables: VARIABLES.to_owned(),
                locked: self.options.hardware.firmware == Firmware::Secure,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{DeviceSet, Reach};

    /// As versions wrote it whose descriptions had a field for each option.
    const OLD_DESCRIPTION: &str = r#"{
        "name": "web", "disk": {"raw": "/m/disk.raw"}, "firmware": "uefi", "flash_code": "/f/code.fd",
        "acceleration": "tcg", "because": "asked for", "cpus": 2, "memory": 512, "seed_by": "disk",
        "user_data": true, "key": {"private": "/m/key", "public": "ssh-ed25519 AAAA"}, "user": "core",
        "mac": "52:54:00:12:34:56", "devices": "scsi", "reach": "nothing", "watchdog": true, "log_writes": false,
        "extra": []
    }"#;

    #[test]
    fn a_machine_that_an_older_version_kept_is_the_same_hardware() {
        let description: MachineDescription = serde_json::from_str(OLD_DESCRIPTION).unwrap();

        let hardware = description.to_hardware();

        let options = &hardware.options;
        assert_eq!((options.hardware.cpus, options.hardware.memory), (2, 512));
        assert_eq!(
            (options.devices, options.reach, options.watchdog),
            (DeviceSet::Scsi, Reach::Nothing, true)
        );
        assert_eq!(options.mac, "52:54:00:12:34:56");
        assert_eq!(options.cluster_card, None);
    }
}
