//! The less trodden ways: IPv6, sockets that systemd passes, a user's systemd, a hang-up.

use std::collections::BTreeMap;

use crate::{
    nodes::{Cluster, Node, Options, can_boot},
    scheduling::SLEEP,
};

const SOCKET: &str = "\
[Socket]
ListenStream=/run/passed.sock
ListenStream=[::1]:49155
Service=fleet.service
";

const SOCKET_COMES_FIRST: &str = "[Unit]\nRequires=fleet.socket\nAfter=fleet.socket\n";

/// A second fleetd, in a cluster of its own, for the units of a user.
const USER_CONFIG: &str = "\
etcd_servers=http://[::1]:2379
etcd_key_prefix=/of-a-user/
machine_id=00000000000000000000000000000abc
public_ip=fd00::1
systemd_user=true
units_directory=/run/user/0/fleet/units
runtime_directory=/run/user/0/fleet
listen=unix:///run/user/0/fleet.sock
";

const USER_SERVICE: &str = "\
[Unit]
Requires=user@0.service
After=user@0.service etcd.service

[Service]
Type=notify
Environment=XDG_RUNTIME_DIR=/run/user/0 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/0/bus
ExecStart=/usr/bin/fleetd -config /etc/fleet/user.conf
Restart=always
RestartSec=100ms
";

#[test]
fn one_node_is_reached_by_every_way() {
    if !can_boot() {
        return;
    }
    let files = [
        ("/etc/systemd/system/fleet.socket", SOCKET),
        ("/etc/systemd/system/fleet.service.d/socket.conf", SOCKET_COMES_FIRST),
        ("/etc/systemd/system/fleet-user.service", USER_SERVICE),
        ("/etc/fleet/user.conf", USER_CONFIG),
    ];
    let options = Options {
        config: "etcd_servers=http://[::1]:2379\nlisten=unix:///run/fleet.sock,tcp://[::1]:49154\n"
            .to_owned(),
        etcd: "ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:2379,http://[::1]:2379\n".to_owned(),
        files: files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).into_iter().collect(),
        ..Options::default()
    };
    let cluster = Cluster::boot(1, &options);
    let node = cluster.node(1);

    every_socket_answers(&cluster, node);
    a_newer_fleet_shuts_this_one_out_and_stops_nothing(&cluster, node);
    a_hang_up_brings_the_new_configuration(&cluster, node);
    a_connection_starts_the_daemon(&cluster, node);
    units_of_a_user_run_in_the_user_s_systemd(&cluster, node);
}

fn machines(node: &Node, endpoint: &str) -> String {
    node.shell(&format!("fleetctl --endpoint={endpoint} list-machines --no-legend --full 2>&1"))
}

fn every_socket_answers(cluster: &Cluster, node: &Node) {
    let endpoints =
        ["unix:///run/fleet.sock", "http://[::1]:49154", "unix:///run/passed.sock", "http://[::1]:49155"];
    for endpoint in endpoints {
        cluster.wait(endpoint, |_| machines(node, endpoint).starts_with(&node.machine_id()).then_some(()));
    }
}

/// What a fleetd of a next version does before it writes what this one would misunderstand.
fn a_newer_fleet_shuts_this_one_out_and_stops_nothing(cluster: &Cluster, node: &Node) {
    node.put("stays.service", SLEEP, "launched");
    cluster.wait("it runs", |_| node.home("stays.service"));
    let before = node.main_pid("stays.service");
    let etcdctl = |line: &str| node.shell(&format!("ETCDCTL_API=3 etcdctl {line} 2>&1"));

    etcdctl("put /_coreos.com/fleet/schema '{\"v\":1,\"oldest_reader\":2}'");
    cluster.wait("it says that it is too old", |_| {
        let (status, health) = node.get("/fleet/v1/health");
        (status == 503 && health.contains("needs a reader of format 2")).then_some(())
    });
    etcdctl("put /_coreos.com/fleet/units/stays.service '{\"v\":2,\"hash\":7}'");
    assert_eq!(node.main_pid("stays.service"), before);

    etcdctl("del /_coreos.com/fleet/schema");
    etcdctl("del /_coreos.com/fleet/units/stays.service");
    cluster.wait("it serves again, and obeys", |_| {
        (node.get("/fleet/v1/health").0 == 200 && node.main_pid("stays.service").is_none()).then_some(())
    });
}

fn a_hang_up_brings_the_new_configuration(cluster: &Cluster, node: &Node) {
    let before = node.main_pid("fleet.service");
    node.put("picky.service", &format!("{SLEEP}[X-Fleet]\nMachineMetadata=colour=blue\n"), "launched");
    node.shell("sed -i 's/^metadata=.*/metadata=colour=blue/; $ a verbosity=1\\nagent_ttl=40s' /etc/fleet/fleet.conf");

    node.signal("fleet.service", "HUP");

    cluster.wait("the unit finds its machine", |_| node.home("picky.service"));
    assert!(machines(node, "unix:///run/fleet.sock").contains("colour=blue"));
    assert_eq!(node.main_pid("fleet.service"), before, "the daemon was not restarted");
    cluster.wait("what cannot change is named", |_| {
        let log = node.shell("journalctl -u fleet -o cat --no-pager");
        log.contains("these options change at the next start").then_some(())
    });
}

fn a_connection_starts_the_daemon(cluster: &Cluster, node: &Node) {
    node.shell("systemctl stop fleet.service");
    assert_eq!(node.main_pid("fleet.service"), None);

    let endpoint = "unix:///run/passed.sock";
    cluster
        .wait("it was started", |_| machines(node, endpoint).starts_with(&node.machine_id()).then_some(()));

    assert!(node.main_pid("fleet.service").is_some());
}

fn units_of_a_user_run_in_the_user_s_systemd(cluster: &Cluster, node: &Node) {
    let typed = |line: &str| node.shell(&format!("export XDG_RUNTIME_DIR=/run/user/0; {line} 2>&1"));
    let fleetctl = "fleetctl --endpoint=unix:///run/user/0/fleet.sock";
    node.write("/root/mine.service", SLEEP);
    node.shell("systemctl start fleet-user.service");
    cluster.wait("the user's fleetd serves", |_| {
        typed(&format!("{fleetctl} list-machines")).contains("fd00::1").then_some(())
    });

    let started = typed(&format!("cd /root; {fleetctl} start mine.service"));

    assert!(started.contains("Unit mine.service launched on 00000000.../fd00::1"), "{started}");
    assert_eq!(typed("systemctl --user is-active mine.service"), "active\n");
    assert_eq!(node.active("mine.service"), "inactive", "the machine's systemd knows nothing of it");
}

/// Two of three machines vanish at once, which is more than the brake believes.
#[test]
fn the_brake_holds_until_it_is_released() {
    if !can_boot() {
        return;
    }
    // etcd must outlive them, so it runs on the first alone.
    let cluster = Cluster::boot(3, &Options { ttl: Some(8), voters: Some(1), ..Options::default() });
    let node = cluster.node(1);
    let homes: BTreeMap<usize, String> = (1..=3)
        .map(|number| {
            let unit = format!("at{number}.service");
            node.put(&unit, &format!("{SLEEP}[X-Fleet]\nPrefer=zone=z{number}\n"), "launched");
            cluster.wait(&unit, |_| node.home(&unit).filter(|home| *home == number));
            (number, unit)
        })
        .collect();

    for number in [2, 3] {
        cluster.node(number).isolate(true);
    }
    // Their leases would end a second apart, and the first loss alone is believed: end them together.
    let gone = [2, 3].map(|number| {
        format!("del /_coreos.com/fleet/machines/{}/presence\n", cluster.node(number).machine_id())
    });
    let ended = node.shell(&format!("printf '\n{}\n\n' | ETCDCTL_API=3 etcdctl txn 2>&1", gone.concat()));
    assert!(ended.starts_with("SUCCESS"), "{ended}");
    cluster.wait("both are gone", |_| (node.machines().len() == 1).then_some(()));
    let brake = || {
        let metrics = node.get("/metrics").1;
        metrics.lines().any(|line| line == "fleet_engine_brake 1")
    };
    cluster.wait("the brake is on", |_| brake().then_some(()));
    for (number, unit) in &homes {
        assert_eq!(node.place(unit).map(|(place, _)| place), Some(*number), "nothing moves");
    }
    let why = node.shell("fleetctl --endpoint=unix:///run/fleet.sock explain at2 2>&1");
    assert!(why.contains("2 of 3 machines fell silent"), "{why}");

    let released = node.shell("fleetctl --endpoint=unix:///run/fleet.sock release-brake 2>&1");
    assert!(released.starts_with("Released the brake"), "{released}");
    for unit in homes.values() {
        cluster.wait("it runs on the machine that is left", |_| (node.home(unit) == Some(1)).then_some(()));
    }
    cluster.wait("the brake is off", |_| (!brake()).then_some(()));
}
