//! Boots: once per instance, clones, and a silent platform.

use std::fs;
use std::time::Duration;

use first_boot::{RunOptions, Verdict, await_logins, ended_status, last_status};

use crate::machine::{Bench, KEY};

const ONCE: RunOptions = RunOptions { force: false };

const DOCUMENT: &str = "#cloud-config
write_files: [{path: /etc/a, content: first}]
runcmd: [echo hello]
bootcmd: [echo early]
coreos:
  etcd2: {name: one}
  units: [{name: etcd2.service, command: start}]
";

#[test]
fn the_second_boot_changes_nothing_but_what_is_for_each_boot() {
    let bench = Bench::seeded("i-1", DOCUMENT);
    let first = bench.boot(ONCE);
    assert_eq!(first.run_verdict(), Verdict::Ok, "{}", first.journal_text());
    assert!(bench.called("catamaran-user-runcmd"));
    fs::write(bench.machine.root.path_of("/etc/a"), "changed by a person").unwrap();
    fs::remove_dir_all(bench.machine.root.path_of("/run/systemd")).unwrap();

    let second = bench.boot(ONCE);

    assert_eq!(second.run_verdict(), Verdict::Ok, "{}", second.journal_text());
    assert_eq!(bench.read("/etc/a"), "changed by a person");
    assert!(!bench.called("catamaran-user-runcmd"));
    assert!(bench.called("catamaran-user-bootcmd") && bench.called("start etcd2.service"));
    assert!(bench.read("/run/systemd/system/etcd2.service.d/20-cloudinit.conf").contains("ETCD_NAME=one"));
    assert!(bench.read("/var/lib/catamaran/first-boot/result.json").contains("write_files"));
}

#[test]
fn the_network_comes_up_before_anything_else_and_at_each_boot() {
    let bench = Bench::seeded("i-1", "#cloud-config\nusers: [ada]\n");
    let config = "version: 2\nethernets: {eth0: {addresses: [10.0.0.5/24]}}\n";
    fs::write(bench.machine.root.path_of("/var/lib/cloud/seed/nocloud/network-config"), config).unwrap();

    let first = bench.boot(ONCE);

    assert_eq!(first.run_verdict(), Verdict::Ok, "{}", first.journal_text());
    let calls = bench.calls();
    let place = |words: &str| calls.iter().position(|call| call.contains(words)).unwrap();
    assert!(place("restart systemd-networkd") < place("ssh-keygen"));
    assert!(bench.read("/etc/passwd").contains("ada"));
    assert_eq!(first.to_json()["items"][0]["stage"], "network");

    let second = bench.boot(ONCE);

    assert_eq!(second.to_json()["items"][0]["status"], "done", "{}", second.journal_text());
    assert!(!bench.called("systemd-networkd"), "what runs is left alone when nothing changed");
}

#[test]
fn findings_and_steps_of_the_network_keep_their_places_beside_user_data() {
    let bench = Bench::seeded("i-1", "#cloud-config\nusers: [ada]\nno_such_key: 1\n");
    let config = "version: 2\nethernets:\n  eth0: {addresses: [10.0.0.5/24]}\n  eth1: {no-such-option: 1}\n";
    fs::write(bench.machine.root.path_of("/var/lib/cloud/seed/nocloud/network-config"), config).unwrap();

    let json = bench.boot(ONCE).to_json();

    let places = |list: &str| -> Vec<(String, u64)> {
        let place = |one: &serde_json::Value| Some((one["file"].as_str()?.to_owned(), one["line"].as_u64()?));
        json[list].as_array().unwrap().iter().filter_map(place).collect()
    };
    assert_eq!(places("diagnostics"), [("network-config".to_owned(), 4), ("user-data".to_owned(), 3)]);
    let items = places("items");
    assert!(
        items.contains(&("network-config".to_owned(), 3)) && items.contains(&("user-data".to_owned(), 2))
    );
    let steps = json["items"].as_array().unwrap();
    let restarts = steps.iter().filter(|item| item["what"].as_str().unwrap().contains("networkd"));
    assert_eq!(restarts.count(), 1, "the network is in the result once: {steps:#?}");
}

#[test]
fn logins_wait_for_the_keys_or_for_the_news_that_there_are_none() {
    for bench in [Bench::seeded("i-1", DOCUMENT), Bench::new()] {
        assert!(!await_logins(&bench.machine.root, Duration::from_millis(1)));

        bench.boot(ONCE);

        assert!(await_logins(&bench.machine.root, Duration::ZERO));
    }
    // sshd reads its settings when it comes, and does not wait for what units and scripts take.
    let bench = Bench::seeded("i-1", &format!("{DOCUMENT}ssh_pwauth: false\n"));
    bench.boot(ONCE);
    let calls = bench.calls();
    let asked_early = |request: &str| {
        let call = calls.iter().find(|call| call.starts_with("manager: ") && call.contains(request));
        call.unwrap_or_else(|| panic!("no {request} in {calls:#?}")).ends_with(" (before logins)")
    };
    assert!(asked_early("ssh.service"));
    assert!(!asked_early("start etcd2.service"));
}

#[test]
fn force_configures_again() {
    let bench = Bench::seeded("i-1", DOCUMENT);
    bench.boot(ONCE);
    fs::write(bench.machine.root.path_of("/etc/a"), "changed by a person").unwrap();

    bench.boot(RunOptions { force: true });

    assert_eq!(bench.read("/etc/a"), "first");
    assert!(bench.called("catamaran-user-runcmd"));
}

#[test]
fn a_clone_is_configured_again_and_gets_its_own_host_keys() {
    let bench = Bench::seeded("i-1", DOCUMENT);
    bench.boot(ONCE);
    let before = bench.read("/etc/ssh/ssh_host_ed25519_key");
    bench.seed("i-2", "#cloud-config\nwrite_files: [{path: /etc/a, content: second}]\n");

    let outcome = bench.boot(ONCE);

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    assert_eq!(bench.read("/etc/a"), "second");
    assert_ne!(bench.read("/etc/ssh/ssh_host_ed25519_key"), before);
    assert_eq!(bench.read("/var/lib/catamaran/first-boot/instance-id"), "i-2\n");
}

#[test]
fn a_reboot_keeps_the_host_keys() {
    let bench = Bench::seeded("i-1", DOCUMENT);
    bench.boot(ONCE);
    let before = bench.read("/etc/ssh/ssh_host_ed25519_key");

    bench.boot(ONCE);
    bench.boot(RunOptions { force: true });

    assert_eq!(bench.read("/etc/ssh/ssh_host_ed25519_key"), before);
}

#[test]
fn a_seed_that_is_gone_leaves_what_it_said() {
    let bench = Bench::seeded("i-1", DOCUMENT);
    bench.boot(ONCE);
    fs::remove_dir_all(bench.machine.root.path_of("/var/lib/cloud")).unwrap();
    fs::remove_dir_all(bench.machine.root.path_of("/run/systemd")).unwrap();

    let outcome = bench.boot(ONCE);

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    assert!(bench.read("/run/systemd/system/etcd2.service.d/20-cloudinit.conf").contains("ETCD_NAME=one"));
    assert!(!bench.called("catamaran-user-runcmd"));
}

#[test]
fn a_machine_that_nobody_tells_anything_gets_its_host_keys() {
    let bench = Bench::seeded("i-1", "");
    fs::remove_dir_all(bench.machine.root.path_of("/var/lib/cloud")).unwrap();

    let outcome = bench.boot(ONCE);

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    assert!(bench.called("ssh-keygen"));
}

#[test]
fn the_platforms_keys_are_there_whatever_user_data_is() {
    for user_data in
        ["#cloud-config\n\tbroken", "\u{0}\u{1}garbage", "#cloud-config\nusers: 5\n", "{\"ignition\": {"]
    {
        let bench = Bench::seeded("i-1", user_data);
        let meta = bench.machine.root.path_of("/var/lib/cloud/seed/nocloud/meta-data");
        fs::write(meta, format!("instance-id: i-1\npublic-keys:\n  - {KEY} owner\n")).unwrap();

        let outcome = bench.boot(ONCE);

        assert_ne!(outcome.run_verdict(), Verdict::Ok, "{user_data:?}");
        assert_eq!(bench.read("/run/catamaran/keys/core"), format!("{KEY} owner\n"), "{user_data:?}");
    }
}

#[test]
fn a_key_that_the_platform_took_away_lets_nobody_in_after_the_next_boot() {
    let document = format!("#cloud-config\nuser: ada\nssh_authorized_keys: [{KEY} own]\n");
    let bench = Bench::seeded("i-1", &document);
    let meta = bench.machine.root.path_of("/var/lib/cloud/seed/nocloud/meta-data");
    let offer = |keys: &str| fs::write(&meta, format!("instance-id: i-1\npublic-keys: [{keys}]\n")).unwrap();
    offer(&format!("{KEY} stays, expiry-time=\"20991231235959Z\" {KEY} goes"));
    bench.boot(ONCE);
    for user in ["ada", "core"] {
        let path = format!("/run/catamaran/keys/{user}");
        assert!(bench.read(&path).contains("expiry-time=\"20991231235959Z\" ssh-ed25519"), "{user}");
        assert_eq!((bench.mode(&path), bench.mode("/run/catamaran/keys")), (0o644, 0o755));
        assert_eq!(bench.read(&format!("/home/{user}/.ssh/authorized_keys")), format!("{KEY} own\n"));
    }

    offer(&format!("{KEY} stays"));
    bench.boot(ONCE);
    assert_eq!(bench.read("/run/catamaran/keys/core"), format!("{KEY} stays\n"));

    offer("");
    bench.boot(ONCE);
    assert!(!bench.machine.root.path_of("/run/catamaran/keys/core").exists());
    assert!(!bench.machine.root.path_of("/run/catamaran/keys/ada").exists());
    assert_eq!(bench.read("/home/ada/.ssh/authorized_keys"), format!("{KEY} own\n"));
    // A file that is applied has nothing to do with the platform.
    offer(&format!("{KEY} back"));
    bench.boot(ONCE);
    bench.apply("#cloud-config\nhostname: x\n");
    assert_eq!(bench.read("/run/catamaran/keys/core"), format!("{KEY} back\n"));
}

#[test]
fn what_an_earlier_boot_left_is_not_the_end_of_this_one() {
    let bench = Bench::seeded("i-1", DOCUMENT);
    bench.boot(ONCE);
    assert!(ended_status(&bench.machine.root).is_some());

    // As at each start of the machine.
    fs::remove_dir_all(bench.machine.root.path_of("/run/catamaran")).unwrap();

    assert!(last_status(&bench.machine.root).verdict.is_some());
    assert_eq!(ended_status(&bench.machine.root), None);
}

#[test]
fn status_tells_what_the_last_run_did_and_for_how_long_nothing() {
    let bench = Bench::seeded("i-1", "#cloud-config\nwrite_files: [{path: /etc/a, owner: ghost}]\n");
    assert_eq!(last_status(&bench.machine.root).verdict, None);

    bench.boot(ONCE);

    let status = last_status(&bench.machine.root);
    assert_eq!(status.verdict, Some(Verdict::Degraded));
    assert!(status.text.contains("because there is no user ghost"), "{}", status.text);
    let json: serde_json::Value = serde_json::from_str(&status.json).unwrap();
    let item = json["items"].as_array().unwrap().iter().find(|item| item["key"] == "write_files[0]").unwrap();
    assert_eq!((item["line"].as_u64(), item["status"].as_str()), (Some(2), Some("failed")));
}

#[test]
fn a_template_keeps_the_names_of_the_first_boot() {
    let document = "## template: jinja\n#cloud-config\n\
        write_files: [{path: /etc/join, content: '{{ ds.meta_data.provider_id }} {{ v1.local_hostname }}'}]\n\
        bootcmd: ['echo {{ ds.meta_data.rack }}']\n";
    let bench = Bench::seeded("i-1", document);
    let meta_data = bench.machine.root.path_of("/var/lib/cloud/seed/nocloud/meta-data");
    let names = |rack: &str| {
        format!("instance-id: i-1\nlocal-hostname: web.example.net\nprovider-id: site://7\nrack: {rack}\n")
    };
    let early = "/var/lib/catamaran/first-boot/scripts/bootcmd";
    fs::write(&meta_data, names("r-1")).unwrap();
    let first = bench.boot(ONCE);
    assert_eq!(first.run_verdict(), Verdict::Ok, "{}", first.journal_text());
    assert_eq!(bench.read("/etc/join"), "site://7 web");
    assert!(bench.read(early).contains("echo r-1"));

    fs::write(&meta_data, names("$(evil)")).unwrap();
    let second = bench.boot(ONCE);

    assert_eq!(second.run_verdict(), Verdict::Ok, "{}", second.journal_text());
    assert!(bench.read(early).contains("echo r-1"));
}
