//! `release build`: from a spec to an offered release.
//!
//! Knows how to tell that nothing changed, and which version is next. Refuses to know how images are built and how
//! they are published. Invariant: a job that runs it each night publishes only what is new, and keeps the channel from
//! expiring when nothing is.
#![expect(clippy::print_stdout, reason = "the results are printed here")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use image_format::release::channel::{ChannelMetadata, OfferedRelease};
use image_format::release::root::Role;
use image_format::release::time::UnixTime;
use image_format::version::Version;

use super::change::ChannelChange;
use super::channels::{Publisher, read_channel};
use super::diff::PackageDifference;
use super::payloads::ChunkPayloads;
use super::publish::{PublishOrder, publish_image};
use super::recipe::recipe_digest;
use super::report::{describe_published, output_format};
use super::repository::Repository;
use super::roots::RootChain;
use super::signers::Signers;
use super::stored::{MAX_FILE, lock_path, recipe_path};
use super::verbs::{newest_root_path, read_terms};
use super::{Failure, key_verbs::read_lifetime};
use crate::apply;
use crate::cli::release::ReleaseBuildArguments;
use crate::debian::lock::{LockSection, PackageLock};
use crate::facts;
use crate::plan::{self, BuildPlan, SigningKey};
use crate::process::InterruptFlag;
use crate::progress::{BuildProgress, OutputFormat, print_event};
use crate::spec;

/// Builds, publishes and offers.
pub(super) fn build_release(arguments: &ReleaseBuildArguments, now: UnixTime) -> Result<ExitCode, Failure> {
    let repository = Repository::at_folder(&arguments.to);
    let (chain, signers) = (RootChain::read(&repository)?, Signers::read_files(&arguments.build.keys)?);
    // Before a build of minutes: a release that cannot be signed is found out now.
    signers.check_role(chain.newest_root().metadata(), Role::Release)?;
    signers.check_role(chain.newest_root().metadata(), Role::Channel)?;
    let lifetime = read_lifetime(&arguments.expires)?;
    let publisher = Publisher { repository: &repository, chain: &chain, signers: &signers, now, lifetime };
    let terms = read_terms(&arguments.offer, now)?;
    let mut plan = plan_image(arguments, &publisher)?;
    let recipe = recipe_digest(&plan.spec, &plan.facts.initagent)
        .map_err(|error| format!("cannot read the overlays, keys and programs of the spec: {error}"))?;
    if arguments.build.dry_run {
        print!("{plan}");
        return Ok(ExitCode::SUCCESS);
    }
    let interrupt = InterruptFlag::watch_signals()?;
    let lock_file = tempfile::NamedTempFile::new()?;
    if arguments.if_changed {
        let Some(lock) = find_news(arguments, &publisher, &plan, &recipe, &interrupt)? else {
            return keep_alive(arguments, &publisher);
        };
        if arguments.as_version.is_none() {
            plan.spec.version = next_version(&plan.spec.version, &repository.list_versions()?);
        }
        // What was compared is what is built, even if the mirror moves on meanwhile.
        std::fs::write(lock_file.path(), lock.to_string())?;
        plan.facts.lock = Some(lock_file.path().to_owned());
    }
    let order = PublishOrder {
        image: Path::new(&plan.facts.output),
        channel: Some(&arguments.channel),
        terms,
        patch_bases: arguments.patch_bases,
        recipe: Some(recipe),
    };
    build_and_publish(arguments, &publisher, &plan, &interrupt, &order)
}

/// The lock to build by, if that would be another release than the newest that the channel offers.
fn find_news(
    arguments: &ReleaseBuildArguments,
    publisher: &Publisher<'_>,
    plan: &BuildPlan,
    recipe: &str,
    interrupt: &InterruptFlag,
) -> Result<Option<PackageLock>, Failure> {
    let channel = read_channel(publisher.repository, publisher.chain, &arguments.channel)?;
    let lock = apply::resolve_lock(plan, interrupt)?;
    let Some(newest) = channel.as_ref().and_then(newest_release) else { return Ok(Some(lock)) };
    let changes = find_changes(publisher.repository, &newest.version, &lock, recipe)?;
    print_changes(&newest.version, &changes, output_format(arguments.build.json));
    Ok((!changes.is_empty()).then_some(lock))
}

fn plan_image(arguments: &ReleaseBuildArguments, publisher: &Publisher<'_>) -> Result<BuildPlan, Failure> {
    let Publisher { repository, chain, signers, .. } = publisher;
    let mut spec = spec::read(&arguments.build.spec)?;
    if let Some(version) = &arguments.as_version {
        spec.version = version.clone();
    }
    let mut facts = facts::gather_facts(&arguments.build)?;
    facts.signing = SigningKey::Keys(signers.paths_of_role(chain.newest_root().metadata(), Role::Release));
    facts.update_root = Some(newest_root_path(repository, chain));
    Ok(plan::plan_build(spec, facts)?)
}

fn build_and_publish(
    arguments: &ReleaseBuildArguments,
    publisher: &Publisher<'_>,
    plan: &BuildPlan,
    interrupt: &InterruptFlag,
    order: &PublishOrder<'_>,
) -> Result<ExitCode, Failure> {
    let audience = output_format(arguments.build.json);
    let mut progress = BuildProgress::new(audience);
    let built = apply::build_image(plan, interrupt, &mut progress)?;
    match audience {
        OutputFormat::Machines => print_event(&serde_json::json!({ "event": "built", "image": built })),
        OutputFormat::People => {
            println!("{}", built.describe_image(&plan.spec.name, progress.elapsed().as_secs_f64()));
        }
    }
    let published = publish_image(publisher, order, &ChunkPayloads::with_processors())?;
    if audience == OutputFormat::Machines {
        print_event(&serde_json::json!({ "event": "published", "release": published }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", describe_published(&published, &arguments.to));
    Ok(ExitCode::SUCCESS)
}

/// What a nightly job says when there is nothing to do; and so that machines go on believing the channel, it is signed
/// anew once half of its time is over.
fn keep_alive(arguments: &ReleaseBuildArguments, publisher: &Publisher<'_>) -> Result<ExitCode, Failure> {
    let channel = read_channel(publisher.repository, publisher.chain, &arguments.channel)?;
    let old =
        channel.is_some_and(|channel| publisher.now.duration_until(channel.expires) < publisher.lifetime / 2);
    if old {
        let _lock = publisher.repository.lock_repository()?;
        let renewed = publisher.change_existing(&arguments.channel, ChannelChange::Renew { counter: 0 })?;
        if arguments.build.json {
            print_event(&serde_json::json!({ "event": "renewed", "channel": renewed }));
        } else {
            println!("channel {} is signed anew, until {}", renewed.channel, renewed.expires);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest release that machines may install.
fn newest_release(channel: &ChannelMetadata) -> Option<&OfferedRelease> {
    channel.releases.iter().rev().find(|release| release.withdrawn.is_none())
}

/// What is not as it was.
#[derive(Debug, PartialEq, Eq, Default, serde::Serialize)]
struct RecipeChanges {
    packages: Vec<PackageDifference>,
    agent: bool,
    /// The spec or an overlay.
    recipe: bool,
}

impl RecipeChanges {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn find_changes(
    repository: &Repository,
    version: &Version,
    lock: &PackageLock,
    recipe: &str,
) -> Result<RecipeChanges, Failure> {
    let read = |relative: String| repository.read_bounded(&relative, MAX_FILE);
    let text = read(lock_path(version))?.unwrap_or_default();
    let old = PackageLock::parse_lock(&String::from_utf8_lossy(&text))
        .map_err(|error| format!("cannot read the lock of release {version}: {error}"))?;
    // A release that `add` published has no recipe: then only packages and the agent are compared.
    let old_recipe = read(recipe_path(version))?;
    Ok(RecipeChanges {
        packages: compare_locks(&old, lock),
        agent: old.initagent != lock.initagent,
        recipe: old_recipe.is_some_and(|old| old != recipe.as_bytes()),
    })
}

/// The packages whose version or bytes differ, of both sections: a boot loader is part of a release too.
fn compare_locks(old: &PackageLock, new: &PackageLock) -> Vec<PackageDifference> {
    let mut packages: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for section in [LockSection::Root, LockSection::Tools] {
        let known = |lock: &PackageLock| lock.packages_of(section).to_vec();
        for package in known(old).into_iter().filter(|package| !new.packages_of(section).contains(package)) {
            packages.entry(package.name).or_default().0.push(package.version);
        }
        for package in known(new).into_iter().filter(|package| !old.packages_of(section).contains(package)) {
            packages.entry(package.name).or_default().1.push(package.version);
        }
    }
    let difference = |(package, (from, to))| PackageDifference { package, from, to };
    packages.into_iter().map(difference).collect()
}

fn print_changes(version: &Version, changes: &RecipeChanges, format: OutputFormat) {
    if format == OutputFormat::Machines {
        let event = if changes.is_empty() { "unchanged" } else { "changed" };
        print_event(&serde_json::json!({ "event": event, "since": version, "changes": changes }));
        return;
    }
    if changes.is_empty() {
        println!("nothing changed since release {version}: nothing is built");
        return;
    }
    println!("changed since release {version}:");
    changes.packages.iter().for_each(|difference| println!("{difference}"));
    let others = [(changes.agent, "the agent"), (changes.recipe, "the spec or its overlays")];
    others.iter().filter(|(changed, _)| *changed).for_each(|(_, what)| println!("  {what}"));
}

/// The spec's version, or if it is taken, the next build of it: 1.0.0, 1.0.0+1, 1.0.0+2.
fn next_version(wanted: &Version, taken: &[Version]) -> Version {
    let base = wanted.to_string();
    let base = base.split('+').next().unwrap_or(&base).to_owned();
    if !taken.contains(wanted) && taken.iter().all(|version| version < wanted) {
        return wanted.clone();
    }
    let builds = taken.iter().filter_map(|version| {
        let text = version.to_string();
        let (release, build) = text.split_once('+').unwrap_or((&text, "0"));
        (release == base)
            .then(|| build.split('.').next().and_then(|build| build.parse::<u64>().ok()))
            .flatten()
    });
    let next = builds.max().unwrap_or_default().saturating_add(1);
    format!("{base}+{next}").parse().unwrap_or_else(|_| wanted.clone())
}

#[cfg(test)]
mod tests {
    use image_format::digest::Sha256;

    use super::*;
    use crate::debian::lock::LockedPackage;

    fn package(name: &str, version: &str) -> LockedPackage {
        LockedPackage {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            sha256: Sha256::digest_of(format!("{name} {version}").as_bytes()),
            size: 3,
        }
    }

    #[test]
    fn a_moved_package_of_either_section_is_a_change_and_the_date_is_none() {
        let old = PackageLock::new(
            1,
            vec![package("openssl", "1"), package("nano", "1")],
            vec![package("shim", "1")],
        );
        let same = PackageLock::new(
            2,
            vec![package("nano", "1"), package("openssl", "1")],
            vec![package("shim", "1")],
        );
        let new = PackageLock::new(
            2,
            vec![package("openssl", "2"), package("vim", "1")],
            vec![package("shim", "2")],
        );

        assert_eq!(compare_locks(&old, &same), []);
        let lines: Vec<String> = compare_locks(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["- nano 1", "  openssl 1 -> 2", "  shim 1 -> 2", "+ vim 1"]);
    }

    #[test]
    fn a_rebuilt_package_of_the_same_version_is_a_change() {
        let rebuilt = LockedPackage { sha256: Sha256::digest_of(b"rebuilt"), ..package("openssl", "1") };
        let old = PackageLock::new(1, vec![package("openssl", "1")], Vec::new());

        let changes = compare_locks(&old, &PackageLock::new(1, vec![rebuilt], Vec::new()));

        assert_eq!(changes.len(), 1);
    }

    #[test]
    fn a_taken_version_is_counted_up() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        let next = |wanted: &str, taken: &[&str]| {
            next_version(&version(wanted), &taken.iter().map(|text| version(text)).collect::<Vec<_>>())
                .to_string()
        };

        assert_eq!(next("1.0.0", &[]), "1.0.0");
        assert_eq!(next("1.0.0", &["1.0.0"]), "1.0.0+1");
        assert_eq!(next("1.0.0", &["1.0.0", "1.0.0+1", "1.0.0+9", "1.0.0+10.git"]), "1.0.0+11");
        assert_eq!(next("1.1.0", &["1.0.0", "1.0.0+1"]), "1.1.0");
        assert_eq!(next("1.0.0+5", &["1.0.0+5"]), "1.0.0+6");
        // A spec that went back gets a number too, but the channel decides who takes it.
        assert_eq!(next("1.0.0", &["1.0.0+1", "2.0.0"]), "1.0.0+2");
    }
}
