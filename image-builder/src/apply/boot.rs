//! Everything of the disk that is not a root: boot code, GRUB, the ESP, the slot table, STATE and the
//! partition table.
//!
//! Documentation: mke2fs(8), grub-mkimage(1), and for the protective MBR UEFI's specification, section 5.2.3.

use std::io::{self, Cursor};
use std::process::Command;

use image_format::bytes::Bytes;
use image_format::gpt;
use image_format::layout::{ESP_SIZE, PartitionRole, SECTOR};
use image_format::slot::SlotTable;

use super::{BuildContext, BuildError, DiskTarget};
use crate::boot::{abstate, core_image, esp, selector};
use crate::process;

// Debian's paths of the signed programs, in the packages shim-signed, shim-helpers-amd64-signed and
// grub-efi-amd64-signed.
const SHIM: &str = "usr/lib/shim/shimx64.efi.signed";
const MOK_MANAGER: &str = "usr/lib/shim/mmx64.efi.signed";
const GRUB_EFI: &str = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed";
const GRUB_BIOS: &str = "usr/lib/grub/i386-pc";

/// Writes what boots a disk.
pub(crate) fn write(site: &BuildContext<'_>, target: &DiskTarget<'_>) -> Result<(), BuildError> {
    let what = |what| move |source| BuildError::Bytes { what, source };
    let DiskTarget { disk, layout, disk_guid, tools, .. } = *target;
    let selector = selector::selector_script(layout);

    let bios = layout.partition_of(PartitionRole::Bios);
    let grub = core_image::place_core(make_core_image(site, target, &selector)?, bios)?;
    // Only what is not zero, as everywhere below: the disk is new, so the rest of it is a hole already.
    disk.write_sparse(bios.byte_offset(), &grub).map_err(what("GRUB's core image"))?;
    let boot_img = tools.read(&format!("{GRUB_BIOS}/boot.img"))?;
    let boot_code = core_image::boot_code(&boot_img, bios)?;

    let loaders = esp::BootLoaders {
        shim: tools.read(SHIM)?,
        grub: tools.read(GRUB_EFI)?,
        mok_manager: tools.read(MOK_MANAGER)?,
    };
    let size = usize::try_from(ESP_SIZE.get()).map_err(io::Error::other).map_err(what("the ESP"))?;
    let esp = esp::build_esp(size, disk_guid, loaders, &selector).map_err(what("the ESP"))?;
    disk.write_sparse(target.partition_offset(PartitionRole::Esp), &esp).map_err(what("the ESP"))?;
    let abstate = abstate::build_abstate(disk_guid, SlotTable::FRESH).map_err(what("the slot table"))?;
    disk.write_sparse(target.partition_offset(PartitionRole::Abstate), &abstate)
        .map_err(what("the slot table"))?;
    write_table(target, &boot_code).map_err(what("the partition table"))
}

fn make_core_image(
    site: &BuildContext<'_>,
    target: &DiskTarget<'_>,
    selector: &str,
) -> Result<Vec<u8>, BuildError> {
    let what = |source| BuildError::Bytes { what: "GRUB's core image", source };
    let (memory_disk, core) = (site.workspace.join("memdisk.tar"), site.workspace.join("core.img"));
    std::fs::write(&memory_disk, core_image::memory_disk(selector).map_err(what)?).map_err(what)?;
    let mut command: Command = target.tools.tool_command("usr/bin/grub-mkimage");
    command
        .arg("--directory")
        .arg(target.tools.file_path(GRUB_BIOS))
        // The selector is inside of the core image. GRUB for BIOS then needs no file system to know what to
        // do.
        .args(["--format", "i386-pc", "--prefix", "(memdisk)/boot/grub"])
        .arg("--memdisk")
        .arg(&memory_disk)
        .arg("--output")
        .arg(&core)
        .args(core_image::MODULES);
    process::run_to_end(command, site.interrupt, |_| Ok(()))
        .map_err(|source| BuildError::FileSystem { what: "making GRUB's core image", source })?;
    std::fs::read(&core).map_err(what)
}

/// The GUID partition table in both places, behind a protective MBR with boot code.
fn write_table(target: &DiskTarget<'_>, boot_code: &[u8; core_image::BOOT_CODE]) -> io::Result<()> {
    let size = target.layout.disk_size();
    let copies = gpt::encode_table(&target.layout.partition_table(), size).map_err(io::Error::other)?;
    // Whole and not sparse: in a table zeros mean something.
    target.disk.write(gpt::PRIMARY_OFFSET, &copies.primary)?;
    let backup =
        gpt::backup_offset(size).ok_or_else(|| io::Error::other("the disk has no room for a table"))?;
    target.disk.write(backup, &copies.backup)?;
    target.disk.write(Bytes::new(0), &protective_mbr(size, boot_code)?)
}

fn protective_mbr(size: Bytes, boot_code: &[u8; core_image::BOOT_CODE]) -> io::Result<Vec<u8>> {
    // UEFI 5.2.3: the size of the disk, or all ones where 32 bits cannot say it.
    let sectors = u32::try_from(size.get() / SECTOR.get() - 1).unwrap_or(u32::MAX);
    let mut sector = Cursor::new(vec![0; 512]);
    // UEFI 5.2.3: a protective MBR has zero for the disk's signature.
    let mut mbr = mbrman::MBR::new_from(&mut sector, 512, [0; 4]).map_err(io::Error::other)?;
    mbr.header.bootstrap_code = *boot_code;
    mbr[1] = mbrman::MBRPartitionEntry {
        // Not active: firmware that looks for an active entry is the kind that must read the GPT.
        boot: mbrman::BOOT_INACTIVE,
        first_chs: mbrman::CHS::new(0, 0, 2),
        sys: 0xee,
        last_chs: mbrman::CHS::new(1023, 254, 63),
        starting_lba: 1,
        sectors,
    };
    mbr.header.write_into(&mut sector).map_err(io::Error::other)?;
    Ok(sector.into_inner())
}

/// Makes the file system of STATE: a few MiB, with room in its descriptors to grow to 2 TiB at once.
pub(crate) fn write_state(site: &BuildContext<'_>, target: &DiskTarget<'_>) -> Result<(), BuildError> {
    let uuid = target.derive_identifier("state file system");
    let size = target.layout.partition_of(PartitionRole::State).byte_size();
    let options = format!(
        // Without a seed mke2fs takes a random one, and no two images would be equal. Lazy tables are filled
        // by the kernel after the first mount, at the boot that is to be short. `resize=` keeps room for the
        // descriptors of 2 TiB.
        "hash_seed={uuid},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard,resize={},offset={}",
        1_u64 << 29,
        target.partition_offset(PartitionRole::State).get()
    );
    let mut command = target.tools.tool_command("usr/sbin/mke2fs");
    command
        .env("SOURCE_DATE_EPOCH", target.epoch.to_string())
        // 1 % for root instead of 5, which on a large disk is more than root ever needs. A journal of 16 MiB,
        // since STATE is small in the image.
        .args(["-q", "-t", "ext4", "-b", "4096", "-m", "1", "-J", "size=16", "-L", "STATE"])
        // Without it every checksum follows from the UUID, and the kernel refuses to change that on the
        // first boot. Said here, since the default is the mke2fs.conf that is found.
        .args(["-O", "metadata_csum_seed", "-U"])
        .arg(uuid.to_string())
        .args(["-E", &options])
        .arg(target.disk.path())
        .arg(format!("{}k", size.get() >> 10));
    process::run_to_end(command, site.interrupt, |_| Ok(()))
        .map(drop)
        .map_err(|source| BuildError::FileSystem { what: "making the file system of STATE", source })
}
