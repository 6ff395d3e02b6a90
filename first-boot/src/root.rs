//! Paths of the machine, below a root.
//!
//! Knows one thing: where an absolute path of the machine lies for us. Invariant: everything that is
//! read or written goes through here, so that a test is a directory.

use std::path::{Path, PathBuf};

/// The root of the machine that is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRoot(PathBuf);

impl MachineRoot {
    /// This machine.
    #[must_use]
    pub fn this_machine() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A machine whose files lie in a directory.
    #[must_use]
    pub fn at_directory(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Where an absolute path of the machine lies.
    #[must_use]
    pub fn path_of(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The path that the machine itself has for one of ours, with symbolic links followed.
    pub(crate) fn real_path(&self, path: &Path) -> Option<String> {
        let real = path.canonicalize().ok()?;
        let root = self.0.canonicalize().ok()?;
        let inner = real.strip_prefix(root).ok()?;
        Some(format!("/{}", inner.display()))
    }

    /// Whether this is the running machine and not a directory.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0 == Path::new("/")
    }
}
