//! Keeps two runs from meeting.
//!
//! Knows one file in /run. Refuses to stop a boot for it. Invariant: only root can open the file, so nobody else can
//! keep us out.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::files::{self, FileRights};
use crate::root::MachineRoot;

const LOCK: &str = "/run/catamaran/first-boot.lock";
/// Whoever can open the file can lock it.
const LOCK_MODE: u32 = 0o600;
/// How often a lock that is held is tried again: short, since a boot waits.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Longer than a whole run with a silent platform; after it the boot goes on, since nothing of it is worse
/// than a machine that never comes up.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_mins(6);

/// Waits for a run that is under way. The lock ends with the file that is returned.
pub(super) fn lock_run(root: &MachineRoot, timeout: Duration) -> Result<File, String> {
    let path = root.path_of(LOCK);
    files::make_parents(&path, FileRights::PUBLIC)
        .map_err(|error| error.error_chain())
        .and_then(|()| lock_file(&path, timeout).map_err(|error| error.to_string()))
        .map_err(|error| format!("cannot lock {LOCK}: {error}"))
}

fn lock_file(path: &Path, timeout: Duration) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(LOCK_MODE).open(path)?;
    // One that an older release left may be open to others.
    file.set_permissions(Permissions::from_mode(LOCK_MODE))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if began.elapsed() < timeout => std::thread::sleep(RETRY_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let reason = format!("another run has held it for {} s", timeout.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_does_not_stop_the_run_and_is_roots_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = MachineRoot::at_directory(folder.path());
        let held = lock_run(&root, Duration::ZERO).unwrap();
        assert_eq!(held.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let second = lock_run(&root, Duration::from_millis(50));

        assert_eq!(
            second.unwrap_err(),
            "cannot lock /run/catamaran/first-boot.lock: another run has held it for 0 s"
        );
    }
}
