//! Shows the slot table to people and programs, and changes it on their word.
//!
//! Knows which changes a word may make. Refuses to know sectors (`store` does).
//! Invariant: no change leaves the machine without a slot that has proven itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use image_format::slot::{LastGoodSlotError, Slot, SlotState, SlotTable, Tries};
use image_format::version::Version;
use serde::Serialize;

use crate::block_device::AccessMode;
use crate::boot_record::{self, BootRecord, ReadBootRecordError};
use crate::release_floor::{ReleaseFloor, ReleaseFloorError};
use first_boot::OutputFormat;

pub(crate) mod store;

use store::{SlotStore, StoreError, TableCopies};

/// What to do with the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotsRequest {
    /// Another place than the one this machine booted with: a partition or an image of it.
    pub(crate) abstate: Option<PathBuf>,
    /// What to change, or nothing.
    pub(crate) order: Option<Order>,
    /// How to say what came of it.
    pub(crate) format: OutputFormat,
}

/// A change that a person may order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotChange {
    /// Boot this slot next.
    Activate(Slot),
    /// This slot is about to be overwritten.
    Disarm(Slot),
    /// This slot must not boot again.
    MarkBad(Slot),
    /// The named slot, or else the running one, has proven itself.
    MarkGood(Option<Slot>),
}

/// What a person may order beside changes of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Change the table.
    Change(SlotChange),
    /// Let releases of this version, and newer ones, start again.
    LowerFloor(Version),
}

/// Why the slots could not be shown or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotsError {
    #[error("cannot tell which partition holds the slot table; name it with --abstate")]
    Abstate { source: ReadBootRecordError },
    #[error("the slot to mark must be named: no slot of {abstate} runs here")]
    Nameless { abstate: PathBuf },
    #[error("there is no floor to lower: no slot of {abstate} runs here, or none was marked good yet")]
    NoFloor { abstate: PathBuf },
    #[error("the floor is {floor}, which is not above {given}; only complete boots raise it")]
    NotLower { floor: Version, given: Version },
    #[error("slot {slot} does not run here, so nothing has proven it")]
    NotRunning { slot: Slot },
    #[error(transparent)]
    LastGood(#[from] LastGoodSlotError),
    #[error(transparent)]
    ReleaseFloor(#[from] ReleaseFloorError),
    #[error("slot {slot} runs; only the other one can be disarmed")]
    Running { slot: Slot },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("neither copy of the slot table on {abstate} can be read (env0: {env0}; env1: {env1})")]
    Unreadable { abstate: PathBuf, env0: String, env1: String },
}

/// Shows the table, after changing it if that is asked for.
pub(crate) fn run_request(request: &SlotsRequest) -> Result<String, SlotsError> {
    let place = TablePlace::find_table(request.abstate.as_deref())?;
    let changes_table = matches!(request.order, Some(Order::Change(_)));
    let access = if changes_table { AccessMode::Write } else { AccessMode::Read };
    let store = SlotStore::open_store(&place.abstate, access)?;
    let mut copies = store.read()?;
    match &request.order {
        Some(Order::Change(change)) => {
            let table = apply_change(place.table_or_default(&copies)?, *change, &place)?;
            store.write(&copies, table)?;
            // What is shown is what the disk holds, not what was meant.
            copies = store.read()?;
        }
        Some(Order::LowerFloor(version)) => {
            lower_floor(place.read_floor()?, version, &place)?.write(Path::new("/"))?;
        }
        None => {}
    }
    let floor = place.read_floor()?.map(|floor| floor.version);
    let shown =
        SlotsView { floor, ..SlotsView::of_table(place.table_or_default(&copies)?, place.running, &copies) };
    Ok(match request.format {
        OutputFormat::Json => shown.to_json(),
        OutputFormat::Text => shown.to_text(),
    })
}

/// Where the table is, and which of its slots runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TablePlace {
    abstate: PathBuf,
    running: Option<Slot>,
}

impl TablePlace {
    /// The slots of a named partition run only if it is the one this machine booted with.
    fn find_table(named: Option<&Path>) -> Result<Self, SlotsError> {
        let record = BootRecord::read(Path::new(boot_record::PATH));
        match (named, record) {
            (Some(path), Ok(record)) => {
                let running = (record.devices.abstate == path).then_some(record.slot);
                Ok(Self { abstate: path.to_owned(), running })
            }
            (Some(path), Err(_)) => Ok(Self { abstate: path.to_owned(), running: None }),
            (None, Ok(record)) => Ok(Self { abstate: record.devices.abstate, running: Some(record.slot) }),
            (None, Err(source)) => Err(SlotsError::Abstate { source }),
        }
    }

    /// The floor of the machine that this is, if it is this one.
    fn read_floor(&self) -> Result<Option<ReleaseFloor>, SlotsError> {
        if self.running.is_none() {
            return Ok(None);
        }
        Ok(ReleaseFloor::read(Path::new("/"))?)
    }

    fn table_or_default(&self, copies: &TableCopies) -> Result<SlotTable, SlotsError> {
        let [env0, env1] = copies.both_tables();
        match (env0, env1) {
            (Ok(table), _) | (_, Ok(table)) => Ok(table),
            (Err(env0), Err(env1)) => Err(SlotsError::Unreadable {
                abstate: self.abstate.clone(),
                env0: env0.to_string(),
                env1: env1.to_string(),
            }),
        }
    }
}

/// The table after a change, if the change is allowed.
fn apply_change(table: SlotTable, change: SlotChange, place: &TablePlace) -> Result<SlotTable, SlotsError> {
    match (change, place.running) {
        (SlotChange::Activate(slot), _) => Ok(table.activate_slot(slot)),
        (SlotChange::Disarm(slot), Some(running)) if slot == running => Err(SlotsError::Running { slot }),
        // Both by the same rule. A person who is wrong must not be left without a slot that boots.
        (SlotChange::Disarm(slot) | SlotChange::MarkBad(slot), _) => Ok(table.disarm_slot(slot)?),
        (SlotChange::MarkGood(Some(slot)), Some(running)) if slot != running => {
            Err(SlotsError::NotRunning { slot })
        }
        (SlotChange::MarkGood(Some(slot)), _) | (SlotChange::MarkGood(None), Some(slot)) => {
            Ok(table.mark_good(slot))
        }
        (SlotChange::MarkGood(None), None) => Err(SlotsError::Nameless { abstate: place.abstate.clone() }),
    }
}

/// The floor after a person lowered it.
fn lower_floor(
    floor: Option<ReleaseFloor>,
    version: &Version,
    place: &TablePlace,
) -> Result<ReleaseFloor, SlotsError> {
    let floor = floor.ok_or_else(|| SlotsError::NoFloor { abstate: place.abstate.clone() })?;
    if *version >= floor.version {
        return Err(SlotsError::NotLower { floor: floor.version, given: version.clone() });
    }
    Ok(floor.with_version(version.clone()))
}

/// A table, ready to be printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SlotsView {
    running: Option<String>,
    priority: String,
    slots: Vec<ShownSlot>,
    copies: ShownCopies,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ShownSlot {
    slot: String,
    good: bool,
    tries: u8,
}

/// What is wrong with each copy, if anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ShownCopies {
    env0: Option<String>,
    env1: Option<String>,
}

impl SlotsView {
    fn of_table(table: SlotTable, running: Option<Slot>, copies: &TableCopies) -> Self {
        let slots = Slot::BOTH.map(|slot| {
            let SlotState { good, tries } = table.slot_state(slot);
            ShownSlot { slot: slot.to_string(), good, tries: tries.get() }
        });
        let [env0, env1] = copies.both_tables().map(|copy| copy.err().map(|error| error.to_string()));
        Self {
            running: running.map(|slot| slot.to_string()),
            priority: table.priority.to_string(),
            slots: slots.to_vec(),
            copies: ShownCopies { env0, env1 },
            floor: None,
        }
    }

    fn to_json(&self) -> String {
        // Strings, numbers and lists only: there is nothing that JSON could not hold.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    fn to_text(&self) -> String {
        let mut text = String::from("SLOT  BOOTS   RUNS  STATE     TRIES\n");
        for ShownSlot { slot, good, tries } in &self.slots {
            let boots = if *slot == self.priority { "first" } else { "second" };
            let runs = if Some(slot) == self.running.as_ref() { "yes" } else { "-" };
            let state = match (good, *tries) {
                (true, 0) => "demoted",
                (true, _) => "good",
                (false, 0) => "empty",
                (false, _) => "unproven",
            };
            let full = Tries::FULL.get();
            // Writing to a String does not fail.
            let _ = writeln!(text, "{slot:<4}  {boots:<6}  {runs:<4}  {state:<8}  {tries} of {full}");
        }
        for (copy, fault) in [("env0", &self.copies.env0), ("env1", &self.copies.env1)] {
            if let Some(fault) = fault {
                let _ = writeln!(text, "copy {copy} cannot be read: {fault}");
            }
        }
        if let Some(floor) = &self.floor {
            let _ = writeln!(text, "releases older than {floor} start only for want of another");
        }
        text
    }
}

#[cfg(test)]
mod tests;
