//! Takes the compression off files that packages ship compressed: kernel modules and firmware.
//!
//! Knows their folders, and what names such files. Refuses to touch `.gz` elsewhere: programs open those by name.
//! Compressed twice is hardly smaller on the way, and no patch finds what two versions share: of Debian's kernel
//! 6.12.117 to 6.12.118, all modules as shipped are 18.8 MB of patch, and 3.1 MB uncompressed. Boots are faster, too,
//! since the kernel has less to do. Invariant: what names a module names a file that is there.

use std::io;

use super::module_index;
use super::tree::{EntryKind, RootTree, TreeEntry};

/// Endings that the kernel looks for by itself (`Documentation/driver-api/firmware`, `modprobe`), longest name last.
const ENDINGS: [&str; 2] = [".xz", ".zst"];

/// Uncompresses a tree's modules of that kernel release, and all firmware.
/// The result is their old and new paths.
pub(crate) fn uncompress_inner(
    tree: &mut RootTree,
    release: &str,
) -> Result<Vec<(String, String)>, UncompressError> {
    let modules = format!("usr/lib/modules/{release}");
    let mut renamed = uncompress_below(tree, &modules, |path| path.rsplit('.').next() == Some("ko"))?;
    if !renamed.is_empty() {
        name_uncompressed(tree, &modules)?;
    }
    renamed.append(&mut uncompress_below(tree, "usr/lib/firmware", |_| true)?);
    Ok(renamed)
}

fn uncompress_below(
    tree: &mut RootTree,
    folder: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, String)>, UncompressError> {
    let found: Vec<(String, String)> = tree
        .entries_below(folder)
        .filter_map(|(path, _)| Some((path.to_owned(), without_ending(path)?.to_owned())))
        .filter(|(_, plain)| wanted(plain))
        .collect();
    for (path, plain) in &found {
        let Some(entry) = tree.get(path) else { continue };
        let kind = match &entry.kind {
            EntryKind::File(_) => {
                let failed = |source| UncompressError { path: path.clone(), source };
                let bytes = uncompress_file(path, &tree.read(path).map_err(failed)?).map_err(failed)?;
                TreeEntry::file(bytes, 0).kind
            }
            // Links among firmware name their targets with the ending.
            EntryKind::Symlink(target) => {
                EntryKind::Symlink(without_ending(target).unwrap_or(target).to_owned())
            }
            EntryKind::HardLink(target) => {
                EntryKind::HardLink(without_ending(target).unwrap_or(target).to_owned())
            }
            EntryKind::Directory => continue,
        };
        let entry = TreeEntry { kind, ..entry.clone() };
        tree.remove(path);
        tree.insert(plain, entry);
    }
    Ok(found)
}

fn without_ending(path: &str) -> Option<&str> {
    ENDINGS.iter().find_map(|ending| path.strip_suffix(ending))
}

/// The content of a file by the ending of its name; another ending means none was put on.
pub(crate) fn uncompress_file(path: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match path.rsplit('.').next() {
        Some("xz") => {
            io::Read::read_to_end(&mut lzma_rust2::XzReader::new(bytes, true), &mut plain)?;
        }
        Some("zst") => plain = zstd::decode_all(bytes)?,
        _ => plain = bytes.to_vec(),
    }
    Ok(plain)
}

/// `modules.dep` names files with their endings, and `modprobe` reads the same from its binary form alone. The other
/// files that depmod wrote have modules' names only.
fn name_uncompressed(tree: &mut RootTree, folder: &str) -> Result<(), UncompressError> {
    let text_path = format!("{folder}/modules.dep");
    let failed = |source| UncompressError { path: text_path.clone(), source };
    let text = tree.read_text(&text_path).map_err(failed)?;
    let plain: String = text
        .lines()
        .map(|line| {
            let words = line.split(' ').map(|word| match word.strip_suffix(':') {
                Some(path) => format!("{}:", without_ending(path).unwrap_or(path)),
                None => without_ending(word).unwrap_or(word).to_owned(),
            });
            words.collect::<Vec<_>>().join(" ") + "\n"
        })
        .collect();
    let binary = module_index::dependency_index(&plain);
    for (path, bytes) in [(text_path.clone(), plain.into_bytes()), (format!("{text_path}.bin"), binary)] {
        let entry = tree.get(&path).cloned().unwrap_or_else(|| TreeEntry::file(Vec::new(), 0o644));
        tree.insert(&path, TreeEntry { kind: TreeEntry::file(bytes, 0).kind, ..entry });
    }
    Ok(())
}

/// Why a file stayed compressed.
#[derive(Debug, thiserror::Error)]
#[error("cannot uncompress /{path} of the root")]
pub(crate) struct UncompressError {
    path: String,
    source: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed_xz(bytes: &[u8]) -> Vec<u8> {
        let mut writer =
            lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        io::Write::write_all(&mut writer, bytes).unwrap();
        writer.finish().unwrap()
    }

    fn tree() -> RootTree {
        let mut tree = RootTree::default();
        let mut put = |path: &str, entry: TreeEntry| tree.insert(path, entry);
        let modules = "usr/lib/modules/6";
        let module = TreeEntry { uid: 3, ..TreeEntry::file(compressed_xz(b"module a"), 0o640) };
        put(&format!("{modules}/kernel/a.ko.xz"), module);
        put(&format!("{modules}/kernel/b-c.ko"), TreeEntry::file(*b"module b", 0o644));
        put(&format!("{modules}/notes.xz"), TreeEntry::file(*b"not a module", 0o644));
        put(
            &format!("{modules}/modules.dep"),
            TreeEntry::file(*b"kernel/a.ko.xz: kernel/b-c.ko\nkernel/b-c.ko:\n", 0o644),
        );
        put(&format!("{modules}/modules.dep.bin"), TreeEntry::file(*b"old", 0o644));
        let firmware = zstd::encode_all(&b"firmware"[..], 1).unwrap();
        put("usr/lib/firmware/x/one.bin.zst", TreeEntry::file(firmware, 0o644));
        put("usr/lib/firmware/two.bin.zst", TreeEntry::symlink("x/one.bin.zst"));
        put("usr/share/doc/changelog.xz", TreeEntry::file(*b"elsewhere", 0o644));
        tree
    }

    #[test]
    fn modules_and_firmware_stand_uncompressed_under_their_plain_names() {
        let mut tree = tree();

        uncompress_inner(&mut tree, "6").unwrap();

        let module = tree.get("usr/lib/modules/6/kernel/a.ko").unwrap();
        assert_eq!((module.mode, module.uid), (0o640, 3));
        assert_eq!(tree.read("usr/lib/modules/6/kernel/a.ko").unwrap(), b"module a");
        assert_eq!(tree.read("usr/lib/firmware/x/one.bin").unwrap(), b"firmware");
        assert!(
            matches!(&tree.get("usr/lib/firmware/two.bin").unwrap().kind, EntryKind::Symlink(to) if to == "x/one.bin")
        );
        let left: Vec<&str> =
            tree.iter().map(|(path, _)| path).filter(|path| without_ending(path).is_some()).collect();
        assert_eq!(left, ["usr/lib/modules/6/notes.xz", "usr/share/doc/changelog.xz"]);
    }

    #[test]
    fn what_names_a_module_names_a_file_that_is_there() {
        let mut tree = tree();

        uncompress_inner(&mut tree, "6").unwrap();

        let text = tree.read_text("usr/lib/modules/6/modules.dep").unwrap();
        assert_eq!(text, "kernel/a.ko: kernel/b-c.ko\nkernel/b-c.ko:\n");
        let binary = tree.read("usr/lib/modules/6/modules.dep.bin").unwrap();
        assert_eq!(binary, module_index::dependency_index(&text));
    }

    #[test]
    fn a_module_that_is_damaged_says_which() {
        let mut tree = tree();
        tree.insert("usr/lib/modules/6/kernel/z.ko.xz", TreeEntry::file(*b"no xz", 0o644));

        let said = uncompress_inner(&mut tree, "6").unwrap_err().to_string();

        assert_eq!(said, "cannot uncompress /usr/lib/modules/6/kernel/z.ko.xz of the root");
    }
}
