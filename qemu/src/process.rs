//! Starts programs that must not outlive us, and ends them.
//!
//! Knows Linux' parent-death signal and its trap: the signal is tied to the *thread* that forked, so every
//! child is started by one thread that lives as long as this process. Refuses to know what the programs do.
//! Invariant: a [`OwnedChild`] is dead and reaped when its value is gone, and killed by the kernel when we are.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// A program of ours; killed and reaped when dropped.
#[derive(Debug)]
pub struct OwnedChild(std::process::Child);

impl OwnedChild {
    /// Starts `command` in a process group of its own, so that a terminal's Ctrl-C is ours alone to handle.
    pub fn start_command(mut command: Command) -> io::Result<Self> {
        let us = nix::unistd::getpid();
        let at_birth = move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // Between fork and the call above the parent may have died, and then no signal comes any more.
            if nix::unistd::getppid() != us {
                return Err(io::Error::other("the parent died first"));
            }
            // A mask survives exec: QEMU would not hear SIGTERM when our own signals are blocked for polling.
            SigSet::empty().thread_set_mask()?;
            Ok(())
        };
        // Ctrl-C goes to a terminal's whole foreground group, and would end QEMU without a shutdown of its guest.
        command.process_group(0);
        #[expect(unsafe_code, reason = "std has no safe way to ask for a parent-death signal")]
        // SAFETY: between fork and exec the closure makes three async-signal-safe system calls and, but for
        // the error of the already lost race, allocates nothing.
        unsafe {
            command.pre_exec(at_birth);
        }
        spawn_from_lasting_thread(command).map(Self)
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Waits until it ends by itself; none if it still runs after `within`.
    pub fn wait_within(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + within;
        loop {
            match self.0.try_wait()? {
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
                status => return Ok(status),
            }
        }
    }

    /// Ends it at once, like a pulled plug.
    pub fn kill_child(&mut self) -> io::Result<ExitStatus> {
        self.0.kill()?;
        self.0.wait()
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // It may be dead already, which is what we want.
        let _ = self.kill_child();
    }
}

type Order = (Command, SyncSender<io::Result<std::process::Child>>);

fn spawn_from_lasting_thread(command: Command) -> io::Result<std::process::Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts programs is gone");
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in orders {
                // Nobody waits for the answer any more: the child is dropped unreaped, and dies with us.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (sender, answer) = mpsc::sync_channel(1);
    spawner.send((command, sender)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether a test can run `program`. If not, says so, or fails where `CI=true`.
    pub(crate) fn can_run(program: &str) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_here = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(is_here || !ci, "{program} is missing; ci/setup installs it");
        if !is_here {
            eprintln!("skipped: {program} is missing; ci/setup installs it");
        }
        is_here
    }

    fn sleep_command() -> Command {
        let mut command = Command::new("sleep");
        command.arg("60");
        command
    }

    fn process_exists(id: u32) -> bool {
        std::path::Path::new(&format!("/proc/{id}")).exists()
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut child = thread::spawn(|| OwnedChild::start_command(sleep_command()).unwrap()).join().unwrap();

        let ended = child.wait_within(Duration::from_millis(200)).unwrap();

        assert_eq!(ended, None);
    }

    #[test]
    fn a_dropped_child_is_dead_and_reaped() {
        let child = OwnedChild::start_command(sleep_command()).unwrap();
        let id = child.id();

        drop(child);

        assert!(!process_exists(id));
    }
}
