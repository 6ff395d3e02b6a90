//! What a disk's content is, as a number: every identifier in a format is derived from it.
//!
//! Formats want random identifiers and the current time, by which no two conversions were the same. Here both come from
//! the content, so that equal disks have equal artefacts, and different disks different identifiers.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

/// A stretch of blocks and its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedRun {
    /// Where it lies on the disk, in bytes.
    pub range: Range<u64>,
    /// The SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// Gathers the digests of the pieces, in order.
#[derive(Debug)]
pub(crate) struct ContentHasher {
    hasher: Sha256,
    mapped: u64,
    size: u64,
}

impl ContentHasher {
    pub(crate) fn new(size: u64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"catamaran disk content 1\0");
        hasher.update(size.to_be_bytes());
        Self { hasher, mapped: 0, size }
    }

    pub(crate) fn add(&mut self, runs: &[HashedRun]) {
        for HashedRun { range, sha256 } in runs {
            self.hasher.update(range.start.to_be_bytes());
            self.hasher.update(range.end.to_be_bytes());
            self.hasher.update(sha256);
            self.mapped += range.end - range.start;
        }
    }

    pub(crate) fn finish_hash(self) -> Content {
        Content { size: self.size, mapped: self.mapped, digest: self.hasher.finalize().into() }
    }
}

/// A disk's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// How large the disk is.
    pub size: u64,
    /// Bytes in blocks that are not zero.
    pub mapped: u64,
    digest: [u8; 32],
}

impl Content {
    /// An identifier for this purpose, in the form of a UUID of version 8 (RFC 9562): custom bits, here of a SHA-256.
    #[must_use]
    pub fn derive_identifier(&self, purpose: &str) -> [u8; 16] {
        let mut hasher = Sha256::new();
        hasher.update(self.digest);
        hasher.update(purpose.as_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        id[6] = (id[6] & 0x0f) | 0x80;
        id[8] = (id[8] & 0x3f) | 0x80;
        id
    }
}
