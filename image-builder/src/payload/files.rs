//! Which blocks of a root belong to which file.
//!
//! Knows ext4 through its reader, and finds a file's blocks by their content, since the reader does not say where they
//! lie; where the same content lies twice, either place will do. Machines never do this: patches name blocks.
//! Invariant: a root that is no ext4 has no files, which costs bytes and nothing else.

use std::collections::HashMap;

use ext4_view::{Ext4, FileType, PathBuf};
use image_format::verity::BLOCK_BYTES;
use image_format::verity::leaves::LeafHasher;

use super::WritePayloadError;
use super::root::RootImage;

/// A file of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileBlocks {
    pub(super) path: String,
    /// Where each of its blocks lies, in the file's order; none where it was not found, and where it is zeros.
    pub(super) blocks: Vec<Option<u32>>,
}

/// The places of blocks by their content.
#[derive(Debug)]
pub(super) struct BlockPlaces {
    places: HashMap<[u8; 32], u32>,
    zeros: [u8; 32],
}

impl BlockPlaces {
    pub(super) fn new(leaves: &[[u8; 32]], hasher: &LeafHasher) -> Self {
        let zeros = hasher.zero_block();
        let mut places = HashMap::with_capacity(leaves.len());
        for (block, leaf) in (0..).zip(leaves).filter(|(_, leaf)| **leaf != zeros) {
            places.entry(*leaf).or_insert(block);
        }
        Self { places, zeros }
    }

    /// Whether no block of it has that content. Zeros are everywhere.
    pub(super) fn lacks_block(&self, leaf: &[u8; 32]) -> bool {
        *leaf != self.zeros && !self.places.contains_key(leaf)
    }

    fn find_block(&self, leaf: &[u8; 32]) -> Option<u32> {
        self.places.get(leaf).copied()
    }
}

/// The files of a root, by their paths.
pub(super) fn map_files(
    root: &RootImage,
    places: &BlockPlaces,
    hasher: &LeafHasher,
) -> Result<Vec<FileBlocks>, WritePayloadError> {
    let failed = |source| WritePayloadError::Read { what: "a root".to_owned(), source };
    let Ok(ext4) = Ext4::load(Box::new(root.duplicate_handle().map_err(failed)?)) else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    for path in list_files(&ext4) {
        // A file that cannot be read is none: its blocks are patched by their place.
        let Ok(mut content) = ext4.read(&path) else { continue };
        content.resize(content.len().next_multiple_of(BLOCK_BYTES), 0);
        let blocks =
            content.chunks_exact(BLOCK_BYTES).map(|block| places.find_block(&hasher.hash_block(block)));
        files.push(FileBlocks { path: path.display().to_string(), blocks: blocks.collect() });
    }
    files.sort_by(|one, two| one.path.cmp(&two.path));
    Ok(files)
}

fn list_files(ext4: &Ext4) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new("/")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = ext4.read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            match entry.file_type() {
                Ok(FileType::Directory) if name.as_ref() != b"." && name.as_ref() != b".." => {
                    folders.push(entry.path());
                }
                Ok(FileType::Regular) => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}
