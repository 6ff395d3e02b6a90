//! The payload index: which blocks a release has, and in which objects they travel.
//!
//! Knows the bytes of the index and which values make sense. Refuses to know where objects and slots are.
//! Invariant: an index that was read describes one slot without overlaps, and no number in it makes a reader
//! allocate more than the limits here.
//!
//! # Layout
//! ```text
//! magic     8 bytes "CATPAYLD"
//! format    u32, little-endian
//! sections  until the end: tag u32, length u32, bytes
//! ```
//! Numbers inside sections are LEB128. An object is its length and its 32 bytes of digest. A run is two numbers:
//! the blocks skipped since the run before, and the blocks it has.
//!
//! | tag | section | bytes |
//! |---|---|---|
//! | `0x8000_0001` | root | data blocks, 32 bytes of root hash |
//! | `0x8000_0002` | chunks | for each: zero blocks before it, blocks, 32 bytes of guard, object |
//! | `1` | block list | 32 bytes of digest of the list, object |
//! | `2` | base, once for each | version (length, text), 32 bytes of root hash, data blocks, list patch (object, length 0: none), packs |
//!
//! A pack is an object, the number of its pieces, and for each: chunks skipped since the piece before, bytes of
//! its frame, runs of the target (counted from the chunk's first block), runs of the source. Runs have their number
//! before them; runs of a source are not sorted: the skip is the zigzag difference to the end of the run before.
//!
//! A tag with the highest bit set must be known by its reader; others are skipped when they are not known.

mod encode;
mod parse;

use super::object::ObjectReference;
use super::wire::WireError;
use crate::digest::Sha256;
use crate::verity::BLOCK_BYTES;

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;
/// Bytes of the largest index that is read. In memory it takes at most sixteen times as much, all tiny patches.
pub const MAX_INDEX: usize = 2 << 20;
/// Blocks of the largest root: 16 GiB. A slot that large would be a distribution, not a machine's base.
pub const MAX_ROOT_BLOCKS: u32 = 1 << 22;
/// Blocks of the largest chunk: 4 MiB, of which a machine holds one for each worker.
pub const MAX_CHUNK_BLOCKS: u32 = 1 << 10;
/// Blocks of a piece's source, all of which are in memory while it is applied: 16 MiB.
pub const MAX_SOURCE_BLOCKS: u32 = 1 << 12;
/// Bytes of the largest pack.
pub const MAX_PACK: u32 = 4 << 20;
/// Bytes of the largest block list, compressed or not.
pub const MAX_LIST: u32 = 5 * MAX_ROOT_BLOCKS + (64 << 10);
/// The most releases that patches are offered against.
pub const MAX_BASES: usize = 16;
/// Bytes of a digest by which blocks are looked up. Among the 110 000 blocks of a root and the 220 000 of two slots
/// two in a hundred updates meet one accident, which costs one chunk; each byte costs 0.1 MB where the list travels.
pub const ID_BYTES: usize = 5;

const MAGIC: [u8; 8] = *b"CATPAYLD";
/// Bytes of the longest version of a base.
const MAX_VERSION: u32 = 64;
/// Bytes of a block, as numbers of blocks are counted here.
const BLOCK: u32 = 4096;
const _: () =
    assert!(BLOCK as usize == BLOCK_BYTES && MAX_LIST as usize > ID_BYTES * MAX_ROOT_BLOCKS as usize);
const TAG_ROOT: u32 = 0x8000_0001;
const TAG_CHUNKS: u32 = 0x8000_0002;
const TAG_LIST: u32 = 1;
const TAG_BASE: u32 = 2;
/// A section that every reader must know.
// One bit instead of a new format number for each addition: old readers go on where they safely can.
const MUST_KNOW: u32 = 0x8000_0000;

/// What the index says of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadIndex {
    /// Blocks of the root, from the beginning of the slot.
    pub data_blocks: u32,
    /// The hash of the tree's topmost block, which the signed manifest names, too.
    pub root_hash: Sha256,
    /// Runs of blocks, in order; what lies between them is zeros.
    pub chunks: Vec<Chunk>,
    /// Prefixes of the blocks' digests.
    pub block_list: Option<BlockList>,
    /// Releases that patches are offered against.
    pub bases: Vec<Base>,
}

/// A run of blocks that is fetched as one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Its blocks in the slot.
    pub run: Run,
    /// The SHA-256 of its blocks' digests.
    pub guard: Sha256,
    /// The compressed blocks.
    pub object: ObjectReference,
}

/// Blocks, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The first of them.
    pub first: u32,
    /// How many.
    pub blocks: u32,
}

impl Run {
    /// The block behind the last.
    #[must_use]
    pub const fn end_block(self) -> u32 {
        self.first + self.blocks
    }
}

/// The list of the blocks' identifiers, in the order of the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockList {
    /// The digest of the list.
    pub sha256: Sha256,
    /// The list, compressed.
    pub object: ObjectReference,
}

/// A release that patches are offered against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its version, for people.
    pub version: String,
    /// Its root hash, by which a slot with it is known.
    pub root_hash: Sha256,
    /// Blocks of its root.
    pub data_blocks: u32,
    /// The block list, compressed with the identifiers of all blocks of the base as the prefix.
    pub list_patch: Option<ObjectReference>,
    /// Objects with patches.
    pub packs: Vec<Pack>,
}

/// Pieces that are fetched as one object, since single ones would be many small requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// The frames of the pieces, one behind the other.
    pub object: ObjectReference,
    /// What they hold, in the order of their chunks.
    pub pieces: Vec<Piece>,
}

/// The blocks of one chunk that the base lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which chunk, by its place in [`PayloadIndex::chunks`].
    pub chunk: u32,
    /// Bytes of its frame.
    pub frame_bytes: u32,
    /// Where its blocks belong, counted from the chunk's first.
    pub targets: Vec<Run>,
    /// Which blocks of the base are the frame's prefix, in that order.
    pub sources: Vec<Run>,
}

impl PayloadIndex {
    /// Blocks of all chunks, which are the entries of the block list.
    #[must_use]
    pub fn listed_blocks(&self) -> u32 {
        self.chunks.iter().map(|chunk| chunk.run.blocks).sum()
    }

    /// Every object that the index names, for those who copy, verify or remove releases.
    pub fn named_objects(&self) -> impl Iterator<Item = ObjectReference> + '_ {
        let chunks = self.chunks.iter().map(|chunk| chunk.object);
        let list = self.block_list.iter().map(|list| list.object);
        let bases = self
            .bases
            .iter()
            .flat_map(|base| base.list_patch.into_iter().chain(base.packs.iter().map(|pack| pack.object)));
        chunks.chain(list).chain(bases)
    }

    /// Bytes of all chunks' objects: what a machine fetches that has nothing.
    #[must_use]
    pub fn whole_bytes(&self) -> u64 {
        let distinct: std::collections::BTreeSet<_> = self.chunks.iter().map(|chunk| chunk.object).collect();
        distinct.iter().map(|object| u64::from(object.bytes)).sum()
    }
}

/// Why bytes are not a payload index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParsePayloadError {
    #[error("the payload index ends inside its {section}")]
    End { section: &'static str },
    #[error(
        "the payload index has format {given}, but format {FORMAT} is read here: it is of {} release",
        if *given > FORMAT { "a later" } else { "an earlier" }
    )]
    Format { given: u32 },
    #[error("the {what} of the payload index is {given}, at most {limit} is read")]
    Limit { what: &'static str, given: u64, limit: u64 },
    #[error("this is not a payload index: it does not begin with \"CATPAYLD\"")]
    Magic,
    #[error("the payload index has no {section}")]
    Missing { section: &'static str },
    #[error(
        "the payload index has a number in its {section} that has more than one spelling or is too large"
    )]
    Number { section: &'static str },
    #[error("the payload index contradicts itself: {what}")]
    Sense { what: &'static str },
    #[error("the payload index has {given} bytes, at most {MAX_INDEX} are read")]
    TooLarge { given: usize },
    #[error("the payload index has the section {tag:#x}, which a reader must know: it is of a later release")]
    UnknownSection { tag: u32 },
}

impl ParsePayloadError {
    const fn in_section(section: &'static str) -> impl Fn(WireError) -> Self {
        move |error| match error {
            WireError::End => Self::End { section },
            WireError::Number => Self::Number { section },
        }
    }
}
