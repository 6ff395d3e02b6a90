//! The ways to an API: TCP, TLS, ssh; roles on them; and fleets that know less than this one.

use crate::support::{MemoryLocks, Options, Server, on_thread, three_machines, write};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use fleet::api::access::{AccessRole, UnixGroups};
use fleet::api::listen::{self, TlsIdentity, TlsTexts};
use fleet::api::{ServedApi, api_router};
use fleet::store::memory::MemoryRegistry;
use fleet::store::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Runs the program with nothing in its environment.
fn run(folder: &Path, path: &str, words: &[&str]) -> Output {
    Command::new("timeout")
        .args(["300", env!("CARGO_BIN_EXE_fleetctl")])
        .args(words)
        .current_dir(folder)
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn seen(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const MACHINES: &str = "aaaaaaaa...\t10.0.0.1\tdisk=ssd,zone=east\n\
                        bbbbbbbb...\t10.0.0.2\tdisk=ssd,zone=west\n\
                        cccccccc...\t10.0.0.3\tdisk=ssd,zone=west\n";

fn api() -> ServedApi<MemoryRegistry, MemoryLocks> {
    ServedApi::new(Arc::new(MemoryRegistry::new(three_machines())), Arc::new(MemoryLocks::default()))
}

/// A listening socket, made before anything can go wrong elsewhere, and its port.
fn socket() -> (std::net::TcpListener, u16) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn serve_tcp(access: AccessRole) -> u16 {
    let (socket, port) = socket();
    on_thread(async move {
        let listener = TcpListener::from_std(socket).unwrap();
        listen::serve_tcp(listener, api_router(api()), access, Vec::new(), std::future::pending())
            .await
            .unwrap();
    });
    port
}

#[test]
fn plain_tcp_has_the_right_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.service", "[Service]\nExecStart=/bin/true\n");
    let endpoint = |access| format!("--endpoint=http://127.0.0.1:{}", serve_tcp(access));
    let (all, read, none) =
        (endpoint(AccessRole::Admin), endpoint(AccessRole::Read), endpoint(AccessRole::None));
    let run = |words: &[&str]| seen(&run(folder.path(), "/usr/bin:/bin", words));

    assert_eq!(run(&[&all, "list-machines", "--no-legend"]), (Some(0), MACHINES.into(), String::new()));
    assert_eq!(
        run(&[&all, "submit", "a.service"]),
        (Some(0), "Unit a.service inactive\n".into(), String::new())
    );
    assert_eq!(run(&[&read, "list-machines", "--no-legend"]), (Some(0), MACHINES.into(), String::new()));
    let (code, out, err) = run(&[&read, "submit", "a.service"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("answered 403: PUT needs the admin role; this connection may only read"), "{err}");
    let (code, _, err) = run(&[&none, "list-units"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("answered 403: this connection has no role"), "{err}");
}

/// What a fleet says that wants the terminal of whoever looks.
const HOSTILE: &str = "evil\u{1b}]0;OWNED\u{7}\u{1b}[2J\u{9b}2J\u{202e}.service";

async fn hostile_answer(request: Request) -> impl IntoResponse {
    let option = serde_json::json!({"section": "Service", "name": "ExecStart", "value": HOSTILE});
    let unit = serde_json::json!({
        "name": HOSTILE, "options": [option], "desiredState": HOSTILE, "currentState": HOSTILE, "machineID": HOSTILE
    });
    let machine = serde_json::json!({"id": HOSTILE, "primaryIP": HOSTILE, "metadata": {HOSTILE: HOSTILE}});
    let state = serde_json::json!({
        "name": HOSTILE, "machineID": HOSTILE, "hash": HOSTILE, "systemdActiveState": HOSTILE,
        "systemdLoadState": HOSTILE, "systemdSubState": HOSTILE
    });
    let error = serde_json::json!({"error": {"code": 400, "message": HOSTILE}});
    match (request.method().as_str(), request.uri().path()) {
        ("GET", "/fleet/v1/units") => (StatusCode::OK, serde_json::json!({"units": [unit]}).to_string()),
        ("GET", "/fleet/v1/units/a.service") => (StatusCode::OK, unit.to_string()),
        ("GET", "/fleet/v1/machines") => {
            (StatusCode::OK, serde_json::json!({"machines": [machine]}).to_string())
        }
        ("GET", "/fleet/v1/state") => (StatusCode::OK, serde_json::json!({"states": [state]}).to_string()),
        _ => (StatusCode::BAD_REQUEST, error.to_string()),
    }
}

#[test]
fn a_hostile_fleet_steers_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.service", "[Service]\nExecStart=/bin/true\n");
    let (socket, port) = socket();
    on_thread(async move {
        let listener = TcpListener::from_std(socket).unwrap();
        let router = axum::Router::new().fallback(hostile_answer);
        listen::serve_tcp(listener, router, AccessRole::Admin, Vec::new(), std::future::pending())
            .await
            .unwrap();
    });
    let hostile = format!("http://127.0.0.1:{port}");
    let friendly = format!("http://127.0.0.1:{}", serve_tcp(AccessRole::Admin));
    let escaped = "evil\\u{1b}]0;OWNED\\u{7}\\u{1b}[2J\\u{9b}2J\\u{202e}.service";

    for (endpoint, words) in [
        (&friendly, format!("import --dry-run --from={hostile}")),
        (&friendly, format!("import --from={hostile}")),
        (&friendly, format!("import --json --dry-run --from={hostile}")),
        (&hostile, "list-units".to_owned()),
        (&hostile, "list-unit-files --fields=unit,desc,dstate,state,target".to_owned()),
        (&hostile, "list-machines --full".to_owned()),
        (&hostile, "list-machines --json".to_owned()),
        (&hostile, "top --once".to_owned()),
        (&hostile, "cat --json a".to_owned()),
        (&hostile, "explain a".to_owned()),
        (&hostile, "start a.service".to_owned()),
        (&hostile, "status a".to_owned()),
        (&hostile, "journal a".to_owned()),
        (&hostile, "ssh a".to_owned()),
        (&hostile, "destroy a".to_owned()),
        (&hostile, "drain evil".to_owned()),
        (&hostile, "rebalance".to_owned()),
        (&hostile, "restart a --block-attempts=1".to_owned()),
    ] {
        let endpoint = format!("--endpoint={endpoint}");
        let words: Vec<&str> = std::iter::once(endpoint.as_str()).chain(words.split(' ')).collect();
        let (_, out, err) = seen(&run(folder.path(), "/usr/bin:/bin", &words));
        let all = format!("{out}{err}");
        let steering = |each: char| (each.is_control() && !"\n\t".contains(each)) || each == '\u{202e}';
        assert!(!all.contains(steering), "{words:?}: {all:?}");
        assert!(!all.is_empty(), "{words:?} said nothing");
        if words.contains(&"--dry-run") && !words.contains(&"--json") {
            assert!(all.contains(escaped), "{all}");
        }
    }
    // To a pipe a text goes as it is.
    let words = [&format!("--endpoint={hostile}"), "cat", "a"];
    assert!(seen(&run(folder.path(), "/usr/bin:/bin", &words)).1.contains(HOSTILE));
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate and its key, both PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[test]
fn tls_gives_each_authority_its_role() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, admins, readers, strangers) = (
        Authority::new("servers"),
        Authority::new("admins"),
        Authority::new("readers"),
        Authority::new("strangers"),
    );
    let (certificate, key) = servers.sign("localhost");
    let identity = TlsIdentity::read(&TlsTexts {
        certificate: certificate.as_bytes(),
        key: key.as_bytes(),
        admin_authority: admins.pem().as_bytes(),
        read_authority: Some(readers.pem().as_bytes()),
        lock_authority: None,
    })
    .unwrap();
    let (socket, port) = socket();
    on_thread(async move {
        let listener = TcpListener::from_std(socket).unwrap();
        listen::serve_tls(listener, api_router(api()), &identity, std::future::pending()).await.unwrap();
    });
    write(folder.path(), "a.service", "[Service]\nExecStart=/bin/true\n");
    write(folder.path(), "servers.pem", &servers.pem());
    write(folder.path(), "strangers.pem", &strangers.pem());
    for (who, authority) in [("admin", &admins), ("reader", &readers), ("stranger", &strangers)] {
        let (certificate, key) = authority.sign(who);
        write(folder.path(), &format!("{who}.pem"), &certificate);
        write(folder.path(), &format!("{who}.key"), &key);
        // All of it in one file behind a script, as `initagent cluster access` makes it.
        let one = ["#!/bin/sh\nexec \"$@\"\n", &certificate, &servers.pem(), &key].concat();
        write(folder.path(), &format!("{who}.access"), &one);
    }
    let endpoint = format!("--endpoint=https://localhost:{port}");
    let run_as = |who: &str, authority: &str, words: &[&str]| {
        let (certificate, key) = (format!("--cert-file={who}.pem"), format!("--key-file={who}.key"));
        let authority = format!("--ca-file={authority}.pem");
        let mut all = vec![endpoint.as_str(), &authority, &certificate, &key];
        all.extend(words);
        seen(&run(folder.path(), "/usr/bin:/bin", &all))
    };

    let submit = ["submit", "a.service"];
    assert_eq!(
        run_as("admin", "servers", &submit),
        (Some(0), "Unit a.service inactive\n".into(), String::new())
    );
    assert_eq!(run_as("reader", "servers", &["list-machines", "--no-legend"]).1, MACHINES);
    let (code, _, err) = run_as("reader", "servers", &["destroy", "a.service"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("DELETE needs the admin role"), "{err}");
    assert_eq!(run_as("stranger", "servers", &["list-machines"]).0, Some(1));
    let run_by_file = |who: &str, words: &[&str]| {
        let files = ["ca", "cert", "key"].map(|what| format!("--{what}-file={who}.access"));
        let all: Vec<&str> = [&endpoint].into_iter().chain(&files).map(String::as_str).collect();
        seen(&run(folder.path(), "/usr/bin:/bin", &[&all[..], words].concat()))
    };
    let list = ["list-machines", "--no-legend"];
    assert_eq!(run_by_file("admin", &list).1, MACHINES);
    assert_eq!(run_by_file("reader", &list).1, MACHINES);
    assert!(run_by_file("reader", &["destroy", "a.service"]).2.contains("DELETE needs the admin role"));
    // The authority alone is enough to verify with, and is not ignored.
    let (code, _, err) = run_as("admin", "strangers", &["list-machines"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("UnknownIssuer"), "{err}");
    // Who shows no certificate does not get in.
    let alone =
        seen(&run(folder.path(), "/usr/bin:/bin", &[&endpoint, "--ca-file=servers.pem", "list-machines"]));
    assert_eq!(alone.0, Some(1));
}

#[test]
fn unix_groups_decide_on_the_socket() {
    let groups = UnixGroups { admin: Some("no-such-group".to_owned()), ..UnixGroups::default() };
    let server = Server::with(three_machines(), Options { groups, ..Options::default() });
    let root = nix::unistd::geteuid().is_root();

    let answer =
        server.put("/fleet/v1/units/a.service", r#"{"options":[{"section":"S","name":"a","value":"b"}]}"#);

    assert_eq!(answer.status, if root { 201 } else { 403 });
    assert_eq!(server.get("/fleet/v1/units").status, 200);
}

/// Puts a program named ssh before the real one: it notes how it was called, then does what the last
/// words say, on this machine.
fn fake_ssh(folder: &Path) -> String {
    let bin = folder.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let ours = Path::new(env!("CARGO_BIN_EXE_fleetctl")).parent().unwrap().display();
    let script = format!(
        "#!/bin/sh\necho \"ssh $*\" >> {}/ssh.log\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nPATH={ours}:$PATH\n\
         exec sh -c \"$*\"\n",
        folder.display()
    );
    write(&bin, "ssh", &script);
    std::fs::set_permissions(bin.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", bin.display())
}

#[test]
fn a_tunnel_forwards_to_the_socket_over_there() {
    let server = Server::start();
    let path = fake_ssh(server.folder.path());
    let endpoint = format!("--endpoint={}", server.endpoint());

    let output = run(
        server.folder.path(),
        &path,
        &["--tunnel=bastion:2222", &endpoint, "list-machines", "--no-legend"],
    );

    assert_eq!(seen(&output), (Some(0), MACHINES.into(), String::new()));
    let log = std::fs::read_to_string(server.folder.path().join("ssh.log")).unwrap();
    let socket = server.socket();
    assert!(log.contains("-l core -p 2222 -T -- bastion fleetctl fd-forward"), "{log}");
    assert!(log.contains(&socket.display().to_string()), "{log}");
}

#[test]
fn commands_on_machines_go_by_ssh_and_end_as_they_end() {
    let server = Server::start();
    let path = fake_ssh(server.folder.path());
    let endpoint = format!("--endpoint={}", server.endpoint());
    let folder = server.folder.path();
    write(&folder.join("bin"), "systemctl", "#!/bin/sh\necho systemctl \"$@\"\nexit 3\n");
    write(&folder.join("bin"), "journalctl", "#!/bin/sh\necho journalctl \"$@\"\n");
    for name in ["systemctl", "journalctl"] {
        std::fs::set_permissions(folder.join("bin").join(name), std::fs::Permissions::from_mode(0o755))
            .unwrap();
    }
    write(folder, "a.service", "[Service]\nExecStart=/bin/true\n");
    let run = |words: &[&str]| {
        let mut all = vec![endpoint.as_str()];
        all.extend(words);
        seen(&run(folder, &path, &all))
    };
    assert_eq!(run(&["start", "a.service"]).0, Some(0));

    let status = run(&["status", "a"]);
    let journal = run(&["journal", "--lines=3", "-f", "a"]);
    let on_machine = run(&["ssh", "aaaa", "echo", "-n", "over;", "exit", "7"]);
    let on_unit = run(&["ssh", "-A", "--unit", "a", "--", "echo", "here"]);

    assert_eq!(status, (Some(3), "systemctl status -l -- a.service\n".into(), String::new()));
    let words = "journalctl --unit a.service --no-pager -n 3 --output short -f\n";
    assert_eq!(journal, (Some(0), words.into(), String::new()));
    assert_eq!(on_machine, (Some(7), "over".into(), String::new()));
    assert_eq!(on_unit, (Some(0), "here\n".into(), String::new()));
    let log = std::fs::read_to_string(folder.join("ssh.log")).unwrap();
    assert!(log.lines().all(|line| line.contains("-p 22 ") && line.contains(" -- 10.0.0.1 ")), "{log}");
    assert!(log.lines().last().unwrap().contains(" -A "), "{log}");
    assert!(folder.join(".fleetctl").is_dir());
}

/// Answers 404 for all that the original did not have.
async fn forget_additions(request: Request, next: Next) -> axum::response::Response {
    let path = request.uri().path().to_owned();
    let new = ["/watch", "/explain", "/restart", "/drain", "/locks", "/rebalance", "/brake", "/health"];
    if new.iter().any(|part| path.contains(part)) {
        // As Go's server does, the rest of the request is read before the connection is let go.
        axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        return StatusCode::NOT_FOUND.into_response();
    }
    next.run(request).await
}

#[test]
fn an_old_fleet_is_spoken_to_by_looking_often() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.service", "[Service]\nExecStart=/bin/true\n");
    let server = Server::with(three_machines(), Options { old: Some(forget_layer), ..Options::default() });
    let endpoint = format!("--endpoint={}", server.endpoint());
    let run = |words: &[&str]| {
        let mut all = vec![endpoint.as_str()];
        all.extend(words);
        seen(&run(folder.path(), "/usr/bin:/bin", &all))
    };

    let started = run(&["start", "a.service"]);
    let explained = run(&["explain", "a.service"]);
    let drained = run(&["drain", "a"]);
    let destroyed = run(&["destroy", "a.service"]);

    let words = "Unit a.service inactive\nUnit a.service launched on aaaaaaaa.../10.0.0.1\n";
    assert_eq!(started, (Some(0), words.into(), String::new()));
    assert_eq!(explained.2, "Unit a.service does not exist, or this fleet is too old to explain.\n");
    assert_eq!(drained.2, "Unable to drain: this fleet is too old to know how\n");
    assert_eq!(destroyed, (Some(0), "Destroyed a.service\n".into(), String::new()));
}

fn forget_layer(router: axum::Router) -> axum::Router {
    router.layer(from_fn(forget_additions))
}

#[test]
fn units_are_imported_from_an_old_fleet_page_by_page() {
    let old = Server::with(
        three_machines(),
        Options { old: Some(forget_layer), token_limit: Some(2), ..Options::default() },
    );
    let new = Server::start();
    let folder = old.folder.path();
    for name in ["a.service", "b.service", "c.service", "d@.service"] {
        write(folder, name, &format!("[Service]\nExecStart=/bin/echo {name}\n"));
    }
    let (from, to) = (old.endpoint(), new.endpoint());
    let run = |words: &[&str]| seen(&run(folder, "/usr/bin:/bin", words));
    let (from_flag, source, to_flag) =
        (format!("--endpoint={from}"), format!("--from={from}"), format!("--endpoint={to}"));
    assert_eq!(run(&[&from_flag, "submit", "a.service", "c.service", "d@.service"]).0, Some(0));
    assert_eq!(run(&[&from_flag, "start", "b.service"]).0, Some(0));

    let dry = run(&[&to_flag, "import", &source, "--dry-run", "b"]);
    let first = run(&[&to_flag, "import", &source]);
    let again = run(&[&to_flag, "import", &source, "--start"]);
    let listed = run(&[&to_flag, "list-unit-files", "--no-legend", "--fields=unit,dstate"]);

    assert_eq!(dry, (Some(0), "Would import unit b.service, wanted inactive\n".into(), String::new()));
    let imported = "Imported unit a.service, wanted inactive\nImported unit b.service, wanted inactive\n\
                    Imported unit c.service, wanted inactive\nImported unit d@.service, wanted inactive\n";
    assert_eq!(first, (Some(0), imported.into(), String::new()));
    assert!(again.1.contains("Found same unit b.service, wanted launched\n"), "{}", again.1);
    assert_eq!(
        listed.1,
        "a.service\tinactive\nb.service\tlaunched\nc.service\tinactive\nd@.service\tinactive\n"
    );
}

#[test]
fn a_closed_output_ends_the_program_quietly() {
    let server = Server::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fleetctl"))
        .args([&format!("--endpoint={}", server.endpoint()), "list-machines"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();

    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(output.status.code().is_some_and(|code| code <= 1));
}

#[test]
fn a_thousand_units_are_started_in_one_go() {
    let server = Server::with(three_machines(), Options { idle: true, ..Options::default() });
    write(server.folder.path(), "w@.service", "[Service]\nExecStart=/bin/true\n");
    let names: Vec<String> = (0..1000).map(|number| format!("w@{number}")).collect();
    let endpoint = format!("--endpoint={}", server.endpoint());
    let mut words = vec![endpoint.as_str(), "start", "--no-block"];
    words.extend(names.iter().map(String::as_str));

    let (code, out, err) = seen(&run(server.folder.path(), "/usr/bin:/bin", &words));

    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out.matches(" inactive\n").count(), 1000);
    assert_eq!(out.matches("Triggered unit w@").count(), 1000);
    let launched = server.registry.read(|cluster| {
        cluster.units.values().filter(|unit| unit.desired == fleet::model::state::JobState::Launched).count()
    });
    assert_eq!(launched, 1000);
}
