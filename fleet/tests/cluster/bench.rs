//! Numbers on real nodes, for `ci/bench`: one line each, `name value unit`. Run alone, with programs
//! built for release: `cargo build --release -p fleet --bins` and then `FLEET_PROGRAMS=target/release
//! cargo test -p fleet --test cluster bench -- --ignored --nocapture --test-threads 1`
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use fleet::{
    model::{
        machine::{Machine, MachineId},
        state::JobState,
        unit_file::UnitFile,
        unit_name::UnitName,
    },
    store::{
        keys::{DEFAULT_PREFIX, KeySpace, StoreKey},
        records::{AssignmentRecord, PresenceRecord, StateRecord, UnitRecord, encode_record},
    },
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    nodes::{Cluster, Node, Options, can_boot},
    scheduling::SLEEP,
};

/// Microseconds on the clock that systemd stamps with; containers share it.
fn monotonic() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000
}

fn active_since(node: &Node, unit: &str) -> i64 {
    let stamp = node.shell(&format!("systemctl show -P ActiveEnterTimestampMonotonic '{unit}'"));
    stamp.trim().parse().unwrap_or(0)
}

fn report(name: &str, mut samples: Vec<i64>) {
    samples.sort_unstable();
    let at = |percent: usize| {
        f64::from(i32::try_from(samples[(samples.len() - 1) * percent / 100]).unwrap()) / 1000.0
    };
    println!("{name}_p50 {:.1} ms\n{name}_p99 {:.1} ms", at(50), at(99));
}

#[test]
#[ignore = "a benchmark"]
fn bench_start_of_one_unit() {
    if !can_boot() {
        return;
    }
    let cluster = Cluster::boot(3, &Options { durable: true, ..Options::default() });
    let node = cluster.node(1);
    std::thread::sleep(Duration::from_secs(2));
    let (mut by_api, mut by_command, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..40 {
        let unit = format!("api{round}.service");
        let start = monotonic();
        node.put(&unit, SLEEP, "launched");
        by_api.push(started(&cluster, &unit) - start);

        let unit = format!("cmd{round}.service");
        node.put(&unit, SLEEP, "inactive");
        let start = monotonic();
        node.exec(&["fleetctl", "--endpoint=unix:///run/fleet.sock", "start", "--no-block", &unit]);
        by_command.push(started(&cluster, &unit) - start);

        let unit = format!("plain{round}.service");
        node.shell(&format!(
            "printf '[Service]\\nExecStart=/usr/bin/sleep infinity\\n' > /run/systemd/system/{unit}"
        ));
        let start = monotonic();
        node.exec(&["systemctl", "start", &unit]);
        plain.push(active_since(node, &unit) - start);
    }
    report("start_by_api", by_api);
    report("start_by_fleetctl", by_command);
    report("start_by_systemctl", plain);
}

/// When a unit became active, wherever it is.
fn started(cluster: &Cluster, unit: &str) -> i64 {
    let home = cluster.wait(unit, |cluster| cluster.node(1).home(unit));
    active_since(cluster.node(home), unit)
}

const COUNT: usize = 1000;

/// How fast the thousand units came up, in units a second, and what it cost.
fn report_rate(name: &str, start: i64, end: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate is printed with few digits")]
    let rate = COUNT as f64 * 1e6 / (end - start) as f64;
    println!("{name} {rate:.0} units/s");
    rate
}

/// When the last of the thousand became active, by systemd's own stamps. To ask for them costs as much as
/// what is measured, so they are asked for when all control groups are there.
fn last_of_thousand(cluster: &Cluster) -> i64 {
    cluster.wait("all run", |cluster| (cluster.nodes.iter().map(many).sum::<usize>() == COUNT).then_some(()));
    let stamps = "systemctl show -P ActiveEnterTimestampMonotonic 'many@*' | grep -v '^$' | grep -v '^0$'";
    cluster.wait("all are active", |cluster| {
        let told: Vec<i64> = cluster
            .nodes
            .iter()
            .flat_map(|node| {
                node.shell(stamps).lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()
            })
            .collect();
        (told.len() == COUNT).then(|| *told.iter().max().unwrap())
    })
}

/// How many of the thousand have a control group on a node.
fn many(node: &Node) -> usize {
    let stat = fs::read_to_string(node.control_group("system.slice/system-many.slice").join("cgroup.stat"));
    let count = stat.ok().and_then(|stat| stat.lines().next()?.strip_prefix("nr_descendants ")?.parse().ok());
    count.unwrap_or(0)
}

/// Where the processor time goes that is used between two looks.
struct Ledger(Vec<f64>);

impl Ledger {
    /// The control groups that are looked at; the first holds all others.
    const PARTS: [(&str, &str); 7] = [
        ("", "all"),
        ("init.scope", "systemd"),
        ("system.slice/system-many.slice", "units"),
        ("system.slice/etcd.service", "etcd"),
        ("system.slice/fleet.service", "fleetd"),
        ("system.slice/dbus.service", "dbus-daemon"),
        ("system.slice/systemd-journald.service", "journald"),
    ];

    fn open(cluster: &Cluster) -> Self {
        let seconds = |(group, _): &(&str, &str)| -> f64 {
            cluster.nodes.iter().map(|node| processor_time(&node.control_group(group))).sum()
        };
        Self(Self::PARTS.iter().map(seconds).collect())
    }

    /// Prints what was used since it was opened, by milliseconds a unit.
    fn close(&self, name: &str, cluster: &Cluster) {
        let now = Self::open(cluster);
        let spent = now.0.iter().zip(&self.0).map(|(now, then)| now - then);
        let parts = Self::PARTS.iter().zip(spent).map(|((_, part), spent)| format!("{part} {spent:.2}"));
        println!("# {name}, ms of processor time for each unit: {}", parts.collect::<Vec<_>>().join(", "));
    }
}

/// How many seconds a control group used; none if it is not there yet.
fn processor_time(group: &Path) -> f64 {
    let stat = fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
    usage.and_then(|usage| usage.parse::<f64>().ok()).map_or(0.0, |usage| usage / 1e6)
}

/// A thousand units by fleet, and, in turn, the same without it: their files lie where systemd looks, and
/// each node is told to start a third.
#[test]
#[ignore = "a benchmark"]
fn bench_thousand_units() {
    if !can_boot() {
        return;
    }
    let cluster = Cluster::boot(3, &Options { durable: true, ..Options::default() });
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let floor = thousand_by_systemctl(&cluster);
        ratios.push(thousand_by_fleet(&cluster) / floor);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    println!("thousand_units_rate_to_floor {:.2} (median of {})", ratios[ratios.len() / 2], ratios.len());
}

fn thousand_by_systemctl(cluster: &Cluster) -> f64 {
    for node in &cluster.nodes {
        node.shell(
            "systemctl stop fleet; for i in $(seq 0 999); do \
             printf '[Service]\\nExecStart=/usr/bin/sleep infinity\\n' > /run/systemd/system/many@$i.service; done",
        );
    }
    let (ledger, start) = (Ledger::open(cluster), monotonic());
    std::thread::scope(|scope| {
        for node in &cluster.nodes {
            let first = node.number - 1;
            scope.spawn(move || {
                node.shell(&format!("systemctl start $(seq -f 'many@%g.service' {first} 3 999)"))
            });
        }
    });
    ledger.close("floor", cluster);
    let rate = report_rate("floor_thousand_units_rate", start, last_of_thousand(cluster));
    for node in &cluster.nodes {
        node.shell("systemctl stop 'many@*'; rm /run/systemd/system/many@*; systemctl daemon-reload; systemctl start fleet");
    }
    cluster.settle();
    rate
}

fn thousand_by_fleet(cluster: &Cluster) -> f64 {
    let (ledger, start, begun) = (Ledger::open(cluster), monotonic(), Instant::now());
    let each = |act: &(dyn Fn(&Node, &str) + Sync)| {
        std::thread::scope(|scope| {
            for lane in 0..24 {
                scope.spawn(move || {
                    for number in (lane..COUNT).step_by(24) {
                        act(cluster.node(number % 3 + 1), &format!("many@{number}.service"));
                    }
                });
            }
        });
    };
    each(&|node, unit| node.put(unit, SLEEP, "launched"));
    println!("thousand_units_submitted {:.2} s", begun.elapsed().as_secs_f64());
    cluster.wait("all run", |cluster| (cluster.nodes.iter().map(many).sum::<usize>() == COUNT).then_some(()));
    ledger.close("fleet", cluster);
    let rate = report_rate("thousand_units_rate", start, last_of_thousand(cluster));
    for node in &cluster.nodes {
        let metrics = node.get("/metrics").1;
        let lines = metrics.lines().filter(|line| {
            line.starts_with("fleet_agent_batch") || line.starts_with("fleet_engine_reconcile_count_total")
        });
        lines.for_each(|line| println!("# node {} {line}", node.number));
    }
    each(&|node, unit| node.destroy(unit));
    cluster
        .wait("all are gone", |cluster| (cluster.nodes.iter().map(many).sum::<usize>() == 0).then_some(()));
    rate
}

/// The same by the command that people type.
#[test]
#[ignore = "a benchmark"]
fn bench_thousand_units_by_fleetctl() {
    if !can_boot() {
        return;
    }
    let cluster = Cluster::boot(3, &Options { durable: true, ..Options::default() });
    let node = cluster.node(1);
    node.write("/root/many@.service", SLEEP);
    let (ledger, start) = (Ledger::open(&cluster), monotonic());
    let output = node.shell(
        "cd /root; fleetctl --endpoint=unix:///run/fleet.sock start $(seq -f 'many@%g' 0 999) 2>&1 | tail -n 1",
    );
    println!("# {}", output.trim());
    report_rate("thousand_units_by_fleetctl_to_prompt", start, monotonic());
    report_rate("thousand_units_by_fleetctl_rate", start, last_of_thousand(&cluster));
    ledger.close("fleetctl", &cluster);
}

#[test]
#[ignore = "a benchmark"]
fn bench_idle_cluster_of_ten_thousand_units() {
    if !can_boot() {
        return;
    }
    let cluster = Cluster::boot(3, &Options::default());
    seed(&cluster);
    let node = cluster.node(1);
    cluster.wait("the picture has them", |_| (node.machines().len() == 103).then_some(()));
    std::thread::sleep(Duration::from_secs(5));
    let writes = |node: &Node| -> f64 {
        let text = node.shell("bash -c 'exec 3<>/dev/tcp/127.0.0.1/2379; printf \"GET /metrics HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3' | grep '^etcd_server_proposals_committed_total'");
        text.split_whitespace().last().and_then(|number| number.parse().ok()).unwrap_or(0.0)
    };
    let ticks = |node: &Node| -> f64 {
        let text = node.shell("cut -d' ' -f14,15 /proc/$(systemctl show -P MainPID fleet)/stat");
        text.split_whitespace().filter_map(|number| number.parse::<f64>().ok()).sum()
    };
    let before: Vec<(f64, f64)> = cluster.nodes.iter().map(|node| (writes(node), ticks(node))).collect();
    let span = Duration::from_secs(20);
    std::thread::sleep(span);
    for (node, (writes_before, ticks_before)) in cluster.nodes.iter().zip(before) {
        let memory = node.shell("grep VmRSS /proc/$(systemctl show -P MainPID fleet)/status");
        let proposals = (writes(node) - writes_before) / span.as_secs_f64();
        let cpu = (ticks(node) - ticks_before) / span.as_secs_f64();
        println!("idle_etcd_proposals_node{} {proposals:.2} /s", node.number);
        println!("idle_fleetd_cpu_node{} {cpu:.2} % of a core", node.number);
        println!("fleetd_memory_node{} {}", node.number, memory.trim());
    }
    for lap in 0..2 {
        let start = Instant::now();
        let output = node.exec(&[
            "/usr/bin/bash",
            "-c",
            "fleetctl --endpoint=unix:///run/fleet.sock list-units | wc -l",
        ]);
        println!("list_units_of_ten_thousand_{lap} {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "10001",
            "a line for each, and the legend"
        );
    }
    let memory = Command::new("true")
        .output()
        .map(|_| node.shell("grep -E 'VmRSS|VmHWM' /proc/$(systemctl show -P MainPID fleet)/status"));
    println!("# after listing: {}", memory.unwrap().replace('\n', " "));
}

/// Writes 100 machines with 100 units each into the store, as their fleetds would have.
fn seed(cluster: &Cluster) {
    let keys = KeySpace::with_prefix(DEFAULT_PREFIX);
    let put = |script: &mut String, key: &StoreKey, value: &[u8]| {
        // The interactive txn of etcdctl reads quoted values.
        let value = String::from_utf8_lossy(value).replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(script, "put {} \"{value}\"", keys.key_path(key));
    };
    let (mut machines, mut units) = (String::new(), String::new());
    let file = UnitFile::parse(SLEEP).unwrap();
    let hash = file.hash();
    for machine in 0..100 {
        let id = MachineId::parse(&format!("f{machine:031}")).unwrap();
        let presence = PresenceRecord { machine: Machine::new(id.clone()), boot: "x".to_owned() };
        put(&mut machines, &StoreKey::Presence(id.clone()), &encode_record(&presence));
        for number in 0..100 {
            let unit = UnitName::parse(&format!("seed@{machine}-{number}.service")).unwrap();
            let record = UnitRecord {
                hash,
                desired: JobState::Launched,
                restarts: 0,
                previous: None,
                rollout: None,
                note: String::new(),
            };
            let state = StateRecord {
                hash,
                job: JobState::Launched,
                load: "loaded".to_owned(),
                active: "active".to_owned(),
                sub: "running".to_owned(),
                restarts: 0,
                error: String::new(),
            };
            let assignment = encode_record(&AssignmentRecord { hash });
            put(&mut units, &StoreKey::Assignment(id.clone(), unit.clone()), &assignment);
            put(&mut units, &StoreKey::State(id.clone(), unit.clone()), &encode_record(&state));
            put(&mut units, &StoreKey::Unit(unit), &encode_record(&record));
        }
    }
    let node = cluster.node(1);
    node.put("seed-file.service", SLEEP, "inactive");
    node.write("/run/seed-machines", &machines);
    node.write("/run/seed-units", &units);
    // Transactions of up to 100 puts: compares, an empty line, puts, two empty lines. What belongs to a unit
    // comes in one of them: the engine would move what it saw half.
    let load = "export ETCDCTL_API=3; cd /run; split -l 100 seed-machines seed-a-; split -l 99 -a 3 seed-units seed-b-; \
                for part in seed-a-* seed-b-*; do { echo; cat $part; echo; echo; } | etcdctl txn > /dev/null || exit 1; done; echo done";
    assert_eq!(node.shell(load).trim(), "done");
}
