//! Directories, reached by a way that no user could have bent.
//!
//! Knows who can change what a name in a directory stands for. Refuses symbolic links, and files of others,
//! wherever that is somebody but root: a link in a home waits until root comes by. It is the rule that
//! systemd-tmpfiles calls an unsafe path transition, and stricter: below a home no link is followed at all.
//! Invariant: what is done to a directory is done to the one that was checked, by its descriptor.
//!
//! Documentation: `path_resolution(7)`, openat(2), and for the rule systemd-tmpfiles(8).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::file_rights::{FileChange, FileRights};

/// As many as the kernel follows on one path, see `path_resolution(7)`.
const MOST_LINKS: u32 = 40;
/// Deeper than any tree that a document may replace.
// Each level holds two descriptors, of which a process has 1024 by default: getrlimit(2).
const DEEPEST: u32 = 64;
/// Only its place is needed, and it may not be readable.
const PLACE: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// A FIFO must not make us wait for its writer, nor a terminal become ours.
const READ: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Who can change what the names in a directory stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A directory of root's that others may write, like /tmp.
    Anybody,
    Root,
    /// Also of what root made below: the user can rename it.
    User(u32),
}

/// A directory that was reached.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    holder: Holder,
}

/// A file that was read, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) content: Vec<u8>,
    pub(crate) rights: FileRights,
}

/// Whether what this user made is as good as what we made. Tests do not always run as root.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

fn file_kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn refusal_error(name: &OsStr, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {reason}", name.display()))
}

impl Holder {
    /// Who holds a directory in one that this one holds; `None` if it is somebody whom the holder could have
    /// put there to be reached.
    fn enter_directory(self, stat: &FileStat) -> Option<Self> {
        let is_own = is_trusted(stat.st_uid);
        let is_shared = stat.st_mode & 0o002 != 0
            || (stat.st_mode & 0o020 != 0 && stat.st_gid != 0 && !is_private_group(stat.st_gid));
        match self {
            // A real directory of root's below a home was made there by root: nobody can link a directory.
            Self::User(uid) => (is_own || stat.st_uid == uid).then_some(self),
            _ if !is_own => Some(Self::User(stat.st_uid)),
            _ if is_shared => Some(Self::Anybody),
            _ => Some(Self::Root),
        }
    }

    /// Whether a file or directory here may become this user's.
    fn accepts_owner(self, uid: u32) -> bool {
        match self {
            Self::Anybody | Self::Root => true,
            Self::User(holder) => is_trusted(uid) || uid == holder,
        }
    }

    /// Whether a file here may be read for somebody, who will see what is in it.
    ///
    /// A hard link to another's file looks like that file, so the owner decides. One of root's that has a
    /// single name was made here, yet it is for root's eyes.
    fn offers_to_reader(self, stat: &FileStat, reader: u32) -> bool {
        let own = is_trusted(stat.st_uid) && is_trusted(reader) && stat.st_nlink == 1;
        match self {
            Self::Anybody => own || stat.st_uid == reader,
            Self::Root => true,
            Self::User(holder) => own || stat.st_uid == holder,
        }
    }
}

/// The group that we have when we are not root: a test's directories may be writable by it.
fn is_private_group(gid: u32) -> bool {
    !Uid::effective().is_root() && gid == nix::unistd::Gid::effective().as_raw()
}

/// What is left of a path.
struct RemainingPath {
    pieces: VecDeque<OsString>,
    /// How many of them a link brought along: nothing is made behind a link that leads nowhere.
    linked: usize,
    links: u32,
}

impl RemainingPath {
    fn of_path(path: &Path) -> Self {
        Self { pieces: path_pieces(path), linked: 0, links: 0 }
    }

    fn next(&mut self) -> Option<OsString> {
        let piece = self.pieces.pop_front()?;
        self.linked = self.linked.saturating_sub(1);
        Some(piece)
    }

    fn follow_link(&mut self, target: &OsStr) -> io::Result<()> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        let target = path_pieces(Path::new(target));
        self.linked += target.len();
        target.into_iter().rev().for_each(|piece| self.pieces.push_front(piece));
        Ok(())
    }
}

fn path_pieces(path: &Path) -> VecDeque<OsString> {
    let is_piece = |piece: &Component<'_>| !matches!(piece, Component::CurDir);
    path.components().filter(is_piece).map(|piece| piece.as_os_str().to_owned()).collect()
}

impl Folder {
    /// Reaches a directory that is there.
    pub(crate) fn open_path(path: &Path) -> io::Result<Self> {
        Self::walk_path(path, None)
    }

    /// Reaches a directory; what is missing of the way is made, with these rights.
    pub(crate) fn make_path(path: &Path, rights: FileRights) -> io::Result<Self> {
        Self::walk_path(path, Some(rights))
    }

    // openat2(2) with `RESOLVE_NO_SYMLINKS` was considered. It cannot say who owns a directory on the way, so
    // each step must be looked at anyway, and it would refuse /var/run as well.
    fn walk_path(path: &Path, make: Option<FileRights>) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let top = nix::fcntl::open("/", PLACE, Mode::empty())?;
        // The way back is kept, since `..` of a directory that was moved meanwhile leads elsewhere.
        let mut reached = vec![Self { fd: top, holder: Holder::Root }];
        let mut way = RemainingPath::of_path(&path);
        while let Some(piece) = way.next() {
            let Some(here) = reached.last() else { break };
            match piece.to_str() {
                Some("/") => reached.truncate(1),
                Some("..") => reached.truncate((reached.len() - 1).max(1)),
                _ => reached.extend(here.step_into(&piece, &mut way, make)?),
            }
        }
        reached.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The directory of this name, or `None` if a link was taken instead.
    fn step_into(
        &self,
        name: &OsStr,
        way: &mut RemainingPath,
        make: Option<FileRights>,
    ) -> io::Result<Option<Self>> {
        let Some(stat) = self.stat_child(name)? else {
            let rights = make.filter(|_| way.linked == 0).ok_or(Errno::ENOENT)?;
            self.make_directory(name, rights)?;
            return self.enter_child(name).map(Some);
        };
        if !is_link(&stat) {
            return self.enter_child(name).map(Some);
        }
        if self.holder != Holder::Root || !is_trusted(stat.st_uid) {
            return Err(refusal_error(name, "is a symbolic link that root did not make; it is not followed"));
        }
        way.follow_link(&readlinkat(&self.fd, name)?)?;
        Ok(None)
    }

    /// The real directory of this name.
    fn enter_child(&self, name: &OsStr) -> io::Result<Self> {
        let fd = openat(&self.fd, name, PLACE, Mode::empty())?;
        let holder = self.holder.enter_directory(&fstat(&fd)?).ok_or_else(|| {
            refusal_error(name, "belongs neither to the user whose directory it is in, nor to root")
        })?;
        Ok(Self { fd, holder })
    }

    /// What has this name, itself and not what it leads to; `None` if nothing has.
    pub(crate) fn stat_child(&self, name: &OsStr) -> io::Result<Option<FileStat>> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Who can change what names here stand for.
    pub(crate) fn holder(&self) -> Holder {
        self.holder
    }

    /// A regular file that `reader` may know; `None` if nothing has this name.
    pub(crate) fn read(&self, name: &OsStr, reader: u32, most: u64) -> io::Result<Option<Held>> {
        // Looked at before it is opened: to open a device can do something.
        let Some(stat) = self.stat_child(name)? else { return Ok(None) };
        refuse_special(name, &stat)?;
        let file = File::from(openat(&self.fd, name, READ, Mode::empty())?);
        let stat = fstat(&file)?;
        // Again by the descriptor: the name may have got another file meanwhile.
        refuse_special(name, &stat)?;
        if !self.holder.offers_to_reader(&stat, reader) {
            return Err(refusal_error(name, &format!("belongs to user {}, so it is not read", stat.st_uid)));
        }
        let mut content = Vec::new();
        file.take(most + 1).read_to_end(&mut content)?;
        if content.len() as u64 > most {
            return Err(refusal_error(name, &format!("is larger than {most} bytes")));
        }
        Ok(Some(Held { content, rights: rights_of(&stat) }))
    }

    /// Gives a new file its name, in the place of whatever file or link has it.
    pub(crate) fn rename_child(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Makes a file that is not there, whole and with its rights.
    pub(crate) fn create_file(&self, name: &OsStr, content: &[u8], rights: FileRights) -> io::Result<File> {
        self.refuse_owner(name, rights)?;
        // One left by a power cut.
        let _ = self.unlink_child(name);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.write_all(content)?;
        fchown(&file, Some(rights.uid), Some(rights.gid))?;
        // After the owner: a change of owner takes setuid and setgid away.
        file.set_permissions(Permissions::from_mode(rights.mode))?;
        Ok(file)
    }

    /// Makes a directory, or gives a real one that is there these rights.
    pub(crate) fn make_directory(&self, name: &OsStr, rights: FileRights) -> io::Result<FileChange> {
        self.refuse_owner(name, rights)?;
        // Closed until it has its owner.
        let made = match mkdirat(&self.fd, name, Mode::S_IRWXU) {
            Ok(()) => FileChange::Made,
            Err(Errno::EEXIST) => FileChange::None,
            Err(error) => return Err(error.into()),
        };
        Ok(made.combine_with(self.enter_child(name)?.set_rights(rights)?))
    }

    /// Gives the directory itself these rights.
    pub(crate) fn set_rights(&self, rights: FileRights) -> io::Result<FileChange> {
        let open = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = File::from(openat(&self.fd, ".", open, Mode::empty())?);
        if rights_of(&fstat(&directory)?) == rights {
            return Ok(FileChange::None);
        }
        fchown(&directory, Some(rights.uid), Some(rights.gid))?;
        directory.set_permissions(Permissions::from_mode(rights.mode))?;
        Ok(FileChange::Made)
    }

    /// Where a symbolic link of this name leads.
    pub(crate) fn read_link(&self, name: &OsStr) -> Option<OsString> {
        readlinkat(&self.fd, name).ok()
    }

    /// Makes a symbolic link that is not there.
    pub(crate) fn create_symlink(&self, name: &OsStr, target: &OsStr, rights: FileRights) -> io::Result<()> {
        self.refuse_owner(name, rights)?;
        let _ = self.unlink_child(name);
        symlinkat(target, &self.fd, name)?;
        let (uid, gid) = (Some(rights.uid.into()), Some(rights.gid.into()));
        Ok(fchownat(&self.fd, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Makes a second name of a file.
    ///
    /// What a user can change must not get a name in a directory of root's, which others trust, or of
    /// another user's.
    pub(crate) fn hard_link(&self, name: &OsStr, from: &Self, target: &OsStr) -> io::Result<()> {
        if from.holder != Holder::Root && from.holder != self.holder {
            return Err(refusal_error(target, "lies in a directory that is not root's"));
        }
        // linkat(2) without flags does not follow a link at the end.
        Ok(linkat(&from.fd, target, &self.fd, name, AtFlags::empty())?)
    }

    /// Removes whatever has this name, with all that is in it.
    pub(crate) fn remove_child(&self, name: &OsStr) -> io::Result<()> {
        remove_below(&self.fd, name, DEEPEST)
    }

    fn unlink_child(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Brings the names in here onto the disk.
    pub(crate) fn sync_names(&self) -> io::Result<()> {
        let open = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        File::from(openat(&self.fd, ".", open, Mode::empty())?).sync_all()
    }

    fn refuse_owner(&self, name: &OsStr, rights: FileRights) -> io::Result<()> {
        if self.holder.accepts_owner(rights.uid) {
            return Ok(());
        }
        Err(refusal_error(
            name,
            &format!("cannot be given to user {}: the directory is another user's", rights.uid),
        ))
    }
}

pub(crate) fn is_link(stat: &FileStat) -> bool {
    file_kind(stat) == SFlag::S_IFLNK
}

pub(crate) fn is_directory(stat: &FileStat) -> bool {
    file_kind(stat) == SFlag::S_IFDIR
}

pub(crate) fn is_regular(stat: &FileStat) -> bool {
    file_kind(stat) == SFlag::S_IFREG
}

fn refuse_special(name: &OsStr, stat: &FileStat) -> io::Result<()> {
    match file_kind(stat) {
        SFlag::S_IFREG => Ok(()),
        SFlag::S_IFLNK => Err(refusal_error(name, "is a symbolic link; it is not followed")),
        _ => Err(refusal_error(name, "is no regular file")),
    }
}

pub(crate) fn rights_of(stat: &FileStat) -> FileRights {
    FileRights { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
}

fn remove_below(fd: &impl AsFd, name: &OsStr, deepest: u32) -> io::Result<()> {
    match unlinkat(fd, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        // unlink(2): Linux says EISDIR of a directory, POSIX and some file systems EPERM.
        Err(Errno::EISDIR | Errno::EPERM) if deepest > 0 => {}
        Err(error) => return Err(error.into()),
    }
    let open = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let inner = openat(fd, name, open, Mode::empty())?;
    let mut listed = Dir::from_fd(inner.try_clone()?)?;
    for entry in listed.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove_below(&inner, std::os::unix::ffi::OsStrExt::from_bytes(name), deepest - 1)?;
        }
    }
    Ok(unlinkat(fd, name, UnlinkatFlags::RemoveDir)?)
}

/// The directory above a path, and the name in it.
pub(crate) fn split_name(path: &Path) -> io::Result<(PathBuf, &OsStr)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = path.file_name().ok_or_else(invalid)?;
    Ok((path.parent().ok_or_else(invalid)?.to_owned(), name))
}
