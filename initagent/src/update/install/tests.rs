use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use image_format::slot::Slot;
use image_format::verity::BLOCK_BYTES;
use image_format::version::Version;

use super::super::idle_slot::IdleSlot;
use super::super::slot_device::Purpose;
use super::super::slot_image::SlotImage;
use super::super::tests::{SLOT_BYTES, data, read_slot, record, release, write_slot};
use super::*;

/// Lets everything go on, or stops it at one step.
#[derive(Debug, Default)]
pub(crate) struct StopAfter {
    pub(crate) limit: Option<usize>,
    pub(crate) steps: AtomicUsize,
}

impl Progress for StopAfter {
    fn advance(&self, _: Stage, done: u64, total: u64) -> ControlFlow<()> {
        assert!(done <= total);
        let steps = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        if self.limit.is_some_and(|limit| steps > limit) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

struct Bench {
    folder: tempfile::TempDir,
    release: TrustedRelease,
}

impl Bench {
    /// A source with 1.1.0, and an idle slot with 1.0.0.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let release = write_slot(&folder.path().join("source"), Version::new(1, 1, 0), &data(5));
        write_slot(&folder.path().join("idle"), Version::new(1, 0, 0), &data(3));
        Self { folder, release }
    }

    fn install(&self, limit: Option<usize>) -> Result<(), WriteReleaseError> {
        let mut source = SlotImage::open_image(&self.folder.path().join("source")).unwrap();
        let device = SlotDevice::open_slot(&self.folder.path().join("idle"), Purpose::Replace).unwrap();
        write_release(&device, &self.release, &mut source, &StopAfter { limit, ..StopAfter::default() })
    }

    fn held(&self) -> Option<Version> {
        read_slot(&self.folder.path().join("idle"))
    }
}

#[test]
fn a_release_is_in_the_slot_whole() {
    let bench = Bench::new();

    bench.install(None).unwrap();

    assert_eq!(bench.held(), Some(Version::new(1, 1, 0)));
    let [source, idle] = ["source", "idle"].map(|name| fs::read(bench.folder.path().join(name)).unwrap());
    assert!(source == idle);
}

/// Wherever it stops, the slot has no manifest, and the next install makes it whole.
#[test]
fn an_install_that_was_cut_off_leaves_no_slot() {
    for limit in 0.. {
        let bench = Bench::new();
        match bench.install(Some(limit)) {
            Ok(()) => {
                assert!(limit > 3, "{limit} steps");
                return;
            }
            Err(WriteReleaseError::Data(WriteDataError::Cancelled)) => {}
            Err(other) => panic!("{other}"),
        }
        assert_eq!(bench.held(), None, "after {limit} steps");

        bench.install(None).unwrap();
        assert_eq!(bench.held(), Some(Version::new(1, 1, 0)));
    }
}

/// Case 3: a wrong bit is seen before its block is written.
#[test]
fn a_wrong_block_of_the_source_is_never_written() {
    for block in [0, 255, 256, 299] {
        let bench = Bench::new();
        let source = fs::OpenOptions::new().write(true).open(bench.folder.path().join("source")).unwrap();
        source.write_all_at(b"EVIL", block * BLOCK_BYTES as u64 + 100).unwrap();

        let refused = bench.install(None).unwrap_err();

        assert!(
            matches!(refused, WriteReleaseError::Data(WriteDataError::Mismatch { block: at }) if at == block),
            "{refused}"
        );
        let idle = fs::read(bench.folder.path().join("idle")).unwrap();
        assert!(!idle.windows(4).any(|bytes| bytes == b"EVIL"));
        assert_eq!(bench.held(), None);
    }
}

#[test]
fn a_forged_hash_tree_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    let source = fs::OpenOptions::new().write(true).open(bench.folder.path().join("source")).unwrap();
    source.write_all_at(&[0xee; 32], bench.release.manifest.root.tree_offset + 40).unwrap();

    let refused = bench.install(None).unwrap_err();

    assert!(
        refused.to_string().contains("hash tree") && refused.to_string().contains("not the signed one"),
        "{refused}"
    );
}

/// A disk that keeps something else than what was written to it.
struct Forgetful;

impl RootContent for Forgetful {
    fn write_data(
        &mut self,
        release: &TrustedRelease,
        slot: &SlotDevice,
        _: &dyn Progress,
    ) -> Result<(), WriteDataError> {
        let mut bytes = data(5);
        assert_eq!(bytes.len() as u64, release.manifest.root.data_bytes);
        bytes[123_456] ^= 1;
        slot.write(0, &bytes).unwrap();
        Ok(())
    }
}

#[test]
fn a_disk_that_lies_is_found_out_before_the_slot_has_a_manifest() {
    let bench = Bench::new();
    let device = SlotDevice::open_slot(&bench.folder.path().join("idle"), Purpose::Replace).unwrap();

    let refused = write_release(&device, &bench.release, &mut Forgetful, &StopAfter::default()).unwrap_err();

    assert!(matches!(refused, WriteReleaseError::Rotten { .. }) && refused.is_about_disk(), "{refused}");
    assert_eq!(bench.held(), None);
}

/// Case 22: the release does not fit, and what was in the slot stays.
#[test]
fn a_slot_that_is_too_small_is_left_as_it_was() {
    let bench = Bench::new();
    let path = bench.folder.path().join("small");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let device = SlotDevice::open_slot(&path, Purpose::Replace).unwrap();

    let refused = write_release(&device, &bench.release, &mut Forgetful, &StopAfter::default()).unwrap_err();

    assert!(refused.to_string().contains("1 MiB, but 1.1.0 needs"), "{refused}");
    assert!(fs::read(&path).unwrap().iter().all(|byte| *byte == 7));
}

#[test]
fn a_disk_image_is_a_source_and_other_files_say_why_not() {
    let bench = Bench::new();
    let layout = image_format::layout::DiskLayout::plan_layout(
        uuid::Uuid::from_u128(7),
        image_format::layout::PartitionSizes { root: Bytes::new(SLOT_BYTES), state: Bytes::MIB },
    )
    .unwrap();
    let disk = bench.folder.path().join("disk.raw");
    let file = fs::File::create(&disk).unwrap();
    file.set_len(layout.disk_size().get()).unwrap();
    let table = image_format::gpt::encode_table(&layout.partition_table(), layout.disk_size()).unwrap();
    file.write_all_at(&table.primary, image_format::gpt::PRIMARY_OFFSET.get()).unwrap();
    let no_release = SlotImage::open_image(&disk).err().unwrap();
    let at = layout.partition_of(image_format::layout::PartitionRole::Root(Slot::A)).byte_offset();
    file.write_all_at(&fs::read(bench.folder.path().join("source")).unwrap(), at.get()).unwrap();

    assert_eq!(SlotImage::open_image(&disk).unwrap().read_envelope().unwrap(), bench.release.envelope);
    assert!(no_release.to_string().contains("slot A holds no release"), "{no_release}");
    for (name, content) in [("empty", vec![]), ("page", b"<html>Please log in</html>".repeat(9000))] {
        let path = bench.folder.path().join(name);
        fs::write(&path, content).unwrap();
        let error = SlotImage::open_image(&path).err().unwrap().to_string();
        assert!(error.contains("neither a disk image nor a slot"), "{error}");
    }
}

#[test]
fn the_idle_slot_of_a_machine_in_files_is_the_other_one() {
    let bench = Bench::new();
    let mut record = record(Slot::B);
    record.devices.other_root = bench.folder.path().join("idle");

    let idle = IdleSlot::open_idle(&record).unwrap();
    assert_eq!(idle.device.path(), record.devices.other_root);

    record.devices.other_root = bench.folder.path().join("nothing");
    assert!(IdleSlot::open_idle(&record).unwrap_err().to_string().contains("cannot open the idle slot"));
    assert!(!release(Version::new(1, 0, 0), &data(3)).envelope.is_empty());
}
