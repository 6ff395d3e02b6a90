use std::io::Cursor;

use super::*;
use crate::host::twin;

/// A FAT image with these files, and folders where a path has any.
pub(crate) fn fat_image(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut name = [b' '; 11];
    name[..label.len()].copy_from_slice(label.as_bytes());
    let mut image = Cursor::new(vec![0; 1 << 20]);
    fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new().volume_label(name)).unwrap();
    let fat = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    for (path, content) in files {
        for (at, _) in path.match_indices('/') {
            fat.root_dir().create_dir(&path[..at]).unwrap();
        }
        fat.root_dir().create_file(path).unwrap().write_all(content).unwrap();
    }
    drop(fat);
    image.into_inner()
}

/// An ISO 9660 image, one folder deep, as genisoimage lays it out: plain names cut short, and
/// the real ones beside them as Rock Ridge entries.
pub(crate) fn iso_image(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut image = vec![0_u8; 19 * 2048];
    let root = record(18, 2048, 0x02, &[0], b"");
    let descriptor = &mut image[16 * 2048..17 * 2048];
    descriptor[0] = 1;
    descriptor[1..6].copy_from_slice(b"CD001");
    descriptor[40..72].fill(b' ');
    descriptor[40..40 + label.len()].copy_from_slice(label.as_bytes());
    descriptor[156..156 + root.len()].copy_from_slice(&root);
    image[17 * 2048] = 255;
    image[17 * 2048 + 1..17 * 2048 + 6].copy_from_slice(b"CD001");
    let mut at = 18 * 2048;
    for (index, (name, content)) in files.iter().enumerate() {
        let sector = u32::try_from(image.len() / 2048).unwrap();
        let mut rock_ridge = vec![b'N', b'M', u8::try_from(5 + name.len()).unwrap(), 1, 0];
        rock_ridge.extend_from_slice(name.as_bytes());
        let short = format!("FILE{index}.;1");
        let record = record(sector, u32::try_from(content.len()).unwrap(), 0, short.as_bytes(), &rock_ridge);
        image[at..at + record.len()].copy_from_slice(&record);
        at += record.len();
        image.extend_from_slice(content);
        image.resize(image.len().next_multiple_of(2048), 0);
    }
    image
}

fn record(sector: u32, length: u32, flags: u8, name: &[u8], system_use: &[u8]) -> Vec<u8> {
    let mut record = vec![0; 33];
    record[2..6].copy_from_slice(&sector.to_le_bytes());
    record[10..14].copy_from_slice(&length.to_le_bytes());
    record[25] = flags;
    record[32] = u8::try_from(name.len()).unwrap();
    record.extend_from_slice(name);
    if name.len().is_multiple_of(2) {
        record.push(0);
    }
    record.extend_from_slice(system_use);
    if !record.len().is_multiple_of(2) {
        record.push(0);
    }
    record[0] = u8::try_from(record.len()).unwrap();
    record
}

#[test]
fn files_are_read_from_fat_whatever_the_letter_case() {
    let image = fat_image("CIDATA", &[("user-data", b"#!/bin/sh\n"), ("seed/meta-data", b"x")]);

    let mut volume = ConfigVolume::open_volume(Cursor::new(image)).unwrap();

    assert_eq!(volume.volume_label(), "CIDATA");
    assert_eq!(volume.read("user-data", 100).unwrap().unwrap(), b"#!/bin/sh\n");
    assert_eq!(volume.read("seed/meta-data", 100).unwrap().unwrap(), b"x");
    assert_eq!(volume.read("vendor-data", 100).unwrap(), None);
    assert_eq!(volume.read("nowhere/user-data", 100).unwrap(), None);
}

#[test]
fn files_are_read_from_iso_by_their_rock_ridge_names() {
    let image = iso_image("cidata", &[("meta-data", b"instance-id: i"), ("user-data", &[b'x'; 5000])]);

    let mut volume = ConfigVolume::open_volume(Cursor::new(image)).unwrap();

    assert_eq!(volume.volume_label(), "cidata");
    assert_eq!(volume.read("meta-data", 100).unwrap().unwrap(), b"instance-id: i");
    assert_eq!(volume.read("user-data", 5000).unwrap().unwrap(), [b'x'; 5000]);
    assert_eq!(volume.read("network-config", 100).unwrap(), None);
}

#[test]
fn a_file_larger_than_allowed_is_refused_on_both() {
    let files: &[(&str, &[u8])] = &[("user-data", b"12345")];

    for image in [fat_image("X", files), iso_image("X", files)] {
        let error = ConfigVolume::open_volume(Cursor::new(image)).unwrap().read("user-data", 4).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}

#[test]
fn an_iso_that_ends_too_early_is_an_error_not_a_short_file() {
    let mut image = iso_image("cidata", &[("user-data", b"#cloud-config\n")]);
    image.truncate(image.len() - 2048);

    let error = ConfigVolume::open_volume(Cursor::new(image)).unwrap().read("user-data", 100).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_loop_in_the_fat_ends_with_the_budget() {
    let mut image = fat_image("CIDATA", &[("user-data", &[b'x'; 9000])]);
    // Every cluster points at cluster 3, so the chain never ends.
    let fat = usize::from(u16::from_le_bytes([image[14], image[15]])) * 512;
    for triple in image[fat + 3..fat + 512 - 2].chunks_exact_mut(3) {
        triple.copy_from_slice(&[0x03, 0x30, 0x00]);
    }

    let mut volume = ConfigVolume::open_volume(Cursor::new(image)).unwrap();

    // The directory says 9000 bytes, so reading stops there; what matters is that it stops.
    assert!(volume.read("user-data", MAX).is_ok_and(|file| file.unwrap().len() == 9000));
}

#[test]
fn a_file_that_begins_before_the_first_cluster_is_no_reason_to_panic() {
    for cluster in [0, 1, u8::MAX] {
        let mut image = fat_image("CIDATA", &[("user-data", b"x")]);
        let entry = image.windows(8).position(|name| name == b"USER-D~1").unwrap();
        image[entry + 26] = cluster;

        let read = ConfigVolume::open_volume(Cursor::new(image)).unwrap().read("user-data", MAX);

        assert!(read.is_err() || read.is_ok_and(|file| file.unwrap().len() <= 1), "{cluster}");
    }
}

const MAX: u64 = 16 << 20;

#[test]
fn other_disks_are_no_volumes() {
    assert!(ConfigVolume::open_volume(Cursor::new(vec![0; 1 << 16])).is_none());
    assert!(ConfigVolume::open_volume(Cursor::new(vec![0x55; 1 << 16])).is_none());
    assert!(ConfigVolume::open_volume(Cursor::new(b"short".to_vec())).is_none());
}

#[test]
fn the_esp_is_that_of_the_disk_that_the_machine_runs_from() {
    for (own, other) in [("sda", "vda"), ("vda", "sda"), ("vdb", "vda")] {
        let machine = twin(&[]);
        for (name, text) in [(own, b"own"), (other, b"not")] {
            let image = fat_image("ESP", &[("seed/user-data", text)]);
            machine.attach(&format!("{name}2"), &image, "PARTNAME=ESP\n");
        }
        assert!(on_own_esp(&machine.host, "ESP").is_none(), "no record says which");

        machine.runs_from(&format!("/dev/{own}"), &format!("/dev/{own}2"));

        let (_, mut volume) = on_own_esp(&machine.host, "ESP").unwrap();
        assert_eq!(volume.read("seed/user-data", 9).unwrap().unwrap(), b"own");
    }
}

#[test]
fn disks_are_found_by_label_and_by_partition_name() {
    let machine = twin(&[]);
    machine.runs_from("/dev/vda", "/dev/vda2");
    machine.attach("vda", &vec![0; 4096], "");
    machine.attach("vda2", &fat_image("ESP", &[("seed/user-data", b"a")]), "PARTNAME=ESP\n");
    machine.attach("vdb", &iso_image("cidata", &[("user-data", b"b")]), "");
    machine.attach("loop0", &iso_image("cidata", &[("user-data", b"c")]), "");

    let (device, _) = find_labelled(&machine.host, &["CIDATA"]).pop().unwrap();
    let (esp, mut volume) = on_own_esp(&machine.host, "ESP").unwrap();

    assert!(device.path.ends_with("dev/vdb"));
    assert!(esp.path.ends_with("dev/vda2"));
    assert_eq!(volume.read("seed/user-data", 9).unwrap().unwrap(), b"a");
    assert!(find_labelled(&machine.host, &["config-2"]).is_empty());
}
