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
const TTL: Duration = Duration::from_secs(5);

fn units() -> Vec<String> {
    (1..=6).map(|number| format!("u{number}.service")).collect()
}

fn homes(cluster: &Cluster, asked: usize) -> Vec<usize> {
    units().iter().map(|unit| cluster.wait(unit, 60, |cluster| cluster.node(asked).home(unit))).collect()
}

/// On how many nodes each unit really runs.
fn copies(cluster: &Cluster, nodes: &[usize]) -> Vec<usize> {
    let runs = |unit: &str, node: usize| cluster.node(node).active(unit) == "active";
    units().iter().map(|unit| nodes.iter().filter(|node| runs(unit, **node)).count()).collect()
}

fn pids(cluster: &Cluster, homes: &[usize]) -> Vec<String> {
    units().iter().zip(homes).map(|(unit, home)| cluster.node(*home).main_pid(unit)).collect()
}

fn all_once(cluster: &Cluster, nodes: &[usize]) {
    cluster.wait("each unit runs exactly once", 60, |cluster| {
        copies(cluster, nodes).iter().all(|count| *count == 1).then_some(())
    });
}

#[test]
fn nothing_stops_that_need_not() {
    if !can_boot() {
        return;
    }
    let cluster = Cluster::boot(3, &Options::default());
    for unit in units() {
        cluster.node(1).put(&unit, SLEEP, "launched");
    }
    let before = homes(&cluster, 1);
    let pids_before = pids(&cluster, &before);
    let unmoved = |what: &str| {
        assert_eq!(homes(&cluster, 1), before, "after {what}");
        assert_eq!(pids(&cluster, &before), pids_before, "after {what}");
    };

    let leader = cluster.leader();
    cluster.node(leader).signal("fleet.service", "KILL");
    std::thread::sleep(Duration::from_secs(1));
    unmoved("the leading fleetd was killed");

    cluster.node(cluster.etcd_leader()).signal("etcd.service", "KILL");
    std::thread::sleep(Duration::from_secs(3));
    unmoved("the leading etcd was killed");

    cluster.node(2).lose_packets(30);
    std::thread::sleep(TTL * 2);
    cluster.node(2).lose_packets(0);
    all_once(&cluster, &[1, 2, 3]);
    assert_eq!(pids(&cluster, &before), pids_before, "after 30 % loss");

    for number in [2, 3] {
        cluster.node(number).shell("systemctl stop etcd.service");
    }
    std::thread::sleep(TTL * 2);
    for (unit, home) in units().iter().zip(&before) {
        assert_eq!(cluster.node(*home).active(unit), "active", "without a quorum");
    }
    for number in [2, 3] {
        cluster.node(number).shell("systemctl start --no-block etcd.service");
    }
    cluster.wait("the cluster answers again", 60, |cluster| {
        (cluster.node(1).machines().len() == 3).then_some(())
    });
    std::thread::sleep(TTL);
    unmoved("the quorum was lost and came back");
}

#[test]
fn units_of_a_lost_node_run_elsewhere() {
    if !can_boot() {
        return;
    }
    let old_way = BTreeMap::from([(1, "stop_units_on_exit=true".to_owned())]);
    let mut cluster = Cluster::boot(3, &Options { node_config: old_way, ..Options::default() });
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
    cluster.wait("it runs at home", 30, |cluster| {
        (cluster.node(2).home("mine.service") == Some(1)).then_some(())
    });
    cluster.node(1).shell("systemctl stop fleet.service");
    assert_eq!(cluster.node(1).active("mine.service"), "inactive");
    cluster.wait("it runs elsewhere", 30, |cluster| {
        cluster.node(2).home("mine.service").filter(|home| *home != 1)
    });
    assert_eq!(cluster.node(2).machines().len(), 2);
}

/// A node with at least two units that does not lead etcd.
fn victim(cluster: &Cluster, asked: usize) -> usize {
    let homes = homes(cluster, asked);
    let etcd = cluster.etcd_leader();
    (1..=3)
        .rev()
        .find(|number| *number != etcd && homes.iter().filter(|home| *home == number).count() > 0)
        .unwrap()
}

fn a_node_that_is_cut_off_keeps_its_units_and_gives_them_back(cluster: &Cluster) {
    let victim = victim(cluster, 1);
    let others: Vec<usize> = (1..=3).filter(|number| *number != victim).collect();
    let asked = others[0];
    let fenced = "[Service]\nExecStart=/usr/bin/sleep infinity\n[X-Fleet]\nFence=yes\nMachineMetadata=zone=z"
        .to_owned();
    let metadata = format!("{fenced}{victim}\nMachineMetadata=zone=z{asked}\nPrefer=zone=z{victim}\n");
    cluster.node(asked).put("fenced.service", &metadata, "launched");
    cluster.wait("the fenced unit runs on the victim", 30, |cluster| {
        (cluster.node(asked).home("fenced.service") == Some(victim)).then_some(())
    });
    let own: Vec<String> = units()
        .into_iter()
        .zip(homes(cluster, asked))
        .filter(|(_, home)| *home == victim)
        .map(|(unit, _)| unit)
        .collect();

    cluster.node(victim).isolate(true);
    cluster.wait("the others took over", 30, |cluster| {
        own.iter().all(|unit| cluster.node(asked).home(unit).is_some_and(|home| home != victim)).then_some(())
    });
    for unit in &own {
        assert_eq!(cluster.node(victim).active(unit), "active", "a node that is cut off stops nothing");
    }
    // The fenced unit must be down on the isolated side before it comes up on the other.
    let mut down_first = false;
    cluster.wait("the fenced unit runs elsewhere", 30, |cluster| {
        let up_there = cluster.node(asked).active("fenced.service") == "active";
        down_first |= cluster.node(victim).active("fenced.service") != "active" && !up_there;
        up_there.then_some(())
    });
    assert!(down_first, "the fenced unit ran on both sides");
    assert_ne!(cluster.node(victim).active("fenced.service"), "active");

    cluster.node(victim).isolate(false);
    all_once(cluster, &[1, 2, 3]);
    cluster.node(asked).destroy("fenced.service");
}

fn a_frozen_daemon_wakes_up_and_lets_go(cluster: &Cluster) {
    let victim = victim(cluster, 1);
    let asked = if victim == 1 { 2 } else { 1 };
    let own: Vec<String> = units()
        .into_iter()
        .zip(homes(cluster, asked))
        .filter(|(_, home)| *home == victim)
        .map(|(unit, _)| unit)
        .collect();
    cluster.node(victim).signal("fleet.service", "STOP");
    cluster.wait("others took over from the frozen one", 30, |cluster| {
        own.iter().all(|unit| cluster.node(asked).home(unit).is_some_and(|home| home != victim)).then_some(())
    });
    cluster.node(victim).signal("fleet.service", "CONT");
    all_once(cluster, &[1, 2, 3]);
    cluster.wait("it is back", 30, |cluster| (cluster.node(asked).machines().len() == 3).then_some(()));
}

fn a_killed_node_is_replaced_and_may_return(cluster: &mut Cluster) {
    // Something for the node to lose, whoever it is.
    for number in 1..=3 {
        let text = format!("{SLEEP}[X-Fleet]\nPrefer=zone=z{number}\n");
        cluster.node(1).put(&format!("pet{number}.service"), &text, "launched");
    }
    let victim = {
        let etcd = cluster.etcd_leader();
        if etcd == 3 { 2 } else { 3 }
    };
    let pet = format!("pet{victim}.service");
    cluster
        .wait("the pet is at home", 30, |cluster| (cluster.node(1).home(&pet) == Some(victim)).then_some(()));
    cluster.kill(victim);
    let start = Instant::now();
    cluster.wait("the pet runs elsewhere", 60, |cluster| {
        cluster.node(1).home(&pet).filter(|home| *home != victim)
    });
    let elapsed = start.elapsed();
    println!("node killed, its unit active elsewhere after {elapsed:?} with a TTL of {TTL:?}");
    assert!(elapsed < TTL * 4, "{elapsed:?}");
    cluster.power_on(victim);
    cluster.wait("the node is back", 60, |cluster| (cluster.node(1).machines().len() == 3).then_some(()));
    all_once(cluster, &[1, 2, 3]);
    assert_eq!(cluster.node(victim).active(&pet), "inactive", "what moved stays where it is");
}
