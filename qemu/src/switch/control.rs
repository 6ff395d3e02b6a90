//! What a person may ask of a running switch: a JSON object a line, over a Unix socket, one answer a line.
//!
//! Knows the requests and their answers, and is pure but for the functions that make and use the socket. Refuses to know machines by name:
//! ports are numbers here. Invariant: a request that cannot be done changes nothing.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address_table::PortIndex;
use super::bridge::Bridge;
use super::cable::{CableState, LinkState, LossRate, MAX_DELAY, PortStatistics};
use crate::qmp::connect_in;

/// The control socket's name, in the folder of the network.
pub const CONTROL_SOCKET: &str = "control.sock";

/// A request has some words; more is a mistake.
pub const MAX_REQUEST: usize = 4096;

/// A status of a hundred ports has 40 KiB.
const MAX_ANSWER: u64 = 1 << 20;

/// The switch answers within one round of its loop; it hangs when it has not by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// Pulls a cable
    Cut {
        /// Whose
        port: PortIndex,
    },
    /// Makes a cable as good as new
    Heal {
        /// Whose
        port: PortIndex,
    },
    /// Ends the switch
    Quit {},
    /// Changes what a cable does to frames; what is left out stays as it is
    Shape {
        /// Whose
        port: PortIndex,
        /// How long each frame is under way
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay_ms: Option<u64>,
        /// How many of 100 frames get lost
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loss_percent: Option<f64>,
        /// How many of the next frames get lost
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drop_next: Option<u32>,
    },
    /// Changes nothing; each answer tells the state of all ports
    Status {},
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlAnswer {
    /// Why the request was refused
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// All ports, in their order
    pub ports: Vec<PortStatus>,
}

/// What is known of a port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Whether the machine's QEMU runs
    pub connected: bool,
    /// Whether the cable is plugged in
    pub link: LinkState,
    /// How long each frame is under way
    pub delay_ms: u64,
    /// How many of 100 frames get lost
    pub loss_percent: f64,
    /// How many of the next frames get lost
    pub drop_next: u32,
    /// What was counted
    #[serde(flatten)]
    pub statistics: PortStatistics,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum RequestError {
    #[error("the request is not understood")]
    Syntax(#[from] serde_json::Error),
    #[error("there is no port {port}; the switch has {count}, counted from 0")]
    NoPort { port: usize, count: usize },
    #[error("a delay of {0} ms is too long; the longest is {max} ms", max = MAX_DELAY.as_millis())]
    Delay(u64),
    #[error("a loss of {0} % is none; it is between 0 and 100")]
    Loss(f64),
}

/// Why the switch could not be asked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ControlError {
    #[error("cannot reach the network of the machines; it ended, and vm down and vm up make a new one")]
    Connect(#[source] io::Error),
    #[error("cannot talk to the network of the machines")]
    Talk(#[source] io::Error),
    #[error("the network of the machines refused: {0}")]
    Refused(String),
}

/// Whether the switch goes on after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRequest {
    /// It goes on
    Continue,
    /// It ends
    Quit,
}

/// Does what one line asks for. `connected` says of each port whether its machine is there.
pub fn answer_request(line: &[u8], bridge: &mut Bridge, connected: &[bool]) -> (ControlAnswer, AfterRequest) {
    let outcome = serde_json::from_slice(line)
        .map_err(RequestError::from)
        .and_then(|request: ControlRequest| apply_request(&request, bridge));
    let (error, after) = match outcome {
        Ok(after) => (None, after),
        Err(error) => (Some(describe_error(&error)), AfterRequest::Continue),
    };
    let ports = connected.iter().enumerate();
    let ports = ports.filter_map(|(port, connected)| port_status(bridge, PortIndex(port), *connected));
    (ControlAnswer { error, ports: ports.collect() }, after)
}

fn describe_error(error: &RequestError) -> String {
    match error {
        RequestError::Syntax(cause) => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}

fn apply_request(request: &ControlRequest, bridge: &mut Bridge) -> Result<AfterRequest, RequestError> {
    let count = bridge.port_count();
    let cable =
        |port: PortIndex| bridge.cable_state(port).ok_or(RequestError::NoPort { port: port.0, count });
    let (port, changed) = match *request {
        ControlRequest::Status {} => return Ok(AfterRequest::Continue),
        ControlRequest::Quit {} => return Ok(AfterRequest::Quit),
        ControlRequest::Cut { port } => (port, CableState { link: LinkState::Cut, ..cable(port)? }),
        // All of it: after a test nobody knows any more what had been done to the cable.
        ControlRequest::Heal { port } => (port, cable(port).map(|_| CableState::default())?),
        ControlRequest::Shape { port, delay_ms, loss_percent, drop_next } => {
            (port, shape_cable(cable(port)?, delay_ms, loss_percent, drop_next)?)
        }
    };
    bridge.set_cable(port, changed);
    Ok(AfterRequest::Continue)
}

fn shape_cable(
    mut cable: CableState,
    delay_ms: Option<u64>,
    loss_percent: Option<f64>,
    drop_next: Option<u32>,
) -> Result<CableState, RequestError> {
    if let Some(delay_ms) = delay_ms {
        cable.delay = Duration::from_millis(delay_ms);
        if cable.delay > MAX_DELAY {
            return Err(RequestError::Delay(delay_ms));
        }
    }
    if let Some(percent) = loss_percent {
        cable.loss = LossRate::from_percent(percent).ok_or(RequestError::Loss(percent))?;
    }
    cable.drop_next = drop_next.unwrap_or(cable.drop_next);
    Ok(cable)
}

fn port_status(bridge: &Bridge, port: PortIndex, connected: bool) -> Option<PortStatus> {
    let cable = bridge.cable_state(port)?;
    Some(PortStatus {
        connected,
        link: cable.link,
        // At most a minute.
        delay_ms: u64::try_from(cable.delay.as_millis()).unwrap_or(u64::MAX),
        loss_percent: cable.loss.percent(),
        drop_next: cable.drop_next,
        statistics: bridge.port_statistics(port)?,
    })
}

/// Makes the socket at which a switch is asked, in its folder. As `connect_in`, it does not mind a long path.
pub fn bind_control_socket(folder: &Path) -> io::Result<UnixListener> {
    let folder = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", folder.as_raw_fd());
    // One that a killed process has left would be in the way; the lock says that there is no other.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Asks the switch whose folder this is.
pub fn send_request(folder: &Path, request: &ControlRequest) -> Result<Vec<PortStatus>, ControlError> {
    let mut stream = connect_in(folder, CONTROL_SOCKET).map_err(ControlError::Connect)?;
    let timeout = Some(ANSWER_TIMEOUT);
    let line = serde_json::to_string(request).map_err(|error| ControlError::Talk(error.into()))?;
    let mut answer = String::new();
    stream
        .set_read_timeout(timeout)
        .and_then(|()| stream.set_write_timeout(timeout))
        .and_then(|()| stream.write_all(format!("{line}\n").as_bytes()))
        .and_then(|()| BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut answer))
        .map_err(ControlError::Talk)?;
    let answer: ControlAnswer =
        serde_json::from_str(&answer).map_err(|error| ControlError::Talk(error.into()))?;
    match answer.error {
        Some(reason) => Err(ControlError::Refused(reason)),
        None => Ok(answer.ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(bridge: &mut Bridge, line: &str) -> (ControlAnswer, AfterRequest) {
        answer_request(line.as_bytes(), bridge, &[true, false])
    }

    #[test]
    fn cables_are_cut_shaped_and_healed() {
        let mut bridge = Bridge::new(2, 0);

        let (answer, _) = ask(&mut bridge, r#"{"command":"cut","port":1}"#);
        assert_eq!((answer.ports[0].link, answer.ports[1].link), (LinkState::Whole, LinkState::Cut));
        let (answer, _) =
            ask(&mut bridge, r#"{"command":"shape","port":1,"delay_ms":20,"loss_percent":0.5}"#);
        let port = &answer.ports[1];
        assert_eq!((port.link, port.delay_ms, port.loss_percent), (LinkState::Cut, 20, 0.5));
        let (answer, after) = ask(&mut bridge, r#"{"command":"heal","port":1}"#);

        let port = &answer.ports[1];
        assert_eq!((port.link, port.delay_ms, port.loss_percent), (LinkState::Whole, 0, 0.0));
        assert_eq!((answer.error, after), (None, AfterRequest::Continue));
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_changes_nothing() {
        let refused = [
            (r#"{"command":"cut","port":2}"#, "there is no port 2; the switch has 2, counted from 0"),
            (
                r#"{"command":"shape","port":0,"delay_ms":60001}"#,
                "a delay of 60001 ms is too long; the longest is 60000 ms",
            ),
            (
                r#"{"command":"shape","port":0,"drop_next":9,"loss_percent":101}"#,
                "a loss of 101 % is none; it is between 0 and 100",
            ),
            (r#"{"command":"cut","port":0,"hard":true}"#, "the request is not understood: "),
            ("cut 0", "the request is not understood: "),
        ];
        for (line, words) in refused {
            let mut bridge = Bridge::new(2, 0);
            let (answer, after) = ask(&mut bridge, line);

            let error = answer.error.unwrap();
            assert!(error.starts_with(words), "{error}");
            assert_eq!(after, AfterRequest::Continue);
            assert_eq!(bridge.cable_state(PortIndex(0)), Some(CableState::default()));
        }
    }

    #[test]
    fn the_status_tells_who_is_there_and_quit_ends() {
        let mut bridge = Bridge::new(2, 0);

        let (answer, _) = ask(&mut bridge, r#"{"command":"status"}"#);
        let (_, after) = ask(&mut bridge, r#"{"command":"quit"}"#);

        assert_eq!(answer.ports.iter().map(|port| port.connected).collect::<Vec<_>>(), [true, false]);
        assert_eq!(after, AfterRequest::Quit);
    }

    #[test]
    fn requests_and_answers_survive_the_wire() {
        let mut bridge = Bridge::new(2, 0);
        let request = ControlRequest::Shape {
            port: PortIndex(1),
            delay_ms: Some(3),
            loss_percent: None,
            drop_next: Some(2),
        };

        let (answer, _) = ask(&mut bridge, &serde_json::to_string(&request).unwrap());
        let text = serde_json::to_string(&answer).unwrap();

        assert_eq!(serde_json::from_str::<ControlAnswer>(&text).unwrap(), answer);
        assert_eq!((answer.ports[1].delay_ms, answer.ports[1].drop_next), (3, 2));
    }
}
