use std::io::{Cursor, Read as _, Write as _};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};

use super::*;

const SHIM: &str = "EFI/BOOT/BOOTX64.EFI";
const GRUB: &str = "EFI/debian/grubx64.efi";
const NEIGHBOUR: &str = "EFI/debian/grub.cfg";

/// A volume as the builder makes it, smaller: FAT32 has at least 65525 clusters.
fn volume() -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; 34 << 20]);
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512);
    fatfs::format_volume(&mut disk, options).unwrap();
    {
        let system = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        let root = system.root_dir();
        for folder in ["EFI", "EFI/BOOT", "EFI/debian", "seed"] {
            root.create_dir(folder).unwrap();
        }
        for (path, length) in [(SHIM, 3000), (GRUB, 5000), (NEIGHBOUR, 700)] {
            let mut file = root.create_file(path).unwrap();
            file.write_all(&content(path, length)).unwrap();
            file.flush().unwrap();
        }
        system.stats().unwrap();
        drop(root);
        system.unmount().unwrap();
    }
    disk.into_inner()
}

fn content(path: &str, length: usize) -> Vec<u8> {
    path.bytes().cycle().take(length).collect()
}

/// What an independent reader finds.
fn read(volume: &[u8], path: &str) -> Option<Vec<u8>> {
    let system = FileSystem::new(Cursor::new(volume.to_vec()), FsOptions::new()).ok()?;
    let mut bytes = Vec::new();
    system.root_dir().open_file(path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn apply(volume: &mut [u8], step: &FatStep) {
    if let FatStep::Write { offset, bytes } = step {
        let at = usize::try_from(*offset).unwrap();
        volume[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn replaced(before: &[u8], path: &str, content: &[u8]) -> Vec<u8> {
    let mut after = before.to_vec();
    let steps = FatVolume::read(before).unwrap().plan_replacement(path, content).unwrap();
    for step in &steps {
        apply(&mut after, step);
    }
    after
}

#[test]
fn a_file_gets_its_new_content_and_the_others_keep_theirs() {
    let before = volume();
    for length in [0, 513, 40_000] {
        let new = vec![7; length];

        let after = replaced(&before, GRUB, &new);

        assert_eq!(read(&after, GRUB).unwrap(), new, "{length}");
        assert_eq!(FatVolume::read(&after).unwrap().read_file(GRUB).unwrap(), new);
        for (path, length) in [(SHIM, 3000), (NEIGHBOUR, 700)] {
            assert_eq!(read(&after, path).unwrap(), content(path, length));
        }
        let (old, free) = ([&before, &after]).map(|volume| free_clusters(volume)).into();
        assert_eq!(free + length.div_ceil(512), old + 5000_usize.div_ceil(512), "nothing is leaked");
    }
}

fn free_clusters(volume: &[u8]) -> usize {
    let counted = FatVolume::read(volume).unwrap().free_clusters().count();
    let info = u32::from_le_bytes(*volume[SECTOR + FREE_COUNT..].first_chunk().unwrap());
    assert_eq!(usize::try_from(info).unwrap(), counted, "FSInfo says another number");
    counted
}

/// Each prefix of the steps, with some of the writes since the last sync, and one of those torn between sectors.
#[test]
fn after_every_prefix_the_file_is_the_old_or_the_new_one() {
    let before = volume();
    let (old, new) = (content(GRUB, 5000), vec![9; 6000]);
    let steps = FatVolume::read(&before).unwrap().plan_replacement(GRUB, &new).unwrap();
    let (mut durable, mut pending, mut seen) = (before, Vec::<&FatStep>::new(), [0, 0]);
    let mut chance = 1_u64;
    let mut toss = || {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chance >> 33
    };
    for step in &steps {
        for _ in 0..3 {
            let mut state = durable.clone();
            for write in pending.iter().filter(|_| toss() % 2 == 0) {
                apply(&mut state, write);
            }
            if let FatStep::Write { offset, bytes } = step {
                let torn = usize::try_from(toss()).unwrap() % (bytes.len() / SECTOR + 1) * SECTOR;
                apply(&mut state, &FatStep::Write { offset: *offset, bytes: bytes[..torn].to_vec() });
            }
            let found = read(&state, GRUB).unwrap();
            assert!(found == old || found == new, "{} bytes", found.len());
            seen[usize::from(found == new)] += 1;
            assert_eq!(read(&state, SHIM).unwrap(), content(SHIM, 3000));
        }
        if *step == FatStep::Sync {
            for write in pending.drain(..) {
                apply(&mut durable, write);
            }
        } else {
            pending.push(step);
        }
    }
    assert!(seen[0] > 3 && seen[1] > 3, "{seen:?}");
    assert_eq!(steps.last(), Some(&FatStep::Sync));
    assert_eq!(read(&durable, GRUB).unwrap(), new);
}

#[test]
fn a_file_that_is_gone_is_made_again() {
    let before = volume();
    let mut lost = before.clone();
    let place = find_entry(&FatVolume::read(&before).unwrap(), GRUB).unwrap();
    let DirectoryPlace::File { at } = place else { panic!("{place:?}") };
    lost[at] = 0xe5;

    let after = replaced(&lost, GRUB, b"again");

    assert_eq!(read(&after, GRUB).unwrap(), b"again");
    let made = replaced(&before, "EFI/BOOT/MMX64.EFI", b"new");
    assert_eq!(read(&made, "EFI/BOOT/mmx64.efi").unwrap(), b"new");
    assert_eq!(read(&made, SHIM).unwrap(), content(SHIM, 3000));
}

#[test]
fn a_broken_chain_is_left_alone_and_the_file_gets_another() {
    let before = volume();
    let volume = FatVolume::read(&before).unwrap();
    let DirectoryPlace::File { at } = find_entry(&volume, GRUB).unwrap() else { panic!() };
    let first = directory::first_cluster(&before[at..]);
    let mut circle = before.clone();
    for table in &volume.tables {
        let entry = table + first as usize * 4;
        circle[entry..entry + 4].copy_from_slice(&first.to_le_bytes());
    }
    assert_eq!(FatVolume::read(&circle).unwrap().read_file(GRUB), None);

    let after = replaced(&circle, GRUB, b"whole");

    assert_eq!(read(&after, GRUB).unwrap(), b"whole");
    assert_eq!(read(&after, SHIM).unwrap(), content(SHIM, 3000));
}

#[test]
fn what_cannot_be_done_is_said() {
    let before = volume();
    let volume = FatVolume::read(&before).unwrap();
    let fault = |path: &str, bytes: usize| volume.plan_replacement(path, &vec![1; bytes]).unwrap_err();

    assert!(matches!(fault(GRUB, 40 << 20), ReplaceFileError::Full { .. }));
    assert_eq!(fault("EFI/none/a.efi", 1), ReplaceFileError::Folder);
    assert_eq!(fault("EFI/BOOT/a-long-name.efi", 1), ReplaceFileError::Name);
    assert!(FatVolume::read(&[0; 4096]).is_err());
    assert!(FatVolume::read(&before[..100]).is_err());
}

#[test]
fn no_damage_of_the_first_sectors_makes_it_panic() {
    let before = volume();
    let mut chance = 7_u64;
    for _ in 0..300 {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(chance >> 40).unwrap() % 64;
        let mut damaged = before[..2 << 20].to_vec();
        damaged[at] = (chance >> 32).to_le_bytes()[0];
        if let Ok(volume) = FatVolume::read(&damaged) {
            let _ = (volume.read_file(GRUB), volume.plan_replacement(GRUB, &[1; 700]));
        }
    }
}
