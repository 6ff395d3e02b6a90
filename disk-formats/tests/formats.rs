//! Every format: read as written, the same for any number of threads and any holes, small where the disk is empty, and
//! in the eyes of `qemu-img`.
#![expect(clippy::disallowed_methods, reason = "it runs the program that judges")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use disk_formats::artefact;
use disk_formats::bmap::Bmap;
use disk_formats::disk::ReadDisk;
use disk_formats::encode::{Pass, encode_disk};
use disk_formats::format::Format;
use disk_formats::open::{Opened, open_disk};
use disk_formats::raw::RawDisk;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

const MIB: u64 = 1 << 20;

/// A disk of that size with these stretches: where, how long, and whether they are hard to compress.
fn disk(path: &Path, size: u64, stretches: &[(u64, usize, bool)]) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(size).unwrap();
    for (number, (at, length, hard)) in stretches.iter().enumerate() {
        let at = at % size;
        let length = usize::try_from(size - at).unwrap().min(*length);
        let mut state = 0x9e37_79b9_u64 + number as u64;
        let bytes: Vec<u8> = (0..length)
            .map(|index| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if *hard || index % 7 == 0 { (state >> 56) as u8 } else { b'a' }
            })
            .collect();
        file.write_all_at(&bytes, at).unwrap();
    }
    file
}

/// What a disk of ours is like: a table at the start and at the end, hard and soft data, long holes.
fn sample(folder: &Path, size: u64) -> PathBuf {
    let path = folder.join("disk.raw");
    let stretches = [
        (0, 20_000, false),
        (MIB, 1 << 20, true),
        (5 * MIB + 4096, 70_000, false),
        (40 * MIB - 512, 1 << 20, false),
        (size - MIB + 7, 90_000, true),
        (size - 600, 600, false),
    ];
    disk(&path, size, &stretches);
    path
}

/// Two tables of every format, and a last cluster that is not whole.
const LARGE: u64 = 514 * MIB + 512 * 3;
const SMALL: u64 = 50 * MIB + 512;

fn convert(image: &Path, out: &Path, formats: &[Format], threads: usize) {
    let disk = RawDisk::new(File::open(image).unwrap()).unwrap();
    fs::create_dir_all(out).unwrap();
    let encoders = formats
        .iter()
        .map(|format| {
            let name = format!("disk{}", format.file_suffix());
            let file = File::options().write(true).create_new(true).open(out.join(&name)).unwrap();
            artefact::open_encoder(*format, file, disk.disk_size(), &name).unwrap()
        })
        .collect();
    let mut pass = Pass { threads, mapped: &[], watch: &mut |_, _| Ok(()) };
    encode_disk(&disk, encoders, &mut pass).unwrap();
}

fn artefact_path(out: &Path, format: Format) -> PathBuf {
    out.join(format!("disk{}", format.file_suffix()))
}

fn read_all(disk: &dyn ReadDisk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.disk_size()).unwrap()];
    let mut at = 0;
    while let Some(run) = disk.next_data(at).unwrap() {
        assert!(run.start >= at && run.end > run.start && run.end <= disk.disk_size(), "{run:?} from {at}");
        let range = usize::try_from(run.start).unwrap()..usize::try_from(run.end).unwrap();
        disk.read_exact_at(&mut bytes[range], run.start).unwrap();
        at = run.end;
    }
    bytes
}

/// What the reader of the format finds.
fn content(path: &Path, format: Format) -> Vec<u8> {
    match open_disk(File::open(path).unwrap()).unwrap() {
        Opened::Disk(found, disk) => {
            assert_eq!(found, format);
            read_all(disk.as_ref())
        }
        Opened::Stream(compression) => {
            assert_eq!(Some(compression), format.stream_compression());
            let mut bytes = Vec::new();
            compression.open_decoder(File::open(path).unwrap()).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        }
    }
}

fn disks() -> Vec<Format> {
    Format::ALL.into_iter().filter(|format| *format != Format::Bmap).collect()
}

#[test]
fn every_format_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path(), SMALL);
    let out = folder.path().join("out");
    let whole = Sha256::digest(fs::read(&image).unwrap());

    convert(&image, &out, &Format::ALL, 2);

    for format in disks() {
        let found = content(&artefact_path(&out, format), format);
        assert_eq!(Sha256::digest(found), whole, "{format}");
    }
}

#[test]
fn threads_and_holes_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path(), SMALL);
    let full = folder.path().join("full.raw");
    fs::write(&full, fs::read(&image).unwrap()).unwrap();
    let [one, many, alone] = ["one", "many", "alone"].map(|name| folder.path().join(name));

    convert(&image, &one, &Format::ALL, 1);
    convert(&full, &many, &Format::ALL, 7);

    for format in Format::ALL {
        convert(&image, &alone, &[format], 3);
        let bytes = fs::read(artefact_path(&one, format)).unwrap();
        assert!(
            bytes == fs::read(artefact_path(&many, format)).unwrap(),
            "{format}: other threads, no holes"
        );
        assert!(bytes == fs::read(artefact_path(&alone, format)).unwrap(), "{format}: alone");
    }
}

#[test]
fn zeros_take_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path(), SMALL);
    let out = folder.path().join("out");
    let mapped = fs::metadata(&image).unwrap().blocks() * 512;

    convert(&image, &out, &Format::ALL, 2);

    for format in Format::ALL {
        let used = fs::metadata(artefact_path(&out, format)).unwrap().blocks() * 512;
        assert!(used < mapped + MIB, "{format} uses {used} bytes for {mapped}");
    }
}

fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run qemu-img: {error}; ci/setup installs it"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "qemu-img {arguments:?}: {said}");
    said
}

/// How QEMU calls them, and whether it can check one.
const JUDGED: [(Format, &str, bool); 7] = [
    (Format::Qcow2, "qcow2", true),
    (Format::Qcow2Zstd, "qcow2", true),
    (Format::Vhd, "vpc", false),
    (Format::VhdFixed, "vpc", false),
    (Format::Vhdx, "vhdx", true),
    (Format::Vmdk, "vmdk", true),
    (Format::VmdkSparse, "vmdk", true),
];

#[test]
fn qemu_finds_the_same_disk_and_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path(), LARGE);
    let out = folder.path().join("out");

    convert(&image, &out, &Format::ALL, 2);

    for (format, name, checked) in JUDGED {
        let path = artefact_path(&out, format);
        let path = path.to_str().unwrap();
        if checked {
            let said = qemu_img(&["check", "-f", name, path]);
            assert!(said.contains("No errors"), "{format}: {said}");
        }
        qemu_img(&["compare", "-f", "raw", "-F", name, image.to_str().unwrap(), path]);
        // A comparison does not mind zeros at the end.
        let said = qemu_img(&["info", "--output=json", "-f", name, path]);
        assert!(said.contains(&format!("\"virtual-size\": {LARGE}")), "{format}: {said}");
    }
}

/// What the world's tools wrote is read, too.
#[test]
fn what_qemu_wrote_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path(), SMALL);
    let whole = Sha256::digest(fs::read(&image).unwrap());
    let cases: [(&str, &[&str]); 9] = [
        ("qcow2", &[]),
        ("qcow2", &["-o", "compat=0.10"]),
        ("qcow2", &["-c"]),
        ("qcow2", &["-c", "-o", "compression_type=zstd,cluster_size=4k"]),
        ("vpc", &["-o", "force_size"]),
        ("vpc", &["-o", "force_size,subformat=fixed"]),
        ("vhdx", &[]),
        ("vmdk", &[]),
        ("vmdk", &["-o", "subformat=streamOptimized"]),
    ];
    for (name, options) in cases {
        let path = folder.path().join("theirs");
        let mut arguments = vec!["convert", "-f", "raw", "-O", name];
        arguments.extend(options);
        arguments.extend([image.to_str().unwrap(), path.to_str().unwrap()]);
        qemu_img(&arguments);

        let Opened::Disk(_, disk) = open_disk(File::open(&path).unwrap()).unwrap() else { panic!("{name}") };
        assert_eq!(Sha256::digest(read_all(disk.as_ref())), whole, "{name} {options:?}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_tools_of_streams_unpack_them() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path(), SMALL);
    let out = folder.path().join("out");
    let whole = Sha256::digest(fs::read(&image).unwrap());

    convert(&image, &out, &[Format::RawGz, Format::RawXz, Format::RawZst], 2);

    for (program, format) in [("gzip", Format::RawGz), ("xz", Format::RawXz), ("zstd", Format::RawZst)] {
        let output = Command::new(program).args(["-dc"]).arg(artefact_path(&out, format)).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(Sha256::digest(output.stdout), whole, "{program}");
    }
}

#[test]
fn a_block_map_lists_what_is_not_zero_and_what_must_be() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path(), SMALL);
    let file = RawDisk::new(File::open(&image).unwrap()).unwrap();
    let map = folder.path().join("disk.bmap");
    let target = File::options().write(true).create_new(true).open(&map).unwrap();
    let encoder = artefact::open_encoder(Format::Bmap, target, file.disk_size(), "disk.bmap").unwrap();
    let mapped = [20 * MIB..20 * MIB + 8192, 30 * MIB..30 * MIB + 4096];

    encode_disk(&file, vec![encoder], &mut Pass { threads: 2, mapped: &mapped, watch: &mut |_, _| Ok(()) })
        .unwrap();

    let text = fs::read_to_string(&map).unwrap();
    let found = Bmap::parse_map(&text).unwrap();
    let whole = fs::read(&image).unwrap();
    let mut rest = whole.clone();
    for run in &found.runs {
        let range = usize::try_from(run.range.start).unwrap()..usize::try_from(run.range.end).unwrap();
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&whole[range.clone()])), run.sha256);
        rest[range].fill(0);
    }
    assert!(rest.iter().all(|byte| *byte == 0));
    assert!(found.runs.iter().any(|run| run.range == mapped[0]));
    assert_eq!(found.size, whole.len() as u64);
    assert!(Bmap::parse_map(&text.replace("<ImageSize> 5", "<ImageSize> 6")).is_err());
}

#[test]
fn a_pass_that_is_stopped_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path(), SMALL);
    let file = RawDisk::new(File::open(&image).unwrap()).unwrap();
    let mut watch = |done, _| if done > 9 * MIB { Err(std::io::Error::other("enough")) } else { Ok(()) };

    let error =
        encode_disk(&file, Vec::new(), &mut Pass { threads: 2, mapped: &[], watch: &mut watch }).unwrap_err();

    assert_eq!(error.to_string(), "enough");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn any_disk_comes_back(
        sectors in 1..9_000_u64,
        stretches in proptest::collection::vec((any::<u64>(), 1..200_000_usize, any::<bool>()), 0..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.raw");
        disk(&image, sectors * 512, &stretches);
        let out = folder.path().join("out");
        let whole = fs::read(&image).unwrap();

        convert(&image, &out, &disks(), 2);

        for format in disks() {
            prop_assert!(content(&artefact_path(&out, format), format) == whole, "{format}");
        }
    }
}
