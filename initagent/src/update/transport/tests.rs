use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

/// What one connection is answered: its request line and range come in, bytes go out.
pub(in super::super) type Answer = Box<dyn Fn(&str, Option<usize>, &mut TcpStream) + Send + Sync>;

/// A web server on loopback that answers as it is told to.
pub(in super::super) struct Server {
    pub(in super::super) address: String,
    pub(in super::super) requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(in super::super) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (line, range) = read_head(&stream);
                seen.lock().unwrap().push(format!("{line} {}", range.unwrap_or_default()));
                answer(&line, range, &mut stream);
            }
        });
        Self { address, requests }
    }

    fn mirrors(&self) -> Mirrors {
        mirrors(&[&self.address])
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

pub(in super::super) fn mirrors(addresses: &[&str]) -> Mirrors {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let direct = BTreeMap::from([("NO_PROXY".to_owned(), "*".to_owned())]);
    Mirrors { pause: Duration::from_millis(1), ..Mirrors::new(&addresses, &direct).unwrap() }
}

/// As callers do: one after the other.
fn fetch(mirrors: &Mirrors, path: &str, limit: u64) -> Option<(Vec<u8>, usize)> {
    (0..mirrors.count_mirrors()).find_map(|index| Some((mirrors.fetch_from(index, path, limit).ok()?, index)))
}

fn read_head(stream: &TcpStream) -> (String, Option<usize>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap_or_default);
    let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = None;
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
            range = value.trim_end_matches('-').parse().ok();
        }
    }
    (path, range)
}

pub(in super::super) fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
    // A client that has read enough hangs up.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

fn file() -> Vec<u8> {
    (0..100_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Case 1, and the flaky link: each byte is sent once, although every connection breaks.
#[test]
fn a_connection_that_breaks_goes_on_where_it_broke() {
    let sent = Arc::new(Mutex::new(0));
    let count = Arc::clone(&sent);
    let server = Server::start(Box::new(move |_, range, stream| {
        let start = range.unwrap_or(0);
        let end = (start + 30_000).min(100_000);
        let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-range: bytes {start}-99999/100000\r\ncontent-length: {}\r\n\r\n",
            100_000 - start
        );
        // Counted first: the client may be done before this thread goes on.
        *count.lock().unwrap() += end - start;
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&file()[start..end]).unwrap();
    }));

    let bytes = server.mirrors().fetch_from(0, "chunk/aa", 100_000).unwrap();

    assert!(bytes == file());
    assert_eq!(*sent.lock().unwrap(), 100_000);
    assert_eq!(server.count(), 4);
}

/// Case 6: ranges ignored, or shifted.
#[test]
fn a_server_without_ranges_sends_everything_again() {
    for (status, range) in
        [("200 OK", ""), ("206 Partial Content", "content-range: bytes 5-99999/100000\r\n")]
    {
        let server = Server::start(Box::new(move |_, asked, stream| match asked {
            None => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 100000\r\n\r\n")
                    .unwrap();
                stream.write_all(&file()[..10]).unwrap();
            }
            Some(_) => answer(stream, status, range, &file()),
        }));

        let fetched = server.mirrors().fetch_from(0, "x", 100_000);

        match status {
            "200 OK" => assert!(fetched.unwrap() == file()),
            _ => assert!(matches!(
                fetched,
                Err(FetchFileError::Answer { status: 206, .. } | FetchFileError::Unreachable { .. })
            )),
        }
    }
}

/// Case 2, and endless bodies: memory stays bounded, with or without a length that is said.
#[test]
fn a_body_is_never_longer_than_asked_for() {
    let long = Server::start(Box::new(|_, _, stream| answer(stream, "200 OK", "", &file())));
    let endless = Server::start(Box::new(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        while stream.write_all(&[0; 4096]).is_ok() {}
    }));
    for server in [long, endless] {
        let refused = server.mirrors().fetch_from(0, "channel/stable", 1000).unwrap_err();

        assert!(matches!(refused, FetchFileError::TooLong { limit: 1000, .. }), "{refused}");
        assert_eq!(server.count(), 1, "it is not asked again");
    }
}

#[test]
fn a_body_of_just_the_length_is_fine() {
    let server = Server::start(Box::new(|_, _, stream| answer(stream, "200 OK", "", b"1234")));

    assert_eq!(server.mirrors().fetch_from(0, "x", 4).unwrap(), b"1234");
}

/// Case 5: a server that is busy is asked again, one that says no is not.
#[test]
fn a_busy_server_is_asked_again_and_a_mirror_follows() {
    let busy = Server::start(Box::new(|_, _, stream| answer(stream, "503 Busy", "", b"")));
    let good = Server::start(Box::new(|_, _, stream| answer(stream, "200 OK", "", b"here")));
    let gone = Server::start(Box::new(|_, _, stream| answer(stream, "404 No", "", b"")));

    let mirrors = mirrors(&[&gone.address, &busy.address, &good.address]);

    assert_eq!(fetch(&mirrors, "x", 10).unwrap(), (b"here".to_vec(), 2));
    assert_eq!((gone.count(), busy.count(), good.count()), (1, 4, 1));
    assert!(mirrors.fetch_from(0, "x", 10).unwrap_err().is_missing());
}

#[test]
fn redirects_are_few_and_stay_on_the_web() {
    let loops = Server::start(Box::new(|path, _, stream| {
        let to = match path {
            "/file" => "file:///etc/shadow",
            "/loop" => "/loop",
            "/once" => "/here",
            "/here" => return answer(stream, "200 OK", "", b"here"),
            _ => "gopher://x/",
        };
        answer(stream, "302 Found", &format!("location: {to}\r\n"), b"");
    }));
    let mirrors = loops.mirrors();

    assert_eq!(mirrors.fetch_from(0, "once", 10).unwrap(), b"here");
    for path in ["file", "loop", "else"] {
        let refused = mirrors.fetch_from(0, path, 10).unwrap_err();
        assert!(matches!(refused, FetchFileError::Redirect { .. }), "{refused}");
    }
    assert!(loops.count() <= 2 + 1 + 4 + 1, "{}", loops.count());
    assert!(redirect_target("https://a/x", "http://a/x").is_err());
    assert_eq!(redirect_target("http://a/x", "https://b/y").unwrap(), "https://b/y");
    assert_eq!(redirect_target("https://a:1/x", "//b/y").unwrap(), "https://b/y");
}

#[test]
fn a_server_that_drips_is_cut_off() {
    let patience = Duration::from_millis(600);
    let server = Server::start(Box::new(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }));
    let config = Agent::config_builder().timeout_global(Some(patience)).build();
    let agent: Agent = config.into();
    let began = Instant::now();

    let read = agent.get(&server.address).call().and_then(|mut answer| answer.body_mut().read_to_vec());

    assert!(read.is_err(), "the time of a request covers its body");
    assert!(began.elapsed() < patience * 5);
    let longest = patience_for(48 << 10);
    assert!(longest < Duration::from_secs(30), "metadata costs half a minute at most");
}

/// Each connection brings a byte more, or the same bytes again: neither is progress.
#[test]
fn a_mirror_that_sends_a_byte_a_connection_is_given_up() {
    let server = Server::start(Box::new(|_, range, stream| {
        let start = range.unwrap_or(0);
        let head = format!(
            "HTTP/1.1 206 Part\r\nconnection: close\r\ncontent-range: bytes {start}-9/10\r\ncontent-length: 10\r\n\r\nx"
        );
        let head = if start == 0 { head.replace("206", "200") } else { head };
        let _ = stream.write_all(head.as_bytes());
    }));

    assert!(server.mirrors().fetch_from(0, "x", 1 << 20).is_err());

    assert_eq!(server.count(), 4);
}

#[test]
fn a_folder_is_a_mirror() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("channel")).unwrap();
    std::fs::write(folder.path().join("channel/stable"), "signed").unwrap();
    for address in [folder.path().display().to_string(), format!("file://{}", folder.path().display())] {
        let mirrors = mirrors(&[&address]);

        assert_eq!(fetch(&mirrors, "channel/stable", 6).unwrap().0, b"signed");
        assert!(matches!(mirrors.fetch_from(0, "channel/stable", 5), Err(FetchFileError::TooLong { .. })));
        assert!(mirrors.fetch_from(0, "channel/beta", 5).unwrap_err().is_missing());
    }
    assert!(fetch(&mirrors(&[]), "x", 1).is_none());
}

/// Case 9: the proxy of a file is used, and its password is in no message.
#[test]
fn a_proxy_from_a_file_is_asked() {
    let proxy = Server::start(Box::new(|_, _, stream| answer(stream, "200 OK", "", b"by proxy")));
    let address = proxy.address.replace("http://", "http://me:SEKRIT@");
    let settings = BTreeMap::from([
        ("HTTP_PROXY".to_owned(), address),
        ("NO_PROXY".to_owned(), "internal.invalid".to_owned()),
    ]);
    let mirrors = Mirrors::new(&["http://updates.invalid/c?token=SEKRIT".to_owned()], &settings).unwrap();
    let mirrors = Mirrors { pause: Duration::from_millis(1), ..mirrors };

    let fetched = mirrors.fetch_from(0, "x", 10);

    assert!(proxy.count() > 0, "{fetched:?}");
    assert!(!mirrors.mirror_name(0).contains("SEKRIT"));
}
