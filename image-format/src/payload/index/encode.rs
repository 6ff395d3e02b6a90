//! Writes a payload index.
//!
//! Invariant: what was written reads as the same index, since [`PayloadIndex::to_bytes`] tries it.

use super::{
    Base, Chunk, FORMAT, MAGIC, Pack, ParsePayloadError, PayloadIndex, Run, TAG_BASE, TAG_CHUNKS, TAG_LIST,
    TAG_ROOT,
};
use crate::digest::Sha256;
use crate::payload::object::{ObjectKind, ObjectReference};
use crate::payload::wire::put_number;

impl PayloadIndex {
    /// The bytes of the index, unless it is one that no reader would take.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ParsePayloadError> {
        let bytes = self.encode_index();
        match Self::parse(&bytes)? {
            same if same == *self => Ok(bytes),
            _ => Err(ParsePayloadError::Sense { what: "it does not read as what was written" }),
        }
    }

    fn encode_index(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT.to_le_bytes());
        let mut root = Vec::new();
        put_number(&mut root, self.data_blocks.into());
        root.extend(self.root_hash.as_bytes());
        put_section(&mut bytes, TAG_ROOT, &root);
        put_section(&mut bytes, TAG_CHUNKS, &encode_chunks(&self.chunks));
        if let Some(list) = &self.block_list {
            let mut section = list.sha256.as_bytes().to_vec();
            put_object(&mut section, &list.object);
            put_section(&mut bytes, TAG_LIST, &section);
        }
        for base in &self.bases {
            put_section(&mut bytes, TAG_BASE, &encode_base(base));
        }
        bytes
    }
}

fn put_section(into: &mut Vec<u8>, tag: u32, section: &[u8]) {
    into.extend(tag.to_le_bytes());
    // One that does not fit is far above what is read, and refused there.
    into.extend(u32::try_from(section.len()).unwrap_or(u32::MAX).to_le_bytes());
    into.extend(section);
}

fn put_object(into: &mut Vec<u8>, object: &ObjectReference) {
    put_number(into, object.bytes.into());
    into.extend(object.sha256.as_bytes());
}

fn encode_chunks(chunks: &[Chunk]) -> Vec<u8> {
    let mut section = Vec::new();
    let mut end = 0;
    for chunk in chunks {
        put_run(&mut section, end, chunk.run);
        section.extend(chunk.guard.as_bytes());
        put_object(&mut section, &chunk.object);
        end = chunk.run.end_block();
    }
    section
}

fn put_run(into: &mut Vec<u8>, end: u32, run: Run) {
    // Differences, since neighbours are near: most of them are one byte.
    put_number(into, run.first.wrapping_sub(end).into());
    put_number(into, run.blocks.into());
}

fn encode_base(base: &Base) -> Vec<u8> {
    let mut section = Vec::new();
    put_number(&mut section, base.version.len() as u64);
    section.extend(base.version.as_bytes());
    section.extend(base.root_hash.as_bytes());
    put_number(&mut section, base.data_blocks.into());
    let none = ObjectReference { kind: ObjectKind::Patch, bytes: 0, sha256: Sha256::from_bytes([0; 32]) };
    put_object(&mut section, &base.list_patch.unwrap_or(none));
    base.packs.iter().for_each(|pack| put_pack(&mut section, pack));
    section
}

fn put_pack(into: &mut Vec<u8>, pack: &Pack) {
    put_object(into, &pack.object);
    put_number(into, pack.pieces.len() as u64);
    let mut next_chunk = 0_u32;
    for piece in &pack.pieces {
        put_number(into, piece.chunk.wrapping_sub(next_chunk).into());
        put_number(into, piece.frame_bytes.into());
        put_number(into, piece.targets.len() as u64);
        piece.targets.iter().fold(0, |end, run| {
            put_run(into, end, *run);
            run.end_block()
        });
        put_number(into, piece.sources.len() as u64);
        piece.sources.iter().fold(0_i64, |end, run| {
            let skip = i64::from(run.first) - end;
            put_number(into, (skip << 1 ^ skip >> 63).cast_unsigned());
            put_number(into, run.blocks.into());
            i64::from(run.end_block())
        });
        next_chunk = piece.chunk.wrapping_add(1);
    }
}
