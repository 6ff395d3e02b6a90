//! Mounts, with errors that say what was mounted where.
//!
//! Knows the mount call. Refuses to decide what is needed.
//!
//! Documentation: mount(2), and systemd's own table of them in `src/shared/mount-setup.c`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Why something could not be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("cannot make the folder {folder}")]
    Folder { folder: PathBuf, source: io::Error },
    #[error("cannot mount {what} at {at}")]
    Mount { what: String, at: PathBuf, source: nix::Error },
}

/// What to mount.
#[derive(Debug, Clone, Copy)]
pub(super) struct MountPoint<'a> {
    pub(super) what: &'a str,
    pub(super) at: &'a Path,
    pub(super) kind: &'a str,
    pub(super) flags: MsFlags,
    pub(super) options: &'a str,
}

impl MountPoint<'_> {
    /// Mounts it, making the folder if it is missing.
    pub(super) fn mount_point(&self) -> Result<(), MountError> {
        let Self { what, at, kind, flags, options } = *self;
        if !at.exists() {
            let made = fs::create_dir_all(at);
            made.map_err(|source| MountError::Folder { folder: at.to_owned(), source })?;
        }
        mount(Some(what), at, Some(kind), flags, Some(options))
            .map_err(|source| mount_error(what, at, source))
    }
}

/// What every program expects: /dev, /proc, /run and /sys.
pub(super) fn kernel_file_systems() -> Result<(), MountError> {
    let none = MsFlags::MS_NOSUID;
    let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let runtime = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let all = [
        // As in systemd's table: devices are what /dev is for.
        ("devtmpfs", "/dev", none, "mode=0755"),
        ("proc", "/proc", strict, ""),
        ("sysfs", "/sys", strict, ""),
        // systemd's size for /run.
        ("tmpfs", "/run", runtime, "mode=0755,size=20%"),
    ];
    all.into_iter().try_for_each(|(kind, at, flags, options)| {
        MountPoint { what: kind, at: Path::new(at), kind, flags, options }.mount_point()
    })
}

/// The verified root.
pub(super) fn mount_root(verity: &Path, at: &Path) -> Result<(), MountError> {
    let what = verity.to_string_lossy();
    MountPoint { what: &what, at, kind: "ext4", flags: MsFlags::MS_RDONLY, options: "" }.mount_point()
}

/// Shows a folder at another place too, with flags of that place alone: a new bind mount has those of the mount
/// that it came from, whatever it is asked for, so they are set by a second call (mount(2), `MS_REMOUNT|MS_BIND`).
pub(super) fn bind_mount(what: &Path, at: &Path, flags: MsFlags) -> Result<(), MountError> {
    let call = |flags| mount(Some(what), at, None::<&str>, flags, None::<&str>);
    let bound = call(MsFlags::MS_BIND)
        .and_then(|()| call(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RELATIME | flags));
    bound.map_err(|source| mount_error(&what.to_string_lossy(), at, source))
}

/// Moves a mount elsewhere.
pub(super) fn move_mount(from: &Path, to: &Path) -> Result<(), MountError> {
    let moved = mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>);
    moved.map_err(|source| mount_error(&from.to_string_lossy(), to, source))
}

/// Takes away whatever is mounted at a place, one over the other.
pub(super) fn detach_all(at: &Path) {
    // umount(2): EINVAL where nothing is mounted any more. What is in use goes once nobody uses it.
    while umount2(at, MntFlags::MNT_DETACH).is_ok() {}
}

fn mount_error(what: &str, at: &Path, source: nix::Error) -> MountError {
    MountError::Mount { what: what.to_owned(), at: at.to_owned(), source }
}
