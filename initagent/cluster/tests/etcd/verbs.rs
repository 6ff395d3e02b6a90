//! The verbs as a person types them, on a machine that is a cluster of one.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cluster::etcd::{LOCAL, Variables};
use cluster::etcd_client::{CALL_PATIENCE, ClientCredentials, EtcdClient, decode_bytes, encode_bytes};
use cluster::request::ClusterRequest;
use cluster::site::Site;
use serde_json::{Value, json};

use crate::machine::has_etcd;

/// etcd of the machine below a folder, as its unit starts it; gone when dropped.
struct Unit(Child);

impl Drop for Unit {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn run(root: &Path, words: &[&str]) -> Result<String, String> {
    let request = ClusterRequest::parse_words(words).unwrap();
    let answer = request.carry_out(root, &Variables::new(), &mut |_| {});
    answer.map(|answer| answer.text).map_err(|error| error.to_string())
}

fn start(root: &Path) -> Unit {
    run(root, &["prepare", "etcd"]).unwrap();
    let site = Site::at_root(root);
    let text = site.read(&site.runtime_path("etcd.env")).unwrap().unwrap();
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name, value.trim_matches('"').to_owned()));
    let data = root.join("var/lib/etcd/default");
    fs::create_dir_all(data.parent().unwrap()).unwrap();
    let child = Command::new("etcd")
        .envs(variables)
        .arg("--data-dir")
        .arg(&data)
        .arg("--unsafe-no-fsync")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let unit = Unit(child);
    await_that(|| run(root, &["status"]).unwrap().contains("etcd      healthy"));
    unit
}

fn await_that(check: impl Fn() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_mins(2), "it does not come");
        thread::sleep(Duration::from_millis(100));
    }
}

fn call(root: &Path, call: &str, arguments: &Value) -> Value {
    let credentials = ClientCredentials::of_machine(&Site::at_root(root)).unwrap().unwrap();
    let client = EtcdClient::new(Some(&credentials), CALL_PATIENCE).unwrap();
    client.call(&format!("https://{LOCAL}"), call, arguments).unwrap()
}

#[test]
fn a_machine_alone_is_backed_up_loses_its_disk_and_is_restored() {
    if !has_etcd() {
        return;
    }
    if TcpStream::connect(LOCAL).is_ok() {
        // Somebody's machine: the port belongs to the one etcd that it has.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let key = json!({ "key": encode_bytes(b"ship") });
    let unit = start(root);
    call(root, "kv/put", &json!({ "key": encode_bytes(b"ship"), "value": encode_bytes(b"ahoy") }));

    let status: Value = serde_json::from_str(&run(root, &["status", "--json"]).unwrap()).unwrap();
    assert_eq!(status["etcd"]["health"], "healthy");
    assert_eq!(status["etcd"]["members"][0]["role"], "leader");
    assert!(status["advice"][0].as_str().unwrap().contains("initagent cluster backup"), "{status}");
    assert!(run(root, &["restore"]).unwrap_err().contains("has a quorum"));
    assert!(run(root, &["replace", "10.0.0.9"]).unwrap_err().contains("no member"));
    assert!(run(root, &["access", "anna"]).unwrap_err().contains("no cluster"));
    let cared = run(root, &["maintain"]).unwrap();
    let backup = cared.strip_prefix("backup at ").unwrap().to_owned();
    assert!(!run(root, &["status"]).unwrap().contains("\ndo "), "{}", run(root, &["status"]).unwrap());

    drop(unit);
    fs::remove_dir_all(root.join("var/lib/etcd")).unwrap();
    fs::create_dir_all(root.join("var/lib/etcd")).unwrap();
    let down = run(root, &["status"]).unwrap();
    assert!(down.contains("no quorum") && down.contains("journalctl -u etcd"), "{down}");
    assert!(run(root, &["backup"]).unwrap_err().contains("no majority"));
    assert!(run(root, &["restore"]).unwrap_err().contains("name a backup"));
    let dry = run(root, &["restore", &backup, "--dry-run"]).unwrap();
    assert!(dry.contains("1 keys of version 3") && dry.contains("nothing was changed"), "{dry}");
    assert!(!root.join("var/lib/etcd/default").exists());
    run(root, &["restore", &backup]).unwrap();

    let _unit = start(root);
    let answer = call(root, "kv/range", &key);
    assert_eq!(decode_bytes(&answer["kvs"][0]["value"]), b"ahoy");
}
