//! Serves the discovery protocol on a socket.
//!
//! Knows HTTP/1.1 as far as etcd's clients speak it. Refuses to know tokens. Invariants: one request a connection;
//! connections and what each may send are bounded.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::{DiscoveryAnswer, DiscoveryRequest, DiscoveryService};
use crate::proxy::request::{Head, split_head};

/// A cluster of a hundred machines waits with one connection each.
const MOST_CONNECTIONS: usize = 256;
/// For a request to come.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// A form with a name and a URL.
const LARGEST_BODY: usize = 16 << 10;

/// Serves for as long as the listener does.
pub fn serve_discovery(service: &Arc<DiscoveryService>, listener: &TcpListener) -> io::Result<()> {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let (client, _) = listener.accept()?;
        if connections.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (service, count) = (service.clone(), connections.clone());
        let spawned = thread::Builder::new().name("discovery".to_owned()).spawn(move || {
            // A client that breaks off ends its connection and nothing else.
            let _ = answer_client(&service, client);
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn answer_client(service: &DiscoveryService, mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(REQUEST_PATIENCE))?;
    client.set_write_timeout(Some(REQUEST_PATIENCE))?;
    let Some((head, mut body)) = read_head(&mut client)? else {
        return client
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    if head.body_bytes > LARGEST_BODY {
        return client.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let missing = head.body_bytes.saturating_sub(body.len());
    io::Read::by_ref(&mut client).take(missing as u64).read_to_end(&mut body)?;
    let (path, query) = head.target().split_once('?').unwrap_or_else(|| (head.target(), ""));
    // What the client called this server is how its friends will.
    let host = head
        .header_value("host")
        .map_or_else(|| client.local_addr().map(|at| at.to_string()), |host| Ok(host.to_owned()))?;
    let origin = format!("http://{host}");
    let body = String::from_utf8_lossy(&body);
    let request =
        DiscoveryRequest { method: head.method(), path, prefix: "", query, body: &body, origin: &origin };
    client.write_all(format_answer(&service.answer_request(&request)).as_bytes())
}

fn read_head(client: &mut TcpStream) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(read) = split_head(&bytes) {
            return Ok(read.ok());
        }
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn format_answer(answer: &DiscoveryAnswer) -> String {
    let DiscoveryAnswer { status, index, content_type, body } = answer;
    let reason = match status {
        200 => "OK",
        201 => "Created",
        404 => "Not Found",
        405 => "Method Not Allowed",
        412 => "Precondition Failed",
        _ => "Refused",
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nX-Etcd-Index: \
         {index}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
