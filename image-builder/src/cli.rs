//! What was typed: commands, options, and their help. No effects but clap's own.

pub(crate) mod keys;
pub(crate) mod release;

use std::path::PathBuf;

use clap::builder::{BoolValueParser, TypedValueParser as _};
use clap::{ArgAction, Args, Parser, Subcommand};
use disk_install::write::EraseScope;

use crate::artefact::ArtefactKind;
use crate::check_artefact::places::PlaceName;
use keys::KeysCommand;
use release::ReleaseCommand;

/// Turns one YAML file and Debian packages into a reproducible, signed A/B disk image.
#[derive(Debug, Parser)]
#[command(
    name = "image-builder",
    version,
    propagate_version = true,
    after_help = "Examples:\n  \
        image-builder build overlays/cloud.yaml --out out\n  \
        image-builder build overlays/cloud.yaml --out out --locked out/packages.lock --key keys/release.key\n  \
        image-builder inspect out/disk.raw\n  \
        image-builder inspect out/disk.raw /etc/os-release\n  \
        image-builder seed out/disk.raw --user-data user-data\n  \
        image-builder convert out/disk.raw --to qcow2,ova\n  \
        image-builder check out/disk.qcow2 --for openstack\n  \
        image-builder flash out/disk.raw.zst /dev/sdb\n  \
        image-builder release verify repo\n\n\
        Exit status: 0 done, 1 failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Build a disk image from a spec
    Build(Box<BuildArguments>),
    /// Say whether a cloud or hypervisor takes an artefact, and how it is uploaded there
    Check(CheckArguments),
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write an image in the formats of clouds and hypervisors
    Convert(ConvertArguments),
    /// Write an image to a disk of this machine
    Flash(FlashArguments),
    /// Show what is in an image, without mounting it and without root
    #[command(after_help = "Examples:\n  \
        image-builder inspect out/disk.raw\n  \
        image-builder inspect out/disk.raw /boot\n  \
        image-builder inspect out/disk.raw /etc/passwd --slot b\n  \
        image-builder inspect out/disk.raw --json")]
    Inspect(InspectArguments),
    /// Make, change and take away the keys that sign releases
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Publish images as releases that machines update to
    #[command(subcommand)]
    Release(Box<ReleaseCommand>),
    /// Put first-boot configuration into an image, without mounting it and without root
    Seed(SeedArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    image-builder build overlays/cloud.yaml --out out\n  \
    image-builder build overlays/cloud.yaml --dry-run\n  \
    image-builder build overlays/metal.yaml --out metal --key keys/release.key --json\n\n\
    The output folder gets disk.raw, manifest, packages.lock, sbom.spdx.json, sizes.txt and sizes.json.\n\
    The environment variable SOURCE_DATE_EPOCH sets every time in the image.")]
pub(crate) struct BuildArguments {
    /// The spec: a YAML file
    pub(crate) spec: PathBuf,
    /// The folder for the image
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,
    /// Sign with this secret key (see `keys new`), as often as there are keys; without it, with a development key
    #[arg(long = "key", value_name = "FILE")]
    pub(crate) keys: Vec<PathBuf>,
    /// Let the machines trust this root metadata for their updates: the newest root/N of a repository
    #[arg(long, value_name = "FILE")]
    pub(crate) update_root: Option<PathBuf>,
    /// Use exactly the packages of this lock, and refuses any other version
    #[arg(long, value_name = "FILE")]
    pub(crate) locked: Option<PathBuf>,
    /// The Debian mirror, instead of the spec's or the one this host's apt uses
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// The static agent program; by default the one beside this program
    #[arg(long, value_name = "FILE")]
    pub(crate) initagent: Option<PathBuf>,
    /// Where packages and trees are kept between builds [default: ~/.cache/image-builder]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print events and the result as JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    image-builder convert out/disk.raw --to qcow2\n  \
    image-builder convert out/disk.raw --to raw.zst,vhd-fixed,ova --out artefacts\n  \
    image-builder convert disk.qcow2 --to raw --out .\n  \
    image-builder convert out/disk.raw --to vagrant-libvirt,vagrant-virtualbox --box-url https://example.com/boxes\n\n\
    IMAGE may have any format that is written here. The same image gives the same bytes, on any computer.\n\
    Beside every raw artefact comes its block map. docs/formats.md: which cloud takes what.")]
pub(crate) struct ConvertArguments {
    /// A disk image of any format
    pub(crate) image: PathBuf,
    /// What to write; several at once take little longer than one
    #[arg(long, value_name = "FORMAT", required = true, value_delimiter = ',', value_enum)]
    pub(crate) to: Vec<ArtefactKind>,
    /// The folder for the artefacts [default: the image's]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// VMware's version of the machine in an OVA: 13 for ESXi 6.5, 15 for 6.7, 19 for 7.0.2, 21 for 8.0
    #[arg(long, value_name = "N", default_value_t = crate::convert::HARDWARE_VERSION, value_parser = clap::value_parser!(u8).range(13..=22))]
    pub(crate) hardware_version: u8,
    /// Where the boxes of a Vagrant catalogue will be; without it, where they are written
    #[arg(long, value_name = "URL")]
    pub(crate) box_url: Option<String>,
    /// How many threads compress; it changes no byte [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Print events and the result as JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    image-builder check out/disk-fixed.vhd --for azure\n  \
    image-builder check out/disk.ova --for vmware --json\n\n\
    Each rule is a line: ok, FAIL, or ? where the artefact does not say. If all hold, the commands follow that upload\n\
    it; none is run. Exit status 1 if a rule does not hold.")]
pub(crate) struct CheckArguments {
    /// An artefact that `convert` or another tool wrote
    pub(crate) artefact: PathBuf,
    /// Where it is to run
    #[arg(long = "for", value_name = "PLACE", value_enum)]
    pub(crate) place: PlaceName,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    image-builder flash out/disk.raw.zst /dev/sdb\n  \
    image-builder flash out/disk.raw.zst 'transport=usb' --user-data user-data.yaml\n  \
    image-builder flash https://example.com/disk.raw.zst 'smallest >= 20 GB' --key release.pub --yes\n  \
    image-builder flash out/disk.qcow2 'serial=S3Z*' --dry-run\n\n\
    DISK is a device, or says which: serial=, wwn=, model=, transport= (with * for anything), size>=, size<=, smallest,\n\
    largest, joined by `and`. A disk that is mounted, in use, too small or one of two that match is never written to.\n\
    The start of the disk comes last, after all else was read back and the signature holds: interrupted, it does not\n\
    start, and can be written again. Files of qcow2, VHD, VHDX and VMDK, and archives, must be here; raw ones and\n\
    compressed ones may be URLs.")]
pub(crate) struct FlashArguments {
    /// An image of any format, or the URL of a raw one
    #[arg(value_name = "IMAGE|URL")]
    pub(crate) image: String,
    /// The disk: a device, or an expression
    #[arg(value_name = "DISK")]
    pub(crate) device: String,
    /// Trust these public keys instead of those the image brings
    #[arg(long = "key", value_name = "FILE")]
    pub(crate) keys: Vec<PathBuf>,
    /// The SHA-256 that the image's file must have
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// Configuration for the first boot
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
    /// Keep what an old installation has on this partition
    #[arg(long, value_name = "state", ignore_case = true, conflicts_with = "wipe")]
    pub(crate) keep: Option<KeepArgument>,
    /// Write zeros over the whole disk, if it cannot discard
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolValueParser::new().map(erase_scope))]
    pub(crate) wipe: EraseScope,
    /// Show the disks and which one is meant, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask: all that is on the disk may be lost
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Print events and the result as JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// A disk image of any format
    pub(crate) image: PathBuf,
    /// A file or folder of the root, to print or list
    pub(crate) path: Option<String>,
    /// Which slot's root is meant
    #[arg(long, value_name = "a|b", default_value = "a", ignore_case = true)]
    pub(crate) slot: SlotArgument,
    /// Trust these public keys instead of those the image brings
    #[arg(long = "key", value_name = "FILE")]
    pub(crate) keys: Vec<PathBuf>,
    /// Hash the whole root of each slot against its manifest
    #[arg(long)]
    pub(crate) verify: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn erase_scope(whole: bool) -> EraseScope {
    if whole { EraseScope::WholeDisk } else { EraseScope::Marks }
}

/// A partition that can be kept.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum KeepArgument {
    State,
}

/// A slot as it is typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum SlotArgument {
    A,
    B,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  image-builder seed out/disk.raw --user-data user-data --meta-data meta-data\n\n\
    The files land in the folder `seed` of the EFI partition; a file that is not given is left as it is."
)]
pub(crate) struct SeedArguments {
    /// A disk image of any format but an archive
    pub(crate) image: PathBuf,
    /// A #cloud-config document, a script, or an archive of these
    #[arg(long, value_name = "FILE")]
    pub(crate) user_data: Option<PathBuf>,
    /// instance-id and local-hostname
    #[arg(long, value_name = "FILE")]
    pub(crate) meta_data: Option<PathBuf>,
    /// Network configuration, version 1 or 2
    #[arg(long, value_name = "FILE")]
    pub(crate) network_config: Option<PathBuf>,
}

/// Reads the command line; wrong usage ends the program with status 2.
pub(crate) fn parse_arguments() -> Cli {
    Cli::parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
