//! Files for the EFI partition: planned in memory, as the blocks that change.
//!
//! The crate fatfs writes them, with a fixed clock, so that the same files give the same bytes. Refuses to make a volume:
//! image-builder does. Invariant: nothing of the volume changes before all of the change is known to fit.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{Date, DateTime, FileSystem, FsOptions, ReadWriteSeek, Time, TimeProvider};

/// The folder in which a machine looks for its first configuration (the names are `NoCloud`'s).
pub const SEED: &str = "seed";
/// No cloud hands over more; the agent reads no more.
pub const MAX_SEED_BYTES: u64 = 1 << 20;

const BLOCK: u64 = 4096;

/// A file to be.
#[derive(Debug, Clone)]
pub struct FatFile {
    /// Parts joined by `/`; directories are made as needed.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The first moment FAT can write down: image times say nothing about the files.
#[derive(Debug)]
struct FixedClock;

impl TimeProvider for FixedClock {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

static CLOCK: FixedClock = FixedClock;

/// Opens a volume, to be changed by nobody's clock.
pub fn open_volume<D: ReadWriteSeek>(disk: D) -> io::Result<FileSystem<D>> {
    FileSystem::new(disk, FsOptions::new().time_provider(&CLOCK))
}

/// Writes `files` into a volume, over what has their names; their directories exist.
pub fn write_files<D: ReadWriteSeek>(disk: D, files: &[FatFile]) -> io::Result<()> {
    let system = open_volume(disk)?;
    for FatFile { path, bytes } in files {
        let mut file = system.root_dir().create_file(path)?;
        file.truncate()?;
        file.write_all(bytes)?;
        file.flush()?;
    }
    // Counts the free clusters, which a fresh volume does not know.
    system.stats()?;
    system.unmount()
}

/// Removes files that are there, after zeros over their content: what a machine was told once may hold passwords.
pub fn remove_files<D: ReadWriteSeek>(disk: D, paths: &[&str]) -> io::Result<()> {
    let system = open_volume(disk)?;
    for path in paths {
        let mut file = match system.root_dir().open_file(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        io::copy(&mut io::repeat(0).take(length), &mut file)?;
        file.flush()?;
        drop(file);
        system.root_dir().remove(path)?;
    }
    system.stats()?;
    system.unmount()
}

/// Blocks of a volume, by where in it they lie.
pub type ChangedBlocks = BTreeMap<u64, Vec<u8>>;

/// Reads a volume's bytes from a place in it.
pub type ReadVolume<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// The blocks that change when these files come into a volume of that size, of which `read` reads.
///
/// To be written from the last to the first: the FAT then comes after the files' data, which nothing refers to until
/// then.
pub fn plan_files(read: ReadVolume<'_>, size: u64, files: &[FatFile]) -> io::Result<ChangedBlocks> {
    plan_changes(read, size, |volume| write_files(volume, files))
}

/// The blocks that change when these files go.
pub fn plan_removal(read: ReadVolume<'_>, size: u64, paths: &[&str]) -> io::Result<ChangedBlocks> {
    plan_changes(read, size, |volume| remove_files(volume, paths))
}

fn plan_changes(
    read: ReadVolume<'_>,
    size: u64,
    change: impl FnOnce(&mut VolumeOverlay<'_>) -> io::Result<()>,
) -> io::Result<ChangedBlocks> {
    let mut volume = VolumeOverlay { read, size, at: 0, changed: BTreeMap::new() };
    change(&mut volume)?;
    let mut changed = volume.changed;
    let mut unlike = Vec::new();
    for (offset, block) in &changed {
        let mut before = vec![0; block.len()];
        read(&mut before, *offset)?;
        unlike.extend((before != *block).then_some(*offset));
    }
    changed.retain(|offset, _| unlike.contains(offset));
    Ok(changed)
}

/// A volume whose changes are kept in memory: a machine that installs may have less of it than its EFI partition has.
struct VolumeOverlay<'a> {
    read: ReadVolume<'a>,
    size: u64,
    at: u64,
    changed: ChangedBlocks,
}

impl VolumeOverlay<'_> {
    /// The block that holds the current place, how far in that is, and how much of `wanted` lies in it.
    fn place(&self, wanted: usize) -> (u64, usize, usize) {
        let block = self.at / BLOCK * BLOCK;
        let (length, within) = (BLOCK.min(self.size.saturating_sub(block)), self.at - block);
        // Both are at most a block.
        let room = usize::try_from(length.saturating_sub(within)).unwrap_or_default();
        (block, usize::try_from(within).unwrap_or_default(), wanted.min(room))
    }

    fn load(&self, block: u64) -> io::Result<Vec<u8>> {
        if let Some(changed) = self.changed.get(&block) {
            return Ok(changed.clone());
        }
        let length = BLOCK.min(self.size.saturating_sub(block));
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        (self.read)(&mut bytes, block)?;
        Ok(bytes)
    }
}

impl Read for VolumeOverlay<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (block, within, length) = self.place(buffer.len());
        if length > 0 {
            buffer[..length].copy_from_slice(&self.load(block)?[within..within + length]);
        }
        self.at += length as u64;
        Ok(length)
    }
}

impl Write for VolumeOverlay<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (block, within, length) = self.place(bytes.len());
        if length > 0 {
            let mut changed = self.load(block)?;
            changed[within..within + length].copy_from_slice(&bytes[..length]);
            self.changed.insert(block, changed);
        }
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for VolumeOverlay<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use fatfs::{FatType, FormatVolumeOptions};

    use super::*;

    fn volume() -> Vec<u8> {
        let mut disk = Cursor::new(vec![0; 4 << 20]);
        fatfs::format_volume(&mut disk, FormatVolumeOptions::new().fat_type(FatType::Fat12).volume_id(7))
            .unwrap();
        open_volume(&mut disk).unwrap().root_dir().create_dir(SEED).unwrap();
        disk.into_inner()
    }

    fn plan(volume: &[u8], bytes: Vec<u8>) -> io::Result<ChangedBlocks> {
        let read = |buffer: &mut [u8], offset: u64| {
            let start = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&volume[start..start + buffer.len()]);
            Ok(())
        };
        plan_files(&read, volume.len() as u64, &[FatFile { path: "seed/user-data".to_owned(), bytes }])
    }

    #[test]
    fn the_planned_blocks_give_the_volume_that_writing_the_files_gives() {
        let (mut planned, bytes) = (volume(), b"#cloud-config\n".repeat(9000));
        let mut written = Cursor::new(planned.clone());
        let files = [FatFile { path: "seed/user-data".to_owned(), bytes: bytes.clone() }];
        write_files(&mut written, &files).unwrap();

        for (offset, block) in plan(&planned, bytes).unwrap().iter().rev() {
            let start = usize::try_from(*offset).unwrap();
            planned[start..start + block.len()].copy_from_slice(block);
        }

        assert!(planned == written.into_inner());
    }

    #[test]
    fn a_file_that_goes_leaves_neither_its_name_nor_its_bytes() {
        let (mut volume, bytes) = (volume(), b"password: hunter2\n".repeat(2000));
        let empty = volume.clone();
        let files = [FatFile { path: "seed/user-data".to_owned(), bytes }];
        write_files(Cursor::new(&mut volume[..]), &files).unwrap();

        let read = |buffer: &mut [u8], offset: u64| {
            let start = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&volume[start..start + buffer.len()]);
            Ok(())
        };
        let changed =
            plan_removal(&read, volume.len() as u64, &["seed/user-data", "seed/meta-data"]).unwrap();
        for (offset, block) in &changed {
            let start = usize::try_from(*offset).unwrap();
            volume[start..start + block.len()].copy_from_slice(block);
        }

        assert!(!volume.windows(7).any(|bytes| bytes == b"hunter2"));
        let system = open_volume(Cursor::new(volume)).unwrap();
        assert!(system.root_dir().open_file("seed/user-data").is_err());
        let (free, before) =
            (system.stats().unwrap(), open_volume(Cursor::new(empty)).unwrap().stats().unwrap());
        assert_eq!(free.free_clusters(), before.free_clusters());
    }

    #[test]
    fn what_does_not_fit_is_refused_before_a_block_is_written() {
        assert!(plan(&volume(), vec![1; 5 << 20]).is_err());
    }
}
