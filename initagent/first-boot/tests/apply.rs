//! Documents are applied to a machine that is a directory: its files are real, its programs are
//! honest twins that keep /etc/passwd and /etc/group and note what they were called with.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "this file is a test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use first_boot::{Call, Machine, Outcome, Programs, Root, RunError, Verdict, Web, WebError, apply_file};
use tempfile::TempDir;
use user_data::secret::Secret;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtUsNNX8kEnqp0nrmHYBNCJYGPTrPHmFQhRCGGQpqaH";

/// Programs that do to the directory what the real ones do to a machine.
#[derive(Debug)]
struct Twins {
    root: Root,
    calls: Arc<Mutex<Vec<String>>>,
    /// What `sshd -t` says.
    sshd_complains: bool,
}

impl Programs for Twins {
    fn run(&self, call: &Call) -> Result<Vec<u8>, RunError> {
        self.calls.lock().unwrap().push(call.to_string());
        let failed = |complaint: &str| {
            Err(RunError::Failed { program: call.program, code: Some(1), complaint: complaint.to_owned() })
        };
        match (call.program, call.arguments.last().map(String::as_str)) {
            ("useradd", Some("broken")) => failed("no luck"),
            ("useradd", Some(name)) => {
                self.add("/etc/passwd", &format!("{name}:x:1001:1001::/home/{name}:/bin/bash"));
                self.add("/etc/group", &format!("{name}:x:1001:"));
                fs::create_dir_all(self.root.path(&format!("/home/{name}"))).unwrap();
                Ok(Vec::new())
            }
            ("groupadd", Some(name)) => {
                self.add("/etc/group", &format!("{name}:x:2000:"));
                Ok(Vec::new())
            }
            ("ssh-keygen", Some(path)) => {
                fs::write(path, "private").unwrap();
                fs::write(format!("{path}.pub"), "public").unwrap();
                Ok(Vec::new())
            }
            // blkid's way to say that a device holds nothing it knows.
            ("blkid", _) => {
                Err(RunError::Failed { program: "blkid", code: Some(2), complaint: String::new() })
            }
            ("systemctl", _) if call.arguments.iter().any(|word| word == "broken.service") => {
                failed("no such unit")
            }
            ("/usr/sbin/sshd", _) if self.sshd_complains => failed("bad configuration option"),
            _ => Ok(Vec::new()),
        }
    }
}

impl Twins {
    fn add(&self, file: &str, line: &str) {
        let path = self.root.path(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}{line}\n")).unwrap();
    }
}

/// A network on which nobody answers.
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

/// A machine in a directory.
struct Bench {
    folder: TempDir,
    machine: Machine,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new() -> Self {
        Self::with_sshd(false)
    }

    fn with_sshd(sshd_complains: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path().join("root"));
        for directory in ["/etc/ssh", "/home/core", "/proc/sys/kernel", "/dev", "/usr/share/zoneinfo/Europe"]
        {
            fs::create_dir_all(root.path(directory)).unwrap();
        }
        fs::write(
            root.path("/etc/passwd"),
            "root:x:0:0::/root:/bin/bash\ncore:x:1000:1000::/home/core:/bin/bash\n",
        )
        .unwrap();
        fs::write(root.path("/etc/group"), "root:x:0:\ncore:x:1000:\nsudo:x:27:core\ndocker:x:999:core\n")
            .unwrap();
        fs::write(root.path("/proc/sys/kernel/hostname"), "localhost\n").unwrap();
        fs::write(root.path("/dev/console"), "").unwrap();
        fs::write(root.path("/usr/share/zoneinfo/Europe/Berlin"), "TZif").unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let twins = Twins { root: root.clone(), calls: Arc::clone(&calls), sshd_complains };
        let machine = Machine { root, programs: Box::new(twins), web: Box::new(Silence) };
        Self { folder, machine, calls }
    }

    fn apply(&self, document: &str) -> Outcome {
        let file = self.folder.path().join("user-data");
        fs::write(&file, document).unwrap();
        self.calls.lock().unwrap().clear();
        apply_file(&file, &self.machine)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.machine.root.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.machine.root.path(path)).unwrap().permissions().mode() & 0o7777
    }

    fn owner(&self, path: &str) -> (u32, u32) {
        let meta = fs::metadata(self.machine.root.path(path)).unwrap();
        (meta.uid(), meta.gid())
    }

    fn called(&self, words: &str) -> bool {
        self.calls.lock().unwrap().iter().any(|call| call.contains(words))
    }

    /// Every file with its mode and content.
    fn snapshot(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut files = BTreeMap::new();
        collect(&self.machine.root.path("/"), &mut files);
        files
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            collect(&path, files);
        } else {
            let content = if meta.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string().into_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            files.insert(path.display().to_string(), (meta.mode(), content));
        }
    }
}

fn statuses(outcome: &Outcome) -> Vec<(String, String)> {
    let json = outcome.json();
    let items = json["items"].as_array().unwrap().iter();
    items
        .map(|item| (item["what"].as_str().unwrap().to_owned(), item["status"].as_str().unwrap().to_owned()))
        .collect()
}

/// Whether we may give files away; a test that needs it says so otherwise.
fn is_root() -> bool {
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

    assert_eq!(outcome.verdict(), Verdict::Ok, "{}", outcome.text());
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
        fs::read_link(bench.machine.root.path("/etc/systemd/system/b.service")).unwrap(),
        Path::new("/dev/null")
    );
    assert_eq!(
        fs::read_link(bench.machine.root.path("/etc/localtime")).unwrap(),
        Path::new("../usr/share/zoneinfo/Europe/Berlin")
    );
    assert!(bench.called("useradd --password * --groups sudo,ops --shell /bin/bash --create-home ada"));
    assert!(bench.called("systemctl --no-block start etcd2.service"));
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
    assert_eq!(outcome.verdict(), Verdict::Ok, "{}", outcome.text());
}

#[test]
fn what_fails_costs_its_neighbours_nothing() {
    let bench = Bench::new();
    fs::create_dir_all(bench.machine.root.path("/etc/taken")).unwrap();

    let outcome = bench.apply(
        "#cloud-config
users: [broken, ada]
write_files:
  - {path: /etc/taken, content: x}
  - {path: /etc/nobody, content: x, owner: ghost}
  - {path: /etc/good, content: x}
coreos: {units: [{name: a.service, content: x, command: start}]}
",
    );

    let failed: Vec<_> = statuses(&outcome).into_iter().filter(|(_, status)| status == "failed").collect();
    assert_eq!(failed.len(), 3, "{failed:?}");
    assert_eq!(outcome.verdict(), Verdict::Degraded);
    assert_eq!(bench.read("/etc/good"), "x");
    assert!(bench.read("/etc/passwd").contains("ada"));
    assert!(bench.called("start a.service"));
    assert!(outcome.text().contains("there is no user ghost"), "{}", outcome.text());
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
    assert!(bench.called("--no-block start c.service"));
}

#[test]
fn units_are_started_by_one_call() {
    let bench = Bench::new();

    bench.apply("#cloud-config\ncoreos: {units: [{name: a.service, command: start}, {name: b.service, command: start}]}\n");

    assert!(bench.called("systemctl --no-block start a.service b.service"));
}

/// A disk in the directory: a node, and its size in sectors.
fn attach(bench: &Bench, name: &str) {
    let root = &bench.machine.root;
    fs::write(root.path(&format!("/dev/{name}")), "").unwrap();
    fs::create_dir_all(root.path(&format!("/sys/class/block/{name}"))).unwrap();
    fs::write(root.path(&format!("/sys/class/block/{name}/size")), "2000000\n").unwrap();
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

    assert_eq!(outcome.verdict(), Verdict::Ok, "{}", outcome.text());
    assert!(bench.called("sfdisk --quiet --wipe always /dev/vdb"));
    assert!(bench.called("mkfs.ext4 -F -q -L data -m 0 /dev/vdb1"));
    assert!(bench.called("systemctl --no-block start srv-data.mount"));
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
    let labels = bench.machine.root.path("/dev/disk/by-partlabel");
    fs::create_dir_all(&labels).unwrap();
    for partition in ["vda6", "nvme0n1p6"] {
        let _ = fs::remove_file(labels.join("STATE"));
        std::os::unix::fs::symlink(
            bench.machine.root.path(&format!("/dev/{partition}")),
            labels.join("STATE"),
        )
        .unwrap();
        let disk = if partition == "vda6" { "vda" } else { "nvme0n1" };

        let outcome = bench.apply(&format!(
            "#cloud-config
disk_setup: {{{disk}: {{layout: true, overwrite: true}}}}
fs_setup: [{{filesystem: ext4, device: /dev/{partition}, overwrite: true}}]
"
        ));

        let failed = statuses(&outcome).into_iter().filter(|(_, status)| status == "failed").count();
        assert_eq!(failed, 2, "{}", outcome.text());
        assert!(!bench.called("sfdisk") && !bench.called("mkfs"));
    }
}

#[test]
fn a_broken_sshd_config_is_taken_back() {
    let bench = Bench::with_sshd(true);
    fs::write(bench.machine.root.path("/etc/ssh/sshd_config"), "Port 22\n").unwrap();

    let outcome = bench.apply(
        "#cloud-config
write_files:
  - {path: /etc/ssh/sshd_config, content: 'Nonsense yes'}
  - {path: /etc/ssh/sshd_config.d/1.conf, content: 'Nonsense yes'}
  - {path: /etc/motd, content: hi}
",
    );

    assert_eq!(bench.read("/etc/ssh/sshd_config"), "Port 22\n");
    assert!(!bench.machine.root.path("/etc/ssh/sshd_config.d/1.conf").exists());
    assert_eq!(bench.read("/etc/motd"), "hi");
    assert_eq!(outcome.verdict(), Verdict::Degraded);
    assert!(outcome.text().contains("sshd would not start"), "{}", outcome.text());
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
    fs::create_dir_all(bench.machine.root.path("/etc/pam.d")).unwrap();
    std::os::unix::fs::symlink("/etc/pam.d", bench.machine.root.path("/etc/harmless")).unwrap();
    // In the directory the link must lead below it.
    let target = bench.machine.root.path("/etc/pam.d");
    fs::remove_file(bench.machine.root.path("/etc/harmless")).unwrap();
    std::os::unix::fs::symlink(target, bench.machine.root.path("/etc/harmless")).unwrap();

    let outcome = bench.apply("#cloud-config\nwrite_files: [{path: /etc/harmless/sshd, content: x}]\n");

    assert!(!bench.machine.root.path("/etc/pam.d/sshd").exists());
    assert!(outcome.text().contains("leads to a protected place"), "{}", outcome.text());
}

#[test]
fn a_broken_document_still_lets_its_owner_in() {
    let bench = Bench::new();

    let outcome = bench.apply(&format!(
        "#cloud-config\nhostname: web1\nwrite_files:\n\t- broken\nssh_authorized_keys:\n  - {KEY} me\n"
    ));

    assert_eq!(outcome.verdict(), Verdict::Failed);
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
    let calls = bench.calls.lock().unwrap().join("\n");

    for text in [outcome.text(), outcome.json().to_string(), format!("{outcome:?}"), calls] {
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
    let calls = bench.calls.lock().unwrap().join("\n");

    assert_eq!(outcome.verdict(), Verdict::Ok, "{}", outcome.text());
    assert!(calls.contains("chpasswd"));
    assert_eq!(bench.mode("/run/systemd/system/fleet.service.d/20-cloudinit.conf"), 0o600);
    assert_eq!(bench.mode("/var/lib/catamaran/first-boot/scripts/runcmd"), 0o700);
    for text in [outcome.text(), outcome.json().to_string(), format!("{outcome:?}"), calls] {
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
