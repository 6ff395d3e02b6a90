//! The disk is bigger than the image: STATE takes the rest. And it is another disk than all of the image.

use image_format::bytes::Bytes;
use image_format::gpt::{self, PartitionTable};
use vm::disk::DiskEditor;

use crate::disk_map::DiskMap;
use crate::scene::{MORE, Scene};

pub(crate) fn is_filled(scene: &Scene) {
    let settled = scene.settling();

    assert!(settled.room > MORE / 10 * 9, "/var has {} bytes only", settled.room);
    let size = scene.disk_size();
    let map = DiskMap::of(DiskEditor::open_disk(&settled.disk).unwrap());
    assert!(size - map.partition("STATE").end < 2 << 20, "STATE ends before the disk does");
    let disk = Bytes::new(size);
    let copy = |offset: Bytes| map.edit().read(offset.get(), gpt::COPY_BYTES).unwrap();
    let table = gpt::read_primary(&copy(gpt::PRIMARY_OFFSET), disk).unwrap().table;
    gpt::read_backup(&copy(gpt::backup_offset(disk).unwrap()), disk).unwrap();
    is_unique(scene, &map, &table);
}

/// The image's identifiers are the same on every disk of it; a first boot leaves none of them.
fn is_unique(scene: &Scene, map: &DiskMap, table: &PartitionTable) {
    let fresh = scene.fresh_copy();
    let image = DiskMap::of(DiskEditor::open_disk(fresh.path()).unwrap());
    for label in ["ESP", "ABSTATE", "STATE"] {
        let [now, then] = [map, &image].map(|map| identifiers(map, label));
        assert!(!now.is_empty() && now.len() == then.len(), "{label}: {now:?}");
        assert!(now.iter().zip(&then).all(|(now, then)| now != then), "{label}: {now:?}, {then:?}");
        assert!(now.iter().all(|other| *other == now[0]), "{label}: the copies differ: {now:?}");
    }
    let guids = table.entries.iter().map(|entry| entry.guid).chain([table.disk_guid]);
    assert!(guids.into_iter().all(|guid| !gpt::is_derived(guid)), "{table:?}");
    assert!(!map.slot_table().tag.is_used());
}

/// What each copy of a volume's header says that it is.
fn identifiers(map: &DiskMap, label: &str) -> Vec<Vec<u8>> {
    let places: &[(u64, usize)] = match label {
        // FAT32's boot sector and its copy, FAT12's boot sector, ext4's first superblock.
        "ESP" => &[(67, 4), (6 * 512 + 67, 4)],
        "ABSTATE" => &[(39, 4)],
        _ => &[(1024 + 0x68, 16)],
    };
    let start = map.partition(label).start;
    places.iter().map(|(offset, length)| map.edit().read(start + offset, *length).unwrap()).collect()
}
