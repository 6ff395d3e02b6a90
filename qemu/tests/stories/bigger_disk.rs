//! The disk is bigger than the image: STATE takes the rest.

use image_format::bytes::Bytes;
use image_format::gpt;
use vm::disk::Edit;

use crate::disk_map::DiskMap;
use crate::scene::{MORE, Scene};

pub(crate) fn is_filled(scene: &Scene) {
    let settled = scene.settling();

    assert!(settled.room > MORE / 10 * 9, "/var has {} bytes only", settled.room);
    let size = scene.disk_size();
    let map = DiskMap::of(Edit::open(&settled.disk).unwrap());
    assert!(size - map.partition("STATE").end < 2 << 20, "STATE ends before the disk does");
    let disk = Bytes::new(size);
    let copy = |offset: Bytes| map.edit().read(offset.get(), gpt::COPY_BYTES).unwrap();
    gpt::read_primary(&copy(gpt::PRIMARY_OFFSET), disk).unwrap();
    gpt::read_backup(&copy(gpt::backup_offset(disk).unwrap()), disk).unwrap();
}
