//! The root's ext4 file system: how large it must be, and how Debian's own mke2fs makes it.
//!
//! The image is the same on every host because the mke2fs of the suite being built is run, with fixed
//! identifiers and times, on a tar stream. Features are those GRUB 2.12 reads: neither
//! `metadata_csum_seed` nor `orphan_file`; no journal, since nobody ever writes to it.
//!
//! Documentation: <https://docs.kernel.org/filesystems/ext4/> and mke2fs(8), `-d`.

use image_format::bytes::Bytes;
use uuid::Uuid;

use super::tree::{EntryKind, RootTree};

const BLOCK: u64 = 4096;
const INODE: u64 = 256;
/// A block group: as many blocks as one block of bitmap has bits.
const GROUP: u64 = BLOCK * 8;

/// What a file system must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSystemExtent {
    pub(crate) inodes: u64,
    /// Size of the file system, a multiple of 1 MiB.
    pub(crate) size: Bytes,
}

/// Measures a tree.
pub(crate) fn measure_tree(tree: &RootTree) -> FileSystemExtent {
    let mut inodes = 0;
    let mut blocks = 0;
    for (path, entry) in tree.iter() {
        inodes += u64::from(!matches!(entry.kind, EntryKind::HardLink(_)));
        blocks += match &entry.kind {
            EntryKind::File(content) => {
                let data = content.content_size().div_ceil(BLOCK);
                // An extent covers 32768 blocks; four fit in the inode, more need a block of their own.
                data + u64::from(data > 4 * GROUP)
            }
            EntryKind::Directory => directory_blocks(tree, path),
            // Shorter ones stand in the inode itself.
            EntryKind::Symlink(target) => u64::from(target.len() >= 60),
            EntryKind::HardLink(_) => 0,
        };
    }
    // ext4 reserves ten, and lost+found is the eleventh. A block of the table holds sixteen.
    let inodes = (inodes + 32).next_multiple_of(BLOCK / INODE);
    let tables = inodes.div_ceil(BLOCK / INODE);
    let groups = (blocks + tables).div_ceil(GROUP) + 1;
    // Superblock copies, descriptors and bitmaps; some slack, since groups divide unevenly.
    let total = blocks + tables + groups * (4 + BLOCK / INODE) + blocks / 128 + 512;
    FileSystemExtent { inodes, size: Bytes::new((total * BLOCK).next_multiple_of(1 << 20)) }
}

/// Blocks of a directory's names: each takes 8 bytes and its name, in multiples of four.
fn directory_blocks(tree: &RootTree, path: &str) -> u64 {
    let below = path.len() + 1;
    let bytes: u64 = tree
        .entries_below(path)
        .filter(|(found, _)| !found[below..].contains('/'))
        .map(|(found, _)| 8 + (found.len() - below).next_multiple_of(4) as u64)
        .sum();
    // A directory that grows into an index keeps its blocks about two thirds full.
    if bytes + 24 <= BLOCK { 1 } else { (bytes * 3 / 2).div_ceil(BLOCK) + 1 }
}

/// The arguments of mke2fs for an image at `offset` of the file `device`, filled from a tar stream on
/// the standard input.
pub(crate) fn mke2fs_arguments(
    extent: FileSystemExtent,
    uuid: Uuid,
    label: &str,
    device: &str,
    offset: Bytes,
) -> Vec<String> {
    let extended =
        // All that mke2fs would take from chance, the clock or the user who runs it.
        format!("hash_seed={uuid},lazy_itable_init=0,root_owner=0:0,nodiscard,offset={}", offset.get());
    [
        "-q",
        "-t",
        "ext4",
        "-b",
        &BLOCK.to_string(),
        "-I",
        &INODE.to_string(),
        "-N",
        &extent.inodes.to_string(),
        "-m",
        "0",
        "-O",
        "^has_journal,^resize_inode,^metadata_csum_seed,^orphan_file",
        "-U",
        &uuid.to_string(),
        "-L",
        label,
        "-E",
        &extended,
        "-d",
        "-",
        device,
        &format!("{}k", extent.size.get() >> 10),
    ]
    .map(str::to_owned)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::tree::TreeEntry;

    #[test]
    fn a_file_system_is_larger_than_what_it_holds() {
        let mut tree = RootTree::default();
        tree.insert("a", TreeEntry::file(vec![1; 5 << 20], 0o644));

        let extent = measure_tree(&tree);

        assert!(extent.size > Bytes::from_mib(5) && extent.size <= Bytes::from_mib(9), "{}", extent.size);
        assert!(extent.size.get().is_multiple_of(1 << 20));
    }
}
