//! ABSTATE: the small file system that GRUB reads and writes the slot table in.
//!
//! Linux never mounts it: the agent writes the two sectors where they lie. So where they lie is a
//! contract, checked at every build.

use std::io;

use fatfs::{FatType, FormatVolumeOptions};
use image_format::layout::{ABSTATE_CLUSTER, ABSTATE_ROOT_ENTRIES, ABSTATE_SIZE, ENV0_OFFSET, ENV1_OFFSET};
use image_format::slot::SlotTable;
use uuid::Uuid;

use super::esp::volume_id;
use super::fat;
use disk_install::esp::FatFile;

/// The partition's bytes with a table in both copies.
pub(crate) fn build_abstate(disk: Uuid, table: SlotTable) -> io::Result<Vec<u8>> {
    let bytes = table.to_block().to_vec();
    let files = ["env0", "env1"].map(|name| FatFile { path: name.to_owned(), bytes: bytes.clone() });
    let index = |size: image_format::bytes::Bytes| usize::try_from(size.get()).map_err(io::Error::other);
    let options = FormatVolumeOptions::new()
        // Forced: with another kind the two files would lie elsewhere.
        .fat_type(FatType::Fat12)
        .bytes_per_cluster(u32::try_from(ABSTATE_CLUSTER.get()).map_err(io::Error::other)?)
        .max_root_dir_entries(ABSTATE_ROOT_ENTRIES)
        .volume_id(volume_id(disk, "ABSTATE"))
        .volume_label(*b"ABSTATE    ");
    let volume = fat::fat_volume(index(ABSTATE_SIZE)?, options, &files)?;
    for offset in [index(ENV0_OFFSET)?, index(ENV1_OFFSET)?] {
        // A new release of the crate fatfs might lay a volume out in another way.
        if volume.get(offset..offset + bytes.len()) != Some(&bytes) {
            return Err(io::Error::other("the slot table does not lie where the agent will look for it"));
        }
    }
    Ok(volume)
}
