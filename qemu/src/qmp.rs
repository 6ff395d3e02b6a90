//! Speaks QMP, QEMU's control protocol (<https://www.qemu.org/docs/master/interop/qmp-spec.html>): a JSON object a line,
//! over a Unix socket.
//!
//! Knows greeting, commands, errors and how to step over events. QEMU serves one client at a time, so a
//! connection is made for a purpose and dropped after it. Invariant: no call blocks longer than its timeout.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::arguments::{CLOSED_PORT, QMP_SOCKET, SSH_PORT};
use crate::ssh::ForwardedPorts;

/// The longest answer read; the real ones are a few hundred bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// A connection to one QEMU.
#[derive(Debug)]
pub struct QmpConnection {
    stream: BufReader<UnixStream>,
}

/// Why QEMU did not do as told.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum QmpError {
    #[error("cannot reach QEMU's control socket")]
    Connect(#[source] io::Error),
    #[error("cannot talk to QEMU")]
    Talk(#[source] io::Error),
    #[error("QEMU answered something that is not QMP: {0}")]
    Answer(String),
    #[error("QEMU refused {command}: {reason}")]
    Refused { command: String, reason: String },
}

impl QmpConnection {
    /// Connects to the QEMU that runs in `folder`, each answer to come within `within`.
    pub fn connect_qemu(folder: &Path, within: Duration) -> Result<Self, QmpError> {
        let stream = connect_in(folder, QMP_SOCKET).map_err(QmpError::Connect)?;
        stream.set_read_timeout(Some(within)).map_err(QmpError::Connect)?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Answer(greeting.to_string()));
        }
        qmp.run_command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its result, stepping over events.
    pub fn run_command(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.stream.get_mut().write_all(line.as_bytes()).map_err(QmpError::Talk)?;
        loop {
            // Anything that is neither an error nor a result is an event, which may come between the two.
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                let reason = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), reason });
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    /// Presses the power button, which asks the guest to shut down.
    pub fn press_power_button(&mut self) -> Result<(), QmpError> {
        self.run_command("system_powerdown", &json!({})).map(drop)
    }

    /// Presses the reset button.
    pub fn reset_machine(&mut self) -> Result<(), QmpError> {
        self.run_command("system_reset", &json!({})).map(drop)
    }

    /// Detaches a device, as soon as the guest lets go of it.
    pub fn detach_device(&mut self, device: &str) -> Result<(), QmpError> {
        // Answered before the guest has let go of it; a guest that never does keeps it.
        self.run_command("device_del", &json!({"id": device})).map(drop)
    }

    /// Ends QEMU at once.
    pub fn quit_qemu(&mut self) -> Result<(), QmpError> {
        self.run_command("quit", &json!({})).map(drop)
    }

    /// The ports of this host that lead into the guest.
    pub fn forwarded_ports(&mut self) -> Result<ForwardedPorts, QmpError> {
        // Only the monitor for people knows the ports that the kernel chose; QMP has no command for them.
        let arguments = json!({"command-line": "info usernet"});
        let answer = self.run_command("human-monitor-command", &arguments)?;
        let text = answer.as_str().unwrap_or_default();
        let port = |of| forwarded_port(text, of).ok_or_else(|| QmpError::Answer(text.to_owned()));
        Ok(ForwardedPorts { ssh: port(SSH_PORT)?, closed: port(CLOSED_PORT)? })
    }

    fn read(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        self.stream.by_ref().take(LONGEST_LINE).read_line(&mut line).map_err(QmpError::Talk)?;
        if line.is_empty() {
            return Err(QmpError::Talk(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_str(&line).map_err(|_| QmpError::Answer(line))
    }
}

/// Connects to the socket `name` in `folder`, however long the folder's path is: a socket's own path has room
/// for 107 bytes, so it is given through the folder's descriptor.
pub(crate) fn connect_in(folder: &Path, name: &str) -> io::Result<UnixStream> {
    let folder = File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// Connects again and again until it works, `given_up` says so, or the time is over.
pub(crate) fn connect_soon(
    folder: &Path,
    within: Duration,
    mut given_up: impl FnMut() -> bool,
) -> Result<QmpConnection, QmpError> {
    let deadline = Instant::now() + within;
    loop {
        match QmpConnection::connect_qemu(folder, within) {
            // The socket is there a moment after QEMU has begun to read its arguments.
            Err(QmpError::Connect(_)) if Instant::now() < deadline && !given_up() => {
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}

/// The host's port in a table row `TCP[HOST_FORWARD] fd address port address guest-port …`.
fn forwarded_port(table: &str, guest_port: u16) -> Option<u16> {
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [protocol, _, _, port, _, to, ..] = words[..] else { return None };
        if protocol == "TCP[HOST_FORWARD]" && to.parse() == Ok(guest_port) { port.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Hub -1 (net):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   15       127.0.0.1 34223       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]  13       127.0.0.1 40001       10.0.2.15    80     0     0\r
  TCP[HOST_FORWARD]  13       127.0.0.1 34224       10.0.2.15    22     0     0\r\n";

    #[test]
    fn the_port_is_that_of_the_forward_to_the_guest_s_port() {
        assert_eq!(forwarded_port(TABLE, 22), Some(34224));
        assert_eq!(forwarded_port(TABLE, 443), None);
    }

    #[test]
    fn a_socket_is_reached_in_a_folder_with_a_long_path() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let handle = File::open(&deep).unwrap();
        let path = format!("/proc/self/fd/{}/x.sock", handle.as_raw_fd());
        let _listener = std::os::unix::net::UnixListener::bind(path).unwrap();

        assert!(connect_in(&deep, "x.sock").is_ok());
    }
}
