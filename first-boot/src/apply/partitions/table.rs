//! A partition table as sfdisk prints and reads it.
//!
//! Knows the JSON that it prints and the script that it reads. Refuses tables other than GPT. Invariant: a
//! table that is read and written is the same one, GUIDs and attributes included.
//!
//! Documentation: sfdisk(8), "Script header lines" and "named fields".

use std::fmt::Write;

use serde_json::Value;

/// Where the first partition begins, as every tool of the last fifteen years has it.
// A multiple of the sizes that disks and arrays write at once, so that no block of a file system lies in two.
const FIRST_BYTE: u64 = 1 << 20;
/// The entries of a backup table take so many bytes at the end of a disk.
// UEFI 5.3.1: 128 entries of 128 bytes.
const ENTRIES: u64 = 128 * 128;

/// A GPT; all lengths in the disk's own sectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Its own GUID; `None` for one that is made.
    pub(super) id: Option<String>,
    /// The first and the last sector that partitions may have.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Sectors in one MiB.
    pub(super) grain: u64,
    pub(super) entries: Vec<Entry>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) start: u64,
    pub(super) size: u64,
    /// Its type and its own GUID, in capitals.
    pub(super) kind: String,
    pub(super) guid: Option<String>,
    pub(super) name: String,
    pub(super) attributes: Option<String>,
}

impl Entry {
    /// Its last sector.
    pub(super) fn last_sector(&self) -> u64 {
        self.start + self.size - 1
    }
}

impl Table {
    /// An empty one for a disk of so many sectors of 512 bytes, whose own sectors have this size.
    pub(super) fn new(sectors: u64, sector_size: u64) -> Self {
        let own = sectors * 512 / sector_size;
        // Before the end lie the backup's entries and its header.
        let last = own.saturating_sub(2 + ENTRIES / sector_size);
        let grain = FIRST_BYTE / sector_size;
        Self { id: None, first: grain, last, grain, entries: Vec::new() }
    }

    /// Whether it is not on the disk yet.
    pub(super) fn is_new(&self) -> bool {
        self.id.is_none()
    }

    /// What `sfdisk --json` prints.
    pub(super) fn parse(printed: &[u8]) -> Option<Self> {
        let printed: Value = serde_json::from_slice(printed).ok()?;
        let table = printed.get("partitiontable")?;
        let number = |name: &str| table.get(name).and_then(Value::as_u64);
        let entries = table.get("partitions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        Some(Self {
            id: Some(table.get("id")?.as_str()?.to_owned()),
            first: number("firstlba")?,
            last: number("lastlba")?,
            // Older versions of sfdisk do not say it, and know of no other.
            grain: FIRST_BYTE / number("sectorsize").unwrap_or(512),
            entries: entries.iter().map(parse_entry).collect::<Option<_>>()?,
        })
    }

    /// What sfdisk reads.
    pub(super) fn sfdisk_script(&self) -> String {
        let mut script = "label: gpt\n".to_owned();
        if let Some(id) = &self.id {
            let _ = writeln!(script, "label-id: {id}");
        }
        // sfdisk(8) knows no other unit. Without the two bounds it would choose its own, and the gaps that
        // were worked out would not be the table's.
        let _ = writeln!(script, "unit: sectors\nfirst-lba: {}\nlast-lba: {}\n", self.first, self.last);
        for entry in &self.entries {
            let Entry { number, start, size, kind, .. } = entry;
            // Of what stands before the colon only the digits at its end count.
            let _ = write!(script, "p{number} : start={start}, size={size}, type={kind}");
            if let Some(guid) = &entry.guid {
                let _ = write!(script, ", uuid={guid}");
            }
            if !entry.name.is_empty() {
                let _ = write!(script, ", name=\"{}\"", escape_name(&entry.name));
            }
            if let Some(attributes) = &entry.attributes {
                let _ = write!(script, ", attrs=\"{attributes}\"");
            }
            script.push('\n');
        }
        script
    }
}

fn parse_entry(entry: &Value) -> Option<Entry> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let node = text("node")?;
    let disk = node.trim_end_matches(|c: char| c.is_ascii_digit());
    Some(Entry {
        number: node[disk.len()..].parse().ok()?,
        start: entry.get("start")?.as_u64()?,
        size: entry.get("size")?.as_u64()?,
        kind: text("type")?.to_ascii_uppercase(),
        guid: text("uuid").map(str::to_ascii_uppercase),
        name: text("name").unwrap_or_default().to_owned(),
        attributes: text("attrs").map(str::to_owned),
    })
}

/// A name between quotes: sfdisk knows no `\"`, but reads `\xNN`.
pub(in crate::apply) fn escape_name(name: &str) -> String {
    name.chars().fold(String::new(), |mut out, character| {
        if matches!(character, '"' | '\\') || character.is_ascii_control() {
            let _ = write!(out, "\\x{:02x}", u32::from(character));
        } else {
            out.push(character);
        }
        out
    })
}
