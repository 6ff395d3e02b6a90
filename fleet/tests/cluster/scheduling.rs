//! Units on one node and on three, as users place them.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::time::Instant;

use fleet::{
    model::unit_name::UnitName,
    store::{
        keys::{DEFAULT_PREFIX, KeySpace, StoreKey},
        records::UnitRecord,
    },
};

use crate::nodes::{Cluster, Node, Options, can_boot};

/// A service that stays up.
pub(crate) const SLEEP: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n";

fn sleep_with(requirements: &str) -> String {
    format!("{SLEEP}[X-Fleet]\n{requirements}\n")
}

#[test]
fn one_node_holds_units_of_every_kind() {
    if !can_boot() {
        return;
    }
    let cluster = Cluster::boot(1, &Options::default());
    let node = cluster.node(1);

    kinds_of_units(&cluster, node);
    a_restart_of_the_daemon_touches_no_unit(&cluster, node);
    systemd_and_the_bus_may_be_others(&cluster, node);
    a_change_replaces_the_unit_in_place(&cluster, node);
    a_restart_order_is_obeyed_once(&cluster, node);
    what_is_wrong_is_told(&cluster, node);
    stop_unload_destroy(&cluster, node);
}

fn kinds_of_units(cluster: &Cluster, node: &Node) {
    node.put(
        "once.service",
        "[Service]\nType=oneshot\nExecStart=/usr/bin/sh -c 'echo ran >> /run/once'\n",
        "launched",
    );
    node.put(
        "tick.service",
        "[Service]\nType=oneshot\nExecStart=/usr/bin/sh -c 'echo tick >> /run/tick'\n",
        "loaded",
    );
    node.put("tick.timer", "[Timer]\nOnActiveSec=1s\nAccuracySec=10ms\n", "launched");
    node.put("echo.socket", "[Socket]\nListenStream=/run/echo.sock\nAccept=yes\n", "launched");
    node.put("echo@.service", "[Service]\nExecStart=/usr/bin/cat\nStandardInput=socket\n", "inactive");
    node.put("seen.service", SLEEP, "loaded");
    node.put("seen.path", "[Path]\nPathExists=/run/show\nUnit=seen.service\n", "launched");
    node.put("run-shelf.mount", "[Mount]\nWhat=tmpfs\nWhere=/run/shelf\nType=tmpfs\n", "launched");
    node.put(
        "web@1.service",
        "[Unit]\nAfter=db@1.service\nRequires=db@1.service\n[Service]\nExecStart=/usr/bin/sleep infinity\n",
        "launched",
    );
    node.put("db@1.service", SLEEP, "launched");
    for unit in ["tick.timer", "echo.socket", "seen.path", "run-shelf.mount", "web@1.service", "db@1.service"]
    {
        cluster.wait(&format!("{unit} is active"), |_| node.home(unit));
    }
    cluster.wait("the timer fired", |_| (node.shell("cat /run/tick") == "tick\n").then_some(()));
    cluster.wait("what runs once has run to its end", |_| {
        let ended = node.place("once.service") == Some((1, "inactive".to_owned()));
        (ended && node.shell("cat /run/once") == "ran\n").then_some(())
    });
    node.shell("touch /run/show");
    cluster.wait("the path unit started its service", |_| {
        (node.active("seen.service") == "active").then_some(())
    });
}

fn a_restart_of_the_daemon_touches_no_unit(cluster: &Cluster, node: &Node) {
    let before = Some(cluster.wait("it runs", |_| node.main_pid("web@1.service")));
    let daemon = node.main_pid("fleet.service");
    node.signal("fleet.service", "KILL");
    cluster.wait("fleetd is back", |_| {
        let pid = node.main_pid("fleet.service");
        (pid.is_some() && pid != daemon && node.get("/fleet/v1/machines").0 == 200).then_some(())
    });
    cluster.settle();
    assert_eq!(node.main_pid("web@1.service"), before);
    assert_eq!(node.shell("cat /run/once"), "ran\n", "what ran to its end is not run again");
    cluster.wait("its units are told again", |_| node.home("db@1.service"));
}

/// Units that change while nobody can tell are told of afterwards, and orders are obeyed again.
fn systemd_and_the_bus_may_be_others(cluster: &Cluster, node: &Node) {
    let daemon = node.main_pid("fleet.service");
    for (number, other) in ["systemctl daemon-reexec", "kill -KILL $(systemctl show -P MainPID dbus.service)"]
        .into_iter()
        .enumerate()
    {
        let (lost, new) = (format!("lost@{number}.service"), format!("new@{number}.service"));
        node.put(&lost, SLEEP, "launched");
        cluster.wait("it runs", |_| node.home(&lost));

        node.shell(&format!("{other}; systemctl kill --signal=KILL {lost}"));

        cluster.wait("its end is told", |_| node.place(&lost).filter(|(_, active)| active == "failed"));
        node.put(&new, SLEEP, "launched");
        cluster.wait("a new one starts", |_| node.home(&new));
        node.shell(&format!("systemctl kill --signal=KILL {new}"));
        cluster.wait("its end is heard", |_| node.place(&new).filter(|(_, active)| active == "failed"));
    }
    assert_eq!(node.main_pid("fleet.service"), daemon);
}

fn a_change_replaces_the_unit_in_place(cluster: &Cluster, node: &Node) {
    let before = cluster.wait("it runs", |_| node.main_pid("db@1.service"));
    node.put("db@1.service", "[Service]\nExecStart=/usr/bin/sleep 100000\n", "launched");
    cluster.wait("the new content runs", |_| {
        let changed = node.property("db@1.service", "ExecStart").contains("100000");
        node.main_pid("db@1.service").filter(|pid| changed && *pid != before)
    });
    cluster.wait("the new content is active", |_| node.home("db@1.service"));
}

fn a_restart_order_is_obeyed_once(cluster: &Cluster, node: &Node) {
    node.put(
        "twice.service",
        "[Service]\nExecStart=/usr/bin/sh -c 'echo up >> /run/twice; exec sleep infinity'\n",
        "launched",
    );
    cluster.wait("it runs", |_| node.home("twice.service"));
    // Active means that the shell was started, not that it has written.
    cluster.wait("it has written", |_| (node.shell("cat /run/twice") == "up\n").then_some(()));
    node.set("twice.service", "launched");
    node.order("POST", "/fleet/v1/units/twice.service/restart", None);
    cluster.wait("it started again", |_| (node.shell("cat /run/twice") == "up\nup\n").then_some(()));
    cluster.settle();
    assert_eq!(node.shell("cat /run/twice"), "up\nup\n");
    cluster.wait("it is told active", |_| node.home("twice.service"));
}

fn what_is_wrong_is_told(cluster: &Cluster, node: &Node) {
    node.put("bad.service", "[Service]\nExecStart=/usr/bin/false\n", "launched");
    cluster
        .wait("the failure is told", |_| node.place("bad.service").filter(|(_, active)| active == "failed"));
    node.put("alone.service", &sleep_with("MachineMetadata=zone=nowhere"), "launched");
    cluster.settle();
    assert_eq!(node.place("alone.service"), None);
}

fn stop_unload_destroy(cluster: &Cluster, node: &Node) {
    node.set("web@1.service", "loaded");
    cluster.wait("it stopped", |_| (node.active("web@1.service") == "inactive").then_some(()));
    node.set("web@1.service", "inactive");
    cluster.wait("it is unloaded", |_| {
        (node.shell("ls /run/fleet/units").split_whitespace().all(|name| name != "web@1.service"))
            .then_some(())
    });
    for unit in node.units() {
        node.destroy(unit["name"].as_str().unwrap());
    }
    cluster.wait("nothing is left", |_| {
        (node.shell("ls /run/fleet/units").trim().is_empty() && node.states().is_empty()).then_some(())
    });
    assert_eq!(node.active("db@1.service"), "inactive");
}

#[test]
fn three_nodes_share_units() {
    if !can_boot() {
        return;
    }
    let cluster = Cluster::boot(3, &Options::default());

    conflicts_globals_metadata_peers(&cluster);
    a_drain_empties_a_node_and_ends(&cluster);
    every_daemon_restarts_and_no_unit_does(&cluster);
    a_rolling_change_goes_one_by_one_and_back(&cluster);
    a_global_change_goes_machine_by_machine_and_back(&cluster);
    a_thousand_units(&cluster);
}

fn conflicts_globals_metadata_peers(cluster: &Cluster) {
    let node = cluster.node(1);
    node.put("mongo@.service", &sleep_with("Conflicts=mongo@*.service"), "inactive");
    for number in 1..=4 {
        node.put(&format!("mongo@{number}.service"), &sleep_with("Conflicts=mongo@*.service"), "launched");
    }
    node.put("everywhere.service", &sleep_with("Global=true"), "launched");
    node.put("zoned.service", &sleep_with("MachineMetadata=zone=z2"), "launched");
    node.put("sidekick.service", &sleep_with("MachineOf=zoned.service"), "launched");

    let mut homes: Vec<usize> = (1..=3)
        .map(|number| {
            let unit = format!("mongo@{number}.service");
            cluster.wait(&unit, |_| node.home(&unit))
        })
        .collect();
    homes.sort_unstable();
    assert_eq!(homes, [1, 2, 3]);
    assert_eq!(cluster.wait("zoned runs", |_| node.home("zoned.service")), 2);
    assert_eq!(cluster.wait("sidekick runs", |_| node.home("sidekick.service")), 2);
    assert_eq!(node.place("mongo@4.service"), None, "there is no fourth node");
    for number in 1..=3 {
        cluster.wait("the global unit is everywhere", |cluster| {
            (cluster.node(number).active("everywhere.service") == "active").then_some(())
        });
    }
}

fn a_drain_empties_a_node_and_ends(cluster: &Cluster) {
    let node = cluster.node(1);
    node.put("free.service", SLEEP, "launched");
    let home = cluster.wait("it runs", |_| node.home("free.service"));
    let machine = cluster.node(home).machine_id();
    let drain = |on: bool| {
        let method = if on { "PUT" } else { "DELETE" };
        node.order(method, &format!("/fleet/v1/machines/{machine}/drain"), None);
    };
    drain(true);
    let moved = cluster.wait("it moved", |_| node.home("free.service").filter(|new| *new != home));
    assert_ne!(moved, home);
    drain(false);
}

fn every_daemon_restarts_and_no_unit_does(cluster: &Cluster) {
    let units =
        ["mongo@1.service", "mongo@2.service", "mongo@3.service", "zoned.service", "sidekick.service"];
    // The drain before this one ended a moment ago: its units may still be on their way back.
    let pids = |cluster: &Cluster| -> Option<Vec<String>> {
        let pid = |unit: &&str| {
            let home = cluster.node(1).home(unit)?;
            cluster.node(home).main_pid(unit)
        };
        units.iter().map(pid).collect()
    };
    let before = cluster.wait("every unit runs", pids);
    for number in 1..=3 {
        let node = cluster.node(number);
        node.shell("systemctl restart fleet.service");
        cluster.wait("it is back", |_| (node.get("/fleet/v1/machines").0 == 200).then_some(()));
    }
    cluster.settle();
    assert_eq!(cluster.wait("every unit still runs", pids), before);
    assert_eq!(cluster.node(2).machines().len(), 3);
}

fn a_rolling_change_goes_one_by_one_and_back(cluster: &Cluster) {
    let node = cluster.node(1);
    let text = |seconds: &str| {
        format!("[Service]\nExecStart={seconds}\n[X-Fleet]\nHealthyAfter=300ms\nHealthDeadline=4min\n")
    };
    let units: Vec<String> = (1..=3).map(|number| format!("roll@{number}.service")).collect();
    for unit in &units {
        node.put(unit, &text("/usr/bin/sleep infinity"), "launched");
    }
    for unit in &units {
        cluster.wait(unit, |_| node.home(unit));
    }
    for unit in &units {
        node.put(unit, &text("/usr/bin/sleep 99999"), "launched");
    }
    let runs_the_change = |cluster: &Cluster, unit: &str| {
        let home = node.home(unit)?;
        cluster.node(home).property(unit, "ExecStart").contains("99999").then_some(())
    };
    for unit in &units {
        cluster.wait("the change arrives", |cluster| runs_the_change(cluster, unit));
    }
    // It is never up: one that comes up and falls may have proved well before, where the host starves.
    let broken = text("/usr/bin/sleep 99998\nExecStartPre=/usr/bin/false");
    node.put(&units[0], &broken, "launched");
    cluster.wait("the failed change is taken back", |_| {
        let unit = node.get(&format!("/fleet/v1/units/{}", units[0])).1;
        unit.contains("taken back: roll@1.service failed").then_some(())
    });
    cluster.wait("what was there runs again", |cluster| runs_the_change(cluster, &units[0]));
}

fn a_global_change_goes_machine_by_machine_and_back(cluster: &Cluster) {
    let node = cluster.node(1);
    let text = |service: &str| {
        format!("[Service]\n{service}\n[X-Fleet]\nGlobal=true\nHealthyAfter=300ms\nHealthDeadline=4min\n")
    };
    let all_run = |cluster: &Cluster, content: &str| {
        let runs = |node: &Node| {
            node.active("wide.service") == "active"
                && node.property("wide.service", "ExecStart").contains(content)
        };
        cluster.nodes.iter().all(runs).then_some(())
    };
    node.put("wide.service", &text("ExecStart=/usr/bin/sleep infinity"), "launched");
    cluster.wait("it runs everywhere", |cluster| all_run(cluster, "infinity"));

    node.put("wide.service", &text("ExecStart=/usr/bin/sleep 99999"), "launched");
    cluster.wait("the change is everywhere", |cluster| all_run(cluster, "99999"));
    // In microseconds of a clock that the nodes share.
    let since = |node: &Node| node.property("wide.service", "ActiveEnterTimestampMonotonic").parse::<u64>();
    let mut starts: Vec<u64> = cluster.nodes.iter().map(|node| since(node).unwrap()).collect();
    starts.sort_unstable();
    let proven = starts.windows(2).all(|pair| pair[1] - pair[0] >= 300_000);
    assert!(proven, "each is proven before the next: active since {starts:?}");
    // Only a change that has ended is what the next one may go back to.
    let key = KeySpace::with_prefix(DEFAULT_PREFIX)
        .key_path(&StoreKey::Unit(UnitName::parse("wide.service").unwrap()));
    cluster.wait("the change has ended", |_| {
        let record = node.shell(&format!("ETCDCTL_API=3 etcdctl get --print-value-only {key}"));
        let record: UnitRecord = serde_json::from_str(record.trim()).ok()?;
        record.rollout.is_none().then_some(())
    });

    let broken =
        "ExecStartPre=/usr/bin/sh -c 'echo tried >> /run/tried; exit 1'\nExecStart=/usr/bin/sleep 99998";
    node.put("wide.service", &text(broken), "launched");
    cluster.wait("the failed change is taken back", |_| {
        let unit = node.get("/fleet/v1/units/wide.service").1;
        (unit.contains("taken back: wide.service on machine") && unit.contains("failed")).then_some(())
    });
    cluster.wait("what was there runs everywhere", |cluster| all_run(cluster, "99999"));
    let tried = cluster.nodes.iter().filter(|node| node.shell("cat /run/tried").contains("tried"));
    assert_eq!(tried.count(), 1, "no machine after the first took the change that failed");
}

fn a_thousand_units(cluster: &Cluster) {
    const COUNT: usize = 1000;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for lane in 0..4 {
            scope.spawn(move || {
                for number in (lane..COUNT).step_by(4) {
                    let node = cluster.node(number % 3 + 1);
                    node.put(&format!("many@{number}.service"), SLEEP, "launched");
                }
            });
        }
    });
    let submitted = start.elapsed();
    let node = cluster.node(1);
    let running = |node: &Node| {
        let line = "systemctl list-units --no-legend --plain --state=running 'many@*' | wc -l";
        node.shell(line).trim().parse::<usize>().unwrap_or(0)
    };
    cluster.wait("all of them run", |cluster| {
        let total: usize = cluster.nodes.iter().map(running).sum();
        (total == COUNT).then_some(())
    });
    println!("1000 units: submitted in {submitted:?}, all running after {:?}", start.elapsed());
    cluster.wait("all of them are told active", |_| {
        let states = node.states();
        let active = states.iter().filter(|state| {
            state["name"].as_str().is_some_and(|name| name.starts_with("many@"))
                && state["systemdActiveState"] == "active"
        });
        (active.count() == COUNT).then_some(())
    });
    let loads: Vec<usize> = cluster.nodes.iter().map(running).collect();
    assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 8, "evenly spread: {loads:?}");
}
