//! Where the files of the cluster are, and how they are written.
//!
//! Knows paths, modes and owners. Refuses to know what stands in the files. Invariants: a file is whole or not
//! there; a private key is never readable by others, not even while it is written.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::User;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Everybody.
    All,
    /// etcd, and root.
    Etcd,
    /// Root.
    Root,
}

/// Why a file of the cluster could not be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum SiteError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// The folders of one machine.
#[derive(Debug, Clone)]
pub struct Site {
    root: PathBuf,
}

impl Site {
    /// The machine whose files are below `root`.
    #[must_use]
    pub fn at_root(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether it is the machine that runs this program.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// What goes with the power: certificates and what was decided for this boot.
    #[must_use]
    pub fn runtime_path(&self, name: &str) -> PathBuf {
        self.root.join("run/catamaran/cluster").join(name)
    }

    /// What stays.
    #[must_use]
    pub fn state_path(&self, name: &str) -> PathBuf {
        self.root.join("var/lib/catamaran/cluster").join(name)
    }

    /// A file of somebody else's, by its path on the machine.
    #[must_use]
    pub fn foreign_path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file; `None` if it is not there.
    pub fn read(&self, path: &Path) -> Result<Option<String>, SiteError> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SiteError::Read { path: path.to_owned(), source }),
        }
    }

    /// Puts a file in its place, on the disk before it returns.
    pub fn write(&self, path: &Path, text: &str, readers: Readers) -> Result<(), SiteError> {
        self.replace_file(path, text, readers)
            .map_err(|source| SiteError::Write { path: path.to_owned(), source })
    }

    fn replace_file(&self, path: &Path, text: &str, readers: Readers) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = folder.join(name);
        // One that a power cut left may have another owner or mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        if let Some(etcd) = etcd_user().filter(|_| readers == Readers::Etcd) {
            fchown(&file, Some(etcd.uid.as_raw()), Some(etcd.gid.as_raw()))?;
        }
        if readers == Readers::All {
            file.set_permissions(Permissions::from_mode(0o644))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    }
}

/// On a system without that user, etcd runs as whoever started this.
fn etcd_user() -> Option<User> {
    nix::unistd::geteuid().is_root().then(|| User::from_name("etcd").ok().flatten()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_roots_and_replaces_what_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::at_root(folder.path());
        let path = site.runtime_path("client.key");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(site.runtime_path("client.key.new"), "half").unwrap();

        site.write(&path, "key", Readers::Root).unwrap();

        assert_eq!(site.read(&path).unwrap().as_deref(), Some("key"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!site.runtime_path("client.key.new").exists());
        assert_eq!(site.read(&site.runtime_path("other")).unwrap(), None);
    }
}
