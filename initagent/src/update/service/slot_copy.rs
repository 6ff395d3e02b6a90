//! The second hull of a new machine: a verified copy of the running slot in the empty one.
//!
//! Refuses to copy before the machine has settled, and over anything that is there.

use std::fs;

use image_format::slot::{SlotState, Tries};

use super::super::file_trust::KEYS;
use super::super::idle_slot::IdleSlot;
use super::super::install::write_release;
use super::super::journal::Journal;
use super::super::machine::{UpdateStepError, trust_release};
use super::super::phase::{Action, Phase};
use super::super::slot_image::{OpenImageError, SlotImage};
use super::{UpdateError, UpdateService};
use crate::initramfs::verified_root::read_keyring;
use crate::release_floor::{Release, ReleaseFloor};

const UPTIME: &str = "proc/uptime";
/// A machine that has been up for so long is settled: `catamaran-boot-settled.timer` says the same.
const SETTLED_AFTER: f64 = 600.0;

impl UpdateService {
    /// Copies the running slot into an empty one, once the machine has settled: a slot that rots needs somewhere to
    /// fall. The slot has no manifest until all of it was read back, so a copy that was cut off is no slot.
    pub(crate) fn fill_idle_slot(&self, journal: &Journal) -> Result<Option<String>, UpdateError> {
        let record = &self.machine.record;
        let idle = !record.slot;
        let Some(table) = self.machine.slot_table()? else { return Ok(None) };
        let running = table.slot_state(record.slot);
        let has_settled =
            running.good && running.tries == Tries::FULL && self.uptime_seconds() >= SETTLED_AFTER;
        let is_steady = matches!(journal.phase, Phase::Steady(_));
        if !(is_steady && has_settled && table.slot_state(idle) == SlotState::EMPTY) {
            return Ok(None);
        }
        let path = &record.devices.root;
        let mut image = SlotImage::of_running(path)
            .map_err(|source| OpenImageError::Read { path: path.clone(), source })?;
        let envelope = image
            .read_envelope()
            .map_err(|_| UpdateError::Nothing("the running slot has no manifest".to_owned()))?;
        let release = trust_release(&read_keyring(&self.machine.root.join(KEYS))?, envelope)?;
        let device = IdleSlot::open_idle(record).map_err(UpdateStepError::from)?.device;
        write_release(&device, &release, &mut image, &self.machine).map_err(|source| {
            UpdateStepError::Write { version: record.version.to_string(), slot: idle, source }
        })?;
        self.machine.change_table(Action::MarkGood(idle))?;
        let copied = Release { slot: idle, version: &record.version, root_hash: record.root_hash };
        let floor = ReleaseFloor::read(&self.machine.root)?;
        ReleaseFloor::raise_floor(floor, copied).write(&self.machine.root)?;
        Ok(Some(format!("slot {idle} was empty, and holds a verified copy of {} now", record.version)))
    }

    fn uptime_seconds(&self) -> f64 {
        let text = fs::read_to_string(self.machine.root.join(UPTIME)).unwrap_or_default();
        text.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
    }
}
