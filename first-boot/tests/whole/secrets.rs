//! Whatever a document keeps secret, no other user finds: not in a file, the result, the journal, or the
//! arguments of a program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use first_boot::{RunOptions, Verdict};

use crate::machine::Bench;

const BOOT: RunOptions = RunOptions { force: false };

/// A secret in every place that a document has for one, each with its own name.
const DOCUMENT: &str = "#cloud-config
password: SEKRIT-top
chpasswd: {list: ['core:SEKRIT-list'], expire: false}
users:
- {name: ada, plain_text_passwd: SEKRIT-plain, lock_passwd: false}
- {name: bob, passwd: $6$SEKRIT$hash}
ssh_keys:
  ed25519_private: |
    -----BEGIN OPENSSH PRIVATE KEY-----
    SEKRIT-hostkey
    -----END OPENSSH PRIVATE KEY-----
write_files:
- {path: /etc/secret, permissions: '0600', content: SEKRIT-file}
- {path: /etc/fetched, permissions: '0600', source: {uri: 'https://me:SEKRIT-url@example.org/x?token=SEKRIT-query', headers: {Authorization: SEKRIT-header}}}
- path: /etc/systemd/network/20-wg.netdev
  content: |
    [WireGuard]
    PrivateKey=SEKRIT-written
bootcmd: [echo SEKRIT-bootcmd]
runcmd: [echo SEKRIT-runcmd]
phone_home: {url: 'https://me:SEKRIT-phone@example.org/?x=SEKRIT-phone', tries: 1}
coreos:
  update: {server: 'https://me:SEKRIT-update@example.org/'}
  etcd2: {name: one, initial-cluster-token: SEKRIT-token, discovery-proxy: 'http://me:SEKRIT-proxy@example.org'}
  fleet: {etcd_username: root, etcd_password: SEKRIT-fleet, metadata: a=b}
  flannel: {etcd_username: root, etcd_password: SEKRIT-flannel}
  locksmith: {etcd_username: root, etcd_password: SEKRIT-locksmith}
  units:
  - name: 10-wg.netdev
    content: |
      [NetDev]
      Kind=wireguard
      [WireGuard]
      PrivateKey = SEKRIT-private
      [WireGuardPeer]
      PresharedKey=SEKRIT-shared
  - name: 10-macsec.network
    content: |
      [MACsecTransmitAssociation]
      Key=SEKRIT-macsec
  - name: a.service
    runtime: true
    drop_ins: [{name: b.conf, content: \"[Service]\\nEnvironment=A=SEKRIT-dropin\"}]
";

/// Texts that their author indented or quoted wrongly, so that the secret is no value any more.
const SLIPS: [&str; 6] = [
    "#cloud-config\npassword: *SEKRIT-alias\n",
    "#cloud-config\nusers:\n- name: ada\n  SEKRIT-key: x\n",
    "#cloud-config\nwrite_files:\n- path: /etc/a\n  content: |\n  SEKRIT-content: x\n",
    "#cloud-config\npassword: |\nSEKRIT-password: x\n",
    "#cloud-config\nusers:\n- {name: ada, SEKRIT-twice: 1, SEKRIT-twice: 2}\n",
    "#cloud-config\ncoreos:\n  fleet:\n    etcd_password: >\n    SEKRIT-fleet: x\n",
];

/// The files below a directory that every user of the machine could read, by their modes.
fn readable(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let mode = meta.permissions().mode();
        if meta.is_dir() && mode & 0o001 != 0 {
            readable(&path, found);
        } else if meta.is_file() && mode & 0o004 != 0 {
            found.push(path);
        }
    }
}

/// Where a secret can be read; what was handed over, and the console, are not ours to hide.
fn leaks(bench: &Bench) -> Vec<String> {
    let mut files = Vec::new();
    let root = bench.machine.root.path_of("/");
    for folder in ["etc", "home", "opt", "run", "srv", "usr", "var/lib/catamaran"] {
        if root.join(folder).is_dir() {
            readable(&root.join(folder), &mut files);
        }
    }
    files.retain(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains("SEKRIT"));
    files.iter().map(|path| path.display().to_string()).collect()
}

#[test]
fn every_secret_of_a_document_stays_one() {
    let bench = Bench::seeded("i-1", DOCUMENT);
    let group = bench.read("/etc/group") + "systemd-network:x:998:\n";
    fs::write(bench.machine.root.path_of("/etc/group"), group).unwrap();
    for path in ["/etc/shadow", "/etc/gshadow"] {
        fs::set_permissions(bench.machine.root.path_of(path), fs::Permissions::from_mode(0o640)).unwrap();
    }

    let outcome = bench.boot(BOOT);

    assert_ne!(outcome.run_verdict(), Verdict::Failed, "{}", outcome.journal_text());
    for said in [outcome.journal_text(), outcome.to_json().to_string(), bench.calls().join("\n")] {
        assert!(!said.contains("SEKRIT"), "{said}");
    }
    assert_eq!(leaks(&bench), [""; 0]);
    // They are where they are needed.
    let fleet = bench.read("/run/systemd/system/fleet.service.d/20-cloudinit.conf");
    assert!(fleet.contains("EnvironmentFile=/run/cloudinit/fleet.service.env\n"), "{fleet}");
    assert!(fleet.contains("FLEET_METADATA=a=b") && !fleet.contains("SEKRIT"), "{fleet}");
    assert_eq!(bench.read("/run/cloudinit/fleet.service.env"), "FLEET_ETCD_PASSWORD=\"SEKRIT-fleet\"\n");
    assert!(bench.read("/run/cloudinit/etcd2.service.env").contains("SEKRIT-token"));
    assert!(bench.read("/run/flannel/options.env").contains("SEKRIT-flannel"));
    assert!(bench.read("/etc/coreos/update.conf").contains("SEKRIT-update"));
    assert_eq!(bench.mode("/etc/systemd/network/10-wg.netdev"), 0o640);
    assert_eq!(bench.mode("/etc/systemd/network/10-macsec.network"), 0o640);
    if crate::apply::is_root() {
        assert_eq!(bench.owner("/etc/systemd/network/10-wg.netdev"), (0, 998));
    }
}

#[test]
fn a_secret_that_became_a_key_or_a_reference_is_not_repeated() {
    for document in SLIPS {
        let bench = Bench::seeded("i-1", document);

        let outcome = bench.boot(BOOT);

        assert!(!outcome.journal_text().contains("SEKRIT"), "{}", outcome.journal_text());
        assert!(!outcome.to_json().to_string().contains("SEKRIT"), "{:#}", outcome.to_json());
        assert_eq!(leaks(&bench), [""; 0], "{document}");
        assert_ne!(outcome.run_verdict(), Verdict::Ok, "{document}");
    }
}
