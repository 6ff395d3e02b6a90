//! What was typed: commands, options, and their help. No effects but clap's own.

pub(crate) mod keys;
pub(crate) mod release;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
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
pub(crate) struct InspectArguments {
    /// A disk image
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
    /// A disk image
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
