//! Facts about both copies, and the power cuts that growing survives.
#![expect(clippy::disallowed_methods, reason = "asks the tool that is the measure")]

use std::process::Command;

use proptest::prelude::*;
use uuid::uuid;

use super::*;
use crate::layout::{DiskLayout, PartitionSizes};

/// Of version 5, as an image's is.
const DISK: Uuid = uuid!("a2f3c1d0-0000-5000-8000-000000000001");
const RANDOM: [u8; 16] = [7; 16];

/// A disk that remembers what is certain and what is on its way.
#[derive(Debug, Clone)]
struct MemoryDisk {
    sectors: std::collections::BTreeMap<u64, [u8; SECTOR_BYTES]>,
    size: Bytes,
}

impl MemoryDisk {
    fn imaged() -> (Self, PartitionTable) {
        let layout = DiskLayout::plan_layout(
            DISK,
            PartitionSizes { root: Bytes::from_mib(64), state: Bytes::from_mib(8) },
        )
        .unwrap();
        let mut disk = Self { sectors: std::collections::BTreeMap::new(), size: layout.disk_size() };
        let copies = encode_table(&layout.partition_table(), disk.size).unwrap();
        disk.write(PRIMARY_OFFSET, &copies.primary);
        disk.write(backup_offset(disk.size).unwrap(), &copies.backup);
        (disk, layout.partition_table())
    }

    fn grown_to(mut self, size: Bytes) -> Self {
        self.size = size;
        self
    }

    fn write(&mut self, offset: Bytes, bytes: &[u8]) {
        for (index, sector) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
            let lba = offset.get() / SECTOR.get() + index as u64;
            self.sectors.insert(lba, sector.try_into().unwrap());
        }
    }

    fn copy_at(&self, offset: Bytes) -> Vec<u8> {
        let first = offset.get() / SECTOR.get();
        let sector = |lba| self.sectors.get(&lba).copied().unwrap_or([0; SECTOR_BYTES]);
        (first..first + COPY_SECTORS).flat_map(sector).collect()
    }

    fn primary(&self) -> Vec<u8> {
        self.copy_at(PRIMARY_OFFSET)
    }

    fn backup(&self) -> Vec<u8> {
        self.copy_at(backup_offset(self.size).unwrap())
    }

    fn table(&self) -> Result<PartitionTable, ReadTableError> {
        read(&self.primary(), &self.backup(), self.size)
    }

    fn plan(&self) -> Vec<GrowthStep> {
        plan_growth(self.size, &self.primary(), &self.backup(), "STATE", RANDOM).unwrap()
    }

    fn apply(&mut self, steps: &[GrowthStep]) {
        for step in steps {
            if let GrowthStep::Write { offset, bytes } = step {
                self.write(*offset, bytes);
            }
        }
    }

    fn is_settled(&self) -> bool {
        let copies = (read_primary(&self.primary(), self.size), read_backup(&self.backup(), self.size));
        let (Ok(primary), Ok(backup)) = copies else { return false };
        let end = self.size.get() / SECTOR.get() - 1;
        primary.table == backup.table
            && primary.other_lba == end
            && self.plan().is_empty()
            && has_own_guids(&primary.table)
    }
}

/// Whether no GUID is the image's, nor used twice.
fn has_own_guids(table: &PartitionTable) -> bool {
    let guids: std::collections::HashSet<Uuid> =
        table.entries.iter().map(|entry| entry.guid).chain([table.disk_guid]).collect();
    guids.len() == table.entries.len() + 1 && guids.into_iter().all(|guid| !is_derived(guid))
}

/// The first partitions, without what a first boot changes of them.
fn fixed(table: &PartitionTable) -> Vec<PartitionEntry> {
    table.entries[..5].iter().map(|entry| PartitionEntry { guid: Uuid::nil(), ..entry.clone() }).collect()
}

/// What a power cut may leave: for each cut between two syncs, many subsets of the sectors in
/// flight, one of them torn in the middle.
fn states_after_cuts(disk: &MemoryDisk, steps: &[GrowthStep], seed: u64) -> Vec<MemoryDisk> {
    let mut states = Vec::new();
    let mut synced = disk.clone();
    let mut random = seed | 1;
    let mut toss = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for step in steps {
        let GrowthStep::Write { offset, bytes } = step else { continue };
        let sectors: Vec<(u64, &[u8])> = bytes
            .chunks_exact(SECTOR_BYTES)
            .enumerate()
            .map(|(index, sector)| (offset.get() / SECTOR.get() + index as u64, sector))
            .collect();
        for prefix in 0..=sectors.len() {
            let mut state = synced.clone();
            sectors[..prefix].iter().for_each(|(lba, bytes)| state.write(at(*lba), bytes));
            states.push(state);
        }
        for _ in 0..24 {
            let mut state = synced.clone();
            let torn = usize::try_from(toss()).unwrap() % sectors.len();
            for (index, (lba, new)) in sectors.iter().enumerate() {
                let mut sector = *state.sectors.get(lba).unwrap_or(&[0; SECTOR_BYTES]);
                let reached = if index == torn {
                    usize::try_from(toss()).unwrap() % SECTOR_BYTES
                } else {
                    SECTOR_BYTES
                };
                if index == torn || toss() % 2 == 0 {
                    sector[..reached].copy_from_slice(&new[..reached]);
                }
                state.sectors.insert(*lba, sector);
            }
            states.push(state);
        }
        synced.write(*offset, bytes);
    }
    states
}

fn at(lba: u64) -> Bytes {
    Bytes::new(lba * SECTOR.get())
}

/// Every write of a plan is followed by a sync, so at most one is ever in flight.
fn is_well_ordered(steps: &[GrowthStep]) -> bool {
    let mut allowed = false;
    steps.iter().all(|step| match step {
        GrowthStep::Sync => std::mem::replace(&mut allowed, true) || allowed,
        GrowthStep::Write { .. } => std::mem::replace(&mut allowed, false),
    }) && (steps.is_empty() || allowed)
}

/// The damages that a disk may come with.
fn damaged() -> Vec<(&'static str, MemoryDisk)> {
    let (fresh, _) = MemoryDisk::imaged();
    let size = fresh.size;
    let zeros = vec![0; COPY_BYTES];
    let backup_at = backup_offset(size).unwrap();
    let mut no_primary = fresh.clone();
    no_primary.write(PRIMARY_OFFSET, &zeros);
    let mut no_backup = fresh.clone();
    no_backup.write(backup_at, &zeros);
    let mut stale = fresh.clone();
    stale.write(
        backup_at,
        &encode_table(&PartitionTable { disk_guid: DISK, entries: vec![] }, size).unwrap().backup,
    );
    let mut bad_array = fresh.clone();
    bad_array.write(at(5), &[0xA5; SECTOR_BYTES]);
    vec![
        ("whole", fresh.clone()),
        ("twice as large", fresh.clone().grown_to(Bytes::new(2 * size.get()))),
        ("one sector larger", fresh.clone().grown_to(Bytes::new(size.get() + SECTOR.get()))),
        ("an odd number of sectors larger", fresh.grown_to(Bytes::new(size.get() + 4097 * SECTOR.get()))),
        ("primary zeroed", no_primary),
        ("backup zeroed", no_backup.clone()),
        ("backup zeroed, disk grown", no_backup.grown_to(Bytes::new(3 * size.get()))),
        ("backup stale", stale),
        ("primary array damaged", bad_array),
    ]
}

#[test]
fn growing_reaches_both_copies_and_the_end_of_the_disk_whatever_was_broken() {
    for (name, mut disk) in damaged() {
        let before = disk.table().unwrap();

        disk.apply(&disk.plan());

        assert!(disk.is_settled(), "{name}");
        let after = disk.table().unwrap();
        assert_eq!(fixed(&after), fixed(&before), "{name}");
        let free = last_usable(disk.size.get() / SECTOR.get()) - after.entries[5].last_lba;
        assert!(free < ALIGNMENT.get() / SECTOR.get(), "{name}: {free} sectors unused");
        assert_eq!(after.entries[5].first_lba, before.entries[5].first_lba, "{name}");
    }
}

/// Invariant of the module, and resumption: whatever a cut leaves, planning again finishes.
#[test]
fn after_every_power_cut_a_copy_names_all_partitions_and_growing_can_go_on() {
    for (name, disk) in damaged() {
        let before = disk.table().unwrap();
        let steps = disk.plan();
        assert!(is_well_ordered(&steps), "{name}: {steps:?}");
        for mut cut in states_after_cuts(&disk, &steps, 0x5eed) {
            let found = cut.table().unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_eq!(found.entries.len(), before.entries.len(), "{name}");
            assert_eq!(fixed(&found), fixed(&before), "{name}");
            let rest = cut.plan();
            // Every disk is written now, so there are twice as many states; as many are cut twice as before.
            for again in states_after_cuts(&cut, &rest, 0xfeed).into_iter().step_by(18) {
                assert!(again.table().is_ok(), "{name}: cut twice");
            }
            cut.apply(&rest);
            assert!(cut.is_settled(), "{name}");
        }
    }
}

#[test]
fn a_whole_table_needs_no_step() {
    let (mut disk, _) = MemoryDisk::imaged();
    disk = disk.clone().grown_to(Bytes::new(2 * disk.size.get()));
    disk.apply(&disk.plan());

    assert_eq!(disk.plan(), []);
}

#[test]
fn guids_that_are_no_images_stay() {
    let (mut disk, table) = MemoryDisk::imaged();
    let chosen = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0001);
    let mut entries = table.entries;
    entries[3].guid = chosen;
    let chosen_in_part = PartitionTable { disk_guid: chosen, entries };
    assert!(chosen_in_part.is_of_image());
    let copies = encode_table(&chosen_in_part, disk.size).unwrap();
    disk.write(PRIMARY_OFFSET, &copies.primary);

    disk.apply(&disk.plan());

    let table = disk.table().unwrap();
    assert_eq!((table.disk_guid, table.entries[3].guid), (chosen, chosen));
    assert!(!table.is_of_image());
}

#[test]
fn two_disks_of_an_image_have_no_guid_in_common_after_their_first_boots() {
    let (disk, _) = MemoryDisk::imaged();
    let booted = |random| {
        let mut disk = disk.clone();
        let (primary, backup) = (disk.primary(), disk.backup());
        disk.apply(&plan_growth(disk.size, &primary, &backup, "STATE", random).unwrap());
        disk.table().unwrap()
    };

    let (one, two) = (booted([1; 16]), booted([2; 16]));

    assert_ne!(one.disk_guid, two.disk_guid);
    assert!(one.entries.iter().zip(&two.entries).all(|(one, two)| one.guid != two.guid));
}

#[test]
fn only_the_last_partition_may_grow_and_only_if_it_is_the_named_one() {
    let (disk, _) = MemoryDisk::imaged();

    let refused = plan_growth(disk.size, &disk.primary(), &disk.backup(), "ROOT-A", RANDOM).unwrap_err();

    assert_eq!(refused.to_string(), "the last partition is \"STATE\", not \"ROOT-A\", which alone may grow");
}

#[test]
fn when_no_copy_is_whole_nothing_is_planned() {
    let zeros = vec![0; COPY_BYTES];

    let refused = plan_growth(Bytes::GIB, &zeros, &zeros, "STATE", RANDOM).unwrap_err();

    assert!(matches!(refused, PlanGrowthError::Read(_)), "{refused:?}");
}

#[test]
fn a_table_survives_both_copies() {
    let (disk, table) = MemoryDisk::imaged();

    assert_eq!(read_primary(&disk.primary(), disk.size).unwrap().table, table);
    assert_eq!(read_backup(&disk.backup(), disk.size).unwrap().table, table);
    assert_eq!(table.find_label("ROOT-B").unwrap().number, 5);
}

#[test]
fn headers_that_would_make_the_codec_panic_or_read_elsewhere_are_refused() {
    let (disk, _) = MemoryDisk::imaged();
    let forged = |at: usize, bytes: &[u8]| {
        let mut copy = disk.primary();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        copy[16..20].fill(0);
        let sum = CRC32.checksum(&copy[..HEADER_BYTES]);
        copy[16..20].copy_from_slice(&sum.to_le_bytes());
        read_primary(&copy, disk.size).unwrap_err().to_string()
    };

    assert_eq!(
        forged(84, &256_u32.to_le_bytes()),
        "the array has 128 entries of 256 bytes, only up to 128 of 128 are read"
    );
    assert_eq!(
        forged(80, &0x00ff_ffff_u32.to_le_bytes()),
        "the array has 16777215 entries of 128 bytes, only up to 128 of 128 are read"
    );
    assert_eq!(
        forged(72, &9_u64.to_le_bytes()),
        "it says it lies at sector 9, but it is the one for sector 2"
    );
    assert_eq!(
        forged(24, &9_u64.to_le_bytes()),
        "it says it lies at sector 9, but it is the one for sector 1"
    );
    assert_eq!(forged(12, &512_u32.to_le_bytes()), "the header says it has 512 bytes, not 92");
    assert_eq!(forged(0, b"EFI TRAP"), "there is no partition table");
    let far = u64::MAX.to_le_bytes();
    assert!(forged(48, &far).starts_with("the usable sectors go from 34 to 18446744073709551615"));
}

#[test]
fn partitions_that_overlap_or_leave_the_disk_are_refused() {
    let (disk, table) = MemoryDisk::imaged();
    let with = |change: fn(&mut PartitionTable)| {
        let mut table = table.clone();
        change(&mut table);
        encode_table(&table, disk.size).unwrap_err().to_string()
    };

    assert_eq!(with(|table| table.entries[1].last_lba += 1), "partitions 2 and 3 overlap");
    assert_eq!(with(|table| table.entries[1].number = 1), "partitions 1 and 1 overlap");
    assert_eq!(
        with(|table| table.entries[1].number = 129),
        "129 is no partition number, which go from 1 to 128"
    );
    assert_eq!(
        with(|table| table.entries[1].label = "x".repeat(37)),
        "the label of partition 2 is longer than 36 UTF-16 units"
    );
    assert_eq!(
        with(|table| table.entries[5].last_lba = 1 << 40),
        "partition 6 lies at sectors 536576 to 1099511627776, but usable ones end at 554974"
    );
}

#[test]
fn sgdisk_finds_no_problem_before_and_after_growing() {
    if Command::new("sgdisk").arg("--version").output().is_err() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "sgdisk (Debian package gdisk) is not installed"
        );
        eprintln!("skipped: sgdisk (Debian package gdisk) is not installed");
        return;
    }
    let (disk, _) = MemoryDisk::imaged();
    let mut grown = disk.clone().grown_to(Bytes::new(2 * disk.size.get()));
    grown.apply(&grown.plan());
    for disk in [disk, grown] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(disk.size.get()).unwrap();
        for (lba, sector) in &disk.sectors {
            std::os::unix::fs::FileExt::write_all_at(file.as_file(), sector, lba * SECTOR.get()).unwrap();
        }
        let mut mbr = [0; SECTOR_BYTES];
        mbr[446..462]
            .copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), &mbr, 0).unwrap();

        let output = Command::new("sgdisk").arg("-v").arg(file.path()).output().unwrap();

        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("No problems found"), "{said}");
    }
}

proptest! {
    #[test]
    fn the_reader_takes_any_bytes(
        at in 0..COPY_BYTES - 8, bytes in any::<[u8; 8]>(), sum in any::<bool>(), size in 0_u64..1 << 30,
    ) {
        let (disk, _) = MemoryDisk::imaged();
        let mut copy = disk.primary();
        copy[at..at + 8].copy_from_slice(&bytes);
        if sum {
            copy[16..20].fill(0);
            let sum = CRC32.checksum(&copy[..HEADER_BYTES]);
            copy[16..20].copy_from_slice(&sum.to_le_bytes());
        }
        let _ = read_primary(&copy, disk.size);
        let _ = plan_growth(Bytes::new(size), &copy, &disk.backup(), "STATE", RANDOM);
    }
}
