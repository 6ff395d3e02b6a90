use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use crate::support::{Server, three_machines};
use crate::{HELLO, PATIENCE, idle};

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
        let change = fleet::store::registry::ClusterChange::Machine(machine.clone());
        server.registry.edit_cluster(&change, |cluster| {
            cluster.machines.values_mut().next().unwrap().public_ip = round.to_string();
        });
    }

    assert!(slow.any(|(kind, _)| kind == "reset"), "it was told everything, however late");
}
