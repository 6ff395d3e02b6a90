//! One node, as its API shows it and the cluster.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Node, PATIENCE};

impl Node {
    /// Asks its API; returns the status and the body.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let socket = format!("/proc/{}/root/run/fleet.sock", self.init);
        ask(Path::new(&socket), method, path, body).unwrap_or((0, String::new()))
    }

    /// Reads from its API.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, None)
    }

    /// All of a collection, page by page.
    fn all(&self, what: &str, list: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let page: Value =
                serde_json::from_str(&self.get(&format!("/fleet/v1/{what}{token}")).1).unwrap_or(Value::Null);
            all.extend(page[list].as_array().cloned().unwrap_or_default());
            match page["nextPageToken"].as_str() {
                Some(next) => token = format!("?nextPageToken={next}"),
                None => return all,
            }
        }
    }

    /// The machines it sees.
    pub(crate) fn machines(&self) -> Vec<String> {
        self.all("machines", "machines").iter().map(|machine| text(&machine["id"])).collect()
    }

    /// The units it sees.
    pub(crate) fn units(&self) -> Vec<Value> {
        self.all("units", "units")
    }

    /// The states it sees.
    pub(crate) fn states(&self) -> Vec<Value> {
        self.all("state", "states")
    }

    /// Submits a unit in its API and sets what is wanted of it.
    pub(crate) fn put(&self, name: &str, file: &str, desired: &str) {
        let file = fleet::model::unit_file::UnitFile::parse(file).unwrap();
        let options: Vec<Value> = file
            .options()
            .iter()
            .map(|option| json!({"section": option.section, "name": option.name, "value": option.value}))
            .collect();
        self.put_body(name, &json!({"name": name, "desiredState": desired, "options": options}));
    }

    /// Sets what is wanted of a unit.
    pub(crate) fn set(&self, name: &str, desired: &str) {
        self.put_body(name, &json!({"name": name, "desiredState": desired}));
    }

    fn put_body(&self, name: &str, body: &Value) {
        self.order("PUT", &format!("/fleet/v1/units/{name}"), Some(body));
    }

    /// Gives an order, again while the node cannot reach the store, as a person would.
    pub(crate) fn order(&self, method: &str, path: &str, body: Option<&Value>) {
        let start = Instant::now();
        let mut failures = 0;
        loop {
            let (status, text) = self.request(method, path, body);
            // What an answer that was lost did before is done.
            if (200..300).contains(&status) || (failures > 0 && method == "DELETE" && status == 404) {
                return;
            }
            let unreachable = status == 0 || status >= 500;
            assert!(
                unreachable && start.elapsed() < PATIENCE,
                "{method} {path} on node {}: {status} {text}",
                self.number
            );
            failures += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Removes a unit.
    pub(crate) fn destroy(&self, name: &str) {
        self.order("DELETE", &format!("/fleet/v1/units/{name}"), None);
    }

    /// Which machine a unit is scheduled on, and how systemd calls it there, as this node sees it.
    pub(crate) fn place(&self, name: &str) -> Option<(usize, String)> {
        let unit: Value = serde_json::from_str(&self.get(&format!("/fleet/v1/units/{name}")).1).ok()?;
        let machine = text(&unit["machineID"]);
        let number = usize::from_str_radix(machine.get(..1)?, 16).ok()?;
        let states: Value = serde_json::from_str(
            &self.get(&format!("/fleet/v1/state?unitName={name}&machineID={machine}")).1,
        )
        .ok()?;
        Some((number, text(&states["states"][0]["systemdActiveState"])))
    }

    /// The node where a unit is active, by the word of the cluster.
    pub(crate) fn home(&self, name: &str) -> Option<usize> {
        self.place(name).filter(|(_, active)| active == "active").map(|(number, _)| number)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn ask(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    stream.shutdown(Shutdown::Both).ok();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        text.push_str(&rest[..size]);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    text
}
