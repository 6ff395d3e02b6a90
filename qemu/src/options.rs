//! What may be chosen of a machine, held once: the command line fills it in, a machine's description keeps it, and
//! QEMU's arguments are made from it.
//!
//! Knows the words of the options and their help. Refuses to know how QEMU says them, and which files they need.
//! Before, four structs had these fields, copied by hand from one to the next; an option that was forgotten in one
//! of the copies was silently without effect. Invariant: an option that is added here reaches all of them.

use std::ffi::OsString;

use clap::ArgAction;
use clap::builder::{BoolValueParser, TypedValueParser};
use serde::{Deserialize, Serialize};

use crate::acceleration::AccelerationChoice;
use crate::firmware::Firmware;
use crate::seed::random_hex;

/// The parts that every machine has, also one that only races.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct HardwareOptions {
    /// The firmware that starts the disk
    #[arg(long, value_enum, default_value_t = Firmware::Bios)]
    pub firmware: Firmware,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(64..), value_name = "MIB")]
    pub memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// KVM or emulation
    // Not written down: what it led to is, and a later start must not choose another.
    #[serde(skip)]
    #[arg(long = "accel", value_enum, default_value_t = AccelerationChoice::Auto)]
    pub acceleration_choice: AccelerationChoice,
}

/// All that may be chosen of a machine's hardware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct MachineOptions {
    /// The parts that every machine has
    #[serde(flatten)]
    #[command(flatten)]
    pub hardware: HardwareOptions,
    /// What the disk and the network card are
    #[serde(default)]
    #[arg(long, value_enum, default_value_t = DeviceSet::Virtual)]
    pub devices: DeviceSet,
    /// Let the guest reach neither the world nor this host's loopback (else at 10.0.2.2); ssh still goes in.
    /// For images of strangers
    #[serde(default)]
    #[arg(long = "isolate", action = ArgAction::SetTrue, value_parser = BoolValueParser::new().map(Reach::from_isolation))]
    pub reach: Reach,
    /// Put in a hardware watchdog (i6300esb), which resets the machine when it fires
    #[arg(long)]
    pub watchdog: bool,
    /// The network card's Ethernet address
    #[arg(skip = random_mac())]
    pub mac: String,
    /// Disks that the firmware does not start from. They come before the one that it starts from, so that a guest
    /// that takes the first disk takes the wrong one
    #[serde(default)]
    #[arg(skip)]
    pub beside: Vec<OtherDisk>,
    /// Port of this host that is a cloud's metadata service; then the guest reaches nothing else
    #[serde(default)]
    #[arg(skip)]
    pub metadata_service: Option<u16>,
    /// The card that joins the machine to others
    #[serde(default)]
    #[arg(skip)]
    pub cluster_card: Option<ClusterCard>,
    /// Whether each write and flush of the guest is recorded
    #[arg(skip)]
    pub log_writes: bool,
    /// More arguments for QEMU, after all of ours
    #[arg(last = true, value_name = "QEMU-ARGUMENT")]
    pub extra: Vec<OsString>,
}

/// BIOS, one processor, 1 GiB: what a test needs. A person's machine gets more, by the command line's defaults.
impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            hardware: HardwareOptions {
                firmware: Firmware::Bios,
                memory: 1024,
                cpus: 1,
                acceleration_choice: AccelerationChoice::Auto,
            },
            devices: DeviceSet::Virtual,
            reach: Reach::Everything,
            watchdog: false,
            mac: random_mac(),
            beside: Vec::new(),
            metadata_service: None,
            cluster_card: None,
            log_writes: false,
            extra: Vec::new(),
        }
    }
}

/// How user-data and the ssh key go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SeedBy {
    /// By a read-only FAT disk labelled CIDATA (`NoCloud`)
    #[default]
    Disk,
    /// By QEMU's `fw_cfg`; the key goes to root's account, by a systemd credential. Catamaran's images take no
    /// credentials, since whoever runs them could give any: there the user-data has to bring a key
    FwCfg,
    /// Not at all
    Nothing,
}

/// What a machine's disk and network card are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceSet {
    /// Those that only virtual machines have (virtio)
    #[default]
    Virtual,
    /// Those of real computers: an `NVMe` disk and Intel's e1000e
    Physical,
    /// Those of Google's and Oracle's clouds: a disk at a virtio-scsi controller, a virtio network card
    Scsi,
}

/// What a guest's network reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// What this host reaches; also what listens on this host's loopback, at 10.0.2.2
    #[default]
    Everything,
    /// Nobody; only ssh goes in. For images of strangers
    Nothing,
}

impl Reach {
    fn from_isolation(isolate: bool) -> Self {
        if isolate { Self::Nothing } else { Self::Everything }
    }
}

/// A raw disk that the firmware does not start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherDisk {
    /// The file
    pub path: String,
    /// How it is attached
    pub bus: Bus,
}

/// How a further disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// At a virtio-scsi controller of its own; can be detached while the guest runs
    Scsi,
    /// As a virtio-blk device
    Virtio,
}

/// A network card whose frames [`crate::switch`] carries to other machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterCard {
    /// Its Ethernet address
    pub mac: String,
    /// Port of this host that is the machine's metadata service, which it sees at 169.254.169.254
    #[serde(default)]
    pub metadata_port: Option<u16>,
}

/// An address of QEMU's range, its last half random.
fn random_mac() -> String {
    let random = random_hex();
    format!("52:54:00:{}:{}:{}", &random[0..2], &random[2..4], &random[4..6])
}
