//! Writes an image to a disk, so that the disk starts only when all of it is proven.
//!
//! Two programs install: `image-builder flash` on a workstation, `initagent install` on the machine itself. What they
//! share is here: which disk is meant, what of an image must be written, the order of the writes, and the proof.
//! Refuses to know who asks: printing, questions and which keys are trusted are the programs' own.
//! Invariant: from the first sync of an installation until its last write, the disk has no boot sector.

/// Which disk is chosen, and why not another.
pub mod choice;
/// The disks of this machine.
pub mod disks;
/// Files for the EFI partition.
pub mod esp;
/// Which disk a person means.
pub mod expression;
/// What an installation does, and in which order.
pub mod install;
/// Which zeros of an image matter.
pub mod mapped;
/// Where old partitions lie.
pub mod old_partitions;
/// How it goes, in words.
pub mod progress;
/// What a slot holds, and who signed it.
pub mod root;
/// The image, piece by piece.
pub mod stream;
/// A disk that can be written.
pub mod target;
/// The writes to a disk.
pub mod write;
