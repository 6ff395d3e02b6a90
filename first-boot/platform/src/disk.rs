//! Reads configuration files from the small disks that platforms attach.
//!
//! Knows FAT and ISO 9660, and reads them itself: nothing is mounted, so nothing has to be
//! unmounted, no kernel module is needed and udev need not have settled. Refuses to write.
//! Invariant: a crafted disk costs a bounded number of bytes read, whatever loops it contains.
//!
//! Documentation: Microsoft's "FAT32 File System Specification" 1.03, ECMA-119 (ISO 9660) and ECMA-167 (UDF).

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use crate::{
    BOOT_RECORD, RunningDisk,
    host::{BlockDevice, Host, read_all},
    iso9660::{Iso9660, read_at},
};

/// How much may be read of one disk, directories and tables included.
// Room for two payloads of 16 MiB and their tables, several times over. A chain that loops ends here.
const READ_BUDGET: u64 = 96 << 20;

/// What is asked of the kernel at once.
// The file systems were read byte by byte before. With fewer flushes, windows took an empty configuration
// from 190 to 130 ms on an idle emulated machine.
const WINDOW: usize = 16 << 10;

/// A file system on a disk that was attached to configure this machine.
#[derive(Debug)]
pub struct ConfigVolume<R: Read + Seek> {
    label: String,
    files: FileReader<R>,
}

/// What reads the files.
enum FileReader<R: Read + Seek> {
    Fat(Box<fatfs::FileSystem<ReadOnly<R>>>),
    Iso(Box<Iso9660<ReadOnly<R>>>),
}

impl<R: Read + Seek> ConfigVolume<R> {
    /// Recognises the file system on `source`; `None` when it is neither FAT nor ISO 9660.
    #[must_use]
    pub fn open_volume(source: R) -> Option<Self> {
        let mut source = ReadOnly::new(source);
        if let Some(iso) = is_iso9660(&mut source).then(|| Iso9660::open_iso(&mut source)).flatten() {
            return Some(Self {
                label: iso.volume_label(),
                files: FileReader::Iso(Box::new(iso.with_source(source))),
            });
        }
        if !is_fat(&mut source) {
            return None;
        }
        source.seek(SeekFrom::Start(0)).ok()?;
        let fat = fatfs::FileSystem::new(source, fatfs::FsOptions::new()).ok()?;
        // Windows keeps the label in the root directory. The boot sector may still hold an older one.
        let in_root = fat.read_volume_label_from_root_dir().ok().flatten();
        let label = in_root.unwrap_or_else(|| fat.volume_label());
        Some(Self { label: label.trim().to_owned(), files: FileReader::Fat(Box::new(fat)) })
    }

    /// The volume's name.
    #[must_use]
    pub fn volume_label(&self) -> &str {
        &self.label
    }

    /// The file at `path`, or `None` when there is none; more than `limit` bytes are refused.
    pub fn read(&mut self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        match &mut self.files {
            FileReader::Fat(fat) => match fat.root_dir().open_file(path) {
                Ok(file) => read_all(file, limit).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            FileReader::Iso(iso) => iso.read(path, limit),
        }
    }
}

impl<R: Read + Seek> std::fmt::Debug for FileReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fat(_) => "Fat",
            Self::Iso(_) => "Iso",
        })
    }
}

/// The volumes whose label is one of `labels`, whatever the letter case.
///
/// Whole disks and CDs only: what attaches a volume to tell a machine something does not divide it, and a
/// partition of a disk that holds data is not looked into.
pub(crate) fn find_labelled(host: &Host, labels: &[&str]) -> Vec<(BlockDevice, ConfigVolume<File>)> {
    let wanted = |label: &str| labels.iter().any(|one| one.eq_ignore_ascii_case(label));
    let whole = host.block_devices().into_iter().filter(|device| !device.is_partition);
    let volumes = whole.filter_map(|device| {
        let volume = open_device(&device).filter(|volume| wanted(volume.volume_label()))?;
        Some((device, volume))
    });
    volumes.collect()
}

/// The volume on a device that was found by its label.
pub(crate) fn on_device(path: &Path) -> Option<ConfigVolume<File>> {
    ConfigVolume::open_volume(File::open(path).ok()?)
}

/// The volume on the EFI system partition of the disk that the machine runs from, if it still bears
/// that `label`.
pub(crate) fn on_own_esp(host: &Host, label: &str) -> Option<(BlockDevice, ConfigVolume<File>)> {
    let running = RunningDisk::read(&host.path_of(BOOT_RECORD))?;
    let own = |device: &BlockDevice| {
        device.path == host.path_of(&running.esp) && device.partition_label.as_deref() == Some(label)
    };
    let device = host.block_devices().into_iter().find(own)?;
    let volume = open_device(&device)?;
    Some((device, volume))
}

/// The file at `path` on the first disk that has it; discs that only the kernel can read, in the
/// UDF format, are mounted for it.
pub(crate) fn find_file(host: &Host, path: &str, limit: u64) -> Option<Vec<u8>> {
    host.block_devices().iter().filter(|device| !device.is_partition).find_map(|device| {
        let read = match open_device(device) {
            Some(mut volume) => volume.read(path, limit).ok().flatten(),
            None => None,
        };
        read.or_else(|| is_udf(device).then(|| host.read_from_udf(&device.path, path, limit)).flatten())
    })
}

/// UDF's volume recognition sequence stands behind that of ISO 9660.
fn is_udf(device: &BlockDevice) -> bool {
    let Ok(mut file) = File::open(&device.path) else { return false };
    // ECMA-167 puts the sequence at byte 32768. Sixteen sectors hold all of its descriptors and those of ISO
    // 9660.
    (16..32).any(|sector| read_at(&mut file, sector * 2048 + 1, 4).is_ok_and(|magic| magic == *b"NSR0"))
}

fn open_device(device: &BlockDevice) -> Option<ConfigVolume<File>> {
    on_device(&device.path)
}

fn is_iso9660(source: &mut (impl Read + Seek)) -> bool {
    read_at(source, 0x8001, 5).is_ok_and(|magic| magic == *b"CD001")
}

/// A boot signature, a plausible geometry and the word FAT where the file system's type stands.
fn is_fat(source: &mut (impl Read + Seek)) -> bool {
    let Ok(sector) = read_at(source, 0, 512) else { return false };
    // Any boot sector ends with these two bytes, that of a partition table too, hence the other signs.
    let plausible = sector[510..] == [0x55, 0xaa] && sector[13].is_power_of_two() && sector[16] > 0;
    plausible && (sector[54..57] == *b"FAT" || sector[82..85] == *b"FAT")
}

/// A source that cannot be written and stops giving when its budget is used up. It is read by windows: file
/// systems are asked a byte here and two there, and each question to the kernel takes time.
pub(crate) struct ReadOnly<R> {
    source: R,
    budget: u64,
    position: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<R> ReadOnly<R> {
    fn new(source: R) -> Self {
        Self { source, budget: READ_BUDGET, position: 0, window: Vec::with_capacity(WINDOW), window_at: 0 }
    }

    fn spend_budget(&mut self, bytes: u64) -> io::Result<()> {
        let left = self.budget.checked_sub(bytes);
        self.budget =
            left.ok_or_else(|| io::Error::other("the file system makes us read more than it can hold"))?;
        Ok(())
    }

    /// What the window holds from here on.
    fn buffered_bytes(&self) -> &[u8] {
        let skip = self.position.checked_sub(self.window_at).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.window.get(skip..)).unwrap_or_default()
    }
}

impl<R: Read + Seek> ReadOnly<R> {
    fn move_window(&mut self) -> io::Result<()> {
        self.spend_budget(WINDOW as u64)?;
        self.window_at = self.position / WINDOW as u64 * WINDOW as u64;
        self.window.clear();
        self.source.seek(SeekFrom::Start(self.window_at))?;
        let read = self.source.by_ref().take(WINDOW as u64).read_to_end(&mut self.window);
        // What comes after a bad sector may never be asked for.
        if self.buffered_bytes().is_empty() { read.map(drop) } else { Ok(()) }
    }
}

impl<R: Read + Seek> Read for ReadOnly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Endless short reads end too.
        self.spend_budget(32)?;
        if self.buffered_bytes().is_empty() {
            self.move_window()?;
        }
        let count = self.buffered_bytes().len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.buffered_bytes()[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Seek> Seek for ReadOnly<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
            SeekFrom::End(_) => Some(self.source.seek(to)?),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl<R> Write for ReadOnly<R> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
