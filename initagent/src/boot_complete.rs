//! Marks the running slot good once the boot is complete, and settled once it has stayed up.
//!
//! Every boot spends a try of its slot. A complete boot gives all of them back, unless the run
//! before it crashed soon after it was complete: then they are given back only when this one has
//! settled, by staying up for a while or by shutting down in order. So a slot that panics whenever
//! something reads a damaged block is started no more often than its count, although each of its
//! boots completes.
//! Knows the table and the note about the last run. Refuses to decide whether a boot is complete or
//! settled: systemd does, by its units. Invariant: what is said already is not written again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use image_format::disk_tag::{DiskTag, ID_BYTES};
use image_format::slot::{Slot, SlotState, SlotTable};

use crate::block_device::AccessMode;
use crate::boot_record::{self, BootRecord, ReadBootRecordError};
use crate::release_floor::{Release, ReleaseFloor, ReleaseFloorError};
use crate::slots::store::{SlotStore, StoreError, TableCopies};

/// The note that a run is complete but not settled.
// On /var, which is kept: a crash is known only by what the run before it left.
const NOTE: &str = "/var/lib/catamaran/unsettled";
/// What the kernel calls this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the running slot could not be marked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootCompleteError {
    #[error("cannot tell this boot from others by {BOOT_ID}")]
    BootId { source: io::Error },
    #[error("cannot change the note {path} about the last run")]
    Note { path: PathBuf, source: io::Error },
    #[error("cannot tell which slot runs")]
    Record(#[from] ReadBootRecordError),
    #[error("the slot is marked, but the machine cannot remember the version that it has proven")]
    ReleaseFloor(#[from] ReleaseFloorError),
    #[error("cannot mark slot {slot} good")]
    Store { slot: Slot, source: StoreError },
}

/// The boot is complete: marks the running slot good, and says what that changed. The caller has seen that no update
/// is on trial, or that its trial has passed.
pub(crate) fn complete_boot() -> Result<String, BootCompleteError> {
    let run = SlotRun::current_run()?;
    let said = run.complete_run(&SlotRun::read_marker(&run.note))?;
    raise_floor(Path::new("/"), &BootRecord::read(Path::new(boot_record::PATH))?)?;
    Ok(said)
}

/// Remembers the release that runs. A note that cannot be read is begun anew: it would never be mended otherwise.
fn raise_floor(root: &Path, record: &BootRecord) -> Result<(), ReleaseFloorError> {
    let release = Release { slot: record.slot, version: &record.version, root_hash: record.root_hash };
    let before = ReleaseFloor::read(root).unwrap_or_default();
    let after = ReleaseFloor::raise_floor(before.clone(), release);
    if before.as_ref() == Some(&after) { Ok(()) } else { after.write(root) }
}

/// The run has settled: gives the slot all its tries, and forgets the note.
pub(crate) fn confirm_run() -> Result<String, BootCompleteError> {
    let run = SlotRun::current_run()?;
    run.mark_stable(&SlotRun::read_marker(&run.note))
}

/// One run of a slot, from its boot to its end.
#[derive(Debug)]
struct SlotRun {
    slot: Slot,
    boot: String,
    abstate: PathBuf,
    note: PathBuf,
}

/// How many tries a complete boot gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RestoreTries {
    /// All.
    Full,
    /// None yet: the last run of this slot crashed before it settled.
    None,
}

impl SlotRun {
    fn current_run() -> Result<Self, BootCompleteError> {
        let record = BootRecord::read(Path::new(boot_record::PATH))?;
        let boot = fs::read_to_string(BOOT_ID).map_err(|source| BootCompleteError::BootId { source })?;
        let (slot, abstate) = (record.slot, record.devices.abstate);
        Ok(Self { slot, boot: boot.trim().to_owned(), abstate, note: NOTE.into() })
    }

    /// What the last unsettled run left. What cannot be read is no note: it costs nobody a try.
    fn read_marker(note: &Path) -> String {
        fs::read_to_string(note).unwrap_or_default()
    }

    fn marker_text(&self) -> String {
        format!("{} {}\n", self.slot, self.boot)
    }

    fn tries_to_restore(&self, noted: &str) -> RestoreTries {
        // A boot may be complete and then read a damaged block, which panics. Each such boot once gave all
        // tries back, so that the slot was started for ever.
        let crashed = noted.starts_with(&format!("{} ", self.slot)) && noted != self.marker_text();
        if crashed { RestoreTries::None } else { RestoreTries::Full }
    }

    fn complete_run(&self, noted: &str) -> Result<String, BootCompleteError> {
        let credit = self.tries_to_restore(noted);
        // Before the note: if power fails between the two, the slot has at worst a try too many.
        let said = self.mark_slot(credit)?;
        self.change_note(|| write_note(&self.note, &self.marker_text()))?;
        Ok(said)
    }

    fn mark_stable(&self, noted: &str) -> Result<String, BootCompleteError> {
        if noted != self.marker_text() {
            return Ok("this boot is not complete, or settled already".to_owned());
        }
        let said = self.mark_slot(RestoreTries::Full)?;
        self.change_note(|| fs::remove_file(&self.note))?;
        Ok(said)
    }

    fn mark_slot(&self, credit: RestoreTries) -> Result<String, BootCompleteError> {
        let marked = mark_good(&self.abstate, self.slot, credit);
        marked.map_err(|source| BootCompleteError::Store { slot: self.slot, source })
    }

    fn change_note(&self, change: impl FnOnce() -> io::Result<()>) -> Result<(), BootCompleteError> {
        change().map_err(|source| BootCompleteError::Note { path: self.note.clone(), source })
    }
}

/// The note must outlive a crash in the next second.
fn write_note(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

fn mark_good(abstate: &Path, slot: Slot, credit: RestoreTries) -> Result<String, StoreError> {
    let store = SlotStore::open_store(abstate, AccessMode::Write)?;
    let copies = store.read()?;
    let mut id = [0; ID_BYTES];
    // Without random bytes the old tag stays, which the selector counts up further.
    let tag = getrandom::fill(&mut id).is_ok().then(|| DiskTag::new(id));
    let after = completed_table(&copies, slot, credit, tag);
    store.write(&copies, after)?;
    let tries = after.slot_state(slot).tries.get();
    Ok(match copies.current_table().map(|table| table.slot_state(slot)) {
        None => format!("slot {slot} is good; the slot table was lost and is written anew"),
        Some(before) if before == SlotState::GOOD => format!("slot {slot} was good already"),
        Some(before) if before == after.slot_state(slot) => {
            format!("slot {slot} is good, but its last run crashed: {tries} tries until this one has settled")
        }
        Some(before) if before.good => format!("slot {slot} is good and has all its tries again"),
        Some(_) => format!("slot {slot} has proven itself and is good"),
    })
}

/// The table after a complete boot. If it was lost, nothing is known of the other slot. The tag that
/// the selector has used is replaced in the same write that gives the tries back.
fn completed_table(
    copies: &TableCopies,
    slot: Slot,
    credit: RestoreTries,
    tag: Option<DiskTag>,
) -> SlotTable {
    let table = copies.current_table().unwrap_or_else(|| SlotTable::replace_lost(slot));
    let table = tag.filter(|_| table.tag.is_used()).map_or(table, |tag| table.with_tag(tag));
    // A slot that was never good is marked all the same: it has booted, which is what good means.
    if table.slot_state(slot).good && credit == RestoreTries::None { table } else { table.mark_good(slot) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use image_format::layout::{ENV0_OFFSET, ENV1_OFFSET};
    use image_format::slot::{BLOCK_BYTES, LoadCondition, Tries, boot_decision};

    use super::*;
    use crate::slots::store::tests::{abstate, open};

    struct Machine {
        image: tempfile::NamedTempFile,
        var: tempfile::TempDir,
        boots: u32,
    }

    impl Machine {
        fn with(table: SlotTable) -> Self {
            Self { image: abstate(table), var: tempfile::tempdir().unwrap(), boots: 0 }
        }

        fn table(&self) -> SlotTable {
            open(&self.image).read().unwrap().current_table().unwrap()
        }

        /// What the selector starts; the try is spent.
        fn boot(&mut self) -> SlotRun {
            let table = self.table();
            let first = boot_decision(&table.to_block(), &[]).attempts[0];
            if let LoadCondition::Saves(after) | LoadCondition::MustSave(after) = first.condition {
                let store = open(&self.image);
                store.write(&store.read().unwrap(), after).unwrap();
            }
            self.boots += 1;
            SlotRun {
                slot: first.slot,
                boot: format!("boot-{}", self.boots),
                abstate: self.image.path().to_owned(),
                note: self.var.path().join("catamaran/unsettled"),
            }
        }
    }

    fn complete(run: &SlotRun) -> String {
        run.complete_run(&SlotRun::read_marker(&run.note)).unwrap()
    }

    fn settle(run: &SlotRun) -> String {
        run.mark_stable(&SlotRun::read_marker(&run.note)).unwrap()
    }

    const BOTH_GOOD: SlotTable = SlotTable { b: SlotState::GOOD, ..SlotTable::FRESH };

    /// The table without what is random in it.
    fn tagless(table: SlotTable) -> SlotTable {
        table.with_tag(DiskTag::UNSET)
    }

    #[test]
    fn a_slot_on_trial_is_good_after_its_boot_is_complete() {
        let mut machine = Machine::with(SlotTable::FRESH.activate_slot(Slot::B));

        let said = complete(&machine.boot());

        assert_eq!(said, "slot B has proven itself and is good");
        assert_eq!(machine.table().b, SlotState::GOOD);
    }

    #[test]
    fn a_spent_try_is_given_back() {
        let mut machine = Machine::with(BOTH_GOOD);
        let run = machine.boot();

        assert_eq!(complete(&run), "slot A is good and has all its tries again");
        assert_eq!(complete(&run), "slot A was good already");
        assert_eq!(tagless(machine.table()), BOTH_GOOD);
    }

    /// A damaged block that is read only after the boot is complete.
    #[test]
    fn a_slot_that_crashes_after_each_complete_boot_is_started_no_more_than_its_count() {
        let mut machine = Machine::with(BOTH_GOOD);
        complete(&machine.boot());

        let slots: Vec<Slot> = (0..5)
            .map(|_| {
                let run = machine.boot();
                complete(&run);
                run.slot
            })
            .collect();

        assert_eq!(slots, [Slot::A, Slot::A, Slot::A, Slot::B, Slot::B]);
        assert_eq!(machine.table().a, SlotState { good: true, tries: Tries::NONE });
    }

    #[test]
    fn a_run_that_settles_after_a_crash_gives_the_tries_back() {
        let mut machine = Machine::with(BOTH_GOOD);
        complete(&machine.boot());
        let run = machine.boot();
        assert_eq!(
            complete(&run),
            "slot A is good, but its last run crashed: 2 tries until this one has settled"
        );

        assert_eq!(settle(&run), "slot A is good and has all its tries again");

        assert_eq!(settle(&run), "this boot is not complete, or settled already");
        complete(&machine.boot());
        assert_eq!(tagless(machine.table()), BOTH_GOOD);
    }

    #[test]
    fn a_boot_that_is_not_complete_does_not_settle() {
        let mut machine = Machine::with(BOTH_GOOD);
        let run = machine.boot();

        settle(&run);

        assert_eq!(machine.table().a.tries.get(), 2);
    }

    #[test]
    fn the_crash_of_one_slot_is_not_held_against_the_other() {
        let mut machine = Machine::with(BOTH_GOOD);
        complete(&machine.boot());
        let demoted = machine.table().activate_slot(Slot::B);
        let store = open(&machine.image);
        store.write(&store.read().unwrap(), demoted).unwrap();
        drop(store);

        complete(&machine.boot());

        assert_eq!(machine.table().b, SlotState::GOOD);
    }

    #[test]
    fn a_table_that_was_lost_is_written_anew() {
        let machine = Machine::with(SlotTable::FRESH);
        machine.image.as_file().write_all_at(b"ABSTATE    FAT12   ", 43).unwrap();
        for offset in [ENV0_OFFSET, ENV1_OFFSET] {
            machine.image.as_file().write_all_at(&[0; BLOCK_BYTES], offset.get()).unwrap();
        }

        mark_good(machine.image.path(), Slot::B, RestoreTries::None).unwrap();

        let expected = SlotTable { b: SlotState::GOOD, ..SlotTable::replace_lost(Slot::B) };
        assert_eq!(tagless(machine.table()), expected);
        assert!(!machine.table().tag.is_of_image());
    }

    /// So two copies that each boot alone never count to the same tag, and the one on the command
    /// line, which everyone can read, is not what the next boot goes by.
    #[test]
    fn every_complete_boot_renews_the_tag_once() {
        let mut machine = Machine::with(BOTH_GOOD);
        let mut tags = vec![machine.table().tag];
        for _ in 0..3 {
            let run = machine.boot();
            let counted = machine.table().tag;
            assert_eq!(counted, tags.last().unwrap().next_boot());

            complete(&run);

            tags.push(machine.table().tag);
            assert!(
                !tags[..tags.len() - 1].contains(tags.last().unwrap()) && counted != *tags.last().unwrap()
            );
            complete(&run);
            settle(&run);
            assert_eq!(machine.table().tag, *tags.last().unwrap());
        }
    }
}
