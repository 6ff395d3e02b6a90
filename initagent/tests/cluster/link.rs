//! Machines on one link: a network namespace each, joined by a bridge in one of its own, gone when dropped.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long to wait for what must come; the host may starve.
const PATIENCE: Duration = Duration::from_mins(2);
const INITAGENT: &str = env!("CARGO_BIN_EXE_initagent");

/// Whether this host has what the tests need.
pub(crate) fn can_run() -> bool {
    let has =
        |program: &str| Command::new("which").arg(program).output().is_ok_and(|found| found.status.success());
    let is_root = nix::unistd::geteuid().is_root();
    let can = is_root && ["etcd", "etcdctl", "ip", "curl", "setpriv"].into_iter().all(has);
    assert!(
        can || std::env::var("CI").as_deref() != Ok("true"),
        "this test needs root, etcd, iproute2 and curl"
    );
    if !can {
        eprintln!("skipped: this test needs root, etcd, iproute2 and curl");
    }
    can
}

/// Machines that reach each other.
pub(crate) struct Link {
    switch: String,
    machines: Vec<Machine>,
}

/// One of them.
pub(crate) struct Machine {
    namespace: String,
    address: String,
    folder: TempDir,
    children: RefCell<Vec<Child>>,
}

impl Link {
    pub(crate) fn new(count: usize) -> Self {
        // Tests of one process run side by side.
        static LINKS: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("c{}x{}", std::process::id(), LINKS.fetch_add(1, Ordering::Relaxed));
        let switch = format!("{prefix}s");
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add br0 type bridge"));
        ip(&format!("-n {switch} link set br0 up"));
        let machines = (0..count).map(|number| Machine::new(&prefix, &switch, number)).collect();
        Self { switch, machines }
    }

    pub(crate) fn machine(&self, number: usize) -> &Machine {
        &self.machines[number]
    }
}

/// A secret for a cluster of a test.
pub(crate) fn new_secret() -> String {
    let output = Command::new(INITAGENT).args(["cluster", "secret"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Drop for Link {
    fn drop(&mut self) {
        self.machines.clear();
        ip(&format!("netns del {}", self.switch));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
        ip(&format!("netns del {}", self.namespace));
    }
}

impl Machine {
    fn new(prefix: &str, switch: &str, number: usize) -> Self {
        let namespace = format!("{prefix}m{number}");
        let address = format!("172.17.8.{}", 101 + number);
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("-n {namespace} link add eth0 type veth peer name p{number} netns {switch}"));
        ip(&format!("-n {switch} link set p{number} master br0 up"));
        ip(&format!("-n {namespace} addr add {address}/24 dev eth0"));
        ip(&format!("-n {namespace} link set eth0 up"));
        let folder = tempfile::tempdir().unwrap();
        // Modes of files keep `nobody` out, not that of the folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { namespace, address, folder, children: RefCell::default() }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes what first boot writes.
    pub(crate) fn define(&self, find: &str, secret: &str) {
        self.define_sized(find, secret, 3);
    }

    pub(crate) fn define_sized(&self, find: &str, secret: &str, size: u8) {
        let folder = self.folder().join("etc/catamaran");
        fs::create_dir_all(&folder).unwrap();
        let text =
            format!(r#"{{"format":1,"name":"harbour","size":{size},"secret":"{secret}","find":["{find}"]}}"#);
        fs::write(folder.join("cluster.json"), text).unwrap();
    }

    pub(crate) fn start_etcd(&self) {
        self.start_etcd_with(&[]);
    }

    /// As systemd does: the condition, then etcd with the variables that it wrote, and the service.
    pub(crate) fn start_etcd_with(&self, settings: &[(&str, &str)]) {
        let script = "\"$0\" cluster --root \"$1\" prepare etcd; ready=$?
            \"$0\" cluster --root \"$1\" serve &
            [ $ready = 0 ] || exec sleep infinity
            set -a; . \"$1/run/catamaran/cluster/etcd.env\"; exec etcd --unsafe-no-fsync --log-level warn";
        let said = File::create(self.folder().join("said")).unwrap();
        let mut command = self.command();
        command.args(["setsid", "sh", "-c", script, INITAGENT]).arg(self.folder());
        command.env("ETCD_NAME", "core").env("ETCD_DATA_DIR", self.folder().join("etcd"));
        command.envs(settings.iter().copied()).stdout(said.try_clone().unwrap()).stderr(said);
        self.children.borrow_mut().push(command.spawn().unwrap());
    }

    pub(crate) fn await_health(&self) {
        let start = Instant::now();
        while !self.run_as_nobody("curl -s -m 2 http://127.0.0.1:2379/health").contains("true") {
            let said = fs::read_to_string(self.folder().join("said")).unwrap();
            assert!(start.elapsed() < PATIENCE, "{} did not come up: {said}", self.address);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn status(&self) -> String {
        let mut command = self.command();
        command.args([INITAGENT, "cluster", "status", "--root"]).arg(self.folder());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    /// What a verb of the cluster says here.
    pub(crate) fn run_verb(&self, words: &str) -> String {
        let mut command = self.command();
        command.args([INITAGENT, "cluster", "--root"]).arg(self.folder()).args(words.split(' '));
        output_of(&mut command)
    }

    /// Waits until this machine sees all three voters at work.
    pub(crate) fn await_three_voters(&self) {
        let start = Instant::now();
        while !self.status().contains("healthy, 1 voters to spare") {
            let said = fs::read_to_string(self.folder().join("said")).unwrap();
            assert!(start.elapsed() < PATIENCE, "{} sees {}\n{said}", self.address, self.status());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What was said while it started.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.folder().join("said")).unwrap()
    }

    /// Takes the power away, and gives it an empty disk with the same document.
    pub(crate) fn lose_disk(&self) {
        self.stop();
        for folder in ["etcd", "run", "var"] {
            fs::remove_dir_all(self.folder().join(folder)).unwrap();
        }
    }

    pub(crate) fn place(&self) -> String {
        let status = self.status();
        let place = status.lines().find_map(|line| line.strip_prefix("place")).map_or("none", str::trim);
        place.to_owned()
    }

    /// What a user without any rights gets, on this machine.
    pub(crate) fn run_as_nobody(&self, script: &str) -> String {
        let mut command = self.command();
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]);
        output_of(&mut command)
    }

    /// etcdctl of version 3 as root, at the members that `status` names.
    pub(crate) fn run_modern(&self, words: &str) -> String {
        let status = self.status();
        let members = status.lines().find_map(|line| line.strip_prefix("members")).unwrap();
        let members: Vec<String> = members
            .split(" (")
            .next()
            .unwrap()
            .split(',')
            .map(|one| format!("https://{}", one.trim()))
            .collect();
        self.run_etcdctl(&members.join(","), words)
    }

    pub(crate) fn run_with_own_certificate(&self, address: &str, words: &str) -> String {
        self.run_etcdctl(&format!("https://{address}:2379"), words)
    }

    fn run_etcdctl(&self, endpoints: &str, words: &str) -> String {
        let keys = self.folder().join("run/catamaran/cluster");
        let etcdctl = format!(
            "etcdctl --endpoints {endpoints} --cacert {0}/client-ca.pem --cert {0}/client.pem --key {0}/client.key \
             --dial-timeout 5s",
            keys.display()
        );
        let mut command = self.command();
        command.args(["sh", "-c", &format!("$ETCDCTL {words} 2>&1")]);
        output_of(command.env("ETCDCTL", etcdctl).env("ETCDCTL_API", "3"))
    }

    /// Takes the power away.
    pub(crate) fn stop(&self) {
        for mut child in self.children.borrow_mut().drain(..) {
            let group = nix::unistd::Pid::from_raw(-i32::try_from(child.id()).unwrap());
            let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL);
            let _ = child.wait();
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).stdin(Stdio::null());
        command
    }
}

fn output_of(command: &mut Command) -> String {
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}
