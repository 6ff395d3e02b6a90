//! Asks a lock server on a socket of this machine: fleetd's, whom root needs no certificate to command.
//!
//! Knows one call of HTTP/1.1. Refuses to know locks. Invariant: an answer is bounded in length and in time.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A refusal is a sentence in JSON.
const LARGEST_ANSWER: u64 = 16 << 10;

/// Posts JSON, and returns the status and what was said.
pub(crate) fn post_json(
    socket: &Path,
    path: &str,
    body: &str,
    patience: Duration,
) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nfleet-lock-protocol: true\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.take(LARGEST_ANSWER).read_to_string(&mut answer)?;
    let (head, said) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status =
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP"))?;
    Ok((status, said.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_asked_and_its_refusal_read() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("fleet.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let serving = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let count = client.read(&mut asked).unwrap();
            client.write_all(b"HTTP/1.1 423 Locked\r\nContent-Length: 2\r\n\r\nno").unwrap();
            String::from_utf8_lossy(&asked[..count]).into_owned()
        });

        let answer = post_json(&socket, "/v1/pre-reboot", "{}", Duration::from_secs(20)).unwrap();

        assert_eq!(answer, (423, "no".to_owned()));
        let asked = serving.join().unwrap();
        assert!(asked.starts_with("POST /v1/pre-reboot HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("fleet-lock-protocol: true") && asked.ends_with("\r\n\r\n{}"), "{asked}");
        assert!(post_json(&folder.path().join("none"), "/", "", Duration::from_secs(1)).is_err());
    }
}
