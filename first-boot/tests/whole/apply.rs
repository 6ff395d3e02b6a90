//! Documents are applied: what becomes of files, users, units and of what fails.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use first_boot::{RunOutcome, Verdict};

use crate::machine::{Bench, KEY, Sshd};

fn statuses(outcome: &RunOutcome) -> Vec<(String, String)> {
    let json = outcome.to_json();
    let items = json["items"].as_array().unwrap().iter();
    items
        .map(|item| (item["what"].as_str().unwrap().to_owned(), item["status"].as_str().unwrap().to_owned()))
        .collect()
}

/// Whether we may give files away; a test that needs it says so otherwise.
pub(crate) fn is_root() -> bool {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    assert!(is_root || std::env::var("CI").as_deref() != Ok("true"), "CI must run these tests as root");
    is_root
}

#[test]
fn a_document_becomes_files_users_and_units() {
    let bench = Bench::new();

    let outcome = bench.apply(&format!(
        "#cloud-config
hostname: web1
timezone: Europe/Berlin
ssh_authorized_keys: [{KEY} me]
users:
  - name: ada
    groups: [sudo, ops]
    ssh_authorized_keys: [{KEY} ada]
write_files:
  - path: /etc/story/a.conf
    permissions: '0640'
    owner: root:docker
    content: chapter one
  - {{path: /opt/bin/tool, permissions: '4755', content: x}}
coreos:
  etcd2: {{name: first}}
  units:
    - {{name: etcd2.service, command: start}}
    - {{name: a.service, content: \"[Unit]\\n\", mask: false}}
    - {{name: b.service, mask: true}}
runcmd: [echo hello]
"
    ));

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    assert_eq!(bench.read("/etc/hostname"), "web1\n");
    assert_eq!(bench.read("/home/core/.ssh/authorized_keys"), format!("{KEY} me\n"));
    assert_eq!(bench.mode("/home/core/.ssh"), 0o700);
    assert_eq!(bench.read("/home/ada/.ssh/authorized_keys"), format!("{KEY} ada\n"));
    assert_eq!(bench.read("/etc/story/a.conf"), "chapter one");
    assert_eq!(bench.mode("/etc/story/a.conf"), 0o640);
    assert_eq!(bench.mode("/opt/bin/tool"), 0o4755);
    assert_eq!(
        bench.read("/run/systemd/system/etcd2.service.d/20-cloudinit.conf"),
        "[Service]\nEnvironment=\"ETCD_NAME=first\"\n"
    );
    assert_eq!(
        fs::read_link(bench.machine.root.path_of("/etc/systemd/system/b.service")).unwrap(),
        Path::new("/dev/null")
    );
    assert_eq!(
        fs::read_link(bench.machine.root.path_of("/etc/localtime")).unwrap(),
        Path::new("../usr/share/zoneinfo/Europe/Berlin")
    );
    assert!(bench.read("/etc/passwd").ends_with("ada:x:1001:1002::/home/ada:/bin/bash\n"));
    assert!(bench.read("/etc/group").contains("sudo:x:27:core,ada\n"));
    assert!(bench.read("/etc/group").ends_with("ops:x:1001:ada\nada:x:1002:\n"));
    assert_eq!(bench.read("/home/ada/.profile"), "# a profile\n");
    assert!(bench.called("start etcd2.service"));
    assert!(bench.called("--no-block --property=Wants=network-online.target"));
    if is_root() {
        assert_eq!(bench.owner("/etc/story/a.conf"), (0, 999));
        assert_eq!(bench.owner("/etc/story"), (0, 999), "parents that were made are owned as the file is");
        assert_eq!(bench.owner("/home/core/.ssh/authorized_keys"), (1000, 1000));
    }
}

#[test]
fn applying_twice_is_applying_once() {
    let bench = Bench::new();
    let document = format!(
        "#cloud-config
hostname: web1
manage_etc_hosts: localhost
ssh_authorized_keys: [{KEY} me]
users: [{{name: ada, groups: [ops], ssh_authorized_keys: [{KEY}]}}]
groups: [staff: [core]]
write_files:
  - {{path: /etc/a, content: a}}
  - {{path: /etc/a, content: b, append: true}}
  - {{path: /etc/ssh/sshd_config.d/10-a.conf, content: 'Port 2222'}}
mounts: [[/dev/vdb, /srv/data]]
coreos: {{update: {{reboot_strategy: off}}, units: [{{name: a.service, content: x, drop_ins: [{{name: b.conf, content: y}}]}}]}}
runcmd: [echo hello]
"
    );
    bench.apply(&document);
    let once = bench.snapshot();

    let outcome = bench.apply(&document);

    assert_eq!(bench.snapshot(), once);
    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
}

#[test]
fn what_fails_costs_its_neighbours_nothing() {
    let bench = Bench::new();
    fs::create_dir_all(bench.machine.root.path_of("/etc/taken")).unwrap();

    let outcome = bench.apply(
        "#cloud-config
users: [{name: broken, uid: 1000}, ada]
write_files:
  - {path: /etc/taken, content: x}
  - {path: /etc/nobody, content: x, owner: ghost}
  - {path: /etc/good, content: x}
coreos: {units: [{name: a.service, content: x, command: start}]}
",
    );

    let failed: Vec<_> = statuses(&outcome).into_iter().filter(|(_, status)| status == "failed").collect();
    assert_eq!(failed.len(), 3, "{failed:?}");
    assert_eq!(outcome.run_verdict(), Verdict::Degraded);
    assert_eq!(bench.read("/etc/good"), "x");
    assert!(bench.read("/etc/passwd").contains("ada"));
    assert!(bench.called("start a.service"));
    assert!(outcome.journal_text().contains("there is no user ghost"), "{}", outcome.journal_text());
}

#[test]
fn of_several_units_only_the_broken_one_fails() {
    let bench = Bench::new();

    let outcome = bench.apply(
        "#cloud-config
coreos:
  units:
    - {name: a.service, command: start, enable: true}
    - {name: broken.service, command: start, enable: true}
    - {name: c.service, command: start, enable: true}
",
    );

    let failed: Vec<_> = statuses(&outcome).into_iter().filter(|(_, status)| status == "failed").collect();
    assert_eq!(
        failed.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(),
        ["enable broken.service", "start broken.service"]
    );
    assert!(bench.called("start c.service"));
}

#[test]
fn units_are_started_in_one_conversation() {
    let bench = Bench::new();

    bench.apply("#cloud-config\ncoreos: {units: [{name: a.service, command: start}, {name: b.service, command: start}]}\n");

    assert!(bench.called("manager: start a.service, start b.service"));
}

/// A disk in the directory: a node, and its size in sectors.
fn attach(bench: &Bench, name: &str) {
    let root = &bench.machine.root;
    fs::write(root.path_of(&format!("/dev/{name}")), "").unwrap();
    fs::create_dir_all(root.path_of(&format!("/sys/class/block/{name}"))).unwrap();
    fs::write(root.path_of(&format!("/sys/class/block/{name}/size")), "2000000\n").unwrap();
}

#[test]
fn a_disk_is_divided_formatted_and_mounted() {
    let bench = Bench::new();
    attach(&bench, "vdb");
    attach(&bench, "vdb1");

    let outcome = bench.apply(
        "#cloud-config
disk_setup: {vdb: {layout: [50, [50, 82]]}}
fs_setup: [{filesystem: ext4, device: vdb, partition: 1, label: data, extra_opts: ['-m', '0']}]
mounts: [[vdb1, /srv/data, ext4, noatime], [tmpfs, /srv/with blank, tmpfs]]
",
    );

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    assert!(bench.called("sfdisk --quiet --wipe always /dev/vdb"));
    assert!(bench.called("mkfs.ext4 -F -q -L data -m 0 /dev/vdb1"));
    assert!(bench.called("manager: reload all units, start srv-data.mount, "));
    assert!(bench.called(r"start srv-with\x20blank.mount"));
    let fstab = bench.read("/etc/fstab");
    assert_eq!(
        fstab,
        "/dev/vdb1 /srv/data ext4 noatime,nofail 0 2\ntmpfs /srv/with\\040blank tmpfs defaults,nofail 0 2\n"
    );
}

#[test]
fn the_machines_own_disk_is_not_divided() {
    let bench = Bench::new();
    for name in ["vda", "vda6", "nvme0n1", "nvme0n1p6"] {
        attach(&bench, name);
    }
    let record = bench.machine.root.path_of("/run/catamaran/boot.json");
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    for (disk, partition) in [("vda", "vda6"), ("nvme0n1", "nvme0n1p6")] {
        let text = format!(r#"{{"devices": {{"disk": "/dev/{disk}", "esp": "/dev/{disk}2"}}}}"#);
        fs::write(&record, text).unwrap();

        let outcome = bench.apply(&format!(
            "#cloud-config
disk_setup: {{{disk}: {{layout: true, overwrite: true}}}}
fs_setup: [{{filesystem: ext4, device: /dev/{partition}, overwrite: true}}]
"
        ));

        let failed = statuses(&outcome).into_iter().filter(|(_, status)| status == "failed").count();
        assert_eq!(failed, 2, "{}", outcome.journal_text());
        assert!(!bench.called("sfdisk") && !bench.called("mkfs"));

        for storage in own_disk_storage(disk, partition) {
            let outcome =
                bench.apply(&format!(r#"{{"ignition": {{"version": "3.4.0"}}, "storage": {{{storage}}}}}"#));

            assert!(
                outcome.journal_text().contains("is the disk that this machine runs from"),
                "{}",
                outcome.journal_text()
            );
            // Nothing even looks at it.
            for program in ["sfdisk", "wipefs", "blkid", "mkfs", "mkswap"] {
                assert!(!bench.called(program), "{storage}: {:?}", bench.calls());
            }
        }
    }
}

/// Each way in which Ignition divides, empties or formats a disk or a partition.
fn own_disk_storage(disk: &str, partition: &str) -> Vec<String> {
    let disks = [
        r#""wipeTable": true"#,
        r#""wipeTable": true, "partitions": [{"number": 1}]"#,
        r#""partitions": [{"number": 9, "label": "more"}]"#,
        r#""partitions": [{"number": 6, "shouldExist": false, "wipePartitionEntry": true}]"#,
    ];
    let filesystems = [
        r#""format": "ext4""#,
        r#""format": "swap", "wipeFilesystem": true"#,
        r#""format": "none", "wipeFilesystem": true"#,
    ];
    let divided = disks.map(|fields| format!(r#""disks": [{{"device": "/dev/{disk}", {fields}}}]"#));
    let formatted = [disk, partition].map(|device| {
        filesystems.map(|fields| format!(r#""filesystems": [{{"device": "/dev/{device}", {fields}}}]"#))
    });
    divided.into_iter().chain(formatted.into_iter().flatten()).collect()
}

/// udev's links by label lead to one of the two, whichever came last.
#[test]
fn a_copy_of_the_machines_own_disk_is_not_taken_for_it() {
    let bench = Bench::new();
    for name in ["vda", "vda6", "vdb", "vdb6"] {
        attach(&bench, name);
    }
    let path = |path: &str| bench.machine.root.path_of(path);
    for folder in ["/run/catamaran", "/dev/disk/by-partlabel"] {
        fs::create_dir_all(path(folder)).unwrap();
    }
    fs::write(path("/run/catamaran/boot.json"), r#"{"devices": {"disk": "/dev/vdb", "esp": "/dev/vdb2"}}"#)
        .unwrap();
    std::os::unix::fs::symlink(path("/dev/vda6"), path("/dev/disk/by-partlabel/STATE")).unwrap();

    let outcome = bench.apply("#cloud-config\ndisk_setup: {/dev/vdb: {layout: true, overwrite: true}}\n");

    assert!(
        outcome.journal_text().contains("/dev/vdb is the disk that this machine runs from"),
        "{}",
        outcome.journal_text()
    );
    assert!(!bench.called("sfdisk"));
}

#[test]
fn a_broken_sshd_config_is_taken_back() {
    let bench = Bench::with_sshd(Sshd::Complains);
    fs::write(bench.machine.root.path_of("/etc/ssh/sshd_config"), "Port 22\n").unwrap();

    let outcome = bench.apply(
        "#cloud-config
write_files:
  - {path: /etc/ssh/sshd_config, content: 'Nonsense yes'}
  - {path: /etc/ssh/sshd_config.d/1.conf, content: 'Nonsense yes'}
  - {path: /etc/motd, content: hi}
",
    );

    assert_eq!(bench.read("/etc/ssh/sshd_config"), "Port 22\n");
    assert!(!bench.machine.root.path_of("/etc/ssh/sshd_config.d/1.conf").exists());
    assert_eq!(bench.read("/etc/motd"), "hi");
    assert_eq!(outcome.run_verdict(), Verdict::Degraded);
    assert!(outcome.journal_text().contains("sshd would not start"), "{}", outcome.journal_text());
}

#[test]
fn keys_survive_a_file_written_over_them() {
    let bench = Bench::new();

    bench.apply(&format!(
        "#cloud-config
ssh_authorized_keys: [{KEY} me]
write_files: [{{path: /home/core/.ssh/authorized_keys, content: nothing, permissions: '0666'}}]
"
    ));

    assert!(bench.read("/home/core/.ssh/authorized_keys").contains(KEY));
    assert_eq!(bench.mode("/home/core/.ssh/authorized_keys"), 0o600);
    assert_eq!(bench.mode("/home/core/.ssh"), 0o700);
}

#[test]
fn a_link_to_a_protected_place_is_not_written_through() {
    let bench = Bench::new();
    fs::create_dir_all(bench.machine.root.path_of("/etc/pam.d")).unwrap();
    std::os::unix::fs::symlink("/etc/pam.d", bench.machine.root.path_of("/etc/harmless")).unwrap();
    // In the directory the link must lead below it.
    let target = bench.machine.root.path_of("/etc/pam.d");
    fs::remove_file(bench.machine.root.path_of("/etc/harmless")).unwrap();
    std::os::unix::fs::symlink(target, bench.machine.root.path_of("/etc/harmless")).unwrap();

    let outcome = bench.apply("#cloud-config\nwrite_files: [{path: /etc/harmless/sshd, content: x}]\n");

    assert!(!bench.machine.root.path_of("/etc/pam.d/sshd").exists());
    assert!(outcome.journal_text().contains("leads to a protected place"), "{}", outcome.journal_text());
}

#[test]
fn a_broken_document_still_lets_its_owner_in() {
    let bench = Bench::new();

    let outcome = bench.apply(&format!(
        "#cloud-config\nhostname: web1\nwrite_files:\n\t- broken\nssh_authorized_keys:\n  - {KEY} me\n"
    ));

    assert_eq!(outcome.run_verdict(), Verdict::Failed);
    assert_eq!(bench.read("/home/core/.ssh/authorized_keys"), format!("{KEY} me\n"));
    assert_eq!(bench.read("/etc/hostname"), "web1\n");
}

#[test]
fn no_secret_reaches_the_journal_the_result_or_a_command_line() {
    let bench = Bench::new();
    let secret = "hunter2-very-secret";

    let outcome = bench.apply(&format!(
        "#cloud-config
password: {secret}
chpasswd: {{expire: false, users: [{{name: ada, password: {secret}, type: text}}, {{name: b, password: {secret}}}]}}
users: [{{name: ada, plain_text_passwd: {secret}, passwd: {secret}}}]
write_files:
  - {{path: /etc/taken/, content: {secret}}}
  - {{path: /root/s, content: {secret}, encoding: gz+b64}}
  - {{path: /root/t, content: {secret}, permissions: '0600'}}
runcmd: [[echo, {secret}]]
coreos: {{etcd2: {{name: {secret}}}, fleet: {{etcd_password: {secret}}}}}
{secret}
"
    ));
    let calls = bench.calls().join("\n");

    for text in [outcome.journal_text(), outcome.to_json().to_string(), format!("{outcome:?}"), calls] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn the_same_without_the_broken_line_is_done_in_secret_too() {
    let bench = Bench::new();
    let secret = "hunter2-very-secret";

    let outcome = bench.apply(&format!(
        "#cloud-config
password: {secret}
users: [{{name: ada, plain_text_passwd: {secret}}}]
write_files: [{{path: /root/t, content: {secret}, permissions: '0600'}}]
runcmd: [[echo, {secret}]]
coreos: {{fleet: {{etcd_password: {secret}}}}}
"
    ));
    let calls = bench.calls().join("\n");

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    assert!(calls.contains("chpasswd"));
    assert_eq!(bench.mode("/run/systemd/system/fleet.service.d/20-cloudinit.conf"), 0o600);
    assert_eq!(bench.mode("/var/lib/catamaran/first-boot/scripts/runcmd"), 0o700);
    for text in [outcome.journal_text(), outcome.to_json().to_string(), format!("{outcome:?}"), calls] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn host_keys_are_made_once() {
    let bench = Bench::new();
    bench.apply("#cloud-config\n{}\n");
    assert!(bench.called("-t ed25519"));

    bench.apply("#cloud-config\n{}\n");

    assert!(!bench.called("ssh-keygen"));
}

#[test]
fn a_file_that_is_there_keeps_what_was_not_given_anew() {
    if !is_root() {
        return;
    }
    for (keys, mode, owner, text) in [
        ("content: new", 0o600, (1000, 1000), "new"),
        ("content: new, append: true", 0o600, (1000, 1000), "old\nnew"),
        ("content: new, permissions: '0640'", 0o640, (1000, 1000), "new"),
        ("content: new, owner: root", 0o600, (0, 1000), "new"),
        ("content: new, owner: 'root:root', permissions: '0644'", 0o644, (0, 0), "new"),
        ("permissions: '0400'", 0o400, (1000, 1000), ""),
        ("content: new, owner: ''", 0o600, (1000, 1000), "new"),
    ] {
        let bench = Bench::new();
        let path = bench.machine.root.path_of("/srv/secret");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "old\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(1000), Some(1000)).unwrap();

        let outcome = bench.apply(&format!("#cloud-config\nwrite_files: [{{path: /srv/secret, {keys}}}]\n"));

        assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
        assert_eq!(bench.read("/srv/secret"), text, "{keys}");
        assert_eq!((bench.mode("/srv/secret"), bench.owner("/srv/secret")), (mode, owner), "{keys}");
    }
}

#[test]
fn a_new_file_is_roots_and_the_second_run_changes_nothing() {
    let bench = Bench::new();
    let document = "#cloud-config\nwrite_files: [{path: /srv/a, content: x}, {path: /srv/a, content: y, append: true}]\n";

    bench.apply(document);
    let before = bench.snapshot();
    bench.apply(document);

    assert_eq!(bench.mode("/srv/a"), 0o644);
    assert_eq!(
        bench.snapshot().get(&bench.machine.root.path_of("/srv/a").display().to_string()),
        before.get(&bench.machine.root.path_of("/srv/a").display().to_string())
    );
}

#[test]
fn a_setuid_bit_does_not_go_over_to_another_program() {
    let bench = Bench::new();
    let path = bench.machine.root.path_of("/opt/bin/tool");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();

    bench.apply("#cloud-config\nwrite_files: [{path: /opt/bin/tool, content: new}]\n");

    assert_eq!(bench.mode("/opt/bin/tool"), 0o755);
}

#[test]
fn a_closed_environment_stays_closed() {
    let bench = Bench::new();
    let path = bench.machine.root.path_of("/etc/coreos/update.conf");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "SERVER=https://site:secret@updates.example\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

    bench.apply("#cloud-config\ncoreos: {update: {group: beta}}\n");

    assert!(bench.read("/etc/coreos/update.conf").contains("GROUP=beta"));
    assert_eq!(bench.mode("/etc/coreos/update.conf"), 0o600);
}

#[test]
fn an_environment_keeps_its_rights_until_it_holds_a_password() {
    if !is_root() {
        return;
    }
    let open = "update: {group: beta}";
    let secret = "update: {server: 'https://site:secret@updates.example'}";
    for (known, update, mode, owner) in [
        (Some((0o640, 1000)), open, 0o640, 1000),
        (Some((0o600, 0)), open, 0o600, 0),
        (Some((0o644, 0)), open, 0o644, 0),
        (Some((0o644, 0)), secret, 0o600, 0),
        (None, open, 0o644, 0),
        (None, secret, 0o600, 0),
    ] {
        let bench = Bench::new();
        let path = bench.machine.root.path_of("/etc/coreos/update.conf");
        if let Some((mode, owner)) = known {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "# the site's\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
        }

        for _ in 0..2 {
            let outcome = bench.apply(&format!("#cloud-config\ncoreos: {{{update}}}\n"));

            assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
            let rights = (bench.mode("/etc/coreos/update.conf"), bench.owner("/etc/coreos/update.conf"));
            assert_eq!(rights, (mode, (owner, owner)), "{known:?} {update}");
        }
    }
}

#[test]
fn hosts_follow_the_name_that_the_machine_has() {
    let bench = Bench::new();
    let kernel = bench.machine.root.path_of("/proc/sys/kernel/hostname");
    fs::create_dir_all(kernel.parent().unwrap()).unwrap();
    fs::write(kernel, "ship.example.org\n").unwrap();

    bench.apply("#cloud-config\nmanage_etc_hosts: true\n");

    assert!(bench.read("/etc/hosts").starts_with("127.0.1.1 ship.example.org ship\n"));
}

#[test]
fn the_final_message_says_when() {
    let bench = Bench::new();
    fs::create_dir_all(bench.machine.root.path_of("/dev")).unwrap();
    fs::write(bench.machine.root.path_of("/dev/console"), "").unwrap();

    bench.apply("#cloud-config\nfinal_message: up at $timestamp\n");

    assert!(bench.called("date --rfc-email"), "{:?}", bench.calls());
    assert!(!bench.read("/dev/console").contains("$timestamp"));
}
