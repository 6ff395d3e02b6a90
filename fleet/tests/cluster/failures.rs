//! What breaks, and what goes on running.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    nodes::{Cluster, Options, can_boot},
    scheduling::SLEEP,
};

/// The TTL of the nodes.
const TTL: Duration = Duration::from_secs(10);

fn units() -> Vec<String> {
    (1..=6).map(|number| format!("u{number}.service")).collect()
}

fn options() -> Options {
    Options { ttl: Some(TTL.as_secs()), ..Options::default() }
}

fn homes(cluster: &Cluster, asked: usize) -> Vec<usize> {
    units().iter().map(|unit| cluster.wait(unit, |cluster| cluster.node(asked).home(unit))).collect()
}

/// On how many nodes each unit really runs.
fn copies(cluster: &Cluster, nodes: &[usize]) -> Vec<usize> {
    let runs = |unit: &str, node: usize| cluster.node(node).active(unit) == "active";
    units().iter().map(|unit| nodes.iter().filter(|node| runs(unit, **node)).count()).collect()
}

fn pids(cluster: &Cluster, homes: &[usize]) -> Vec<Option<String>> {
    units().iter().zip(homes).map(|(unit, home)| cluster.node(*home).main_pid(unit)).collect()
}

fn all_once(cluster: &Cluster, nodes: &[usize]) {
    cluster.wait("each unit runs exactly once", |cluster| {
        copies(cluster, nodes).iter().all(|count| *count == 1).then_some(())
    });
}

#[test]
fn nothing_stops_that_need_not() {
    if !can_boot() {
        return;
    }
    let cluster = Cluster::boot(3, &options());
    for unit in units() {
        cluster.node(1).put(&unit, SLEEP, "launched");
    }
    let before = homes(&cluster, 1);
    let same = |cluster: &Cluster| pids(cluster, &before);
    let running = same(&cluster);
    assert!(running.iter().all(Option::is_some), "{running:?}");

    let leader = cluster.leader();
    cluster.node(leader).signal("fleet.service", "KILL");
    cluster.settle();
    assert_eq!(same(&cluster), running, "after the leading fleetd was killed");

    cluster.node(cluster.etcd_leader()).signal("etcd.service", "KILL");
    cluster.settle();
    assert_eq!(same(&cluster), running, "after the leading etcd was killed");

    // Shorter than a TTL, so that no renewal of a lease can get lost for good.
    cluster.node(2).lose_packets(30);
    cluster.hold("while 30 % of the packets get lost", TTL / 2, &running, same);
    cluster.node(2).lose_packets(0);
    cluster.settle();
    all_once(&cluster, &[1, 2, 3]);

    for number in [2, 3] {
        cluster.node(number).shell("systemctl stop etcd.service");
    }
    cluster.hold("without a quorum", TTL * 3 / 2, &running, same);
    for number in [2, 3] {
        cluster.node(number).shell("systemctl start --no-block etcd.service");
    }
    cluster.settle();
    cluster.hold("after the quorum came back", TTL, &running, same);
    assert_eq!(homes(&cluster, 1), before);
}

#[test]
fn units_of_a_lost_node_run_elsewhere() {
    if !can_boot() {
        return;
    }
    let old_way = BTreeMap::from([(1, "stop_units_on_exit=true".to_owned())]);
    let mut cluster = Cluster::boot(3, &Options { node_config: old_way, ..options() });
    for unit in units() {
        cluster.node(1).put(&unit, SLEEP, "launched");
    }
    homes(&cluster, 1);

    a_node_that_is_cut_off_keeps_its_units_and_gives_them_back(&cluster);
    a_frozen_daemon_wakes_up_and_lets_go(&cluster);
    a_killed_node_is_replaced_and_may_return(&mut cluster);
    a_daemon_told_so_takes_its_units_along(&cluster);
}

fn a_daemon_told_so_takes_its_units_along(cluster: &Cluster) {
    cluster.node(1).put("mine.service", &format!("{SLEEP}[X-Fleet]\nPrefer=zone=z1\n"), "launched");
    cluster
        .wait("it runs at home", |cluster| (cluster.node(2).home("mine.service") == Some(1)).then_some(()));
    cluster.node(1).shell("systemctl stop fleet.service");
    assert_eq!(cluster.node(1).active("mine.service"), "inactive");
    cluster
        .wait("it runs elsewhere", |cluster| cluster.node(2).home("mine.service").filter(|home| *home != 1));
    cluster.wait("the machine is known to have left", |cluster| {
        (cluster.node(2).machines().len() == 2).then_some(())
    });
}

/// A node that does not lead etcd, and another to ask about it.
fn victim(cluster: &Cluster) -> (usize, usize) {
    let etcd = cluster.etcd_leader();
    let victim = if etcd == 3 { 2 } else { 3 };
    (victim, etcd)
}

/// Says when it came up, and when it was down.
const WITNESS: &str = "\
[Service]
ExecStart=/usr/bin/sh -c 'cut -d\" \" -f1 /proc/uptime > /run/came-up; exec sleep infinity'
ExecStopPost=/usr/bin/sh -c 'cut -d\" \" -f1 /proc/uptime > /run/was-down'
";

/// Starts a unit on this node, one that may move elsewhere.
fn start_on(cluster: &Cluster, home: usize, unit: &str, text: &str) {
    let separator = if text.contains("[X-Fleet]") { "" } else { "[X-Fleet]\n" };
    let text = format!("{text}{separator}Prefer=zone=z{home}\n");
    cluster.node(home).put(unit, &text, "launched");
    cluster.wait(unit, |cluster| (cluster.node(home).home(unit) == Some(home)).then_some(()));
}

fn a_node_that_is_cut_off_keeps_its_units_and_gives_them_back(cluster: &Cluster) {
    let (victim, asked) = victim(cluster);
    start_on(cluster, victim, "cut.service", SLEEP);
    // Nowhere but on these two, so that the times of both can be compared.
    let there = format!(
        "{WITNESS}[X-Fleet]\nFence=yes\nMachineMetadata=zone=z{victim}\nMachineMetadata=zone=z{asked}\n"
    );
    start_on(cluster, victim, "fenced.service", &there);

    cluster.node(victim).isolate(true);
    cluster.wait("the others took over", |cluster| {
        cluster.node(asked).home("cut.service").filter(|home| *home != victim)
    });
    assert_eq!(cluster.node(victim).active("cut.service"), "active", "a node that is cut off stops nothing");
    // The fenced unit is down on the isolated side before it comes up on the other; they share a clock.
    let at = |number: usize, event: &str| {
        cluster.node(number).shell(&format!("cat /run/{event}")).trim().parse::<f64>().ok()
    };
    let up = cluster.wait("the fenced unit runs elsewhere", |_| at(asked, "came-up"));
    let down = at(victim, "was-down").unwrap();
    assert!(down <= up, "down after {down} s, up elsewhere after {up} s");
    assert_ne!(cluster.node(victim).active("fenced.service"), "active");

    cluster.node(victim).isolate(false);
    all_once(cluster, &[1, 2, 3]);
    cluster.wait("the node that was cut off lets go", |cluster| {
        (cluster.node(victim).active("cut.service") == "inactive").then_some(())
    });
    cluster.node(asked).destroy("fenced.service");
}

fn a_frozen_daemon_wakes_up_and_lets_go(cluster: &Cluster) {
    let (victim, asked) = victim(cluster);
    start_on(cluster, victim, "frozen.service", SLEEP);
    cluster.node(victim).signal("fleet.service", "STOP");
    cluster.wait("others took over from the frozen one", |cluster| {
        cluster.node(asked).home("frozen.service").filter(|home| *home != victim)
    });
    cluster.node(victim).signal("fleet.service", "CONT");
    cluster.wait("the frozen one lets go", |cluster| {
        (cluster.node(victim).active("frozen.service") == "inactive").then_some(())
    });
    all_once(cluster, &[1, 2, 3]);
    cluster.wait("it is back", |cluster| (cluster.node(asked).machines().len() == 3).then_some(()));
}

fn a_killed_node_is_replaced_and_may_return(cluster: &mut Cluster) {
    let (victim, asked) = victim(cluster);
    start_on(cluster, victim, "pet.service", SLEEP);
    cluster.kill(victim);
    let start = Instant::now();
    cluster.wait("the pet runs elsewhere", |cluster| {
        cluster.node(asked).home("pet.service").filter(|home| *home != victim)
    });
    println!("node killed, its unit active elsewhere after {:?} with a TTL of {TTL:?}", start.elapsed());
    cluster.power_on(victim);
    cluster.wait("the node is back", |cluster| (cluster.node(asked).machines().len() == 3).then_some(()));
    cluster.settle();
    all_once(cluster, &[1, 2, 3]);
    assert_eq!(cluster.node(victim).active("pet.service"), "inactive", "what moved stays where it is");
}
