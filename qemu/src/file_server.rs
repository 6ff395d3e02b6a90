//! Serves the files of one directory over HTTP, to read only: an update repository for the machines of a cluster.
//!
//! Knows GET, HEAD, ranges and entity tags (RFC 9110), files and threads; the bytes of a request are read by
//! [`request`], pure. Refuses to list directories, to write, and to leave its directory: the kernel resolves each
//! path beneath it (`openat2`, <https://man7.org/linux/man-pages/man2/openat2.2.html>), so that neither `..` nor a
//! link leads out, also when somebody changes the tree meanwhile. Invariant: a client costs at most one thread and
//! one open file, for as long as it keeps moving.

pub mod request;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use request::{Method, Request, RequestError, RequestedRange, choose_range, parse_request};

/// A machine asks over a few connections; a hundred machines fit. Each costs a thread of this host.
const MAX_CONNECTIONS: usize = 256;

/// A request's head: a long path and what clients say of themselves. Apache's and nginx's limit as well.
const MAX_HEAD: u64 = 8 << 10;

/// How long a client may be silent, between two requests or in the middle of one. An emulated machine that is
/// busy needs seconds; a dead one must give its thread back.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a refused client may take to read why.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// A directory that is served.
#[derive(Debug)]
pub struct FileServer {
    root: OwnedFd,
    listener: TcpListener,
}

/// A file that was found.
struct OpenedFile {
    file: File,
    length: u64,
    tag: String,
}

impl FileServer {
    /// Will serve `root` at `listener`.
    pub fn serve_folder(root: &Path, listener: TcpListener) -> io::Result<Self> {
        let root = File::open(root)?;
        if !root.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { root: root.into(), listener })
    }

    /// Serves until this process ends.
    pub fn serve_forever(self) {
        let root = Arc::new(self.root);
        for stream in self.listener.incoming().flatten() {
            // Each thread holds the root, so that the count of its holders is that of the connections, and one that
            // panics gives its place back too.
            if Arc::strong_count(&root) > MAX_CONNECTIONS {
                refuse_connection(&stream);
                continue;
            }
            let root = Arc::clone(&root);
            // A client that goes away in the middle concerns only itself.
            thread::spawn(move || serve_connection(&root, &stream).ok());
        }
    }
}

fn refuse_connection(mut stream: &TcpStream) {
    // A client that does not read the refusal finds the connection closed, which says the same.
    let _ = stream
        .write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

fn serve_connection(root: &OwnedFd, stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    loop {
        let Some(head) = read_head(&mut reader)? else { return Ok(()) };
        match parse_request(&head) {
            Ok(request) => {
                answer_request(root, &request, stream)?;
                if !request.keeps_connection {
                    return Ok(());
                }
            }
            Err(error) => return send_error(stream, error),
        }
    }
}

/// The lines up to the empty one; none if the client has gone.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut limited = reader.take(MAX_HEAD);
    loop {
        let before = head.len();
        if limited.read_until(b'\n', &mut head)? == 0 {
            // At the limit the head is not whole: the parser refuses it. A client that has gone has none.
            return Ok((limited.limit() == 0).then_some(head));
        }
        if matches!(&head[before..], b"\r\n" | b"\n") && before > 0 {
            return Ok(Some(head));
        }
    }
}

fn answer_request(root: &OwnedFd, request: &Request, stream: &TcpStream) -> io::Result<()> {
    let Ok(mut opened) = open_file(root, &request.path) else {
        return send_empty(stream, "404 Not Found", "", request);
    };
    let tag = &opened.tag;
    match choose_range(request, opened.length, tag) {
        RequestedRange::Whole => {
            let headers = format!("ETag: {tag}\r\n");
            let all = 0..opened.length;
            send_file(stream, "200 OK", &headers, &mut opened, all, request)
        }
        RequestedRange::Part(part) => {
            let (first, last, length) = (part.start, part.end - 1, opened.length);
            let headers = format!("ETag: {tag}\r\nContent-Range: bytes {first}-{last}/{length}\r\n");
            send_file(stream, "206 Partial Content", &headers, &mut opened, part, request)
        }
        RequestedRange::Unsatisfiable => {
            let headers = format!("Content-Range: bytes */{}\r\n", opened.length);
            send_empty(stream, "416 Range Not Satisfiable", &headers, request)
        }
    }
}

fn open_file(root: &OwnedFd, path: &str) -> io::Result<OpenedFile> {
    // Not blocking: to open a named pipe waits for a writer, and it is no file to serve.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let file = File::from(openat2(root, path, OpenHow::new().flags(flags).resolve(resolve))?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Files are replaced by renaming, so number, time and length tell one content from the next.
    let tag = format!(
        "\"{:x}-{:x}.{:x}-{:x}\"",
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len()
    );
    Ok(OpenedFile { length: metadata.len(), file, tag })
}

fn send_file(
    mut stream: &TcpStream,
    status: &str,
    headers: &str,
    opened: &mut OpenedFile,
    part: Range<u64>,
    request: &Request,
) -> io::Result<()> {
    let length = part.end - part.start;
    let connection = connection_header(request);
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nContent-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\n{connection}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if request.method == Method::Head {
        return Ok(());
    }
    opened.file.seek(SeekFrom::Start(part.start))?;
    let sent = io::copy(&mut Read::by_ref(&mut opened.file).take(length), &mut stream)?;
    // A file that was cut short meanwhile: only the connection's end tells the client.
    if sent == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn send_empty(mut stream: &TcpStream, status: &str, headers: &str, request: &Request) -> io::Result<()> {
    let connection = connection_header(request);
    stream
        .write_all(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n{connection}\r\n").as_bytes())
}

/// Persistence is the default of HTTP/1.1.
fn connection_header(request: &Request) -> &'static str {
    if request.keeps_connection { "" } else { "Connection: close\r\n" }
}

fn send_error(mut stream: &TcpStream, error: RequestError) -> io::Result<()> {
    let text = format!("{error}\n");
    let length = text.len();
    let allow = if error == RequestError::Method { "Allow: GET, HEAD\r\n" } else { "" };
    stream.write_all(
        format!(
            "HTTP/1.1 {}\r\n{allow}Content-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}",
            error.status()
        )
        .as_bytes(),
    )?;
    // To close a socket with unread bytes resets the connection, and the client would lose the answer with it
    // (RFC 9112, 9.6). What a client still sends after its mistake is read for a moment and thrown away.
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER_TIMEOUT))?;
    io::copy(&mut stream.take(MAX_HEAD), &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests;
