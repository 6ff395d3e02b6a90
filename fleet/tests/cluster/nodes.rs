//! Whole Debian 13 machines as containers, on a switch of their own, with real systemd and real etcd.
//!
//! The root file system is built once by mmdebstrap and kept; each node is an overlay over it, in network
//! and cgroup namespaces of its own. Nothing outside the test's folder and namespaces is touched, and all
//! of it goes when the [`Cluster`] is dropped.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

mod api;
mod machine;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

pub(crate) use machine::Node;

/// What is in a node besides Debian's minimum.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,etcd-server,etcd-client,iproute2,nftables,procps,openssh-server,openssh-client";
/// How long to wait for what must come. It says nothing of how long that may take: the host may starve.
const PATIENCE: Duration = Duration::from_mins(5);
const TOOLS: [&str; 7] = ["mmdebstrap", "systemd-nspawn", "ip", "nft", "unshare", "nsenter", "flock"];

/// How nodes differ from the usual ones.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// More lines of every fleet.conf.
    pub(crate) config: String,
    /// More lines of the fleet.conf of one node, by number.
    pub(crate) node_config: BTreeMap<usize, String>,
    /// Files in every node, by path.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// More variables of etcd.
    pub(crate) etcd: String,
    /// Whether etcd's writes reach the disk; tests of correctness need not wait for that.
    pub(crate) durable: bool,
    /// How many seconds a machine may be silent; 30 unless told otherwise, so that a starved host is no
    /// lost machine.
    pub(crate) ttl: Option<u64>,
    /// The scheme of etcd's client URLs, `http` unless told otherwise.
    pub(crate) etcd_scheme: Option<&'static str>,
    /// How many nodes run etcd; all if not told.
    pub(crate) voters: Option<usize>,
}

/// Nodes on a switch.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    name: String,
    folder: PathBuf,
}

/// Whether machines can be booted here; says why if not, and fails if they must be.
pub(crate) fn can_boot() -> bool {
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !in_path(tool)).collect();
    let reason = if !nix::unistd::geteuid().is_root() {
        "booting containers needs root".to_owned()
    } else if !missing.is_empty() {
        format!("these programs are not installed: {}", missing.join(", "))
    } else {
        return true;
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot test on real nodes: {reason}");
    eprintln!("skipped, no real nodes here: {reason}");
    false
}

fn in_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).exists())
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// The tree all nodes stand on. Whoever comes first builds it; the others wait.
fn tree() -> PathBuf {
    let tree = scratch().join("node-tree");
    let script = format!(
        "flock 9; test -e {tree}/usr/bin/etcd -a -e {tree}/usr/lib/systemd/user/dbus.socket && exit 0; rm -rf {tree}.new {tree}
         mmdebstrap --quiet --variant=minbase --include={PACKAGES} trixie {tree}.new && mv {tree}.new {tree}",
        tree = tree.display()
    );
    let lock = format!("exec 9>{}.lock; {script}", tree.display());
    let output = Command::new("bash").args(["-ec", &lock]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cannot build the tree of the nodes: {complaint}");
    tree
}

impl Cluster {
    /// Boots so many nodes and waits until all are in the cluster.
    pub(crate) fn boot(count: usize, options: &Options) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fl{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = scratch().join(&name);
        fs::create_dir_all(&folder).unwrap();
        let tree = tree();
        let mut cluster = Self { nodes: Vec::new(), name, folder };
        cluster.lay_cables(count);
        for number in 1..=count {
            let node = Node::prepare(&cluster.name, &cluster.folder, number, count, options);
            cluster.nodes.push(node);
        }
        for node in &mut cluster.nodes {
            node.power_on(&tree);
        }
        cluster.wait("all machines are there", |cluster| {
            (cluster.nodes.iter().all(|node| node.machines().len() == count)).then_some(())
        });
        cluster
    }

    fn lay_cables(&self, count: usize) {
        let switch = format!("{}s", self.name);
        run("ip", &["netns", "add", &switch]);
        run("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        run("ip", &["-n", &switch, "link", "set", "br0", "up"]);
        for number in 1..=count {
            let (node, port) = (format!("{}n{number}", self.name), format!("e{number}"));
            run("ip", &["netns", "add", &node]);
            run(
                "ip",
                &[
                    "link", "add", &port, "netns", &switch, "type", "veth", "peer", "name", "eth0", "netns",
                    &node,
                ],
            );
            run("ip", &["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            run("ip", &["-n", &node, "addr", "add", &format!("{}/24", address(number)), "dev", "eth0"]);
            run("ip", &["-n", &node, "link", "set", "eth0", "up"]);
            run("ip", &["-n", &node, "link", "set", "lo", "up"]);
        }
    }

    /// The node of this number.
    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// Boots a node that was killed again.
    pub(crate) fn power_on(&mut self, number: usize) {
        self.nodes[number - 1].power_on(&tree());
    }

    /// Kills a node as a power cut would.
    pub(crate) fn kill(&mut self, number: usize) {
        self.nodes[number - 1].kill();
    }

    /// Waits until `look` finds what it looks for.
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if start.elapsed() > PATIENCE {
                self.lament(what);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Looks for so long, again and again, whether something stays as it is.
    pub(crate) fn hold<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        span: Duration,
        expected: &T,
        look: impl Fn(&Self) -> T,
    ) {
        let start = Instant::now();
        while start.elapsed() < span {
            assert_eq!(look(self), *expected, "{what}");
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Waits until an engine leads and every node does what it is told: a unit of its own starts on each
    /// and goes again. Whatever was decided before has then been looked at by all of them.
    pub(crate) fn settle(&self) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |node: &Node| format!("settled-{mark}@{}.service", node.number);
        let asked = self.node(1);
        for node in &self.nodes {
            let text = format!(
                "[Service]\nExecStart=/usr/bin/sleep infinity\n[X-Fleet]\nMachineID={}\n",
                node.machine_id()
            );
            asked.put(&name(node), &text, "launched");
        }
        for node in &self.nodes {
            self.wait("a node does what it is told", |_| asked.home(&name(node)));
            asked.destroy(&name(node));
        }
        for node in &self.nodes {
            let unit = name(node);
            self.wait("a node lets go what it is told", |_| (node.active(&unit) == "inactive").then_some(()));
        }
    }

    fn lament(&self, what: &str) -> ! {
        let mut story = format!("not seen in {} s: {what}\n", PATIENCE.as_secs());
        for node in self.nodes.iter().filter(|node| node.is_on()) {
            let _ = writeln!(story, "--- node {}: units {}", node.number, node.get("/fleet/v1/units").1);
            let _ = writeln!(story, "states {}", node.get("/fleet/v1/state").1);
            let _ = writeln!(
                story,
                "{}",
                node.shell(
                    "journalctl -u fleet -u etcd -n 60 --no-pager -o cat; systemctl --failed --no-legend"
                )
            );
        }
        panic!("{story}");
    }

    /// The number of the node whose engine leads, as any node sees it.
    pub(crate) fn leader(&self) -> usize {
        self.wait("an engine leads", |cluster| {
            let node = cluster.nodes.iter().find(|node| node.is_on())?;
            let key = node.shell("ETCDCTL_API=3 etcdctl get --print-value-only /_coreos.com/fleet/leader");
            let record: Value = serde_json::from_str(key.trim()).ok()?;
            cluster.nodes.iter().find(|node| record["machine"] == node.machine_id()).map(|node| node.number)
        })
    }

    /// The number of the node whose etcd leads.
    pub(crate) fn etcd_leader(&self) -> usize {
        self.wait("an etcd leads", |cluster| {
            cluster.nodes.iter().filter(|node| node.is_on()).find_map(|node| {
                let status = node.shell("ETCDCTL_API=3 etcdctl endpoint status -w json");
                let status: Value = serde_json::from_str(status.trim()).ok()?;
                let status = &status[0]["Status"];
                (status["leader"].is_u64() && status["leader"] == status["header"]["member_id"])
                    .then_some(node.number)
            })
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        let count = self.nodes.len();
        let names =
            (1..=count).map(|number| format!("{}n{number}", self.name)).chain([format!("{}s", self.name)]);
        for name in names {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The address of a node.
pub(crate) fn address(number: usize) -> String {
    format!("10.88.0.{}", 10 + number)
}
