//! GRUB for BIOS: what its core image is made of.
//!
//! No installer is run: `image_format::bios_core` patches the places that tie boot code and core image together, as
//! `grub-bios-setup` would on a real disk (GRUB 2.12, `util/setup.c` and `boot/i386/pc/boot.S`).

/// GRUB modules the selector's commands come from, and those that find its files.
pub(crate) const MODULES: [&str; 22] = [
    "biosdisk",
    "boot",
    "configfile",
    "echo",
    "ext2",
    "fat",
    "halt",
    "linux",
    "loadenv",
    "loopback",
    "memdisk",
    "minicmd",
    "normal",
    "part_gpt",
    "reboot",
    "regexp",
    "serial",
    "sleep",
    "tar",
    "terminal",
    "test",
    "true",
];

/// Where the selector is inside the core image's memory disk.
pub(crate) const SELECTOR: &str = "boot/grub/grub.cfg";

/// The memory disk: a tar with the selector in it.
pub(crate) fn memory_disk(selector: &str) -> std::io::Result<Vec<u8>> {
    let mut tree = crate::rootfs::tree::RootTree::default();
    tree.insert(SELECTOR, crate::rootfs::tree::TreeEntry::file(selector.as_bytes(), 0o644));
    let mut tar = Vec::new();
    tree.write_tar(&mut tar, 0)?;
    Ok(tar)
}
