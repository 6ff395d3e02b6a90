//! A cloud's metadata service: a table of pages on a port of this host, which the guest sees at 169.254.169.254.
//!
//! Knows as much HTTP as a metadata service needs; refuses to know any cloud. Invariant: a page that wants a
//! header is given to nobody who does not send it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// A page at `path`.
#[derive(Clone)]
pub(crate) struct Page {
    method: &'static str,
    path: &'static str,
    wants: Option<&'static str>,
    body: String,
}

impl Page {
    /// For everyone who asks.
    pub(crate) fn get(path: &'static str, body: impl Into<String>) -> Self {
        Self { method: "GET", path, wants: None, body: body.into() }
    }

    /// Asked for with this method.
    pub(crate) fn by(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    /// Only for who sends this header, `name: value` in small letters.
    pub(crate) fn wanting(self, header: &'static str) -> Self {
        Self { wants: Some(header), ..self }
    }
}

/// Serves the pages until this process ends, and returns the port.
pub(crate) fn serve(pages: Vec<Page>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let pages = pages.clone();
            // A guest that goes away in the middle is no concern of the service.
            thread::spawn(move || answer(&stream, &pages).ok());
        }
    });
    port
}

fn answer(mut stream: &TcpStream, pages: &[Page]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(stream.try_clone()?.take(64 << 10));
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let (status, body) = page(&lines, pages);
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn page<'p>(lines: &[String], pages: &'p [Page]) -> (&'static str, &'p str) {
    let mut words = lines.first().map_or("", String::as_str).split(' ');
    let asked = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some(page) = pages.iter().find(|page| (page.method, page.path) == asked) else {
        return ("404 Not Found", "");
    };
    let is_sent = |header: &str| lines.iter().any(|line| line.to_lowercase() == header);
    if page.wants.is_some_and(|header| !is_sent(header)) {
        return ("401 Unauthorized", "");
    }
    ("200 OK", &page.body)
}
