//! The payload of a release: how a slot's bytes travel, and how a machine puts them together again.
//!
//! Knows the index, the look-up by content, the choice of the least bytes and the reconstruction. Refuses to know
//! networks, devices and who signed: objects, old slots and the new slot come through traits, and the caller took
//! the index's digest from signed metadata. Invariants: no byte is written before a digest of it was compared with
//! one that the index names, and the hash tree is computed, never transported: the signed root hash judges it.
//!
//! # How it works
//! A root is a sequence of blocks of 4 KiB. A block's digest is the one that dm-verity has in the lowest level of its
//! tree, salt included, so that one pass of hashing serves the look-up, the check and the tree.
//!
//! - A *chunk* is a run of blocks that is fetched as one compressed *object*. What lies between chunks is zeros.
//! - A chunk's *guard* is the SHA-256 of its blocks' digests. It judges a chunk wherever its blocks came from.
//! - The *block list* has the first [`index::ID_BYTES`] bytes of each block's digest, in the order of the chunks. By
//!   it a machine finds blocks that it has anywhere in either slot. A prefix that fits by accident costs a fetch,
//!   since the guard judges.
//! - A *base* is an older release. Its *packs* are objects with compressed *pieces*: each piece has the blocks of one
//!   chunk that the base lacks, compressed with blocks of the base as the dictionary.
//!
//! # How the format may grow
//! [`index`] has the layout. A reader skips sections that it does not know, unless their tag is marked as one that
//! must be known. What changes the meaning of a known section comes with a new format number, which old readers
//! refuse by name. Another way to compress patches is another optional section: old readers then fetch chunks.

pub mod index;
pub mod lookup;
pub mod object;
pub mod plan;
pub mod reconstruct;
pub mod survey;
pub(crate) mod wire;
pub mod zstandard;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
