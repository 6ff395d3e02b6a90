//! The contract between what writes a Catamaran disk and what runs on it.
//!
//! Knows the partition layout, the slot table, the GPT, the boot loaders' places, the signed release manifest, the kernel's command
//! line, the dm-verity tree, the index of the initramfs's kernel modules, the payload and the metadata of releases.
//! Refuses to know files, devices, clocks and
//! networks: everything here is a function from bytes to values or back, over `Read`, `Write` and
//! positional reads that a caller brings. Invariant: no parser here panics or allocates beyond a
//! fixed bound, whatever bytes it is given.

pub mod bios_core;
pub mod boot_reference;
pub mod bytes;
pub mod command_line;
pub mod digest;
pub mod disk_tag;
pub mod efi_program;
pub mod fat;
pub mod glob;
pub mod gpt;
pub mod layout;
pub mod manifest;
pub mod modules;
pub mod payload;
pub mod release;
pub mod signed;
pub mod slot;
pub mod trailer;
pub mod verity;
pub mod version;
