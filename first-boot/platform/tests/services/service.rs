//! A metadata service on the loop-back interface that answers honestly or misbehaves as told.

use std::{
    collections::HashSet,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How the service behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers every request at once.
    Good,
    /// Takes the request and never answers.
    Hangs,
    /// Sends the body a byte at a time.
    Slow,
    /// Has nothing at any address.
    Empty,
    /// Refuses the first request to each address with 401, then answers.
    Unauthorized,
    /// Asks for patience once per address.
    Busy,
    /// Fails once per address.
    Fails,
    /// Closes the connection in the middle of the first body from each address.
    BreaksOff,
    /// Sends documents that stop in the middle but look complete to HTTP.
    Truncates,
    /// Announces 10 GiB and sends them.
    Huge,
    /// Sends an endless chunked body.
    Endless,
    /// Answers everything with a web page.
    Portal,
}

/// One address of the service and what is there.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) body: Vec<u8>,
    /// A header that the request must carry, or it gets 401.
    pub(crate) wants: Option<(&'static str, &'static str)>,
}

/// A running service.
pub(crate) struct Service {
    /// Such as `http://127.0.0.1:34567`.
    pub(crate) base: String,
    seen: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
}

struct State {
    routes: Vec<Route>,
    manner: Manner,
    refused: Mutex<HashSet<String>>,
    seen: Arc<Mutex<Vec<String>>>,
}

/// An address where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

impl Service {
    /// Listens on `address`, such as `127.0.0.1:0`.
    pub(crate) fn start(address: &str, routes: Vec<Route>, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let state = Arc::new(State { routes, manner, refused: Mutex::default(), seen: Arc::clone(&seen) });
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&state);
                thread::spawn(move || state.serve(stream));
            }
        });
        Self { base, seen, stopped }
    }

    /// Gives the address back, so that the next service can listen on it.
    pub(crate) fn stop(self) {
        self.stopped.store(true, Ordering::SeqCst);
        let port = self.base.rsplit(':').next().unwrap();
        drop(
            TcpStream::connect(format!("[::1]:{port}"))
                .or_else(|_| TcpStream::connect(format!("127.0.0.1:{port}"))),
        );
        while TcpListener::bind(self.base.trim_start_matches("http://")).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Every request so far, as `GET /path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl State {
    /// A client that goes away in the middle is none of our business.
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        stream.set_nodelay(true).unwrap();
        while let Ok(Some(request)) = read_request(&mut reader) {
            if self.answer(&mut stream, &request).is_err() {
                return;
            }
        }
    }

    fn answer(&self, stream: &mut TcpStream, request: &Request) -> io::Result<()> {
        let key = format!("{} {}", request.method, request.path);
        self.seen.lock().unwrap().push(key.clone());
        let first_time = self.refused.lock().unwrap().insert(key);
        let route = self.routes.iter().find(|one| one.method == request.method && one.path == request.path);
        let body = route.map(|route| route.body.as_slice());
        let denied =
            route.and_then(|route| route.wants).is_some_and(|(name, value)| !request.has(name, value));
        match (self.manner, body) {
            (Manner::Hangs, _) => loop {
                thread::sleep(Duration::from_hours(1));
            },
            (Manner::Empty, _) => reply(stream, "404 Not Found", b"no such thing"),
            (Manner::Portal, _) => reply(stream, "200 OK", b"<html><body>Please log in</body></html>"),
            (Manner::Huge, _) => flood(stream, "Content-Length: 10737418240", false),
            (Manner::Endless, _) => flood(stream, "Transfer-Encoding: chunked", true),
            (Manner::Unauthorized, _) if first_time && request.method == "GET" => {
                reply(stream, "401 Unauthorized", b"token expired")
            }
            (Manner::Busy, _) if first_time => reply(stream, "429 Too Many Requests\r\nRetry-After: 0", b""),
            (Manner::Fails, _) if first_time => reply(stream, "500 Internal Server Error", b"oops"),
            _ if denied => reply(stream, "401 Unauthorized", b"no token"),
            (_, None) => reply(stream, "404 Not Found", b"no such thing"),
            (Manner::Slow, Some(body)) => drip(stream, body),
            (Manner::BreaksOff, Some(body)) if first_time && body.len() > 1 => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
                stream.write_all(&body[..body.len() / 2])?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            (Manner::Truncates, Some(body)) => reply(stream, "200 OK", &body[..body.len() / 2]),
            (_, Some(body)) => reply(stream, "200 OK", body),
        }
    }
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn has(&self, name: &str, value: &str) -> bool {
        self.headers.iter().any(|(known, given)| known.eq_ignore_ascii_case(name) && given == value)
    }
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(Some(Request { method, path, headers }))
}

fn reply(stream: &mut TcpStream, status: &str, body: &[u8]) -> io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)
}

fn drip(stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len().max(1000))?;
    for byte in body {
        stream.write_all(&[*byte])?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn flood(stream: &mut TcpStream, header: &str, chunked: bool) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\n{header}\r\n\r\n")?;
    let block = vec![b'x'; 1 << 16];
    loop {
        if chunked {
            write!(stream, "10000\r\n")?;
        }
        stream.write_all(&block)?;
        if chunked {
            write!(stream, "\r\n")?;
        }
    }
}
