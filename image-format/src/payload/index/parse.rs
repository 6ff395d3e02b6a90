//! Reads a payload index.
//!
//! Refuses whatever a writer would not write. Invariant: nothing is allocated by a count that the input claims;
//! vectors grow with what was really read.

use super::{
    BLOCK, Base, BlockList, Chunk, FORMAT, MAGIC, MAX_BASES, MAX_CHUNK_BLOCKS, MAX_INDEX, MAX_LIST, MAX_PACK,
    MAX_ROOT_BLOCKS, MAX_SOURCE_BLOCKS, MAX_VERSION, MUST_KNOW, Pack, ParsePayloadError, PayloadIndex, Piece,
    Run, TAG_BASE, TAG_CHUNKS, TAG_LIST, TAG_ROOT,
};
use crate::digest::Sha256;
use crate::payload::object::{ObjectKind, ObjectReference};
use crate::payload::wire::Reader;

type Parsed<T> = Result<T, ParsePayloadError>;

impl PayloadIndex {
    /// Reads an index.
    pub fn parse(bytes: &[u8]) -> Parsed<Self> {
        if bytes.len() > MAX_INDEX {
            return Err(ParsePayloadError::TooLarge { given: bytes.len() });
        }
        let mut reader = Fields { section: "head", reader: Reader::new(bytes) };
        if reader.read_array() != Ok(MAGIC) {
            return Err(ParsePayloadError::Magic);
        }
        let format = reader.fixed_u32()?;
        if format != FORMAT {
            return Err(ParsePayloadError::Format { given: format });
        }
        let mut sections = Sections::default();
        while !reader.reader.is_empty() {
            let tag = reader.fixed_u32()?;
            let length = usize::try_from(reader.fixed_u32()?).unwrap_or(usize::MAX);
            sections.read(tag, reader.read_bytes(length)?)?;
        }
        sections.assemble_index()
    }
}

/// What the sections said.
#[derive(Default)]
struct Sections {
    root: Option<(u32, Sha256)>,
    chunks: Option<Vec<Chunk>>,
    block_list: Option<BlockList>,
    bases: Vec<Base>,
}

impl Sections {
    fn read(&mut self, tag: u32, bytes: &[u8]) -> Parsed<()> {
        let fields = |section| Fields { section, reader: Reader::new(bytes) };
        match tag {
            TAG_ROOT => set_once(&mut self.root, fields("root").read_all(read_root)?),
            TAG_CHUNKS => set_once(&mut self.chunks, fields("chunks").read_all(read_chunks)?),
            TAG_LIST => set_once(&mut self.block_list, fields("block list").read_all(read_list)?),
            TAG_BASE if self.bases.len() == MAX_BASES => {
                Err(limit_error("number of bases", MAX_BASES as u64 + 1, MAX_BASES as u64))
            }
            TAG_BASE => {
                self.bases.push(fields("base").read_all(read_base)?);
                Ok(())
            }
            _ if tag & MUST_KNOW != 0 => Err(ParsePayloadError::UnknownSection { tag }),
            _ => Ok(()),
        }
    }

    fn assemble_index(self) -> Parsed<PayloadIndex> {
        let (data_blocks, root_hash) = self.root.ok_or(ParsePayloadError::Missing { section: "root" })?;
        let chunks = self.chunks.ok_or(ParsePayloadError::Missing { section: "chunks" })?;
        if chunks.last().is_some_and(|last| last.run.end_block() > data_blocks) {
            return Err(inconsistency_error("a chunk ends behind the root"));
        }
        for piece in self.bases.iter().flat_map(|base| &base.packs).flat_map(|pack| &pack.pieces) {
            let chunk = usize::try_from(piece.chunk).ok().and_then(|at| chunks.get(at));
            let chunk =
                chunk.ok_or_else(|| inconsistency_error("a patch is for a chunk that there is not"))?;
            if piece.targets.last().is_some_and(|last| last.end_block() > chunk.run.blocks) {
                return Err(inconsistency_error("a patch ends behind its chunk"));
            }
        }
        Ok(PayloadIndex { data_blocks, root_hash, chunks, block_list: self.block_list, bases: self.bases })
    }
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Parsed<()> {
    match place.replace(value) {
        Some(_) => Err(inconsistency_error("a section is there twice")),
        None => Ok(()),
    }
}

fn read_root(fields: &mut Fields<'_>) -> Parsed<(u32, Sha256)> {
    let blocks = fields.read_limited("number of blocks", 1, MAX_ROOT_BLOCKS)?;
    Ok((blocks, fields.read_digest()?))
}

fn read_chunks(fields: &mut Fields<'_>) -> Parsed<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let mut end = 0;
    while !fields.reader.is_empty() {
        let run = fields.run_behind(end, MAX_CHUNK_BLOCKS, MAX_ROOT_BLOCKS)?;
        end = run.end_block();
        let guard = fields.read_digest()?;
        // Zstandard makes what it cannot compress at most a little longer.
        let raw = run.blocks * BLOCK;
        // zstd's own bound, `ZSTD_COMPRESSBOUND`.
        let most = raw + raw / 256 + 64;
        chunks.push(Chunk { run, guard, object: fields.read_object(ObjectKind::Chunk, most)? });
    }
    Ok(chunks)
}

fn read_list(fields: &mut Fields<'_>) -> Parsed<BlockList> {
    Ok(BlockList { sha256: fields.read_digest()?, object: fields.read_object(ObjectKind::Chunk, MAX_LIST)? })
}

fn read_base(fields: &mut Fields<'_>) -> Parsed<Base> {
    let length = fields.read_limited("length of a base's version", 0, MAX_VERSION)? as usize;
    let version = fields.read_bytes(length)?;
    let printable = version.iter().all(u8::is_ascii_graphic);
    let version = str::from_utf8(version).ok().filter(|_| printable);
    let version = version.ok_or_else(|| inconsistency_error("a base's version is not printable"))?.to_owned();
    let root_hash = fields.read_digest()?;
    let data_blocks = fields.read_limited("number of a base's blocks", 1, MAX_ROOT_BLOCKS)?;
    let list_patch = Some(fields.read_object(ObjectKind::Patch, MAX_LIST)?).filter(|object| object.bytes > 0);
    let mut packs = Vec::new();
    while !fields.reader.is_empty() {
        packs.push(read_pack(fields, data_blocks)?);
    }
    Ok(Base { version, root_hash, data_blocks, list_patch, packs })
}

fn read_pack(fields: &mut Fields<'_>, base_blocks: u32) -> Parsed<Pack> {
    let object = fields.read_object(ObjectKind::Patch, MAX_PACK)?;
    let count = fields.read_number()?;
    let mut pieces = Vec::new();
    let (mut next_chunk, mut frames) = (0_u32, 0_u64);
    for _ in 0..count {
        let chunk = next_chunk.checked_add(fields.read_u32()?).filter(|chunk| *chunk < MAX_ROOT_BLOCKS);
        let chunk = chunk.ok_or_else(|| inconsistency_error("a patch is for a chunk that there is not"))?;
        let frame_bytes = fields.read_u32()?;
        let piece = Piece {
            chunk,
            frame_bytes,
            targets: fields.read_targets()?,
            sources: fields.read_sources(base_blocks)?,
        };
        (next_chunk, frames) = (chunk + 1, frames + u64::from(frame_bytes));
        pieces.push(piece);
    }
    // Bytes that belong to no piece would be fetched for nothing.
    if frames == u64::from(object.bytes) {
        Ok(Pack { object, pieces })
    } else {
        Err(inconsistency_error("a pack's patches do not have its length"))
    }
}

/// The fields of one section.
struct Fields<'a> {
    section: &'static str,
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    /// Reads all of it.
    fn read_all<T>(mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let value = read(&mut self)?;
        if self.reader.is_empty() {
            Ok(value)
        } else {
            Err(inconsistency_error("a section is longer than what it says"))
        }
    }

    fn read_bytes(&mut self, count: usize) -> Parsed<&'a [u8]> {
        self.reader.read_bytes(count).map_err(ParsePayloadError::in_section(self.section))
    }

    fn read_array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.reader.read_array().map_err(ParsePayloadError::in_section(self.section))
    }

    fn fixed_u32(&mut self) -> Parsed<u32> {
        self.reader.fixed_u32().map_err(ParsePayloadError::in_section(self.section))
    }

    fn read_number(&mut self) -> Parsed<u64> {
        self.reader.read_number().map_err(ParsePayloadError::in_section(self.section))
    }

    fn read_u32(&mut self) -> Parsed<u32> {
        self.reader.read_u32().map_err(ParsePayloadError::in_section(self.section))
    }

    fn read_digest(&mut self) -> Parsed<Sha256> {
        self.read_array().map(Sha256::from_bytes)
    }

    fn read_limited(&mut self, what: &'static str, least: u32, most: u32) -> Parsed<u32> {
        let given = self.read_number()?;
        match u32::try_from(given).ok().filter(|given| (least..=most).contains(given)) {
            Some(given) => Ok(given),
            None if given < u64::from(least) => Err(inconsistency_error("something has no blocks")),
            None => Err(limit_error(what, given, u64::from(most))),
        }
    }

    fn read_object(&mut self, kind: ObjectKind, most: u32) -> Parsed<ObjectReference> {
        let bytes = self.read_limited("length of an object", 0, most)?;
        Ok(ObjectReference { kind, bytes, sha256: self.read_digest()? })
    }

    /// A run that begins at `from` or behind it.
    fn run_behind(&mut self, from: u32, most: u32, end: u32) -> Parsed<Run> {
        let first = from.checked_add(self.read_u32()?);
        let blocks = self.read_limited("length of a run", 1, most)?;
        let run = first.filter(|first| first.checked_add(blocks).is_some_and(|last| last <= end));
        run.map(|first| Run { first, blocks })
            .ok_or_else(|| inconsistency_error("a run ends behind what it is in"))
    }

    fn read_targets(&mut self) -> Parsed<Vec<Run>> {
        let mut runs = Vec::new();
        let mut end = 0;
        for _ in 0..self.read_number()? {
            let run = self.run_behind(end, MAX_CHUNK_BLOCKS, MAX_CHUNK_BLOCKS)?;
            end = run.end_block();
            runs.push(run);
        }
        if runs.is_empty() { Err(inconsistency_error("a patch makes no blocks")) } else { Ok(runs) }
    }

    fn read_sources(&mut self, base_blocks: u32) -> Parsed<Vec<Run>> {
        let mut runs = Vec::new();
        let (mut end, mut sum) = (0_i64, 0_u32);
        for _ in 0..self.read_number()? {
            let skip = self.read_number()?;
            // Zigzag, as protobuf has it: small numbers of either sign are short.
            let skip = i64::try_from(skip >> 1).unwrap_or(i64::MAX) ^ -i64::from(skip & 1 == 1);
            let first = end.checked_add(skip).and_then(|first| u32::try_from(first).ok());
            let blocks = self.read_limited("length of a run", 1, MAX_SOURCE_BLOCKS)?;
            let run = first.filter(|first| first.checked_add(blocks).is_some_and(|last| last <= base_blocks));
            let run = run.map(|first| Run { first, blocks });
            let run = run.ok_or_else(|| inconsistency_error("a patch needs blocks behind its base"))?;
            (end, sum) = (i64::from(run.end_block()), sum.saturating_add(blocks));
            if sum > MAX_SOURCE_BLOCKS {
                return Err(limit_error("source of a patch", u64::from(sum), u64::from(MAX_SOURCE_BLOCKS)));
            }
            runs.push(run);
        }
        Ok(runs)
    }
}

const fn inconsistency_error(what: &'static str) -> ParsePayloadError {
    ParsePayloadError::Sense { what }
}

const fn limit_error(what: &'static str, given: u64, limit: u64) -> ParsePayloadError {
    ParsePayloadError::Limit { what, given, limit }
}
