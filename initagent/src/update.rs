//! Replaces the system of the machine with a newer release, and brings the old one back when that one is bad.
//!
//! The phases of an update and what follows after a cut are pure (`phase`, `resume`); the rest carries them
//! out. Refuses to touch the slot that runs.
//! Invariant: at every moment, after every prefix of every write, some good slot boots.

use std::path::Path;

use image_format::slot::Slot;

use crate::boot_record::{self, BootRecord};

/// What speaks against a release.
mod acceptance;
/// What programs ask over D-Bus.
mod bus;
/// What a lost boot left behind.
mod evidence;
/// Whether a release in a file is believed.
mod file_trust;
/// Whether a machine is as well as it was.
mod health;
/// The slot that may be written.
mod idle_slot;
/// Brings a release into it.
mod install;
/// What the machine remembers of its updates.
mod journal;
/// What the machine accepted from a repository.
mod kept_trust;
/// The machine as an update sees it.
mod local_lock;
mod machine;
/// Brings data into another form.
mod migration;
/// What people and programs are told.
mod notices;
/// Looks at the machine.
mod observe;
/// The verbs.
pub(crate) mod orders;
/// The root of a release, rebuilt.
mod payload_content;
/// The phases of an update.
mod phase;
/// When the machine restarts.
mod reboot;
/// What the channel offers.
mod repository;
/// What follows after a cut.
mod resume;
/// Carries the verbs out.
pub(crate) mod service;
/// How the machine is to update itself.
mod settings;
/// A slot, open past the page cache.
mod slot_device;
/// A slot somewhere else as a source.
mod slot_image;
/// A trial without a restart.
mod soft;
/// What an update is up to.
mod status;
/// Fetches files from mirrors.
mod transport;
/// The trial of a new slot.
mod trial;
/// Arms what restarts a dead machine.
mod watchdog;
/// The hours in which the machine may restart.
mod window;

use journal::Journal;
use phase::Phase;

/// The slot that runs, if it is on trial by an update, so that a complete boot alone does not make it good.
pub(crate) fn slot_on_trial() -> Option<Slot> {
    let record = BootRecord::read(Path::new(boot_record::PATH)).ok()?;
    // Without a journal that can be read, no trial would ever end: the boot decides, as before any update.
    let journal = Journal::read(Path::new("/")).ok()?;
    is_on_trial(&journal, &record).then_some(record.slot)
}

fn is_on_trial(journal: &Journal, record: &BootRecord) -> bool {
    let target = match &journal.phase {
        Phase::Armed(armed) => &armed.target,
        Phase::Trial(trial) => &trial.target,
        Phase::Written(written) => &written.target,
        Phase::Fetching(_) | Phase::Steady(_) => return false,
    };
    (target.slot, target.root_hash) == (record.slot, record.root_hash)
}

#[cfg(test)]
pub(crate) mod tests;
