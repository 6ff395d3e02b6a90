//! What a release is made of beside packages: its spec, and every file of its overlays.
//!
//! Knows how two such recipes are compared: by one digest. Refuses to know packages and the agent, which are in
//! the lock. Invariant: neither the version nor the place of the checkout is part of it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use image_format::digest::Sha256;
use image_format::version::Version;

use crate::spec::ImageSpec;

/// The digest of a recipe, as text.
pub(super) fn recipe_digest(spec: &ImageSpec) -> io::Result<String> {
    let mut plain = spec.clone();
    // Two builds of one recipe differ in their version; where the overlays lie says nothing about what is in them.
    plain.version = Version::new(0, 0, 0);
    plain.overlays.clear();
    plain.release_keys.clear();
    let mut parts = format!("{plain:?}\n");
    for folder in &spec.overlays {
        parts.push_str(&folder_digest(folder)?);
    }
    for key in &spec.release_keys {
        parts.push_str(&Sha256::digest_of(&fs::read(key)?).to_string());
    }
    Ok(Sha256::digest_of(parts.as_bytes()).to_string())
}

/// A line for each file: its path, whether it may be run, and its content.
fn folder_digest(folder: &Path) -> io::Result<String> {
    let mut lines = Vec::new();
    for found in walkdir::WalkDir::new(folder).min_depth(1).sort_by_file_name() {
        let found = found?;
        let path = found.path().strip_prefix(folder).unwrap_or_else(|_| found.path());
        let metadata = found.metadata()?;
        let content = if metadata.is_symlink() {
            format!("link {}", fs::read_link(found.path())?.display())
        } else if metadata.is_file() {
            let kind = if metadata.permissions().mode() & 0o111 == 0 { "file" } else { "program" };
            format!("{kind} {}", Sha256::digest_of(&fs::read(found.path())?))
        } else {
            "folder".to_owned()
        };
        lines.push(format!("{} {content}\n", path.display()));
    }
    Ok(Sha256::digest_of(lines.concat().as_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_an_overlay_is_noticed_and_its_place_is_not() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&one, &other] {
            fs::create_dir(folder.path().join("etc")).unwrap();
            fs::write(folder.path().join("etc/motd"), "hello").unwrap();
        }
        let digest = |folder: &tempfile::TempDir| folder_digest(folder.path()).unwrap();
        let first = digest(&one);
        assert_eq!(first, digest(&other));

        let motd = other.path().join("etc/motd");
        fs::set_permissions(&motd, fs::Permissions::from_mode(0o755)).unwrap();
        let program = digest(&other);
        fs::write(&motd, "goodbye").unwrap();
        let text = digest(&other);
        fs::remove_file(&motd).unwrap();
        std::os::unix::fs::symlink("hello", &motd).unwrap();

        let all = [first, program, text, digest(&other)];
        assert!(all.iter().enumerate().all(|(index, digest)| !all[..index].contains(digest)), "{all:?}");
    }
}
