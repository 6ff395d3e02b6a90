//! qcow2, version 3: QEMU's format, which OpenStack, Proxmox and Scaleway take.
//!
//! Format: <https://www.qemu.org/docs/master/interop/qcow2.html>. All numbers are big-endian.

mod read;
mod write;

pub use read::open_qcow2;
pub use write::{Qcow2Compression, Qcow2Encoder};

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Clusters of 64 KiB, the default of QEMU: a grain is a cluster.
const CLUSTER_BITS: u32 = 16;
/// Incompatible feature bit 3: the header says how clusters are compressed.
const COMPRESSION_TYPE_BIT: u64 = 1 << 3;
/// An entry of an L2 table whose cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// An entry whose cluster belongs to nobody else.
const COPIED: u64 = 1 << 63;
/// Bits 9 to 55 are the offset of a cluster.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
