use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use proptest::prelude::*;

use super::fixture::{Published, SALT, block_number, publish_root, root_hash};
use super::index::{Base, BlockList, Chunk, Pack, ParsePayloadError, PayloadIndex, Piece, Run};
use super::object::{ObjectKind, ObjectReference};
use super::plan::Step;
use super::reconstruct::{
    BlockSink, Event, ObjectSource, Observer, ReconstructError, Site, prepare_reconstruction,
};
use super::survey::{InstalledRelease, OldSlots, SlotContent};
use super::zstandard::{FrameError, compress_frame, decompress_exactly};
use crate::digest::Sha256;
use crate::verity::{self, BLOCK_BYTES, ReadAt};

/// A slot whose every write is compared with what should stand there.
struct MemorySlot {
    bytes: Mutex<Vec<u8>>,
    expected: Vec<u8>,
}

impl ReadAt for MemorySlot {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().as_slice().read_exact_at(buffer, offset)
    }
}

impl BlockSink for MemorySlot {
    fn write_blocks(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(first).unwrap() * BLOCK_BYTES;
        assert_eq!(bytes, &self.expected[at..at + bytes.len()], "unchecked bytes at block {first}");
        self.bytes.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

type Answer = Box<dyn Fn(&ObjectReference, usize, Vec<u8>) -> io::Result<Vec<u8>> + Sync>;

/// A server of some mirrors, of which each may do to its answers what it wants.
struct Server {
    objects: BTreeMap<ObjectReference, Vec<u8>>,
    mirrors: usize,
    answer: Answer,
    asked: Mutex<Vec<ObjectReference>>,
}

impl Server {
    fn honest(published: &Published) -> Self {
        Self::with(published, 1, |_, _, bytes| Ok(bytes))
    }

    fn with(
        published: &Published,
        mirrors: usize,
        answer: impl Fn(&ObjectReference, usize, Vec<u8>) -> io::Result<Vec<u8>> + Sync + 'static,
    ) -> Self {
        let objects = published.objects.clone();
        Self { objects, mirrors, answer: Box::new(answer), asked: Mutex::default() }
    }

    fn bytes(&self) -> u64 {
        self.asked.lock().unwrap().iter().map(|object| u64::from(object.bytes)).sum()
    }
}

impl ObjectSource for Server {
    fn mirrors(&self) -> usize {
        self.mirrors
    }

    fn fetch_object(&self, object: &ObjectReference, mirror: usize) -> io::Result<Vec<u8>> {
        let fetched = (self.answer)(object, mirror, self.objects[object].clone())?;
        self.asked.lock().unwrap().push(*object);
        Ok(fetched)
    }
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn count(&self, of: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|note| note.starts_with(of)).count()
    }
}

impl Observer for Notes {
    fn observe(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

/// A machine: what it runs, and what its idle slot has.
struct Machine {
    running: Vec<u8>,
    idle: MemorySlot,
    notes: Notes,
}

impl Machine {
    /// The idle slot gets whatever it had, and room for `root` and its tree.
    fn new(running: &[u8], idle: &[u8], root: &[u8]) -> Self {
        let tree = verity::build_tree(&root, root.len() as u64, SALT, 1).unwrap();
        let expected = [root, &tree.bytes].concat();
        let mut bytes = idle.to_vec();
        bytes.resize(expected.len().max(idle.len()), 0x55);
        let idle = MemorySlot { bytes: Mutex::new(bytes), expected };
        Self { running: running.to_vec(), idle, notes: Notes::default() }
    }

    fn install(
        &self,
        published: &Published,
        server: &Server,
        threads: usize,
    ) -> Result<u64, ReconstructError> {
        let index = &published.index;
        let running = self.running.as_slice();
        let blocks = |bytes: &[u8]| block_number(bytes.len() / BLOCK_BYTES);
        let release =
            |bytes: &[u8]| InstalledRelease { root_hash: root_hash(bytes), data_blocks: blocks(bytes) };
        let idle_blocks = blocks(&self.idle.bytes.lock().unwrap());
        let site = Site {
            slots: OldSlots {
                running: (!running.is_empty()).then(|| SlotContent {
                    data: &running,
                    blocks: blocks(running),
                    release: Some(release(running)),
                }),
                idle: Some(SlotContent { data: &self.idle, blocks: idle_blocks, release: None }),
            },
            objects: server,
            sink: &self.idle,
            observer: &self.notes,
            threads,
        };
        let prepared = prepare_reconstruction(index, SALT, &site)?;
        let planned = prepared.plan().fetched_bytes(index);
        prepared.reconstruct_root(index, index.data_blocks.into(), &site)?;
        Ok(planned)
    }

    fn is_installed(&self) -> bool {
        self.idle.bytes.lock().unwrap().starts_with(&self.idle.expected)
    }
}

/// A root whose blocks are named by letters; a space is a block of zeros. Each block has noise that no compressor
/// removes, so that sizes mean something.
fn root(letters: &str) -> Vec<u8> {
    letters.bytes().flat_map(|letter| block(letter, 0)).collect()
}

fn block(letter: u8, edited: u8) -> Vec<u8> {
    if letter == b' ' {
        return vec![0; BLOCK_BYTES];
    }
    let mut state = u64::from(letter) << 8 | 1;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    let mut bytes: Vec<u8> = noise.take(BLOCK_BYTES).collect();
    bytes[100] ^= edited;
    bytes
}

/// The root, with one byte changed in each of those blocks.
fn edited(letters: &str, blocks: &[usize]) -> Vec<u8> {
    let mut bytes = root(letters);
    for at in blocks {
        bytes[at * BLOCK_BYTES + 100] ^= 1;
    }
    bytes
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz       ABCDEFGHIJKLM ";

fn letters() -> impl Strategy<Value = String> {
    "[a-h ]{1,40}"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_two_roots_give_the_exact_bytes(
        old in letters(), new in letters(), idle in "|[a-h ]{1,40}", with_base in any::<bool>(), threads in 1_usize..4,
    ) {
        let (old, new, idle) = (root(&old), root(&new), root(&idle));
        let bases: &[&[u8]] = if with_base { &[&old] } else { &[] };
        let published = publish_root(&new, bases);
        let machine = Machine::new(&old, &idle, &new);

        machine.install(&published, &Server::honest(&published), threads).unwrap();

        prop_assert!(machine.is_installed());
        // What the idle slot had may be written over before it is copied from there; nothing else is lost.
        prop_assert!(!idle.is_empty() || machine.notes.count("FellBack") == 0);
    }

    #[test]
    fn an_index_survives_its_bytes(old in letters(), new in letters()) {
        let index = publish_root(&root(&new), &[&root(&old)]).index;

        prop_assert_eq!(PayloadIndex::parse(&index.to_bytes().unwrap()), Ok(index));
    }

    #[test]
    fn damaged_indexes_are_refused_or_make_sense(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = publish_root(&root("abcdefgh  ij"), &[&root("abxdefgh")]).index.to_bytes().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;

        if let Ok(index) = PayloadIndex::parse(&bytes) {
            prop_assert_eq!(PayloadIndex::parse(&index.to_bytes().unwrap()), Ok(index));
        }
    }
}

#[test]
fn what_moved_is_found_and_nothing_is_fetched_but_the_list() {
    let (old, new) = (root(&LETTERS[..32]), root(&format!("{}{}", &LETTERS[13..32], &LETTERS[..13])));
    let published = publish_root(&new, &[&old]);
    let (machine, server) = (Machine::new(&old, &[], &new), Server::honest(&published));

    machine.install(&published, &server, 2).unwrap();

    assert!(machine.is_installed());
    assert!(server.bytes() < 300, "{} bytes", server.bytes());
    assert_eq!(machine.notes.count("Copied"), 8);
}

#[test]
fn a_changed_block_costs_its_patch_and_not_its_chunk() {
    let (old, new) = (root(LETTERS), edited(LETTERS, &[2, 9, 40]));
    let published = publish_root(&new, &[&old]);
    let (machine, server) = (Machine::new(&old, &[], &new), Server::honest(&published));

    let planned = machine.install(&published, &server, 2).unwrap();

    assert!(machine.is_installed());
    assert_eq!(machine.notes.count("Patched"), 3);
    assert!(planned < 300 && server.bytes() < 600, "{planned} planned, {} fetched", server.bytes());
}

#[test]
fn a_patch_that_costs_more_than_its_chunks_is_not_taken() {
    let (old, new) = (root("abcdefghijklmnop"), root("abcdefghijklmno "));
    let mut published = publish_root(&new, &[&old]);
    for object in published.index.chunks.iter_mut().map(|chunk| &mut chunk.object) {
        object.bytes = 1;
    }
    let site_slots =
        |data| OldSlots { running: Some(SlotContent { data, blocks: 16, release: None }), idle: None };
    let survey = super::survey::Survey::read_slots(&published.index, SALT, site_slots(&old.as_slice()), 1);

    let plan = super::plan::plan_reconstruction(&published.index, &survey, None);

    assert_eq!(plan.steps.iter().filter(|step| matches!(step, Step::Fetch { .. })).count(), 4);
    assert_eq!(super::plan::list_choices(&published.index, &survey), [super::plan::ListChoice::Skip]);
}

/// Cuts the line after every object: what was written is never fetched again, and in the end all is there.
#[test]
fn a_cut_at_every_object_costs_nothing_twice() {
    let new = root(LETTERS);
    let published = publish_root(&new, &[]);
    let machine = Machine::new(&[], &vec![0; new.len() + BLOCK_BYTES], &new);
    let mut fetched = Vec::new();
    let mut runs = 0;
    loop {
        let left = Mutex::new(1);
        let server = Server::with(&published, 1, move |_, _, bytes| {
            let mut left = left.lock().unwrap();
            *left -= 1;
            if *left < 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(bytes) }
        });
        let outcome = machine.install(&published, &server, 1);
        fetched.append(&mut server.asked.lock().unwrap());
        runs += 1;
        if outcome.is_ok() {
            break;
        }
        assert!(runs < 100, "it does not get on");
    }

    assert!(machine.is_installed());
    let count = fetched.len();
    fetched.sort_unstable();
    fetched.dedup();
    assert_eq!((fetched.len(), runs), (count, published.index.chunks.len()));
}

#[test]
fn the_idle_slot_gives_what_it_has_while_it_is_written_over() {
    let new = root(LETTERS);
    let idle: Vec<u8> = new.chunks(BLOCK_BYTES).rev().flatten().copied().collect();
    let published = publish_root(&new, &[]);
    let (machine, server) = (Machine::new(&[], &idle, &new), Server::honest(&published));

    machine.install(&published, &server, 2).unwrap();

    assert!(machine.is_installed());
    assert!(machine.notes.count("Copied") >= 4, "{:?}", machine.notes.0);
}

fn spoil(how: &str, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match how {
        "bomb" => return compress_frame(&vec![0; 64 << 20], &[], 1).unwrap(),
        "empty" => bytes.clear(),
        "long" => bytes.extend([0; 100]),
        "short" => drop(bytes.pop()),
        _ => bytes[0] ^= 1,
    }
    bytes
}

#[test]
fn what_a_hostile_mirror_gives_is_never_written_and_the_next_mirror_is_asked() {
    for how in ["bomb", "empty", "long", "short", "wrong"] {
        let (old, new) = (root(LETTERS), edited(LETTERS, &[2, 9, 40]));
        let published = publish_root(&new, &[&old]);
        let spoiling = move |_: &ObjectReference, mirror, bytes: Vec<u8>| {
            Ok(if mirror == 0 { spoil(how, &bytes) } else { bytes })
        };
        let (alone, second) = (Server::with(&published, 1, spoiling), Server::with(&published, 2, spoiling));
        let machine = Machine::new(&old, &[], &new);

        let refused = machine.install(&published, &alone, 2).unwrap_err();
        machine.install(&published, &second, 2).unwrap();

        assert!(matches!(refused, ReconstructError::Chunk { .. }), "{how}: {refused}");
        assert!(machine.is_installed(), "{how}");
        assert!(machine.notes.count("Refused") > 2, "{how}");
    }
}

#[test]
fn a_bad_patch_costs_its_chunks_and_says_so() {
    let (old, new) = (root(LETTERS), edited(LETTERS, &[2, 9, 40]));
    let published = publish_root(&new, &[&old]);
    let machine = Machine::new(&old, &[], &new);
    let pack = published.index.bases[0].packs[0].object;
    let server = Server::with(&published, 1, move |object, _, bytes| {
        Ok(if *object == pack { spoil("wrong", &bytes) } else { bytes })
    });

    machine.install(&published, &server, 1).unwrap();

    assert!(machine.is_installed());
    assert_eq!(machine.notes.count("FellBack"), 3, "{:?}", machine.notes.0);
    assert_eq!(machine.notes.count("Patched"), 0);
}

/// The publisher's own fault: digests fit, content does not. Nothing of it is written either.
#[test]
fn a_release_that_was_published_wrong_is_not_written() {
    let (new, other) = (root("abcdefgh"), root("abcdefgX"));
    let mut published = publish_root(&new, &[]);
    let wrong = publish_root(&other, &[]);
    published.objects.extend(wrong.objects);
    published.index.chunks[1].object = wrong.index.chunks[1].object;
    let machine = Machine::new(&[], &[], &new);

    let refused = machine.install(&published, &Server::honest(&published), 1).unwrap_err();

    assert_eq!(refused.to_string(), "cannot get blocks 4 to 7 of the root");
    let source = std::error::Error::source(&refused).unwrap().to_string();
    assert_eq!(source, "the blocks are not those that the payload index means");

    let mut published = publish_root(&new, &[]);
    published.index.root_hash = root_hash(&other);
    let refused = machine.install(&published, &Server::honest(&published), 1).unwrap_err();
    assert!(matches!(refused, ReconstructError::RootHash { .. }), "{refused}");
}

/// A disk with a sector that cannot be read, in the running slot.
struct BadSector(Vec<u8>, u64);

impl ReadAt for BadSector {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if (offset..offset + buffer.len() as u64).contains(&self.1) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.0.as_slice().read_exact_at(buffer, offset)
    }
}

#[test]
fn a_bad_sector_costs_the_chunk_that_needs_it() {
    let new = root(LETTERS);
    let published = publish_root(&new, &[]);
    let machine = Machine::new(&[], &[], &new);
    let bad = BadSector(new, 5 * BLOCK_BYTES as u64 + 7);
    let server = Server::honest(&published);
    let blocks = published.index.data_blocks;
    let site = Site {
        slots: OldSlots { running: Some(SlotContent { data: &bad, blocks, release: None }), idle: None },
        objects: &server,
        sink: &machine.idle,
        observer: &machine.notes,
        threads: 1,
    };

    let prepared = prepare_reconstruction(&published.index, SALT, &site).unwrap();
    prepared.reconstruct_root(&published.index, blocks.into(), &site).unwrap();

    assert!(machine.is_installed());
    let list = published.index.block_list.unwrap().object;
    assert_eq!(*server.asked.lock().unwrap(), [list, published.index.chunks[1].object]);
}

#[test]
fn a_stop_is_heard_before_the_next_step() {
    struct Impatient;
    impl Observer for Impatient {
        fn observe(&self, _: &Event<'_>) {}
        fn wants_stop(&self) -> bool {
            true
        }
    }
    let new = root("abcd");
    let published = publish_root(&new, &[]);
    let (machine, server) = (Machine::new(&[], &[], &new), Server::honest(&published));
    let slots = OldSlots::default();
    let site = Site { slots, objects: &server, sink: &machine.idle, observer: &Impatient, threads: 1 };

    let stopped = prepare_reconstruction(&published.index, SALT, &site).unwrap_err();

    assert!(matches!(stopped, ReconstructError::Stopped));
    assert!(server.asked.lock().unwrap().is_empty());
}

#[test]
fn a_stop_while_an_object_comes_is_told_as_a_stop_and_the_rest_follows_later() {
    /// Stops once something was written.
    #[derive(Default)]
    struct StopAfterWrite(std::sync::atomic::AtomicBool);
    impl Observer for StopAfterWrite {
        fn observe(&self, event: &Event<'_>) {
            if matches!(event, Event::Written { .. }) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        fn wants_stop(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }
    let new = root("abcdefgh");
    let published = publish_root(&new, &[]);
    let (machine, server) = (Machine::new(&[], &[], &new), Server::honest(&published));
    let observer = StopAfterWrite::default();
    let site = Site {
        slots: OldSlots::default(),
        objects: &server,
        sink: &machine.idle,
        observer: &observer,
        threads: 1,
    };
    let prepared = prepare_reconstruction(&published.index, SALT, &site).unwrap();

    let stopped = prepared.reconstruct_root(&published.index, 8, &site).unwrap_err();

    assert!(matches!(stopped, ReconstructError::Stopped), "{stopped}");
    machine.install(&published, &server, 1).unwrap();
    assert!(machine.is_installed());
    assert_eq!(machine.notes.count("Kept { blocks: 4 }"), 1);
}

#[test]
fn a_frame_is_opened_into_its_length_and_not_a_byte_more() {
    let bomb = compress_frame(&vec![0; 64 << 20], &[], 1).unwrap();

    assert!(matches!(decompress_exactly(&bomb, &[], 4096), Err(FrameError::Zstandard { .. })));
    let small = compress_frame(b"abc", &[], 1).unwrap();
    assert_eq!(decompress_exactly(&small, &[], 4), Err(FrameError::Length { given: 3, needed: 4 }));
    // A prefix that begins like a trained dictionary is still nothing but bytes.
    let prefix = [&[0x37, 0xa4, 0x30, 0xec][..], &block(b'a', 0)].concat();
    let patch = compress_frame(&block(b'a', 1), &prefix, 19).unwrap();
    assert!(patch.len() < 64, "{}", patch.len());
    assert_eq!(decompress_exactly(&patch, &prefix, BLOCK_BYTES), Ok(block(b'a', 1)));
}

/// One of everything, with digests that no compressor has a say in.
fn golden_index() -> PayloadIndex {
    let object =
        |kind, bytes, name: &str| ObjectReference { kind, bytes, sha256: Sha256::digest_of(name.as_bytes()) };
    let run = |first, blocks| Run { first, blocks };
    let chunk = |run, name: &str| Chunk {
        run,
        guard: Sha256::digest_of(b"guard"),
        object: object(ObjectKind::Chunk, 1000, name),
    };
    let piece = |chunk, sources: &[Run]| Piece {
        chunk,
        frame_bytes: 150,
        targets: vec![run(0, 1), run(2, 2)],
        sources: sources.to_vec(),
    };
    let base = Base {
        version: "1.2.3".into(),
        root_hash: Sha256::digest_of(b"old root"),
        data_blocks: 4000,
        list_patch: Some(object(ObjectKind::Patch, 70, "list patch")),
        packs: vec![Pack {
            object: object(ObjectKind::Patch, 300, "pack"),
            pieces: vec![piece(0, &[run(3000, 200), run(7, 3)]), piece(1, &[])],
        }],
    };
    PayloadIndex {
        data_blocks: 300,
        root_hash: Sha256::digest_of(b"root"),
        chunks: vec![chunk(run(0, 4), "a"), chunk(run(200, 99), "b")],
        block_list: Some(BlockList {
            sha256: Sha256::digest_of(b"list"),
            object: object(ObjectKind::Chunk, 600, "list"),
        }),
        bases: vec![Base { list_patch: None, packs: Vec::new(), ..base.clone() }, base],
    }
}

#[test]
fn an_index_from_the_future_is_read_or_refused_by_name() {
    let index = golden_index();
    let bytes = index.to_bytes().unwrap();
    let with = |tag: u32| [&bytes[..], &tag.to_le_bytes(), &3_u32.to_le_bytes(), b"new"].concat();
    let mut format = bytes.clone();
    format[8] = 2;

    // The bytes are the format: if this changes, machines of before do not read what is published.
    assert_eq!(bytes, include_bytes!("../../fuzz/corpus/payload/golden"));
    assert_eq!(PayloadIndex::parse(&with(77)), Ok(index));
    assert_eq!(
        PayloadIndex::parse(&with(0x8000_0077)).unwrap_err().to_string(),
        "the payload index has the section 0x80000077, which a reader must know: it is of a later release"
    );
    assert_eq!(
        PayloadIndex::parse(&format).unwrap_err().to_string(),
        "the payload index has format 2, but format 1 is read here: it is of a later release"
    );
    assert_eq!(PayloadIndex::parse(b"not one").unwrap_err(), ParsePayloadError::Magic);
    assert!(matches!(PayloadIndex::parse(&vec![0; 5 << 20]), Err(ParsePayloadError::TooLarge { .. })));
}
