use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::api::access::AccessRole;
use fleet::api::listen::{self, TlsIdentity, TlsTexts};
use fleet::api::{ServedApi, api_router};
use fleet::store::memory::MemoryRegistry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::PATIENCE;
use crate::support::{MemoryLocks, on_thread, three_machines};

fn api() -> ServedApi<MemoryRegistry, MemoryLocks> {
    ServedApi::new(Arc::new(MemoryRegistry::new(three_machines())), Arc::new(MemoryLocks::default()))
}

fn socket() -> (std::net::TcpListener, SocketAddr) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

fn serve_tcp(access: AccessRole) -> SocketAddr {
    let (socket, at) = socket();
    on_thread(async move {
        let listener = TcpListener::from_std(socket).unwrap();
        let hosts = vec!["fleet.example".to_owned()];
        listen::serve_tcp(listener, api_router(api()), access, hosts, std::future::pending()).await.unwrap();
    });
    at
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The status of the answer to these bytes.
fn status(mut stream: TcpStream, request: &str) -> u16 {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn who_sends_half_a_head_or_nothing_is_closed_and_others_are_served_meanwhile() {
    let at = serve_tcp(AccessRole::Read);
    let start = Instant::now();
    let mut halves: Vec<TcpStream> = (0..300).map(|_| connect(at)).collect();
    let beginnings =
        ["GET /fleet/v1/units HTTP/1.1\r\nHost: 127", "", "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"];
    for (half, beginning) in halves.iter_mut().zip(beginnings.iter().cycle()) {
        // Some are closed already: they are more than their address may have.
        let _ = half.write_all(beginning.as_bytes());
    }

    // From another address; all of 127.0.0.0/8 is loopback.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let other = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
        socket.connect(at).await.unwrap().into_std().unwrap()
    });
    other.set_nonblocking(false).unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(status(other, &request("GET", "/fleet/v1/units", "Host: localhost\r\n", "")), 200);
    let served = start.elapsed();
    for mut half in halves {
        // A reset is an end, too.
        let _ = half.read_to_end(&mut Vec::new());
    }
    let closed = start.elapsed();
    assert!(served < closed, "served after {served:?}, all halves closed after {closed:?}");
    assert!(closed < Duration::from_secs(40), "closed after {closed:?}");
    assert_eq!(status(connect(at), &request("GET", "/fleet/v1/units", "Host: localhost\r\n", "")), 200);
}

/// Memory of this process in MiB: server and clients live in it.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

/// Sends all of a large body but the last byte, on so many connections.
fn send_large_bodies(at: SocketAddr) -> Vec<TcpStream> {
    let size = 4 * 1024 * 1024;
    let almost = vec![b' '; size - 1];
    let head = format!(
        "PUT /fleet/v1/units/a.service HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {size}\r\n\r\n"
    );
    let streams: Vec<TcpStream> = (0..60).map(|_| connect(at)).collect();
    for mut stream in &streams {
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        // The server stops reading, or closes, when it has read what it may.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&almost));
    }
    streams
}

#[test]
fn large_bodies_take_no_memory_to_speak_of() {
    let (readers, admins) = (serve_tcp(AccessRole::Read), serve_tcp(AccessRole::Admin));
    let before = resident();

    let refused = send_large_bodies(readers);
    let waiting = send_large_bodies(admins);

    let grown = resident().saturating_sub(before);
    assert!(grown < 120, "120 bodies of 4 MiB took {grown} MiB");
    // A reader learns that before it has sent 4 MiB, and the connection ends.
    for mut stream in refused {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 403"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    // Others have a turn all the same: small bodies wait for nobody.
    let unit = r#"{"desiredState":"inactive","options":[{"section":"S","name":"a","value":"b"}]}"#;
    let other = serve_small(admins, unit);
    assert_eq!(other, 201);
    drop(waiting);
}

fn serve_small(at: SocketAddr, unit: &str) -> u16 {
    let headers = format!("Host: localhost\r\n{JSON}");
    status(connect(at), &request("PUT", "/fleet/v1/units/small.service", &headers, unit))
}

/// What changes something, each with a body that would do.
const CHANGES: [(&str, &str, &str); 11] = [
    ("PUT", "/fleet/v1/units/a.service", r#"{"desiredState":"launched"}"#),
    ("DELETE", "/fleet/v1/units/a.service", "{}"),
    ("PATCH", "/fleet/v1/machines", "[]"),
    ("PUT", "/v1-alpha/units/a.service", r#"{"desiredState":"launched"}"#),
    ("POST", "/fleet/v1/units/a.service/restart", "{}"),
    ("POST", "/fleet/v1/rebalance", r#"{"maxMoves":1}"#),
    ("PUT", "/fleet/v1/machines/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/drain", "{}"),
    ("DELETE", "/fleet/v1/brake", "{}"),
    ("PUT", "/fleet/v1/locks/default", r#"{"max":2}"#),
    ("PUT", "/fleet/v1/locks/default/holders/m1", "{}"),
    ("POST", "/v1/pre-reboot", r#"{"client_params":{"id":"m1","group":"default"}}"#),
];

#[test]
fn a_web_page_changes_nothing() {
    let at = serve_tcp(AccessRole::Admin);
    let send = |method: &str, path: &str, headers: &str, body: &str| {
        status(connect(at), &request(method, path, headers, body))
    };
    for (method, path, body) in CHANGES {
        // A name that was rebound to our address, the page of such a name, a page that asks nobody.
        let rebound = format!("Host: evil.example\r\n{JSON}");
        assert_eq!(send(method, path, &rebound, body), 421, "{method} {path}");
        let page = format!("Host: localhost\r\nOrigin: http://evil.example\r\n{JSON}");
        assert_eq!(send(method, path, &page, body), 403, "{method} {path}");
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let simple = format!("Host: localhost\r\nContent-Type: {kind}\r\n");
            assert_eq!(send(method, path, &simple, body), 415, "{method} {path} {kind}");
        }
        assert_eq!(send(method, path, "Host: localhost\r\n", body), 415, "{method} {path} of no kind");
        if method == "POST" {
            assert_eq!(send(method, path, "Host: localhost\r\n", ""), 415, "{method} {path} without a body");
        }
        let allowed = send(method, path, &format!("Host: localhost\r\n{JSON}"), body);
        assert!(![403, 415, 421].contains(&allowed), "{method} {path}: {allowed}");
    }
}

#[test]
fn plain_tcp_answers_to_its_own_names_only() {
    let at = serve_tcp(AccessRole::Admin);
    let get = |headers: &str| status(connect(at), &request("GET", "/fleet/v1/machines", headers, ""));

    for host in
        ["127.0.0.1", &at.to_string(), "localhost:80", "domain-sock", "fleet.example:1", "FLEET.example"]
    {
        assert_eq!(get(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    for headers in
        ["", "Host: evil.example\r\n", "Host: localhost\r\nHost: evil.example\r\n", "Host: 10.1.2.3\r\n"]
    {
        assert_ne!(get(headers), 200, "{headers}");
    }
    assert_eq!(get("Host: localhost\r\nOrigin: null\r\n"), 403, "to read is refused, too");
    let absolute = request("GET", "http://evil.example/fleet/v1/machines", "Host: localhost\r\n", "");
    assert_eq!(status(connect(at), &absolute), 421);
    // What tools send that know no types: a unit is deleted without a body.
    assert_eq!(
        status(connect(at), &request("DELETE", "/fleet/v1/units/a.service", "Host: localhost\r\n", "")),
        404
    );
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, both PEM.
    fn sign(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A server in TLS: where it is, its authority, and those of admins and of machines that want to reboot.
struct TlsServer {
    at: SocketAddr,
    servers: Authority,
    admins: Authority,
    machines: Authority,
}

impl TlsServer {
    fn start() -> Self {
        let (servers, admins, machines) =
            (Authority::new("servers"), Authority::new("admins"), Authority::new("machines"));
        let (certificate, key) = servers.sign(&["localhost"]);
        let identity = TlsIdentity::read(&TlsTexts {
            certificate: certificate.as_bytes(),
            key: key.as_bytes(),
            admin_authority: admins.0.pem().as_bytes(),
            read_authority: None,
            lock_authority: Some(machines.0.pem().as_bytes()),
        })
        .unwrap();
        let (socket, at) = socket();
        on_thread(async move {
            let listener = TcpListener::from_std(socket).unwrap();
            listen::serve_tls(listener, api_router(api()), &identity, std::future::pending()).await.unwrap();
        });
        Self { at, servers, admins, machines }
    }

    /// What a client with this certificate gets for this request, and how long the handshake took.
    fn ask(&self, (certificate, key): &(String, String), request: &str) -> (u16, Duration) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.servers.0.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let start = Instant::now();
            let stream = tokio::net::TcpStream::connect(self.at).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
            let took = start.elapsed();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // The server need not say good-bye in TLS when it closes.
            let _ = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            (answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), took)
        })
    }
}

#[test]
fn idle_connections_do_not_hold_up_handshakes() {
    let server = TlsServer::start();
    let admin = server.admins.sign(&["admin"]);
    let look = request("GET", "/fleet/v1/machines", "Host: localhost\r\n", "");
    let idle: Vec<TcpStream> = (0..128).map(|_| connect(server.at)).collect();

    let times: Vec<Duration> = (0..4)
        .map(|_| {
            let (status, took) = server.ask(&admin, &look);
            assert_eq!(status, 200);
            took
        })
        .collect();

    // Ten seconds for each, once. The host may starve, so one of them may be slow, but not all.
    assert!(times.iter().min().unwrap() < &Duration::from_secs(1), "{times:?}");
    drop(idle);
}

#[test]
fn a_machine_holds_its_own_slot_and_no_other() {
    let server = TlsServer::start();
    let ids = ["a".repeat(32), "b".repeat(32)];
    let [one, other] = ids.each_ref().map(|id| server.machines.sign(&[id]));
    let admin = server.admins.sign(&["admin"]);
    let slot = |path: &str, id: &str| {
        let body = format!(r#"{{"client_params":{{"id":"{id}","group":"default"}}}}"#);
        request("POST", path, "Host: localhost\r\nfleet-lock-protocol: true\r\n", &body)
    };
    let ask = |who, request: &str| server.ask(who, request).0;

    assert_eq!(ask(&one, &slot("/v1/pre-reboot", &ids[1])), 403, "for another");
    assert_eq!(ask(&one, &slot("/v1/pre-reboot", &ids[0])), 200);
    assert_eq!(ask(&other, &slot("/v1/steady-state", &ids[0])), 403, "another's slot");
    assert_eq!(ask(&other, &slot("/v1/pre-reboot", &ids[1])), 423, "it is still held");
    assert_eq!(ask(&one, &slot("/v1/steady-state", &ids[0])), 200);
    assert_eq!(ask(&other, &slot("/v1/pre-reboot", &ids[1])), 200);
    assert_eq!(ask(&admin, &slot("/v1/steady-state", &ids[1])), 200, "an admin may release any");
    for (method, path, body) in CHANGES.into_iter().filter(|(_, path, _)| !path.starts_with("/v1/")) {
        assert_eq!(
            ask(&one, &request(method, path, &format!("Host: localhost\r\n{JSON}"), body)),
            403,
            "{path}"
        );
    }
    assert_eq!(ask(&one, &request("GET", "/fleet/v1/units", "Host: localhost\r\n", "")), 403);
}
