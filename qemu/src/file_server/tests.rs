//! The server over real sockets.

#![expect(clippy::disallowed_methods, reason = "the threads of a server end a moment after their clients")]

use std::fs;
use std::net::SocketAddr;

use super::*;

/// A directory with files and traps, served until the test's process ends.
fn serve() -> (tempfile::TempDir, SocketAddr) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("release/2.0.0")).unwrap();
    fs::write(folder.path().join("secret"), "not for guests").unwrap();
    fs::write(root.join("release/2.0.0/manifest"), "0123456789").unwrap();
    fs::write(root.join("big"), vec![b'x'; 3 << 20]).unwrap();
    std::os::unix::fs::symlink("release/2.0.0", root.join("latest")).unwrap();
    std::os::unix::fs::symlink("../secret", root.join("leak")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("absolute")).unwrap();
    nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = FileServer::serve_folder(&root, listener).unwrap();
    thread::spawn(|| server.serve_forever());
    (folder, address)
}

/// Sends `request`, which asks for the connection's end, and reads everything.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // A client that is sent away at once finds its request unread, which is a reset.
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(answer).unwrap(),
    }
}

fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n"))
}

#[test]
fn a_file_is_sent_whole_or_in_part() {
    let (_folder, address) = serve();

    let whole = get(address, "/release/2.0.0/manifest", "");
    let part = get(address, "/latest/manifest", "Range: bytes=3-5\r\n");
    let beyond = get(address, "/latest/manifest", "Range: bytes=10-\r\n");

    assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with("\r\n\r\n0123456789"), "{whole}");
    assert!(part.starts_with("HTTP/1.1 206 ") && part.ends_with("\r\n\r\n345"), "{part}");
    assert!(part.contains("\r\nContent-Range: bytes 3-5/10\r\n"), "{part}");
    assert!(beyond.starts_with("HTTP/1.1 416 ") && beyond.contains("bytes */10\r\n"), "{beyond}");
}

#[test]
fn a_head_has_the_length_and_no_bytes() {
    let (_folder, address) = serve();

    let answer = ask(address, "HEAD /big HTTP/1.0\r\n\r\n");

    assert!(answer.contains("Content-Length: 3145728\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn what_is_no_file_beneath_the_root_is_not_there() {
    let (_folder, address) = serve();
    for path in ["/nothing", "/leak", "/absolute", "/pipe", "/release", "/big/x", "/latest/../../secret"] {
        let answer = get(address, path, "");
        assert!(answer.starts_with("HTTP/1.1 40") && !answer.contains("guests"), "{path}: {answer}");
    }
}

#[test]
fn one_connection_serves_several_requests_and_ends_at_a_wrong_one() {
    let (_folder, address) = serve();
    let file = "GET /latest/manifest HTTP/1.1\r\n\r\n";

    let answers =
        ask(address, &format!("{file}GET /none HTTP/1.1\r\n\r\n{file}DELETE /big HTTP/1.1\r\n\r\n"));

    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "404", "200", "405"]);
    assert_eq!(answers.matches("0123456789").count(), 2);
}

#[test]
fn a_head_without_end_is_refused() {
    let (_folder, address) = serve();

    let answer = ask(address, &format!("GET /big HTTP/1.1\r\nX: {}", "y".repeat(8 << 10)));

    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn more_clients_than_it_has_threads_for_are_sent_away() {
    let (_folder, address) = serve();
    let mut silent: Vec<TcpStream> =
        (0..MAX_CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();

    let refused = get(address, "/latest/manifest", "");
    silent.clear();
    let mut answer = String::new();
    // The threads of the silent ones end a moment after their connections.
    for _ in 0..200 {
        answer = get(address, "/latest/manifest", "");
        if answer.starts_with("HTTP/1.1 200 ") {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }

    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_file_is_no_root() {
    let file = tempfile::NamedTempFile::new().unwrap();

    let error = FileServer::serve_folder(file.path(), TcpListener::bind("127.0.0.1:0").unwrap()).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
}
