//! Makes the disk differ from all others of its image, once.
//!
//! Every disk of an image has the same GUIDs and volume serial numbers, by which firmware and tools
//! of a rescue system may take one for the other. The partition table gets its own GUIDs while it is
//! grown; this is the rest. Nothing of it decides which disk boots: the tag in the slot table does.
//! Knows where FAT keeps its serial number and ext4 its UUID. Refuses to change what is not as the
//! image had it. Invariant: every write keeps the file system whole, wherever the power goes.
//!
//! Documentation: Microsoft's FAT specification, section 3, and
//! <https://docs.kernel.org/filesystems/ext4/super.html>.

use std::fs::File;
use std::io;

use image_format::bytes::Bytes;
use image_format::disk_tag::{DiskTag, ID_BYTES};
use image_format::gpt::{PartitionEntry, is_derived};
use image_format::layout::PartitionRole;
use uuid::Uuid;

use super::console;
use super::disk::BootDisk;
use crate::block_device::BlockDevice;
use crate::ioctl;

const SECTOR_BYTES: usize = 512;

/// A tag that no other disk has, unless the kernel gives no random bytes.
pub(super) fn random_tag() -> Option<DiskTag> {
    random_bytes::<ID_BYTES>().map(DiskTag::new)
}

/// Random bytes. Without them the disk keeps what it has, and the machine boots.
pub(super) fn random_bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Some(bytes),
        Err(error) => {
            console::write_kernel_log(&format!("cannot get random bytes for the disk's identity: {error}"));
            None
        }
    }
}

/// Gives the FAT volumes of a disk that has the GUIDs of its image other serial numbers. Called
/// before the partition table gets its own: that write says that this is done.
pub(super) fn renew_serials(disk: &BootDisk, device: &BlockDevice) {
    // The GUIDs are replaced last, so they tell whether all of this is done.
    if !disk.table.is_of_image() {
        return;
    }
    for role in [PartitionRole::Esp, PartitionRole::Abstate] {
        let Some((entry, serial)) = disk.entry_of(role).zip(random_bytes()) else { continue };
        if let Err(error) = renew_serial(device, entry, serial) {
            let label = &entry.label;
            console::write_kernel_log(&format!(
                "the volume {label} keeps the serial number of the image: {error}"
            ));
        }
    }
}

fn renew_serial(device: &BlockDevice, entry: &PartitionEntry, serial: [u8; 4]) -> io::Result<()> {
    let boot_sector = device.read(entry.byte_offset(), SECTOR_BYTES)?;
    let place = SerialPlace::find_serial(&boot_sector).ok_or(io::ErrorKind::InvalidData)?;
    for sector in place.backup_sector.into_iter().chain([0]) {
        let at = Bytes::new(entry.byte_offset().get() + u64::from(sector) * SECTOR_BYTES as u64);
        let mut bytes = device.read(at, SECTOR_BYTES)?;
        // A backup that is none is left alone; it was of no use before either.
        if SerialPlace::find_serial(&bytes).is_some() {
            bytes[place.offset..place.offset + serial.len()].copy_from_slice(&serial);
            device.write(at, &bytes)?;
        }
    }
    Ok(())
}

/// Where a FAT volume keeps its serial number (Microsoft's FAT specification, BPB).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SerialPlace {
    offset: usize,
    /// FAT32 has a second copy of the boot sector.
    backup_sector: Option<u16>,
}

impl SerialPlace {
    fn find_serial(boot_sector: &[u8]) -> Option<Self> {
        if boot_sector.get(510..512)? != [0x55, 0xaa] {
            return None;
        }
        if boot_sector.get(82..87)? == b"FAT32" {
            let backup = u16::from_le_bytes(*boot_sector.get(50..)?.first_chunk()?);
            // 0 and 0xffff say that there is none; more than the reserved sectors of our images is no place.
            return Some(Self { offset: 67, backup_sector: (1..32).contains(&backup).then_some(backup) });
        }
        (boot_sector.get(54..57)? == b"FAT").then_some(Self { offset: 39, backup_sector: None })
    }
}

/// Gives a mounted ext4 that has the UUID of its image another one. The kernel writes it through the
/// journal, which must be replayed by then, so this is not done to the partition.
pub(super) fn renew_uuid(superblock: &[u8], mounted: &File) {
    let current = superblock.get(0x68..).and_then(|rest| rest.first_chunk()).copied().map(Uuid::from_bytes);
    if !current.is_some_and(is_derived) {
        return;
    }
    let Some(random) = random_bytes() else { return };
    let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
    if let Err(error) = ioctl::set_ext4_uuid(mounted, uuid.into_bytes()) {
        console::write_kernel_log(&format!("the file system on STATE keeps the UUID of the image: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::super::disk::tests::layout;
    use super::*;
    use crate::block_device::AccessMode;

    fn fat12() -> Vec<u8> {
        let mut sector = vec![0x11; SECTOR_BYTES];
        sector[54..62].copy_from_slice(b"FAT12   ");
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    fn fat32() -> Vec<u8> {
        let mut sector = vec![0x22; SECTOR_BYTES];
        sector[50..52].copy_from_slice(&6_u16.to_le_bytes());
        sector[82..90].copy_from_slice(b"FAT32   ");
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    fn disk(esp: &[u8], backup: &[u8], abstate: &[u8]) -> (tempfile::NamedTempFile, BootDisk) {
        let (layout, file) = (layout(), tempfile::NamedTempFile::new().unwrap());
        file.as_file().set_len(layout.disk_size().get()).unwrap();
        let at = |role| layout.partition_of(role).byte_offset().get();
        for (offset, bytes) in [
            (at(PartitionRole::Esp), esp),
            (at(PartitionRole::Esp) + 6 * 512, backup),
            (at(PartitionRole::Abstate), abstate),
        ] {
            file.as_file().write_all_at(bytes, offset).unwrap();
        }
        let boot =
            BootDisk::new("/sys".into(), file.path().to_owned(), "vda".into(), layout.partition_table());
        (file, boot)
    }

    /// Which bytes of which sectors two files differ in.
    fn differences(before: &[u8], after: &[u8]) -> Vec<(u64, usize)> {
        let differs = |at: &usize| before[*at] != after[*at];
        let places = (0..before.len()).filter(differs);
        places.map(|at| ((at / SECTOR_BYTES) as u64, at % SECTOR_BYTES)).collect()
    }

    #[test]
    fn only_the_serial_numbers_of_the_two_volumes_change() {
        let (file, disk) = disk(&fat32(), &fat32(), &fat12());
        let before = std::fs::read(file.path()).unwrap();
        let device = BlockDevice::open_device(file.path(), AccessMode::Write).unwrap();

        renew_serials(&disk, &device);

        let after = std::fs::read(file.path()).unwrap();
        let first = |role| layout().partition_of(role).first_lba;
        let changed = differences(&before, &after);
        let places = [
            (first(PartitionRole::Esp), 67),
            (first(PartitionRole::Esp) + 6, 67),
            (first(PartitionRole::Abstate), 39),
        ];
        for (sector, offset) in &changed {
            let inside = |(place, at): &(u64, usize)| sector == place && (*at..at + 4).contains(offset);
            assert!(places.iter().any(inside), "byte {offset} of sector {sector}");
        }
        for (place, _) in places {
            assert!(changed.iter().any(|(sector, _)| *sector == place), "sector {place} is as it was");
        }
    }

    #[test]
    fn a_disk_that_has_its_own_guids_is_left_alone() {
        let (file, mut disk) = disk(&fat32(), &fat32(), &fat12());
        disk.table.disk_guid = Uuid::nil();
        disk.table.entries.iter_mut().for_each(|entry| entry.guid = Uuid::nil());
        let before = std::fs::read(file.path()).unwrap();
        let device = BlockDevice::open_device(file.path(), AccessMode::Write).unwrap();

        renew_serials(&disk, &device);

        assert_eq!(std::fs::read(file.path()).unwrap(), before);
    }

    #[test]
    fn what_is_no_fat_volume_is_left_alone() {
        let (file, disk) = disk(&[0x33; SECTOR_BYTES], &[0x33; SECTOR_BYTES], &[0x44; SECTOR_BYTES]);
        let before = std::fs::read(file.path()).unwrap();
        let device = BlockDevice::open_device(file.path(), AccessMode::Write).unwrap();

        renew_serials(&disk, &device);

        assert_eq!(std::fs::read(file.path()).unwrap(), before);
    }
}
