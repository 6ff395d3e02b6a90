//! The example of the README: three machines, three databases that keep apart.
//! `cargo test -p fleet --test cluster demo -- --ignored --nocapture`

use crate::nodes::{Cluster, Options, can_boot};

/// A stand-in for a database: the nodes have no container engine and no network to fetch one from.
const MONGO: &str = "\
[Unit]
Description=MongoDB instance %i

[Service]
ExecStart=/usr/bin/sleep infinity

[X-Fleet]
Conflicts=mongo@*.service
";

#[test]
#[ignore = "a demonstration"]
fn demo_of_three_databases() {
    if !can_boot() {
        return;
    }
    let cluster = Cluster::boot(3, &Options::default());
    let node = cluster.node(1);
    node.write("/root/mongo@.service", MONGO);
    let mut lines = 0;
    for command in [
        "fleetctl list-machines",
        "fleetctl start mongo@1 mongo@2 mongo@3",
        "fleetctl list-unit-files",
        "fleetctl list-units",
    ] {
        let output = node.shell(&format!("cd /root && {command} 2>&1"));
        println!("$ {command}\n{output}");
        lines = output.lines().filter(|line| line.contains("active\trunning")).count();
    }
    assert_eq!(lines, 3, "each database runs on a machine of its own");
}
