use std::io::{Cursor, Write as _};

use image_format::layout::Partition;
use image_format::slot::SlotState;

use super::*;

const SECRET: &[u8] = b"password: hunter2";

/// The disk of a machine that runs from slot B and was told secrets.
fn machine_disk(folder: &Path) -> (BootRecord, DiskLayout) {
    let sizes = PartitionSizes { root: Bytes::from_mib(8), state: Bytes::from_mib(20) };
    let layout = DiskLayout::plan_layout(Uuid::from_u128(9), sizes).unwrap();
    let path = folder.join("disk");
    let file = File::create_new(&path).unwrap();
    file.set_len(layout.disk_size().get()).unwrap();
    let copies = gpt::encode_table(&layout.partition_table(), layout.disk_size()).unwrap();
    file.write_all_at(b"boot code", 0).unwrap();
    file.write_all_at(&copies.primary, PRIMARY_OFFSET.get()).unwrap();
    let at = |role| layout.partition_of(role).byte_offset().get();
    file.write_all_at(b"GRUB", at(PartitionRole::Bios)).unwrap();
    file.write_all_at(&esp(), at(PartitionRole::Esp)).unwrap();
    let used = SlotTable::FRESH.activate_slot(Slot::B).to_block();
    for offset in [ENV0_OFFSET, ENV1_OFFSET] {
        file.write_all_at(&used, at(PartitionRole::Abstate) + offset.get()).unwrap();
    }
    file.write_all_at(b"old root", at(PartitionRole::Root(Slot::A))).unwrap();
    file.write_all_at(b"running root", at(PartitionRole::Root(Slot::B))).unwrap();
    file.write_all_at(SECRET, at(PartitionRole::State) + 5000).unwrap();
    let mut record = crate::update::tests::record(Slot::B);
    record.devices.disk = path;
    (record, layout)
}

fn esp() -> Vec<u8> {
    let mut volume = Cursor::new(vec![0; 128 << 20]);
    fatfs::format_volume(&mut volume, fatfs::FormatVolumeOptions::new()).unwrap();
    let system = disk_install::esp::open_volume(&mut volume).unwrap();
    system.root_dir().create_dir(SEED).unwrap();
    for (path, bytes) in [("loader.efi", &b"shim"[..]), ("seed/user-data", SECRET)] {
        system.root_dir().create_file(path).unwrap().write_all(bytes).unwrap();
    }
    drop(system);
    volume.into_inner()
}

#[test]
fn the_copy_is_the_running_root_and_nothing_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let (record, layout) = machine_disk(folder.path());

    let disk = RunningDisk::open(&record, folder.path()).unwrap();

    let mut bytes = vec![1; usize::try_from(disk.disk_size()).unwrap()];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    let at = |role| usize::try_from(layout.partition_of(role).byte_offset().get()).unwrap();
    let found = gpt::read_primary(&bytes[512..512 + COPY_BYTES], Bytes::new(disk.disk_size())).unwrap();
    assert!(found.table.is_of_image() && found.table.disk_guid != layout.partition_table().disk_guid);
    assert!(bytes.starts_with(b"boot code") && bytes[at(PartitionRole::Bios)..].starts_with(b"GRUB"));
    assert!(bytes[at(PartitionRole::Root(Slot::A))..].starts_with(b"running root"));
    let other = at(PartitionRole::Root(Slot::B))..at(PartitionRole::State);
    assert!(bytes[other].iter().all(|byte| *byte == 0));
    let abstate = at(PartitionRole::Abstate) + usize::try_from(ENV1_OFFSET.get()).unwrap();
    let table = SlotTable::from_block(&bytes[abstate..abstate + 1024]).unwrap();
    assert_eq!(table, SlotTable::FRESH);
    assert_eq!(table.slot_state(Slot::B), SlotState::EMPTY);
    let state = at(PartitionRole::State);
    assert_eq!(bytes[state + 1024 + 0x38..state + 1024 + 0x3a], [0x53, 0xef], "STATE is no ext4");
    assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET), "a secret of the machine went along");
}

#[test]
fn a_disk_that_is_divided_otherwise_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (record, layout) = machine_disk(folder.path());
    let mut table = layout.partition_table();
    let root = Partition::of_role(PartitionRole::Root(Slot::B)).label;
    table.entries.iter_mut().find(|entry| entry.label == root).unwrap().last_lba -= 2048;
    let copies = gpt::encode_table(&table, layout.disk_size()).unwrap();
    let disk = OpenOptions::new().write(true).open(&record.devices.disk).unwrap();
    disk.write_all_at(&copies.primary, PRIMARY_OFFSET.get()).unwrap();

    let refused = RunningDisk::open(&record, folder.path()).unwrap_err();

    assert!(matches!(refused, ReadRunningDiskError::Layout), "{refused}");
}
