//! Which blocks of the old root make a good prefix for some blocks of the new one.
//!
//! Knows paths, versions inside paths and places inside files. Refuses to know contents.
//! Invariant: a prefix has at most [`MAX_SOURCE_BLOCKS`] blocks, each once, so that a machine's memory is bounded.

use std::collections::{BTreeMap, HashMap, HashSet};

use image_format::payload::index::{MAX_SOURCE_BLOCKS, Run};

use super::{RootPair, join_runs};
use crate::payload::files::FileBlocks;

/// Files of at most so many blocks (4 MiB) help as a whole; of larger ones, the part that lies at the same place.
const WHOLE_FILE: usize = 1024;
/// Blocks beside that part: 2 MiB, by which code moves when a large program is built again.
const MARGIN: usize = 512;

/// Chooses prefixes.
#[derive(Debug)]
pub(super) struct SourceChooser<'a> {
    leaves: &'a [[u8; 32]],
    /// The file that has a block of this content, and at which place.
    origins: HashMap<&'a [u8; 32], (usize, usize)>,
    /// For each file of the new root, the one it was.
    partners: Vec<Option<&'a FileBlocks>>,
    lengths: Vec<usize>,
    /// Blocks of the old root that belong to no file: inode tables, folders.
    unowned: Vec<u32>,
}

impl<'a> SourceChooser<'a> {
    pub(super) fn new(pair: &RootPair<'a>, new: &'a [FileBlocks], old: &'a [FileBlocks]) -> Self {
        let mut origins = HashMap::new();
        for (file, found) in new.iter().enumerate() {
            let blocks = found.blocks.iter().enumerate().filter_map(|(at, block)| Some((at, (*block)?)));
            for (at, block) in blocks {
                if let Some(leaf) = pair.new_leaves.get(block as usize) {
                    origins.entry(leaf).or_insert((file, at));
                }
            }
        }
        let owned: HashSet<u32> = old.iter().flat_map(|file| file.blocks.iter().flatten().copied()).collect();
        let zeros = pair.hasher.zero_block();
        let unowned =
            (0..).zip(pair.old_leaves).filter(|(block, leaf)| **leaf != zeros && !owned.contains(block));
        Self {
            leaves: pair.new_leaves,
            origins,
            partners: pair_files(new, old),
            lengths: new.iter().map(|file| file.blocks.len()).collect(),
            unowned: unowned.map(|(block, _)| block).collect(),
        }
    }

    /// The prefix for these blocks of the new root.
    pub(super) fn choose_sources(&self, blocks: &[u32]) -> Vec<Run> {
        let mut files: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut without_file: Option<(u32, u32)> = None;
        for block in blocks {
            match self.leaves.get(*block as usize).and_then(|leaf| self.origins.get(leaf)) {
                Some((file, at)) => {
                    let span = files.entry(*file).or_insert((*at, *at));
                    *span = (span.0.min(*at), span.1.max(*at));
                }
                None => without_file = Some((without_file.map_or(*block, |(first, _)| first), *block)),
            }
        }
        let parts = files.iter().filter_map(|(file, span)| self.old_part(*file, *span));
        let of_files = parts.flatten().flatten().copied();
        let of_none = without_file.map(|span| self.near_unowned(span)).unwrap_or_default();
        let mut seen = HashSet::new();
        let chosen = of_files.chain(of_none.iter().copied()).filter(|block| seen.insert(*block));
        join_runs(chosen.take(MAX_SOURCE_BLOCKS as usize))
    }

    /// The part of the old file in which these blocks of the new one were.
    fn old_part(&self, file: usize, (first, last): (usize, usize)) -> Option<&[Option<u32>]> {
        let old = &self.partners.get(file).copied().flatten()?.blocks;
        if old.len() <= WHOLE_FILE {
            return Some(old);
        }
        let new = (*self.lengths.get(file)?).max(1);
        let scaled = |at: usize| at * old.len() / new;
        let from = scaled(first).saturating_sub(MARGIN).min(old.len());
        let to = (scaled(last) + MARGIN + 1).min(old.len());
        old.get(from..to)
    }

    /// What belongs to no file lies at about the same place in both roots, since the same program lays them out.
    fn near_unowned(&self, (first, last): (u32, u32)) -> &[u32] {
        let from = self.unowned.partition_point(|block| *block < first).saturating_sub(MARGIN);
        let to = (self.unowned.partition_point(|block| *block <= last) + MARGIN).min(self.unowned.len());
        self.unowned.get(from..to).unwrap_or_default()
    }
}

/// For each new file, the old one of the same path; else the one whose path differs in its numbers only, as those of
/// kernel modules and libraries do from version to version.
fn pair_files<'a>(new: &[FileBlocks], old: &'a [FileBlocks]) -> Vec<Option<&'a FileBlocks>> {
    let same: HashMap<&str, &FileBlocks> = old.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut alike: HashMap<String, &FileBlocks> = HashMap::new();
    for file in old {
        alike.entry(fold_numbers(&file.path)).or_insert(file);
    }
    let find = |file: &FileBlocks| {
        same.get(file.path.as_str()).or_else(|| alike.get(&fold_numbers(&file.path))).copied()
    };
    new.iter().map(find).collect()
}

/// A path with one sign for each number and what joins numbers.
fn fold_numbers(path: &str) -> String {
    let mut folded = String::with_capacity(path.len());
    for letter in path.chars() {
        match letter {
            '0'..='9' | '.' if folded.ends_with('#') => {}
            '0'..='9' => folded.push('#'),
            other => folded.push(other),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> FileBlocks {
        FileBlocks { path: path.into(), blocks: Vec::new() }
    }

    #[test]
    fn a_file_is_found_under_its_old_version() {
        let old = [
            file("/usr/lib/modules/6.12.117+deb13-cloud-amd64/kernel/a.ko"),
            file("/usr/lib/libssl.so.3"),
            file("/usr/lib/libz.so.1.3.1"),
        ];
        let new = [
            file("/usr/lib/modules/6.12.118+deb13-cloud-amd64/kernel/a.ko"),
            file("/usr/lib/libz.so.1.3.1.1"),
            file("/usr/lib/libssl.so.3"),
            file("/usr/bin/new"),
        ];

        let paired: Vec<_> =
            pair_files(&new, &old).iter().map(|old| old.map(|old| old.path.as_str())).collect();

        assert_eq!(
            paired,
            [Some(old[0].path.as_str()), Some("/usr/lib/libz.so.1.3.1"), Some("/usr/lib/libssl.so.3"), None]
        );
    }
}
