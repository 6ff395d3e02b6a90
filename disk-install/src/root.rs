//! What a slot of a disk holds, and whether it is what was signed.
//!
//! Refuses to choose keys: who asks brings them. Nothing that is read here is believed before a signature holds, and
//! sizes are compared with the slot before they are used.

use std::io;

use disk_formats::disk::ReadDisk;
use image_format::bytes::Bytes;
use image_format::gpt::{PartitionEntry, PartitionTable};
use image_format::layout::{Partition, PartitionRole};
use image_format::manifest::Manifest;
use image_format::signed::{Keyring, Signed};
use image_format::slot::Slot;
use image_format::trailer::{self, TRAILER_BYTES};
use image_format::verity::{self, ReadAt};

/// A stretch of a disk, readable from many threads.
#[derive(Debug, Clone, Copy)]
struct DiskStretch<'a> {
    disk: &'a dyn ReadDisk,
    offset: u64,
}

impl ReadAt for DiskStretch<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_exact_at(buffer, self.offset + offset)
    }
}

/// The manifest at the end of a slot, not believed yet. Nothing for a slot that was never written.
pub fn read_manifest(
    disk: &dyn ReadDisk,
    entry: &PartitionEntry,
) -> Result<Option<Signed<Manifest>>, String> {
    let offset = trailer::trailer_offset(entry.byte_size()).ok_or("the partition is too small for a slot")?;
    let mut bytes = vec![0; TRAILER_BYTES];
    disk.read_exact_at(&mut bytes, entry.byte_offset().get() + offset.get())
        .map_err(|error| error.to_string())?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let envelope = trailer::decode_trailer(&bytes).map_err(|error| error.to_string())?;
    Signed::from_envelope(envelope).map(Some).map_err(|error| error.to_string())
}

/// Compares every block of a root with its manifest.
pub fn verify_root(
    disk: &dyn ReadDisk,
    entry: &PartitionEntry,
    manifest: &Manifest,
    threads: usize,
) -> Result<(), String> {
    let root = &manifest.root;
    // Before anything is read by its numbers.
    if root.slot_bytes() > entry.byte_size() {
        return Err("the manifest describes a root that is larger than the slot".to_owned());
    }
    let data = DiskStretch { disk, offset: entry.byte_offset().get() };
    let built = verity::build_tree(&data, root.data_bytes, root.salt.as_bytes(), threads)
        .map_err(|error| error.to_string())?;
    if built.root_hash != root.root_hash {
        return Err("a block of the root is not what was signed".to_owned());
    }
    let length = usize::try_from(root.tree_bytes).map_err(|error| error.to_string())?;
    let mut stored = vec![0; length];
    data.read_exact_at(&mut stored, root.tree_offset).map_err(|error| error.to_string())?;
    if built.bytes == stored {
        Ok(())
    } else {
        Err("the root is what was signed, but its hash tree is damaged".to_owned())
    }
}

/// Verifies every slot of a disk with that table by these keys; says whose signatures hold. A disk without any system
/// is refused.
pub fn verify_slots(
    disk: &dyn ReadDisk,
    table: &PartitionTable,
    keys: &Keyring,
    threads: usize,
) -> Result<String, String> {
    let mut signed = Vec::new();
    for slot in Slot::BOTH {
        let label = Partition::of_role(PartitionRole::Root(slot)).label;
        let Some(entry) = table.find_label(label) else { continue };
        let refused = |because: String| format!("slot {slot}: {because}");
        let Some(manifest) = read_manifest(disk, entry).map_err(refused)? else { continue };
        let manifest = keys.verify_signed(&manifest).map_err(|error| refused(error.to_string()))?;
        verify_root(disk, entry, &manifest, threads).map_err(refused)?;
        let signers: Vec<String> = manifest.trusted_signers().iter().map(ToString::to_string).collect();
        signed.push(format!("slot {slot}, version {} by key {}", manifest.version, signers.join(", ")));
    }
    if signed.is_empty() {
        Err("neither slot holds a signed system".to_owned())
    } else {
        Ok(signed.join("; "))
    }
}

/// Bytes of a disk as its table says.
pub(crate) fn state_offset(table: &PartitionTable) -> Option<Bytes> {
    table.find_label(Partition::of_role(PartitionRole::State).label).map(PartitionEntry::byte_offset)
}
