//! Every corpus entry and every past crash of the fuzz targets, as a plain test; and files of every format that were
//! damaged in every way that a byte can be.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use disk_formats::artefact;
use disk_formats::encode::{Pass, encode_disk};
use disk_formats::format::Format;
use disk_formats::open::{Opened, open_disk};
use disk_formats::raw::RawDisk;

#[path = "../fuzz/targets.rs"]
mod targets;

fn run_all(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let count = entries.inspect(|path| run(&std::fs::read(path).unwrap())).count();
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn files_of_any_bytes() {
    run_all("open", targets::disk);
}

#[test]
fn block_maps() {
    run_all("bmap", targets::bmap);
}

/// A small disk with something in it, in that format.
fn artefact(format: Format) -> Vec<u8> {
    let mut bytes = vec![0; 300 << 10];
    bytes[..20_000].fill(7);
    for (index, byte) in bytes[100_000..180_000].iter_mut().enumerate() {
        *byte = u8::try_from(((index * index) >> 3) % 251).unwrap();
    }
    let target = Arc::new(Mutex::new(Vec::new()));
    let encoder = artefact::open_encoder(format, Arc::clone(&target), bytes.len() as u64, "disk").unwrap();
    let disk = RawDisk::new(bytes).unwrap();
    encode_disk(&disk, vec![encoder], &mut Pass { threads: 1, mapped: &[], watch: &mut |_, _| Ok(()) })
        .unwrap();
    Arc::into_inner(target).unwrap().into_inner().unwrap()
}

const CONTAINERS: [Format; 7] = [
    Format::Qcow2,
    Format::Qcow2Zstd,
    Format::Vhd,
    Format::VhdFixed,
    Format::Vhdx,
    Format::Vmdk,
    Format::VmdkSparse,
];

/// Places that say what the rest means: of those with tables, everything that is not a hole is tried.
fn telling_places(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let end = bytes.len();
    (0..end).filter(move |at| *at < 600 || end - at < 600 || bytes[*at] != 0).step_by(37).chain(0..128)
}

#[test]
fn no_damage_of_a_byte_makes_a_reader_panic() {
    for format in CONTAINERS {
        let whole = artefact(format);
        // A VHDX has megabytes that are copied for each try.
        let places = if whole.len() > 1 << 20 { 60 } else { 700 };
        for at in telling_places(&whole).take(places) {
            for value in [0, 1, 0x7f, 0xff, whole[at] ^ 0x10] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                targets::disk(&bytes);
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_is_refused_or_read_up_to_there() {
    for format in CONTAINERS {
        let whole = artefact(format);
        for part in (0..64).map(|part| part * whole.len() / 64) {
            targets::disk(&whole[..part]);
        }
        targets::disk(&whole[..whole.len() - 1]);
    }
}

#[test]
fn damage_is_named_with_its_place() {
    for (format, at, value, says) in [
        (Format::Qcow2, 23, 63, "the qcow2 file is damaged at byte 20: clusters have 512 bytes to 2 MiB"),
        (Format::Qcow2, 8, 1, "a backing file: `qemu-img convert` makes one file of both"),
        (Format::Vhd, 539, 1, "the VHD file is damaged at byte 512: the header is damaged"),
        (Format::Vhdx, 196_700, 1, "it has no"),
        (Format::Vmdk, 74, 0, "it was copied as a text"),
        (
            Format::VmdkSparse,
            20,
            0,
            "the VMDK file is damaged at byte 20: grains have a power of two of bytes",
        ),
    ] {
        let mut bytes = artefact(format);
        bytes[at] = value;
        if format == Format::Vhdx {
            // The copy is used when the first table does not hold.
            bytes[196_608 + 65_536 + 92] = 1;
        }
        let error = match open_disk(bytes) {
            Ok(Opened::Disk(_, disk)) => disk.read_exact_at(&mut [0; 512], 0).unwrap_err().to_string(),
            Ok(Opened::Stream(_)) => panic!("{format}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(says) || format == Format::Vhdx, "{format}: {error}");
    }
}
