//! Writes files whole or not at all.
//!
//! Knows temporary names, owners, modes and parents. Refuses to know what a file is for. Invariants: a
//! reader sees the old file or the new one; a file that is already as it should be is not touched.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::step_error::StepError;

/// The mode of parents that are made.
const PARENT_MODE: u32 = 0o755;

/// Whether something was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Made,
    None,
}

impl Change {
    /// Changed if either was.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::Made { self } else { other }
    }
}

/// Owner and mode of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rights {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

impl Rights {
    /// Of root's files that all may read.
    pub(crate) const PUBLIC: Self = Self { uid: 0, gid: 0, mode: 0o644 };
    /// Of root's files that nobody else may read.
    pub(crate) const PRIVATE: Self = Self { uid: 0, gid: 0, mode: 0o600 };

    /// The user we run as, where that is not root: then files are ours whatever was asked for.
    fn settled(self) -> Self {
        if nix::unistd::Uid::effective().is_root() {
            return self;
        }
        let (uid, gid) = (nix::unistd::Uid::effective().as_raw(), nix::unistd::Gid::effective().as_raw());
        Self { uid, gid, ..self }
    }
}

/// When a file is on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum OnDisk {
    /// Before the old one is gone.
    AtOnce,
    /// With all others, when the run ends.
    Later,
}

/// Writes a file, and its parents with the same owner.
pub(crate) fn write(path: &Path, content: &[u8], rights: Rights) -> Result<Change, StepError> {
    write_as(path, content, rights, OnDisk::Later)
}

/// As [`write`], and on the disk before it returns: a power cut leaves the old file or the new one.
pub(crate) fn write_durably(path: &Path, content: &[u8], rights: Rights) -> Result<Change, StepError> {
    write_as(path, content, rights, OnDisk::AtOnce)
}

fn write_as(path: &Path, content: &[u8], rights: Rights, on_disk: OnDisk) -> Result<Change, StepError> {
    let rights = rights.settled();
    if is_already(path, content, rights) {
        return Ok(Change::None);
    }
    make_parents(path, rights)?;
    let replaced = replace(path, content, rights, on_disk);
    replaced.map_err(|source| StepError::Write { path: path.to_owned(), source })?;
    Ok(Change::Made)
}

/// Owner and mode of a regular file that is there, without set-user-ID and set-group-ID: what is written
/// into it is another program, which was not given them.
pub(crate) fn existing_rights(path: &Path) -> Option<Rights> {
    let meta = fs::symlink_metadata(path).ok().filter(Metadata::is_file)?;
    Some(Rights { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() & 0o1777 })
}

fn is_already(path: &Path, content: &[u8], rights: Rights) -> bool {
    let Ok(meta) = fs::symlink_metadata(path) else { return false };
    meta.is_file()
        && meta.len() == content.len() as u64
        && meta.mode() & 0o7777 == rights.mode
        && (meta.uid(), meta.gid()) == (rights.uid, rights.gid)
        && fs::read(path).is_ok_and(|known| known == content)
}

fn replace(path: &Path, content: &[u8], rights: Rights, on_disk: OnDisk) -> io::Result<()> {
    let temporary = temporary(path)?;
    let written = fill(&temporary, content, rights, on_disk).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first failure is the one to tell; what is left over is overwritten next time.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    if on_disk == OnDisk::AtOnce { sync_parent(path) } else { Ok(()) }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// A file that is written but does not have its name yet.
#[derive(Debug)]
#[must_use = "it is not there before it is settled"]
pub(crate) struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

/// Writes a file beside its place, in a directory that is there.
pub(crate) fn stage(path: &Path, content: &[u8], rights: Rights) -> Result<Staged, StepError> {
    let stage = || -> io::Result<Staged> {
        let temporary = temporary(path)?;
        fill(&temporary, content, rights.settled(), OnDisk::Later)?;
        Ok(Staged { temporary, path: path.to_owned() })
    };
    stage().map_err(|source| StepError::Write { path: path.to_owned(), source })
}

impl Staged {
    /// Gives the file its name, for good. What it holds is as durable as it was before.
    pub(crate) fn settle(self) -> Result<(), StepError> {
        let named = fs::rename(&self.temporary, &self.path).and_then(|()| sync_parent(&self.path));
        named.map_err(|source| StepError::Write { path: self.path, source })
    }
}

fn fill(path: &Path, content: &[u8], rights: Rights, on_disk: OnDisk) -> io::Result<()> {
    // One left by a power cut.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    fchown(&file, Some(rights.uid), Some(rights.gid))?;
    // After the owner: a change of owner takes setuid and setgid away.
    file.set_permissions(Permissions::from_mode(rights.mode))?;
    if on_disk == OnDisk::AtOnce { file.sync_all() } else { Ok(()) }
}

/// The name a file has until it is complete, in the same directory.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".catamaran-new");
    // A long name must stay a name.
    if hidden.len() > 255 {
        hidden = OsString::from(".catamaran-new");
    }
    Ok(path.with_file_name(hidden))
}

/// Makes the directories above a path; those that are made are owned as the file is.
pub(crate) fn make_parents(path: &Path, rights: Rights) -> Result<(), StepError> {
    let rights = rights.settled();
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|parent| !parent.exists()).collect();
    for parent in missing.into_iter().rev() {
        make_directory(parent, Rights { mode: PARENT_MODE, ..rights })?;
    }
    Ok(())
}

/// Makes one directory, or gives one that is there these rights.
pub(crate) fn make_directory(path: &Path, rights: Rights) -> Result<Change, StepError> {
    let rights = rights.settled();
    let act = || -> io::Result<Change> {
        let made = match fs::create_dir(path) {
            Ok(()) => Change::Made,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Change::None,
            Err(error) => return Err(error),
        };
        let meta = fs::metadata(path)?;
        let fits =
            meta.mode() & 0o7777 == rights.mode && (meta.uid(), meta.gid()) == (rights.uid, rights.gid);
        if !fits {
            lchown(path, Some(rights.uid), Some(rights.gid))?;
            fs::set_permissions(path, Permissions::from_mode(rights.mode))?;
        }
        Ok(if fits { made } else { Change::Made })
    };
    act().map_err(|source| StepError::MakeDirectory { path: path.to_owned(), source })
}

/// Makes a symbolic link, in place of whatever file or link is there.
pub(crate) fn link(path: &Path, target: &str) -> Result<Change, StepError> {
    if fs::read_link(path).is_ok_and(|known| known == Path::new(target)) {
        return Ok(Change::None);
    }
    make_parents(path, Rights::PUBLIC)?;
    let act = || -> io::Result<()> {
        let temporary = temporary(path)?;
        let _ = fs::remove_file(&temporary);
        symlink(target, &temporary)?;
        fs::rename(&temporary, path)
    };
    act().map_err(|source| StepError::Link { path: path.to_owned(), source })?;
    Ok(Change::Made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(mode: u32) -> Rights {
        Rights { uid: 0, gid: 0, mode }
    }

    #[test]
    fn the_second_time_nothing_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c");

        assert_eq!(write(&path, b"x", rights(0o640)).unwrap(), Change::Made);
        assert_eq!(write(&path, b"x", rights(0o640)).unwrap(), Change::None);
        assert_eq!(write(&path, b"x", rights(0o600)).unwrap(), Change::Made);
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
