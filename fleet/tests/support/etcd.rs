//! A real etcd of one member on loopback, gone when dropped.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long to wait for what must come; the host may starve.
const PATIENCE: Duration = Duration::from_mins(5);

/// A real etcd of one member, gone when dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    child: Child,
    port: u16,
    /// Where its health is asked, in the clear.
    health: u16,
    scheme: &'static str,
    _folder: TempDir,
}

impl Etcd {
    /// One that lets everybody in.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("http", &[])
    }

    /// One with more arguments, whose clients come by this scheme.
    pub(crate) fn start_with(scheme: &'static str, arguments: &[&str]) -> Option<Self> {
        if !Path::new("/usr/bin/etcd").exists() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "this test needs Debian's etcd-server");
            eprintln!("skipped: this test needs Debian's etcd-server");
            return None;
        }
        // A port that is free now may be somebody's a moment later: then etcd ends, and gets others.
        let start = Instant::now();
        loop {
            let mut etcd = Self::spawn(scheme, arguments);
            while etcd.child.try_wait().unwrap().is_none() {
                if etcd.is_healthy() {
                    return Some(etcd);
                }
                assert!(start.elapsed() < PATIENCE, "etcd did not come up in {PATIENCE:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn spawn(scheme: &'static str, arguments: &[&str]) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, peer, health) = (free(), free(), free());
        let folder = tempfile::tempdir().unwrap();
        let (clients, peers) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let child = Command::new("/usr/bin/etcd")
            .args(["--data-dir", folder.path().to_str().unwrap(), "--unsafe-no-fsync", "--log-level=error"])
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}")])
            .args(["--listen-metrics-urls", &format!("http://127.0.0.1:{health}")])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, health, scheme, _folder: folder }
    }

    fn is_healthy(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.health)) else { return false };
        let mut answer = String::new();
        let _ = stream
            .write_all(b"GET /health HTTP/1.0\r\n\r\n")
            .and_then(|()| stream.read_to_string(&mut answer));
        answer.contains("\"true\"")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have died by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
