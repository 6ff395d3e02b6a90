//! Writes and applies payloads of roots in files: what `ci/bench update` measures.
//!
//! Usage: payload-bench write REPOSITORY NAME ROOT LEVEL [PREVIOUS...]   (=PREVIOUS: chunks are shared, no patches)
//!        payload-bench rebuild REPOSITORY NAME OUTPUT [RUNNING [RUNNING-NAME]]
//!        payload-bench rauc OLD NEW
//! Prints `name value` lines. A rebuilt root has its hash tree behind it, as a slot does.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its caller")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use image_builder::payload::{PatchChoice, PayloadRequest, PreviousRelease, RootImage, write_payload};
use image_format::digest::Sha256;
use image_format::payload::index::PayloadIndex;
use image_format::payload::object::ObjectReference;
use image_format::payload::reconstruct::{
    BlockSink, Event, ObjectSource, Observer, Site, prepare_reconstruction,
};
use image_format::payload::survey::{InstalledRelease, OldSlots, SlotContent};
use image_format::payload::zstandard::compress_frame;
use image_format::verity::{BLOCK_BYTES, build_tree, tree_blocks};

const SALT: [u8; 32] = [7; 32];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let started = Instant::now();
    match arguments[..] {
        ["write", repository, name, root, level, ref previous @ ..] => {
            write(Path::new(repository), name, Path::new(root), level.parse()?, previous)?;
        }
        ["rebuild", repository, name, output, ref running @ ..] => {
            rebuild(Path::new(repository), name, Path::new(output), running)?;
        }
        ["rauc", old, new] => count_rauc(Path::new(old), Path::new(new))?,
        _ => return Err("usage: payload-bench write|rebuild|rauc ...".into()),
    }
    println!("seconds {:.3}", started.elapsed().as_secs_f64());
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    println!("peak_memory_bytes {}", peak.unwrap_or_default().trim().parse::<u64>()? << 10);
    Ok(())
}

fn threads() -> Outcome<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

fn index_path(repository: &Path, name: &str) -> PathBuf {
    repository.join("release").join(name).join("index")
}

fn read_index(repository: &Path, name: &str) -> Outcome<PayloadIndex> {
    Ok(PayloadIndex::parse(&fs::read(index_path(repository, name))?)?)
}

fn write(repository: &Path, name: &str, root: &Path, level: i32, previous: &[&str]) -> Outcome<()> {
    let file = File::open(root)?;
    let bytes = file.metadata()?.len();
    let root_hash = build_tree(&file, bytes, &SALT, threads()?)?.root_hash;
    let previous = previous.iter().map(|name| {
        let (name, patches) = match name.strip_prefix('=') {
            Some(name) => (name, PatchChoice::Omit),
            None => (*name, PatchChoice::Write),
        };
        let index = read_index(repository, name)?;
        Ok(PreviousRelease { version: name.to_owned(), index, salt: SALT.to_vec(), patches })
    });
    let previous = previous.collect::<Outcome<Vec<_>>>()?;
    let written = write_payload(&PayloadRequest {
        root: &RootImage::new(file, 0, u32::try_from(bytes / BLOCK_BYTES as u64)?),
        salt: &SALT,
        root_hash,
        previous: &previous,
        repository: repository.to_owned(),
        workspace: std::env::temp_dir(),
        level,
        threads: threads()?,
    })?;
    let path = index_path(repository, name);
    fs::create_dir_all(path.parent().unwrap_or(repository))?;
    fs::write(path, written.index)?;
    println!("whole_bytes {}", written.costs.whole_bytes);
    println!("index_bytes {}", written.costs.index_bytes);
    println!("new_object_bytes {}", written.costs.new_object_bytes);
    for base in written.costs.from {
        println!("from_{}_bytes {}", base.version, base.bytes);
    }
    Ok(())
}

fn rebuild(repository: &Path, name: &str, output: &Path, running: &[&str]) -> Outcome<()> {
    let index_bytes = fs::read(index_path(repository, name))?;
    let index = PayloadIndex::parse(&index_bytes)?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(output)?;
    let blocks = u64::from(index.data_blocks) + tree_blocks(index.data_blocks.into());
    file.set_len(blocks * BLOCK_BYTES as u64)?;
    let running_file = running.first().map(File::open).transpose()?;
    let release = running.get(1).map(|name| read_index(repository, name)).transpose()?;
    let running = match &running_file {
        Some(data) => Some(SlotContent {
            data,
            blocks: u32::try_from(data.metadata()?.len() / BLOCK_BYTES as u64)?,
            release: release
                .map(|old| InstalledRelease { root_hash: old.root_hash, data_blocks: old.data_blocks }),
        }),
        None => None,
    };
    let (mirror, slot, counter) = (Folder(repository.to_owned()), Slot(&file), Counter::default());
    let site = Site {
        slots: OldSlots {
            running,
            idle: Some(SlotContent { data: &file, blocks: index.data_blocks, release: None }),
        },
        objects: &mirror,
        sink: &slot,
        observer: &counter,
        threads: threads()?,
    };
    prepare_reconstruction(&index, &SALT, &site)?.reconstruct_root(
        &index,
        index.data_blocks.into(),
        &site,
    )?;
    file.sync_all()?;
    println!("fetched_bytes {}", index_bytes.len() as u64 + counter.fetched.load(Ordering::Relaxed));
    for (name, blocks) in
        [("copied", &counter.copied), ("kept", &counter.kept), ("patched", &counter.patched)]
    {
        println!("{name}_blocks {}", blocks.load(Ordering::Relaxed));
    }
    println!("objects {}", counter.objects.load(Ordering::Relaxed));
    println!("fell_back {}", counter.fell_back.load(Ordering::Relaxed));
    Ok(())
}

/// What RAUC's `adaptive=block-hash-index` fetches: 32 bytes for each block of 4 KiB, and the blocks that the old root
/// has nowhere. They are compressed as one here, which is kind: RAUC fetches them out of a bundle, one by one.
fn count_rauc(old: &Path, new: &Path) -> Outcome<()> {
    let (old, new) = (fs::read(old)?, fs::read(new)?);
    let known: HashSet<Sha256> = old.chunks(BLOCK_BYTES).map(Sha256::digest_of).collect();
    let lacking: Vec<&[u8]> =
        new.chunks(BLOCK_BYTES).filter(|block| !known.contains(&Sha256::digest_of(block))).collect();
    let index = new.len() / BLOCK_BYTES * 32;
    println!("lacking_blocks {}", lacking.len());
    println!("bytes {}", index + compress_frame(&lacking.concat(), &[], 3)?.len());
    Ok(())
}

/// A repository in a folder.
struct Folder(PathBuf);

impl ObjectSource for Folder {
    fn mirrors(&self) -> usize {
        1
    }

    fn fetch_object(&self, object: &ObjectReference, _mirror: usize) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(object.repository_path()))
    }
}

struct Slot<'a>(&'a File);

impl BlockSink for Slot<'_> {
    fn write_blocks(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, first * BLOCK_BYTES as u64)
    }
}

#[derive(Default)]
struct Counter {
    fetched: AtomicU64,
    objects: AtomicU64,
    copied: AtomicU64,
    kept: AtomicU64,
    patched: AtomicU64,
    fell_back: AtomicU64,
}

impl Observer for Counter {
    fn observe(&self, event: &Event<'_>) {
        let (counter, amount) = match event {
            Event::Copied { blocks } => (&self.copied, *blocks),
            Event::FellBack { .. } => (&self.fell_back, 1),
            Event::Fetched { object } => {
                self.objects.fetch_add(1, Ordering::Relaxed);
                (&self.fetched, object.bytes)
            }
            Event::Kept { blocks } => (&self.kept, *blocks),
            Event::Patched { blocks } => (&self.patched, *blocks),
            Event::Refused { .. } | Event::Verified { .. } | Event::Written { .. } => return,
        };
        counter.fetch_add(amount.into(), Ordering::Relaxed);
    }
}
