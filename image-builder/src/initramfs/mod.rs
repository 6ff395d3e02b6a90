//! The initramfs: one static program, the modules that find and verify a root, the keys it trusts.
//!
//! Nothing else is in it. It is written here, not by Debian's tools: smaller, and the same bytes for
//! the same inputs.

pub(crate) mod cpio;
pub(crate) mod modules;

use image_format::signed::PublicKey;

use crate::keys;
use modules::ModuleSelection;

/// The compressed image.
pub(crate) fn build_initramfs(
    initagent: &[u8],
    selection: &ModuleSelection,
    release_keys: &[PublicKey],
) -> std::io::Result<Vec<u8>> {
    let mut archive = cpio::CpioArchive::default();
    for folder in [
        "dev",
        "etc",
        "etc/catamaran",
        "etc/catamaran/release-keys",
        "lib",
        "lib/modules",
        "proc",
        "run",
        "sys",
        "sysroot",
    ] {
        archive.add_directory(folder);
    }
    archive.add_file("init", 0o755, initagent);
    // The kernel opens the console before init can make one.
    archive.character_device("dev/console", 5, 1);
    archive.add_file("lib/modules/index", 0o644, selection.index.to_string().as_bytes());
    for (name, module) in &selection.modules {
        // Unpacked: the whole archive is compressed once, which is smaller than each module by itself.
        archive.add_file(&format!("lib/modules/{name}.ko"), 0o644, module);
    }
    for key in release_keys {
        let path = format!("etc/catamaran/release-keys/{}", keys::file_name(key.key_id()));
        archive.add_file(&path, 0o644, key.to_text().as_bytes());
    }
    compress_for_kernel(&archive.finish_archive())
}

/// As the kernel unpacks it: one zstd frame with a window it has room for.
fn compress_for_kernel(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    // The kernel's decoder takes windows of up to 128 MiB, `ZSTD_WINDOWSIZE_MAX` in lib/decompress_unzstd.c.
    zstd::bulk::compress(bytes, 12)
}
