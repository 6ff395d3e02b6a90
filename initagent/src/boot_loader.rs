//! `initagent boot-loader`: compares the boot loaders of the disk with those of the verified root, and replaces what is
//! damaged or older.
//!
//! Knows where they are, and in which order they are replaced: every GRUB before every shim, since a newer shim may
//! revoke an older GRUB, and never the other way round. `judge` decides file by file; `image_format::fat` and
//! `image_format::bios_core` make each replacement one sector. Refuses to act for a slot that has not proven itself, and
//! to bring back what is older. Invariant: after any prefix of the writes both ways of booting work as before or better.
//!
//! Documentation: UEFI's specification, section 3.5; <https://github.com/rhboot/shim/blob/main/SBAT.md>.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image_format::bios_core::{BOOT_CODE, CoreHalf, CoreHalves, PlaceCoreError};
use image_format::boot_reference as reference;
use image_format::bytes::Bytes;
use image_format::fat::{FatStep, FatVolume, ReplaceFileError};
use image_format::gpt::{COPY_BYTES, PRIMARY_OFFSET, PartitionTable, ReadTableError, backup_offset};

use crate::block_device::{AccessMode, BlockDevice};
use crate::boot_record::{self, BootRecord, ReadBootRecordError};
use crate::release_floor::ReleaseFloor;
use crate::slots::store::{SlotStore, StoreError};

/// Whether one file is to be replaced.
mod judge;
/// The words of the verb.
pub(crate) mod order;

use judge::{LoaderVerdict, ReleaseAge, judge_program, judge_text};
use order::LoaderOrder;

const SECTOR: usize = 512;

/// What is on the ESP: by which reference, in the order of replacement.
// shim looks for GRUB beside itself, so each folder is a way to boot of its own.
const ESP_FILES: [(&str, &str); 7] = [
    ("EFI/debian/grub.cfg", reference::SELECTOR),
    ("EFI/debian/grubx64.efi", reference::GRUB),
    ("EFI/BOOT/grubx64.efi", reference::GRUB),
    ("EFI/debian/mmx64.efi", reference::MOK_MANAGER),
    ("EFI/BOOT/mmx64.efi", reference::MOK_MANAGER),
    ("EFI/debian/shimx64.efi", reference::SHIM),
    ("EFI/BOOT/BOOTX64.EFI", reference::SHIM),
];

/// Why the boot loaders were not looked at or not replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootLoaderError {
    #[error("cannot read {device}")]
    Device { device: PathBuf, source: io::Error },
    #[error(
        "the EFI partition {device} is mounted; unmount it, since what is written beneath a mount is lost"
    )]
    Mounted { device: PathBuf },
    #[error("cannot place GRUB for BIOS")]
    PlaceCore(#[from] PlaceCoreError),
    #[error("cannot tell from what this machine boots")]
    Record(#[from] ReadBootRecordError),
    #[error("this release brings no {path} to compare with")]
    Reference { path: PathBuf, source: io::Error },
    #[error("cannot replace {path} on the EFI partition")]
    Replace { path: &'static str, source: ReplaceFileError },
    #[error("cannot read the slot table")]
    Slots(#[from] StoreError),
    #[error("cannot read the partition table")]
    Table(#[from] ReadTableError),
    #[error("slot {slot} has not proven itself yet: its boot loaders are not taken")]
    Unproven { slot: image_format::slot::Slot },
    #[error("the EFI partition cannot be read")]
    Volume(#[source] ReplaceFileError),
    #[error("cannot write {device}")]
    Write { device: PathBuf, source: io::Error },
}

/// What came of a look at all of them.
#[derive(Debug, Default)]
pub(crate) struct LoaderAnswer {
    pub(crate) text: String,
    /// Files that differ and were not replaced.
    pub(crate) faults: usize,
}

/// Looks at the boot loaders of this machine, and replaces what has to be.
pub(crate) fn run_order(order: LoaderOrder) -> Result<LoaderAnswer, BootLoaderError> {
    let record = BootRecord::read(Path::new(boot_record::PATH))?;
    let table = SlotStore::open_store(&record.devices.abstate, AccessMode::Read)?.read()?.current_table();
    if !table.is_some_and(|table| table.slot_state(record.slot).good) {
        return Err(BootLoaderError::Unproven { slot: record.slot });
    }
    refuse_mounted(&record.devices.esp)?;
    let access = if order == LoaderOrder::Repair { AccessMode::Write } else { AccessMode::Read };
    let open = |device: &Path| {
        BlockDevice::open_device(device, access)
            .map_err(|source| BootLoaderError::Device { device: device.to_owned(), source })
    };
    let (esp, disk) = (open(&record.devices.esp)?, open(&record.devices.disk)?);
    LoaderSite {
        esp: &esp,
        disk: &disk,
        references: Path::new(reference::FOLDER),
        age: age_of(&record),
        order,
    }
    .run()
}

/// The newest release that the machine has proven is the one whose boot loaders count.
fn age_of(record: &BootRecord) -> ReleaseAge {
    let floor = ReleaseFloor::read(Path::new("/")).ok().flatten();
    // Without a floor, as with STATE in memory, nobody knows what was proven.
    let newest = floor.is_some_and(|floor| record.version >= floor.version);
    if newest { ReleaseAge::Newest } else { ReleaseAge::Older }
}

fn refuse_mounted(esp: &Path) -> Result<(), BootLoaderError> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let is_mounted = mounts.lines().any(|line| line.split(' ').next().map(Path::new) == Some(esp));
    if is_mounted { Err(BootLoaderError::Mounted { device: esp.to_owned() }) } else { Ok(()) }
}

/// The devices, what they are compared with, and what may be done.
#[derive(Debug)]
struct LoaderSite<'a> {
    esp: &'a BlockDevice,
    disk: &'a BlockDevice,
    references: &'a Path,
    age: ReleaseAge,
    order: LoaderOrder,
}

impl LoaderSite<'_> {
    fn run(&self) -> Result<LoaderAnswer, BootLoaderError> {
        let table = self.read_table()?;
        // On a disk of another layout the selector of this release would look in the wrong places.
        let fits = self.reference(reference::PLACES)? == reference::describe_places(&table).into_bytes();
        let mut answer = LoaderAnswer::default();
        self.run_esp(fits, &mut answer)?;
        if fits {
            self.run_bios(&table, &mut answer)?;
        } else {
            answer
                .text
                .push_str("GRUB for BIOS           kept: this release is for disks of another layout\n");
        }
        Ok(answer)
    }

    fn run_esp(&self, fits: bool, answer: &mut LoaderAnswer) -> Result<(), BootLoaderError> {
        let mut volume = read_all(self.esp)?;
        for (path, name) in ESP_FILES {
            let wanted = self.reference(name)?;
            let read = FatVolume::read(&volume).map_err(BootLoaderError::Volume)?;
            let found = read.read_file(path);
            let verdict = match name {
                reference::SELECTOR if !fits => {
                    LoaderVerdict::Keep("this release is for disks of another layout")
                }
                reference::SELECTOR => judge_text(&wanted, found.as_deref(), self.age),
                _ => judge_program(&wanted, found.as_deref(), self.age),
            };
            if answer.note(path, &verdict, self.order) {
                let steps = read.plan_replacement(path, &wanted);
                let steps = steps.map_err(|source| BootLoaderError::Replace { path, source })?;
                self.carry_out(&steps, &mut volume)?;
            }
        }
        Ok(())
    }

    /// The other half gets the reference, and then sector 0 names it.
    fn run_bios(&self, table: &PartitionTable, answer: &mut LoaderAnswer) -> Result<(), BootLoaderError> {
        let Some(bios) = table.find_label("BIOS") else { return Ok(()) };
        let halves = CoreHalves::of_partition(bios.first_lba, bios.byte_size().get() / SECTOR as u64);
        let (core, boot_img) = (self.reference(reference::CORE)?, self.reference(reference::BOOT_CODE)?);
        let sector = self.read_disk(0, SECTOR)?;
        let active = halves.active(&sector);
        let verdict = match active {
            // Somebody's own boot loader, or none: which half would start is not known.
            None => LoaderVerdict::Keep("the boot code of the disk is not this system's"),
            Some(half) => {
                let wanted = halves.place_core(&core, half)?;
                let found = self.read_disk(halves.first_lba(half), wanted.len())?;
                let code = halves.boot_code(&boot_img, half)?;
                let same = sector.starts_with(&code);
                judge_text(
                    &[&wanted[..], &[1]].concat(),
                    Some(&[&found[..], &[same.into()]].concat()),
                    self.age,
                )
            }
        };
        if answer.note("GRUB for BIOS", &verdict, self.order) {
            self.flip_bios(halves, !active.unwrap_or(CoreHalf::Second), &core, &boot_img, sector)?;
        }
        Ok(())
    }

    fn flip_bios(
        &self,
        halves: CoreHalves,
        to: CoreHalf,
        core: &[u8],
        boot_img: &[u8],
        mut sector: Vec<u8>,
    ) -> Result<(), BootLoaderError> {
        let failed = |source| BootLoaderError::Write { device: self.disk.path().to_owned(), source };
        let place = Bytes::new(halves.first_lba(to) * SECTOR as u64);
        let placed = halves.place_core(core, to)?;
        self.disk.write(place, &placed).and_then(|()| self.disk.sync_all()).map_err(failed)?;
        // A disk that did not keep it keeps its old boot code.
        if self.read_disk(halves.first_lba(to), placed.len())? != placed {
            return Err(failed(io::Error::other("what was written cannot be read back")));
        }
        sector[..BOOT_CODE].copy_from_slice(&halves.boot_code(boot_img, to)?);
        self.disk.write(Bytes::new(0), &sector).and_then(|()| self.disk.sync_all()).map_err(failed)
    }

    fn carry_out(&self, steps: &[FatStep], volume: &mut [u8]) -> Result<(), BootLoaderError> {
        for step in steps {
            let done = match step {
                FatStep::Sync => self.esp.sync_all(),
                FatStep::Write { offset, bytes } => {
                    let at = usize::try_from(*offset).unwrap_or(usize::MAX);
                    if let Some(place) = volume.get_mut(at..at.saturating_add(bytes.len())) {
                        place.copy_from_slice(bytes);
                    }
                    self.esp.write(Bytes::new(*offset), bytes)
                }
            };
            done.map_err(|source| BootLoaderError::Write { device: self.esp.path().to_owned(), source })?;
        }
        Ok(())
    }

    fn reference(&self, name: &str) -> Result<Vec<u8>, BootLoaderError> {
        let path = self.references.join(name);
        fs::read(&path).map_err(|source| BootLoaderError::Reference { path, source })
    }

    fn read_table(&self) -> Result<PartitionTable, BootLoaderError> {
        let failed = |source| BootLoaderError::Device { device: self.disk.path().to_owned(), source };
        let size = self.disk.byte_size().map_err(failed)?;
        let backup = backup_offset(size).ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
        let copies = [PRIMARY_OFFSET, backup].map(|at| self.disk.read(at, COPY_BYTES).map_err(failed));
        let [primary, backup] = copies;
        Ok(image_format::gpt::read(&primary?, &backup?, size)?)
    }

    fn read_disk(&self, lba: u64, length: usize) -> Result<Vec<u8>, BootLoaderError> {
        let read = self.disk.read(Bytes::new(lba * SECTOR as u64), length);
        read.map_err(|source| BootLoaderError::Device { device: self.disk.path().to_owned(), source })
    }
}

impl LoaderAnswer {
    /// Notes a verdict, and says whether the file is to be replaced now.
    fn note(&mut self, path: &str, verdict: &LoaderVerdict, order: LoaderOrder) -> bool {
        let (said, replace) = match (verdict, order) {
            (LoaderVerdict::Same, _) => ("same".to_owned(), false),
            (LoaderVerdict::Keep(reason), _) => (format!("kept: {reason}"), false),
            (LoaderVerdict::Replace(reason), LoaderOrder::Check) => {
                self.faults += 1;
                (format!("to be replaced: {reason}"), false)
            }
            (LoaderVerdict::Replace(reason), LoaderOrder::Repair) => (format!("replaced: {reason}"), true),
        };
        let _ = writeln!(self.text, "{path:<23} {said}");
        replace
    }
}

fn read_all(device: &BlockDevice) -> Result<Vec<u8>, BootLoaderError> {
    let failed = |source| BootLoaderError::Device { device: device.path().to_owned(), source };
    let size = device.byte_size().map_err(failed)?;
    let size = usize::try_from(size.get()).map_err(|error| failed(io::Error::other(error)))?;
    device.read(Bytes::new(0), size).map_err(failed)
}

#[cfg(test)]
mod tests;
