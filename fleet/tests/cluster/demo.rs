//! The example of the README: three machines, three databases that keep apart.
//! `cargo test -p fleet --test cluster demo -- --ignored --nocapture`
//!
//! What plays the database comes in an image of its own, a root of nothing but busybox, and systemd runs it
//! by `RootDirectory=`: a container engine would need the network for its image, and rights inside these
//! nodes, which are containers themselves.

use std::collections::BTreeMap;

use crate::nodes::{Cluster, Node, Options, address, can_boot};

const BUSYBOX: &str = "/bin/busybox";

const MONGO: &str = "\
[Unit]
Description=MongoDB instance %i

[Service]
RootDirectory=/var/lib/images/mongo
MountAPIVFS=yes
ExecStartPre=/bin/busybox sh -c 'echo database %i > /data/index.html'
ExecStart=/bin/busybox httpd -f -p 27017 -h /data

[X-Fleet]
Conflicts=mongo@*.service
";

#[test]
#[ignore = "a demonstration"]
fn demo_of_three_databases() {
    if !can_boot() {
        return;
    }
    let image = std::fs::read(BUSYBOX).unwrap_or_else(|error| panic!("{BUSYBOX} of busybox-static: {error}"));
    let files = BTreeMap::from([
        (format!("/var/lib/images/mongo{BUSYBOX}"), image),
        ("/var/lib/images/mongo/data/index.html".to_owned(), Vec::new()),
    ]);
    println!("booting three machines");
    let cluster = Cluster::boot(3, &Options { files, ..Options::default() });
    for node in &cluster.nodes {
        node.shell(&format!("chmod +x /var/lib/images/mongo{BUSYBOX}"));
    }
    let node = cluster.node(1);
    node.write("/root/mongo@.service", MONGO);

    show(node, "cat mongo@.service");
    show(node, "fleetctl list-machines");
    show(node, "fleetctl start mongo@1 mongo@2 mongo@3");
    show(node, "fleetctl list-unit-files");
    let units = show(node, "fleetctl list-units");

    let running = units.lines().filter(|line| line.contains("active\trunning")).count();
    assert_eq!(running, 3, "each database runs on a machine of its own");
    let mut answers: Vec<String> = (1..=3).map(|number| ask(&cluster, number)).collect();
    println!("each machine answers on port 27017: {}", answers.join(", "));
    answers.sort();
    assert_eq!(answers, ["database 1", "database 2", "database 3"]);
}

fn show(node: &Node, command: &str) -> String {
    let output = node.shell(&format!("cd /root && {command} 2>&1"));
    println!("$ {command}\n{output}");
    output
}

/// What the database on this machine says to another machine.
fn ask(cluster: &Cluster, number: usize) -> String {
    let asking = cluster.node(number % 3 + 1);
    let line = format!("/var/lib/images/mongo{BUSYBOX} wget -qO- http://{}:27017/", address(number));
    cluster.wait("the database answers", |_| {
        Some(asking.shell(&line).trim().to_owned()).filter(|answer| !answer.is_empty())
    })
}
