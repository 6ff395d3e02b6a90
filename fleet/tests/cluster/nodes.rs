//! Whole Debian 13 machines as containers, on a switch of their own, with real systemd and real etcd.
//!
//! The root file system is built once by mmdebstrap and kept; each node is an overlay over it, in network
//! and cgroup namespaces of its own. Nothing outside the test's folder and namespaces is touched, and all
//! of it goes when the [`Cluster`] is dropped.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

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

/// One machine.
pub(crate) struct Node {
    pub(crate) number: usize,
    name: String,
    folder: PathBuf,
    container: Option<Child>,
    init: u32,
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

/// The program under test: the one built with the tests, or one of the folder `FLEET_PROGRAMS`, so that
/// benchmarks can run what was built for release.
fn program(name: &str, built: &str) -> PathBuf {
    std::env::var_os("FLEET_PROGRAMS").map_or_else(|| built.into(), |folder| PathBuf::from(folder).join(name))
}

/// The address of a node.
pub(crate) fn address(number: usize) -> String {
    format!("10.88.0.{}", 10 + number)
}

impl Node {
    fn prepare(cluster: &str, folder: &Path, number: usize, count: usize, options: &Options) -> Self {
        let name = format!("{cluster}n{number}");
        let folder = folder.join(number.to_string());
        let etc = folder.join("upper/etc");
        for path in [
            "upper/etc/default",
            "upper/etc/fleet",
            "upper/etc/systemd/system/multi-user.target.wants",
            "work",
            "root",
        ] {
            fs::create_dir_all(folder.join(path)).unwrap();
        }
        let node = Self { number, name, folder, container: None, init: 0 };
        fs::write(etc.join("machine-id"), format!("{}\n", node.machine_id())).unwrap();
        fs::write(etc.join("hostname"), format!("core-{number:02}\n")).unwrap();
        fs::write(etc.join("default/etcd"), etcd_environment(number, count, options)).unwrap();
        let mine = options.node_config.get(&number).map_or("", String::as_str);
        let (ttl, timeout) = options.ttl.map_or((30, 10), |ttl| (ttl, 1));
        let config = format!(
            "etcd_servers={}\npublic_ip={}\nagent_ttl={ttl}s\netcd_request_timeout={timeout}\nengine_reconcile_interval=1\nmetadata=zone=z{number}\nlisten=unix:///run/fleet.sock\n{}\n{mine}\n",
            etcd_servers(number, count, options),
            address(number),
            options.config
        );
        fs::write(etc.join("fleet/fleet.conf"), config).unwrap();
        fs::write(etc.join("systemd/system/fleet.service"), FLEET_SERVICE).unwrap();
        let wants = etc.join("systemd/system/multi-user.target.wants");
        let voter = number <= options.voters.unwrap_or(count);
        for (service, path) in [("fleet.service", "/etc"), ("etcd.service", "/usr/lib")] {
            if service != "etcd.service" || voter {
                let target = format!("{path}/systemd/system/{service}");
                std::os::unix::fs::symlink(target, wants.join(service)).unwrap();
            }
        }
        for service in ["etcd.service", "systemd-networkd-wait-online.service"] {
            if service == "etcd.service" && voter {
                continue;
            }
            std::os::unix::fs::symlink("/dev/null", etc.join("systemd/system").join(service)).unwrap();
        }
        for (path, content) in &options.files {
            let path = node.folder.join("upper").join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        node
    }

    fn power_on(&mut self, tree: &Path) {
        let script = r"
            mount -t tmpfs tmpfs /run/systemd
            mount -t overlay -o lowerdir=$TREE,upperdir=$HERE/upper,workdir=$HERE/work overlay $HERE/root
            umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup
            mkdir -p /sys/fs/cgroup/$NAME; echo $$ > /sys/fs/cgroup/$NAME/cgroup.procs
            exec systemd-nspawn --quiet --directory=$HERE/root --machine=$NAME --register=no --keep-unit --boot \
                --console=pipe --network-namespace-path=/run/netns/$NAME --capability=CAP_NET_ADMIN \
                --bind-ro=$FLEETD:/usr/bin/fleetd --bind-ro=$FLEETCTL:/usr/bin/fleetctl \
                --bind-ro=$LOCKSMITHCTL:/usr/bin/locksmithctl";
        fs::create_dir_all("/run/systemd").unwrap();
        let log = fs::File::create(self.folder.join("console")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "bash", "-ec", script])
            .env("TREE", tree)
            .env("HERE", &self.folder)
            .env("NAME", &self.name)
            .env("FLEETD", program("fleetd", env!("CARGO_BIN_EXE_fleetd")))
            .env("FLEETCTL", program("fleetctl", env!("CARGO_BIN_EXE_fleetctl")))
            .env("LOCKSMITHCTL", program("locksmithctl", env!("CARGO_BIN_EXE_locksmithctl")))
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.container = Some(command.spawn().unwrap());
        let start = Instant::now();
        self.init = loop {
            if let Some(init) = self.find_init() {
                break init;
            }
            let console = fs::read_to_string(self.folder.join("console")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "node {} does not boot: {console}", self.number);
            std::thread::sleep(Duration::from_millis(20));
        };
    }

    /// PID 1 of the node, seen from outside.
    fn find_init(&self) -> Option<u32> {
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .find(|pid| {
                let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
                read("cgroup").contains(&self.name)
                    && read("status").lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
                    && read("cmdline").starts_with('/')
                    && fs::metadata(format!("/proc/{pid}/root/run/dbus")).is_ok()
            })
    }

    fn is_on(&self) -> bool {
        self.container.is_some()
    }

    fn kill(&mut self) {
        let Some(mut container) = self.container.take() else { return };
        if self.init != 0 {
            let _ = Command::new("kill").args(["-KILL", &self.init.to_string()]).output();
        }
        let _ = container.kill();
        let _ = container.wait();
        let start = Instant::now();
        while Path::new(&format!("/proc/{}", self.init)).exists() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.init = 0;
        let cgroups = "for d in /sys/fs/cgroup /sys/fs/cgroup/unified; do [ -d $d/$0 ] && find $d/$0 -depth -type d -exec rmdir {} + ; done";
        let _ = Command::new("bash").args(["-c", cgroups, &self.name]).output();
    }

    /// Its ID in the cluster.
    pub(crate) fn machine_id(&self) -> String {
        format!("{:x}", self.number % 16).repeat(32)
    }

    /// Where the kernel keeps the books of a control group inside; the empty path is the whole node.
    pub(crate) fn control_group(&self, inside: &str) -> PathBuf {
        let folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let group = |folder: &&str| Path::new(folder).join(&self.name).join("payload").join(inside);
        let node = folders.iter().find(|folder| Path::new(folder).join(&self.name).exists());
        group(node.unwrap_or(&folders[0]))
    }

    /// Runs a command inside.
    pub(crate) fn exec(&self, command: &[&str]) -> Output {
        Command::new("nsenter").args(["-t", &self.init.to_string(), "-a"]).args(command).output().unwrap()
    }

    /// Runs a shell line inside and returns what it printed.
    pub(crate) fn shell(&self, line: &str) -> String {
        String::from_utf8_lossy(&self.exec(&["bash", "-c", line]).stdout).into_owned()
    }

    /// Writes a file inside.
    pub(crate) fn write(&self, path: &str, content: &str) {
        fs::write(format!("/proc/{}/root{path}", self.init), content).unwrap();
    }

    /// The process ID, inside, of the main process of a service, while it has one.
    pub(crate) fn main_pid(&self, service: &str) -> Option<String> {
        let pid = self.shell(&format!("systemctl show -P MainPID {service}")).trim().to_owned();
        (!pid.is_empty() && pid != "0").then_some(pid)
    }

    /// What systemd says of a unit's property.
    pub(crate) fn property(&self, unit: &str, property: &str) -> String {
        self.shell(&format!("systemctl show -P {property} '{unit}'")).trim().to_owned()
    }

    /// systemd's `ActiveState` of a unit.
    pub(crate) fn active(&self, unit: &str) -> String {
        self.property(unit, "ActiveState")
    }

    /// Cuts all its cables, or mends them.
    pub(crate) fn isolate(&self, cut: bool) {
        let rules = "table inet part { chain in { type filter hook input priority 0; iif lo accept; drop; }; \
                     chain out { type filter hook output priority 0; oif lo accept; drop; }; }";
        self.rules(cut.then_some(rules));
    }

    /// Lets so many percent of its packets get lost.
    pub(crate) fn lose_packets(&self, percent: u8) {
        let rules = format!(
            "table inet part {{ chain in {{ type filter hook input priority 0; iif lo accept; numgen random mod 100 < {percent} drop; }}; }}"
        );
        self.rules((percent > 0).then_some(&rules));
    }

    fn rules(&self, rules: Option<&str>) {
        // The kernel of a container has no filter of its own: the namespace has.
        let namespace = &self.name;
        let _ = Command::new("ip")
            .args(["netns", "exec", namespace, "nft", "delete", "table", "inet", "part"])
            .output();
        if let Some(rules) = rules {
            run("ip", &["netns", "exec", namespace, "nft", rules]);
        }
    }

    /// Sends a signal to the main process of a service.
    pub(crate) fn signal(&self, service: &str, signal: &str) {
        let pid = self.main_pid(service).unwrap();
        self.shell(&format!("kill -{signal} {pid}"));
    }

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

    /// Gives an order, again while the node can't reach the store, as a person would.
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

/// The own etcd first, then the others.
fn etcd_servers(number: usize, count: usize, options: &Options) -> String {
    let voters = 1..=options.voters.unwrap_or(count);
    let others = voters
        .clone()
        .filter(|other| *other != number)
        .map(|other| format!("http://{}:2379", address(other)));
    let own = voters.contains(&number).then(|| "http://127.0.0.1:2379".to_owned());
    own.into_iter().chain(others).collect::<Vec<_>>().join(",")
}

fn etcd_environment(number: usize, count: usize, options: &Options) -> String {
    let scheme = options.etcd_scheme.unwrap_or("http");
    let voters = options.voters.unwrap_or(count);
    let peers: Vec<String> =
        (1..=voters).map(|peer| format!("n{peer}=http://{}:2380", address(peer))).collect();
    let here = address(number);
    let patience = if options.ttl.is_some() { 1 } else { 3 };
    format!(
        "ETCD_HEARTBEAT_INTERVAL={patience}00\nETCD_ELECTION_TIMEOUT={patience}000\nETCD_NAME=n{number}\nETCD_DATA_DIR=/var/lib/etcd/default\n\
         ETCD_LISTEN_CLIENT_URLS={scheme}://0.0.0.0:2379\nETCD_ADVERTISE_CLIENT_URLS={scheme}://{here}:2379\n\
         ETCD_LISTEN_PEER_URLS=http://{here}:2380\nETCD_INITIAL_ADVERTISE_PEER_URLS=http://{here}:2380\n\
         ETCD_INITIAL_CLUSTER={}\nETCD_LOG_LEVEL=warn\nETCD_UNSAFE_NO_FSYNC={}\n{}\n",
        peers.join(","),
        !options.durable,
        options.etcd
    )
}

const FLEET_SERVICE: &str = "\
[Unit]
Description=fleet daemon
After=etcd.service dbus.socket
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/usr/bin/fleetd
Restart=always
RestartSec=100ms
";
