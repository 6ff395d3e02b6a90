//! Stock members of etcd meet at our discovery service.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::discovery_service::DiscoveryService;
use cluster::discovery_service::http::serve_discovery;
use cluster::etcd_client::{CALL_PATIENCE, EtcdClient};

use crate::machine::has_etcd;

/// A member, gone when dropped.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(name: &str, url: &str, folder: &std::path::Path) -> (Member, String) {
    let client = format!("http://127.0.0.1:{}", free_port());
    let peer = format!("http://127.0.0.1:{}", free_port());
    let child = Command::new("etcd")
        .args(["--name", name, "--discovery", url, "--enable-v2", "--unsafe-no-fsync"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .arg("--data-dir")
        .arg(folder.join(name))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (Member(child), client)
}

#[test]
fn three_stock_members_form_a_cluster_at_our_service_and_the_fourth_is_a_proxy() {
    if !has_etcd() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let service = Arc::new(DiscoveryService::open_folder(&folder.path().join("tokens")).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || serve_discovery(&service, &listener));
    let url = ureq::get(format!("http://{address}/new?size=3")).call().unwrap();
    let url = url.into_body().read_to_string().unwrap();
    assert!(url.starts_with(&format!("http://{address}/")), "{url}");

    let members: Vec<_> = ["a", "b", "c"].map(|name| start(name, &url, folder.path())).into();

    let client = EtcdClient::new(None, CALL_PATIENCE).unwrap();
    let members_at = |endpoint: &str| {
        let start = Instant::now();
        loop {
            if let Ok(answer) = client.classic_get(endpoint, "members") {
                return answer["members"].as_array().map_or(0, Vec::len);
            }
            assert!(start.elapsed() < Duration::from_mins(2), "no members at {endpoint}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    for (_, endpoint) in &members {
        assert_eq!(members_at(endpoint), 3);
    }
    let (_proxy, endpoint) = start("d", &url, folder.path());
    assert_eq!(members_at(&endpoint), 3);
}
