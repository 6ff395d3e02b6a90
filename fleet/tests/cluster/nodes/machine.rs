//! One node: how it is booted, spoilt and looked into.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use super::{Options, PATIENCE, address, run};

/// One machine.
pub(crate) struct Node {
    pub(crate) number: usize,
    name: String,
    folder: PathBuf,
    container: Option<Child>,
    pub(super) init: u32,
}

impl Node {
    pub(super) fn prepare(
        cluster: &str,
        folder: &Path,
        number: usize,
        count: usize,
        options: &Options,
    ) -> Self {
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

    pub(super) fn power_on(&mut self, tree: &Path) {
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

    pub(super) fn is_on(&self) -> bool {
        self.container.is_some()
    }

    pub(super) fn kill(&mut self) {
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
}

/// The program under test: the one built with the tests, or one of the folder `FLEET_PROGRAMS`, so that
/// benchmarks can run what was built for release.
fn program(name: &str, built: &str) -> PathBuf {
    std::env::var_os("FLEET_PROGRAMS").map_or_else(|| built.into(), |folder| PathBuf::from(folder).join(name))
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
After=etcd.service dbus.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/usr/bin/fleetd
Restart=always
RestartSec=100ms
";
