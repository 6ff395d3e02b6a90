//! Releases: a repository that any web server can serve, and the keys that machines trust for it.
//!
//! Knows the verbs of `image-builder release` and `image-builder keys`, and how to print what came of them.
//! Refuses to know how images are built ([`crate::apply`]) and what a payload is made of ([`crate::payload`]).
//! The documents are those of [`image_format::release`]; docs/updates.md has the operator's story.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the results are printed here")]

mod build;
mod change;
mod channels;
pub(crate) mod cli;
mod collect;
mod diff;
mod key_verbs;
mod list;
mod objects;
mod payloads;
mod publish;
mod recipe;
mod repository;
mod roots;
mod rotation;
mod signers;
mod stored;
#[cfg(test)]
mod tests;
mod verify;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use image_format::release::channel::ChannelMetadata;
use image_format::release::paths::{self, ChannelName};
use image_format::release::time::UnixTime;
use serde::Serialize;

use change::{ChannelChange, OfferTerms, empty_channel, parse_waves};
use channels::{Publisher, read_channel};
use cli::{
    AddArguments, DiffArguments, FloorArguments, GcArguments, KeysCommand, ListArguments, OfferArguments,
    PromoteArguments, ReleaseCommand, RenewArguments, SignArguments, VerifyArguments, WithdrawArguments,
};
use collect::{CollectPolicy, plan_collection, remove_files};
use key_verbs::{WrittenRoot, read_lifetime};
use list::RepositoryListing;
use payloads::ChunkPayloads;
use publish::{PublishOrder, PublishedRelease, publish_image};
use repository::Repository;
use roots::RootChain;
use signers::Signers;
use verify::{Verifier, VerifyDepth};

use crate::keys;
use crate::printable::printable_lines;
use crate::process::InterruptFlag;

type Failure = Box<dyn Error>;

/// Does what a verb of `release` says.
pub(crate) fn run_release(command: &ReleaseCommand) -> Result<ExitCode, Failure> {
    match command {
        ReleaseCommand::Add(arguments) => add_release(arguments),
        ReleaseCommand::Build(arguments) => build::build_release(arguments, read_clock()),
        ReleaseCommand::Diff(arguments) => compare_releases(arguments),
        ReleaseCommand::Floor(arguments) => set_floor(arguments),
        ReleaseCommand::Gc(arguments) => collect_garbage(arguments),
        ReleaseCommand::List(arguments) => list_repository(arguments),
        ReleaseCommand::Pause(arguments) => {
            let change = ChannelChange::Pause { reason: arguments.reason.clone() };
            change_channels(&arguments.repository, &[arguments.channel.clone()], change, &arguments.sign)
        }
        ReleaseCommand::Promote(arguments) => promote_release(arguments),
        ReleaseCommand::Renew(arguments) => renew_channels(arguments),
        ReleaseCommand::Resume(arguments) => {
            let names = [arguments.channel.clone()];
            change_channels(&arguments.repository, &names, ChannelChange::Resume, &arguments.sign)
        }
        ReleaseCommand::Verify(arguments) => verify_repository(arguments),
        ReleaseCommand::Withdraw(arguments) => withdraw_release(arguments),
    }
}

/// Does what a verb of `keys` says.
pub(crate) fn run_keys(command: &KeysCommand) -> Result<ExitCode, Failure> {
    match command {
        KeysCommand::Init(arguments) => {
            print_root(&key_verbs::init(arguments, read_clock())?, arguments.sign.json)
        }
        KeysCommand::List(arguments) => list_keys(arguments),
        KeysCommand::New { directory, name, comment, json } => {
            new_keys(directory, name, comment.as_deref().unwrap_or(name), *json)
        }
        KeysCommand::Publish(arguments) => print_root(&key_verbs::publish(arguments)?, false),
        KeysCommand::Revoke(arguments) => {
            print_root(&key_verbs::revoke(arguments, read_clock())?, arguments.sign.json)
        }
        KeysCommand::Rotate(arguments) => {
            print_root(&key_verbs::rotate(arguments, read_clock())?, arguments.sign.json)
        }
        KeysCommand::Sign(arguments) => {
            let count = key_verbs::sign(arguments)?;
            println!("{} has {count} signatures", arguments.file.display());
            Ok(ExitCode::SUCCESS)
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

/// An error with all its causes, once.
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Prints a result for programs, or in words.
fn print_result<T: Serialize>(result: &T, json: bool, words: impl FnOnce() -> String) -> Result<ExitCode, Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(result)?);
    } else {
        // Reasons, versions and comments of keys come from files that others may have written.
        print!("{}", printable_lines(&words()));
    }
    Ok(ExitCode::SUCCESS)
}

fn read_terms(offer: &OfferArguments, now: UnixTime) -> Result<OfferTerms, Failure> {
    Ok(OfferTerms {
        waves: parse_waves(&offer.waves, now)?,
        floor: offer.floor,
        least_agent: offer.least_agent.clone(),
        least_free_bytes: offer.least_free.saturating_mul(1 << 20),
    })
}

fn add_release(arguments: &AddArguments) -> Result<ExitCode, Failure> {
    let repository = Repository::at(&arguments.repository);
    let (chain, signers) = (RootChain::read(&repository)?, Signers::read_files(&arguments.keys)?);
    let (now, lifetime) = (read_clock(), read_lifetime(&arguments.expires)?);
    let publisher = Publisher { repository: &repository, chain: &chain, signers: &signers, now, lifetime };
    let order = PublishOrder {
        image: &arguments.image,
        channel: arguments.channel.as_ref(),
        terms: read_terms(&arguments.offer, now)?,
        patch_bases: arguments.patch_bases,
        recipe: None,
    };
    let published = publish_image(&publisher, order, &ChunkPayloads::here()?)?;
    print_result(&published, arguments.json, || describe_published(&published, &arguments.repository))
}

/// What came of publishing, in words.
fn describe_published(published: &PublishedRelease, folder: &Path) -> String {
    let PublishedRelease { version, known, payload, channel } = published;
    let how = if *known { "lay there already, the same" } else { "is published" };
    let mut text = format!("release {version} {how} in {}\n", folder.display());
    if let Some(summary) = payload {
        text.push_str(&format!("  payload    {summary}\n"));
    }
    if let Some(channel) = channel {
        text.push_str(&format!("  offered    on channel {}, {}\n", channel.channel, counter_and_end(channel)));
    }
    text
}

fn counter_and_end(channel: &ChannelMetadata) -> String {
    format!("counter {}, until {}", channel.counter, channel.expires)
}

/// Changes channels, each by itself.
fn change_channels(
    folder: &Path,
    names: &[ChannelName],
    change: ChannelChange,
    sign: &SignArguments,
) -> Result<ExitCode, Failure> {
    let repository = Repository::at(folder);
    let _lock = repository.lock()?;
    let (chain, signers) = (RootChain::read(&repository)?, Signers::read_files(&sign.keys)?);
    let (now, lifetime) = (read_clock(), read_lifetime(&sign.expires)?);
    let publisher = Publisher { repository: &repository, chain: &chain, signers: &signers, now, lifetime };
    let changed: Vec<ChannelMetadata> =
        names.iter().map(|name| publisher.change_existing(name, change.clone())).collect::<Result<_, _>>()?;
    print_result(&changed, sign.json, || {
        changed.iter().map(|channel| format!("channel {}: {}\n", channel.channel, counter_and_end(channel))).collect()
    })
}

fn promote_release(arguments: &PromoteArguments) -> Result<ExitCode, Failure> {
    let PromoteArguments { version, channel: name, offer, sign, .. } = arguments;
    let repository = Repository::at(&arguments.repository);
    let _lock = repository.lock()?;
    let (chain, signers) = (RootChain::read(&repository)?, Signers::read_files(&sign.keys)?);
    let (now, lifetime) = (read_clock(), read_lifetime(&sign.expires)?);
    let publisher = Publisher { repository: &repository, chain: &chain, signers: &signers, now, lifetime };
    let release = stored::read_release(&repository, chain.newest(), version)?;
    let mut terms = read_terms(offer, now)?;
    keep_terms(&repository, &chain, version, &mut terms)?;
    let channel = read_channel(&repository, &chain, name)?.unwrap_or_else(|| empty_channel(name, &release));
    let (changed, envelope) = publisher.sign_change(channel, ChannelChange::Promote { release, terms })?;
    repository.sync_all()?;
    repository.write_file(&paths::channel(name), &envelope)?;
    print_result(&changed, sign.json, || {
        format!("release {version} is offered on channel {name}, {}\n", counter_and_end(&changed))
    })
}

/// What a release needs stays with it when another channel offers it: only waves and floors are a channel's own.
fn keep_terms(
    repository: &Repository,
    chain: &RootChain,
    version: &image_format::version::Version,
    terms: &mut OfferTerms,
) -> Result<(), Failure> {
    for channel in collect::read_channels(repository, chain)? {
        if let Some(known) = channel.release(version) {
            terms.least_agent = terms.least_agent.take().or_else(|| known.least_agent.clone());
            terms.least_free_bytes = terms.least_free_bytes.max(known.least_free_bytes);
        }
    }
    Ok(())
}

fn set_floor(arguments: &FloorArguments) -> Result<ExitCode, Failure> {
    let change = match (&arguments.version, arguments.security_epoch) {
        (_, Some(security_epoch)) => ChannelChange::LowestEpoch { security_epoch },
        (Some(version), None) => ChannelChange::Floor { version: version.clone(), floor: !arguments.remove },
        (None, None) => return Err("name a release, or --security-epoch".into()),
    };
    change_channels(&arguments.repository, &[arguments.channel.clone()], change, &arguments.sign)
}

fn withdraw_release(arguments: &WithdrawArguments) -> Result<ExitCode, Failure> {
    let version = &arguments.version;
    let names = match &arguments.channel {
        Some(name) => vec![name.clone()],
        None => {
            let repository = Repository::at(&arguments.repository);
            let channels = collect::read_channels(&repository, &RootChain::read(&repository)?)?;
            let offering = channels.into_iter().filter(|channel| channel.release(version).is_some());
            offering.map(|channel| channel.channel).collect()
        }
    };
    if names.is_empty() {
        return Err(format!("no channel offers release {version}: `release list` shows what they offer").into());
    }
    let change = ChannelChange::Withdraw { version: version.clone(), reason: arguments.reason.clone() };
    change_channels(&arguments.repository, &names, change, &arguments.sign)
}

fn renew_channels(arguments: &RenewArguments) -> Result<ExitCode, Failure> {
    let names = match &arguments.channel {
        Some(name) => vec![name.clone()],
        None => Repository::at(&arguments.repository).channels()?,
    };
    let change = ChannelChange::Renew { counter: arguments.counter.unwrap_or_default() };
    change_channels(&arguments.repository, &names, change, &arguments.sign)
}

fn list_repository(arguments: &ListArguments) -> Result<ExitCode, Failure> {
    let listing = RepositoryListing::read(&Repository::at(&arguments.repository), read_clock())?;
    print_result(&listing, arguments.json, || listing.to_string())
}

fn verify_repository(arguments: &VerifyArguments) -> Result<ExitCode, Failure> {
    let repository = Repository::at(&arguments.repository);
    let depth = if arguments.quick { VerifyDepth::Files } else { VerifyDepth::Roots };
    let (format, interrupt) = (ChunkPayloads::here()?, InterruptFlag::watch()?);
    let now = read_clock();
    let verifier = Verifier { repository: &repository, format: &format, interrupt: &interrupt, depth, now };
    let report = verifier.verify();
    print_result(&report, arguments.json, || report.to_string())?;
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn collect_garbage(arguments: &GcArguments) -> Result<ExitCode, Failure> {
    let repository = Repository::at(&arguments.repository);
    let _lock = repository.lock()?;
    let chain = RootChain::read(&repository)?;
    let min_age = change::parse_delay(&arguments.min_age);
    let min_age: Duration = min_age.ok_or("--min-age wants minutes, hours or days, such as 12h")?;
    #[expect(clippy::disallowed_methods, reason = "the ages of files are judged by the clock that made them")]
    let policy = CollectPolicy { keep: arguments.keep, min_age, now: SystemTime::now() };
    let plan = plan_collection(&repository, &chain, &ChunkPayloads::here()?, policy)?;
    if !arguments.dry_run {
        remove_files(&repository, &plan)?;
    }
    print_result(&plan, arguments.json, || {
        let verb = if arguments.dry_run { "would go" } else { "went" };
        let versions: Vec<String> = plan.releases.iter().map(ToString::to_string).collect();
        let releases = if versions.is_empty() { "no release".to_owned() } else { versions.join(", ") };
        format!("{verb}: {releases}; {} files of {} MB\n", plan.files.len(), plan.bytes / 1_000_000)
    })
}

fn compare_releases(arguments: &DiffArguments) -> Result<ExitCode, Failure> {
    let repository = Repository::at(&arguments.repository);
    let read = |version| stored::read_file(&repository, &paths::sbom(version), stored::MAX_FILE, version);
    let (from, to) = (read(&arguments.from)?, read(&arguments.to)?);
    let differences = diff::compare_bills(&from, &to)
        .map_err(|error| format!("a bill of materials cannot be read: {error}"))?;
    print_result(&differences, arguments.json, || {
        if differences.is_empty() {
            return "no package differs\n".to_owned();
        }
        differences.iter().map(|difference| format!("{difference}\n")).collect()
    })
}

fn list_keys(arguments: &ListArguments) -> Result<ExitCode, Failure> {
    let chain = RootChain::read(&Repository::at(&arguments.repository))?;
    let root = chain.newest().metadata();
    print_result(root, arguments.json, || list::describe_keys(root))
}

fn new_keys(directory: &Path, name: &str, comment: &str, json: bool) -> Result<ExitCode, Failure> {
    let pair = keys::create_pair(directory, name, comment)?;
    print_result(&pair, json, || {
        format!(
            "{}  sign with this: keep it secret, keep a copy\n{}  key {}: name it in `keys init`, or under \
             `release_keys` of a spec\n",
            pair.secret.display(),
            pair.public.display(),
            pair.id
        )
    })
}

fn print_root(written: &WrittenRoot, json: bool) -> Result<ExitCode, Failure> {
    print_result(written, json, || {
        let WrittenRoot { number, path, missing_signatures, next_steps } = written;
        let mut text = format!("root metadata {number} is in {path}\n");
        if *missing_signatures > 0 {
            text.push_str(&format!("  it lacks {missing_signatures} signatures: `keys sign`, then `keys publish`\n"));
        }
        next_steps.iter().for_each(|step| text.push_str(&format!("  now: {step}\n")));
        text
    })
}

/// The file of the newest root metadata: what an image is to trust.
fn newest_root_path(repository: &Repository, chain: &RootChain) -> PathBuf {
    repository.path(&paths::root(chain.newest().number()))
}
