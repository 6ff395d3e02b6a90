//! A root file system inside a file, without its hash tree.
//!
//! Knows blocks. Refuses to know what they mean. Invariant: nothing behind the root is read.

use std::error::Error;
use std::fs::File;
use std::io;

use ext4_view::Ext4Read;
use image_format::payload::index::Run;
use image_format::verity::leaves::LeafHasher;
use image_format::verity::{BLOCK_BYTES, ReadAt};

use super::{WritePayloadError, parallel};

/// Blocks that a thread hashes at once.
const BATCH: u32 = 512;

/// A root inside a disk image or a file of its own.
#[derive(Debug)]
pub struct RootImage {
    file: File,
    offset: u64,
    data_blocks: u32,
}

impl RootImage {
    /// The root of that many blocks that begins at `offset`.
    #[must_use]
    pub const fn new(file: File, offset: u64, data_blocks: u32) -> Self {
        Self { file, offset, data_blocks }
    }

    /// Its blocks.
    #[must_use]
    pub const fn data_blocks(&self) -> u32 {
        self.data_blocks
    }

    /// The same root for another reader.
    pub(super) fn duplicate_handle(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, ..*self })
    }

    /// The blocks of these runs, one behind the other.
    pub(super) fn read_runs(&self, runs: &[Run]) -> Result<Vec<u8>, WritePayloadError> {
        let mut bytes = Vec::new();
        for run in runs {
            let start = bytes.len();
            bytes.resize(start + run.blocks as usize * BLOCK_BYTES, 0);
            let read = self.read_exact_at(&mut bytes[start..], u64::from(run.first) * BLOCK_BYTES as u64);
            read.map_err(|source| WritePayloadError::Read {
                what: format!("block {} of a root", run.first),
                source,
            })?;
        }
        Ok(bytes)
    }

    /// The digest of every block.
    pub(super) fn hash_blocks(
        &self,
        hasher: &LeafHasher,
        threads: usize,
    ) -> Result<Vec<[u8; 32]>, WritePayloadError> {
        let batches = (0..self.data_blocks).step_by(BATCH as usize);
        let batches: Vec<Run> =
            batches.map(|first| Run { first, blocks: BATCH.min(self.data_blocks - first) }).collect();
        let hashed = parallel::map_parallel(&batches, threads, |batch| {
            let bytes = self.read_runs(&[*batch])?;
            let digests = bytes.chunks_exact(BLOCK_BYTES).map(|block| hasher.hash_block(block));
            Ok::<_, WritePayloadError>(digests.collect::<Vec<_>>())
        })?;
        Ok(hashed.into_iter().flatten().collect())
    }
}

impl ReadAt for RootImage {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > u64::from(self.data_blocks) * BLOCK_BYTES as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        ReadAt::read_exact_at(&self.file, buffer, self.offset + offset)
    }
}

impl Ext4Read for RootImage {
    fn read(&mut self, start: u64, into: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.read_exact_at(into, start)?)
    }
}
