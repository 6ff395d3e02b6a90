//! The folder where packages, trees, tools and the development key stay between builds.
//!
//! Trees and tools in it are found by their key and not hashed again, and the tools are run: whoever can write
//! there writes the signed image and runs programs as the builder. Invariant: after [`open_cache`], only this user can
//! read or write it, and nobody else could before.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// Makes the folder if need be, or refuses it. Gives its real path.
pub(crate) fn open_cache(path: &Path) -> Result<PathBuf, CacheError> {
    let failed = |source| CacheError::Prepare { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    // A link could lead elsewhere after the check.
    let path = fs::canonicalize(path).map_err(failed)?;
    let found = fs::metadata(&path).map_err(failed)?;
    let (owner, mode) = (Uid::from_raw(found.uid()), found.mode() & 0o777);
    if owner != Uid::effective() {
        return Err(CacheError::Owner { path, owner });
    }
    // Refused and not mended: what is in it may have been put there before now.
    if mode & 0o022 != 0 {
        return Err(CacheError::Writable { path, mode });
    }
    if mode != 0o700 {
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(path)
}

/// Why a cache is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error(
        "the cache {path} belongs to user {owner}, who could write the image and run programs by it: build as \
         that user, or name another folder with --cache DIR"
    )]
    Owner { path: PathBuf, owner: Uid },
    #[error("cannot prepare the cache {path}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error(
        "others can write the cache {path} (mode {mode:o}), so what is in it may be theirs: remove it, or name \
         another folder with --cache DIR"
    )]
    Writable { path: PathBuf, mode: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_cache_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("a/cache");
        assert_eq!(mode(&open_cache(&new).unwrap()), 0o700);

        fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(mode(&open_cache(&new).unwrap()), 0o700);
    }

    #[test]
    fn a_cache_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o770, 0o1777] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            assert!(matches!(open_cache(folder.path()), Err(CacheError::Writable { .. })), "{mode:o}");
        }
    }

    #[test]
    fn a_cache_of_another_user_is_refused() {
        // /proc/1 belongs to root, or, where this test is root, a folder can be given away.
        let folder = tempfile::tempdir().unwrap();
        let foreign = if Uid::effective().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(12345), None).unwrap();
            folder.path()
        } else {
            Path::new("/proc/1")
        };

        let said = open_cache(foreign).unwrap_err().to_string();

        assert!(said.contains("belongs to user ") && said.contains("--cache DIR"), "{said}");
    }
}
