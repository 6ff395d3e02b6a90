//! Inputs that users reported, and those of the peers' own suites that once came out wrong here.
//!
//! Each file or folder of `tests/data/users` and `tests/data/peers` is read as `plan` reads it, and has a row that
//! says what must come of it. What shows on a machine only (owners, redirects, signatures) is tested where it is done.

use std::fs;
use std::path::Path;

use first_boot::Verdict::{self, Degraded, Failed, Ok};
use first_boot::{PlanDetail, plan_file};

/// A name, how it is judged, what the plan or its findings must have, and what they must not.
type Row = (&'static str, Verdict, &'static [&'static str], &'static [&'static str]);

const USERS: [Row; 24] = [
    ("archive-colon.yaml", Ok, &["set host name colon"], &[]),
    ("butane-with-comment.yaml", Failed, &["Butane's input", "run `butane`"], &["first line"]),
    ("clc.yaml", Failed, &["a Container Linux Config", "run `butane`"], &["begin with"]),
    ("configdrive-eni", Ok, &["Address=192.0.2.10/24", "Gateway=192.0.2.1", "DNS=192.0.2.53"], &["DHCP=yes"]),
    ("early-oneshot.yaml", Ok, &["note[translated]", "TimeoutStartSec=90", "start no-ipv6.service"], &[]),
    (
        "ign-butane-mount.json",
        Degraded,
        &["make ext4", "mount /var/lib/media", "write new /etc/site/role", "warning[translated]"],
        &["error["],
    ),
    ("ign-empty-sections.json", Ok, &["/etc/site/role"], &[]),
    ("jinja-header-only.yaml", Ok, &["make user ana", "/run/join/config.yaml", "run script runcmd"], &[]),
    ("mode-decimal.yaml", Failed, &["of 420 is read as octal 0420", "\"0644\"", "\"0755\""], &[]),
    ("mount-over-keys.yaml", Failed, &["error[protected]", "/home/core"], &["LABEL=people on"]),
    ("mount-unit-on-the-root.yaml", Failed, &["error[protected]", "on the read-only root"], &["start media"]),
    ("mount-unit-over-keys.yaml", Failed, &["error[protected]", "on /home"], &["start home.mount"]),
    ("net-bond-number-openstack.json", Ok, &["Mode=802.3ad"], &["Mode=4"]),
    (
        "net-dns-as-text-v1.yaml",
        Ok,
        &["DNS=192.0.2.53", "DNS=192.0.2.54", "Domains=corp.example lab.example"],
        &[],
    ),
    ("net-dns-in-route-openstack.json", Ok, &["DNS=192.0.2.53"], &[]),
    (
        "net-nameserver-first-v1.yaml",
        Ok,
        &["DHCP=ipv4\n  write unit 10-cloud-init-eth1.network", "DNS=192.168.50.53", "Domains=corp.example"],
        &[],
    ),
    ("net-no-prefix-v2.yaml", Failed, &["an address with its prefix"], &["192.0.2.10/32"]),
    ("net-offlink-gateway-v1.yaml", Ok, &["Gateway=198.51.100.1", "GatewayOnLink=yes"], &[]),
    ("network-config-with-header.yaml", Ok, &["10-cloud-init-eth0.network"], &[]),
    (
        "openstack-network-of-nothing.json",
        Degraded,
        &["none of OpenStack's types", "ipv6_dhcp", "this network has no `ip_address`"],
        &[],
    ),
    ("parts-half-merge.mime", Degraded, &["`write_files` of this part is not used", "recurse_list"], &[]),
    (
        "parts-without-merge.mime",
        Ok,
        &["authorize 2 keys", "/etc/sysconfig/proxy", "/etc/sysconfig/cluster"],
        &[],
    ),
    ("per-once.yaml", Ok, &["'cloud-init-per' 'once' 'format-media'", "'cloud-init-per' 'instance'"], &[]),
    (
        "unread-files.yaml",
        Degraded,
        &["reads /etc/rc.local", "reads /etc/netplan/", "reads /etc/crontab", "run script script-folders"],
        &["reads /var/lib/cloud/scripts"],
    ),
];

const PEERS: [Row; 34] = [
    ("01-user-no-sudo.yaml", Ok, &["make user guest"], &["sudo=", "sudo ALL", "groups="]),
    ("02-gateway-off-subnet-v1.yaml", Ok, &["Address=192.0.2.2/32", "GatewayOnLink=yes"], &[]),
    ("03-ignition-wipe-same-format.json", Ok, &["make ext4 on /dev/vdb1 label=NEW, even over another"], &[]),
    ("04-numeric-booleans.yaml", Ok, &["make user a1 lock=false system", "enable a.service"], &[]),
    (
        "06-bond-mode-number-openstack.json",
        Ok,
        &["Mode=802.3ad", "TransmitHashPolicy=layer3+4"],
        &["Mode=4", "Policy=1"],
    ),
    (
        "06-bond-mode-number-v1.yaml",
        Ok,
        &["Mode=802.3ad", "LACPTransmitRate=fast", "TransmitHashPolicy=layer3+4"],
        &[],
    ),
    ("07-single-part.mime", Ok, &["set host name one-part"], &[]),
    ("08-launch-index.mime", Degraded, &["launch index 7"], &[]),
    ("10-ignition-merge-contents.json", Degraded, &["write new /srv/a", "15 bytes"], &["0 bytes", "error["]),
    ("11a-ignition-duplicate-files.json", Failed, &["there twice"], &["write new"]),
    ("11b-ignition-file-below-link.json", Failed, &["which line 8 makes a link"], &["write new"]),
    ("11d-ignition-label-without-format.json", Failed, &["`format` is missing"], &["mount /srv"]),
    ("11f-ignition-two-rests.json", Failed, &["same label"], &["make the table"]),
    ("11g-ignition-start-0.json", Ok, &["1 d with the rest"], &[]),
    ("11i-ignition-header-without-value.json", Failed, &["a header needs a `value`"], &["write new"]),
    (
        "13-ignition-uuid-xfs-vfat.json",
        Ok,
        &["make xfs on /dev/vdb1 uuid=0cc175b9-", "make vfat on /dev/vdb2 uuid=1234ABCD"],
        &[],
    ),
    (
        "15-subnet-without-type-v1.yaml",
        Ok,
        &["DHCP=ipv4", "Address=2001:db8:2::1/64", "Gateway=fe80::1", "DNS=2001:db8::53"],
        &[],
    ),
    (
        "17-global-and-own-dns-v1.yaml",
        Ok,
        &["DNS=198.51.100.53", "DNS=192.0.2.53", "Domains=own.test all.test"],
        &[],
    ),
    (
        "18-quoted-scalar.yaml",
        Degraded,
        &["set REBOOT_STRATEGY", "first words and the rest", "indented less than its key"],
        &["error["],
    ),
    ("22-ephemeral0.yaml", Degraded, &["`ephemeral0` is no disk here"], &["error[", "  mount /mnt"]),
    ("23-nbsp-header.yaml", Ok, &["set host name nbsp"], &[]),
    ("23b-capital-header.yaml", Ok, &["set host name capital"], &[]),
    ("26-swap-decimal.yaml", Ok, &["make swap file /var/swap of 1610612736 bytes"], &[]),
    ("27-ignition-spec-1.json", Failed, &["specification 1 of Ignition", "version 3.4.0"], &[]),
    ("28-ignition-mask-false.json", Degraded, &["unmask a.service", "enable a.service"], &["error["]),
    ("30-ignition-append-existing.json", Ok, &["keep or make /srv/log", "then 14 bytes"], &["write new"]),
    ("32-ignition-header-and-redirect.json", Ok, &["/srv/x"], &[]),
    ("33-ignition-throttled-server.json", Ok, &["/srv/x"], &[]),
    ("34-ignition-file-over-directory.json", Ok, &["/srv/was-a-directory"], &[]),
    ("35-ignition-file-over-broken-link.json", Ok, &["/srv/broken-link"], &[]),
    (
        "37-ignition-add-partition.json",
        Ok,
        &["where it differs: 1 there-already of 8 MiB; 2 new of 8 MiB"],
        &[],
    ),
    ("39-ignition-partition-label.json", Failed, &["`label` must be without a colon"], &["make the table"]),
    ("40-ignition-resolved-conflict.json", Ok, &["/srv/leads-to-root/srv/f", "/srv/f"], &[]),
    ("43-ignition-wipe-ambivalent.json", Ok, &["make vfat on /dev/vdb2, even over another"], &[]),
];

/// What differs from a row, in words.
fn complaints((name, verdict, wanted, unwanted): &Row, folder: &Path) -> Vec<String> {
    let report = plan_file(&folder.join(name), PlanDetail::Full);
    let mut complaints = Vec::new();
    if report.verdict != *verdict {
        complaints.push(format!("{name}: is {:?} instead of {verdict:?}", report.verdict));
    }
    let missing = wanted.iter().filter(|text| !report.text.contains(**text));
    complaints.extend(missing.map(|text| format!("{name}: has no {text:?}")));
    let present = unwanted.iter().filter(|text| report.text.contains(**text));
    complaints.extend(present.map(|text| format!("{name}: has {text:?}")));
    if !complaints.is_empty() {
        complaints.push(report.text);
    }
    complaints
}

#[test]
fn each_reported_input_comes_out_as_it_should() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for (folder, rows) in [("users", USERS.as_slice()), ("peers", PEERS.as_slice())] {
        let folder = data.join(folder);
        let mut there: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        let with_rows: Vec<&str> = rows.iter().map(|(name, ..)| *name).collect();
        assert_eq!(there, with_rows, "each input has a row, and each row an input");

        let wrong: Vec<String> = rows.iter().flat_map(|row| complaints(row, &folder)).collect();

        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
