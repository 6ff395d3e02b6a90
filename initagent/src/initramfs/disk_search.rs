//! Looks for the disk that the machine was started from, while disks appear and go away.
//!
//! Knows which devices can be disks, and reads partition tables and slot tables of all of them,
//! read-only; `choose` decides among those that hold a system. Refuses to write: only the chosen
//! disk's partitions are made known to the kernel, and that is no write either.
//! Invariant: a disk that is not the chosen one is never opened for writing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, PRIMARY_OFFSET, PartitionTable, backup_offset};
use image_format::layout::{ENV0_OFFSET, ENV1_OFFSET, PartitionRole};
use image_format::slot::{BLOCK_BYTES, Slot, selector_reads};

use super::command_line::{BootParameters, KnownDisk};
use super::disk::{BootDisk, CLASS, MissingPartition, entry_of, missing_partition, number_in};
use super::disk_choice::{Arrivals, Choice, Tags, choose_disk};
use super::kernel_modules::LoadProgress;
use crate::block_device::{AccessMode, BlockDevice};
use error_text::error_chain;

/// Devices that are no disks a slot could be on, by the beginning of their names.
const NEVER: [&str; 7] = ["dm-", "fd", "loop", "nbd", "ram", "sr", "zram"];
/// How long after the last driver and the last disk no more disks are expected. A USB disk is the
/// latest: the kernel waits a second for it (usb-storage's `delay_use`) after its port was reset.
/// Only a boot whose tag could not be written waits that long.
const QUIET: Duration = Duration::from_secs(3);

/// Why the disk was not found.
#[derive(Debug, thiserror::Error)]
#[error("no disk {wanted} after {} seconds; disks seen: {seen}", waited.as_secs())]
pub(super) struct NoDiskError {
    wanted: String,
    waited: Duration,
    seen: String,
}

/// What a look came to.
#[derive(Debug)]
pub(super) enum Found {
    /// Two disks or more could be meant, which this sentence names.
    Ambiguous(String),
    /// The disk.
    Disk(Box<BootDisk>),
    /// Nothing yet.
    Nothing,
}

/// A search that goes on while disks appear.
#[derive(Debug)]
pub(super) struct Search {
    class: PathBuf,
    nodes: PathBuf,
    /// What each disk is.
    seen: BTreeMap<String, Seen>,
    /// When the last driver was loaded or the last disk came or went.
    changed: Duration,
    /// The chosen disk whose partitions have no nodes yet, and why.
    without_nodes: Option<(String, String)>,
}

/// What a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// Not one of ours, for good.
    Another(String),
    /// One that holds a system, and the tags of its slot table.
    System(PartitionTable, Tags),
    /// It cannot be read yet: worth another look.
    Unready(String),
}

impl Default for Search {
    fn default() -> Self {
        Self::in_folders(Path::new(CLASS), Path::new("/dev"))
    }
}

impl Search {
    fn in_folders(class: &Path, nodes: &Path) -> Self {
        let (class, nodes) = (class.to_owned(), nodes.to_owned());
        Self { class, nodes, seen: BTreeMap::new(), changed: Duration::ZERO, without_nodes: None }
    }

    /// Looks at the disks that came since the last look, or were not ready then.
    pub(super) fn search_disks(
        &mut self,
        wanted: &BootParameters,
        progress: LoadProgress,
        now: Duration,
    ) -> Found {
        self.examine_all(wanted.slot, progress, now);
        let quiet = now.saturating_sub(self.changed) > QUIET;
        let arrivals = if quiet { Arrivals::Over } else { Arrivals::Expected };
        let systems: Vec<(&String, &PartitionTable, Tags)> =
            self.seen.iter().filter_map(|(name, seen)| seen.system_disk(name)).collect();
        let tags: Vec<Tags> = systems.iter().map(|(_, _, tags)| *tags).collect();
        match choose_disk(wanted.disk, &tags, arrivals) {
            Choice::Ambiguous(several) => {
                let names: Vec<&str> = several.iter().map(|index| systems[*index].0.as_str()).collect();
                Found::Ambiguous(ambiguity_sentence(wanted.disk, &names))
            }
            Choice::Nothing => Found::Nothing,
            Choice::Only(index) => {
                let (name, table, _) = systems[index];
                let (name, table) = (name.clone(), table.clone());
                self.with_nodes(name, table, wanted.slot)
            }
        }
    }

    /// The chosen disk, once its partitions have nodes. The first time, the kernel may still be
    /// reading the table; it will not find by itself what only the backup copy says.
    fn with_nodes(&mut self, name: String, table: PartitionTable, slot: Slot) -> Found {
        let waited = self.without_nodes.as_ref().is_some_and(|(before, _)| *before == name);
        let disk = BootDisk::new(self.class.clone(), self.nodes.join(&name), name.clone(), table);
        match disk.with_nodes(slot, if waited { MissingPartition::Add } else { MissingPartition::Wait }) {
            Ok(disk) => Found::Disk(Box::new(disk)),
            Err(error) => {
                self.without_nodes = Some((name, error.to_string()));
                Found::Nothing
            }
        }
    }

    fn examine_all(&mut self, slot: Slot, progress: LoadProgress, now: Duration) {
        let present = whole_disks(&self.class);
        let before = self.seen.len();
        self.seen.retain(|name, _| present.contains(name));
        let mut changed = progress == LoadProgress::Loaded || self.seen.len() != before;
        for name in present {
            match self.seen.get(&name) {
                // Once is enough: a look costs reads, and there is one after each driver.
                Some(Seen::Another(_) | Seen::System(..)) => continue,
                Some(Seen::Unready(_)) => {}
                None => changed = true,
            }
            let seen = examine_disk(&self.nodes.join(&name), slot);
            self.seen.insert(name, seen);
        }
        if changed {
            self.changed = now;
        }
    }

    /// What to say when the time is up.
    pub(super) fn explain_failure(&self, wanted: &BootParameters, patience: Duration) -> NoDiskError {
        let said = |(name, seen): (&String, &Seen)| match seen {
            Seen::Another(why) | Seen::Unready(why) => format!("{name} ({why})"),
            Seen::System(..) => match &self.without_nodes {
                Some((chosen, why)) if chosen == name => format!("{name} (is the one, but {why})"),
                _ => format!("{name} (has a slot table, but another one)"),
            },
        };
        let seen: Vec<String> = self.seen.iter().map(said).collect();
        let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
        let slot = wanted.slot;
        let wanted = match wanted.disk {
            KnownDisk::Unknown => format!("has slot {slot} together with STATE and ABSTATE"),
            KnownDisk::Read(_) | KnownDisk::Written(_) => {
                format!("has slot {slot} and the slot table that the boot loader used")
            }
        };
        NoDiskError { wanted, waited: patience, seen }
    }
}

impl Seen {
    fn system_disk<'a>(&'a self, name: &'a String) -> Option<(&'a String, &'a PartitionTable, Tags)> {
        match self {
            Self::System(table, tags) => Some((name, table, *tags)),
            Self::Another(_) | Self::Unready(_) => None,
        }
    }
}

/// The sentence for a person who has to decide.
fn ambiguity_sentence(known: KnownDisk, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("/dev/{name}")).collect();
    let because = match known {
        KnownDisk::Read(_) => "their slot tables are the same, and the boot loader could not mark its own",
        KnownDisk::Unknown => "the boot loader could not read the slot table of its own",
        KnownDisk::Written(_) => "their slot tables are the same",
    };
    format!(
        "the machine was started from one of {}, but {because}; nothing is written to any of them. \
         Detach the disks that are copies, and the machine goes on",
        names.join(" and ")
    )
}

/// What a disk is, by its partition table and its slot table.
fn examine_disk(device: &Path, slot: Slot) -> Seen {
    let unready = |error: io::Error| Seen::Unready(format!("cannot be read: {error}"));
    let opened = BlockDevice::open_device(device, AccessMode::Read);
    let (disk, table) = match opened.and_then(|disk| read_table(&disk).map(|table| (disk, table))) {
        Ok((disk, Ok(table))) => (disk, table),
        Ok((_, Err(error))) => return Seen::Another(error_chain(&error)),
        Err(error) => return unready(error),
    };
    if let Some(label) = missing_partition(&table, slot) {
        return Seen::Another(format!("has no partition {label} in its place"));
    }
    read_tags(&disk, &table).map_or_else(unready, |tags| Seen::System(table, tags))
}

fn read_table(disk: &BlockDevice) -> io::Result<Result<PartitionTable, gpt::ReadTableError>> {
    let size = disk.byte_size()?;
    let backup = backup_offset(size).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(gpt::read(&disk.read(PRIMARY_OFFSET, COPY_BYTES)?, &disk.read(backup, COPY_BYTES)?, size))
}

/// The tags in both copies of the slot table, as the selector reads them.
fn read_tags(disk: &BlockDevice, table: &PartitionTable) -> io::Result<Tags> {
    let start = entry_of(table, PartitionRole::Abstate).ok_or(io::ErrorKind::NotFound)?.byte_offset();
    let tag = |offset: Bytes| -> io::Result<_> {
        let block = disk.read(Bytes::new(start.get() + offset.get()), BLOCK_BYTES)?;
        Ok(selector_reads(&block).map(|table| table.tag))
    };
    Ok([tag(ENV0_OFFSET)?, tag(ENV1_OFFSET)?])
}

/// The kernel's names of disks that are neither partitions nor made of other devices.
fn whole_disks(class: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(class).into_iter().flatten().flatten();
    names
        .filter(|entry| {
            // A drive without a medium has no sectors.
            !entry.path().join("partition").exists() && number_in(&entry.path().join("size")) > Some(0)
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !NEVER.iter().any(|never| name.starts_with(never)))
        .collect()
}

#[cfg(test)]
mod tests;
