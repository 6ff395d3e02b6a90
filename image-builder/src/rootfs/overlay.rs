//! Overlay trees: folders of the project whose files land in the image at the path they have there.
//!
//! A checkout keeps no owners and only the executable bit, so an overlay's files are root's, 0755 or
//! 0644; a symbolic link stays one. What one overlay lays down, a later one may replace.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::tree::{EntryKind, FileContent, RootTree, TreeEntry};

/// Lays every file below `directory` over the tree.
pub(crate) fn apply_overlay(tree: &mut RootTree, directory: &Path) -> Result<(), OverlayError> {
    let failed = |source: io::Error| OverlayError::Read { directory: directory.to_owned(), source };
    // By name: a folder's own order is another one on every computer.
    for found in walkdir::WalkDir::new(directory).min_depth(1).sort_by_file_name() {
        let found = found.map_err(|error| failed(error.into()))?;
        let path = found.path().strip_prefix(directory).unwrap_or_else(|_| found.path());
        let path = path.to_str().ok_or_else(|| OverlayError::Name { path: found.path().to_owned() })?;
        let path = follow_directories(tree, path);
        let entry = overlay_entry(found.path(), &found.metadata().map_err(|error| failed(error.into()))?)
            .map_err(failed)?;
        // A folder of the overlay is only a way to its files: what is a folder, or a link to one, stays.
        let way = matches!(entry.kind, EntryKind::Directory)
            && tree
                .get(&path)
                .is_some_and(|old| matches!(old.kind, EntryKind::Directory | EntryKind::Symlink(_)));
        if !way {
            tree.remove(&path);
            tree.insert(&path, entry);
        }
    }
    Ok(())
}

/// A path whose leading part may be a link of the image (`/lib` is `/usr/lib`): where its last name
/// really lies.
fn follow_directories(tree: &RootTree, path: &str) -> String {
    let Some((first, rest)) = path.split_once('/') else { return path.to_owned() };
    match tree.get(first).map(|entry| &entry.kind) {
        Some(EntryKind::Symlink(target)) => format!("{}/{rest}", target.trim_start_matches('/')),
        _ => path.to_owned(),
    }
}

fn overlay_entry(path: &Path, metadata: &fs::Metadata) -> io::Result<TreeEntry> {
    if metadata.is_symlink() {
        return Ok(TreeEntry::symlink(&fs::read_link(path)?.to_string_lossy()));
    }
    if metadata.is_dir() {
        return Ok(TreeEntry::new(EntryKind::Directory, 0o755));
    }
    // git keeps no other bit of a file's mode, and umasks differ.
    let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
    let content = FileContent::HostFile { path: path.to_owned(), size: metadata.len() };
    Ok(TreeEntry::new(EntryKind::File(content), mode))
}

/// Why an overlay could not be laid over the tree.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OverlayError {
    #[error("cannot read the overlay {directory}")]
    Read { directory: PathBuf, source: io::Error },
    #[error("the overlay has a file whose name is not UTF-8: {path}")]
    Name { path: PathBuf },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_land_behind_the_links_of_the_image() {
        let overlay = tempfile::tempdir().unwrap();
        fs::create_dir(overlay.path().join("lib")).unwrap();
        fs::write(overlay.path().join("lib/x"), "new").unwrap();
        let mut tree = RootTree::default();
        tree.insert("usr/lib/x", TreeEntry::file(*b"old", 0o755));
        tree.insert("lib", TreeEntry::symlink("usr/lib"));

        apply_overlay(&mut tree, overlay.path()).unwrap();

        assert_eq!(tree.read("usr/lib/x").unwrap(), b"new");
        assert_eq!(tree.get("usr/lib/x").unwrap().mode, 0o644);
    }
}
