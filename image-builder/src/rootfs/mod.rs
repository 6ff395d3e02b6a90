//! The root file system as a value: entries with owners and modes, composed from a bootstrapped tree
//! and overlays, without ever being unpacked on the host.
//!
//! Knows tar and file attributes. Refuses to know disks. Since owners and device nodes exist only in
//! memory and in tar streams, nothing here needs root.

pub(crate) mod accounts;
pub(crate) mod compose;
pub(crate) mod ext4;
pub(crate) mod inner;
mod module_index;
pub(crate) mod overlay;
pub(crate) mod tree;
pub(crate) mod units;
