//! The disk that the machine runs from, and the nodes of its partitions.
//!
//! Knows where the kernel lists partitions, and reads partition tables itself: the kernel's own
//! reading needs a whole primary copy and gives no GUIDs to a program without udev. Partitions are
//! found by number, label and type, which no machine changes. Refuses to choose among disks.
//! Invariant: slot, slot table and STATE are of one disk, so that the clone of a disk, attached
//! beside it, is never mixed with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image_format::bytes::Bytes;
use image_format::gpt::{PartitionEntry, PartitionTable};
use image_format::layout::{Partition, PartitionRole};
use image_format::slot::Slot;

use crate::block_device::{AccessMode, BlockDevice};
use crate::ioctl::{self, PartitionCommand};

/// Where the kernel lists disks and partitions.
pub(super) const CLASS: &str = "/sys/class/block";

/// The disk, and the nodes of the partitions that the boot needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootDisk {
    /// Where the kernel lists it.
    class: PathBuf,
    /// The kernel's name of it.
    pub(super) name: String,
    /// Its node.
    pub(super) device: PathBuf,
    /// What its partition table says.
    pub(super) table: PartitionTable,
    /// The node of the slot table.
    pub(super) abstate: PathBuf,
    /// The node of the slot.
    pub(super) root: PathBuf,
}

/// What to do about a partition that the table has and the kernel does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingPartition {
    /// Tell the kernel.
    Add,
    /// The kernel may still be reading the table.
    Wait,
}

impl BootDisk {
    /// A disk whose partitions have no nodes yet.
    pub(super) const fn new(class: PathBuf, device: PathBuf, name: String, table: PartitionTable) -> Self {
        Self { class, name, device, table, abstate: PathBuf::new(), root: PathBuf::new() }
    }

    /// The same disk with the nodes that the boot needs.
    pub(super) fn with_nodes(self, slot: Slot, missing: MissingPartition) -> io::Result<Self> {
        let node = |role| {
            let entry = self.entry_of(role).ok_or(io::ErrorKind::NotFound)?;
            if missing == MissingPartition::Wait && self.known_partition(entry).is_none() {
                return Err(io::Error::other("its partitions are not there yet"));
            }
            self.device_node(entry)
        };
        let (abstate, root) = (node(PartitionRole::Abstate)?, node(PartitionRole::Root(slot))?);
        Ok(Self { abstate, root, ..self })
    }

    /// The entry of a role.
    pub(super) fn entry_of(&self, role: PartitionRole) -> Option<&PartitionEntry> {
        entry_of(&self.table, role)
    }

    /// Where a role's node is, if its partition exists.
    pub(super) fn partition_path(&self, role: PartitionRole) -> PathBuf {
        let number = Partition::of_role(role).number;
        let found =
            kernel_partitions(&self.class, &self.name).into_iter().find(|known| known.number == number);
        found.map_or_else(PathBuf::new, |known| known.node)
    }

    /// The node of an entry, after making the kernel know its place and size.
    pub(super) fn device_node(&self, entry: &PartitionEntry) -> io::Result<PathBuf> {
        // BLKPG changes one partition while others are in use. To read the table anew (`BLKRRPART`) needs a
        // disk that nobody uses.
        let command = match self.known_partition(entry) {
            Some(one) if one.start != entry.byte_offset() => {
                let error = format!("the kernel believes that partition {} begins elsewhere", entry.number);
                // It cannot be moved while it exists, and something may have it open.
                return Err(io::Error::other(error));
            }
            Some(one) if one.size == entry.byte_size() => return Ok(one.node),
            Some(_) => PartitionCommand::Resize,
            None => PartitionCommand::Add,
        };
        let disk = BlockDevice::open_device(&self.device, AccessMode::Read)?;
        let (start, length) = (entry.byte_offset().get(), entry.byte_size().get());
        ioctl::change_partition(disk.file(), command, entry.number, start, length)?;
        self.known_partition(entry).map(|one| one.node).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What the kernel knows of the partition of an entry.
    fn known_partition(&self, entry: &PartitionEntry) -> Option<KernelPartition> {
        kernel_partitions(&self.class, &self.name).into_iter().find(|one| one.number == entry.number)
    }
}

/// The entry of a role: the one partition with its label, if number and type are right too. The
/// selector goes by the number alone.
pub(super) fn entry_of(table: &PartitionTable, role: PartitionRole) -> Option<&PartitionEntry> {
    let Partition { number, label, type_guid, .. } = *Partition::of_role(role);
    table.find_label(label).filter(|entry| entry.number == number && entry.type_guid == type_guid)
}

/// What a disk does not have that every disk of ours has.
pub(super) fn missing_partition(table: &PartitionTable, slot: Slot) -> Option<&'static str> {
    let needed = [PartitionRole::State, PartitionRole::Abstate, PartitionRole::Root(slot)];
    needed
        .into_iter()
        .find(|role| entry_of(table, *role).is_none())
        .map(|role| Partition::of_role(role).label)
}

/// A partition as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelPartition {
    number: u32,
    node: PathBuf,
    start: Bytes,
    size: Bytes,
}

fn kernel_partitions(class: &Path, disk: &str) -> Vec<KernelPartition> {
    let folders = fs::read_dir(class.join(disk)).into_iter().flatten().flatten();
    let read = |folder: fs::DirEntry| {
        let number = |file: &str| number_in(&folder.path().join(file));
        // Documentation/ABI/stable/sysfs-block: always in units of 512 bytes.
        let sectors = |file: &str| number(file).map(|count| Bytes::new(count.saturating_mul(512)));
        Some(KernelPartition {
            number: u32::try_from(number("partition")?).ok()?,
            node: Path::new("/dev").join(folder.file_name()),
            start: sectors("start")?,
            size: sectors("size")?,
        })
    };
    folders.filter_map(read).collect()
}

/// A number in a file of the kernel's.
pub(super) fn number_in(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use image_format::layout::{DiskLayout, PartitionSizes};
    use uuid::uuid;

    use super::*;

    /// A small image's partitions.
    pub(in crate::initramfs) fn layout() -> DiskLayout {
        let disk = uuid!("a2f3c1d0-0000-5000-8000-000000000001");
        DiskLayout::plan_layout(disk, PartitionSizes { root: Bytes::from_mib(2), state: Bytes::from_mib(8) })
            .unwrap()
    }

    #[test]
    fn partitions_are_found_by_number_label_and_type() {
        let table = layout().partition_table();
        assert_eq!(entry_of(&table, PartitionRole::Root(Slot::B)).unwrap().number, 5);
        assert_eq!(missing_partition(&table, Slot::A), None);

        for change in [
            |entry: &mut PartitionEntry| entry.number = 9,
            |entry: &mut PartitionEntry| entry.label = "STATE-2".into(),
            |entry: &mut PartitionEntry| entry.type_guid = uuid!("a2f3c1d0-0000-5000-8000-000000000001"),
        ] {
            let mut other = table.clone();
            change(&mut other.entries[5]);
            assert_eq!(missing_partition(&other, Slot::A), Some("STATE"));
        }
    }

    #[test]
    fn the_kernels_partitions_are_read_with_place_and_size() {
        let class = tempfile::tempdir().unwrap();
        for name in ["vda/vda4", "vda/queue"] {
            fs::create_dir_all(class.path().join(name)).unwrap();
        }
        for (file, text) in [("partition", "4\n"), ("start", "2048\n"), ("size", "100\n")] {
            fs::write(class.path().join("vda/vda4").join(file), text).unwrap();
        }

        assert_eq!(
            kernel_partitions(class.path(), "vda"),
            [KernelPartition {
                number: 4,
                node: "/dev/vda4".into(),
                start: Bytes::MIB,
                size: Bytes::new(51200),
            }]
        );
    }
}
