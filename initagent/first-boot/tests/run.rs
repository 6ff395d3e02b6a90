//! Whole runs on a machine that is a directory: once per instance, clones, and a silent platform.

#![expect(clippy::unwrap_used, reason = "this file is a test")]

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use first_boot::{
    Call, Machine, Options, Outcome, Programs, Root, RunError, Verdict, Web, WebError, run, status,
};
use tempfile::TempDir;
use user_data::secret::Secret;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtUsNNX8kEnqp0nrmHYBNCJYGPTrPHmFQhRCGGQpqaH";
const ONCE: Options = Options { force: false };

/// No two keys are alike.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Notes calls; makes host keys that can be told apart.
#[derive(Debug)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Programs for Notes {
    fn run(&self, call: &Call) -> Result<Vec<u8>, RunError> {
        let mut calls = self.0.lock().unwrap();
        calls.push(call.to_string());
        if let ("ssh-keygen", Some(path)) = (call.program, call.arguments.last()) {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            fs::write(path, format!("private {number}")).unwrap();
            fs::write(format!("{path}.pub"), "public").unwrap();
        }
        Ok(Vec::new())
    }
}

#[derive(Debug)]
struct Silence;

impl Web for Silence {
    fn get(&self, url: &str, _: &[(String, Secret<String>)], _: u64) -> Result<Vec<u8>, WebError> {
        Err(WebError::Status { url: url.to_owned(), status: 404 })
    }

    fn post(&self, url: &str, _: &[(String, String)], _: u32) -> Result<(), WebError> {
        Err(WebError::Status { url: url.to_owned(), status: 404 })
    }
}

struct Bench {
    _folder: TempDir,
    machine: Machine,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    /// A machine with a NoCloud seed.
    fn seeded(instance: &str, user_data: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for directory in ["/etc/ssh", "/home/core", "/proc/sys/kernel", "/dev"] {
            fs::create_dir_all(root.path(directory)).unwrap();
        }
        fs::write(root.path("/etc/passwd"), "core:x:1000:1000::/home/core:/bin/bash\n").unwrap();
        fs::write(root.path("/etc/group"), "core:x:1000:\n").unwrap();
        fs::write(root.path("/proc/sys/kernel/hostname"), "localhost\n").unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let machine = Machine { root, programs: Box::new(Notes(Arc::clone(&calls))), web: Box::new(Silence) };
        let bench = Self { _folder: folder, machine, calls };
        bench.seed(instance, user_data);
        bench
    }

    fn seed(&self, instance: &str, user_data: &str) {
        let folder = self.machine.root.path("/var/lib/cloud/seed/nocloud");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("meta-data"), format!("instance-id: {instance}\nlocal-hostname: seeded\n"))
            .unwrap();
        fs::write(folder.join("user-data"), user_data).unwrap();
    }

    fn boot(&self, options: Options) -> Outcome {
        self.calls.lock().unwrap().clear();
        run(options, &self.machine)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.machine.root.path(path)).unwrap_or_default()
    }

    fn called(&self, words: &str) -> bool {
        self.calls.lock().unwrap().iter().any(|call| call.contains(words))
    }
}

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
    assert_eq!(first.verdict(), Verdict::Ok, "{}", first.text());
    assert!(bench.called("catamaran-user-runcmd"));
    fs::write(bench.machine.root.path("/etc/a"), "changed by a person").unwrap();
    fs::remove_dir_all(bench.machine.root.path("/run/systemd")).unwrap();

    let second = bench.boot(ONCE);

    assert_eq!(second.verdict(), Verdict::Ok, "{}", second.text());
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
    fs::write(bench.machine.root.path("/var/lib/cloud/seed/nocloud/network-config"), config).unwrap();

    let first = bench.boot(ONCE);

    assert_eq!(first.verdict(), Verdict::Ok, "{}", first.text());
    let calls = bench.calls.lock().unwrap().clone();
    let place = |words: &str| calls.iter().position(|call| call.contains(words)).unwrap();
    assert!(
        place("restart systemd-networkd") < place("ssh-keygen") && place("ssh-keygen") < place("useradd")
    );
    assert_eq!(first.json()["items"][0]["stage"], "network");

    let second = bench.boot(ONCE);

    assert_eq!(second.json()["items"][0]["status"], "done", "{}", second.text());
    assert!(!bench.called("systemd-networkd"), "what runs is left alone when nothing changed");
}

#[test]
fn force_configures_again() {
    let bench = Bench::seeded("i-1", DOCUMENT);
    bench.boot(ONCE);
    fs::write(bench.machine.root.path("/etc/a"), "changed by a person").unwrap();

    bench.boot(Options { force: true });

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

    assert_eq!(outcome.verdict(), Verdict::Ok, "{}", outcome.text());
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
    bench.boot(Options { force: true });

    assert_eq!(bench.read("/etc/ssh/ssh_host_ed25519_key"), before);
}

#[test]
fn a_seed_that_is_gone_leaves_what_it_said() {
    let bench = Bench::seeded("i-1", DOCUMENT);
    bench.boot(ONCE);
    fs::remove_dir_all(bench.machine.root.path("/var/lib/cloud")).unwrap();
    fs::remove_dir_all(bench.machine.root.path("/run/systemd")).unwrap();

    let outcome = bench.boot(ONCE);

    assert_eq!(outcome.verdict(), Verdict::Ok, "{}", outcome.text());
    assert!(bench.read("/run/systemd/system/etcd2.service.d/20-cloudinit.conf").contains("ETCD_NAME=one"));
    assert!(!bench.called("catamaran-user-runcmd"));
}

#[test]
fn a_machine_that_nobody_tells_anything_gets_its_host_keys() {
    let bench = Bench::seeded("i-1", "");
    fs::remove_dir_all(bench.machine.root.path("/var/lib/cloud")).unwrap();

    let outcome = bench.boot(ONCE);

    assert_eq!(outcome.verdict(), Verdict::Ok, "{}", outcome.text());
    assert!(bench.called("ssh-keygen"));
}

#[test]
fn the_platforms_keys_are_there_whatever_user_data_is() {
    for user_data in
        ["#cloud-config\n\tbroken", "\u{0}\u{1}garbage", "#cloud-config\nusers: 5\n", "{\"ignition\": {"]
    {
        let bench = Bench::seeded("i-1", user_data);
        let meta = bench.machine.root.path("/var/lib/cloud/seed/nocloud/meta-data");
        fs::write(meta, format!("instance-id: i-1\npublic-keys:\n  - {KEY} owner\n")).unwrap();

        let outcome = bench.boot(ONCE);

        assert_ne!(outcome.verdict(), Verdict::Ok, "{user_data:?}");
        assert_eq!(bench.read("/home/core/.ssh/authorized_keys"), format!("{KEY} owner\n"), "{user_data:?}");
    }
}

#[test]
fn status_tells_what_the_last_run_did_and_for_how_long_nothing() {
    let bench = Bench::seeded("i-1", "#cloud-config\nwrite_files: [{path: /etc/a, owner: ghost}]\n");
    assert_eq!(status(&bench.machine.root).verdict, None);

    bench.boot(ONCE);

    let status = status(&bench.machine.root);
    assert_eq!(status.verdict, Some(Verdict::Degraded));
    assert!(status.text.contains("because there is no user ghost"), "{}", status.text);
    let json: serde_json::Value = serde_json::from_str(&status.json).unwrap();
    let item = json["items"].as_array().unwrap().iter().find(|item| item["key"] == "write_files[0]").unwrap();
    assert_eq!((item["line"].as_u64(), item["status"].as_str()), (Some(2), Some("failed")));
}
