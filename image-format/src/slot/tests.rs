//! Facts about the slot table, and the proof that no power cut during its writes loses the machine.

use proptest::prelude::*;

use super::*;
use crate::disk_tag::ID_BYTES;

const TAG: DiskTag = DiskTag::new([0x5a; ID_BYTES]);

fn all_tables() -> Vec<SlotTable> {
    let states: Vec<SlotState> = [false, true]
        .into_iter()
        .flat_map(|good| (0..=FULL_TRIES).map(move |n| SlotState { good, tries: Tries::new(n).unwrap() }))
        .collect();
    Slot::BOTH
        .into_iter()
        .flat_map(|priority| {
            let states = states.clone();
            states.clone().into_iter().flat_map(move |a| {
                states.clone().into_iter().map(move |b| SlotTable { priority, a, b, tag: TAG })
            })
        })
        .collect()
}

fn block_of(lines: &str) -> Vec<u8> {
    let mut block = [SIGNATURE, lines.as_bytes()].concat();
    block.resize(BLOCK_BYTES, b'#');
    block
}

#[test]
fn the_other_slot_is_not_this_one() {
    assert_eq!((!Slot::A, !Slot::B), (Slot::B, Slot::A));
    assert_eq!(("A".parse(), "b".parse()), (Ok(Slot::A), Ok(Slot::B)));
    assert_eq!("C".parse::<Slot>().unwrap_err().to_string(), "\"C\" is not a slot, which are A and B");
}

#[test]
fn every_table_survives_its_block() {
    for table in all_tables() {
        let block = table.to_block();

        assert_eq!(SlotTable::from_block(&block), Ok(table));
        assert_eq!(selector_reads(&block), Some(table));
        assert!(block[SECTOR_BYTES - 32..].iter().all(|byte| *byte == b'#'), "more than 480 bytes used");
    }
}

#[test]
fn the_block_of_a_fresh_image_is_this_text() {
    let block = SlotTable::FRESH.to_block();

    let text = String::from_utf8(block.to_vec()).unwrap();
    let expected = "# GRUB Environment Block\nprio=A\na_ok=1\na_tries=3\nb_ok=0\nb_tries=0\n\
                    tag=00000000000000000000000000000000.0\n";
    assert_eq!(text.trim_end_matches('#'), expected);
    assert_eq!(text.len(), BLOCK_BYTES);
}

#[test]
fn variables_may_stand_in_any_order_as_save_env_leaves_them() {
    let block =
        block_of("tag=5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a.7\nb_tries=1\nb_ok=0\na_tries=3\na_ok=1\nprio=B\n");

    let table = SlotTable::from_block(&block).unwrap();

    assert_eq!((table.priority, table.b.tries.get()), (Slot::B, 1));
}

#[test]
fn what_is_not_exactly_a_table_is_refused() {
    let good = "prio=A\na_ok=1\na_tries=3\nb_ok=0\nb_tries=0\ntag=00000000000000000000000000000000.0\n";
    let cases = [
        (
            block_of(&good.replace("prio=A", "prio=C")),
            "variable prio has the value \"C\", which it cannot have",
        ),
        (
            block_of(&good.replace("a_tries=3", "a_tries=4")),
            "variable a_tries has the value \"4\", which it cannot have",
        ),
        (
            block_of(&good.replace("a_tries=3", "a_tries=33")),
            "variable a_tries has the value \"33\", which it cannot have",
        ),
        (
            block_of(&good.replace("b_ok=0", "b_ok=")),
            "variable b_ok has the value \"\", which it cannot have",
        ),
        (block_of(&format!("{good}prio=A\n")), "variable prio is set twice"),
        (block_of(&format!("{good}evil=1\n")), "variable \"evil\" is unknown"),
        (block_of(&format!("{good}evil\n")), "line \"evil\" is not NAME=VALUE"),
        (block_of(&good.replace("b_ok=0\n", "")), "variable b_ok is missing"),
        (
            block_of(&good.replace("tag=0", "tag=")),
            "variable tag has the value \"0000000000000000000000000000000.0\", which it cannot have",
        ),
        (
            block_of(good.trim_end()),
            "the lines are not UTF-8 text that ends in a line break before the padding",
        ),
        (block_of(""), "the lines are not UTF-8 text that ends in a line break before the padding"),
        (vec![0; BLOCK_BYTES], "the block does not begin with GRUB's signature line"),
        (vec![b'#'; 512], "the block has 512 bytes, not 1024"),
    ];
    for (block, message) in cases {
        assert_eq!(SlotTable::from_block(&block).unwrap_err().to_string(), message);
    }
    let mut late = block_of(good);
    late[700] = b'x';
    assert_eq!(SlotTable::from_block(&late), Err(ParseSlotTableError::SecondSector));
}

#[test]
fn transitions_do_what_their_names_say() {
    let fresh = SlotTable::FRESH;

    let armed = fresh.activate_slot(Slot::B);
    assert_eq!(armed.priority, Slot::B);
    assert_eq!(armed.b, SlotState { good: false, tries: Tries::FULL });
    assert_eq!(armed.mark_good(Slot::B).b, SlotState::GOOD);
    assert_eq!(armed.mark_bad(Slot::B), fresh);
    assert_eq!(armed.disarm_slot(Slot::B), Ok(fresh));
}

#[test]
fn the_last_good_slot_can_not_be_disarmed() {
    let refused = SlotTable::FRESH.disarm_slot(Slot::A).unwrap_err();

    assert_eq!(
        refused.to_string(),
        "slot A cannot be disarmed: slot B is not marked good, so nothing good would remain"
    );
}

#[test]
fn an_unproven_slot_boots_only_counted() {
    let table = SlotTable::FRESH.activate_slot(Slot::B);

    let decision = boot_decision(&table.to_block(), &table.to_block());

    let spent =
        table.with_state(Slot::B, SlotState { good: false, tries: Tries(2) }).with_tag(table.tag.next_boot());
    assert_eq!(
        decision.attempts[0],
        BootAttempt { slot: Slot::B, condition: LoadCondition::MustSave(spent) }
    );
    assert_eq!(decision.attempts[1].slot, Slot::A);
}

/// The disk that the selector runs from can be told from any copy that was made before this boot.
#[test]
fn every_counted_boot_writes_a_tag_that_no_earlier_copy_of_the_disk_has() {
    for table in all_tables() {
        let blocks = [table.to_block(), [0; BLOCK_BYTES]];
        for (env0, env1) in [(blocks[0], blocks[0]), (blocks[0], blocks[1]), (blocks[1], blocks[0])] {
            for attempt in boot_decision(&env0, &env1).attempts {
                if let LoadCondition::Saves(saved) | LoadCondition::MustSave(saved) = attempt.condition {
                    assert_eq!(saved.tag, table.tag.next_boot(), "{table:?}");
                }
            }
        }
    }
}

#[test]
fn a_good_slot_that_keeps_failing_is_demoted() {
    let demoted = SlotState { good: true, tries: Tries::NONE };
    let table = SlotTable { a: demoted, b: SlotState::GOOD, ..SlotTable::FRESH };

    let decision = boot_decision(&table.to_block(), &[]);

    assert_eq!(decision.attempts[0].slot, Slot::B);
}

#[test]
fn when_nothing_has_tries_the_last_resort_prefers_the_good_slot() {
    let demoted = SlotState { good: true, tries: Tries::NONE };
    let table = SlotTable { a: SlotState::EMPTY, b: demoted, ..SlotTable::FRESH };

    let decision = boot_decision(&table.to_block(), &table.to_block());

    let slots: Vec<Slot> = decision.attempts.iter().map(|attempt| attempt.slot).collect();
    assert_eq!(slots, [Slot::B, Slot::A]);
    assert!(decision.attempts.iter().all(|attempt| attempt.condition == LoadCondition::LastResort));
}

#[test]
fn when_both_copies_are_garbage_slot_a_and_then_b_are_tried() {
    let decision = boot_decision(b"garbage", &[0; BLOCK_BYTES]);

    assert_eq!(decision.source, TableSource::Nothing);
    assert_eq!(decision.attempts.iter().map(|attempt| attempt.slot).collect::<Vec<_>>(), Slot::BOTH);
}

/// A machine: two copies on a disk, and which slots really work.
#[derive(Debug, Clone)]
struct Machine {
    env0: Vec<u8>,
    env1: Vec<u8>,
    works: [bool; 2],
}

/// What is left of a sector write when the power goes: nothing, all, a torn mix, or garbage.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Before,
    Torn(usize),
    Garbage,
    Done,
}

fn write_sector(copy: &mut [u8], new: &[u8], cut: Cut) {
    match cut {
        Cut::Before => {}
        Cut::Torn(at) => copy[..at].copy_from_slice(&new[..at]),
        Cut::Garbage => copy[..SECTOR_BYTES].fill(0xA5),
        Cut::Done => copy[..SECTOR_BYTES].copy_from_slice(&new[..SECTOR_BYTES]),
    }
}

impl Machine {
    fn holding(table: SlotTable, works: [bool; 2]) -> Self {
        Self { env0: table.to_block().to_vec(), env1: table.to_block().to_vec(), works }
    }

    /// Writes env1 and then env0, with the power failing during write `cut_at` (0 or 1).
    fn save(&mut self, table: SlotTable, cut_at: usize, cut: Cut) {
        let block = table.to_block();
        write_sector(&mut self.env1, &block, if cut_at == 0 { cut } else { Cut::Done });
        if cut_at == 1 {
            write_sector(&mut self.env0, &block, cut);
        }
    }

    /// Boots until a slot works, at most `limit` times.
    fn boots_within(&mut self, limit: usize) -> bool {
        (0..limit).any(|_| self.boot())
    }

    fn boot(&mut self) -> bool {
        let decision = boot_decision(&self.env0, &self.env1);
        let chosen = decision.attempts.into_iter().find(|attempt| match attempt.condition {
            LoadCondition::Saves(table) => {
                self.grub_saves(table);
                true
            }
            LoadCondition::MustSave(table) => self.grub_saves(table),
            LoadCondition::LastResort => true,
        });
        chosen.is_some_and(|attempt| self.works[usize::from(attempt.slot == Slot::B)])
    }

    /// GRUB's `save_env`, env1 and then env0: it refuses a file that does not begin as a block.
    fn grub_saves(&mut self, table: SlotTable) -> bool {
        [&mut self.env1, &mut self.env0].into_iter().all(|copy| {
            let block = copy.starts_with(SIGNATURE);
            if block {
                write_sector(copy, &table.to_block(), Cut::Done);
            }
            block
        })
    }
}

/// Every cut of the two sector writes from `old` to `new`, and the machine it leaves behind.
fn machines_after_any_cut(old: SlotTable, new: SlotTable, works: [bool; 2]) -> Vec<Machine> {
    let torn = (0..SECTOR_BYTES).step_by(7).map(Cut::Torn);
    let cuts: Vec<Cut> = [Cut::Before, Cut::Garbage, Cut::Done].into_iter().chain(torn).collect();
    let places = [0, 1].into_iter().flat_map(|at| cuts.iter().map(move |cut| (at, *cut)));
    places
        .map(|(at, cut)| {
            let mut machine = Machine::holding(old, works);
            machine.save(new, at, cut);
            machine
        })
        .collect()
}

fn agent_moves(table: SlotTable) -> Vec<SlotTable> {
    let of = |slot| {
        [Some(table.mark_good(slot)), Some(table.activate_slot(slot)), table.disarm_slot(slot).ok()]
            .into_iter()
            .flatten()
    };
    Slot::BOTH.into_iter().flat_map(of).collect()
}

fn selector_moves(table: SlotTable) -> Vec<SlotTable> {
    let attempts = boot_decision(&table.to_block(), &table.to_block()).attempts.into_iter();
    attempts
        .filter_map(|attempt| match attempt.condition {
            LoadCondition::Saves(table) | LoadCondition::MustSave(table) => Some(table),
            LoadCondition::LastResort => None,
        })
        .collect()
}

/// Invariant 1: from any table with a good slot, through any change and any cut of its writes, a
/// good slot boots. Good slots work; unproven ones never do.
#[test]
fn after_every_prefix_of_every_table_write_some_good_slot_boots() {
    for old in all_tables().into_iter().filter(|table| table.a.good || table.b.good) {
        for new in agent_moves(old).into_iter().chain(selector_moves(old)) {
            let works = Slot::BOTH.map(|slot| old.slot_state(slot).good || new.slot_state(slot).good);
            for mut machine in machines_after_any_cut(old, new, works) {
                let before = machine.clone();
                // Slots that never prove themselves use up their tries, then the good one's turn comes.
                assert!(machine.boots_within(8), "{old:?} -> {new:?} left {before:?}");
            }
        }
    }
}

#[test]
fn a_slot_that_panics_for_ever_gets_three_boots() {
    let mut machine = Machine::holding(SlotTable::FRESH.activate_slot(Slot::B), [true, false]);

    let booted: Vec<bool> = (0..5).map(|_| machine.boot()).collect();

    assert_eq!(booted, [false, false, false, true, true]);
}

#[test]
fn in_a_last_resort_the_good_slots_take_turns() {
    let demoted = SlotState { good: true, tries: Tries::NONE };
    let table = SlotTable { a: demoted, b: demoted, ..SlotTable::FRESH };

    assert_eq!(table.take_turns(Slot::A).priority, Slot::B);
    assert_eq!(SlotTable { b: SlotState::EMPTY, ..table }.take_turns(Slot::A).priority, Slot::A);
    assert_eq!(SlotTable { b: SlotState::GOOD, ..table }.take_turns(Slot::A).priority, Slot::A);
}

proptest! {
    #[test]
    fn the_parser_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
        let _ = SlotTable::from_block(&bytes);
        let _ = boot_decision(&bytes, &bytes);
    }

    #[test]
    fn a_table_with_flipped_bytes_is_refused_or_read_the_same_by_both(
        flips in proptest::collection::vec((0..BLOCK_BYTES, any::<u8>()), 1..4),
    ) {
        let mut block = SlotTable::FRESH.to_block();
        for (at, byte) in flips {
            block[at] = byte;
        }
        if let Ok(table) = SlotTable::from_block(&block) {
            prop_assert_eq!(selector_reads(&block), Some(table));
        }
    }
}
