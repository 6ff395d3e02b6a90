//! The lowest version that this machine starts while it has another choice.
//!
//! A release stays signed for ever, with every hole that was mended since. So the machine keeps on STATE the
//! newest version that it has marked good, and what each slot held when it was marked. Knows that note and what
//! follows from it. Refuses to know who signed a version, and to guard against who can write STATE itself.
//! Invariant: what this machine marked good in a slot may always come back there, however new the other slot is.
//! Without that, a bad update could not be left by the way it came.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use image_format::digest::Sha256;
use image_format::slot::{Slot, SlotState, Tries};
use image_format::version::Version;
use serde::{Deserialize, Serialize};

use crate::durable_file::replace_with_json;

/// Where the note lies, below the root or below STATE.
pub(crate) const PLACE: &str = "var/lib/catamaran/release-floor.json";

/// A note has some 250 bytes.
const MAX_BYTES: u64 = 4 << 10;

/// What the machine remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReleaseFloor {
    /// The newest version that was marked good, unless a person lowered it.
    pub(crate) version: Version,
    /// The root hash that each slot had when it was last marked good.
    proven: BTreeMap<Slot, Sha256>,
}

/// What a slot holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release<'a> {
    pub(crate) slot: Slot,
    pub(crate) version: &'a Version,
    pub(crate) root_hash: Sha256,
}

/// What comes of a release that is about to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It starts.
    Start,
    /// It is below the floor, and starts for want of another.
    StartForWant,
    /// The other slot starts in its place.
    Refuse,
}

/// Why the note could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseFloorError {
    #[error("{path} is not the JSON it should be; the next complete boot writes it anew")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

impl ReleaseFloor {
    /// Reads the note below `root`, if there is one.
    pub(crate) fn read(root: &Path) -> Result<Option<Self>, ReleaseFloorError> {
        let path = root.join(PLACE);
        let mut text = Vec::new();
        let opened = File::options().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(&path);
        match opened.and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ReleaseFloorError::Read { path, source }),
        }
        serde_json::from_slice(&text).map(Some).map_err(|source| ReleaseFloorError::Json { path, source })
    }

    /// The same note with another version. Only what a person says lowers it.
    pub(crate) fn with_version(self, version: Version) -> Self {
        Self { version, ..self }
    }

    /// Judges a release by what the slot table says of the other slot, if it can be read. A machine that runs an
    /// old release can be mended, and one that does not start cannot: so nothing is refused for a slot that has
    /// not proven itself, or that the selector has given up for now.
    pub(crate) fn judge_release(&self, release: Release<'_>, other: Option<SlotState>) -> Verdict {
        let can_start = other.is_some_and(|other| other.good && other.tries != Tries::NONE);
        match (self.allows_release(release), can_start) {
            (true, _) => Verdict::Start,
            (false, true) => Verdict::Refuse,
            (false, false) => Verdict::StartForWant,
        }
    }

    /// Whether a release is not below the floor, or is what was proven in its slot.
    fn allows_release(&self, release: Release<'_>) -> bool {
        // By the root hash and not by the version: two builds can have one version.
        *release.version >= self.version || self.proven.get(&release.slot) == Some(&release.root_hash)
    }

    /// The note after a release was marked good. One below the floor runs for want of another, which proves
    /// nothing about it.
    pub(crate) fn raise_floor(before: Option<Self>, good: Release<'_>) -> Self {
        let version = good.version.clone();
        let mut after = before.unwrap_or_else(|| Self { version, proven: BTreeMap::new() });
        if *good.version >= after.version {
            after.version = good.version.clone();
            after.proven.insert(good.slot, good.root_hash);
        }
        after
    }

    /// Writes the note below `root`, whole or not at all, so that a power cut leaves the one before.
    pub(crate) fn write(&self, root: &Path) -> Result<(), ReleaseFloorError> {
        let path = root.join(PLACE);
        replace_with_json(&path, self).map_err(|source| ReleaseFloorError::Write { path, source })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image_format::disk_tag::DiskTag;
    use image_format::slot::{LoadCondition, SlotTable, boot_decision};

    use super::*;

    fn release(slot: Slot, version: &Version, content: &[u8]) -> (Slot, Version, Sha256) {
        (slot, version.clone(), Sha256::digest_of(content))
    }

    fn of((slot, version, root_hash): &(Slot, Version, Sha256)) -> Release<'_> {
        Release { slot: *slot, version, root_hash: *root_hash }
    }

    #[test]
    fn the_way_back_from_an_update_stays_open_and_every_other_old_release_is_shut_out() {
        let old = release(Slot::A, &Version::new(1, 0, 0), b"old");
        let new = release(Slot::B, &Version::new(1, 1, 0), b"new");

        let floor = ReleaseFloor::raise_floor(Some(ReleaseFloor::raise_floor(None, of(&old))), of(&new));

        assert_eq!(floor.version, new.1);
        assert!(floor.allows_release(of(&new)) && floor.allows_release(of(&old)));
        assert!(floor.allows_release(of(&release(Slot::A, &Version::new(1, 1, 1), b"next"))));
        for (slot, content) in [(Slot::A, b"other"), (Slot::B, b"old..")] {
            assert!(!floor.allows_release(of(&release(slot, &old.1, content))), "{slot}");
        }
        // The same release in the other slot is not what was proven there.
        assert!(!floor.allows_release(Release { slot: Slot::B, ..of(&old) }));
    }

    #[test]
    fn a_release_below_the_floor_does_not_prove_itself_by_booting() {
        let floor = ReleaseFloor::raise_floor(None, of(&release(Slot::B, &Version::new(2, 0, 0), b"new")));
        let old = release(Slot::A, &Version::new(1, 0, 0), b"old");

        let after = ReleaseFloor::raise_floor(Some(floor.clone()), of(&old));

        assert_eq!(after, floor);
        assert!(!after.allows_release(of(&old)));
    }

    /// Which slots are below the floor, A first.
    const OLD_ONES: [[bool; 2]; 3] = [[true, true], [true, false], [false, true]];

    /// All tables, with either slot or both below the floor: the selector and the initramfs together come to a
    /// slot that starts, and to one above the floor if that one is good and has tries.
    #[test]
    fn no_floor_leaves_a_machine_without_a_slot_that_starts() {
        let new = release(Slot::A, &Version::new(2, 0, 0), b"once");
        let floor = ReleaseFloor::raise_floor(None, of(&new));
        let states = [false, true]
            .into_iter()
            .flat_map(|good| (0..=3).map(move |tries| SlotState { good, tries: Tries::new(tries).unwrap() }));
        let states: Vec<SlotState> = states.collect();
        for (a, b) in states.iter().flat_map(|a| states.iter().map(move |b| (*a, *b))) {
            for (priority, old_ones) in
                Slot::BOTH.into_iter().flat_map(|slot| OLD_ONES.map(|old_ones| (slot, old_ones)))
            {
                let table = SlotTable { priority, a, b, tag: DiskTag::UNSET };
                let (started, refused) = start(table, |slot| old_ones[usize::from(slot == Slot::B)], &floor);

                assert!(refused <= 1, "{table:?} refuses {refused} times");
                let better = Slot::BOTH.into_iter().find(|slot| !old_ones[usize::from(*slot == Slot::B)]);
                let better = better.filter(|slot| {
                    table.slot_state(*slot).good && table.slot_state(*slot).tries > Tries::new(1).unwrap()
                });
                assert!(better.is_none_or(|better| better == started), "{table:?} starts {started}");
            }
        }
    }

    /// The slot that starts in the end, and how often one was refused before.
    fn start(mut table: SlotTable, is_old: impl Fn(Slot) -> bool, floor: &ReleaseFloor) -> (Slot, usize) {
        for refused in 0..5 {
            let first = boot_decision(&table.to_block(), &[]).attempts[0];
            if let LoadCondition::Saves(after) | LoadCondition::MustSave(after) = first.condition {
                table = after;
            }
            let version = Version::new(if is_old(first.slot) { 1 } else { 2 }, 0, 0);
            let held = release(first.slot, &version, b"whatever");
            match floor.judge_release(of(&held), Some(table.slot_state(!first.slot))) {
                Verdict::Refuse => table = table.mark_bad(first.slot),
                Verdict::Start | Verdict::StartForWant => return (first.slot, refused),
            }
        }
        panic!("no slot starts with {table:?}");
    }

    #[test]
    fn the_note_survives_its_file_and_what_is_no_note_is_said_to_be_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(ReleaseFloor::read(root.path()).unwrap(), None);
        let floor = ReleaseFloor::raise_floor(None, of(&release(Slot::B, &Version::new(1, 2, 3), b"x")));

        floor.write(root.path()).unwrap();

        assert_eq!(ReleaseFloor::read(root.path()).unwrap(), Some(floor));
        let path = root.path().join(PLACE);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        fs::write(&path, "{}").unwrap();
        assert!(matches!(ReleaseFloor::read(root.path()), Err(ReleaseFloorError::Json { .. })));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(ReleaseFloor::read(root.path()), Err(ReleaseFloorError::Read { .. })));
    }
}
