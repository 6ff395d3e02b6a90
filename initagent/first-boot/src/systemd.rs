//! Asks systemd's manager for what is to be done to units, over its own socket.
//!
//! Knows as much of D-Bus as a handful of calls needs. Refuses to wait for a job: the answer to a start
//! is that it is queued. Invariants: fifty units cost one conversation, in which no call waits for the
//! answer to the one before; each request has its own answer. Of the crates that could do this, zbus brings an
//! async runtime and libdbus is no Rust, and rustbus (97 kB more) says hello without a deadline, on
//! releases of nix, syn and others that are years old, for calls that take 250 lines to write.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod message;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use user_data::plan::step::UnitVerb;

use crate::digits::hex;
use message::{Answer, Body};

/// Only root may open it, and no bus need run.
const SOCKET: &str = "/run/systemd/private";
/// A reload runs every generator.
const PATIENCE: Duration = Duration::from_secs(90);
/// What is asked for before an answer is read: less than what the socket holds.
const MOST_OPEN: usize = 64;

/// What the manager is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// To remove the links that start a unit with the machine.
    Disable {
        /// The unit.
        unit: &'a str,
        /// Only those that last until the next boot.
        runtime: bool,
    },
    /// To make the links that start a unit with the machine.
    Enable {
        /// The unit.
        unit: &'a str,
        /// Until the next boot only.
        runtime: bool,
    },
    /// To start a unit, stop it and so on.
    Job {
        /// The unit.
        unit: &'a str,
        /// What is done.
        verb: UnitVerb,
    },
    /// To read all units anew, and what generators make of other files.
    Reload,
    /// To read these units anew; nothing is done if none of them was read before, since a unit is read
    /// when it is first asked for.
    Reread {
        /// Whose files were changed.
        units: &'a [String],
    },
}

/// What can be asked for together, or at least without waiting for the answer before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Jobs,
    Links { make: bool, runtime: bool },
    Reading,
}

impl<'a> Request<'a> {
    fn unit(&self) -> Option<&'a str> {
        match *self {
            Self::Disable { unit, .. } | Self::Enable { unit, .. } | Self::Job { unit, .. } => Some(unit),
            Self::Reload | Self::Reread { .. } => None,
        }
    }

    fn kind(&self) -> Kind {
        match *self {
            Self::Disable { runtime, .. } => Kind::Links { make: false, runtime },
            Self::Enable { runtime, .. } => Kind::Links { make: true, runtime },
            Self::Job { .. } => Kind::Jobs,
            Self::Reload | Self::Reread { .. } => Kind::Reading,
        }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disable { unit, .. } => write!(out, "disable {unit}"),
            Self::Enable { unit, .. } => write!(out, "enable {unit}"),
            Self::Job { unit, verb } => write!(out, "{} {unit}", verb.word()),
            Self::Reload => write!(out, "reload all units"),
            Self::Reread { units } => write!(out, "reread {}", units.join(" ")),
        }
    }
}

/// Why the manager did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ManagerError {
    #[error("cannot talk to systemd over {SOCKET}: {cause}")]
    Broken { cause: String },
    #[error("systemd refused: {complaint}")]
    Refused { complaint: String },
}

/// The manager of a machine's units.
pub trait Manager: fmt::Debug {
    /// Asks for all of it in this order; the answers are in the same order.
    fn ask(&self, requests: &[Request<'_>]) -> Vec<Result<(), ManagerError>>;
}

/// The manager of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Real;

impl Manager for Real {
    fn ask(&self, requests: &[Request<'_>]) -> Vec<Result<(), ManagerError>> {
        let mut answers = Vec::with_capacity(requests.len());
        let ended = UnixStream::connect(SOCKET).and_then(|socket| converse(&socket, requests, &mut answers));
        if let Err(error) = ended {
            // What was not answered may have been done, but nobody knows.
            answers.resize(requests.len(), Err(ManagerError::Broken { cause: error.to_string() }));
        }
        answers
    }
}

fn converse(
    socket: &UnixStream,
    requests: &[Request<'_>],
    answers: &mut Vec<Result<(), ManagerError>>,
) -> io::Result<()> {
    let mut line = Line { socket, until: Instant::now() + PATIENCE, serial: 0 };
    line.introduce()?;
    for batch in requests.chunk_by(|one, next| one.kind() == next.kind()) {
        match (batch[0].kind(), batch) {
            (Kind::Links { .. }, [_, _, ..]) => line.ask_as_one(batch, answers)?,
            (Kind::Reading, _) => batch.iter().try_for_each(|one| line.ask_to_read(one, answers))?,
            _ => line.ask_each(batch, answers)?,
        }
    }
    Ok(())
}

/// The conversation.
struct Line<'a> {
    socket: &'a UnixStream,
    /// When it has taken too long.
    until: Instant,
    /// Of the last call; they begin at one.
    serial: u32,
}

impl Line<'_> {
    /// One call for all units: the manager reads all its directories for each call about links. Only if
    /// it is refused is each unit asked for, to tell which one it was; what is linked already stays so.
    fn ask_as_one(
        &mut self,
        batch: &[Request<'_>],
        answers: &mut Vec<Result<(), ManagerError>>,
    ) -> io::Result<()> {
        let serial = self.send(batch)?;
        if self.answer(serial)?.is_ok() {
            answers.extend(batch.iter().map(|_| Ok(())));
            return Ok(());
        }
        self.ask_each(batch, answers)
    }

    /// Has units read anew, if one of them was read before.
    fn ask_to_read(
        &mut self,
        request: &Request<'_>,
        answers: &mut Vec<Result<(), ManagerError>>,
    ) -> io::Result<()> {
        let is_needed = match request {
            Request::Reread { units } => self.knows_any(units)?,
            _ => true,
        };
        let answer = if is_needed {
            let serial = self.send(&[Request::Reload])?;
            self.answer(serial)?
        } else {
            Ok(())
        };
        answers.push(answer);
        Ok(())
    }

    /// Whether the manager has read one of these units. What is meant for many units is taken for known.
    fn knows_any(&mut self, units: &[String]) -> io::Result<bool> {
        let is_for_many = |unit: &String| unit.contains("@.") || unit.contains("-.");
        if units.iter().any(is_for_many) {
            return Ok(true);
        }
        let mut answers = Vec::with_capacity(units.len());
        let calls = units.iter().map(|unit| {
            let mut body = Body::default();
            body.text(unit);
            ("GetUnit", body)
        });
        self.ask_in_turn(calls, &mut answers)?;
        Ok(answers.iter().any(Result::is_ok))
    }

    /// A call for each, all of them before the first answer is needed.
    fn ask_each(
        &mut self,
        batch: &[Request<'_>],
        answers: &mut Vec<Result<(), ManagerError>>,
    ) -> io::Result<()> {
        self.ask_in_turn(batch.iter().map(|request| call(from_ref(request))), answers)
    }

    fn ask_in_turn(
        &mut self,
        calls: impl Iterator<Item = (&'static str, Body)>,
        answers: &mut Vec<Result<(), ManagerError>>,
    ) -> io::Result<()> {
        let mut open = VecDeque::new();
        for (method, body) in calls {
            if open.len() >= MOST_OPEN
                && let Some(serial) = open.pop_front()
            {
                answers.push(self.answer(serial)?);
            }
            open.push_back(self.send_call(method, &body)?);
        }
        for serial in open {
            answers.push(self.answer(serial)?);
        }
        Ok(())
    }

    /// Says who we are; the kernel told already, so there is no secret.
    fn introduce(&self) -> io::Result<()> {
        let digits = hex(nix::unistd::geteuid().to_string().as_bytes());
        self.bounded()?.write_all(format!("\0AUTH EXTERNAL {digits}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 256 {
            let mut byte = [0];
            self.bounded()?.read_exact(&mut byte)?;
            line.extend(byte);
        }
        if line.starts_with(b"OK ") { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// The socket, which gives up when all of it has taken too long.
    fn bounded(&self) -> io::Result<&UnixStream> {
        let left = self.until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left))?;
        self.socket.set_write_timeout(Some(left))?;
        Ok(self.socket)
    }

    /// Sends a call; the serial says which answer is its own.
    fn send(&mut self, batch: &[Request<'_>]) -> io::Result<u32> {
        let (method, body) = call(batch);
        self.send_call(method, &body)
    }

    fn send_call(&mut self, method: &str, body: &Body) -> io::Result<u32> {
        self.serial = self.serial.wrapping_add(1);
        self.bounded()?.write_all(&message::call(self.serial, method, body))?;
        Ok(self.serial)
    }

    /// The answer to a call; the manager answers in order, and signals come between.
    fn answer(&self, serial: u32) -> io::Result<Result<(), ManagerError>> {
        loop {
            match message::read(self.bounded()?)? {
                Answer::Done { to } if to == serial => return Ok(Ok(())),
                Answer::Refused { to, complaint } if to == serial => {
                    return Ok(Err(ManagerError::Refused { complaint }));
                }
                Answer::Done { .. } | Answer::Refused { .. } | Answer::Other => {}
            }
        }
    }
}

/// The call for one request, or for several of the same kind about links.
fn call(batch: &[Request<'_>]) -> (&'static str, Body) {
    let units: Vec<&str> = batch.iter().filter_map(Request::unit).collect();
    let mut body = Body::default();
    let method = match batch[0] {
        Request::Disable { runtime, .. } => {
            body.texts(&units).flag(runtime);
            "DisableUnitFiles"
        }
        Request::Enable { runtime, .. } => {
            // As `systemctl --force`: a link that leads elsewhere is replaced.
            body.texts(&units).flag(runtime).flag(true);
            "EnableUnitFiles"
        }
        Request::Job { unit, verb } => {
            body.text(unit).text("replace");
            method(verb)
        }
        Request::Reload | Request::Reread { .. } => "Reload",
    };
    (method, body)
}

fn method(verb: UnitVerb) -> &'static str {
    match verb {
        UnitVerb::Reload => "ReloadUnit",
        UnitVerb::ReloadOrRestart => "ReloadOrRestartUnit",
        UnitVerb::ReloadOrTryRestart => "ReloadOrTryRestartUnit",
        UnitVerb::Restart => "RestartUnit",
        UnitVerb::Start => "StartUnit",
        UnitVerb::Stop => "StopUnit",
        UnitVerb::TryRestart => "TryRestartUnit",
    }
}

#[cfg(test)]
mod tests;
