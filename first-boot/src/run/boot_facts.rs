//! What a run goes by: who this machine is, and what its platform says or said.
//!
//! Knows the choice of the source, and what stands in for a platform that is silent. Refuses to read user-data.
//! Invariant: it is a value, so that all that is decided later can be decided without asking anybody.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use error_text::error_chain;
use platform::{BootKind, DetectedPlatform, FetchError, InstanceMetadata, MetadataWeb, WebTiming};

use super::RunOptions;
use crate::chooser::{Chooser, platform_host};
use crate::facts::{self, InstanceIdentity};
use crate::files::{self, FileRights};
use crate::outcome::RunErrors;
use crate::record;
use crate::root::MachineRoot;
use crate::source::Switch;

// /run/metadata is the folder of afterburn and coreos-metadata, which units of users name in
// `EnvironmentFile=`.
const METADATA: &str = "/run/metadata/catamaran";
/// How long a platform that is known to be there may take, its network included.
const TIMING: WebTiming = WebTiming {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(20),
    total: Duration::from_mins(4),
    first_pause: Duration::from_millis(200),
    longest_pause: Duration::from_secs(5),
};
/// How long a platform may take to hear that the machine is up: nothing waits for it.
const CHECK_IN_TIMEOUT: Duration = Duration::from_secs(30);

/// What is known before anything is done.
#[derive(Debug)]
pub(super) struct BootFacts<'a> {
    pub(super) chooser: Chooser<'a>,
    pub(super) detected: Option<DetectedPlatform>,
    pub(super) platform: String,
    /// Nothing if a platform is there that is silent, and never said anything.
    pub(super) instance: Option<InstanceFacts>,
    pub(super) errors: RunErrors,
}

/// What the machine is at this boot.
#[derive(Debug)]
pub(super) struct InstanceFacts {
    pub(super) metadata: InstanceMetadata,
    pub(super) identity: InstanceIdentity,
    /// Whether the instance is configured at this boot or was before.
    pub(super) boot: BootKind,
    /// Whether the disk was another instance that somebody named.
    pub(super) is_clone: bool,
    /// Whether the platform said so now; else it is what was said before.
    pub(super) is_fresh: bool,
}

/// What a platform says, or said last time if it is silent now or turned away.
#[derive(Debug, Default)]
struct Answer {
    /// Nothing if it is silent and never spoke.
    metadata: Option<InstanceMetadata>,
    is_fresh: bool,
    errors: RunErrors,
}

impl<'a> BootFacts<'a> {
    /// Finds the platform and asks it.
    pub(super) fn gather(options: RunOptions, root: &'a MachineRoot) -> Self {
        let place = platform_host(root);
        let mut chooser = Chooser::for_machine(root, &place, options.force.then_some(Switch::Always));
        let detected = chooser.choose_platform(&place);
        let platform = match &detected {
            Some(detected) => detected.platform.to_string(),
            // Whatever configured it is gone, or there never was anything.
            None => record::source(root)
                .map_or_else(|| "metal".to_owned(), |remembered| remembered.source.platform),
        };
        let answer = match &detected {
            Some(detected) => ask_platform(root, &place, detected, &mut chooser),
            None => Answer {
                metadata: Some(record::load_metadata(root).unwrap_or_default()),
                ..Answer::default()
            },
        };
        let instance =
            answer.metadata.map(|metadata| InstanceFacts::of(metadata, answer.is_fresh, options, root));
        Self { chooser, detected, platform, instance, errors: answer.errors }
    }
}

impl InstanceFacts {
    fn of(metadata: InstanceMetadata, is_fresh: bool, options: RunOptions, root: &MachineRoot) -> Self {
        let known = record::configured_instance(root);
        let identity = facts::instance_identity(&metadata);
        let is_same = known.as_deref() == Some(identity.id.as_str());
        // A disk that was another instance is a clone, unless nobody but us gave the instances names.
        let was_named = known.as_ref().is_some_and(|known| !known.starts_with(facts::UNNAMED));
        let is_clone = !is_same && was_named && identity.is_named;
        let boot = if options.force || !is_same { BootKind::First } else { BootKind::Later };
        Self { metadata, identity, boot, is_clone, is_fresh }
    }
}

fn ask_platform(
    root: &MachineRoot,
    place: &platform::Host,
    detected: &DetectedPlatform,
    chooser: &mut Chooser<'_>,
) -> Answer {
    let metadata = match detected.fetch_metadata(place, &MetadataWeb::new(TIMING, jitter_seed())) {
        Ok(metadata) => metadata,
        Err(error) => return last_answer(root, detected, &error),
    };
    let mut errors = RunErrors::default();
    let missing = metadata.problems.iter();
    errors.problems.extend(missing.map(|problem| format!("the platform did not hand over {problem}")));
    if let Some(kept) = chooser.turn_away_instance(&metadata) {
        return Answer { metadata: Some(kept), is_fresh: false, errors };
    }
    let metadata = with_last_answer(root, metadata);
    errors.append(store_metadata(root, &metadata));
    Answer { metadata: Some(metadata), is_fresh: true, errors }
}

/// What the platform says, with what it said before in the place of what cannot be trusted or had now.
///
/// User-data that comes beside its own answer, on a volume, may be gone or anybody's by now. Keys that could
/// not be asked for are those of the last boot: else a service that is out of breath would keep people out.
fn with_last_answer(root: &MachineRoot, mut now: InstanceMetadata) -> InstanceMetadata {
    let is_same =
        record::configured_instance(root).is_some_and(|known| known == facts::instance_identity(&now).id);
    let Some(kept) = record::load_metadata(root).filter(|_| is_same) else { return now };
    if now.is_by_volume {
        now.user_data = kept.user_data;
    }
    if now.lacks_keys() {
        let known = now.ssh_keys.clone();
        now.ssh_keys.extend(kept.ssh_keys.into_iter().filter(|key| !known.contains(key)));
    }
    now
}

fn last_answer(root: &MachineRoot, detected: &DetectedPlatform, error: &FetchError) -> Answer {
    let text = format!("cannot ask {} ({}): {}", detected.platform, detected.evidence, error_chain(error));
    let metadata = record::load_metadata(root);
    let errors = match metadata {
        Some(_) => RunErrors::from_problem(Err(format!(
            "the platform said nothing, so what it said last time is used: {text}"
        ))),
        None => RunErrors::from_failure(Err(text)),
    };
    Answer { metadata, is_fresh: false, errors }
}

/// Keeps what the platform said, for later boots and for units.
pub(super) fn store_metadata(root: &MachineRoot, metadata: &InstanceMetadata) -> RunErrors {
    let file = metadata.metadata_file();
    let written = files::write(&root.path_of(METADATA), file.as_bytes(), FileRights::PUBLIC);
    let stored = written.map(drop).and_then(|()| record::store_metadata(root, metadata));
    RunErrors::from_problem(stored.map_err(|error| {
        format!("cannot keep what the platform said for later boots: {}", error.error_chain())
    }))
}

/// Tells the platform that the machine is up.
pub(super) fn check_in(detected: &DetectedPlatform, boot: BootKind) -> RunErrors {
    let timing = WebTiming { total: CHECK_IN_TIMEOUT, ..TIMING };
    let sent = detected.check_in(boot, &MetadataWeb::new(timing, jitter_seed()));
    RunErrors::from_problem(sent.map_err(|error| {
        format!("the platform did not take the report that this machine is up: {}", error_chain(&error))
    }))
}

/// Decides the jitter of pauses only.
fn jitter_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::from(now.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_beside_the_platforms_answer_is_that_of_the_first_boot() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        let said = |user_data: &[u8], instance: &str| InstanceMetadata {
            user_data: platform::Payload::from_bytes(user_data.to_vec()),
            instance_id: Some(instance.to_owned()),
            is_by_volume: true,
            ..InstanceMetadata::default()
        };
        let now = |user_data, instance| with_last_answer(&root, said(user_data, instance)).user_data;
        let first = said(b"first", "i-1");
        assert_eq!(now(b"first", "i-1"), first.user_data);
        record::store_metadata(&root, &first).unwrap();
        record::mark_configured(&root, "i-1").unwrap();

        assert_eq!(now(b"evil", "i-1"), first.user_data);
        assert_eq!(now(b"", "i-1"), first.user_data);
        assert_eq!(now(b"second", "i-2"), said(b"second", "i-2").user_data);
    }

    #[test]
    fn keys_that_cannot_be_asked_for_are_those_of_the_last_boot() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        let said = |keys: &[&str], item: &str| {
            let problem = platform::MetadataProblem { item: item.to_owned(), cause: "503".to_owned() };
            InstanceMetadata {
                instance_id: Some("i-1".to_owned()),
                ssh_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
                problems: vec![problem],
                ..InstanceMetadata::default()
            }
        };
        record::store_metadata(&root, &said(&["a", "b"], "zone")).unwrap();
        record::mark_configured(&root, "i-1").unwrap();
        let now = |keys, item| with_last_answer(&root, said(keys, item)).ssh_keys;

        assert_eq!(now(&["c", "b"], "ssh keys"), ["c", "b", "a"]);
        assert_eq!(now(&[], "metadata"), ["a", "b"]);
        // Taken away, or refused for its date.
        assert_eq!(now(&["b"], "zone"), ["b"]);
        assert_eq!(now(&[], "an ssh key"), [""; 0]);
    }
}
