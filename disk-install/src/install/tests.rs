use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use disk_formats::raw::RawDisk;
use image_format::layout::{DiskLayout, PartitionSizes};

use super::*;
use crate::stream::FileHash;
use crate::target::DiskFile;

/// How much larger a disk is than the image.
const MORE: usize = 21 << 20;

/// An image with data in each partition, and its layout.
fn image() -> (Vec<u8>, DiskLayout) {
    let sizes = PartitionSizes { root: Bytes::from_mib(8), state: Bytes::from_mib(6) };
    let layout =
        DiskLayout::plan_layout(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, b"image"), sizes).unwrap();
    let size = layout.disk_size();
    let mut bytes = vec![0; usize::try_from(size.get()).unwrap()];
    let copies = gpt::encode_table(&layout.partition_table(), size).unwrap();
    bytes[..4].copy_from_slice(b"boot");
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes[512..512 + COPY_BYTES].copy_from_slice(&copies.primary);
    let backup = usize::try_from(gpt::backup_offset(size).unwrap().get()).unwrap();
    bytes[backup..].copy_from_slice(&copies.backup);
    for entry in &layout.partition_table().entries {
        let at = usize::try_from(entry.byte_offset().get()).unwrap();
        bytes[at..at + 5000].fill(9);
        bytes[at + 100_000..at + 100_010].fill(3);
    }
    (bytes, layout)
}

/// One operation on a disk.
#[derive(Debug, Clone)]
enum DiskOperation {
    Sync,
    Write { offset: u64, bytes: Vec<u8> },
}

/// A disk in memory that remembers each write. It cannot discard, as old hard disks cannot.
#[derive(Debug)]
struct RecordedDisk {
    bytes: Mutex<Vec<u8>>,
    operations: Mutex<Vec<DiskOperation>>,
}

impl RecordedDisk {
    fn of(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(bytes), operations: Mutex::default() })
    }

    fn content(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl InstallTarget for RecordedDisk {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (bytes, start) = (self.bytes.lock().unwrap(), usize::try_from(offset).unwrap());
        let found = bytes.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        apply_write(&mut self.bytes.lock().unwrap(), bytes, offset);
        self.operations.lock().unwrap().push(DiskOperation::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn discard(&self, range: Range<u64>) -> bool {
        range.is_empty()
    }

    fn sync(&self) -> io::Result<()> {
        self.operations.lock().unwrap().push(DiskOperation::Sync);
        Ok(())
    }
}

/// What lies behind the end of the bytes is left out, so that a test can follow the head of a disk alone.
fn apply_write(disk: &mut [u8], bytes: &[u8], offset: u64) {
    let start = usize::try_from(offset).unwrap().min(disk.len());
    let end = disk.len().min(start + bytes.len());
    disk[start..end].copy_from_slice(&bytes[..end - start]);
}

/// What is on a disk when the power fails in front of an operation. Of what was not synced, each sector is there or
/// not, as a die says.
fn cut_disk(before: &[u8], operations: &[DiskOperation], moment: usize) -> Vec<u8> {
    let mut disk = before.to_vec();
    let synced = operations[..moment].iter().rposition(|one| matches!(one, DiskOperation::Sync)).unwrap_or(0);
    let mut die = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(moment as u64 + 1);
    for (index, operation) in operations[..moment].iter().enumerate() {
        let DiskOperation::Write { offset, bytes } = operation else { continue };
        if index < synced {
            apply_write(&mut disk, bytes, *offset);
            continue;
        }
        for (sector, part) in bytes.chunks(512).enumerate() {
            die = die.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if die >> 63 == 1 {
                apply_write(&mut disk, part, offset + sector as u64 * 512);
            }
        }
    }
    disk
}

/// A disk with another system on it, which starts.
fn used_disk(image: &[u8]) -> Vec<u8> {
    let mut disk = vec![0xaa; image.len() + MORE];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn has_boot_sector(disk: &[u8]) -> bool {
    disk[510..512] == [0x55, 0xaa]
}

/// Everything that a table, a loader or dm-verity reads is the image's.
fn assert_installed(disk: &[u8], image: &[u8], layout: &DiskLayout) {
    let size = Bytes::new(disk.len() as u64);
    let backup = usize::try_from(gpt::backup_offset(size).unwrap().get()).unwrap();
    let read = gpt::read(&disk[512..512 + COPY_BYTES], &disk[backup..], size).unwrap();
    assert_eq!(read, layout.partition_table());
    assert_eq!(&disk[..4], b"boot");
    let needed = crate::mapped::needed(&RawDisk::new(image.to_vec()).unwrap()).unwrap();
    let end = image.len() - HEAD_BYTES;
    for range in needed {
        let range = usize::try_from(range.start).unwrap().max(HEAD_BYTES)
            ..usize::try_from(range.end).unwrap().min(end);
        assert!(disk[range.clone()] == image[range.clone()], "{range:?} differs");
    }
}

/// Asks for nothing special, from somebody who trusts everything.
fn plain_request(watch: &mut dyn FnMut(InstallStage, u64, u64) -> io::Result<()>) -> InstallRequest<'_> {
    InstallRequest {
        sha256: None,
        files: &[],
        erase: EraseScope::Marks,
        keep: KeptData::Nothing,
        verify: &|_, _| Ok("by nobody".to_owned()),
        watch,
    }
}

fn keeping_request(watch: &mut dyn FnMut(InstallStage, u64, u64) -> io::Result<()>) -> InstallRequest<'_> {
    InstallRequest { keep: KeptData::State, ..plain_request(watch) }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for one that can end the installation")]
fn unwatched(_: InstallStage, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

fn stream_of(image: &[u8]) -> (PieceStream, Piece) {
    let disk = RawDisk::new(image.to_vec()).unwrap();
    let mut stream = PieceStream::of_disk(Box::new(disk), None);
    let first = stream.next_piece().unwrap().unwrap();
    (stream, first)
}

fn install_to(
    target: &Arc<RecordedDisk>,
    image: &[u8],
    request: InstallRequest<'_>,
) -> Result<InstalledImage, InstallError> {
    let (stream, first) = stream_of(image);
    let size = target.bytes.lock().unwrap().len() as u64;
    let target: Arc<dyn InstallTarget> = Arc::<RecordedDisk>::clone(target);
    Installation::prepare(target, size, &first, request.keep)?.carry_out(stream, &first, request)
}

#[test]
fn a_power_cut_at_any_of_twenty_moments_leaves_no_disk_that_starts_and_a_second_run_mends_it() {
    let (image, layout) = image();
    let before = used_disk(&image);
    let target = RecordedDisk::of(before.clone());
    install_to(&target, &image, plain_request(&mut unwatched)).unwrap();
    let operations = target.operations.lock().unwrap().clone();
    let first_sync = operations.iter().position(|one| matches!(one, DiskOperation::Sync)).unwrap();
    // The last two are the boot sector and its sync.
    let last = operations.len() - 2;

    // All moments of the end, where the disk becomes one, and as many in front of it.
    let early = (1..=10).map(|part| first_sync + 1 + (last - 10 - first_sync) * part / 10);
    for moment in early.chain(last - 9..=last) {
        let head = cut_disk(&before[..HEAD_BYTES], &operations, moment);
        assert!(!has_boot_sector(&head), "it could start at moment {moment}");
    }
    // A second run needs nothing of the first, so few of them prove it; each writes a whole disk.
    for moment in [first_sync, last / 2, last] {
        let again = RecordedDisk::of(cut_disk(&before, &operations, moment));
        install_to(&again, &image, plain_request(&mut unwatched)).unwrap();
        assert_installed(&again.content(), &image, &layout);
    }
    assert_installed(&target.content(), &image, &layout);
}

/// In front of the first sync, the old system has lost its table at most; nothing else of it.
#[test]
fn until_the_old_table_is_gone_for_good_nothing_else_is_touched() {
    let (image, _) = image();
    let target = RecordedDisk::of(used_disk(&image));

    install_to(&target, &image, plain_request(&mut unwatched)).unwrap();

    let size = target.content().len() as u64;
    for operation in target.operations.lock().unwrap().iter() {
        let DiskOperation::Write { offset, bytes } = operation else { break };
        let end = offset + bytes.len() as u64;
        assert!(end <= HEAD_BYTES as u64 || *offset >= size - (16 << 20), "{offset} to {end}");
    }
}

#[test]
fn what_does_not_read_back_or_is_not_trusted_is_refused_without_a_boot_sector() {
    let (image, _) = image();
    let refuse = |_: Arc<dyn ReadDisk>, _: &PartitionTable| Err("a strange key".to_owned());
    let target = RecordedDisk::of(used_disk(&image));
    let spoiled = Arc::clone(&target);
    let mut spoil = move |stage, done, total| {
        if stage == InstallStage::Write && done == total {
            apply_write(&mut spoiled.bytes.lock().unwrap(), &[1], 2 << 20);
        }
        Ok(())
    };

    let unread = install_to(&target, &image, plain_request(&mut spoil)).unwrap_err();
    let untrusted =
        install_to(&target, &image, InstallRequest { verify: &refuse, ..plain_request(&mut unwatched) });
    let wrong =
        install_to(&target, &image, InstallRequest { sha256: Some("00"), ..plain_request(&mut unwatched) });

    assert!(matches!(unread, InstallError::ReadBack(_)), "{unread}");
    assert!(matches!(untrusted, Err(InstallError::Signature(_))), "{untrusted:?}");
    assert!(matches!(wrong, Err(InstallError::Digest { .. })), "{wrong:?}");
    assert!(!has_boot_sector(&target.content()));
}

#[test]
fn every_byte_of_the_old_disk_goes_if_that_is_asked_for() {
    let (image, _) = image();
    let target = RecordedDisk::of(used_disk(&image));

    install_to(
        &target,
        &image,
        InstallRequest { erase: EraseScope::WholeDisk, ..plain_request(&mut unwatched) },
    )
    .unwrap();

    assert!(target.content().chunks_exact(512).all(|sector| sector != [0xaa; 512]));
}

/// ext4's superblock of a STATE of that many blocks, with the machine's data behind it.
fn with_state(mut disk: Vec<u8>, layout: &DiskLayout, blocks: u32) -> (Vec<u8>, Range<usize>) {
    let start = usize::try_from(layout.partition_of(PartitionRole::State).byte_offset().get()).unwrap();
    let kept = start..start + blocks as usize * 4096;
    disk[kept.clone()].fill(0x5a);
    let superblock = &mut disk[start + 1024..start + 2048];
    superblock.fill(0);
    superblock[0x4..0x8].copy_from_slice(&blocks.to_le_bytes());
    superblock[0x18..0x1c].copy_from_slice(&2_u32.to_le_bytes());
    superblock[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
    superblock[0x78..0x7d].copy_from_slice(b"STATE");
    (disk, kept)
}

#[test]
fn state_is_kept_through_an_interrupted_run_and_a_second_one() {
    let (image, layout) = image();
    // Grown by an earlier boot, over the room that the image has for it.
    let (before, kept) = with_state(used_disk(&image), &layout, 5000);
    let target = RecordedDisk::of(before.clone());
    install_to(&target, &image, keeping_request(&mut unwatched)).unwrap();
    let operations = target.operations.lock().unwrap().clone();

    let again = RecordedDisk::of(cut_disk(&before, &operations, operations.len() / 2));
    install_to(&again, &image, keeping_request(&mut unwatched)).unwrap();

    for disk in [target.content(), again.content()] {
        assert!(disk[kept.clone()] == before[kept.clone()], "STATE was written to");
        let table =
            gpt::read_primary(&disk[512..512 + COPY_BYTES], Bytes::new(disk.len() as u64)).unwrap().table;
        let state = table.find_label("STATE").unwrap();
        let end = usize::try_from(state.byte_offset().get() + state.byte_size().get()).unwrap();
        assert!(end >= kept.end, "the partition ends at {end}, its file system at {}", kept.end);
    }
}

#[test]
fn without_a_state_to_keep_nothing_is_written() {
    let (image, layout) = image();
    let disks = [used_disk(&image), with_state(used_disk(&image), &layout, 4000).0];
    for (disk, spoil) in disks.into_iter().zip([0, 1_usize << 20]) {
        let mut disk = disk;
        if spoil > 0 {
            let start =
                usize::try_from(layout.partition_of(PartitionRole::State).byte_offset().get()).unwrap();
            disk[start + 1024 + 4..start + 1024 + 8].copy_from_slice(&u32::MAX.to_le_bytes());
        }
        let target = RecordedDisk::of(disk);

        let refused = install_to(&target, &image, keeping_request(&mut unwatched));

        assert!(matches!(refused, Err(InstallError::NothingToKeep { .. })), "{refused:?}");
        assert!(target.operations.lock().unwrap().is_empty());
    }
}

/// Both ends of a partition of the old table, and the places where arrays and pools have their marks.
#[test]
fn no_mark_of_an_old_partition_is_left() {
    let (image, _) = image();
    let mut disk = used_disk(&image);
    let (first, sectors) = (60 * 2048_u32, 40 * 2048_u32);
    disk[446 + 4] = 0xfd;
    disk[446 + 8..446 + 12].copy_from_slice(&first.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    let [start, end] = [first, first + sectors].map(|sector| sector as usize * 512);
    let grown = disk.len() - (1 << 20);
    // LVM; md 1.2; md 0.90 in the last 64 KiB; ZFS' last label; and md 0.90 where STATE will end.
    let marks = [start + 512, start + 4096, end - (64 << 10), end - (512 << 10), grown - (64 << 10)];
    let target = RecordedDisk::of(disk);

    install_to(&target, &image, plain_request(&mut unwatched)).unwrap();

    let found = target.content();
    assert!(marks.iter().all(|mark| found[*mark..mark + 512].iter().all(|byte| *byte == 0)));
}

#[test]
fn a_file_stands_for_a_disk_and_a_compressed_image_for_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let (image, layout) = image();
    let [path, packed]: [PathBuf; 2] = ["disk", "disk.raw.zst"].map(|name| folder.path().join(name));
    File::create_new(&path).unwrap().write_all(&used_disk(&image)).unwrap();
    std::fs::write(&packed, zstd::encode_all(&image[..], 1).unwrap()).unwrap();
    let mut stream = PieceStream::of_file(Path::new(&packed), FileHash::Unasked).unwrap();
    let first = stream.next_piece().unwrap().unwrap();
    let (target, size) = (Arc::new(DiskFile::open(&path).unwrap()), (image.len() + MORE) as u64);

    let installation = Installation::prepare(target, size, &first, KeptData::Nothing).unwrap();
    let installed = installation.carry_out(stream, &first, plain_request(&mut unwatched)).unwrap();

    assert_installed(&std::fs::read(&path).unwrap(), &image, &layout);
    assert_eq!(installed.sha256, Some(crate::stream::file_sha256(&packed).unwrap()));
}
