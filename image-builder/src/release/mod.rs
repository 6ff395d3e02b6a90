//! Releases: a repository that any web server can serve, and the keys that machines trust for it.
//!
//! Knows the verbs of `image-builder release` and `image-builder keys`. Refuses to know how images are built
//! ([`crate::apply`]) and what a payload is made of ([`crate::payload`]).
//! The documents are those of [`image_format::release`]; docs/updates.md has the operator's story.

mod build;
mod change;
mod channels;
mod collect;
mod diff;
mod key_verbs;
mod list;
mod objects;
mod payloads;
mod publish;
mod recipe;
mod report;
mod repository;
mod roots;
mod rotation;
mod signers;
mod stored;
#[cfg(test)]
mod tests;
mod verbs;
mod verify;

use std::process::ExitCode;
use std::time::SystemTime;

use image_format::release::time::UnixTime;

use change::ChannelChange;
use report::output_format;

use crate::cli::keys::KeysCommand;
use crate::cli::release::ReleaseCommand;

type Failure = Box<dyn std::error::Error>;

/// Does what a verb of `release` says.
pub(crate) fn run_release(command: &ReleaseCommand) -> Result<ExitCode, Failure> {
    match command {
        ReleaseCommand::Add(arguments) => verbs::add_release(arguments),
        ReleaseCommand::Build(arguments) => build::build_release(arguments, read_clock()),
        ReleaseCommand::Diff(arguments) => verbs::compare_releases(arguments),
        ReleaseCommand::Floor(arguments) => verbs::set_floor(arguments),
        ReleaseCommand::Gc(arguments) => verbs::collect_garbage(arguments),
        ReleaseCommand::List(arguments) => verbs::list_repository(arguments),
        ReleaseCommand::Pause(arguments) => {
            let change = ChannelChange::Pause { reason: arguments.reason.clone() };
            verbs::change_channel(&arguments.repository, &arguments.channel, &change, &arguments.sign)
        }
        ReleaseCommand::Promote(arguments) => verbs::promote_release(arguments),
        ReleaseCommand::Renew(arguments) => verbs::renew_channels(arguments),
        ReleaseCommand::Resume(arguments) => {
            let change = ChannelChange::Resume;
            verbs::change_channel(&arguments.repository, &arguments.channel, &change, &arguments.sign)
        }
        ReleaseCommand::Verify(arguments) => verbs::verify_repository(arguments),
        ReleaseCommand::Withdraw(arguments) => verbs::withdraw_release(arguments),
    }
}

/// Does what a verb of `keys` says.
pub(crate) fn run_keys(command: &KeysCommand) -> Result<ExitCode, Failure> {
    match command {
        KeysCommand::Init(arguments) => report::print_root(
            &key_verbs::init_keys(arguments, read_clock())?,
            output_format(arguments.sign.json),
        ),
        KeysCommand::List(arguments) => verbs::list_keys(arguments),
        KeysCommand::New { directory, name, comment, json } => {
            verbs::new_keys(directory, name, comment.as_deref().unwrap_or(name), output_format(*json))
        }
        KeysCommand::Publish(arguments) => {
            report::print_root(&key_verbs::publish_draft(arguments)?, output_format(false))
        }
        KeysCommand::Revoke(arguments) => report::print_root(
            &key_verbs::revoke_keys(arguments, read_clock())?,
            output_format(arguments.sign.json),
        ),
        KeysCommand::Rotate(arguments) => report::print_root(
            &key_verbs::rotate_keys(arguments, read_clock())?,
            output_format(arguments.sign.json),
        ),
        KeysCommand::Sign(arguments) => {
            Ok(report::print_signed(&arguments.file, key_verbs::sign_document(arguments)?))
        }
    }
}

/// The moment at which metadata is signed. `SOURCE_DATE_EPOCH` does not count here: it says when an image is from,
/// and a channel must say when it was signed.
fn read_clock() -> UnixTime {
    #[expect(clippy::disallowed_methods, reason = "the clock is read here, once for each command")]
    let now = SystemTime::now();
    UnixTime::from_seconds(now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
