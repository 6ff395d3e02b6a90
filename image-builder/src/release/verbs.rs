//! What the verbs of `release` do.
//!
//! Knows the order: read the repository, change it, print what came of it. Refuses to decide what a change means
//! ([`super::change`]) and what goes where ([`super::publish`]).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use image_format::release::channel::ChannelMetadata;
use image_format::release::paths::{self, ChannelName};
use image_format::release::time::UnixTime;
use image_format::version::Version;

use super::change::{ChannelChange, OfferTerms, empty_channel, parse_delay, parse_waves};
use super::channels::{Publisher, read_channel, read_channels};
use super::collect::{CollectPolicy, plan_collection, remove_files};
use super::diff::compare_bills;
use super::key_verbs::read_lifetime;
use super::list::{RepositoryListing, describe_keys};
use super::payloads::ChunkPayloads;
use super::publish::{PublishOrder, publish_image};
use super::report::{describe_published, describe_validity, output_format, print_result};
use super::repository::Repository;
use super::roots::RootChain;
use super::signers::Signers;
use super::stored::{MAX_FILE, read_file, read_release};
use super::verify::{Verifier, VerifyDepth};
use super::{Failure, read_clock};
use crate::cli::release::{
    AddArguments, DiffArguments, FloorArguments, GcArguments, ListArguments, OfferArguments,
    PromoteArguments, RenewArguments, SignArguments, VerifyArguments, WithdrawArguments,
};
use crate::keys;
use crate::process::InterruptFlag;
use crate::progress::OutputFormat;

/// How a release is to be offered.
pub(super) fn read_terms(offer: &OfferArguments, now: UnixTime) -> Result<OfferTerms, Failure> {
    Ok(OfferTerms {
        waves: parse_waves(&offer.waves, now)?,
        floor: offer.floor,
        least_agent: offer.least_agent.clone(),
        least_free_bytes: offer.least_free.saturating_mul(1 << 20),
    })
}

/// Publishes an image that was built before.
pub(super) fn add_release(arguments: &AddArguments) -> Result<ExitCode, Failure> {
    let repository = Repository::at_folder(&arguments.repository);
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
    let published = publish_image(&publisher, &order, &ChunkPayloads::with_processors())?;
    print_result(&published, output_format(arguments.json), || {
        describe_published(&published, &arguments.repository)
    })
}

/// Changes one channel.
pub(super) fn change_channel(
    folder: &Path,
    name: &ChannelName,
    change: &ChannelChange,
    sign: &SignArguments,
) -> Result<ExitCode, Failure> {
    change_channels(folder, std::slice::from_ref(name), change, sign)
}

/// Changes channels, each by itself.
fn change_channels(
    folder: &Path,
    names: &[ChannelName],
    change: &ChannelChange,
    sign: &SignArguments,
) -> Result<ExitCode, Failure> {
    let repository = Repository::at_folder(folder);
    let _lock = repository.lock_repository()?;
    let (chain, signers) = (RootChain::read(&repository)?, Signers::read_files(&sign.keys)?);
    let (now, lifetime) = (read_clock(), read_lifetime(&sign.expires)?);
    let publisher = Publisher { repository: &repository, chain: &chain, signers: &signers, now, lifetime };
    let changed: Vec<ChannelMetadata> =
        names.iter().map(|name| publisher.change_existing(name, change.clone())).collect::<Result<_, _>>()?;
    print_result(&changed, output_format(sign.json), || {
        let line = |channel: &ChannelMetadata| {
            format!("channel {}: {}", channel.channel, describe_validity(channel))
        };
        changed.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

/// Offers a release that the repository has.
pub(super) fn promote_release(arguments: &PromoteArguments) -> Result<ExitCode, Failure> {
    let PromoteArguments { release: version, channel: name, offer, sign, .. } = arguments;
    let repository = Repository::at_folder(&arguments.repository);
    let _lock = repository.lock_repository()?;
    let (chain, signers) = (RootChain::read(&repository)?, Signers::read_files(&sign.keys)?);
    let (now, lifetime) = (read_clock(), read_lifetime(&sign.expires)?);
    let publisher = Publisher { repository: &repository, chain: &chain, signers: &signers, now, lifetime };
    let release = read_release(&repository, chain.newest_root(), version)?;
    let mut terms = read_terms(offer, now)?;
    keep_terms(&repository, &chain, version, &mut terms)?;
    let channel = read_channel(&repository, &chain, name)?.unwrap_or_else(|| empty_channel(name, &release));
    let change = ChannelChange::Promote { release: Box::new(release), terms };
    let (changed, envelope) = publisher.sign_change(channel, change)?;
    repository.sync_all()?;
    repository.write_file(&paths::channel_path(name), &envelope)?;
    print_result(&changed, output_format(sign.json), || {
        format!("release {version} is offered on channel {name}, {}", describe_validity(&changed))
    })
}

/// What a release needs stays with it when another channel offers it: only waves and floors are a channel's own.
fn keep_terms(
    repository: &Repository,
    chain: &RootChain,
    version: &Version,
    terms: &mut OfferTerms,
) -> Result<(), Failure> {
    for channel in read_channels(repository, chain)? {
        if let Some(known) = channel.find_release(version) {
            terms.least_agent = terms.least_agent.take().or_else(|| known.least_agent.clone());
            terms.least_free_bytes = terms.least_free_bytes.max(known.least_free_bytes);
        }
    }
    Ok(())
}

/// Makes a release a floor, or no floor; or raises a channel's security epoch.
pub(super) fn set_floor(arguments: &FloorArguments) -> Result<ExitCode, Failure> {
    let change = match (&arguments.release, arguments.security_epoch) {
        (_, Some(security_epoch)) => ChannelChange::LowestEpoch { security_epoch },
        (Some(version), None) => ChannelChange::Floor { version: version.clone(), floor: !arguments.remove },
        (None, None) => return Err("name a release, or --security-epoch".into()),
    };
    change_channel(&arguments.repository, &arguments.channel, &change, &arguments.sign)
}

/// Offers a release no more.
pub(super) fn withdraw_release(arguments: &WithdrawArguments) -> Result<ExitCode, Failure> {
    let version = &arguments.release;
    let names = if let Some(name) = &arguments.channel {
        vec![name.clone()]
    } else {
        let repository = Repository::at_folder(&arguments.repository);
        let channels = read_channels(&repository, &RootChain::read(&repository)?)?;
        let offering = channels.into_iter().filter(|channel| channel.find_release(version).is_some());
        offering.map(|channel| channel.channel).collect()
    };
    if names.is_empty() {
        return Err(
            format!("no channel offers release {version}: `release list` shows what they offer").into()
        );
    }
    let change = ChannelChange::Withdraw { version: version.clone(), reason: arguments.reason.clone() };
    change_channels(&arguments.repository, &names, &change, &arguments.sign)
}

/// Signs channels anew.
pub(super) fn renew_channels(arguments: &RenewArguments) -> Result<ExitCode, Failure> {
    let names = match &arguments.channel {
        Some(name) => vec![name.clone()],
        None => Repository::at_folder(&arguments.repository).list_channels()?,
    };
    let change = ChannelChange::Renew { counter: arguments.counter.unwrap_or_default() };
    change_channels(&arguments.repository, &names, &change, &arguments.sign)
}

/// Says what a repository has.
pub(super) fn list_repository(arguments: &ListArguments) -> Result<ExitCode, Failure> {
    let listing = RepositoryListing::read(&Repository::at_folder(&arguments.repository), read_clock())?;
    print_result(&listing, output_format(arguments.json), || listing.to_string())
}

/// Proves a repository.
pub(super) fn verify_repository(arguments: &VerifyArguments) -> Result<ExitCode, Failure> {
    let repository = Repository::at_folder(&arguments.repository);
    let depth = if arguments.quick { VerifyDepth::Files } else { VerifyDepth::Roots };
    let (format, interrupt) = (ChunkPayloads::with_processors(), InterruptFlag::watch_signals()?);
    let now = read_clock();
    let verifier = Verifier { repository: &repository, format: &format, interrupt: &interrupt, depth, now };
    let report = verifier.verify_repository();
    print_result(&report, output_format(arguments.json), || report.to_string())?;
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Removes what no channel needs.
pub(super) fn collect_garbage(arguments: &GcArguments) -> Result<ExitCode, Failure> {
    let repository = Repository::at_folder(&arguments.repository);
    let _lock = repository.lock_repository()?;
    let chain = RootChain::read(&repository)?;
    let min_age =
        parse_delay(&arguments.min_age).ok_or("--min-age wants minutes, hours or days, such as 12h")?;
    #[expect(clippy::disallowed_methods, reason = "the ages of files are judged by the clock that made them")]
    let policy = CollectPolicy { keep: arguments.keep, min_age, now: SystemTime::now() };
    let plan = plan_collection(&repository, &chain, &ChunkPayloads::with_processors(), policy)?;
    if !arguments.dry_run {
        remove_files(&repository, &plan)?;
    }
    print_result(&plan, output_format(arguments.json), || {
        let verb = if arguments.dry_run { "would go" } else { "went" };
        let versions: Vec<String> = plan.releases.iter().map(ToString::to_string).collect();
        let releases = if versions.is_empty() { "no release".to_owned() } else { versions.join(", ") };
        format!("{verb}: {releases}; {} files of {} MB", plan.files.len(), plan.bytes / 1_000_000)
    })
}

/// Says which packages differ.
pub(super) fn compare_releases(arguments: &DiffArguments) -> Result<ExitCode, Failure> {
    let repository = Repository::at_folder(&arguments.repository);
    let read = |version| read_file(&repository, &paths::sbom_path(version), MAX_FILE, version);
    let (from, to) = (read(&arguments.from)?, read(&arguments.to)?);
    let differences =
        compare_bills(&from, &to).map_err(|error| format!("a bill of materials cannot be read: {error}"))?;
    print_result(&differences, output_format(arguments.json), || {
        if differences.is_empty() {
            return "no package differs".to_owned();
        }
        differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })
}

/// Says which keys count.
pub(super) fn list_keys(arguments: &ListArguments) -> Result<ExitCode, Failure> {
    let chain = RootChain::read(&Repository::at_folder(&arguments.repository))?;
    let root = chain.newest_root().metadata();
    print_result(root, output_format(arguments.json), || describe_keys(root))
}

/// Makes a key pair.
pub(super) fn new_keys(
    directory: &Path,
    name: &str,
    comment: &str,
    format: OutputFormat,
) -> Result<ExitCode, Failure> {
    let pair = keys::create_pair(directory, name, comment)?;
    print_result(&pair, format, || {
        let (secret, public) = (pair.secret.display(), pair.public.display());
        format!(
            "{secret}  sign with this: keep it secret, keep a copy\n\
             {public}  key {}: name it in `keys init`, or under `release_keys` of a spec",
            pair.id
        )
    })
}

/// The file of the newest root metadata: what an image is to trust.
pub(super) fn newest_root_path(repository: &Repository, chain: &RootChain) -> PathBuf {
    repository.file_path(&paths::root_path(chain.newest_root().number()))
}
