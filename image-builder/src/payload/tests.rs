use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use image_format::payload::index::PayloadIndex;
use image_format::payload::reconstruct::{BlockSink, Event, Observer, Site, prepare_reconstruction};
use image_format::payload::survey::{InstalledRelease, OldSlots, SlotContent};
use image_format::verity::{BLOCK_BYTES, build_tree};

use super::store::ObjectStore;
use super::{PatchChoice, PayloadRequest, PreviousRelease, RootImage, WrittenPayload, write_payload};

const SALT: &[u8] = b"salt";

/// Bytes that no compressor shortens, the same for the same seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed << 1 | 1;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    next.take(bytes).collect()
}

fn root_file(folder: &Path, bytes: &[u8]) -> File {
    let path = folder.join("root");
    fs::write(&path, bytes).unwrap();
    File::open(path).unwrap()
}

fn publish(repository: &Path, root: &[u8], previous: &[PreviousRelease], threads: usize) -> WrittenPayload {
    let workspace = tempfile::tempdir().unwrap();
    let blocks = u32::try_from(root.len() / BLOCK_BYTES).unwrap();
    let request = PayloadRequest {
        root: &RootImage::new(root_file(workspace.path(), root), 0, blocks),
        salt: SALT,
        root_hash: build_tree(&root, root.len() as u64, SALT, 1).unwrap().root_hash,
        previous,
        repository: repository.to_owned(),
        workspace: workspace.path().to_owned(),
        level: 3,
        threads,
    };
    write_payload(&request).unwrap()
}

fn release(version: &str, written: &WrittenPayload) -> PreviousRelease {
    let index = PayloadIndex::parse(&written.index).unwrap();
    PreviousRelease { version: version.to_owned(), index, salt: SALT.to_vec(), patches: PatchChoice::Write }
}

struct Sink<'a>(&'a File);

impl BlockSink for Sink<'_> {
    fn write_blocks(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, first * BLOCK_BYTES as u64)
    }
}

#[derive(Default)]
struct Fetched(std::sync::atomic::AtomicU32);

impl Observer for Fetched {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Fetched { object } => {
                self.0.fetch_add(object.bytes, std::sync::atomic::Ordering::Relaxed);
            }
            Event::FellBack { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
}

/// Rebuilds a release on a machine that runs `old`, and says how many bytes that cost.
fn rebuild(
    repository: &Path,
    new: &PreviousRelease,
    old: Option<(&PreviousRelease, &[u8])>,
) -> (Vec<u8>, u32) {
    let (store, file, fetched) =
        (ObjectStore::open_store(repository).unwrap(), tempfile::tempfile().unwrap(), Fetched::default());
    let bytes = old.map(|(_, bytes)| bytes).unwrap_or_default();
    let running = old.map(|(release, _)| SlotContent {
        data: &bytes,
        blocks: release.index.data_blocks,
        release: Some(InstalledRelease {
            root_hash: release.index.root_hash,
            data_blocks: release.index.data_blocks,
        }),
    });
    let site = Site {
        slots: OldSlots { running, idle: None },
        objects: &store,
        sink: &Sink(&file),
        observer: &fetched,
        threads: 2,
    };
    let prepared = prepare_reconstruction(&new.index, SALT, &site).unwrap();
    prepared.reconstruct_root(&new.index, new.index.data_blocks.into(), &site).unwrap();
    let mut rebuilt = vec![0; new.index.data_blocks as usize * BLOCK_BYTES];
    file.read_exact_at(&mut rebuilt, 0).unwrap();
    (rebuilt, fetched.0.into_inner())
}

fn all_files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            (
                entry.path().strip_prefix(folder).unwrap().display().to_string(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn the_same_roots_give_the_same_repository_on_any_number_of_cores() {
    let old = noise(1, 300 * BLOCK_BYTES);
    let mut new = old.clone();
    new[100 * BLOCK_BYTES + 17] ^= 1;
    let repositories = [1, 3].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let first = publish(folder.path(), &old, &[], threads);
        let second = publish(folder.path(), &new, &[release("1.0.0", &first)], threads);
        (all_files(folder.path()), first.index, second.index)
    });

    assert!(repositories[0] == repositories[1]);
}

#[test]
fn a_second_release_stores_what_changed_and_machines_fetch_still_less() {
    let folder = tempfile::tempdir().unwrap();
    let old = [noise(1, 2000 * BLOCK_BYTES), vec![0; 50 * BLOCK_BYTES], noise(2, 700 * BLOCK_BYTES)].concat();
    // A file grew: all behind it moved, and one byte is another.
    let mut new =
        [noise(1, 900 * BLOCK_BYTES), noise(3, 5 * BLOCK_BYTES), old[900 * BLOCK_BYTES..].to_vec()].concat();
    new[2500 * BLOCK_BYTES + 99] ^= 1;
    let first = publish(folder.path(), &old, &[], 2);
    let first_release = release("1.0.0", &first);

    let second = publish(folder.path(), &new, std::slice::from_ref(&first_release), 2);

    let second_release = release("1.0.1", &second);
    assert!(second.costs.new_object_bytes < first.costs.whole_bytes / 2, "{:?}", second.costs);
    let (rebuilt, whole) = rebuild(folder.path(), &second_release, None);
    assert!(rebuilt == new);
    let (rebuilt, patched) = rebuild(folder.path(), &second_release, Some((&first_release, &old)));
    assert!(rebuilt == new);
    assert!(patched < whole / 50, "{patched} of {whole}");
    assert_eq!(all_files(folder.path()).keys().filter(|path| path.contains(".new-")).count(), 0);
}

#[test]
fn a_root_that_is_not_its_manifests_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let root = noise(1, 3 * BLOCK_BYTES);
    let request = PayloadRequest {
        root: &RootImage::new(root_file(folder.path(), &root), 0, 3),
        salt: SALT,
        root_hash: image_format::digest::Sha256::digest_of(b"another"),
        previous: &[],
        repository: folder.path().join("repository"),
        workspace: folder.path().to_owned(),
        level: 3,
        threads: 1,
    };

    let refused = write_payload(&request).unwrap_err().to_string();

    assert!(refused.starts_with("the root has the root hash "), "{refused}");
    assert!(all_files(&folder.path().join("repository")).is_empty());
}

/// A root made by mke2fs, with these files.
#[expect(
    clippy::disallowed_methods,
    reason = "a test makes a file system by the program that makes all of them"
)]
fn ext4_root(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join("tree").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let (image, tree) = (folder.path().join("image"), folder.path().join("tree"));
    let made = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-d"])
        .args([&tree, &image])
        .arg("24M")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::read(image).unwrap()
}

/// What block look-up cannot see: a program built again, all of whose code moved by a few bytes, in the folder of
/// another kernel version.
#[test]
fn a_program_built_again_is_patched_against_the_file_that_it_was() {
    let old_program = noise(5, 3 << 20);
    let new_program = [&old_program[..70_000], b"fixed", &old_program[70_000..]].concat();
    let other = noise(6, 5 << 20);
    let old = ext4_root(&[("usr/lib/modules/6.1.1/a.ko", old_program), ("usr/bin/other", other.clone())]);
    let new = ext4_root(&[("usr/lib/modules/6.1.2/a.ko", new_program), ("usr/bin/other", other)]);
    let folder = tempfile::tempdir().unwrap();
    let first = release("1.0.0", &publish(folder.path(), &old, &[], 2));

    let second = release("1.0.1", &publish(folder.path(), &new, std::slice::from_ref(&first), 2));

    let (rebuilt, patched) = rebuild(folder.path(), &second, Some((&first, &old)));
    assert!(rebuilt == new);
    assert!(patched < 40_000, "{patched} bytes for 3 MiB that moved by five bytes");
}
