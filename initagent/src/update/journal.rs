//! What the machine remembers of its updates, on STATE.
//!
//! Knows one file and how it is replaced: written beside, synced, renamed, and the folder synced, so that a cut
//! leaves the old journal or the new one. Refuses to know what a phase means. A journal that cannot be read is
//! set aside and begun anew: it is of more use to go on than to keep a machine from its updates for ever.
//! Invariant: lists in it are bounded, so it never grows with the life of the machine.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use image_format::digest::Sha256;
use image_format::version::Version;
use serde::{Deserialize, Serialize};

use crate::durable_file::replace_with_json;

use super::phase::{Cause, Failure, ManifestDigest, Outcome, Phase, Steady, Target};

/// Where it lies, below the root.
pub(crate) const PLACE: &str = "var/lib/catamaran/update/journal.json";

/// Far above what the bounded lists can hold, so that a damaged file is not read into memory.
const MAX_BYTES: u64 = 1 << 20;
const MAX_HISTORY: usize = 50;
const MAX_FAILED: usize = 16;
/// What is kept of what a check, a disk or a lost boot said.
const MAX_DETAILS: usize = 8 << 10;
/// Changes of phase without an end, as Mender has it (kMaxStateDataStoreCount): whatever loops ends there.
pub(crate) const MAX_STEPS: u32 = 28;
/// A release whose boots were lost may have been lost to the mains: it gets one more chance.
const MAX_LOST_ATTEMPTS: u32 = 2;

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Where the update stands.
    #[serde(default)]
    pub(crate) phase: Phase,
    /// Changes of phase since the last steady one.
    #[serde(default)]
    pub(crate) steps: u32,
    /// What is not tried again by itself.
    #[serde(default)]
    pub(crate) failed: Vec<FailedRelease>,
    /// What was done, the oldest first.
    #[serde(default)]
    pub(crate) history: Vec<HistoryEntry>,
    /// The only version that a person wants here.
    #[serde(default)]
    pub(crate) pinned: Option<Version>,
    /// The channel that a person chose, in place of the configured one.
    #[serde(default)]
    pub(crate) channel: Option<String>,
}

/// A release that came to nothing on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedRelease {
    /// Its version.
    pub(crate) version: Version,
    /// By this it is known again.
    pub(crate) root_hash: Sha256,
    /// Its signed manifest, by which a channel knows it.
    pub(crate) manifest: ManifestDigest,
    /// Why.
    pub(crate) cause: Cause,
    /// The same in words.
    pub(crate) reason: String,
    /// How often.
    pub(crate) attempts: u32,
}

/// One update that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryEntry {
    /// When it ended: seconds since 1970, by the machine's clock.
    pub(crate) at: u64,
    /// The version that ran when it ended.
    pub(crate) running: Version,
    /// What was to be brought.
    pub(crate) target: Target,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("{path} is not the JSON it should be; it was set aside as journal.damaged, and a new one begins")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}; is STATE full or read-only?")]
    Write { path: PathBuf, source: io::Error },
}

impl Journal {
    /// Reads the journal below `root`. None yet is an empty one.
    pub(crate) fn read(root: &Path) -> Result<Self, JournalError> {
        let path = root.join(PLACE);
        let mut text = Vec::new();
        let opened = File::options().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(&path);
        match opened.and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
            Ok(_) => serde_json::from_slice(&text).map_err(|source| JournalError::Json { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(JournalError::Read { path, source }),
        }
    }

    /// Reads it for a change: a damaged one is set aside and begun anew, and the mistake comes back to be shown.
    pub(crate) fn recover_journal(root: &Path) -> Result<(Self, Option<JournalError>), JournalError> {
        match Self::read(root) {
            Ok(journal) => Ok((journal, None)),
            Err(error @ JournalError::Json { .. }) => {
                let path = root.join(PLACE);
                let set_aside = fs::rename(&path, path.with_extension("damaged"));
                set_aside.map_err(|source| JournalError::Write { path, source })?;
                Ok((Self::default(), Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes it below `root`, whole or not at all.
    pub(crate) fn write(&self, root: &Path) -> Result<(), JournalError> {
        let path = root.join(PLACE);
        replace_with_json(&path, self).map_err(|source| JournalError::Write { path, source })
    }

    /// The journal in another phase, the step counted.
    pub(crate) fn enter_phase(self, phase: Phase) -> Self {
        let steps = match (&phase, phase.phase_word() == self.phase.phase_word()) {
            (Phase::Steady(_), _) => 0,
            (_, true) => self.steps,
            (_, false) => self.steps.saturating_add(1),
        };
        Self { phase, steps, ..self }
    }

    /// Whether the update has changed its phase so often that something goes round.
    pub(crate) fn goes_round(&self) -> bool {
        self.steps >= MAX_STEPS
    }

    /// The journal after an update has ended, which is steady again.
    pub(crate) fn end_update(self, at: u64, running: Version, target: Target, outcome: Outcome) -> Self {
        let outcome = bound_output(outcome);
        let mut journal = self.enter_phase(Phase::Steady(Steady::default()));
        match &outcome {
            Outcome::Abandoned(_) => {}
            Outcome::Failed(failure) => journal.condemn_release(&target, failure),
            Outcome::Succeeded => journal.failed.retain(|failed| failed.root_hash != target.root_hash),
        }
        journal.history.push(HistoryEntry { at, running, target, outcome });
        let excess = journal.history.len().saturating_sub(MAX_HISTORY);
        journal.history.drain(..excess);
        journal
    }

    /// Remembers a release that is not to be tried again by itself.
    pub(crate) fn condemn_release(&mut self, target: &Target, failure: &Failure) {
        let before = self.failed.iter().position(|failed| failed.root_hash == target.root_hash);
        let attempts = before.map_or(0, |at| self.failed.remove(at).attempts);
        self.failed.push(FailedRelease {
            version: target.version.clone(),
            root_hash: target.root_hash,
            manifest: target.manifest.clone(),
            cause: failure.cause.clone(),
            reason: failure.failure_sentence(),
            attempts: attempts.saturating_add(1),
        });
        let excess = self.failed.len().saturating_sub(MAX_FAILED);
        self.failed.drain(..excess);
    }

    /// What speaks against trying a release by itself. Another build of the same version is another release.
    pub(crate) fn find_objection(&self, root_hash: Sha256) -> Option<&FailedRelease> {
        let failed = self.failed.iter().find(|failed| failed.root_hash == root_hash)?;
        let was_lost = failed.cause == Cause::LostBoots && failed.attempts < MAX_LOST_ATTEMPTS;
        (!was_lost).then_some(failed)
    }

    /// The last update that failed, unless one has succeeded since.
    pub(crate) fn last_failure(&self) -> Option<(&HistoryEntry, &Failure)> {
        let ended =
            self.history.iter().rev().find(|entry| !matches!(entry.outcome, Outcome::Abandoned(_)))?;
        match &ended.outcome {
            Outcome::Failed(failure) => Some((ended, failure)),
            Outcome::Abandoned(_) | Outcome::Succeeded => None,
        }
    }
}

/// What a program printed may be long; the end of it says why it failed.
fn bound_output(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(failure) if failure.details.len() > MAX_DETAILS => {
            let mut start = failure.details.len() - MAX_DETAILS;
            while !failure.details.is_char_boundary(start) {
                start += 1;
            }
            Outcome::Failed(Failure { details: format!("… {}", &failure.details[start..]), ..failure })
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use image_format::slot::Slot;

    use super::super::phase::{Armed, Baseline, Fetching, Trial, TrialBoot, TrialKind, Written};
    use super::*;

    fn target(content: &[u8]) -> Target {
        Target {
            slot: Slot::B,
            version: Version::new(1, 1, 0),
            root_hash: Sha256::digest_of(content),
            manifest: ManifestDigest { bytes: 1, sha256: Sha256::digest_of(content) },
            source: "/media/stick".into(),
        }
    }

    fn failed_once(cause: Cause) -> Journal {
        let outcome = Outcome::Failed(Failure::new(cause, "because"));
        Journal::default().end_update(7, Version::new(1, 0, 0), target(b"new"), outcome)
    }

    #[test]
    fn every_phase_survives_its_file() {
        let baseline =
            Baseline { active_units: vec!["ssh.service".into()], has_route: true, ..Baseline::default() };
        let boots = vec![TrialBoot { boot: "x".into(), ended_in_order: true }];
        let failure = Some(Failure::new(Cause::Check("ssh".into()), "it is dead"));
        let target = target(b"new");
        for phase in [
            Phase::default(),
            Phase::Fetching(Fetching { target: target.clone(), attempts: 2, last_error: Some("cut".into()) }),
            Phase::Written(Written {
                target: target.clone(),
                baseline: baseline.clone(),
                kind: TrialKind::Soft,
            }),
            Phase::Armed(Armed {
                target: target.clone(),
                baseline: baseline.clone(),
                boot: "x".into(),
                kind: TrialKind::AfterSoft,
            }),
            Phase::Trial(Trial { target, baseline, boots, failure, kind: TrialKind::Soft }),
        ] {
            let root = tempfile::tempdir().unwrap();
            let journal = failed_once(Cause::LostBoots).enter_phase(phase);

            journal.write(root.path()).unwrap();

            assert_eq!(Journal::read(root.path()).unwrap(), journal);
            let folder = root.path().join(PLACE);
            assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_damaged_journal_is_set_aside() {
        let root = tempfile::tempdir().unwrap();
        Journal::default().write(root.path()).unwrap();
        fs::write(root.path().join(PLACE), "{\"phase\": {\"phase\": \"flying\"}}").unwrap();

        let (journal, mistake) = Journal::recover_journal(root.path()).unwrap();

        assert_eq!(journal, Journal::default());
        assert!(mistake.unwrap().to_string().contains("set aside"));
        assert!(root.path().join(PLACE).with_extension("damaged").exists());
        assert!(Journal::recover_journal(root.path()).unwrap().1.is_none());
    }

    #[test]
    fn a_journal_of_a_later_agent_is_read_as_far_as_it_is_known() {
        let root = tempfile::tempdir().unwrap();
        Journal::default().write(root.path()).unwrap();
        fs::write(root.path().join(PLACE), "{\"phase\": {\"phase\": \"steady\"}, \"later\": [1]}").unwrap();

        assert_eq!(Journal::read(root.path()).unwrap(), Journal::default());
    }

    #[test]
    fn what_failed_is_not_tried_again_and_another_build_of_it_is() {
        let journal = failed_once(Cause::Check("ssh".into()));

        assert_eq!(journal.find_objection(Sha256::digest_of(b"new")).unwrap().attempts, 1);
        assert!(journal.find_objection(Sha256::digest_of(b"new, mended")).is_none());
    }

    #[test]
    fn what_may_have_been_lost_to_the_mains_is_tried_once_more() {
        let once = failed_once(Cause::LostBoots);
        assert!(once.find_objection(Sha256::digest_of(b"new")).is_none());

        let outcome = Outcome::Failed(Failure::new(Cause::LostBoots, ""));
        let twice = once.end_update(8, Version::new(1, 0, 0), target(b"new"), outcome);

        assert_eq!(twice.find_objection(Sha256::digest_of(b"new")).unwrap().attempts, 2);
    }

    #[test]
    fn a_good_release_after_a_failed_one_is_tried_afresh_and_ends_the_complaint() {
        let journal = failed_once(Cause::NoVerdict);
        assert!(
            journal.last_failure().is_some() && journal.find_objection(Sha256::digest_of(b"next")).is_none()
        );

        let journal = journal.end_update(9, Version::new(1, 2, 0), target(b"next"), Outcome::Succeeded);

        assert!(journal.last_failure().is_none());
        assert_eq!(journal.history.len(), 2);
    }

    #[test]
    fn the_journal_does_not_grow_with_the_life_of_the_machine() {
        let mut journal = Journal::default();
        for round in 0..200_u32 {
            let outcome = Outcome::Failed(Failure::new(Cause::Write, "é".repeat(MAX_DETAILS)));
            let target = target(&round.to_le_bytes());
            journal = journal.end_update(u64::from(round), Version::new(1, 0, 0), target, outcome);
        }

        assert_eq!((journal.history.len(), journal.failed.len()), (MAX_HISTORY, MAX_FAILED));
        assert!(journal.history.iter().all(|entry| match &entry.outcome {
            Outcome::Failed(failure) => failure.details.len() <= MAX_DETAILS + 8,
            _ => false,
        }));
    }

    #[test]
    fn what_goes_round_is_counted_and_steady_ends_the_count() {
        let mut journal = Journal::default();
        while !journal.goes_round() {
            let fetching = Fetching { target: target(b"new"), attempts: 0, last_error: None };
            journal = journal.enter_phase(Phase::Fetching(fetching));
            let written =
                Written { target: target(b"new"), baseline: Baseline::default(), kind: TrialKind::Restart };
            journal = journal.enter_phase(Phase::Written(written));
        }

        assert_eq!(journal.steps, MAX_STEPS);
        assert_eq!(journal.enter_phase(Phase::default()).steps, 0);
    }
}
