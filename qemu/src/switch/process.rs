//! The process that carries frames between the sockets of the machines.
//!
//! Knows sockets, [`poll`] and the clock, and asks the [`Bridge`] where everything goes. The machine's QEMU
//! listens and this process connects, not the other way round: so it may start before or after any machine, sees a
//! machine's restart as a new connection, and needs no `reconnect=`, which QEMU 7.2 does not know yet. One thread
//! for all ports, since a thread for each would have to lock the bridge for every frame. Invariant: no peer can
//! block the loop, and memory is bounded for each port and each client.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::address_table::PortIndex;
use super::bridge::Bridge;
use super::control::{AfterRequest, MAX_REQUEST, answer_request};
use super::frame_stream::{FrameDecoder, encode_frame};
use crate::arguments::FRAME_SOCKET;
use crate::qmp::connect_in;

/// A machine that starts is connected this much later at most: long before its kernel looks for a network.
const CONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// How often the loop sees whether the network's folder is still there.
const FOLDER_INTERVAL: Duration = Duration::from_secs(1);

/// What is read of one port before the others have their turn: some ten full frames.
const READ_SIZE: usize = 16 << 10;

/// People and tests ask one thing at a time; the oldest client goes when there are more.
const MAX_CLIENTS: usize = 16;

/// A machine's connection.
#[derive(Debug)]
struct MachineLink {
    folder: PathBuf,
    connection: Option<Connection>,
}

/// A machine's QEMU while it runs.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    decoder: FrameDecoder,
    /// What of a frame QEMU would not take yet
    unsent: Vec<u8>,
}

/// A client of the control socket.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    line: Vec<u8>,
}

/// Whether a peer stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerState {
    Gone,
    There,
}

/// A running switch.
#[derive(Debug)]
pub struct SwitchProcess {
    folder: PathBuf,
    bridge: Bridge,
    links: Vec<MachineLink>,
    listener: UnixListener,
    clients: Vec<Client>,
    start: Instant,
}

impl SwitchProcess {
    /// A switch between the machines whose folders these are. It ends when `folder`, its own, is gone.
    pub fn new(folder: &Path, machines: &[PathBuf], listener: UnixListener, seed: u64) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let link = |folder: &PathBuf| MachineLink { folder: folder.clone(), connection: None };
        Ok(Self {
            folder: folder.into(),
            bridge: Bridge::new(machines.len(), seed),
            links: machines.iter().map(link).collect(),
            listener,
            clients: Vec::new(),
            start: Instant::now(),
        })
    }

    /// Carries frames until somebody asks it to end, or its folder is gone.
    pub fn run_switch(&mut self) -> io::Result<()> {
        let (mut connect_at, mut check_at) = (Duration::ZERO, Duration::ZERO);
        loop {
            let now = self.start.elapsed();
            if now >= connect_at {
                self.connect_machines();
                connect_at = now + CONNECT_INTERVAL;
            }
            if now >= check_at {
                if !self.folder.is_dir() {
                    return Ok(());
                }
                check_at = now + FOLDER_INTERVAL;
            }
            self.send_frames();
            self.wait_for_peers(connect_at.min(check_at).min(self.next_due()))?;
            self.receive_frames();
            self.accept_client();
            if self.serve_clients() == AfterRequest::Quit {
                return Ok(());
            }
        }
    }

    fn connect_machines(&mut self) {
        for (index, link) in self.links.iter_mut().enumerate().filter(|(_, link)| link.connection.is_none()) {
            // A machine that is off has no socket, or one where nobody listens.
            let Ok(stream) = connect_in(&link.folder, FRAME_SOCKET) else { continue };
            if stream.set_nonblocking(true).is_ok() {
                // What was queued for the machine meanwhile is from before its power-on.
                self.bridge.reset_port(PortIndex(index));
                link.connection = Some(Connection::new(stream));
            }
        }
    }

    fn send_frames(&mut self) {
        let now = self.start.elapsed();
        for (index, link) in self.links.iter_mut().enumerate() {
            let bridge = &mut self.bridge;
            link.drop_connection_if(|connection| connection.send_due(bridge, PortIndex(index), now));
        }
    }

    fn receive_frames(&mut self) {
        let now = self.start.elapsed();
        for (index, link) in self.links.iter_mut().enumerate() {
            let bridge = &mut self.bridge;
            link.drop_connection_if(|connection| connection.receive_some(bridge, PortIndex(index), now));
        }
    }

    /// When the next frame is due that its machine would take.
    fn next_due(&self) -> Duration {
        let takes_more =
            |link: &MachineLink| link.connection.as_ref().is_some_and(|one| one.unsent.is_empty());
        let ports = self.links.iter().enumerate().filter(|(_, link)| takes_more(link));
        ports.filter_map(|(port, _)| self.bridge.next_due(PortIndex(port))).min().unwrap_or(Duration::MAX)
    }

    /// Waits until any peer can be read or written, or until the moment that is given. Which peer it is does not
    /// matter: all are tried, which costs a system call for each of a few ports.
    fn wait_for_peers(&self, until: Duration) -> io::Result<()> {
        let connections = self.links.iter().filter_map(|link| link.connection.as_ref());
        let mut watched: Vec<PollFd<'_>> = connections.map(Connection::poll_entry).collect();
        watched.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        watched
            .extend(self.clients.iter().map(|client| PollFd::new(client.stream.as_fd(), PollFlags::POLLIN)));
        // Rounded up to the milliseconds of poll: rounded down, the last of them would be spent spinning.
        let left = until.saturating_sub(self.start.elapsed()) + Duration::from_micros(999);
        match poll(&mut watched, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn accept_client(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        // The oldest and not the newest: a test that hung before must not lock out the one that runs now.
        if self.clients.len() >= MAX_CLIENTS {
            self.clients.remove(0);
        }
        self.clients.push(Client { stream, line: Vec::new() });
    }

    fn serve_clients(&mut self) -> AfterRequest {
        let connected: Vec<bool> = self.links.iter().map(|link| link.connection.is_some()).collect();
        let mut after = AfterRequest::Continue;
        for mut client in std::mem::take(&mut self.clients) {
            let state = client.serve_client(|line| {
                let (answer, next) = answer_request(line, &mut self.bridge, &connected);
                if next == AfterRequest::Quit {
                    after = next;
                }
                serde_json::to_vec(&answer).unwrap_or_default()
            });
            if state == PeerState::There {
                self.clients.push(client);
            }
        }
        after
    }
}

impl MachineLink {
    fn drop_connection_if(&mut self, act: impl FnOnce(&mut Connection) -> PeerState) {
        if self.connection.as_mut().is_some_and(|connection| act(connection) == PeerState::Gone) {
            self.connection = None;
        }
    }
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self { stream, decoder: FrameDecoder::default(), unsent: Vec::new() }
    }

    fn poll_entry(&self) -> PollFd<'_> {
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, !self.unsent.is_empty());
        PollFd::new(self.stream.as_fd(), flags)
    }

    /// Sends the frames that are due, as far as QEMU takes them. The rest waits in the bridge, where it is bounded.
    fn send_due(&mut self, bridge: &mut Bridge, port: PortIndex, now: Duration) -> PeerState {
        loop {
            if self.unsent.is_empty() {
                let Some(frame) = bridge.next_frame(port, now) else { return PeerState::There };
                self.unsent = encode_frame(&frame);
            }
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if is_not_ready(&error) => return PeerState::There,
                Err(_) => return PeerState::Gone,
            }
        }
    }

    /// Reads once, so that a machine that sends without end leaves the others their turn.
    fn receive_some(&mut self, bridge: &mut Bridge, port: PortIndex, now: Duration) -> PeerState {
        let mut bytes = [0; READ_SIZE];
        match self.stream.read(&mut bytes) {
            Ok(0) => return PeerState::Gone,
            Ok(length) => self.decoder.push_bytes(&bytes[..length]),
            Err(error) if is_not_ready(&error) => return PeerState::There,
            Err(_) => return PeerState::Gone,
        }
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => bridge.forward_frame(port, frame, now),
                Ok(None) => return PeerState::There,
                // The stream has lost its step; a new connection finds it again.
                Err(_) => return PeerState::Gone,
            }
        }
    }
}

impl Client {
    /// Answers the lines that have arrived.
    fn serve_client(&mut self, mut answer: impl FnMut(&[u8]) -> Vec<u8>) -> PeerState {
        let mut bytes = [0; MAX_REQUEST];
        match self.stream.read(&mut bytes) {
            Ok(0) => return PeerState::Gone,
            Ok(length) => self.line.extend_from_slice(&bytes[..length]),
            Err(error) if is_not_ready(&error) => return PeerState::There,
            Err(_) => return PeerState::Gone,
        }
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let mut reply = answer(&line);
            reply.push(b'\n');
            // An answer fits into a socket's buffer; who does not read several of them gets no more.
            if self.stream.write_all(&reply).is_err() {
                return PeerState::Gone;
            }
        }
        if self.line.len() > MAX_REQUEST { PeerState::Gone } else { PeerState::There }
    }
}

fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
