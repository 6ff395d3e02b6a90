use image_format::slot::{SlotState, SlotTable};

use super::*;

const IDLE: u64 = 1000;
const RUNNING: u64 = 100;
const COPIES: [u64; 2] = [8 * SECTOR, 16 * SECTOR];

fn places() -> UpdatePlaces {
    let before = SlotTable::FRESH.to_block().to_vec();
    UpdatePlaces {
        running: Slot::A,
        running_root: RUNNING * SECTOR..(RUNNING + 100) * SECTOR,
        idle_root: IDLE * SECTOR..(IDLE + 100) * SECTOR,
        table_copies: COPIES,
        table_before: [before.clone(), before],
    }
}

fn write(sector: u64) -> WriteEvent {
    WriteEvent::Write { sector, count: 1, data: 0, forced: false }
}

const FLUSH: WriteEvent = WriteEvent::Flush;

/// A change of the table, as the agent makes it: env1 and then env0, each flushed.
struct Recording {
    events: Vec<WriteEvent>,
    writes: Vec<TableWrite>,
}

impl Recording {
    fn new() -> Self {
        Self { events: Vec::new(), writes: Vec::new() }
    }

    fn with(mut self, events: &[WriteEvent]) -> Self {
        self.events.extend(events);
        self
    }

    fn save(mut self, table: SlotTable, flushes: bool) -> Self {
        for copy in [1, 0] {
            let event = self.events.len();
            self.writes.push(TableWrite { copy, bytes: table.to_block().to_vec(), event, forced: false });
            self.events.push(write(COPIES[copy] / SECTOR));
            if flushes {
                self.events.push(FLUSH);
            }
        }
        self
    }

    fn judge(&self) -> Result<ReplayCount, ReplayFault> {
        judge_events(&self.events, &self.writes, &places())
    }
}

fn armed() -> SlotTable {
    SlotTable::FRESH.activate_slot(Slot::B)
}

#[test]
fn an_update_in_the_right_order_loses_nothing_at_any_moment() {
    let good = SlotTable { b: SlotState::GOOD, ..armed() };
    let recording = Recording::new()
        .save(SlotTable::FRESH.disarm_slot(Slot::B).unwrap(), true)
        .with(&[write(IDLE), write(IDLE + 50), FLUSH])
        .save(armed(), true)
        .with(&[write(5000)])
        .save(good, true);

    let count = recording.judge().unwrap();

    assert_eq!(count.moments, recording.events.len() + 1);
    // Of the places where a write is torn, those between its first and its last changed byte differ.
    assert!(count.tables > 10 && count.starts_new > 3, "{count:?}");
}

#[test]
fn a_table_that_is_armed_before_the_slot_is_flushed_is_found_out() {
    let recording = Recording::new().with(&[write(IDLE)]).save(armed(), false).with(&[FLUSH]);

    assert!(matches!(recording.judge(), Err(ReplayFault::Broken { slot: Slot::B, .. })));
}

#[test]
fn a_slot_that_is_written_after_it_was_named_is_found_out() {
    let recording =
        Recording::new().with(&[write(IDLE), FLUSH]).save(armed(), true).with(&[write(IDLE), FLUSH]);

    assert!(matches!(recording.judge(), Err(ReplayFault::LateWrite { .. })));
}

#[test]
fn a_write_or_a_discard_in_the_running_slot_is_found_out() {
    let discard = WriteEvent::Discard { sector: RUNNING + 99, count: 5 };
    for event in [write(RUNNING), discard] {
        let recording = Recording::new().with(&[write(IDLE), FLUSH, event]);
        assert!(matches!(recording.judge(), Err(ReplayFault::RunningSlot { event: 2 })));
    }
}

#[test]
fn a_record_without_an_update_proves_nothing() {
    for recording in [Recording::new(), Recording::new().with(&[write(IDLE), FLUSH])] {
        assert!(matches!(recording.judge(), Err(ReplayFault::NoUpdate)));
    }
}

#[test]
fn the_boot_loaders_writes_wait_for_a_flush_that_it_never_asks_for() {
    let spent = boot_decision(&armed().to_block(), &armed().to_block()).attempts;
    let LoadCondition::MustSave(spent) = spent[0].condition else { panic!("{spent:?}") };
    let recording = Recording::new()
        .with(&[write(IDLE), FLUSH])
        .save(armed(), true)
        .save(spent, false)
        .with(&[write(5000)]);

    assert!(recording.judge().is_ok());
}
