//! What an image is to be: the YAML that people write, read and checked into one value.
//!
//! `layers` knows files, includes and places; `check` knows keys, types and meaning. After
//! [`read`] nothing in the program validates a setting again.

mod check;
mod layers;

use std::path::PathBuf;

use image_format::bytes::Bytes;
use image_format::command_line::CommandLine;
use image_format::version::Version;

use crate::artefact::ArtefactKind;
use crate::rootfs::accounts::SystemAccount;

pub(crate) use layers::{check_text, read};

/// A checked spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageSpec {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) channel: String,
    pub(crate) debian: DebianSpec,
    /// Packages whose files are to be in the image, with what they need.
    pub(crate) packages: Vec<String>,
    /// Packages that are left out, and with them what only they need.
    pub(crate) drop: Vec<String>,
    /// Paths of the root that are left out, without a leading slash.
    pub(crate) remove: Vec<String>,
    /// Programs of packages that move to usr/libexec, so that an overlay can put something before them.
    pub(crate) set_aside: Vec<String>,
    /// Programs of ours that are built beside the agent, for usr/bin.
    pub(crate) programs: Vec<String>,
    pub(crate) kernel: KernelSpec,
    pub(crate) initramfs: ModulesSpec,
    pub(crate) boot: BootPackages,
    /// Folders laid over the root, in order.
    pub(crate) overlays: Vec<PathBuf>,
    pub(crate) accounts: Vec<SystemAccount>,
    /// Units that start at boot; no other does.
    pub(crate) units: Vec<String>,
    pub(crate) partitions: PartitionSizes,
    /// What the finished image is converted to.
    pub(crate) formats: Vec<ArtefactKind>,
    /// Raised when no machine may go back before this version: see docs/updates.md.
    pub(crate) security_epoch: u32,
    /// Files of public keys that may sign releases for this image.
    pub(crate) release_keys: Vec<PathBuf>,
}

/// Where packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DebianSpec {
    pub(crate) suite: String,
    pub(crate) components: Vec<String>,
    /// If absent, the mirror this host uses.
    pub(crate) mirror: Option<String>,
    /// If absent, the security mirror this host uses, or none.
    pub(crate) security_mirror: Option<String>,
}

/// The kernel of each slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelSpec {
    pub(crate) package: String,
    /// What the manifest signs and the initramfs insists on.
    pub(crate) command_line: CommandLine,
}

/// The kernel modules of the initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ModulesSpec {
    /// Loaded at every boot.
    pub(crate) always: Vec<String>,
    /// Loaded where a device asks for them; one that this kernel does not have is passed over.
    pub(crate) on_demand: Vec<String>,
}

/// The packages that the boot loaders are taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootPackages {
    /// Holds the shim signed by Microsoft.
    pub(crate) shim: String,
    /// Holds the GRUB signed by Debian.
    pub(crate) grub_efi: String,
    /// Holds GRUB's modules for BIOS.
    pub(crate) grub_bios: String,
}

/// Sizes of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionSizes {
    pub(crate) root: Bytes,
    pub(crate) state: Bytes,
}

/// The container engine whose packages an image gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContainerEngine {
    Docker,
    None,
    Podman,
}

impl ContainerEngine {
    const NAMES: [(&'static str, Self); 3] =
        [("docker", Self::Docker), ("none", Self::None), ("podman", Self::Podman)];

    fn engine_packages(self) -> &'static [&'static str] {
        match self {
            // In Debian 13 the client, docker-cli, is a package of its own.
            Self::Docker => &["docker.io", "docker-cli", "iptables"],
            Self::None => &[],
            // Without netavark named, Debian's podman brings 175 MiB of CNI plugins instead.
            Self::Podman => {
                &["podman", "podman-docker", "crun", "conmon", "netavark", "aardvark-dns", "passt"]
            }
        }
    }
}
