//! The slot table: which half of the disk boots next, and how often it may still be tried.
//!
//! Knows the table, its transitions, its text in a GRUB environment block, and, in
//! [`boot_decision`], what the boot selector does with two copies of it. Refuses to know devices:
//! a transition returns a new table, and someone else writes it.
//! Invariant: everything a copy says stands in the first 512 bytes of its block, so a change is
//! one sector, which a disk writes or does not write.
//!
//! Documentation: "Environment block" in <https://www.gnu.org/software/grub/manual/grub/grub.html>.

use std::fmt;
use std::ops::Not;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::disk_tag::DiskTag;

/// Bytes of a GRUB environment block.
// GRUB's manual: the block has 1024 bytes, and GRUB cannot make it longer.
pub const BLOCK_BYTES: usize = 1024;
/// Bytes of the part of the block that carries everything: one sector.
// Disks write a sector whole or not at all; of two sectors one may be left old.
pub const SECTOR_BYTES: usize = 512;
/// How often a slot is tried before the other one is.
pub const FULL_TRIES: u8 = 3;

const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
const NAMES: [&str; 6] = ["prio", "a_ok", "a_tries", "b_ok", "b_tries", "tag"];

/// One of the two halves that can hold a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Slot {
    /// The half whose root is ROOT-A.
    A,
    /// The half whose root is ROOT-B.
    B,
}

impl Slot {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];
}

impl Not for Slot {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// The text names no slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a slot, which are A and B")]
pub struct ParseSlotError {
    given: String,
}

impl FromStr for Slot {
    type Err = ParseSlotError;

    fn from_str(text: &str) -> Result<Self, ParseSlotError> {
        match text {
            "A" | "a" => Ok(Self::A),
            "B" | "b" => Ok(Self::B),
            _ => Err(ParseSlotError { given: text.chars().take(32).collect() }),
        }
    }
}

impl TryFrom<String> for Slot {
    type Error = ParseSlotError;

    fn try_from(text: String) -> Result<Self, ParseSlotError> {
        text.parse()
    }
}

impl From<Slot> for String {
    fn from(slot: Slot) -> Self {
        slot.to_string()
    }
}

/// How often a slot may still be tried: 0 to [`FULL_TRIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tries(u8);

impl Tries {
    /// None left.
    pub const NONE: Self = Self(0);
    /// As many as a slot can have.
    pub const FULL: Self = Self(FULL_TRIES);

    /// That many, unless it is more than a slot can have.
    #[must_use]
    pub const fn new(count: u8) -> Option<Self> {
        if count <= FULL_TRIES { Some(Self(count)) } else { None }
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// One less, unless none is left.
    #[must_use]
    pub const fn spend_one(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(left) => Some(Self(left)),
            None => None,
        }
    }
}

/// What the table says about one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotState {
    /// Whether a boot of what it holds has proven itself.
    pub good: bool,
    /// The boots it still has before the other slot is tried.
    pub tries: Tries,
}

impl SlotState {
    /// Holds nothing that may boot.
    pub const EMPTY: Self = Self { good: false, tries: Tries::NONE };
    /// Has proven itself.
    pub const GOOD: Self = Self { good: true, tries: Tries::FULL };
}

/// Which slot goes first, and what is known of each.
///
/// ```
/// use image_format::slot::{Slot, SlotTable};
///
/// // A release was written into slot B, so it goes first.
/// let table = SlotTable::FRESH.activate_slot(Slot::B);
/// assert_eq!(SlotTable::from_block(&table.to_block()), Ok(table));
///
/// // Slot A may be overwritten only once slot B has proven itself.
/// assert!(table.disarm_slot(Slot::A).is_err());
/// assert!(table.mark_good(Slot::B).disarm_slot(Slot::A).is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotTable {
    /// The slot that is tried first.
    pub priority: Slot,
    /// Slot A.
    pub a: SlotState,
    /// Slot B.
    pub b: SlotState,
    /// What tells this disk from a copy of it.
    pub tag: DiskTag,
}

impl SlotTable {
    /// The table of a fresh image: slot A was just written, slot B is empty.
    pub const FRESH: Self =
        Self { priority: Slot::A, a: SlotState::GOOD, b: SlotState::EMPTY, tag: DiskTag::UNSET };

    /// A table in place of one that was lost: this slot goes first, nothing is known of either.
    #[must_use]
    pub const fn replace_lost(priority: Slot) -> Self {
        Self { priority, a: SlotState::EMPTY, b: SlotState::EMPTY, tag: DiskTag::UNSET }
    }

    /// What the table says about a slot.
    #[must_use]
    pub const fn slot_state(&self, slot: Slot) -> SlotState {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    /// The slot has booted and proven itself. **Does not write to the disk**, like all of these.
    #[must_use]
    pub const fn mark_good(self, slot: Slot) -> Self {
        self.with_state(slot, SlotState::GOOD)
    }

    /// The slot goes first, with all its tries. Whether it is proven stays as it is.
    #[must_use]
    pub const fn activate_slot(self, slot: Slot) -> Self {
        let armed = SlotState { good: self.slot_state(slot).good, tries: Tries::FULL };
        Self { priority: slot, ..self.with_state(slot, armed) }
    }

    /// The disk has another tag from now on.
    #[must_use]
    pub const fn with_tag(self, tag: DiskTag) -> Self {
        Self { tag, ..self }
    }

    /// The slot is about to be overwritten and may not boot. Refused when nothing good would remain.
    pub fn disarm_slot(self, slot: Slot) -> Result<Self, LastGoodSlotError> {
        if self.slot_state(!slot).good { Ok(self.mark_bad(slot)) } else { Err(LastGoodSlotError { slot }) }
    }

    /// The slot cannot boot, whatever the table said.
    #[must_use]
    pub fn mark_bad(self, slot: Slot) -> Self {
        Self { priority: !slot, ..self.with_state(slot, SlotState::EMPTY) }
    }

    /// The slot that runs was started as a last resort. A last resort starts the first good slot, so
    /// a good slot that fails without reaching its tries would be started for ever: the other good
    /// one goes first next time. Any other boot changes nothing.
    // Without this, a good slot that fails early would be started for ever while the other one could run.
    #[must_use]
    pub fn take_turns(self, running: Slot) -> Self {
        let last_resort = self.a.tries == Tries::NONE && self.b.tries == Tries::NONE;
        let takes_turns = last_resort && self.slot_state(!running).good;
        if takes_turns { Self { priority: !running, ..self } } else { self }
    }

    /// Reads a block, accepting exactly what [`SlotTable::to_block`] and GRUB's `save_env` leave there.
    pub fn from_block(block: &[u8]) -> Result<Self, ParseSlotTableError> {
        if block.len() != BLOCK_BYTES {
            return Err(ParseSlotTableError::Size { given: block.len() });
        }
        let body = block.strip_prefix(SIGNATURE).ok_or(ParseSlotTableError::Signature)?;
        // GRUB fills the rest of the block with `#`.
        let end = body.iter().rposition(|byte| *byte != b'#').map_or(0, |last| last + 1);
        if SIGNATURE.len() + end > SECTOR_BYTES {
            return Err(ParseSlotTableError::SecondSector);
        }
        let text = str::from_utf8(&body[..end]).map_err(|_| ParseSlotTableError::Text)?;
        let lines = text.strip_suffix('\n').ok_or(ParseSlotTableError::Text)?;
        let mut values = BlockValues::default();
        for line in lines.split('\n') {
            let (name, value) =
                line.split_once('=').ok_or_else(|| ParseSlotTableError::Line { line: line.to_owned() })?;
            // Strict, since what we write ourselves never has two. The selector's reading is the lenient one
            // below.
            values.set_once(name, value)?;
        }
        values.to_table()
    }

    /// The block to store. Everything stands in its first [`SECTOR_BYTES`]; the rest is padding.
    #[must_use]
    pub fn to_block(&self) -> [u8; BLOCK_BYTES] {
        let text = self.to_string();
        let mut block = [b'#'; BLOCK_BYTES];
        block[..SIGNATURE.len()].copy_from_slice(SIGNATURE);
        block[SIGNATURE.len()..SIGNATURE.len() + text.len()].copy_from_slice(text.as_bytes());
        block
    }

    const fn with_state(self, slot: Slot, state: SlotState) -> Self {
        match slot {
            Slot::A => Self { a: state, ..self },
            Slot::B => Self { b: state, ..self },
        }
    }
}

impl fmt::Display for SlotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b) = (self.a, self.b);
        writeln!(f, "prio={}", self.priority)?;
        writeln!(f, "a_ok={}\na_tries={}", u8::from(a.good), a.tries.get())?;
        writeln!(f, "b_ok={}\nb_tries={}", u8::from(b.good), b.tries.get())?;
        writeln!(f, "tag={}", self.tag)
    }
}

/// A slot may not be given up, because the other one has not proven itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("slot {slot} cannot be disarmed: slot {other} is not marked good, so nothing good would remain", other = !*slot)]
pub struct LastGoodSlotError {
    slot: Slot,
}

/// Why a block is not a slot table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseSlotTableError {
    #[error("variable {name} is set twice")]
    Duplicate { name: String },
    #[error("line {line:?} is not NAME=VALUE")]
    Line { line: String },
    #[error("variable {name} is missing")]
    Missing { name: &'static str },
    #[error("there is text after the first 512 bytes, which alone may carry any")]
    SecondSector,
    #[error("the block does not begin with GRUB's signature line")]
    Signature,
    #[error("the block has {given} bytes, not {BLOCK_BYTES}")]
    Size { given: usize },
    #[error("the lines are not UTF-8 text that ends in a line break before the padding")]
    Text,
    #[error("variable {name:?} is unknown")]
    Unknown { name: String },
    #[error("variable {name} has the value {value:?}, which it cannot have")]
    Value { name: &'static str, value: String },
}

/// The variables of one block, in the order of [`NAMES`].
#[derive(Debug, Clone, Default)]
struct BlockValues([Option<String>; 6]);

impl BlockValues {
    fn index(name: &str) -> Option<usize> {
        NAMES.iter().position(|known| *known == name)
    }

    fn set_once(&mut self, name: &str, value: &str) -> Result<(), ParseSlotTableError> {
        let index =
            Self::index(name).ok_or_else(|| ParseSlotTableError::Unknown { name: name.to_owned() })?;
        if self.0[index].replace(value.to_owned()).is_some() {
            return Err(ParseSlotTableError::Duplicate { name: name.to_owned() });
        }
        Ok(())
    }

    fn to_table(&self) -> Result<SlotTable, ParseSlotTableError> {
        let slot = |text: &str| match text {
            "A" => Some(Slot::A),
            "B" => Some(Slot::B),
            _ => None,
        };
        let flag = |text: &str| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        let tries = |text: &str| match text.as_bytes() {
            [digit @ b'0'..=b'9'] => Tries::new(digit - b'0'),
            _ => None,
        };
        Ok(SlotTable {
            priority: self.read_value(0, slot)?,
            a: SlotState { good: self.read_value(1, flag)?, tries: self.read_value(2, tries)? },
            b: SlotState { good: self.read_value(3, flag)?, tries: self.read_value(4, tries)? },
            tag: self.read_value(5, |text| text.parse().ok())?,
        })
    }

    fn read_value<T>(
        &self,
        index: usize,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ParseSlotTableError> {
        let name = NAMES[index];
        let text = self.0[index].as_deref().ok_or(ParseSlotTableError::Missing { name })?;
        read(text).ok_or_else(|| ParseSlotTableError::Value { name, value: text.to_owned() })
    }
}

/// Which copy of the table the selector goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableSource {
    /// The first copy.
    Env0,
    /// The second, because the first cannot be read.
    Env1,
    /// Neither can be read: slot A and then slot B, uncounted.
    Nothing,
}

/// One kernel that the selector tries to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootAttempt {
    /// The slot it is loaded from.
    pub slot: Slot,
    /// What must be done before.
    pub condition: LoadCondition,
}

/// What the selector does before it loads a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadCondition {
    /// Saves this table first, and boots even if that fails: the slot is good.
    Saves(SlotTable),
    /// Saves this table first, and passes over the slot if that fails: the slot is unproven.
    MustSave(SlotTable),
    /// Spends no try: the last resort. The tag alone is saved, unless it was saved with a try.
    LastResort,
}

/// What the selector does in one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootDecision {
    /// The copy it goes by.
    pub source: TableSource,
    /// The kernels it tries to load, in order, until one can be read.
    pub attempts: Vec<BootAttempt>,
}

/// What the boot selector does with these two copies: the executable twin of the GRUB script.
///
/// A copy counts if GRUB can read it and all six variables have a value they can have. The slots
/// are walked in order of priority; one that has tries left spends one, saved to env1 and then to
/// env0 together with the tag that follows, and is loaded. One without tries is passed over, good or not. When the walk ends, the last
/// resort loads the good slots and then the others, uncounted; it saves the tag alone, if nothing was
/// saved before.
///
/// ```
/// use image_format::slot::{LoadCondition, Slot, SlotTable, boot_decision};
///
/// let block = SlotTable::FRESH.activate_slot(Slot::B).to_block();
/// let decision = boot_decision(&block, &block);
///
/// // Slot B is unproven, so it boots only if its try could be counted. Slot A comes next.
/// assert_eq!(decision.attempts[0].slot, Slot::B);
/// assert!(matches!(decision.attempts[0].condition, LoadCondition::MustSave(_)));
/// assert_eq!(decision.attempts[1].slot, Slot::A);
/// ```
#[must_use]
pub fn boot_decision(env0: &[u8], env1: &[u8]) -> BootDecision {
    let (source, table) = match (selector_reads(env0), selector_reads(env1)) {
        // env1 is written first. While env0 is whole, it is the last change that was completed.
        (Some(table), _) => (TableSource::Env0, table),
        (None, Some(table)) => (TableSource::Env1, table),
        (None, None) => (TableSource::Nothing, UNREADABLE),
    };
    BootDecision { source, attempts: counted_attempts(table).into_iter().chain(last_resort(table)).collect() }
}

/// What the selector assumes when neither copy can be read.
const UNREADABLE: SlotTable = {
    // Nothing can be counted where nothing can be read, so both are a last resort.
    let unknown = SlotState { good: true, tries: Tries::NONE };
    SlotTable { priority: Slot::A, a: unknown, b: unknown, tag: DiskTag::UNSET }
};

fn counted_attempts(table: SlotTable) -> Vec<BootAttempt> {
    // Once in a boot, however many kernels it tries: the tag that is handed on is the one on the disk.
    let mut table = table.with_tag(table.tag.next_boot());
    let mut attempts = Vec::new();
    for slot in [table.priority, !table.priority] {
        let SlotState { good, tries } = table.slot_state(slot);
        let Some(left) = tries.spend_one() else { continue };
        table = table.with_state(slot, SlotState { good, tries: left });
        // An unproven slot that could not be counted would be tried for ever. A good one is worth a boot
        // without a count.
        let condition = if good { LoadCondition::Saves(table) } else { LoadCondition::MustSave(table) };
        attempts.push(BootAttempt { slot, condition });
    }
    attempts
}

fn last_resort(table: SlotTable) -> impl Iterator<Item = BootAttempt> {
    let order = [table.priority, !table.priority];
    // What ran once is more likely to run again than what never did.
    let good = order.into_iter().filter(move |slot| table.slot_state(*slot).good);
    let rest = order.into_iter().filter(move |slot| !table.slot_state(*slot).good);
    good.chain(rest).map(|slot| BootAttempt { slot, condition: LoadCondition::LastResort })
}

/// Reads a block as GRUB's `load_env` does: leniently, the last assignment of a name winning. A person's
/// `grub-editenv` may have left what [`SlotTable::from_block`] refuses.
#[must_use]
pub fn selector_reads(block: &[u8]) -> Option<SlotTable> {
    let mut rest = block.strip_prefix(SIGNATURE)?;
    let mut values = BlockValues::default();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        let assignment = line.split_once('=').filter(|_| !line.starts_with('#'));
        if let Some((name, value)) = assignment
            && let Some(index) = BlockValues::index(name)
        {
            values.0[index] = Some(value.to_owned());
        }
    }
    values.to_table().ok()
}

#[cfg(test)]
mod tests;
