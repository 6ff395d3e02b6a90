//! What runs before Linux: GRUB for BIOS and UEFI, the slot selector both read, and the two small
//! file systems they read it from.
//!
//! Nothing here is ever rewritten by an update; only the slot table changes, one sector at a time.

pub(crate) mod abstate;
pub(crate) mod core_image;
pub(crate) mod esp;
pub(crate) mod fat;
pub(crate) mod selector;
