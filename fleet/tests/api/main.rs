//! The HTTP API, request by request and byte by byte, as clients of the original see it.
#![expect(clippy::disallowed_methods, reason = "tests run programs and wait for them")]
#![expect(clippy::format_push_string, reason = "a transcript is put together line by line")]
#![expect(clippy::unwrap_used, reason = "what prepares a test may fail it too")]

/// Who is slow, many or a web page gets nowhere, and hinders nobody.
mod abuse;
/// Whatever a client sends, it gets an answer.
mod any_request;
/// Locks, drains and slots of machines that restart.
mod reboots;
#[path = "../support/mod.rs"]
mod support;
/// The stream of changes.
mod watch;

use fleet::store::registry::{Registry, StoreHealth};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use support::{Options, Server, three_machines};

/// How long to wait for what must come; the host may starve.
const PATIENCE: Duration = Duration::from_mins(5);
const HELLO: &str = r#"{"name":"hello.service","options":[{"section":"Service","name":"ExecStart","value":"/bin/sh -c \"a && b\""}]}"#;

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it did not happen in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn idle() -> Server {
    Server::with(three_machines(), Options { idle: true, ..Options::default() })
}

fn error(code: u16, message: &str) -> String {
    serde_json::json!({ "error": { "code": code, "message": message } }).to_string()
}

#[test]
fn every_answer_names_the_server_and_its_kind() {
    let server = idle();

    for path in ["/fleet/v1/units", "/v1-alpha/machines", "/nowhere", "/fleet/v1/discovery"] {
        let answer = server.get(path);
        assert_eq!(answer.headers["server"], concat!("fleetd/", env!("CARGO_PKG_VERSION")), "{path}");
        assert_eq!(answer.headers["content-type"], "application/json", "{path}");
    }
}

#[test]
fn paths_that_are_none_are_refused_as_ever() {
    let server = idle();

    for path in ["/", "/fleet/v1", "/v1-alpha"] {
        assert_eq!(server.get(path).both(), (405, error(405, "").as_str()), "{path}");
    }
    for path in
        ["/nowhere", "/fleet/v1/nowhere", "/fleet/v2/units", "/fleet/v1/units/a/b", "/fleet/v1/units/"]
    {
        assert_eq!(server.get(path).both(), (404, error(404, "").as_str()), "{path}");
    }
}

#[test]
fn wrong_methods_are_told_the_right_ones() {
    let server = idle();
    let refusals = [
        ("POST", "/fleet/v1/units", "only GET supported against this resource"),
        ("POST", "/fleet/v1/units/a.service", "only GET, PUT and DELETE supported against this resource"),
        ("PUT", "/fleet/v1/state", "only GET supported against this resource"),
        ("DELETE", "/fleet/v1/state/a.service", "only GET supported against this resource"),
        ("PUT", "/fleet/v1/machines", "only GET and PATCH supported against this resource"),
        ("POST", "/fleet/v1/watch", "only GET supported against this resource"),
    ];

    for (method, path, message) in refusals {
        assert_eq!(
            server.raw(method, path, &[], "").both(),
            (405, error(405, message).as_str()),
            "{method} {path}"
        );
    }
    let message = "only HTTP GET supported against this resource";
    assert_eq!(server.raw("PUT", "/fleet/v1/discovery", &[], "").both(), (400, error(400, message).as_str()));
}

#[test]
fn empty_collections_are_empty_objects() {
    let server =
        Server::with(fleet::store::cluster::Cluster::default(), Options { idle: true, ..Options::default() });

    for path in ["/fleet/v1/units", "/fleet/v1/state", "/fleet/v1/machines"] {
        assert_eq!(server.get(path).both(), (200, "{}"), "{path}");
    }
}

#[test]
fn a_unit_lives_and_dies_by_put_and_delete() {
    let server = idle();
    let path = "/fleet/v1/units/hello.service";

    assert_eq!(server.get(path).both(), (404, error(404, "unit does not exist").as_str()));
    assert_eq!(server.put(path, HELLO).both(), (201, ""));
    let options =
        r#""options":[{"name":"ExecStart","section":"Service","value":"/bin/sh -c \"a \u0026\u0026 b\""}]"#;
    let unit = |desired: &str| {
        format!(
            r#"{{"currentState":"inactive","desiredState":"{desired}","name":"hello.service",{options}}}"#
        )
    };
    assert_eq!(server.get(path).both(), (200, unit("inactive").as_str()));
    assert_eq!(server.put(path, r#"{"desiredState":"launched"}"#).both(), (204, ""));
    assert_eq!(server.get(path).both(), (200, unit("launched").as_str()));
    assert_eq!(
        server.get("/fleet/v1/units").both(),
        (200, format!(r#"{{"units":[{}]}}"#, unit("launched")).as_str())
    );
    // The same text again changes nothing and is no text at all.
    let message = "must provide DesiredState to update existing unit";
    assert_eq!(server.put(path, HELLO).both(), (409, error(409, message).as_str()));
    // Another text replaces it, and takes the wanted state back unless one is given.
    assert_eq!(server.put(path, &HELLO.replace("a && b", "c")).both(), (201, ""));
    assert!(server.get(path).body.contains(r#""desiredState":"inactive""#));
    assert_eq!(server.raw("DELETE", path, &[], "").both(), (204, ""));
    assert_eq!(server.raw("DELETE", path, &[], "").both(), (404, error(404, "unit does not exist").as_str()));
}

#[test]
fn bodies_that_make_no_sense_are_refused_with_the_known_words() {
    let server = idle();
    let path = "/fleet/v1/units/hello.service";
    let option = |key: &str, value: &str| {
        format!(
            r#"{{"options":[{{"section":"X-Fleet","name":"{key}","value":"{value}"}},{{"section":"X-Fleet","name":"Global","value":"true"}}]}}"#
        )
    };
    let refusals = [
        (path, "{}".to_owned(), 409, "unit does not exist and options field empty"),
        (
            path,
            r#"{"name":"other.service"}"#.to_owned(),
            400,
            "name in URL \"hello.service\" differs from unit name in request body \"other.service\"",
        ),
        ("/fleet/v1/units/hello", HELLO.replace(".service", ""), 400, "unit name must contain \".\""),
        ("/fleet/v1/units/hello.txt", HELLO.replace(".service", ".txt"), 400, "invalid unit type: \"txt\""),
        (path, option("MachineID", "x"), 400, "MachineID cannot be used with Global"),
        (path, option("Replaces", "x"), 400, "Global cannot be used with Replaces"),
        (
            path,
            r#"{"desiredState":"asleep","options":[{"section":"S","name":"a","value":"b"}]}"#.to_owned(),
            400,
            "invalid value \"asleep\" for JobState",
        ),
        (
            "/fleet/v1/units/t@.service",
            r#"{"desiredState":"launched","options":[{"section":"S","name":"a","value":"b"}]}"#.to_owned(),
            400,
            "cannot activate template \"t@.service\"",
        ),
    ];

    for (path, body, status, message) in refusals {
        assert_eq!(server.put(path, &body).both(), (status, error(status, message).as_str()), "{body}");
    }
    let answer = server.put(path, "nonsense");
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("unable to decode body: "), "{}", answer.body);
    let smuggled = r#"{"options":[{"section":"Service","name":"a","value":"b\n[Install]\nWantedBy=x"}]}"#;
    assert_eq!(server.put(path, smuggled).status, 400);
    assert_eq!(server.get("/fleet/v1/units").body, "{}");
}

#[test]
fn a_body_must_say_once_that_it_is_json() {
    let server = idle();
    let path = "/fleet/v1/units/hello.service";
    let send = |headers: &[(&str, &str)]| server.raw("PUT", path, headers, HELLO);
    let json = ("Content-Type", "application/json");

    let none = error(415, "expected 1 Content-Type, got 0");
    assert_eq!(send(&[]).both(), (415, none.as_str()));
    let two = error(415, "expected 1 Content-Type, got 2");
    assert_eq!(send(&[json, json]).both(), (415, two.as_str()));
    let other = error(415, "only acceptable Content-Type is application/json");
    assert_eq!(send(&[("Content-Type", "text/plain")]).both(), (415, other.as_str()));
    assert_eq!(send(&[("Content-Type", "application/json; charset=utf-8")]).status, 201);
}

#[test]
fn a_body_beyond_bounds_is_refused_unread() {
    let server = idle();
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();

    let head = "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    stream.write_all(format!("{head}Content-Length: 1000000000000\r\n\r\n").as_bytes()).unwrap();
    let chunk = vec![b' '; 1024 * 1024];
    // The server may hang up in the middle, which is the point.
    for _ in 0..6 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);

    assert_eq!(line, "HTTP/1.1 413 Payload Too Large\r\n");
    assert_eq!(server.get("/fleet/v1/units").status, 200);
}

#[test]
fn lists_are_cut_into_pages() {
    let server =
        Server::with(three_machines(), Options { token_limit: Some(2), idle: true, ..Options::default() });

    let first = server.get("/fleet/v1/machines");
    assert!(first.body.ends_with(r#""nextPageToken":"AgACAA=="}"#), "{}", first.body);
    let second = server.get("/fleet/v1/machines?nextPageToken=AgACAA==");
    assert_eq!(
        second.body,
        format!(
            r#"{{"machines":[{{"id":"{}","metadata":{{"disk":"ssd","zone":"west"}},"primaryIP":"10.0.0.3"}}]}}"#,
            "c".repeat(32)
        )
    );
    let refusals = [
        ("EwBMLg==", "token limit must be 2"),
        ("AgAAAA==", "token page must be greater than zero"),
        ("AgACAA==&nextPageToken=AgACAA==", "too many values for page token"),
    ];
    for path in ["/fleet/v1/units", "/fleet/v1/state", "/fleet/v1/machines"] {
        for (token, message) in refusals {
            let answer = server.get(&format!("{path}?nextPageToken={token}"));
            assert_eq!(answer.both(), (400, error(400, message).as_str()), "{path}");
        }
    }
    assert_eq!(server.get("/fleet/v1/machines?alt=json&nextPageToken=AgAFAA==").body, "{}");
}

#[test]
fn states_are_filtered_by_machine_and_unit() {
    let server = Server::start();
    for name in ["a.service", "b.service"] {
        let body = r#"{"desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}"#;
        assert_eq!(server.put(&format!("/fleet/v1/units/{name}"), body).status, 201);
    }
    until(|| server.get("/fleet/v1/state").body.matches("\"active\"").count() == 2);

    let state = server.get("/fleet/v1/state/a.service");
    let (a, b) = ("a".repeat(32), "b".repeat(32));
    let hash = "b5636648516e51ad1da551a3cc60d95cdde97e60";
    assert_eq!(state.status, 200);
    assert!(state.body.contains(&format!(r#""machineID":"{a}","name":"a.service","systemdActiveState":"active","systemdLoadState":"loaded","systemdSubState":"running""#)), "{}", state.body);
    assert!(!state.body.contains(hash));
    let names = |path: &str| {
        let body = server.get(path).body;
        ["a.service", "b.service"].into_iter().filter(|name| body.contains(name)).collect::<Vec<_>>()
    };
    assert_eq!(names("/fleet/v1/state?unitName=a.service"), ["a.service"]);
    assert_eq!(names(&format!("/fleet/v1/state?machineID={b}")), ["b.service"]);
    assert!(names(&format!("/fleet/v1/state?machineID={b}&unitName=a.service")).is_empty());
    assert_eq!(names("/fleet/v1/state?machineID=&unitName="), ["a.service", "b.service"]);
    let unknown = server.get("/fleet/v1/state/unknown.service");
    assert_eq!(unknown.both(), (404, error(404, "unit state does not exist").as_str()));
}

#[test]
fn labels_are_patched_all_or_none() {
    let server = idle();
    let a = "a".repeat(32);
    let patch = |body: &str| server.raw("PATCH", "/fleet/v1/machines", &[], body);
    let operation =
        |op: &str, path: &str, value: &str| format!(r#"{{"op":"{op}","path":"{path}","value":{value}}}"#);
    let path = |key: &str| format!("/{a}/metadata/{key}");

    let both = format!(
        "[{},{}]",
        operation("add", &path("x"), r#"{"value":"1"}"#),
        operation("replace", &path("zone"), r#""mars""#)
    );
    let answer = patch(&both);
    assert_eq!((answer.both(), answer.headers["content-type"].as_str()), ((204, ""), "application/json"));
    let labels =
        || server.registry.read(|cluster| cluster.machines.values().next().unwrap().metadata.clone());
    assert_eq!((labels()["x"].as_str(), labels()["zone"].as_str()), ("1", "mars"));
    assert_eq!(patch(&format!("[{}]", operation("remove", &path("x"), "null"))).status, 204);
    assert!(!labels().contains_key("x"));

    let good = operation("add", &path("y"), r#""1""#);
    let refusals = [
        (operation("move", &path("k"), r#""v""#), "invalid op: expect add, remove, or replace"),
        (operation("add", "/m/labels/k", r#""v""#), "machine metadata path invalid"),
        (operation("add", "/m/metadata/k/l", r#""v""#), "machine metadata path invalid"),
        (operation("add", "/m/metadata/k%20", r#""v""#), "machine metadata path invalid"),
        (operation("add", &path("k"), "null"), "invalid value: add and replace require a value"),
        (
            operation("replace", &path("k"), r#"{"value":""}"#),
            "invalid value: add and replace require a value",
        ),
    ];
    for (bad, message) in refusals {
        assert_eq!(patch(&format!("[{good},{bad}]")).both(), (400, error(400, message).as_str()));
    }
    assert!(!labels().contains_key("y"), "nothing is done if one thing cannot be done");
}

#[test]
fn without_the_store_everything_but_health_is_503() {
    let server = idle();
    server.registry.set_health(StoreHealth::StoreLost("etcd is silent".to_owned()));

    let message = error(503, "fleet server unable to communicate with etcd");
    for path in ["/fleet/v1/units", "/v1-alpha/machines", "/", "/nowhere"] {
        assert_eq!(server.get(path).both(), (503, message.as_str()), "{path}");
    }
    let health = server.get("/fleet/v1/health");
    assert_eq!(health.status, 503);
    assert!(health.body.contains("etcd is silent"), "{}", health.body);
    assert!(server.get("/metrics").body.contains("fleet_api_available 0\n"));

    server.registry.set_health(StoreHealth::Serving);
    assert_eq!(server.get("/health").status, 200);
    assert!(server.get("/metrics").body.contains("fleet_api_available 1\n"));
}

#[test]
fn metrics_tell_of_the_cluster() {
    let server = idle();
    server.put("/fleet/v1/units/hello.service", HELLO);

    let answer = server.get("/metrics");

    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "fleet_machines 3",
        "fleet_units{desired=\"inactive\"} 1",
        "fleet_api_requests_total{code=\"2xx\"} 1",
    ] {
        assert!(answer.body.lines().any(|each| each == line), "{line} in {}", answer.body);
    }
    for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn the_discovery_document_describes_what_is_served() {
    let server = idle();
    let document: serde_json::Value = serde_json::from_str(&server.get("/fleet/v1/discovery").body).unwrap();

    assert_eq!(document["rootUrl"], "$ENDPOINT/");
    assert_eq!(document["servicePath"], "fleet/v1/");
    for (resource, methods) in document["resources"].as_object().unwrap() {
        for (name, method) in methods["methods"].as_object().unwrap() {
            let path = method["path"].as_str().unwrap().replace("{unitName}", "a.service");
            let answer =
                server.raw(method["httpMethod"].as_str().unwrap(), &format!("/fleet/v1/{path}"), &[], "");
            assert_ne!(answer.status, 405, "{resource}.{name}");
        }
    }
}
