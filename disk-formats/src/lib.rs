//! Disk images in the formats of hypervisors and clouds, written and read without their tools.
//!
//! Knows the bytes of raw and its compressions, qcow2, VHD, VHDX, VMDK and bmap. Refuses to know what is on a disk,
//! and who wants which format: that is for the program that converts. Data flows one way: a [`disk::ReadDisk`] is read
//! once, in pieces; worker threads pack each piece; every [`encode::Encoder`] gets the packed pieces in order.
//! Invariants: the same content gives the same bytes, for any number of threads and whatever holes the source has;
//! zeros take no room; memory does not grow with the disk; a damaged or hostile file is an error with its place.

pub mod artefact;
pub mod bmap;
pub mod content;
pub mod disk;
pub mod encode;
pub mod format;
pub mod mapped;
pub mod open;
pub mod packing;
pub mod piece;
pub mod qcow2;
pub mod raw;
pub mod stream;
pub mod target;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
mod xz;
