//! What runs before Linux: GRUB for BIOS and UEFI, the slot selector both read, and the two small
//! file systems they read it from.
//!
//! An update itself rewrites nothing of it but the slot table, one sector at a time. `initagent boot-loader` replaces the
//! programs later, by the copies that the root has of them.

pub(crate) mod abstate;
pub(crate) mod core_image;
pub(crate) mod esp;
pub(crate) mod fat;
pub(crate) mod selector;
