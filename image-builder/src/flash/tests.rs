use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use image_format::layout::{DiskLayout, PartitionSizes};

use super::expression::DiskExpression;
use super::*;

fn disk(path: &str, gigabytes: u64, transport: &str, serial: &str) -> DiskFacts {
    DiskFacts {
        path: PathBuf::from(path),
        bytes: gigabytes * 1_000_000_000,
        sector: 512,
        model: "Fast Disk".to_owned(),
        serial: serial.to_owned(),
        wwn: format!("eui.{serial}"),
        transport: transport.to_owned(),
        ..DiskFacts::default()
    }
}

/// A machine with everything that may go wrong.
fn disks() -> Vec<DiskFacts> {
    vec![
        DiskFacts { mounts: vec!["/".to_owned()], ..disk("/dev/nvme0n1", 500, "nvme", "N1") },
        DiskFacts { sector: 4096, ..disk("/dev/nvme1n1", 250, "nvme", "N2") },
        DiskFacts { users: vec!["md0".to_owned()], ..disk("/dev/sda", 40, "sata", "A1") },
        disk("/dev/sdb", 16, "usb", "U1"),
        disk("/dev/sdc", 2, "usb", "U2"),
    ]
}

const NEED: DiskNeed = DiskNeed { bytes: 3_000_000_000, sector: 512 };

fn chosen(expression: &str) -> String {
    let wish = DiskWish::Expression(expression.parse().unwrap());
    let disks = disks();
    match choose_disk(&wish, &disks, NEED) {
        Ok(index) => disks[index].path.display().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_expression_chooses_one_disk_or_says_why_not() {
    for (expression, says) in [
        ("smallest >= 10 GB", "/dev/sdb"),
        ("smallest>=10GB and transport=usb", "/dev/sdb"),
        ("serial=u1", "/dev/sdb"),
        ("wwn=eui.U1", "/dev/sdb"),
        ("transport=usb, largest", "/dev/sdb"),
        ("size<=16 GB and size>=3G", "/dev/sdb"),
        ("transport=usb", "/dev/sdb and /dev/sdc match; nothing was written. Say more, for example serial="),
        ("model=*disk", "/dev/nvme0n1 and /dev/nvme1n1 and /dev/sda and /dev/sdb and /dev/sdc match"),
        ("serial=X*", "no disk matches; nothing was written"),
        ("largest", "/dev/nvme0n1 is not written to: it is mounted at /: unmount it first"),
        ("serial=N2", "it has sectors of 4096 bytes, and the image is for 512"),
        ("serial=A1", "md0 uses it: stop that first"),
        ("smallest", "/dev/sdc is not written to: it has 2000000000 bytes, and the image needs 3000000000"),
    ] {
        assert!(chosen(expression).contains(says), "{expression}: {}", chosen(expression));
    }
}

#[test]
fn what_means_no_disk_is_refused() {
    for wrong in [
        "sdb",
        "smallest >= many",
        "serial",
        "serial>=4",
        "size",
        "color=red",
        "size=>4",
        "",
        "size>=99999999999999T",
    ] {
        assert!(wrong.parse::<DiskExpression>().is_err(), "{wrong}");
    }
}

#[test]
fn the_table_says_of_every_disk_why() {
    let wish = DiskWish::Expression("smallest >= 10 GB".parse().unwrap());

    let table = disk_table(&wish, &disks(), NEED);

    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&table), lines(include_str!("../../tests/data/disks.golden")));
}

/// An image with two partitions' worth of data, and its table.
fn image() -> (Vec<u8>, PartitionTable) {
    let sizes = PartitionSizes { root: Bytes::from_mib(8), state: Bytes::from_mib(4) };
    let layout = DiskLayout::plan_layout(uuid::Uuid::from_u128(7), sizes).unwrap();
    let size = layout.disk_size();
    let mut bytes = vec![0; usize::try_from(size.get()).unwrap()];
    let copies = gpt::encode_table(&layout.partition_table(), size).unwrap();
    bytes[..4].copy_from_slice(b"boot");
    bytes[512..512 + COPY_BYTES].copy_from_slice(&copies.primary);
    let backup = usize::try_from(gpt::backup_offset(size).unwrap().get()).unwrap();
    bytes[backup..].copy_from_slice(&copies.backup);
    for entry in &layout.partition_table().entries {
        let at = usize::try_from(entry.byte_offset().get()).unwrap();
        bytes[at..at + 5000].fill(9);
        bytes[at + 100_000..at + 100_010].fill(3);
    }
    (bytes, layout.partition_table())
}

use image_format::gpt::PartitionTable;

/// A disk that was used before, a little larger.
fn used_disk(folder: &Path, image: &[u8]) -> PathBuf {
    let path = folder.join("disk");
    File::create_new(&path).unwrap().write_all(&vec![0xaa; image.len() + (5 << 20)]).unwrap();
    path
}

fn piece(bytes: &[u8], number: usize) -> Option<Piece> {
    let size = disk_formats::piece::PIECE_BYTES;
    let part = bytes.chunks(size).nth(number)?;
    let mut data = part.to_vec();
    data.resize(size, 0);
    Some(Piece { offset: (number * size) as u64, length: part.len(), data: Some(data.into()) })
}

#[test]
fn a_used_disk_becomes_the_image_and_its_head_comes_last() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, table) = image();
    let path = used_disk(folder.path(), &bytes);
    let size = std::fs::metadata(&path).unwrap().len();
    let mut writer = DiskWriter::start_writing(open_disk(&path).unwrap(), size).unwrap();

    for number in 0.. {
        let Some(piece) = piece(&bytes, number) else { break };
        writer.add(&piece).unwrap();
        let mut head = vec![1; HEAD_BYTES];
        open_disk(&path).unwrap().read_exact_at(&mut head, 0).unwrap();
        assert!(head.iter().all(|byte| *byte == 0), "it could start by now");
    }
    writer.write_needed_zeros(&table).unwrap();
    writer.read_back(&mut |_, _| Ok(())).unwrap();
    writer.finish_disk(&table).unwrap();

    let found = std::fs::read(&path).unwrap();
    let backup = usize::try_from(gpt::backup_offset(Bytes::new(size)).unwrap().get()).unwrap();
    let read = gpt::read(&found[512..512 + COPY_BYTES], &found[backup..], Bytes::new(size)).unwrap();
    assert_eq!(read, table);
    for entry in &table.entries {
        let range = usize::try_from(entry.byte_offset().get()).unwrap()
            ..usize::try_from(entry.byte_offset().get() + entry.byte_size().get()).unwrap();
        assert!(found[range.clone()] == bytes[range], "{} differs", entry.label);
    }
    assert_eq!(&found[..4], b"boot");
}

#[test]
fn what_does_not_read_back_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, _) = image();
    let path = used_disk(folder.path(), &bytes);
    let size = std::fs::metadata(&path).unwrap().len();
    let mut writer = DiskWriter::start_writing(open_disk(&path).unwrap(), size).unwrap();
    for number in 0..3 {
        writer.add(&piece(&bytes, number).unwrap()).unwrap();
    }
    open_disk(&path).unwrap().write_all_at(&[1], 2 << 20).unwrap();

    let error = writer.read_back(&mut |_, _| Ok(())).unwrap_err();

    assert!(error.to_string().contains("do not read as they were written"), "{error}");
}

fn request<'a>(image: &'a str, device: &'a str) -> FlashRequest<'a> {
    FlashRequest {
        image,
        device,
        keys: Vec::new(),
        sha256: None,
        user_data: None,
        consent: Consent::Given,
        output: OutputFormat::Machines,
    }
}

#[test]
fn an_image_that_nobody_signed_leaves_no_disk_that_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, _) = image();
    let path = used_disk(folder.path(), &bytes);
    let [raw, packed] = ["disk.raw", "disk.raw.zst"].map(|name| folder.path().join(name));
    std::fs::write(&raw, &bytes).unwrap();
    std::fs::write(&packed, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();

    for (image, sha256) in [(&raw, None), (&packed, None), (&raw, Some("00")), (&packed, Some("00"))] {
        let request = request(image.to_str().unwrap(), path.to_str().unwrap());
        let failed = flash_image(&FlashRequest { sha256, ..request }, &InterruptFlag::default());

        let error = failed.unwrap_err();
        let says = if sha256.is_some() { "was promised" } else { "signed system" };
        assert!(error.source().unwrap().to_string().contains(says), "{error:?}");
        let found = std::fs::read(&path).unwrap();
        let ends = found[..HEAD_BYTES].iter().chain(&found[found.len() - (1 << 20)..]);
        assert!(ends.into_iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_is_no_image_or_too_large_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, _) = image();
    let small = folder.path().join("small");
    std::fs::write(&small, vec![0xaa; bytes.len() - 512]).unwrap();
    let (image, text) = (folder.path().join("disk.raw"), folder.path().join("text"));
    std::fs::write(&image, &bytes).unwrap();
    std::fs::write(&text, vec![b'x'; 4 << 20]).unwrap();

    for (image, says) in [(&image, "the image needs"), (&text, "no partition table")] {
        let request = request(image.to_str().unwrap(), small.to_str().unwrap());
        let error = flash_image(&request, &InterruptFlag::default()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(std::fs::read(&small).unwrap().iter().all(|byte| *byte == 0xaa));
    }
}
