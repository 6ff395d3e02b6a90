//! Writes files whole or not at all.
//!
//! Knows temporary names, owners, modes and parents. Refuses to know what a file is for. Invariants: a
//! reader sees the old file or the new one; a file that is already as it should be is not touched; every
//! way goes by [`Folder`], so that no user leads us elsewhere.
//!
//! Documentation: rename(2), fsync(2).

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::stat::FileStat;
use nix::unistd::Uid;

pub(crate) use crate::file_rights::{FileChange, FileRights};
use crate::folder::{self, Folder, Held};
use crate::step_error::StepError;

/// The mode of parents that are made.
const PARENT_MODE: u32 = 0o755;

/// When a file is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDisk {
    /// Before the old one is gone.
    AtOnce,
    /// With all others, when the run ends.
    Later,
}

/// Writes a file, and its parents with the same owner.
pub(crate) fn write(path: &Path, content: &[u8], rights: FileRights) -> Result<FileChange, StepError> {
    write_as(path, content, rights, OnDisk::Later)
}

/// As [`write`], and on the disk before it returns: a power cut leaves the old file or the new one.
pub(crate) fn write_durably(
    path: &Path,
    content: &[u8],
    rights: FileRights,
) -> Result<FileChange, StepError> {
    write_as(path, content, rights, OnDisk::AtOnce)
}

fn write_as(
    path: &Path,
    content: &[u8],
    rights: FileRights,
    on_disk: OnDisk,
) -> Result<FileChange, StepError> {
    let rights = rights.for_current_user();
    let write = || -> io::Result<FileChange> {
        let (parent, name) = folder::split_name(path)?;
        let folder = Folder::make_path(&parent, FileRights { mode: PARENT_MODE, ..rights })?;
        // A new time would make programs that watch the file read it anew at each boot, and the disk write
        // it.
        if is_already(&folder, name, content, rights) {
            return Ok(FileChange::None);
        }
        replace_file(&folder, name, content, rights, on_disk)?;
        Ok(FileChange::Made)
    };
    write().map_err(|source| StepError::Write { path: path.to_owned(), source })
}

/// Owner and mode of a regular file that is there, without set-user-ID and set-group-ID: what is written
/// into it is another program, which was not given them.
pub(crate) fn existing_rights(path: &Path) -> Option<FileRights> {
    let stat = stat_path(path).filter(folder::is_regular)?;
    let rights = folder::rights_of(&stat);
    Some(FileRights { mode: rights.mode & 0o1777, ..rights })
}

/// What is at a path, itself and not what it leads to.
pub(crate) fn stat_path(path: &Path) -> Option<FileStat> {
    let (parent, name) = folder::split_name(path).ok()?;
    Folder::open_path(&parent).ok()?.stat_child(name).ok()?
}

fn is_already(folder: &Folder, name: &OsStr, content: &[u8], rights: FileRights) -> bool {
    let known = folder.read(name, rights.uid, content.len() as u64).ok().flatten();
    known.is_some_and(|known| known.rights == rights && known.content == content)
}

fn replace_file(
    folder: &Folder,
    name: &OsStr,
    content: &[u8],
    rights: FileRights,
    on_disk: OnDisk,
) -> io::Result<()> {
    let temporary = temporary_path(name);
    let fill = || {
        let file = folder.create_file(&temporary, content, rights)?;
        if on_disk == OnDisk::AtOnce { file.sync_all() } else { Ok(()) }
    };
    let written = fill().and_then(|()| folder.rename_child(&temporary, name));
    if written.is_err() {
        // The first failure is the one to tell; what is left over is overwritten next time.
        let _ = folder.remove_child(&temporary);
    }
    written?;
    // fsync(2): the file is safe, but its name is not before the directory was synced as well.
    if on_disk == OnDisk::AtOnce { folder.sync_names() } else { Ok(()) }
}

/// What a path holds, as far as `reader` may know it; `None` if nothing is there.
pub(crate) fn read(path: &Path, reader: u32, most: u64) -> Result<Option<Held>, StepError> {
    let read = || -> io::Result<Option<Held>> {
        let (parent, name) = folder::split_name(path)?;
        match Folder::open_path(&parent) {
            Ok(folder) => folder.read(name, reader, most),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    };
    read().map_err(|source| StepError::Read { path: path.to_owned(), source })
}

/// A file that is written but does not have its name yet.
#[derive(Debug)]
#[must_use = "it is not there before it has its name"]
pub(crate) struct StagedFile {
    folder: Folder,
    path: PathBuf,
}

/// Writes a file beside its place, in a directory that is there.
pub(crate) fn stage_file(path: &Path, content: &[u8], rights: FileRights) -> Result<StagedFile, StepError> {
    let stage = || -> io::Result<StagedFile> {
        let (parent, name) = folder::split_name(path)?;
        let folder = Folder::open_path(&parent)?;
        folder.create_file(&temporary_path(name), content, rights.for_current_user())?;
        Ok(StagedFile { folder, path: path.to_owned() })
    };
    stage().map_err(|source| StepError::Write { path: path.to_owned(), source })
}

impl StagedFile {
    /// Gives the file its name, for good. What it holds is as durable as it was before.
    pub(crate) fn persist_file(self) -> Result<(), StepError> {
        let name = self.path.file_name().unwrap_or_default();
        let named =
            self.folder.rename_child(&temporary_path(name), name).and_then(|()| self.folder.sync_names());
        named.map_err(|source| StepError::Write { path: self.path, source })
    }
}

/// The name a file has until it is complete, in the same directory.
fn temporary_path(name: &OsStr) -> OsString {
    // What reads whole directories leaves hidden names out: sshd's and systemd's `*.conf`, and sudoers(5) any
    // with a dot.
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".catamaran-new");
    // A long name must stay a name.
    // NAME_MAX of limits.h.
    if hidden.len() > 255 {
        hidden = OsString::from(".catamaran-new");
    }
    hidden
}

/// Makes the directories above a path; those that are made are owned as the file is.
pub(crate) fn make_parents(path: &Path, rights: FileRights) -> Result<(), StepError> {
    let rights = FileRights { mode: PARENT_MODE, ..rights.for_current_user() };
    let Some(parent) = path.parent() else { return Ok(()) };
    let made = Folder::make_path(parent, rights);
    made.map(drop).map_err(|source| StepError::MakeDirectory { path: parent.to_owned(), source })
}

/// Makes one directory, or gives one that is there these rights.
pub(crate) fn make_directory(path: &Path, rights: FileRights) -> Result<FileChange, StepError> {
    let rights = rights.for_current_user();
    let act = || -> io::Result<FileChange> {
        let (parent, name) = folder::split_name(path)?;
        let folder = Folder::open_path(&parent)?;
        let is_link = folder.stat_child(name)?.is_some_and(|stat| folder::is_link(&stat));
        // One of root's leads to the directory that is meant, as /var/run does.
        if is_link {
            Folder::open_path(path)?.set_rights(rights)
        } else {
            folder.make_directory(name, rights)
        }
    };
    act().map_err(|source| StepError::MakeDirectory { path: path.to_owned(), source })
}

/// Makes a symbolic link, in place of whatever file or link is there.
pub(crate) fn replace_link(path: &Path, target: &str) -> Result<FileChange, StepError> {
    link_as(path, target, FileRights::PUBLIC)
}

/// As [`replace_link`], for an owner.
pub(crate) fn link_as(path: &Path, target: &str, rights: FileRights) -> Result<FileChange, StepError> {
    let rights = rights.for_current_user();
    let act = || -> io::Result<FileChange> {
        let (parent, name) = folder::split_name(path)?;
        let folder = Folder::make_path(&parent, FileRights { mode: PARENT_MODE, ..rights })?;
        let is_owned = folder.stat_child(name)?.is_some_and(|stat| {
            // Where we are not root, as in tests, everything is ours.
            !Uid::effective().is_root() || (stat.st_uid, stat.st_gid) == (rights.uid, rights.gid)
        });
        if is_owned && folder.read_link(name).is_some_and(|known| known == target) {
            return Ok(FileChange::None);
        }
        let temporary = temporary_path(name);
        folder.create_symlink(&temporary, OsStr::new(target), rights)?;
        folder.rename_child(&temporary, name)?;
        Ok(FileChange::Made)
    };
    act().map_err(|source| StepError::Link { path: path.to_owned(), source })
}

/// Gives a file a second name.
pub(crate) fn hard_link(path: &Path, target: &Path) -> Result<FileChange, StepError> {
    let act = || -> io::Result<FileChange> {
        let ((parent, name), (from, target)) = (folder::split_name(path)?, folder::split_name(target)?);
        Folder::open_path(&parent)?.hard_link(name, &Folder::open_path(&from)?, target)?;
        Ok(FileChange::Made)
    };
    act().map_err(|source| StepError::Link { path: path.to_owned(), source })
}

/// Removes whatever is at a path, with all that is in it.
pub(crate) fn remove_path(path: &Path) -> Result<(), StepError> {
    let act = || -> io::Result<()> {
        let (parent, name) = folder::split_name(path)?;
        match Folder::open_path(&parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            folder => folder?.remove_child(name),
        }
    };
    act().map_err(|source| StepError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn rights(mode: u32) -> FileRights {
        FileRights { uid: 0, gid: 0, mode }
    }

    #[test]
    fn the_second_time_nothing_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c");

        assert_eq!(write(&path, b"x", rights(0o640)).unwrap(), FileChange::Made);
        assert_eq!(write(&path, b"x", rights(0o640)).unwrap(), FileChange::None);
        assert_eq!(write(&path, b"x", rights(0o600)).unwrap(), FileChange::Made);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn setuid_survives_the_change_of_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool");

        write(&path, b"x", rights(0o4755)).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o4755);
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_replaced_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, path) = (folder.path().join("victim"), folder.path().join("path"));
        fs::write(&victim, "old").unwrap();
        symlink(&victim, &path).unwrap();

        write(&path, b"new", rights(0o644)).unwrap();

        assert_eq!(fs::read(&victim).unwrap(), b"old");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();

        assert!(write(&path, b"x", rights(0o644)).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
