//! Who owns a file, what others may do with it, and whether it was changed.
//!
//! Knows three numbers and a yes or no. Stands below [`crate::folder`] and [`crate::files`], which both speak of it.

use nix::unistd::{Gid, Uid};

/// Whether something was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileChange {
    Made,
    None,
}

impl FileChange {
    /// Changed if either was.
    pub(crate) fn combine_with(self, other: Self) -> Self {
        if self == Self::Made { self } else { other }
    }
}

/// Owner and mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileRights {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

impl FileRights {
    /// Of root's files that all may read.
    pub(crate) const PUBLIC: Self = Self { uid: 0, gid: 0, mode: 0o644 };
    /// Of root's files that nobody else may read.
    pub(crate) const PRIVATE: Self = Self { uid: 0, gid: 0, mode: 0o600 };

    /// The user we run as, where that is not root: then files are ours whatever was asked for.
    pub(crate) fn for_current_user(self) -> Self {
        // chown(2) is root's alone, and tests run as somebody else.
        if Uid::effective().is_root() {
            return self;
        }
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        Self { uid, gid, ..self }
    }
}
