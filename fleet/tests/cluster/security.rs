//! etcd behind certificates and passwords, and an API that knows roles.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::{collections::BTreeMap, path::Path, process::Command};

use crate::{
    nodes::{Cluster, Options, address, can_boot},
    scheduling::SLEEP,
};

const CONFIG: &str = "\
etcd_servers=https://127.0.0.1:2379
etcd_cafile=/etc/keys/ca.pem
etcd_certfile=/etc/keys/fleetd.pem
etcd_keyfile=/etc/keys/fleetd.key
listen=unix:///run/fleet.sock,tls://0.0.0.0:49153
api_certfile=/etc/keys/server.pem
api_keyfile=/etc/keys/server.key
api_client_cafile=/etc/keys/ca.pem
api_readonly_client_cafile=/etc/keys/readers.pem
";

const ETCD: &str = "\
ETCD_CERT_FILE=/etc/keys/server.pem
ETCD_KEY_FILE=/etc/keys/server.key
ETCD_TRUSTED_CA_FILE=/etc/keys/ca.pem
ETCD_CLIENT_CERT_AUTH=true
";

/// Makes keys and certificates in `folder` by a script for openssl.
fn make_keys(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = format!(
        "IP:127.0.0.1,DNS:localhost,{}",
        [1, 2, 3].map(|number| format!("IP:{}", address(number))).join(",")
    );
    let script = format!(
        "new() {{ openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -keyout $1.key -out $1.pem -subj /CN=$1 \
             -addext basicConstraints=critical,CA:TRUE; }}
         sign() {{ openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key -out $1.csr -subj /CN=$1
             printf 'subjectAltName={names}\\nbasicConstraints=CA:FALSE\\nextendedKeyUsage=serverAuth,clientAuth\\n' > ext
             openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 30 -out $1.pem -extfile ext; }}
         new ca; new readers; sign server ca; sign fleetd ca; sign admin ca; sign reader readers"
    );
    let output = Command::new("bash").args(["-ec", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "pem" || extension == "key"))
        .map(|path| {
            (format!("/etc/keys/{}", path.file_name().unwrap().display()), std::fs::read(&path).unwrap())
        })
        .collect()
}

#[test]
fn certificates_decide_who_may_do_what() {
    if !can_boot() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut files = make_keys(folder.path());
    // The server's key must be readable for etcd's user; it is a key for a test.
    files
        .insert("/usr/lib/tmpfiles.d/keys.conf".to_owned(), b"z /etc/keys/*.key 0644 root root -\n".to_vec());
    let options = Options {
        config: CONFIG.to_owned(),
        etcd: ETCD.to_owned(),
        etcd_scheme: Some("https"),
        files,
        ..Options::default()
    };
    let cluster = Cluster::boot(3, &options);
    let node = cluster.node(1);
    node.put("a.service", SLEEP, "launched");
    cluster.wait("a runs", |_| node.home("a.service"));
    let fleetctl = |who: &str, arguments: &str| {
        let line = format!(
            "fleetctl --endpoint=https://{}:49153 --ca-file=/etc/keys/ca.pem --cert-file=/etc/keys/{who}.pem --key-file=/etc/keys/{who}.key {arguments} 2>&1; echo \"exit $?\"",
            address(2)
        );
        cluster.node(3).shell(&line)
    };

    for who in ["admin", "reader"] {
        // Another node may hear of the unit a moment later.
        cluster.wait("who may look sees the unit", |_| {
            fleetctl(who, "list-units").contains("a.service").then_some(())
        });
    }
    let refused = fleetctl("reader", "destroy a.service");
    assert!(refused.contains("may only read"), "{refused}");
    assert!(node.home("a.service").is_some());
    assert!(fleetctl("admin", "destroy a.service").contains("exit 0"));
    let nobody = cluster.node(3).shell(&format!(
        "fleetctl --endpoint=https://{}:49153 --ca-file=/etc/keys/ca.pem list-units 2>&1; echo \"exit $?\"",
        address(2)
    ));
    assert!(nobody.contains("exit 1"), "{nobody}");
}

#[test]
fn etcd_asks_for_a_password() {
    if !can_boot() {
        return;
    }
    let config = "etcd_username=fleet\netcd_password=secret\n".to_owned();
    // Without authentication etcd refuses who offers a password, so the user comes before the daemon.
    let users = "ETCDCTL_API=3; export ETCDCTL_API; etcdctl user add root:root; etcdctl user grant-role root root; \
                 etcdctl role add fleet; etcdctl role grant-permission fleet --prefix=true readwrite /_coreos.com/fleet/; \
                 etcdctl user add fleet:secret; etcdctl user grant-role fleet fleet; etcdctl auth enable";
    let drop_in = format!(
        "[Service]\nExecStartPre=/usr/bin/bash -c 'until ETCDCTL_API=3 etcdctl get x 2>&1 | grep -q \"user name is empty\"; do \
         {users}; sleep 0.1; done'\n"
    );
    let files =
        BTreeMap::from([("/etc/systemd/system/fleet.service.d/users.conf".to_owned(), drop_in.into_bytes())]);
    let cluster = Cluster::boot(1, &Options { config, files, ..Options::default() });
    let node = cluster.node(1);

    node.put("a.service", SLEEP, "launched");
    cluster.wait("a runs", |_| node.home("a.service"));
    let refused = node.shell("ETCDCTL_API=3 etcdctl get --prefix /_coreos.com/fleet/ 2>&1");
    assert!(refused.contains("user name is empty"), "{refused}");
}
