//! The one table of partitions, and where each lies on the disk.
//!
//! Knows numbers, labels, types, attributes, alignment, and the fixed places of the two copies of
//! the slot table. Refuses to know what is inside a partition.
//! Invariant: all that a boot needs lies at places that follow from the size of a slot alone, so
//! the selector finds it even without a readable partition table; STATE is last, so it can grow.
//!
//! Documentation: <https://uapi-group.org/specifications/specs/discoverable_partitions_specification/>, and
//! GRUB's manual, "BIOS installation" and "Environment block".

use uuid::{Uuid, uuid};

use crate::bytes::Bytes;
pub use crate::bytes::{ALIGNMENT, SECTOR};
use crate::gpt;
use crate::slot::Slot;

/// Size of the partition that holds GRUB's core image.
pub const BIOS_SIZE: Bytes = Bytes::MIB;
/// Size of the EFI system partition.
pub const ESP_SIZE: Bytes = Bytes::from_mib(128);
/// Size of the partition that holds the slot table.
// With clusters of 4096 bytes these are about a thousand, and up to 4084 clusters are FAT12: Microsoft's FAT
// specification. GRUB's manual lets its environment block be written only on file systems without checksums.
pub const ABSTATE_SIZE: Bytes = Bytes::from_mib(4);

/// Bytes of a cluster of ABSTATE's FAT12 file system.
// Larger than an environment block, so that each copy is in one piece whatever the file system does.
pub const ABSTATE_CLUSTER: Bytes = Bytes::new(4096);
/// Entries of ABSTATE's root directory.
// The number that Microsoft's FAT specification recommends.
pub const ABSTATE_ROOT_ENTRIES: u16 = 512;
/// Where `env0` begins inside ABSTATE: cluster 2, behind one reserved sector, two tables of three
/// sectors and a root directory of 32.
pub const ENV0_OFFSET: Bytes = Bytes::new(39 * SECTOR.get());
/// Where `env1` begins inside ABSTATE: cluster 3.
pub const ENV1_OFFSET: Bytes = Bytes::new(ENV0_OFFSET.get() + ABSTATE_CLUSTER.get());

/// Read-only, in the terms of the Discoverable Partitions Specification.
pub const READ_ONLY: u64 = 1 << 60;
/// Not to be mounted automatically, in the same terms.
pub const NO_AUTO: u64 = 1 << 63;

const LINUX_ROOT_X86_64: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");

/// What a partition is for, in the order of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartitionRole {
    /// GRUB's core image, for machines that boot the old way.
    Bios,
    /// The EFI system partition, which also holds the seed.
    Esp,
    /// The two copies of the slot table.
    Abstate,
    /// The root of one slot.
    Root(Slot),
    /// Everything that is kept.
    State,
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub role: PartitionRole,
    /// Its number, from 1.
    pub number: u32,
    /// Its label, by which people and udev find it.
    pub label: &'static str,
    /// Its type.
    pub type_guid: Uuid,
    /// Its attribute bits.
    pub attributes: u64,
}

/// The table.
pub const PARTITIONS: [Partition; 6] = [
    Partition {
        role: PartitionRole::Bios,
        number: 1,
        label: "BIOS",
        // GRUB's manual: the type by which grub-install finds its place. As bytes it reads
        // "Hah!IdontNeedEFI".
        type_guid: uuid!("21686148-6449-6e6f-744e-656564454649"),
        attributes: NO_AUTO,
    },
    Partition {
        role: PartitionRole::Esp,
        number: 2,
        label: "ESP",
        // UEFI 5.3.3, table of defined types. Firmware looks for it.
        type_guid: uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
        attributes: NO_AUTO,
    },
    Partition {
        role: PartitionRole::Abstate,
        number: 3,
        label: "ABSTATE",
        // A type of our own: what nobody else knows, nobody else mounts or repairs.
        type_guid: uuid!("70dc1fc2-8bb7-4b7e-a3a5-5b0a7a9d2ce6"),
        attributes: NO_AUTO,
    },
    Partition {
        role: PartitionRole::Root(Slot::A),
        number: 4,
        label: "ROOT-A",
        type_guid: LINUX_ROOT_X86_64,
        attributes: READ_ONLY | NO_AUTO,
    },
    Partition {
        role: PartitionRole::Root(Slot::B),
        number: 5,
        label: "ROOT-B",
        type_guid: LINUX_ROOT_X86_64,
        attributes: READ_ONLY | NO_AUTO,
    },
    Partition {
        role: PartitionRole::State,
        number: 6,
        label: "STATE",
        // "Linux filesystem data". /var's own type would have systemd check the machine's id in the
        // partition's GUID.
        type_guid: uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"),
        attributes: NO_AUTO,
    },
];

impl Partition {
    /// The line of a role.
    #[must_use]
    pub fn of_role(role: PartitionRole) -> &'static Self {
        match role {
            PartitionRole::Bios => &PARTITIONS[0],
            PartitionRole::Esp => &PARTITIONS[1],
            PartitionRole::Abstate => &PARTITIONS[2],
            PartitionRole::Root(Slot::A) => &PARTITIONS[3],
            PartitionRole::Root(Slot::B) => &PARTITIONS[4],
            PartitionRole::State => &PARTITIONS[5],
        }
    }

    /// The partition's own GUID on the disk with that GUID: derived, so that the same inputs give
    /// the same bytes.
    #[must_use]
    pub fn derive_guid(&self, disk_guid: Uuid) -> Uuid {
        // RFC 9562, section 5.5.
        Uuid::new_v5(&disk_guid, self.label.as_bytes())
    }
}

/// The sizes that an image chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionSizes {
    /// Each of the two slots, a multiple of [`ALIGNMENT`].
    pub root: Bytes,
    /// STATE as it is in the image, a multiple of [`ALIGNMENT`].
    pub state: Bytes,
}

/// A partition and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedPartition {
    /// The line of the table.
    pub partition: &'static Partition,
    /// Where it begins, in sectors.
    pub first_lba: u64,
    /// How long it is, in sectors.
    pub sectors: u64,
}

impl PlacedPartition {
    /// Where it begins, in bytes.
    #[must_use]
    pub const fn byte_offset(&self) -> Bytes {
        Bytes::new(self.first_lba * SECTOR.get())
    }

    /// How long it is, in bytes.
    #[must_use]
    pub const fn byte_size(&self) -> Bytes {
        Bytes::new(self.sectors * SECTOR.get())
    }
}

/// A disk, laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLayout {
    disk_guid: Uuid,
    placed: [PlacedPartition; 6],
}

impl DiskLayout {
    /// Lays out a disk: every partition right behind the one before it, from the first MiB on.
    pub fn plan_layout(disk_guid: Uuid, sizes: PartitionSizes) -> Result<Self, PlanLayoutError> {
        let root = check_aligned("ROOT", sizes.root)?;
        let state = check_aligned("STATE", sizes.state)?;
        let mut next = ALIGNMENT;
        let mut placed = Vec::with_capacity(PARTITIONS.len());
        // Without gaps: a place must follow from the sizes before it alone.
        for (partition, size) in PARTITIONS.iter().zip([BIOS_SIZE, ESP_SIZE, ABSTATE_SIZE, root, root, state])
        {
            let end = next.checked_add(size).filter(|end| *end <= LARGEST);
            let end = end.ok_or(PlanLayoutError::TooLarge { label: partition.label, size })?;
            let (first_lba, sectors) = (next.get() / SECTOR.get(), size.get() / SECTOR.get());
            placed.push(PlacedPartition { partition, first_lba, sectors });
            next = end;
        }
        let placed = placed.try_into().map_err(|_| PlanLayoutError::Empty { label: "disk" })?;
        Ok(Self { disk_guid, placed })
    }

    /// The partitions, in order.
    #[must_use]
    pub const fn partitions(&self) -> &[PlacedPartition; 6] {
        &self.placed
    }

    /// The partition with that role.
    #[must_use]
    pub fn partition_of(&self, role: PartitionRole) -> &PlacedPartition {
        &self.placed[Partition::of_role(role).number as usize - 1]
    }

    /// The GUID of the partition with that role on this disk.
    #[must_use]
    pub fn partition_guid(&self, role: PartitionRole) -> Uuid {
        Partition::of_role(role).derive_guid(self.disk_guid)
    }

    /// The smallest disk that holds it all: one more [`ALIGNMENT`] for the backup table.
    #[must_use]
    pub fn disk_size(&self) -> Bytes {
        let last = self.partition_of(PartitionRole::State);
        Bytes::new(last.byte_offset().get() + last.byte_size().get() + ALIGNMENT.get())
    }

    /// The partition table that says so.
    #[must_use]
    pub fn partition_table(&self) -> gpt::PartitionTable {
        let entries = self.placed.iter().map(|placed| gpt::PartitionEntry {
            number: placed.partition.number,
            type_guid: placed.partition.type_guid,
            guid: self.partition_guid(placed.partition.role),
            first_lba: placed.first_lba,
            last_lba: placed.first_lba + placed.sectors - 1,
            attributes: placed.partition.attributes,
            label: placed.partition.label.to_owned(),
        });
        gpt::PartitionTable { disk_guid: self.disk_guid, entries: entries.collect() }
    }
}

/// No disk is larger: it keeps every sum of sizes far from overflowing.
const LARGEST: Bytes = Bytes::new(1 << 60);

fn check_aligned(label: &'static str, size: Bytes) -> Result<Bytes, PlanLayoutError> {
    if size == Bytes::default() {
        return Err(PlanLayoutError::Empty { label });
    }
    if !size.get().is_multiple_of(ALIGNMENT.get()) {
        return Err(PlanLayoutError::Alignment { label, size });
    }
    Ok(size)
}

/// Why a disk cannot be laid out so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum PlanLayoutError {
    #[error("{label} is given {size}, which is not a multiple of {ALIGNMENT}")]
    Alignment { label: &'static str, size: Bytes },
    #[error("{label} is given no space")]
    Empty { label: &'static str },
    #[error("{label} is given {size}, more than any disk has")]
    TooLarge { label: &'static str, size: Bytes },
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const DISK: Uuid = uuid!("a2f3c1d0-0000-4000-8000-000000000001");

    fn layout() -> DiskLayout {
        DiskLayout::plan_layout(
            DISK,
            PartitionSizes { root: Bytes::from_mib(1024), state: Bytes::from_mib(16) },
        )
        .unwrap()
    }

    #[test]
    fn the_layout_of_a_disk_is_this_table() {
        let mut printed = String::new();
        for placed in layout().partitions() {
            let PlacedPartition { partition, first_lba, .. } = placed;
            let (size, guid) = (placed.byte_size(), partition.derive_guid(DISK));
            writeln!(printed, "{} {} {first_lba} {size} {guid}", partition.number, partition.label).unwrap();
        }

        assert_eq!(printed, include_str!("../tests/data/layout.golden"));
        assert_eq!(layout().disk_size(), Bytes::from_mib(1 + 1 + 128 + 4 + 2 * 1024 + 16 + 1));
    }

    #[test]
    fn every_role_has_its_own_line() {
        for partition in &PARTITIONS {
            assert_eq!(Partition::of_role(partition.role), partition);
            assert_eq!(layout().partition_of(partition.role).partition, partition);
        }
    }

    #[test]
    fn what_the_selector_needs_does_not_move_with_state() {
        let grown = DiskLayout::plan_layout(
            DISK,
            PartitionSizes { root: Bytes::from_mib(1024), state: Bytes::from_mib(9000) },
        )
        .unwrap();

        assert_eq!(grown.partitions()[..5], layout().partitions()[..5]);
    }

    #[test]
    fn sizes_that_make_no_disk_are_refused() {
        let plan = |root, state| {
            DiskLayout::plan_layout(DISK, PartitionSizes { root, state }).unwrap_err().to_string()
        };

        assert_eq!(
            plan(Bytes::new(5 << 19), Bytes::MIB),
            "ROOT is given 2560 KiB, which is not a multiple of 1 MiB"
        );
        assert_eq!(plan(Bytes::MIB, Bytes::new(0)), "STATE is given no space");
        assert_eq!(
            plan(Bytes::from_mib(1 << 40), Bytes::MIB),
            "ROOT-A is given 1073741824 GiB, more than any disk has"
        );
    }

    /// The bar is the real file system: fatfs puts the first two files where the agent writes.
    #[test]
    fn the_two_copies_lie_where_the_file_system_puts_them() {
        let mut volume = std::io::Cursor::new(vec![0; usize::try_from(ABSTATE_SIZE.get()).unwrap()]);
        let cluster = u32::try_from(ABSTATE_CLUSTER.get()).unwrap();
        let options = fatfs::FormatVolumeOptions::new()
            .bytes_per_cluster(cluster)
            .max_root_dir_entries(ABSTATE_ROOT_ENTRIES)
            .fat_type(fatfs::FatType::Fat12);
        fatfs::format_volume(&mut volume, options).unwrap();
        {
            let fs = fatfs::FileSystem::new(&mut volume, fatfs::FsOptions::new()).unwrap();
            for (name, text) in [("env0", b"first copy!"), ("env1", b"second copy")] {
                std::io::Write::write_all(&mut fs.root_dir().create_file(name).unwrap(), text).unwrap();
            }
        }

        let at = |offset: Bytes| usize::try_from(offset.get()).unwrap();
        let bytes = volume.into_inner();
        assert_eq!(&bytes[at(ENV0_OFFSET)..][..11], b"first copy!");
        assert_eq!(&bytes[at(ENV1_OFFSET)..][..11], b"second copy");
    }
}
