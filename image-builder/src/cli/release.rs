//! What `image-builder release` is told. No effects but clap's own.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use image_format::release::paths::ChannelName;
use image_format::version::Version;

use super::BuildArguments;
use crate::payload::RELEASE_LEVEL;

/// The verbs of `release`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    image-builder release build overlays/cloud.yaml --to repo --channel stable --key keys/release.key --key keys/channel.key\n  \
    image-builder release promote repo 1.2.0 --channel stable --waves careful --key keys/channel.key\n  \
    image-builder release pause repo --channel stable --reason 'sshd hangs' --key keys/channel.key\n  \
    image-builder release verify repo\n\n\
    A repository is a folder of plain files: any web server can serve it. docs/updates.md leads through all of it.")]
pub(crate) enum ReleaseCommand {
    /// Put an image that `build` made into a repository
    Add(AddArguments),
    /// Build an image, put it into a repository, and offer it on a channel
    Build(ReleaseBuildArguments),
    /// Say which packages two releases do not have in common
    Diff(DiffArguments),
    /// Let no machine pass a release by, or raise the security epoch of a channel
    Floor(FloorArguments),
    /// Remove what no channel needs
    Gc(GcArguments),
    /// Say what a repository has, and what its channels offer
    List(ListArguments),
    /// Stop all machines of a channel from installing by themselves
    Pause(PauseArguments),
    /// Offer a release on a channel, or give it other waves
    Promote(PromoteArguments),
    /// Sign channels anew before they expire, or after their keys changed
    Renew(RenewArguments),
    /// End a pause
    Resume(ResumeArguments),
    /// Prove a whole repository, as a mirror would
    Verify(VerifyArguments),
    /// Offer a release no more
    Withdraw(WithdrawArguments),
}

/// Keys, and for how long what they sign holds.
#[derive(Debug, Args)]
pub(crate) struct SignArguments {
    /// A secret key; as often as there are keys. Each signs what its role may sign
    #[arg(long = "key", value_name = "FILE", required = true)]
    pub(crate) keys: Vec<PathBuf>,
    /// How long machines may believe the channel without it being signed anew
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub(crate) expires: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How hard new objects of a repository are compressed.
#[derive(Debug, Args)]
pub(crate) struct CompressionArguments {
    /// 1 is quick, for a release that hardly anybody fetches; 19 is for a fleet. What a repository has already stays
    #[arg(long = "compression", value_name = "LEVEL", default_value_t = RELEASE_LEVEL,
        value_parser = clap::value_parser!(i32).range(1..=19))]
    pub(crate) level: i32,
}

/// How a release is offered.
#[derive(Debug, Args)]
pub(crate) struct OfferArguments {
    /// all, careful, quick, urgent, or shares of the machines with delays: 1%@0h,25%@12h,100%@3d
    #[arg(long, value_name = "WAVES", default_value = "all")]
    pub(crate) waves: String,
    /// No machine may pass it by on its way to a newer release
    #[arg(long)]
    pub(crate) floor: bool,
    /// The oldest agent that can install it
    #[arg(long, value_name = "VERSION")]
    pub(crate) least_agent: Option<Version>,
    /// MiB that must be free on STATE
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    pub(crate) least_free: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    image-builder release build overlays/cloud.yaml --to repo --channel stable --key keys/release.key --key keys/channel.key\n  \
    image-builder release build overlays/cloud.yaml --to repo --channel stable --if-changed --key ... --key ...\n\n\
    The image lands in --out too, for new machines. It trusts the newest root metadata of the repository.\n\
    With --if-changed it stops when the packages, the spec, its overlays and the agent are those of the newest\n\
    release, and else counts the version up: 1.0.0, 1.0.0+1, 1.0.0+2. That is what a nightly job runs.")]
pub(crate) struct ReleaseBuildArguments {
    #[command(flatten)]
    pub(crate) build: BuildArguments,
    /// The repository's folder
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// The channel to offer it on
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: ChannelName,
    /// The version, instead of the spec's
    #[arg(long = "as", value_name = "VERSION")]
    pub(crate) as_version: Option<Version>,
    /// Build only if something changed since the newest release of the channel
    #[arg(long, conflicts_with_all = ["locked", "dry_run"])]
    pub(crate) if_changed: bool,
    #[command(flatten)]
    pub(crate) offer: OfferArguments,
    /// How long machines may believe the channel without it being signed anew
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub(crate) expires: String,
    /// For how many of the newest releases patches are made
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub(crate) patch_bases: usize,
    #[command(flatten)]
    pub(crate) compression: CompressionArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    image-builder build overlays/cloud.yaml --out out --key keys/release.key --update-root repo/root/1\n  \
    image-builder release add repo out --channel stable --key keys/channel.key\n\n\
    Without --channel the release only lies there until `release promote`.")]
pub(crate) struct AddArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// The folder that `build` made
    pub(crate) image: PathBuf,
    /// The channel to offer it on
    #[arg(long, value_name = "NAME", requires = "keys")]
    pub(crate) channel: Option<ChannelName>,
    #[command(flatten)]
    pub(crate) offer: OfferArguments,
    /// For how many of the newest releases patches are made
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub(crate) patch_bases: usize,
    #[command(flatten)]
    pub(crate) compression: CompressionArguments,
    /// A secret key of the role channel; as often as there are keys
    #[arg(long = "key", value_name = "FILE")]
    pub(crate) keys: Vec<PathBuf>,
    /// How long machines may believe the channel without it being signed anew
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub(crate) expires: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    image-builder release promote repo 1.2.0 --channel stable --waves careful --key keys/channel.key\n  \
    image-builder release promote repo 1.2.0 --channel stable --waves all --key keys/channel.key    # to all, now")]
pub(crate) struct PromoteArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// A release of the repository
    #[arg(value_name = "VERSION")]
    pub(crate) release: Version,
    /// The channel
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: ChannelName,
    #[command(flatten)]
    pub(crate) offer: OfferArguments,
    #[command(flatten)]
    pub(crate) sign: SignArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    image-builder release pause repo --channel stable --reason 'sshd hangs after 1.2.0' --key keys/channel.key")]
pub(crate) struct PauseArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// The channel
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: ChannelName,
    /// Why: machines show it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) sign: SignArguments,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  image-builder release resume repo --channel stable --key keys/channel.key"
)]
pub(crate) struct ResumeArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// The channel
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: ChannelName,
    #[command(flatten)]
    pub(crate) sign: SignArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    image-builder release withdraw repo 1.2.0 --reason 'it loses data' --key keys/channel.key\n\n\
    Machines that run it stay on it until there is a newer one, and say so; no other machine takes it.")]
pub(crate) struct WithdrawArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// The release
    #[arg(value_name = "VERSION")]
    pub(crate) release: Version,
    /// The channel; every one that offers it, if none is named
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Option<ChannelName>,
    /// Why: machines show it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) sign: SignArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    image-builder release floor repo 1.2.0 --channel stable --key keys/channel.key\n  \
    image-builder release floor repo 1.2.0 --channel stable --remove --key keys/channel.key\n  \
    image-builder release floor repo --security-epoch 2 --channel stable --key keys/channel.key")]
pub(crate) struct FloorArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// The release that no machine may pass by
    #[arg(value_name = "VERSION", required_unless_present = "security_epoch")]
    pub(crate) release: Option<Version>,
    /// The channel
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: ChannelName,
    /// Let machines pass it by again
    #[arg(long, requires = "release")]
    pub(crate) remove: bool,
    /// Offer nothing below this security epoch to any machine
    #[arg(long, value_name = "NUMBER", conflicts_with = "release")]
    pub(crate) security_epoch: Option<u32>,
    #[command(flatten)]
    pub(crate) sign: SignArguments,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  image-builder release renew repo --key keys/channel.key      # from a daily job"
)]
pub(crate) struct RenewArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// The channel; every one, if none is named
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Option<ChannelName>,
    /// Go on from this counter: for a repository that came back from an old copy, which machines refuse
    #[arg(long, value_name = "NUMBER")]
    pub(crate) counter: Option<u64>,
    #[command(flatten)]
    pub(crate) sign: SignArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  image-builder release verify repo --json\n\n\
    Exit status: 0 all of it is sound, 1 something is not. No key is needed.")]
pub(crate) struct VerifyArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// Compare every file, but do not put the roots together
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  image-builder release gc repo --dry-run\n  image-builder release gc repo --keep 5"
)]
pub(crate) struct GcArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// How many releases stay that no channel offers, the newest first
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub(crate) keep: usize,
    /// Files that are younger stay: machines may be fetching them
    #[arg(long, value_name = "TIME", default_value = "1d")]
    pub(crate) min_age: String,
    /// Say what would go, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  image-builder release diff repo 1.0.0 1.1.0")]
pub(crate) struct DiffArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// The older release
    pub(crate) from: Version,
    /// The newer release
    pub(crate) to: Version,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
