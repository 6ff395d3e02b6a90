//! A repository's folder: read with bounds, written so that each file appears whole or not at all.
//!
//! Knows files. Refuses to know what they mean and who signed them.
//! Invariants: a file that a server may be sending is replaced by a rename and never written in place; one
//! publisher works at a time.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use image_format::release::paths::ChannelName;
use image_format::version::Version;
use nix::fcntl::{Flock, FlockArg};

/// Held by who publishes. A dot in front keeps it out of what `list` and `verify` look at.
const LOCK_FILE: &str = ".publishing";
/// What an unfinished file's name begins with. One that was left behind is what `release gc` removes.
pub(super) const UNFINISHED: &str = ".new-";

/// The folder of a repository.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    folder: PathBuf,
}

/// The right to publish, until it is dropped.
#[derive(Debug)]
#[must_use = "dropped, somebody else may publish"]
pub(super) struct PublisherLock {
    _file: Flock<File>,
}

impl Repository {
    /// The repository in a folder that exists, or will.
    pub(super) fn at_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of it.
    pub(super) fn file_path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// Waits for nobody: two publishers at once are a mistake of whoever planned them, and the second one's
    /// change would have been made without knowing the first one's.
    pub(super) fn lock_repository(&self) -> Result<PublisherLock, RepositoryError> {
        let path = self.file_path(LOCK_FILE);
        let failed = |source| RepositoryError::Write { path: path.clone(), source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(PublisherLock { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(RepositoryError::Busy { folder: self.folder.clone() })
            }
            Err((_, error)) => Err(failed(error.into())),
        }
    }

    /// Reads a file of at most `limit` bytes; `None` if there is none.
    pub(super) fn read_bounded(
        &self,
        relative: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, RepositoryError> {
        let path = self.file_path(relative);
        let failed = |source| RepositoryError::Read { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > limit { Err(RepositoryError::TooLarge { path, limit }) } else { Ok(Some(bytes)) }
    }

    /// Puts a file in its place at once, over what was there.
    pub(super) fn write_file(&self, relative: &str, bytes: &[u8]) -> Result<(), RepositoryError> {
        let path = self.file_path(relative);
        replace_file(&path, bytes).map_err(|source| RepositoryError::Write { path, source })
    }

    /// Makes all that was written outlast a power cut, whoever wrote it. A single call for the thousands of
    /// objects of a payload, and before the metadata that names them.
    pub(super) fn sync_all(&self) -> Result<(), RepositoryError> {
        let failed = |source| RepositoryError::Write { path: self.folder.clone(), source };
        let folder = File::open(&self.folder).map_err(failed)?;
        nix::unistd::syncfs(&folder).map_err(|error| failed(error.into()))
    }

    /// The versions of which there is a manifest: it is written last of a release's files.
    pub(super) fn list_versions(&self) -> Result<Vec<Version>, RepositoryError> {
        let finished = |name: &String| self.file_path(&format!("release/{name}/manifest")).exists();
        let names = self.list_names("release")?.into_iter().filter(finished);
        let mut versions: Vec<Version> = names.filter_map(|name| name.parse().ok()).collect();
        versions.sort();
        Ok(versions)
    }

    /// The channels.
    pub(super) fn list_channels(&self) -> Result<Vec<ChannelName>, RepositoryError> {
        Ok(self.list_names("channel")?.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The names in one of its folders, sorted; none, if there is no such folder.
    pub(super) fn list_names(&self, relative: &str) -> Result<Vec<String>, RepositoryError> {
        let path = self.file_path(relative);
        let failed = |source| RepositoryError::Read { path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Removes a file; one that is gone already is fine.
    pub(super) fn remove_file(&self, relative: &str) -> Result<(), RepositoryError> {
        let path = self.file_path(relative);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RepositoryError::Write { path, source: error })
            }
            _ => Ok(()),
        }
    }
}

/// Writes beside, syncs, renames, and syncs the folder: after a power cut there is the old file or the new one.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(bytes)?;
    // A temporary file is its owner's alone; a web server runs as somebody else.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Why a repository cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepositoryError {
    #[error("somebody else is publishing into {folder}: try again when that has ended")]
    Busy { folder: PathBuf },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has more than {limit} bytes, which no program would read")]
    TooLarge { path: PathBuf, limit: usize },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_publishers_do_not_work_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at_folder(folder.path());
        let first = repository.lock_repository().unwrap();

        assert!(matches!(repository.lock_repository(), Err(RepositoryError::Busy { .. })));

        drop(first);
        assert!(repository.lock_repository().is_ok());
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_server_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at_folder(folder.path());
        repository.write_file("channel/stable", b"old").unwrap();
        let open = File::open(repository.file_path("channel/stable")).unwrap();

        repository.write_file("channel/stable", b"newer").unwrap();

        let mut sent = String::new();
        (&open).read_to_string(&mut sent).unwrap();
        assert_eq!(sent, "old");
        assert_eq!(repository.read_bounded("channel/stable", 5).unwrap().unwrap(), b"newer");
        assert!(matches!(
            repository.read_bounded("channel/stable", 4),
            Err(RepositoryError::TooLarge { .. })
        ));
        assert_eq!(repository.read_bounded("channel/none", 4).unwrap(), None);
        let mode = fs::metadata(repository.file_path("channel/stable")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(repository.list_names("channel").unwrap(), ["stable"]);
    }
}
