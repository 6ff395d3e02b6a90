//! Hands requests for the keys of version 2 on to etcd, and nothing else.
//!
//! Knows sockets, threads and certificates. Refuses to judge a request: [`request`] does. Invariants: one
//! request a connection, so that no second one hides behind the first; a client that leaves frees its place;
//! what is held for all clients together is bounded.
//!
//! Threads, not an async runtime: the agent has none, a waiting thread costs some pages, and 256 of them are
//! enough for the watchers of one machine.

#![expect(clippy::disallowed_methods, reason = "effects live here")]

pub mod request;
mod upstream;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use request::{Head, Refusal, Verdict};
pub use upstream::{Upstream, UpstreamError};

/// Connections at once. Past it a client waits in the kernel's queue.
const MOST_CONNECTIONS: usize = 256;
/// How long a request may take to come. A watch waits for its answer, which is not bounded.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a waiting client is still there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// etcd 3.5 takes values of 1.5 MiB by default; percent encoding triples what is no letter.
const LARGEST_BODY: usize = 5 << 20;
/// For a request's head, its answer and TLS. The default of 2 MiB is mapped, not used, yet counts as a limit.
const STACK_BYTES: usize = 256 << 10;

/// What the proxy serves.
#[derive(Debug)]
pub struct Proxy {
    upstream: Upstream,
    /// What old clients are told to connect to.
    advertised: String,
    connections: AtomicUsize,
}

/// A place among the connections, given back when dropped.
struct Place(Arc<Proxy>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Proxy {
    /// A proxy to these members.
    #[must_use]
    pub fn new(upstream: Upstream, advertised: SocketAddr) -> Arc<Self> {
        let connections = AtomicUsize::new(0);
        Arc::new(Self { upstream, advertised: format!("http://{advertised}"), connections })
    }

    /// Serves one socket for ever.
    pub fn serve_socket(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let Some(place) = self.take_place() else {
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            match listener.accept() {
                Ok((client, _)) => spawn_connection(place, client),
                // Out of descriptors, mostly: others will end.
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn take_place(self: &Arc<Self>) -> Option<Place> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(self));
        (before < MOST_CONNECTIONS).then_some(place)
    }

    /// Answers the one request of a connection.
    fn answer_request(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(HEARTBEAT))?;
        client.set_write_timeout(Some(REQUEST_PATIENCE))?;
        let deadline = Instant::now() + REQUEST_PATIENCE;
        let (head, rest) = match read_head(&mut client, deadline)? {
            Ok(read) => read,
            Err(refusal) => return client.write_all(refusal.format_answer().as_bytes()),
        };
        let verdict = request::judge_request(&head);
        let length = match &verdict {
            Verdict::Refuse(refusal) => return client.write_all(refusal.format_answer().as_bytes()),
            _ if head.body_bytes > LARGEST_BODY => {
                return client.write_all(Refusal::TooLarge.format_answer().as_bytes());
            }
            _ => head.body_bytes,
        };
        if head.expects_continue {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = read_body(&mut client, rest, length, deadline)?;
        let Ok(mut member) = self.upstream.connect_member() else {
            return client.write_all(Refusal::NoMember.format_answer().as_bytes());
        };
        member.write_all(head.forwarded_request().as_bytes())?;
        member.write_all(&body)?;
        member.flush()?;
        match verdict {
            Verdict::ForwardMembers => forward_members(&mut member, &mut client, &self.advertised),
            _ => forward_answer(&mut member, &mut client),
        }
    }
}

fn spawn_connection(place: Place, client: TcpStream) {
    let thread = thread::Builder::new().name("client".to_owned()).stack_size(STACK_BYTES);
    // Without a thread the connection is closed, which a client may try again.
    let _ = thread.spawn(move || {
        // A client or a member that breaks off ends its connection and nothing else.
        let _ = place.0.answer_request(client);
    });
}

/// The head of a request, and what came behind it.
fn read_head(client: &mut TcpStream, deadline: Instant) -> io::Result<Result<(Head, Vec<u8>), Refusal>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(read) = request::split_head(&bytes) {
            return Ok(read);
        }
        let count = read_some(client, &mut buffer, deadline)?;
        bytes.extend_from_slice(&buffer[..count]);
    }
}

fn read_body(
    client: &mut TcpStream,
    mut body: Vec<u8>,
    length: usize,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    // What comes behind the body would be another request.
    body.truncate(length);
    let mut buffer = [0; 16 << 10];
    while body.len() < length {
        let most = buffer.len().min(length - body.len());
        let count = read_some(client, &mut buffer[..most], deadline)?;
        body.extend_from_slice(&buffer[..count]);
    }
    Ok(body)
}

/// At least one byte, before the deadline.
fn read_some(client: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        match client.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if is_pause(&error) && Instant::now() < deadline => {}
            other => return other,
        }
    }
}

/// Copies an answer as it comes, until the member ends it or the client leaves.
fn forward_answer(member: &mut impl Read, client: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        match member.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => client.write_all(&buffer[..count])?,
            Err(error) if is_pause(&error) && !has_left(client) => {}
            // etcd closes without TLS's farewell; the answer has its own length.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Members' addresses need a certificate, which old clients do not have: they are told this proxy's.
fn forward_members(member: &mut impl Read, client: &mut TcpStream, advertised: &str) -> io::Result<()> {
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match member.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if answer.len() < LARGEST_BODY => answer.extend_from_slice(&buffer[..count]),
            Err(error) if is_pause(&error) && !has_left(client) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) => return Err(error),
        }
    }
    client.write_all(&request::with_addresses(&answer, advertised))
}

/// Whether an error only says that nothing came yet.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Whether a client closed its connection. One that closed its sending half only counts, too: none of etcd's
/// clients waits for an answer then.
fn has_left(client: &TcpStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(client.as_raw_fd(), &mut [0], flags) {
        Ok(count) => count == 0,
        Err(errno) => errno != Errno::EAGAIN,
    }
}
