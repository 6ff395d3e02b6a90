//! The way to the network, against a server on the loopback.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "this file is a test")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use first_boot::{RealWeb, WebClient, WebError};
use user_data::plan::step::Timeouts;
use user_data::secret::Secret;

/// Answers each connection with the next of these, and hands the requests over at the end.
fn server(answers: Vec<String>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let handle = thread::spawn(move || {
        let one = |answer: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            // A client that has seen enough may hang up.
            let _ = stream.write_all(answer.as_bytes());
            String::from_utf8_lossy(&request[..length]).into_owned()
        };
        answers.into_iter().map(one).collect()
    });
    (address, handle)
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn a_body_comes_whole_or_not_at_all() {
    let (url, server) = server(vec![answer("200 OK", "hello"), answer("200 OK", "hello")]);
    let web = RealWeb::default();

    assert_eq!(web.get(&url, &[], 5).unwrap(), b"hello");
    assert!(matches!(web.get(&url, &[], 4), Err(WebError::TooLarge { most: 4, .. })));
    server.join().unwrap();
}

#[test]
fn what_is_not_there_is_asked_for_once() {
    let (url, server) = server(vec![answer("404 Not Found", "")]);

    let error = RealWeb::default().get(&format!("{url}/a?token=secret"), &[], 5).unwrap_err();

    assert_eq!(error.to_string(), format!("{url}/a answered with status 404"));
    server.join().unwrap();
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let (url, server) = server(vec![answer("503 Busy", ""), answer("200 OK", "hello")]);

    assert_eq!(RealWeb::default().get(&url, &[], 5).unwrap(), b"hello");
    server.join().unwrap();
}

#[test]
fn a_redirect_is_followed_without_the_headers_that_were_given() {
    let moved = |to: &str| {
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let (store, store_server) = server(vec![moved("/second"), answer("200 OK", "hello")]);
    let (url, own_server) = server(vec![moved(&format!("{store}/first"))]);
    let headers = [("X-Token".to_owned(), Secret::new("secret".to_owned()))];

    let body = RealWeb::default().get(&url, &headers, 5).unwrap();

    assert_eq!(body, b"hello");
    assert!(own_server.join().unwrap()[0].to_lowercase().contains("x-token: secret"));
    let stored = store_server.join().unwrap();
    assert!(stored[0].starts_with("GET /first ") && stored[1].starts_with("GET /second "), "{stored:?}");
    assert!(stored.iter().all(|request| !request.to_lowercase().contains("x-token")), "{stored:?}");
}

#[test]
fn a_redirect_to_nowhere_is_reported_by_its_status() {
    let (url, server) =
        server(vec!["HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()]);
    let headers = [("X-Token".to_owned(), Secret::new("secret".to_owned()))];

    let error = RealWeb::default().get(&url, &headers, 5).unwrap_err();

    assert!(matches!(error, WebError::Status { status: 302, .. }), "{error}");
    server.join().unwrap();
}

/// Answers with an error whoever asks before the last request is as long ago.
fn throttled(least: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut last: Option<Instant> = Some(Instant::now());
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let is_early = last.replace(Instant::now()).is_some_and(|last| last.elapsed() < least);
            let said = if is_early { answer("500 Too often", "") } else { answer("200 OK", "hello") };
            let _ = stream.write_all(said.as_bytes());
        }
    });
    address
}

#[test]
fn a_server_that_turns_away_who_asks_often_is_asked_less_often() {
    let url = throttled(Duration::from_millis(700));

    assert_eq!(RealWeb::default().get(&url, &[], 5).unwrap(), b"hello");
}

#[test]
fn the_time_that_a_document_gives_is_kept() {
    let url = throttled(Duration::from_mins(1));
    let started = Instant::now();

    let timeouts = Timeouts { headers: None, total: Some(1) };
    let error = RealWeb::default().get_within(&url, &[], timeouts, 5).unwrap_err();

    assert!(matches!(error, WebError::Status { status: 500, .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_the_time_for_its_headers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());

    let timeouts = Timeouts { headers: Some(1), total: Some(1) };
    let error = RealWeb::default().get_within(&url, &[], timeouts, 5).unwrap_err();

    assert!(matches!(error, WebError::Unreachable { .. }), "{error}");
}

#[test]
fn facts_are_posted_as_a_form() {
    let (url, server) = server(vec![answer("200 OK", "")]);

    RealWeb::default().post(&url, &[("hostname".to_owned(), "a b".to_owned())], 1).unwrap();

    let request = server.join().unwrap().remove(0);
    assert!(request.starts_with("POST / HTTP/1.1"), "{request}");
    assert!(request.to_lowercase().contains("application/x-www-form-urlencoded"), "{request}");
}
