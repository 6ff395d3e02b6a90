//! The EFI system partition: shim, Debian's GRUB, the selector, and the seed folder.
//!
//! Both usual paths are filled: `EFI/BOOT`, which firmware tries on a disk it has never seen, and
//! `EFI/debian`, where Debian's signed GRUB looks for its configuration.
//!
//! Documentation: UEFI's specification, section 3.5.1.1, for `EFI/BOOT`, and Debian's grub-efi-amd64-signed
//! for `EFI/debian`.

use std::io;

use fatfs::{FatType, FormatVolumeOptions};
use uuid::Uuid;

use super::fat;
use disk_install::esp::FatFile;

use disk_install::esp::SEED;

// Lines end as Windows has them: the ESP is the one partition that every computer opens.
const SEED_README: &str = "\
Files in this folder configure the machine on its first boot:\r\n\
  user-data        a #cloud-config document, a script, or an archive of these\r\n\
  meta-data        instance-id and local-hostname\r\n\
  network-config   addresses and routes, version 1 or 2\r\n\
All three are optional. Check them before: initagent validate user-data\r\n";

/// The signed programs of the ESP.
#[derive(Debug)]
pub(crate) struct BootLoaders {
    pub(crate) shim: Vec<u8>,
    pub(crate) grub: Vec<u8>,
    /// The MOK manager that shim starts when a signature does not fit.
    pub(crate) mok_manager: Vec<u8>,
}

/// The ESP's bytes.
pub(crate) fn build_esp(
    size: usize,
    disk: Uuid,
    loaders: BootLoaders,
    selector: &str,
) -> io::Result<Vec<u8>> {
    let BootLoaders { shim, grub, mok_manager } = loaders;
    let file = |path: &str, bytes: Vec<u8>| FatFile { path: path.to_owned(), bytes };
    let files = [
        // shim looks for GRUB and the MOK manager beside itself, so each folder has all three.
        file("EFI/BOOT/BOOTX64.EFI", shim.clone()),
        file("EFI/BOOT/grubx64.efi", grub.clone()),
        file("EFI/BOOT/mmx64.efi", mok_manager.clone()),
        file("EFI/debian/shimx64.efi", shim),
        file("EFI/debian/grubx64.efi", grub),
        file("EFI/debian/mmx64.efi", mok_manager),
        file("EFI/debian/grub.cfg", selector.as_bytes().to_vec()),
        file(&format!("{SEED}/README.txt"), SEED_README.as_bytes().to_vec()),
    ];
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        // The smallest clusters: FAT32 must have at least 65525 of them.
        .bytes_per_cluster(512)
        .volume_id(volume_id(disk, "ESP"))
        .volume_label(*b"ESP        ");
    fat::fat_volume(size, options, &files)
}

/// A volume's serial number, derived so that it repeats.
pub(crate) fn volume_id(disk: Uuid, label: &str) -> u32 {
    Uuid::new_v5(&disk, format!("volume {label}").as_bytes()).as_fields().0
}
