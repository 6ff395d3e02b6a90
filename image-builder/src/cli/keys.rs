//! What `image-builder keys` is told. No effects but clap's own.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::release::ListArguments;

/// The verbs of `keys`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    for name in root channel release; do image-builder keys new keys --name $name; done\n  \
    image-builder keys init repo --root keys/root.pub --channel keys/channel.pub --release keys/release.pub --key keys/root.key\n  \
    image-builder keys rotate repo --add release=new/release.pub --remove release=KEYID --key keys/root.key\n  \
    image-builder keys revoke repo KEYID --add channel=new/channel.pub --key keys/root.key\n\n\
    Keep root.key offline: it is needed only to change keys. docs/updates.md has the story of each loss.")]
pub(crate) enum KeysCommand {
    /// Begin a repository: root metadata 1, which says who may sign what
    Init(InitKeysArguments),
    /// Say which keys the newest root metadata of a repository has
    List(ListArguments),
    /// Make a key pair: DIR/NAME.key, which only you can read, and DIR/NAME.pub
    New {
        /// The folder; it must not hold a key of that name yet
        directory: PathBuf,
        /// The name of the files
        #[arg(long, default_value = "release", value_parser = parse_key_name)]
        name: String,
        /// Whose key it is [default: the name of the files]
        #[arg(long)]
        comment: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put root metadata that enough people signed into a repository
    Publish(PublishKeysArguments),
    /// Take a key away that was lost or stolen, out of every role
    Revoke(RevokeKeysArguments),
    /// Change who may sign: root metadata with the next number
    Rotate(RotateKeysArguments),
    /// Add a signature to root metadata or to a manifest
    Sign(SignKeysArguments),
}

fn parse_key_name(text: &str) -> Result<String, String> {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    if text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err("letters, digits and `-_.` only, a letter or digit first".to_owned())
}

/// Who signs root metadata, for how long it holds, and where it goes.
#[derive(Debug, Args)]
pub(crate) struct SignRootArguments {
    /// A secret root key; as often as there are keys
    #[arg(long = "key", value_name = "FILE")]
    pub(crate) keys: Vec<PathBuf>,
    /// How long it may stay the newest
    #[arg(long, value_name = "TIME", default_value = "1825d")]
    pub(crate) expires: String,
    /// Write it into this file instead, for others to sign (`keys sign`, then `keys publish`)
    #[arg(long, value_name = "FILE")]
    pub(crate) draft: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example, with two of three root keys:\n  \
    image-builder keys init repo --root ann.pub --root bea.pub --root cem.pub --threshold root=2 \\\n      \
        --channel channel.pub --release release.pub --key ann.key --key bea.key")]
pub(crate) struct InitKeysArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// A public root key; as often as there are keys
    #[arg(long = "root", value_name = "FILE", required = true)]
    pub(crate) root: Vec<PathBuf>,
    /// A public key of the role channel
    #[arg(long = "channel", value_name = "FILE", required = true)]
    pub(crate) channel: Vec<PathBuf>,
    /// A public key of the role release
    #[arg(long = "release", value_name = "FILE", required = true)]
    pub(crate) release: Vec<PathBuf>,
    /// How many keys of a role must agree, such as root=2 [default: 1 each]
    #[arg(long = "threshold", value_name = "ROLE=COUNT")]
    pub(crate) thresholds: Vec<String>,
    #[command(flatten)]
    pub(crate) sign: SignRootArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    image-builder keys rotate repo --add release=new/release.pub --remove release=0123...cdef --key keys/root.key\n  \
    image-builder keys rotate repo --key keys/root.key        # only a later end\n\n\
    A key is named by its id or by its .pub file. It is signed by keys of the old root and of the new one.")]
pub(crate) struct RotateKeysArguments {
    /// The repository's folder, or a copy that has its `root` folder
    pub(crate) repository: PathBuf,
    /// A public key that comes, such as release=new/release.pub
    #[arg(long = "add", value_name = "ROLE=FILE")]
    pub(crate) add: Vec<String>,
    /// A key that goes, such as release=KEYID
    #[arg(long = "remove", value_name = "ROLE=KEY")]
    pub(crate) remove: Vec<String>,
    /// How many keys of a role must agree, such as root=2
    #[arg(long = "threshold", value_name = "ROLE=COUNT")]
    pub(crate) thresholds: Vec<String>,
    #[command(flatten)]
    pub(crate) sign: SignRootArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    image-builder keys revoke repo 0123...cdef --add channel=new/channel.pub --key keys/root.key\n\n\
    It says which channels and releases must be signed anew afterwards.")]
pub(crate) struct RevokeKeysArguments {
    /// The repository's folder, or a copy that has its `root` folder
    pub(crate) repository: PathBuf,
    /// The key: its id or its .pub file
    pub(crate) key: String,
    /// A public key that comes instead, such as channel=new/channel.pub
    #[arg(long = "add", value_name = "ROLE=FILE")]
    pub(crate) add: Vec<String>,
    /// How many keys of a role must agree, such as root=2
    #[arg(long = "threshold", value_name = "ROLE=COUNT")]
    pub(crate) thresholds: Vec<String>,
    #[command(flatten)]
    pub(crate) sign: SignRootArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  image-builder keys sign draft --key bea.key\n\n\
    The file is root metadata (a draft of `keys rotate`), or release/VERSION/manifest of a repository.")]
pub(crate) struct SignKeysArguments {
    /// The signed document; it is replaced
    pub(crate) file: PathBuf,
    /// A secret key; as often as there are keys
    #[arg(long = "key", value_name = "FILE", required = true)]
    pub(crate) keys: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  image-builder keys publish repo draft")]
pub(crate) struct PublishKeysArguments {
    /// The repository's folder
    pub(crate) repository: PathBuf,
    /// Root metadata
    pub(crate) file: PathBuf,
}
