//! Looks into an image without mounting it: partitions, slot table, both slots, any file.
//!
//! Knows how to read; refuses to change anything. Everything it reads may be damaged or forged: each
//! finding stands for itself, and what cannot be read is said in its place.

pub(crate) mod files;
mod slots;
pub(crate) mod table;

use std::fmt;
use std::path::{Path, PathBuf};

use image_format::bytes::Bytes;
use image_format::gpt::PartitionTable;
use image_format::layout::{ENV0_OFFSET, ENV1_OFFSET, Partition, PartitionRole};
use image_format::signed::PublicKey;
use image_format::slot::{BLOCK_BYTES, Slot, SlotTable};
use serde::Serialize;

use crate::disk::DiskImage;
use error_text::printable::printable_text;
use slots::SlotReport;
use table::ReadTableError;

/// What is asked of an image.
#[derive(Debug)]
pub(crate) struct InspectQuestion {
    /// Keys to trust instead of those the image brings.
    pub(crate) keys: Vec<PublicKey>,
    pub(crate) depth: InspectDepth,
    pub(crate) threads: usize,
}

/// How closely slots are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InspectDepth {
    /// Every block of the root is hashed.
    Blocks,
    /// Only the manifest is checked.
    Manifest,
}

/// What an image is.
#[derive(Debug, Serialize)]
pub(crate) struct ImageReport {
    image: PathBuf,
    bytes: u64,
    partitions: Vec<PartitionReport>,
    slot_table: Vec<CopyReport>,
    slots: Vec<SlotReport>,
}

#[derive(Debug, Serialize)]
struct PartitionReport {
    number: u32,
    label: String,
    first_lba: u64,
    bytes: u64,
    guid: String,
}

/// One copy of the slot table.
#[derive(Debug, Serialize)]
struct CopyReport {
    copy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

/// Reads all there is to know.
pub(crate) fn inspect_image(path: &Path, question: &InspectQuestion) -> Result<ImageReport, InspectError> {
    let failed = |source| InspectError::Open { image: path.to_owned(), source };
    let disk = DiskImage::open_read_only(path)?;
    let size = disk.byte_size().map_err(failed)?;
    let table =
        table::read(&disk).map_err(|source| InspectError::Table { image: path.to_owned(), source })?;
    let partitions = table
        .entries
        .iter()
        .map(|entry| PartitionReport {
            number: entry.number,
            label: entry.label.clone(),
            first_lba: entry.first_lba,
            bytes: entry.byte_size().get(),
            guid: entry.guid.to_string(),
        })
        .collect();
    let slot_table = table
        .find_label(Partition::of_role(PartitionRole::Abstate).label)
        .map(|entry| {
            [("env0", ENV0_OFFSET), ("env1", ENV1_OFFSET)]
                .map(|(name, at)| copy_report(&disk, name, entry.byte_offset(), at))
        })
        .into_iter()
        .flatten()
        .collect();
    let slots = Slot::BOTH
        .into_iter()
        // By labels and not by places: an image of another layout should still be shown as far as it goes.
        .filter_map(|slot| {
            Some((slot, table.find_label(Partition::of_role(PartitionRole::Root(slot)).label)?))
        })
        .map(|(slot, entry)| slots::report_slot(&disk, slot, entry, question))
        .collect();
    Ok(ImageReport { image: path.to_owned(), bytes: size.get(), partitions, slot_table, slots })
}

/// Verifies every slot of a disk with that table; says whose signatures hold. A disk without any system is refused.
pub(crate) fn verify_slots(
    disk: &DiskImage,
    table: &PartitionTable,
    question: &InspectQuestion,
) -> Result<String, String> {
    let mut signed = Vec::new();
    for slot in Slot::BOTH {
        if let Some(entry) = table.find_label(Partition::of_role(PartitionRole::Root(slot)).label) {
            signed.extend(slots::report_slot(disk, slot, entry, question).slot_verdict()?);
        }
    }
    if signed.is_empty() {
        Err("neither slot holds a signed system".to_owned())
    } else {
        Ok(signed.join("; "))
    }
}

fn copy_report(disk: &DiskImage, name: &'static str, partition: Bytes, at: Bytes) -> CopyReport {
    let block = disk.read(Bytes::new(partition.get() + at.get()), Bytes::new(BLOCK_BYTES as u64));
    let table = block
        .map_err(|error| error.to_string())
        .and_then(|block| SlotTable::from_block(&block).map_err(|error| error.to_string()));
    match table {
        Ok(table) => {
            let words: Vec<String> = table.to_string().lines().map(str::to_owned).collect();
            CopyReport { copy: name, table: Some(words.join(" ")), damage: None }
        }
        Err(damage) => CopyReport { copy: name, table: None, damage: Some(damage) },
    }
}

impl fmt::Display for ImageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}", self.image.display(), Bytes::new(self.bytes))?;
        writeln!(f, "\n{:>3}  {:<8} {:>10} {:>12}  guid", "#", "label", "sector", "size")?;
        for PartitionReport { number, label, first_lba, bytes, guid } in &self.partitions {
            writeln!(
                f,
                "{number:>3}  {:<8} {first_lba:>10} {:>12}  {guid}",
                printable_text(label),
                Bytes::new(*bytes).to_string()
            )?;
        }
        writeln!(f, "\nslot table")?;
        for CopyReport { copy, table, damage } in &self.slot_table {
            match (table, damage) {
                (Some(table), _) => writeln!(f, "     {copy}     {table}")?,
                (None, damage) => {
                    writeln!(f, "     {copy}     damaged: {}", damage.as_deref().unwrap_or("?"))?;
                }
            }
        }
        self.slots.iter().try_for_each(|slot| write!(f, "\n{slot}"))
    }
}

impl ImageReport {
    /// Whether every slot that holds anything holds what was signed.
    pub(crate) fn is_sound(&self) -> bool {
        self.slots.iter().all(SlotReport::is_sound)
    }
}

/// Why an image cannot be looked into at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    #[error("cannot read the image {image}")]
    Open { image: PathBuf, source: std::io::Error },
    #[error("cannot find the partitions of {image}")]
    Table { image: PathBuf, source: ReadTableError },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_in_an_image_gives_a_terminal_no_orders() {
        let partition = PartitionReport {
            number: 1,
            label: "A\u{1b}]0;pwned\u{7}\u{1b}[2J\nslot A: signed".to_owned(),
            first_lba: 64,
            bytes: 512,
            guid: String::new(),
        };
        let report = ImageReport {
            image: PathBuf::from("disk.raw"),
            bytes: 0,
            partitions: vec![partition],
            slot_table: Vec::new(),
            slots: Vec::new(),
        };

        let text = report.to_string();

        assert!(text.contains("A\\u{1b}]0;pwned\\u{7}\\u{1b}[2J\\u{a}slot A: signed"), "{text}");
        assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
    }
}
