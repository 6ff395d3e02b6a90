//! The disk that this machine runs from, as the image that it once was.
//!
//! Boot code, loaders and the running root are read where they lie. What has become this machine's own is left out: the
//! slot table is a fresh one, slot B and STATE are empty, the seed is not there, and all identifiers are those of a new
//! image, so that the first boot from the copy replaces them. Refuses to write anything but a file in /run.
//! Invariant: nothing of STATE or of the seed of this machine comes to the other disk.

#![expect(clippy::disallowed_methods, reason = "effects live here: mke2fs makes the new STATE")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;

use disk_formats::disk::ReadDisk;
use disk_install::esp::{ChangedBlocks, SEED, plan_removal};
use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, PRIMARY_OFFSET, ReadTableError};
use image_format::layout::{
    DiskLayout, ENV0_OFFSET, ENV1_OFFSET, PartitionRole, PartitionSizes, PlanLayoutError,
};
use image_format::slot::{Slot, SlotTable};
use uuid::Uuid;

use crate::boot_record::BootRecord;

/// STATE of a new image. The first boot grows it to the end of the disk.
const STATE_BYTES: Bytes = Bytes::from_mib(64);
/// The file in which it is made, for a moment.
const STATE_FILE: &str = "install-state.img";
/// The files by which a machine is told what it is to be.
const SEED_FILES: [&str; 3] = ["user-data", "meta-data", "network-config"];
const SECTOR: usize = 512;

/// Why the running disk cannot be read as an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadRunningDiskError {
    #[error("the disk of this machine is not divided as an image is")]
    Layout,
    #[error("cannot make an empty file system for STATE: {said}")]
    MakeState { said: String },
    #[error("cannot lay out the new disk")]
    Plan(#[from] PlanLayoutError),
    #[error("cannot get random bytes for the identifiers of the new disk: {said}")]
    Random { said: String },
    #[error("cannot read {what}")]
    Read { what: String, source: io::Error },
    #[error("cannot read the partition table of this machine's disk")]
    Table(#[from] ReadTableError),
}

/// A stretch of the new disk, and where its bytes are.
#[derive(Debug)]
struct DiskPart {
    range: Range<u64>,
    content: PartContent,
}

#[derive(Debug)]
enum PartContent {
    /// From there in a file or device, but for blocks that are changed.
    File {
        file: File,
        offset: u64,
        changed: ChangedBlocks,
    },
    Memory(Vec<u8>),
}

/// The running system as an image. What lies in no part of it is zero.
#[derive(Debug)]
pub(crate) struct RunningDisk {
    parts: Vec<DiskPart>,
    size: u64,
}

impl RunningDisk {
    /// Puts the image together, with a file in `workspace`, which a reboot should empty.
    pub(crate) fn open(record: &BootRecord, workspace: &Path) -> Result<Self, ReadRunningDiskError> {
        let devices = &record.devices;
        let disk = OpenedDisk::open(&devices.disk)?;
        let layout = disk.plan_copy(random_guid()?)?;
        let place = |role| {
            let placed = layout.partition_of(role);
            placed.byte_offset().get()..placed.byte_offset().get() + placed.byte_size().get()
        };
        let copied = |role, from: PartitionRole| disk.part_at(place(role), place(from).start);
        let mut parts =
            vec![DiskPart { range: 0..1 << 20, content: PartContent::Memory(disk.new_head(&layout)?) }];
        parts.push(copied(PartitionRole::Bios, PartitionRole::Bios)?);
        parts.push(disk.esp_without_seed(place(PartitionRole::Esp))?);
        parts.push(disk.fresh_slot_table(place(PartitionRole::Abstate))?);
        parts.push(copied(PartitionRole::Root(Slot::A), PartitionRole::Root(record.slot))?);
        let state = make_state(
            Uuid::new_v5(&layout.partition_guid(PartitionRole::State), b"file system"),
            workspace,
        )?;
        let content = PartContent::File { file: state, offset: 0, changed: ChangedBlocks::new() };
        parts.push(DiskPart { range: place(PartitionRole::State), content });
        Ok(Self { parts, size: layout.disk_size().get() })
    }
}

fn random_guid() -> Result<Uuid, ReadRunningDiskError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ReadRunningDiskError::Random { said: error.to_string() })?;
    // Derived, as the GUIDs of images are: by that the first boot knows that it is to replace them.
    Ok(Uuid::new_v5(&Uuid::from_bytes(bytes), b"disk"))
}

/// The disk of this machine, open.
struct OpenedDisk {
    file: File,
    table: gpt::PartitionTable,
}

impl OpenedDisk {
    fn open(path: &Path) -> Result<Self, ReadRunningDiskError> {
        let unread = |source| ReadRunningDiskError::Read { what: path.display().to_string(), source };
        let file = File::open(path).map_err(unread)?;
        let size = Bytes::new(disk_formats::disk::ReadAt::byte_length(&file).map_err(unread)?);
        let copy = |offset: Option<Bytes>| {
            let mut bytes = vec![0; COPY_BYTES];
            // A copy that cannot be read is a damaged one: the other may do.
            let read = offset.and_then(|offset| file.read_exact_at(&mut bytes, offset.get()).ok());
            read.map_or_else(Vec::new, |()| bytes)
        };
        let table = gpt::read(&copy(Some(PRIMARY_OFFSET)), &copy(gpt::backup_offset(size)), size)?;
        Ok(Self { file, table })
    }

    /// The layout of the new disk, in which all but STATE lies where it lies here.
    fn plan_copy(&self, disk_guid: Uuid) -> Result<DiskLayout, ReadRunningDiskError> {
        let root = self.table.find_label("ROOT-A").ok_or(ReadRunningDiskError::Layout)?.byte_size();
        let layout = DiskLayout::plan_layout(disk_guid, PartitionSizes { root, state: STATE_BYTES })?;
        let fits = layout.partitions().iter().all(|placed| {
            let entry = self.table.find_label(placed.partition.label);
            entry.is_some_and(|entry| {
                entry.first_lba == placed.first_lba
                    && (placed.partition.role == PartitionRole::State
                        || entry.byte_size() == placed.byte_size())
            })
        });
        if fits { Ok(layout) } else { Err(ReadRunningDiskError::Layout) }
    }

    fn read(&self, range: &Range<u64>) -> Result<Vec<u8>, ReadRunningDiskError> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, range.start);
        read.map_err(|source| ReadRunningDiskError::Read { what: "this machine's disk".to_owned(), source })?;
        Ok(bytes)
    }

    /// Boot code as it is, and the partition table of the new disk.
    fn new_head(&self, layout: &DiskLayout) -> Result<Vec<u8>, ReadRunningDiskError> {
        let mut head = self.read(&(0..SECTOR as u64))?;
        let copies = gpt::encode_table(&layout.partition_table(), layout.disk_size())
            .map_err(|_| ReadRunningDiskError::Layout)?;
        head.extend(copies.primary);
        head.resize(1 << 20, 0);
        Ok(head)
    }

    fn part_at(&self, range: Range<u64>, offset: u64) -> Result<DiskPart, ReadRunningDiskError> {
        let file = self.file.try_clone();
        let file = file.map_err(|source| ReadRunningDiskError::Read {
            what: "this machine's disk".to_owned(),
            source,
        })?;
        Ok(DiskPart { range, content: PartContent::File { file, offset, changed: ChangedBlocks::new() } })
    }

    fn esp_without_seed(&self, range: Range<u64>) -> Result<DiskPart, ReadRunningDiskError> {
        let start = range.start;
        let read = |buffer: &mut [u8], offset: u64| self.file.read_exact_at(buffer, start + offset);
        let paths = SEED_FILES.map(|name| format!("{SEED}/{name}"));
        let paths = paths.each_ref().map(String::as_str);
        let planned = plan_removal(&read, range.end - range.start, &paths)
            .map_err(|source| ReadRunningDiskError::Read { what: "the EFI partition".to_owned(), source })?;
        let mut part = self.part_at(range, start)?;
        if let PartContent::File { changed, .. } = &mut part.content {
            *changed = planned;
        }
        Ok(part)
    }

    fn fresh_slot_table(&self, range: Range<u64>) -> Result<DiskPart, ReadRunningDiskError> {
        let mut bytes = self.read(&range)?;
        let block = SlotTable::FRESH.to_block();
        for offset in [ENV0_OFFSET, ENV1_OFFSET] {
            let at = usize::try_from(offset.get()).unwrap_or(usize::MAX);
            let place =
                bytes.get_mut(at..at.saturating_add(block.len())).ok_or(ReadRunningDiskError::Layout)?;
            place.copy_from_slice(&block);
        }
        Ok(DiskPart { range, content: PartContent::Memory(bytes) })
    }
}

/// An empty STATE, with the options of `image-builder` (see there, `write_state`).
fn make_state(uuid: Uuid, workspace: &Path) -> Result<File, ReadRunningDiskError> {
    let failed = |error: io::Error| ReadRunningDiskError::MakeState { said: error.to_string() };
    let path = &workspace.join(STATE_FILE);
    // What an installation that was killed has left there.
    let _ = fs::remove_file(path);
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.set_len(STATE_BYTES.get()).map_err(failed)?;
    let options = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard,resize=536870912";
    let output = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-J", "size=16", "-L", "STATE"])
        .args(["-O", "metadata_csum_seed", "-U"])
        .arg(uuid.to_string())
        .args(["-E", options])
        .arg(path)
        .output();
    let removed = fs::remove_file(path);
    let output = output.map_err(failed)?;
    removed.map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ReadRunningDiskError::MakeState { said });
    }
    Ok(file)
}

impl ReadDisk for RunningDisk {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        for part in &self.parts {
            let (start, stop) = (part.range.start.max(offset), part.range.end.min(end));
            if start < stop {
                let place = |at: u64| usize::try_from(at - offset).map_err(io::Error::other);
                part.read(&mut buffer[place(start)?..place(stop)?], start - part.range.start)?;
            }
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let behind = self.parts.iter().find(|part| part.range.end > offset);
        Ok(behind.map(|part| part.range.start.max(offset)..part.range.end))
    }
}

impl DiskPart {
    fn read(&self, buffer: &mut [u8], within: u64) -> io::Result<()> {
        match &self.content {
            PartContent::Memory(bytes) => {
                let start = usize::try_from(within).map_err(io::Error::other)?;
                let found = bytes.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(found);
            }
            PartContent::File { file, offset, changed } => {
                file.read_exact_at(buffer, offset + within)?;
                overlay_blocks(buffer, within, changed)?;
            }
        }
        Ok(())
    }
}

/// Puts changed blocks over what was read from there.
fn overlay_blocks(buffer: &mut [u8], within: u64, changed: &ChangedBlocks) -> io::Result<()> {
    let end = within + buffer.len() as u64;
    for (at, block) in changed {
        let (start, stop) = (within.max(*at), end.min(at + block.len() as u64));
        if start < stop {
            let place = |place: u64, from: u64| usize::try_from(place - from).map_err(io::Error::other);
            let source = &block[place(start, *at)?..place(stop, *at)?];
            buffer[place(start, within)?..place(stop, within)?].copy_from_slice(source);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
