//! The disk is bigger than the image: STATE takes the rest.

use image_format::bytes::Bytes;
use image_format::gpt;

use crate::scene::{MORE, Scene, discard, run, switch_off, wait_until_up};

pub(crate) fn is_filled(scene: &Scene) {
    let mut running = scene.fresh("bigger").build().unwrap().start().unwrap();
    wait_until_up(&mut running);

    let room: u64 = run(&running, "df --output=size -B1 /var | tail -n 1").trim().parse().unwrap();

    assert!(room > MORE / 10 * 9, "/var has {room} bytes only");
    let size = scene.disk_size();
    let (machine, map) = switch_off(running);
    assert!(size - map.partition("STATE").end < 2 << 20, "STATE ends before the disk does");
    let disk = Bytes::new(size);
    let copy = |offset: Bytes| map.edit().read(offset.get(), gpt::COPY_BYTES).unwrap();
    gpt::read_primary(&copy(gpt::PRIMARY_OFFSET), disk).unwrap();
    gpt::read_backup(&copy(gpt::backup_offset(disk).unwrap()), disk).unwrap();
    discard(&machine);
}
