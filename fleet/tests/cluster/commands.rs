//! Every verb of `fleetctl`, typed on real nodes: one, then three.
use crate::{
    nodes::{Cluster, Node, Options, address, can_boot},
    scheduling::SLEEP,
    traces,
};

const UNITS: [(&str, &str); 6] = [
    (
        "hello.service",
        "[Unit]\nDescription=Says hello\n\n[Service]\nExecStart=/usr/bin/sh -c 'echo Hello; exec sleep infinity'\n",
    ),
    ("mongo@.service", "[Service]\nExecStart=/usr/bin/sleep infinity\n\n[X-Fleet]\nConflicts=%p@*.service\n"),
    ("everywhere.service", "[Service]\nExecStart=/usr/bin/sleep infinity\n\n[X-Fleet]\nGlobal=true\n"),
    ("broken.service", "[Service]\nExecStartPre=/usr/bin/false\nExecStart=/usr/bin/sleep infinity\n"),
    ("once.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/true\n"),
    ("slow.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/sleep 3\n"),
];

fn boot(count: usize) -> Cluster {
    let cluster = Cluster::boot(count, &Options::default());
    for (name, text) in UNITS {
        cluster.node(1).write(&format!("/root/{name}"), text);
    }
    cluster
}

/// What is seen when this is typed on the node, and the exit status if it is not 0.
fn typed(node: &Node, line: &str) -> String {
    let seen = node.shell(&format!("cd /root; timeout 300 {line} 2>&1; echo [$?]"));
    seen.strip_suffix("[0]\n").map_or_else(|| seen.clone(), str::to_owned)
}

fn legend(number: usize) -> String {
    format!("{}.../{}", format!("{number:x}").repeat(8), address(number))
}

#[test]
fn one_node_obeys_every_verb() {
    if !can_boot() {
        return;
    }
    let cluster = boot(1);
    let node = cluster.node(1);
    let here = legend(1);
    let told = |line: &str, expected: &str| assert_eq!(typed(node, line), expected, "{line}");

    traces::calls_are_as_systemd_describes_them(node);
    traces::every_verb_leaves_systemd_as_it_found_it(&cluster, node);
    traces::what_activates_a_unit_may_come_before_it(&cluster, node);
    traces::a_refusal_is_said_once(&cluster, node);
    traces::another_text_follows_a_slow_stop(&cluster, node);
    traces::links_of_an_earlier_fleetd_are_removed(&cluster, node);
    told("fleetctl list-machines --no-legend", &format!("11111111...\t{}\tzone=z1\n", address(1)));
    told("fleetctl submit hello.service", "Unit hello.service inactive\n");
    told("fleetctl load hello", &format!("Unit hello.service loaded on {here}\n"));
    assert_eq!(node.active("hello.service"), "inactive");
    told("fleetctl start hello", &format!("Unit hello.service launched on {here}\n"));
    assert_eq!(node.active("hello.service"), "active");
    told("fleetctl list-units --no-legend", &format!("hello.service\t{here}\tactive\trunning\n"));
    told(
        "fleetctl list-unit-files --no-legend --fields=unit,dstate,state,target,desc",
        &format!("hello.service\tlaunched\tlaunched\t{here}\tSays hello\n"),
    );
    assert!(typed(node, "fleetctl cat hello").ends_with("exec sleep infinity'\n"));
    assert!(typed(node, "fleetctl status hello").contains("Active: active (running)"));
    cluster.wait("what it says is in the journal", |_| {
        typed(node, "fleetctl journal --output=cat hello").contains("Hello\n").then_some(())
    });
    restarts(&cluster);
    told(
        "fleetctl stop hello",
        &format!("Unit hello.service loaded on {here}\nSuccessfully stopped units [hello.service].\n"),
    );
    // Loaded means that systemd was told to stop it.
    cluster.wait("it stopped", |_| (node.active("hello.service") == "inactive").then_some(()));
    told(
        "fleetctl unload hello",
        "Unit hello.service inactive\nSuccessfully unloaded units [hello.service].\n",
    );
    told("fleetctl destroy hello", "Destroyed hello.service\n");
    told("fleetctl list-unit-files --no-legend", "");
    waits(node);
    replaces(&cluster);
    others(node);
}

fn restarts(cluster: &Cluster) {
    let node = cluster.node(1);
    let before = cluster.wait("it runs", |_| node.main_pid("hello.service"));

    let here = legend(1);
    let expected = format!("Unit hello.service loaded on {here}\nUnit hello.service launched on {here}\n");
    assert_eq!(typed(node, "fleetctl restart hello"), expected);

    cluster.wait("another process runs", |_| node.main_pid("hello.service").filter(|pid| *pid != before));
}

fn waits(node: &Node) {
    let failed = typed(node, "fleetctl start broken.service");
    assert!(failed.contains("Failed to find an active unit broken.service: systemd says failed"), "{failed}");
    assert!(failed.ends_with("[1]\n"), "{failed}");

    let started = typed(node, "fleetctl start once.service");
    assert!(started.ends_with(&format!("Unit once.service launched on {}\n", legend(1))), "{started}");

    // The original gave up on a unit that takes longer than two seconds to become active.
    let slow = typed(node, "fleetctl start slow.service");
    assert!(slow.ends_with(&format!("Unit slow.service launched on {}\n", legend(1))), "{slow}");
    assert_eq!(node.active("slow.service"), "active");
}

fn replaces(cluster: &Cluster) {
    let node = cluster.node(1);
    assert!(!typed(node, "fleetctl start hello.service").contains("[1]"));
    let before = Some(cluster.wait("it runs", |_| node.main_pid("hello.service")));
    node.write(
        "/root/hello.service",
        "[Service]\nExecStart=/usr/bin/sleep 100000\n[X-Fleet]\nHealthyAfter=1s\n",
    );
    let warned = typed(node, "fleetctl start hello.service");
    assert!(
        warned.contains("differs from local unit file hello.service. Add --replace to override."),
        "{warned}"
    );
    assert_eq!(node.main_pid("hello.service"), before);

    let replaced = typed(node, "fleetctl start --replace hello.service");
    assert_eq!(replaced, format!("Unit hello.service launched on {}\n", legend(1)));
    assert!(node.shell("systemctl show -P ExecStart hello.service").contains("100000"));
    assert_eq!(node.active("hello.service"), "active");
    replacements_that_fail(node);
}

/// A simple service is active at once, and fails a moment later.
fn replacements_that_fail(node: &Node) {
    let kept = node.main_pid("hello.service");
    let text = "[Service]\nExecStart=/usr/bin/sh -c 'sleep 1; exit 1'\n[X-Fleet]\nHealthyAfter=3s\n";
    node.write("/root/hello.service", text);

    let failed = typed(node, "fleetctl start --replace hello.service");

    assert!(failed.contains("taken back: hello.service failed") && failed.ends_with("[1]\n"), "{failed}");
    assert!(typed(node, "fleetctl cat hello").contains("sleep 100000"));
    assert_ne!(node.main_pid("hello.service"), kept, "the former text was started anew");
    node.write("/root/hello.service", &format!("{text}AutoRevert=no\n"));
    let failed = typed(node, "fleetctl start --replace hello.service");
    assert!(failed.contains("failed and stays") && failed.ends_with("[1]\n"), "{failed}");
    let good = "[Service]\nExecStart=/usr/bin/sleep 100000\n[X-Fleet]\nHealthyAfter=1s\n";
    node.write("/root/hello.service", good);
    assert!(!typed(node, "fleetctl start --replace hello.service").contains("[1]"));
    let global =
        "[Service]\nExecStart=/usr/bin/sh -c 'sleep 1; exit 1'\n[X-Fleet]\nGlobal=true\nHealthyAfter=3s\n";
    node.write("/root/all.service", &format!("{SLEEP}[X-Fleet]\nGlobal=true\n"));
    assert!(!typed(node, "fleetctl start all.service").contains("[1]"));
    // A text that runs nowhere yet has nothing to be taken back to, and nobody waits for its proof.
    node.shell("until fleetctl list-units --no-legend | grep -q '^all.service.*active'; do sleep 0.1; done");
    node.write("/root/all.service", global);
    let failed = typed(node, "fleetctl start --replace all.service");
    assert!(failed.contains("taken back: all.service on machine") && failed.ends_with("[1]\n"), "{failed}");
    typed(node, "fleetctl destroy all.service");
}

fn others(node: &Node) {
    let global = typed(node, "fleetctl start everywhere.service");
    assert!(global.ends_with("Triggered global unit everywhere.service start\n"), "{global}");
    assert_eq!(
        typed(node, "fleetctl restart everywhere.service"),
        "Triggered global unit everywhere.service restart\n"
    );
    assert!(
        typed(node, "fleetctl explain hello").starts_with("hello.service: scheduled on machine 11111111\n")
    );
    assert!(typed(node, "fleetctl top --once").starts_with("1 machines, "));
    assert_eq!(typed(node, "fleetctl rebalance"), "The machines are balanced: nothing to move\n");
    assert!(typed(node, "fleetctl release-brake").starts_with("Released the brake"));
    assert!(
        typed(node, "fleetctl import --from unix:///run/fleet.sock --dry-run")
            .contains("Found same unit hello.service")
    );
    assert!(typed(node, "fleetctl ssh nothing true").starts_with("Unable to proceed"));
    // The one who asks keeps his side open: the end of the answer ends it.
    let proxied = node.shell(
        "fleetctl fd-forward /run/fleet.sock \
         < <(printf 'GET /fleet/v1/units HTTP/1.0\\r\\n\\r\\n'; exec sleep infinity 2>/dev/null)",
    );
    assert!(proxied.starts_with("HTTP/1.0 200 OK") && proxied.ends_with("}]}"), "{proxied}");
}

#[test]
fn three_nodes_obey_every_verb() {
    if !can_boot() {
        return;
    }
    let cluster = boot(3);
    let node = cluster.node(1);

    let started = typed(node, "fleetctl start mongo@1 mongo@2 mongo@3");
    let mut places: Vec<String> = started
        .lines()
        .filter_map(|line| line.split_once(" launched on "))
        .map(|(_, place)| place.to_owned())
        .collect();
    places.sort();
    assert_eq!(places, (1..=3).map(legend).collect::<Vec<_>>(), "{started}");
    assert_eq!(typed(node, "fleetctl list-machines --no-legend").lines().count(), 3);
    no_fourth_fits(node);
    any_node_answers(&cluster);
    drains(&cluster);
    by_ssh(&cluster);
    slots(&cluster);
    let destroyed = typed(cluster.node(2), "fleetctl destroy mongo@1 mongo@2 mongo@3 mongo@4 hello");
    assert_eq!(destroyed.lines().count(), 5, "{destroyed}");
    assert_eq!(typed(node, "fleetctl list-units --no-legend"), "");
}

fn no_fourth_fits(node: &Node) {
    let fourth = typed(node, "fleetctl start --block-attempts=2 mongo@4");

    assert!(
        fourth.contains("Unit mongo@4.service still waits: not scheduled: none of 3 machines can take it"),
        "{fourth}"
    );
    assert!(
        fourth.ends_with("timed out waiting for unit mongo@4.service to report state launched\n[1]\n"),
        "{fourth}"
    );
    let why = typed(node, "fleetctl explain mongo@4");
    assert_eq!(why.matches("found conflict with locally-scheduled Unit([mongo@").count(), 4, "{why}");
}

fn any_node_answers(cluster: &Cluster) {
    let list = |number: usize| typed(cluster.node(number), "fleetctl list-units");

    let first = list(1);

    assert!(first.matches("active\trunning").count() == 3, "{first}");
    for number in 2..=3 {
        // Another node may hear of the last state a moment later.
        cluster.wait("it sees the same", |_| (list(number) == first).then_some(()));
    }
}

fn drains(cluster: &Cluster) {
    let node = cluster.node(1);
    assert!(typed(node, "fleetctl start hello.service").contains("launched on"));
    let home = cluster.wait("hello has a home", |cluster| cluster.node(1).home("hello.service"));
    let id = cluster.node(home).machine_id();

    let drained = typed(node, &format!("fleetctl drain {}", &id[..8]));
    assert_eq!(drained, format!("Drained machine {}\n", legend(home)));
    cluster.wait("hello runs elsewhere", |cluster| {
        let elsewhere = cluster.node(1).home("hello.service").is_some_and(|now| now != home);
        (elsewhere && cluster.node(home).active("hello.service") == "inactive").then_some(())
    });
    traces::a_move_leaves_nothing(cluster, home, "hello.service");
    assert_eq!(
        typed(node, &format!("fleetctl undrain {id}")),
        format!("Undrained machine {}\n", legend(home))
    );
    cluster.wait("the machine takes units again", |cluster| {
        let states = typed(cluster.node(1), "fleetctl list-units --no-legend --fields=unit,machine");
        states.contains(&legend(home)).then_some(())
    });
}

/// `status`, `journal` and `ssh` reach units on other machines; `--tunnel` reaches the API there.
fn by_ssh(cluster: &Cluster) {
    let node = cluster.node(1);
    let key = node
        .shell("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519 && cat /root/.ssh/id_ed25519.pub");
    for number in 1..=3 {
        cluster.node(number).write("/root/.ssh/authorized_keys", &key);
    }
    let away = cluster.wait("a unit is elsewhere", |cluster| {
        (1..=3)
            .map(|each| format!("mongo@{each}.service"))
            .find_map(|unit| cluster.node(1).home(&unit).filter(|home| *home != 1).map(|home| (unit, home)))
    });
    let (unit, home) = away;
    cluster.wait("ssh answers there", |_| {
        let keys = node.shell(&format!("ssh-keyscan {} 2>/dev/null", address(home)));
        keys.contains("ssh-ed25519").then_some(())
    });
    let flags = "--ssh-username=root --strict-host-key-checking=false";
    let typed = |line: &str| typed(node, &line.replace("fleetctl", &format!("fleetctl {flags}")));

    assert!(typed(&format!("fleetctl status {unit}")).contains("Active: active (running)"));
    cluster.wait("the journal tells of the start", |_| {
        typed(&format!("fleetctl journal {unit}")).contains("Started").then_some(())
    });
    assert_eq!(typed(&format!("fleetctl ssh {unit} hostname")), format!("core-{home:02}\n"));
    assert_eq!(typed(&format!("fleetctl ssh {} exit 7", cluster.node(home).machine_id())), "[7]\n");
    let machines = typed("fleetctl list-machines");
    assert_eq!(typed(&format!("fleetctl --tunnel={} list-machines", address(home))), machines);
    // A machine whose key is not known is refused where nobody can be asked.
    let strict = node.shell(&format!("fleetctl --ssh-username=root ssh {unit} true 2>&1; echo [$?]"));
    assert!(strict.contains("Host key verification failed") && strict.ends_with("[255]\n"), "{strict}");
    // What is piped answers the question, and what follows it is the command's.
    let forget = "rm -f /root/.fleetctl/known_hosts";
    let piped = |answer: &str, words: &str| {
        node.shell(&format!(
            "{forget}; printf '{answer}' | timeout 60 fleetctl --ssh-username=root {words} 2>/tmp/err; echo [$?]"
        ))
    };
    let on_unit = format!("ssh {unit} cat");
    assert_eq!(piped("yes\\nrest\\n", &on_unit), "rest\n[0]\n", "{}", node.shell("cat /tmp/err"));
    assert_eq!(piped("Y\\nrest\\n", &on_unit), "rest\n[0]\n");
    assert!(node.shell("cat /tmp/err").contains("continue connecting"), "the question is shown");
    assert_eq!(piped("no\\nrest\\n", &on_unit), "[255]\n");
    assert_eq!(
        piped("yes\\n", &format!("--tunnel={} list-machines", address(home))),
        format!("{machines}[0]\n")
    );
    assert_ne!(
        piped("no\\n", &format!("--tunnel={} list-machines", address(home))),
        format!("{machines}[0]\n")
    );
    node.shell(&format!(
        "mkdir -p /root/.fleetctl && ssh-keyscan {} > /root/.fleetctl/known_hosts 2>/dev/null",
        address(home)
    ));
    assert_eq!(
        node.shell(&format!("fleetctl --ssh-username=root ssh {unit} hostname")),
        format!("core-{home:02}\n")
    );
}

/// Reboot slots are the same seen from any node, in etcd and through fleetd.
fn slots(cluster: &Cluster) {
    let id = |number: usize| cluster.node(number).machine_id();
    let socket = "locksmithctl -endpoint=unix:///run/fleet.sock";

    assert_eq!(typed(cluster.node(1), "locksmithctl status"), "Available: 1\nMax: 1\n");
    assert_eq!(typed(cluster.node(1), "locksmithctl lock"), "");
    let held = format!("Available: 0\nMax: 1\n\nMACHINE ID\n{}\n", id(1));
    for number in 1..=3 {
        assert_eq!(typed(cluster.node(number), "locksmithctl status"), held);
        cluster.wait("fleetd has heard of the slot", |_| {
            (typed(cluster.node(number), &format!("{socket} status")) == held).then_some(())
        });
    }
    let refusal = format!("Error locking: semaphore is at 0\nHeld by: {}\n[1]\n", id(1));
    assert_eq!(typed(cluster.node(2), "locksmithctl lock"), refusal);
    assert_eq!(typed(cluster.node(3), &format!("{socket} lock")), refusal);
    assert_eq!(typed(cluster.node(2), &format!("{socket} set-max 2")), "Old-Max: 1\nMax: 2\n");
    assert_eq!(typed(cluster.node(2), "locksmithctl lock"), "");
    assert_eq!(typed(cluster.node(3), &format!("{socket} unlock {}", id(1))), "");
    assert_eq!(
        typed(cluster.node(1), "locksmithctl unlock"),
        "Error unlocking: holder does not exist\n[1]\n"
    );
    assert_eq!(typed(cluster.node(2), "locksmithctl unlock"), "");
    assert_eq!(typed(cluster.node(1), "locksmithctl set-max 1"), "Old-Max: 2\nMax: 1\n");
}
