//! GRUB for BIOS: the boot code of sector 0 and the core image of the BIOS partition.
//!
//! No installer is run: the two places that tie them together are patched here, as
//! `grub-bios-setup` would on a real disk (GRUB 2.12, `util/setup.c` and `boot/i386/pc/boot.S`).

use image_format::bytes::Bytes;
use image_format::layout::PlacedPartition;

/// GRUB modules the selector's commands come from, and those that find its files.
pub(crate) const MODULES: [&str; 22] = [
    "biosdisk",
    "boot",
    "configfile",
    "echo",
    "ext2",
    "fat",
    "halt",
    "linux",
    "loadenv",
    "loopback",
    "memdisk",
    "minicmd",
    "normal",
    "part_gpt",
    "reboot",
    "regexp",
    "serial",
    "sleep",
    "tar",
    "terminal",
    "test",
    "true",
];

/// Where the selector is inside the core image's memory disk.
pub(crate) const SELECTOR: &str = "boot/grub/grub.cfg";

const SECTOR: usize = 512;
/// Bytes of sector 0 before the partition table that belong to boot code.
// From 440 on stand the disk's signature and the old partition table.
pub(crate) const BOOT_CODE: usize = 440;
/// In boot code: the sector of the core image.
const KERNEL_SECTOR: usize = 0x5c;
/// In boot code: a jump that must become two `nop`s, so that the BIOS's word on the drive is taken.
// grub-bios-setup does so for disks that are no floppies: some BIOSes pass a wrong drive number.
const DRIVE_CHECK: usize = 0x66;
/// In the core image's first sector: the list of sectors it continues on.
const BLOCK_LIST: usize = 0x1f4;
/// Where in memory, divided by 16, the rest of the core image goes.
const LOAD_SEGMENT: u16 = 0x0820;

/// The memory disk: a tar with the selector in it.
pub(crate) fn memory_disk(selector: &str) -> std::io::Result<Vec<u8>> {
    let mut tree = crate::rootfs::tree::RootTree::default();
    tree.insert(SELECTOR, crate::rootfs::tree::TreeEntry::file(selector.as_bytes(), 0o644));
    let mut tar = Vec::new();
    tree.write_tar(&mut tar, 0)?;
    Ok(tar)
}

/// Boot code that loads the core image from the BIOS partition.
pub(crate) fn boot_code(boot_img: &[u8], bios: &PlacedPartition) -> Result<[u8; BOOT_CODE], CoreImageError> {
    let mut code = [0; BOOT_CODE];
    code.copy_from_slice(boot_img.get(..BOOT_CODE).ok_or(CoreImageError::BootCode)?);
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&bios.first_lba.to_le_bytes());
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(code)
}

/// The core image, told where the rest of it lies.
pub(crate) fn place_core(mut core: Vec<u8>, bios: &PlacedPartition) -> Result<Vec<u8>, CoreImageError> {
    // The first sector is loaded by the boot code and loads the others itself.
    let sectors = core.len().div_ceil(SECTOR);
    if core.len() < SECTOR || sectors as u64 > bios.sectors {
        return Err(CoreImageError::Size { size: core.len(), room: bios.byte_size() });
    }
    core.resize(sectors * SECTOR, 0);
    // The list has 16 bits for the count, 8 bytes for the first sector before it, and the segment behind it.
    let rest = u16::try_from(sectors - 1)
        .map_err(|_| CoreImageError::Size { size: core.len(), room: bios.byte_size() })?;
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(bios.first_lba + 1).to_le_bytes());
    core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&rest.to_le_bytes());
    core[BLOCK_LIST + 10..BLOCK_LIST + 12].copy_from_slice(&LOAD_SEGMENT.to_le_bytes());
    Ok(core)
}

/// Why GRUB for BIOS cannot be put on the disk.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CoreImageError {
    #[error("GRUB's boot.img is shorter than {BOOT_CODE} bytes")]
    BootCode,
    #[error("GRUB's core image has {size} bytes, the BIOS partition has room for {room}")]
    Size { size: usize, room: Bytes },
}
