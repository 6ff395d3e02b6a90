//! The HTTP API, request by request and byte by byte, as clients of the original see it.
#![expect(clippy::disallowed_methods, reason = "tests run programs and wait for them")]
#![expect(clippy::format_push_string, reason = "a transcript is put together line by line")]
#![expect(clippy::unwrap_used, reason = "what prepares a test may fail it too")]

#[path = "../support/mod.rs"]
mod support;

use fleet::lock::RebootLocks;
use fleet::lock::semaphore::GroupName;
use fleet::model::state::JobState;
use fleet::store::registry::{Health, Registry};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use support::{Options, Server, three_machines};

/// How long to wait for what must come; the host may starve.
const PATIENCE: Duration = Duration::from_mins(5);
const HELLO: &str = r#"{"name":"hello.service","options":[{"section":"Service","name":"ExecStart","value":"/bin/sh -c \"a && b\""}]}"#;

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
    assert!(!labels().contains_key("y"), "nothing is done if one thing can't be done");
}

#[test]
fn without_the_store_everything_but_health_is_503() {
    let server = idle();
    server.registry.set_health(Health::StoreLost("etcd is silent".to_owned()));

    let message = error(503, "fleet server unable to communicate with etcd");
    for path in ["/fleet/v1/units", "/v1-alpha/machines", "/", "/nowhere"] {
        assert_eq!(server.get(path).both(), (503, message.as_str()), "{path}");
    }
    let health = server.get("/fleet/v1/health");
    assert_eq!(health.status, 503);
    assert!(health.body.contains("etcd is silent"), "{}", health.body);
    assert!(server.get("/metrics").body.contains("fleet_api_available 0\n"));

    server.registry.set_health(Health::Serving);
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

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it did not happen in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Opens a watch; the events as pairs of kind and data.
fn watch(server: &Server, query: &str) -> impl Iterator<Item = (String, String)> + use<> {
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("GET /fleet/v1/watch{query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    std::iter::from_fn(move || {
        let kind = lines.find_map(|line| line.strip_prefix("event: ").map(str::to_owned))?;
        let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned))?;
        Some((kind, data))
    })
}

#[test]
fn a_watch_tells_what_changes() {
    let server = idle();
    let mut all = watch(&server, "");
    let mut one = watch(&server, "?unit=hello.service");
    assert_eq!(all.next().unwrap().0, "ready");
    assert_eq!(one.next().unwrap().0, "ready");

    server.put("/fleet/v1/units/other.service", &HELLO.replace("hello", "other"));
    server.put("/fleet/v1/units/hello.service", HELLO);
    server.raw("DELETE", "/fleet/v1/units/hello.service", &[], "");
    server.raw("PUT", &format!("/fleet/v1/machines/{}/drain", "a".repeat(32)), &[], "");

    let unit =
        |name: &str| format!(r#"{{"currentState":"inactive","desiredState":"inactive","name":"{name}"}}"#);
    let kinds: Vec<_> = all.by_ref().take(4).collect();
    assert_eq!(kinds[0], ("unit".to_owned(), unit("other.service")));
    assert_eq!(kinds[2], ("unit-removed".to_owned(), r#"{"name":"hello.service"}"#.to_owned()));
    assert!(kinds[3].0 == "machine" && kinds[3].1.contains(r#""draining":true"#), "{kinds:?}");
    // What was overtaken is told as it is by now.
    let (kind, _) = one.next().unwrap();
    assert!(kind == "unit" || kind == "unit-removed");
    assert_eq!(one.next().unwrap(), ("unit-removed".to_owned(), r#"{"name":"hello.service"}"#.to_owned()));
}

#[test]
fn a_slow_watcher_is_told_to_look_at_everything() {
    let server = idle();
    let mut slow = watch(&server, "");
    assert_eq!(slow.next().unwrap().0, "ready");

    let machine = three_machines().machines.keys().next().unwrap().clone();
    for round in 0..20_000 {
        let change = fleet::store::registry::Change::Machine(machine.clone());
        server.registry.edit(&change, |cluster| {
            cluster.machines.values_mut().next().unwrap().public_ip = round.to_string();
        });
    }

    assert!(slow.any(|(kind, _)| kind == "reset"), "it was told everything, however late");
}

#[test]
fn who_wants_to_reboot_asks_first() {
    let server = idle();
    let ask = |path: &str, headers: &[(&str, &str)], body: &str| server.raw("POST", path, headers, body);
    let protocol = [("fleet-lock-protocol", "true")];
    let client = |id: &str, group: &str| format!(r#"{{"client_params":{{"id":"{id}","group":"{group}"}}}}"#);
    let kind = |answer: &support::Answer| {
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body["kind"].as_str().unwrap().to_owned())
    };

    assert_eq!(ask("/v1/pre-reboot", &protocol, &client("m1", "default")).both(), (200, ""));
    assert_eq!(ask("/v1/pre-reboot", &protocol, &client("m1", "default")).status, 200, "again, without harm");
    let full = ask("/v1/pre-reboot", &protocol, &client("m2", "default"));
    assert_eq!(kind(&full), (423, "failed_lock".into()));
    assert!(
        full.body.contains("all 1 semaphore slots of group default are currently locked by m1"),
        "{}",
        full.body
    );
    assert_eq!(ask("/v1/pre-reboot", &protocol, &client("m2", "workers")).status, 200, "another group");
    assert_eq!(ask("/v1/steady-state", &protocol, &client("m3", "default")).status, 200, "not held, no harm");
    assert_eq!(ask("/v1/steady-state", &protocol, &client("m1", "default")).status, 200);
    assert_eq!(ask("/v1/pre-reboot", &protocol, &client("m2", "default")).status, 200);

    assert_eq!(kind(&ask("/v1/pre-reboot", &[], &client("m1", "default"))), (400, "missing_header".into()));
    assert_eq!(kind(&ask("/v1/pre-reboot", &protocol, "{}")), (400, "decode_error".into()));
    assert_eq!(
        kind(&ask("/v1/pre-reboot", &protocol, &client("", "default"))),
        (400, "invalid_client_identity".into())
    );
    assert_eq!(
        kind(&ask("/v1/pre-reboot", &protocol, &client("m", "a b"))),
        (400, "invalid_client_identity".into())
    );
    assert_eq!(
        kind(&server.raw("GET", "/v1/steady-state", &protocol, "")),
        (405, "method_not_allowed".into())
    );
}

#[test]
fn a_machine_with_a_slot_is_emptied_and_filled_again() {
    let server = Server::with(three_machines(), Options { drain_on_lock: true, ..Options::default() });
    let a = "a".repeat(32);
    let body = r#"{"desiredState":"launched","options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]}"#;
    server.put("/fleet/v1/units/a.service", body);
    until(|| server.get("/fleet/v1/state/a.service").body.contains(&a));
    let ask = |path: &str| {
        let body = format!(r#"{{"client_params":{{"id":"{a}","group":"default"}}}}"#);
        server.raw("POST", path, &[("fleet-lock-protocol", "true")], &body).status
    };
    let draining = || server.registry.read(|cluster| cluster.machines.values().next().unwrap().draining);

    assert_eq!(ask("/v1/pre-reboot"), 200);
    assert!(draining());
    let elsewhere = server.registry.read(|cluster| {
        cluster.target("a.service").is_none_or(|machine| machine.as_str() != a)
            && cluster
                .all_states()
                .all(|state| state.machine.as_str() != a || state.job != JobState::Launched)
    });
    assert!(elsewhere, "200 means that nothing runs there any more");
    assert_eq!(ask("/v1/steady-state"), 200);
    assert!(!draining());
    assert_eq!(ask("/v1/steady-state"), 200);
}

#[test]
fn slots_are_seen_and_set_by_people() {
    let server = idle();

    assert_eq!(server.get("/fleet/v1/locks").both(), (200, "{}"));
    assert_eq!(server.get("/fleet/v1/locks/default").body, r#"{"available":1,"group":"default","max":1}"#);
    assert_eq!(
        server.put("/fleet/v1/locks/default", r#"{"max":2}"#).both(),
        (200, r#"{"max":2,"oldMax":1}"#)
    );
    assert_eq!(server.put("/fleet/v1/locks/default/holders/m1", r#"{"reason":"disk"}"#).both(), (204, ""));
    assert_eq!(
        server.get("/fleet/v1/locks").body,
        r#"{"groups":[{"available":1,"group":"default","holders":[{"id":"m1","reason":"disk","since":1700000000}],"max":2}]}"#
    );
    assert_eq!(server.raw("DELETE", "/fleet/v1/locks/default/holders/m1", &[], "").status, 204);
    let gone = server.raw("DELETE", "/fleet/v1/locks/default/holders/m1", &[], "");
    assert_eq!(gone.both(), (404, error(404, "holder does not exist").as_str()));
    assert_eq!(server.put("/fleet/v1/locks/a%20b", r#"{"max":2}"#).status, 400);
    let held = async { server.locks.group(&GroupName::default()).await.unwrap().holders.len() };
    assert_eq!(tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(held), 0);
}

#[test]
fn a_drain_of_nobody_is_refused() {
    let server = idle();

    let answer = server.raw("PUT", "/fleet/v1/machines/unknown/drain", &[], "{}");
    assert_eq!(answer.both(), (404, error(404, "machine does not exist").as_str()));
    assert_eq!(
        server.raw("DELETE", "/fleet/v1/machines/unknown/drain", &[], "").status,
        204,
        "to let it in is fine"
    );
    assert_eq!(server.raw("POST", "/fleet/v1/units/unknown.service/restart", &[], "{}").status, 404);
}

mod any_request {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

    fn path() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec![
            "/fleet/v1/units/a.service",
            "/fleet/v1/units/a@.service",
            "/fleet/v1/units/%2e%2e%2fx.service",
            "/fleet/v1/machines",
            "/fleet/v1/rebalance",
            "/fleet/v1/brake",
            "/fleet/v1/explain/a.service",
            "/fleet/v1/locks/default",
            "/fleet/v1/locks/default/holders/%00",
            "/fleet/v1/machines/a/drain",
            "/v1/pre-reboot",
            "/v1/steady-state",
            "/fleet/v1/state?unitName=%ff&machineID=&nextPageToken=ZAACAA==",
        ]);
        prop_oneof![3 => known.prop_map(str::to_owned), 1 => "/[!-~&&[^?#]]{0,30}"]
    }

    /// Bodies that are nearly right: that is where mistakes are.
    fn body() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("null".to_owned()),
            Just("\"launched\"".to_owned()),
            Just("\"X-Fleet\"".to_owned()),
            Just("[]".to_owned()),
            Just("{}".to_owned()),
            Just("1e999".to_owned()),
            "\"[ -~&&[^\"\\\\]]{0,12}\"",
        ];
        let key = prop::sample::select(vec![
            "name",
            "options",
            "desiredState",
            "section",
            "value",
            "op",
            "path",
            "maxMoves",
            "max",
            "client_params",
            "id",
            "group",
        ]);
        let object = prop::collection::vec((key, word), 0..5).prop_map(|pairs| {
            let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", pairs.join(","))
        });
        let nested = (object.clone(), object.clone())
            .prop_map(|(outer, inner)| outer.replace("[]", &format!("[{inner}]")).replace("{}", &inner));
        prop_oneof![2 => object.clone(), 2 => nested, 1 => object.prop_map(|each| format!("[{each}]")), 1 => "\\PC{0,60}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn gets_an_answer_that_can_be_read(method in "GET|PUT|POST|PATCH|DELETE|HEAD|BREW", path in path(), body in body()) {
            let headers = [("Content-Type", "application/json"), ("fleet-lock-protocol", "true")];
            let answer = SERVER.raw(&method, &path, &headers, &body);

            prop_assert!(answer.status < 500, "{} {} {}: {:?}", method, path, body, answer);
            if answer.status >= 400 && method != "HEAD" && !answer.body.is_empty() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&answer.body).is_ok(), "{:?}", answer);
            }
            // Whatever was taken can be read back and written to a disk.
            for unit in SERVER.registry.read(|cluster| cluster.units.values().cloned().collect::<Vec<_>>()) {
                let again = fleet::model::unit_file::UnitFile::parse(&unit.file.text()).map(|file| file.hash());
                prop_assert_eq!(again, Ok(unit.file.hash()));
            }
        }
    }
}
