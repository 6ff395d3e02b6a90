//! The lock that every program takes which changes accounts, as lckpwdf(3) has it.
//!
//! Knows one file. Refuses to wait for longer than lckpwdf does. Invariant: it ends with its holder,
//! however that ends.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::root::MachineRoot;

const FILE: &str = "/etc/.pwd.lock";
// lckpwdf(3) gives up after 15 seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Nobody else changes accounts while this is there.
#[derive(Debug)]
pub(super) struct AccountLock {
    /// Closing it ends the lock.
    _file: File,
}

impl AccountLock {
    /// Waits for whoever holds it.
    pub(super) fn acquire_lock(root: &MachineRoot) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(root.path_of(FILE))?;
        let started = Instant::now();
        let whole = whole_file();
        loop {
            // The kernel has no time limit for `F_SETLKW`. glibc ends it by SIGALRM, which would hit all
            // threads of ours. A lock of flock(2) is another one, which shadow's tools do not see.
            match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
                Ok(_) => return Ok(Self { _file: file }),
                Err(Errno::EAGAIN | Errno::EACCES) if started.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
