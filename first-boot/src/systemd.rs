//! Asks systemd's manager for what is to be done to units, over its own socket.
//!
//! Knows as much of D-Bus as a handful of calls needs. Refuses to wait for a job: the answer to a start
//! is that it is queued. Invariants: fifty units cost one conversation, in which no call waits for the
//! answer to the one before; each request has its own answer. Of the crates that could do this, zbus brings an
//! async runtime and libdbus is no Rust, and rustbus (97 kB more) says hello without a deadline, on
//! releases of nix, syn and others that are years old, for calls that take 250 lines to write.
//!
//! Documentation: <https://dbus.freedesktop.org/doc/dbus-specification.html>, "Authentication Protocol", and
//! org.freedesktop.systemd1(5).
#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod message;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use user_data::plan::step::UnitVerb;

use crate::digits::to_hex;
use message::{BusAnswer, MessageBody};

/// Only root may open it, and no bus need run.
// systemctl(1) of root uses it as well. The bus's own daemon comes later in the boot.
const SOCKET: &str = "/run/systemd/private";
/// A reload runs every generator.
const PATIENCE: Duration = Duration::from_secs(90);
/// What is asked for before an answer is read: less than what the socket holds.
const MOST_OPEN: usize = 64;

/// What the manager is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitRequest<'a> {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestKind {
    Jobs,
    Links { make: bool, runtime: bool },
    Reading,
}

impl<'a> UnitRequest<'a> {
    fn unit_name(&self) -> Option<&'a str> {
        match *self {
            Self::Disable { unit, .. } | Self::Enable { unit, .. } | Self::Job { unit, .. } => Some(unit),
            Self::Reload | Self::Reread { .. } => None,
        }
    }

    fn request_kind(&self) -> RequestKind {
        match *self {
            Self::Disable { runtime, .. } => RequestKind::Links { make: false, runtime },
            Self::Enable { runtime, .. } => RequestKind::Links { make: true, runtime },
            Self::Job { .. } => RequestKind::Jobs,
            Self::Reload | Self::Reread { .. } => RequestKind::Reading,
        }
    }
}

impl fmt::Display for UnitRequest<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disable { unit, .. } => write!(out, "disable {unit}"),
            Self::Enable { unit, .. } => write!(out, "enable {unit}"),
            Self::Job { unit, verb } => write!(out, "{} {unit}", verb.verb_word()),
            Self::Reload => write!(out, "reload all units"),
            Self::Reread { units } => write!(out, "reread {}", units.join(" ")),
        }
    }
}

/// Why the manager did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ManagerError {
    #[error("cannot talk to systemd over {SOCKET}: {cause}")]
    Broken { cause: String },
    #[error("systemd refused: {complaint}")]
    Refused { complaint: String },
}

/// The manager of a machine's units.
pub trait UnitManager: fmt::Debug {
    /// Asks for all of it in this order; the answers are in the same order.
    fn send_requests(&self, requests: &[UnitRequest<'_>]) -> Vec<Result<(), ManagerError>>;
}

/// The manager of this machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemdManager;

impl UnitManager for SystemdManager {
    fn send_requests(&self, requests: &[UnitRequest<'_>]) -> Vec<Result<(), ManagerError>> {
        let mut answers = Vec::with_capacity(requests.len());
        let ended =
            UnixStream::connect(SOCKET).and_then(|socket| exchange_requests(&socket, requests, &mut answers));
        if let Err(error) = ended {
            // What was not answered may have been done, but nobody knows.
            answers.resize(requests.len(), Err(ManagerError::Broken { cause: error.to_string() }));
        }
        answers
    }
}

fn exchange_requests(
    socket: &UnixStream,
    requests: &[UnitRequest<'_>],
    answers: &mut Vec<Result<(), ManagerError>>,
) -> io::Result<()> {
    let mut line = BusConnection { socket, until: Instant::now() + PATIENCE, serial: 0 };
    line.authenticate_peer()?;
    for batch in requests.chunk_by(|one, next| one.request_kind() == next.request_kind()) {
        match (batch[0].request_kind(), batch) {
            (RequestKind::Links { .. }, [_, _, ..]) => line.ask_as_one(batch, answers)?,
            (RequestKind::Reading, _) => batch.iter().try_for_each(|one| line.ask_to_read(one, answers))?,
            _ => line.ask_each(batch, answers)?,
        }
    }
    Ok(())
}

/// The conversation.
struct BusConnection<'a> {
    socket: &'a UnixStream,
    /// When it has taken too long.
    until: Instant,
    /// Of the last call; they begin at one.
    serial: u32,
}

impl BusConnection<'_> {
    /// One call for all units: the manager reads all its directories for each call about links. Only if
    /// it is refused is each unit asked for, to tell which one it was; what is linked already stays so.
    fn ask_as_one(
        &mut self,
        batch: &[UnitRequest<'_>],
        answers: &mut Vec<Result<(), ManagerError>>,
    ) -> io::Result<()> {
        let serial = self.send_batch(batch)?;
        if self.read_reply(serial)?.is_ok() {
            answers.extend(batch.iter().map(|_| Ok(())));
            return Ok(());
        }
        self.ask_each(batch, answers)
    }

    /// Has units read anew, if one of them was read before.
    fn ask_to_read(
        &mut self,
        request: &UnitRequest<'_>,
        answers: &mut Vec<Result<(), ManagerError>>,
    ) -> io::Result<()> {
        let is_needed = match request {
            UnitRequest::Reread { units } => self.knows_any(units)?,
            _ => true,
        };
        let answer = if is_needed {
            let serial = self.send_batch(&[UnitRequest::Reload])?;
            self.read_reply(serial)?
        } else {
            Ok(())
        };
        answers.push(answer);
        Ok(())
    }

    /// Whether the manager has read one of these units. What is meant for many units is taken for known.
    fn knows_any(&mut self, units: &[String]) -> io::Result<bool> {
        // systemd.unit(5): `name@.service` and `name-.service.d` are settings of many units, and no unit
        // itself.
        let is_for_many = |unit: &String| unit.contains("@.") || unit.contains("-.");
        if units.iter().any(is_for_many) {
            return Ok(true);
        }
        let mut answers = Vec::with_capacity(units.len());
        let calls = units.iter().map(|unit| {
            let mut body = MessageBody::default();
            body.push_string(unit);
            ("GetUnit", body)
        });
        self.ask_in_turn(calls, &mut answers)?;
        Ok(answers.iter().any(Result::is_ok))
    }

    /// A call for each, all of them before the first answer is needed.
    fn ask_each(
        &mut self,
        batch: &[UnitRequest<'_>],
        answers: &mut Vec<Result<(), ManagerError>>,
    ) -> io::Result<()> {
        self.ask_in_turn(batch.iter().map(|request| call(from_ref(request))), answers)
    }

    fn ask_in_turn(
        &mut self,
        calls: impl Iterator<Item = (&'static str, MessageBody)>,
        answers: &mut Vec<Result<(), ManagerError>>,
    ) -> io::Result<()> {
        let mut open = VecDeque::new();
        for (method, body) in calls {
            if open.len() >= MOST_OPEN
                && let Some(serial) = open.pop_front()
            {
                answers.push(self.read_reply(serial)?);
            }
            open.push_back(self.send_call(method, &body)?);
        }
        for serial in open {
            answers.push(self.read_reply(serial)?);
        }
        Ok(())
    }

    /// Says who we are; the kernel told already, so there is no secret.
    fn authenticate_peer(&self) -> io::Result<()> {
        // D-Bus's EXTERNAL mechanism: the user id in decimal, those digits as hexadecimal. Root has 0, which
        // is 30.
        let digits = to_hex(nix::unistd::geteuid().to_string().as_bytes());
        self.socket_with_deadline()?
            // All at once. To wait for each answer would be two more ways there and back, and sd-bus does not
            // wait either.
            .write_all(format!("\0AUTH EXTERNAL {digits}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        // Byte by byte, since what comes behind this line is a message already.
        while !line.ends_with(b"\r\n") && line.len() < 256 {
            let mut byte = [0];
            self.socket_with_deadline()?.read_exact(&mut byte)?;
            line.extend(byte);
        }
        if line.starts_with(b"OK ") { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// The socket, which gives up when all of it has taken too long.
    fn socket_with_deadline(&self) -> io::Result<&UnixStream> {
        let left = self.until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left))?;
        self.socket.set_write_timeout(Some(left))?;
        Ok(self.socket)
    }

    /// Sends a call; the serial says which answer is its own.
    fn send_batch(&mut self, batch: &[UnitRequest<'_>]) -> io::Result<u32> {
        let (method, body) = call(batch);
        self.send_call(method, &body)
    }

    fn send_call(&mut self, method: &str, body: &MessageBody) -> io::Result<u32> {
        self.serial = self.serial.wrapping_add(1);
        self.socket_with_deadline()?.write_all(&message::call(self.serial, method, body))?;
        Ok(self.serial)
    }

    /// The answer to a call; the manager answers in order, and signals come between.
    fn read_reply(&self, serial: u32) -> io::Result<Result<(), ManagerError>> {
        loop {
            match message::read(self.socket_with_deadline()?)? {
                BusAnswer::Done { to } if to == serial => return Ok(Ok(())),
                BusAnswer::Refused { to, complaint } if to == serial => {
                    return Ok(Err(ManagerError::Refused { complaint }));
                }
                BusAnswer::Done { .. } | BusAnswer::Refused { .. } | BusAnswer::Other => {}
            }
        }
    }
}

/// The call for one request, or for several of the same kind about links.
fn call(batch: &[UnitRequest<'_>]) -> (&'static str, MessageBody) {
    let units: Vec<&str> = batch.iter().filter_map(UnitRequest::unit_name).collect();
    let mut body = MessageBody::default();
    let method = match batch[0] {
        UnitRequest::Disable { runtime, .. } => {
            body.push_strings(&units).push_bool(runtime);
            "DisableUnitFiles"
        }
        UnitRequest::Enable { runtime, .. } => {
            // As `systemctl --force`: a link that leads elsewhere is replaced.
            body.push_strings(&units).push_bool(runtime).push_bool(true);
            "EnableUnitFiles"
        }
        UnitRequest::Job { unit, verb } => {
            // systemctl's own default mode.
            body.push_string(unit).push_string("replace");
            method_name(verb)
        }
        UnitRequest::Reload | UnitRequest::Reread { .. } => "Reload",
    };
    (method, body)
}

fn method_name(verb: UnitVerb) -> &'static str {
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
