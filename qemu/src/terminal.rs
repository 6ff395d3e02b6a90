//! Joins a person's terminal to a machine's serial console.
//!
//! Knows raw mode, one escape key, and signals as something to poll. Refuses to know what the end of a
//! conversation means for the machine. Invariant: the terminal is as it was before when a conversation ends,
//! whatever ended it.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, SetArg, Termios};

use crate::arguments::CONSOLE_SOCKET;
use crate::qmp::connect_in;

/// Ctrl-], as in telnet.
pub const ESCAPE: u8 = 0x1d;

/// The signals that ask us to end, as something to poll.
#[derive(Debug)]
pub struct EndSignals(SignalFd);

impl EndSignals {
    /// Takes SIGINT, SIGTERM and SIGHUP away from their usual effect. Must be called before any thread is
    /// started, since threads inherit what is blocked.
    pub fn block_signals() -> io::Result<Self> {
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        // As a descriptor and not by a handler: a handler cannot end a poll that has not begun yet.
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self(signals))
    }

    /// Whether one comes within `within`.
    pub fn wait_for_signal(&self, within: Duration) -> io::Result<bool> {
        let mut watched = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll_for(&mut watched, Some(within))?;
        self.is_pending()
    }

    fn is_pending(&self) -> io::Result<bool> {
        Ok(self.0.read_signal()?.is_some())
    }
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationEnd {
    /// QEMU closed the console: the machine is off
    Closed,
    /// The person pressed the escape key
    Escape,
    /// A signal asked us to end
    Signal,
    /// The time was over
    Timeout,
}

/// The serial console of a running machine; one holder at a time.
#[derive(Debug)]
pub struct SerialLine {
    stream: UnixStream,
    _lock: Flock<File>,
}

impl SerialLine {
    /// Takes the console of the machine in `folder`; none if somebody else has it.
    pub fn open_serial(folder: &Path) -> io::Result<Option<Self>> {
        let lock = File::create(folder.join("console.lock"))?;
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        let stream = connect_in(folder, CONSOLE_SOCKET)?;
        Ok(Some(Self { stream, _lock: lock }))
    }

    /// Shows what the machine says and sends what the person types, until something ends it. Without a
    /// terminal on standard input only shows.
    pub fn relay_terminal(
        &self,
        signals: &EndSignals,
        within: Option<Duration>,
    ) -> io::Result<ConversationEnd> {
        let stdin = io::stdin();
        // Without a terminal nobody types, and the end of a pipe must not end the conversation.
        let keyboard =
            if stdin.is_terminal() { Some(RawTerminal::enter_raw_mode(stdin.as_fd())?) } else { None };
        loop {
            let mut watched = vec![
                PollFd::new(self.stream.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
            ];
            if keyboard.is_some() {
                watched.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            if poll_for(&mut watched, within)? == 0 {
                return Ok(ConversationEnd::Timeout);
            }
            let ready: Vec<bool> = watched.iter().map(|one| one.any().unwrap_or(false)).collect();
            if ready[1] && signals.is_pending()? {
                return Ok(ConversationEnd::Signal);
            }
            if ready[0] && !self.relay_output()? {
                return Ok(ConversationEnd::Closed);
            }
            if ready.get(2) == Some(&true) && !self.relay_input(&mut stdin.lock())? {
                return Ok(ConversationEnd::Escape);
            }
        }
    }

    /// Shows one piece; false at the end.
    fn relay_output(&self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let length = match (&self.stream).read(&mut bytes) {
            // QEMU resets the connection when it is killed with input unread, which is an end like another.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        show_output(&bytes[..length])?;
        Ok(length > 0)
    }

    /// Sends what was typed; false if the escape key was among it, or the keyboard is gone.
    fn relay_input(&self, keyboard: &mut dyn Read) -> io::Result<bool> {
        let mut bytes = [0; 256];
        let length = keyboard.read(&mut bytes)?;
        let typed = &bytes[..length];
        let escape = typed.iter().position(|byte| *byte == ESCAPE);
        (&self.stream).write_all(&typed[..escape.unwrap_or(length)])?;
        Ok(escape.is_none() && length > 0)
    }
}

/// Shows a log from its start and what is added to it, until `over` or a signal.
pub fn follow_log(log: &Path, signals: &EndSignals, over: impl Fn() -> bool) -> io::Result<()> {
    let mut file = File::open(log)?;
    loop {
        let ended = over();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        show_output(&bytes)?;
        if ended || signals.wait_for_signal(Duration::from_millis(200))? {
            return Ok(());
        }
    }
}

/// Writes console output as it came.
pub fn show_output(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn poll_for(watched: &mut [PollFd<'_>], within: Option<Duration>) -> io::Result<i32> {
    let timeout = match within {
        None => PollTimeout::NONE,
        Some(within) => PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX),
    };
    match poll(watched, timeout) {
        Err(Errno::EINTR) => Ok(1),
        outcome => Ok(outcome?),
    }
}

/// A terminal in raw mode, until dropped.
#[derive(Debug)]
struct RawTerminal<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawTerminal<'a> {
    fn enter_raw_mode(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let before = termios::tcgetattr(terminal)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(terminal, SetArg::TCSANOW, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawTerminal<'_> {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}
