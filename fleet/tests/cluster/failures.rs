//! What breaks, and what goes on running.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::time::{Duration, Instant};

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
    let mut cluster = Cluster::boot(3, &options());
    for unit in units() {
        cluster.node(1).put(&unit, SLEEP, "launched");
    }
    homes(&cluster, 1);

    a_node_that_is_cut_off_keeps_its_units_and_gives_them_back(&cluster);
    a_frozen_daemon_wakes_up_and_lets_go(&cluster);
    a_killed_node_is_replaced_and_may_return(&mut cluster);
    a_clone_stays_out_and_a_new_id_leaves_no_ghost(&cluster);
    a_machine_that_is_powered_off_leaves_at_once(&mut cluster);
    a_daemon_that_is_stopped_takes_its_units_along(&cluster);
}

fn a_clone_stays_out_and_a_new_id_leaves_no_ghost(cluster: &Cluster) {
    let (victim, asked) = victim(cluster);
    let original = (1..=3).find(|number| ![victim, asked].contains(number)).unwrap_or(asked);
    let present = |ids: &[&str]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        ids.sort();
        cluster.wait("these machines are there", |cluster| {
            (cluster.node(asked).machines() == ids).then_some(())
        });
    };
    let restart_as = |id: &str| {
        let line = format!(
            "sed -i '/^machine_id=/d' /etc/fleet/fleet.conf; echo machine_id={id} >> /etc/fleet/fleet.conf"
        );
        cluster.node(victim).shell(&format!("{line}; systemctl restart fleet"));
    };
    let ids = [1, 2, 3].map(|number| cluster.node(number).machine_id());
    let others: Vec<&str> =
        ids.iter().map(String::as_str).filter(|id| *id != cluster.node(victim).machine_id()).collect();
    start_on(cluster, victim, "renamed.service", &format!("{WITNESS}[X-Fleet]\nFence=yes\n"));

    // Another ID, and the machine of the old one is gone at once, its unit down before it is up elsewhere.
    restart_as("ffffffffffffffffffffffffffffffff");
    present(&[others[0], others[1], "ffffffffffffffffffffffffffffffff"]);
    all_once_of(cluster, &["renamed.service"]);
    cluster.node(asked).destroy("renamed.service");

    // The ID of another machine: that one does not notice, and this one says why it stays out.
    start_on(cluster, original, "twin.service", &format!("{SLEEP}[X-Fleet]\nFence=yes\n"));
    let pid = cluster.node(original).main_pid("twin.service");
    let registrations = "journalctl -u fleet -o cat --no-pager | grep -c 'this machine is registered'";
    let before = cluster.node(original).shell(registrations);
    restart_as(&cluster.node(original).machine_id());
    present(&others);
    cluster.wait("the clone is known to be one", |cluster| {
        cluster
            .node(victim)
            .property("fleet.service", "StatusText")
            .contains("two machines have one ID")
            .then_some(())
    });
    let refused = cluster.node(victim).shell("fleetctl --endpoint=unix:///run/fleet.sock list-machines 2>&1");
    assert!(refused.contains("stays outside the cluster"), "{refused}");
    assert!(
        cluster
            .node(victim)
            .shell("journalctl -u fleet -o cat --no-pager")
            .contains("two machines have one ID")
    );
    assert_ne!(cluster.node(victim).active("twin.service"), "active");
    for _ in 0..20 {
        assert_eq!(
            cluster.node(original).get("/fleet/v1/machines").0,
            200,
            "the original answers each request"
        );
    }
    assert_eq!(cluster.node(original).main_pid("twin.service"), pid);
    assert_eq!(cluster.node(original).shell(registrations), before, "the original never registered anew");
    cluster.node(asked).destroy("twin.service");

    restart_as(&cluster.node(victim).machine_id());
    present(&ids.each_ref().map(String::as_str));
    cluster.settle();
}

fn all_once_of(cluster: &Cluster, units: &[&str]) {
    for unit in units {
        cluster.wait("it runs exactly once", |cluster| {
            let copies =
                [1, 2, 3].iter().filter(|node| cluster.node(**node).active(unit) == "active").count();
            (copies == 1).then_some(())
        });
    }
}

fn a_machine_that_is_powered_off_leaves_at_once(cluster: &mut Cluster) {
    let (victim, asked) = victim(cluster);
    // Its last breath takes a while, and only then may it live elsewhere.
    let slow = WITNESS.replace("ExecStopPost=", "ExecStop=/usr/bin/sleep 2\nExecStopPost=");
    let witness = "/run/was-down /var/was-down";
    let text = slow.replace("> /run/was-down'", &format!("| tee {witness}'"));
    start_on(cluster, victim, "evening.service", &text);

    // What it says at the end must outlive it.
    cluster.node(victim).shell("mkdir -p /var/log/journal; systemctl restart systemd-journald");

    let start = Instant::now();
    cluster.node(victim).shell("systemctl poweroff");
    cluster.wait("it has left", |cluster| (cluster.node(asked).machines().len() == 2).then_some(()));
    let left = start.elapsed();
    cluster.wait("its unit runs elsewhere", |cluster| {
        cluster.node(asked).home("evening.service").filter(|home| *home != victim)
    });
    println!(
        "powered off, out of the list after {left:?} with a TTL of {TTL:?} and a unit that takes 2 s to stop"
    );

    let home = cluster.node(asked).home("evening.service").unwrap_or(asked);
    // It is assigned a moment before it runs.
    let up: f64 = cluster.wait("its unit has come up", |cluster| {
        cluster.node(home).shell("cat /run/came-up 2>/dev/null || true").trim().parse().ok()
    });
    cluster.kill(victim);
    cluster.power_on(victim);
    cluster.wait("it is back", |cluster| (cluster.node(asked).machines().len() == 3).then_some(()));
    let last_words = cluster.node(victim).shell("journalctl -u fleet -o cat --no-pager | tail -80");
    assert!(last_words.contains("this machine has left the cluster"), "gone after {left:?}: {last_words}");
    let down: f64 = cluster.node(victim).shell("cat /var/was-down").trim().parse().unwrap();
    assert!(down <= up, "down after {down} s, up elsewhere after {up} s");
    cluster.node(asked).destroy("evening.service");
}

fn a_daemon_that_is_stopped_takes_its_units_along(cluster: &Cluster) {
    cluster.node(1).put("mine.service", &format!("{SLEEP}[X-Fleet]\nPrefer=zone=z1\n"), "launched");
    cluster
        .wait("it runs at home", |cluster| (cluster.node(2).home("mine.service") == Some(1)).then_some(()));
    // A restart is none of it, by whatever name.
    let pid = cluster.node(1).main_pid("mine.service");
    for restart in ["systemctl restart fleet", "systemctl kill -s TERM fleet", "systemctl try-restart fleet"]
    {
        let before = cluster.node(1).main_pid("fleet.service");
        cluster.node(1).shell(restart);
        cluster.wait("the daemon is another one", |cluster| {
            cluster.node(1).main_pid("fleet.service").filter(|pid| Some(pid) != before.as_ref())
        });
    }
    cluster
        .wait("the daemon serves again", |cluster| (cluster.node(1).get("/health").0 == 200).then_some(()));
    assert_eq!(cluster.node(1).main_pid("mine.service"), pid);

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
