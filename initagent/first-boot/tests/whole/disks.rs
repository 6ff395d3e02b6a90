//! Disks are divided and formatted by the real programs; each disk is a file.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use first_boot::{Call, Outcome, Programs, RealPrograms, Root, RunError, Verdict};

use crate::machine::Bench;

const TOOLS: [&str; 4] = ["sfdisk", "blkid", "mkfs.ext4", "mkswap"];

/// The host's programs, told where the machine's devices are.
#[derive(Debug)]
struct Disks(Root);

impl Programs for Disks {
    fn run(&self, call: &Call) -> Result<Vec<u8>, RunError> {
        if call.program == "udevadm" {
            return Ok(Vec::new());
        }
        let mut call = call.clone();
        for argument in &mut call.arguments {
            if argument.starts_with("/dev/") {
                *argument = self.0.path(argument).display().to_string();
            }
        }
        RealPrograms.run(&call)
    }
}

/// Whether the programs are there; says which are not, and fails if they must be.
fn can_divide() -> bool {
    let folders = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let is_missing = |tool: &&str| !folders.iter().any(|folder| Path::new(folder).join(tool).exists());
    let missing: Vec<&str> = TOOLS.into_iter().filter(is_missing).collect();
    assert!(
        missing.is_empty() || std::env::var("CI").as_deref() != Ok("true"),
        "CI must divide real disks: {missing:?} are missing (packages fdisk, e2fsprogs, util-linux)"
    );
    if !missing.is_empty() {
        eprintln!("skipped: dividing disks needs {missing:?}");
    }
    missing.is_empty()
}

/// A machine with an empty disk of 64 MiB and devices where its partitions will be.
fn machine() -> Bench {
    let mut bench = Bench::new();
    let root = bench.machine.root.clone();
    bench.machine.programs = Box::new(Disks(root.clone()));
    for (name, mib) in [("vdb", 64), ("vdb1", 16), ("vdb2", 40)] {
        File::create(root.path(&format!("/dev/{name}"))).unwrap().set_len(mib << 20).unwrap();
        let folder = root.path(&format!("/sys/class/block/{name}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("size"), format!("{}\n", mib * 2048)).unwrap();
    }
    bench
}

const DOCUMENT: &str = "#cloud-config
disk_setup: {vdb: {layout: [[25, 82], 75]}}
fs_setup:
- {filesystem: swap, device: vdb, partition: 1, label: more}
- {filesystem: ext4, device: vdb, partition: 2, label: data, extra_opts: ['-m', '0']}
";

fn printed(program: &str, arguments: &[&str], device: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(device).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn signature(bench: &Bench, device: &str) -> String {
    printed("/usr/sbin/blkid", &["-p", "-o", "export"], &bench.machine.root.path(device))
}

fn table(bench: &Bench) -> String {
    printed("/usr/sbin/sfdisk", &["--dump"], &bench.machine.root.path("/dev/vdb"))
}

fn failures(outcome: &Outcome) -> usize {
    let json = outcome.json();
    json["items"].as_array().unwrap().iter().filter(|item| item["status"] == "failed").count()
}

#[test]
fn a_disk_gets_its_partitions_and_file_systems_once() {
    if !can_divide() {
        return;
    }
    let bench = machine();

    let outcome = bench.apply(DOCUMENT);

    assert_eq!(outcome.verdict(), Verdict::Ok, "{}", outcome.text());
    let divided = table(&bench);
    assert!(divided.contains("label: gpt"), "{divided}");
    // A quarter of 64 MiB of swap, and what is left of Linux.
    assert!(divided.contains("size=       32768, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"), "{divided}");
    assert!(divided.contains("type=0FC63DAF-8483-4772-8E79-3D69D8477DE4"), "{divided}");
    assert!(signature(&bench, "/dev/vdb1").contains("TYPE=swap"));
    let data = signature(&bench, "/dev/vdb2");
    assert!(data.contains("TYPE=ext4") && data.contains("LABEL=data"), "{data}");
    let uuids = (divided, data);

    let again = bench.apply(DOCUMENT);

    assert_eq!(again.verdict(), Verdict::Ok, "{}", again.text());
    assert_eq!((table(&bench), signature(&bench, "/dev/vdb2")), uuids, "what is there is left alone");
}

#[test]
fn what_holds_something_is_left_unless_told_otherwise() {
    if !can_divide() {
        return;
    }
    let bench = machine();
    let disk = bench.machine.root.path("/dev/vdb");
    printed("/usr/sbin/mkfs.ext4", &["-q", "-F", "-L", "precious"], &disk);
    let over = |overwrite: bool| {
        format!(
            "#cloud-config
disk_setup: {{vdb: {{layout: true, overwrite: {overwrite}}}}}
fs_setup: [{{filesystem: swap, device: /dev/vdb2, overwrite: {overwrite}}}]
"
        )
    };

    let kept = bench.apply(&over(false));
    assert_eq!(failures(&kept), 1, "{}", kept.text());
    assert!(kept.text().contains("/dev/vdb holds ext4 already"), "{}", kept.text());
    assert!(signature(&bench, "/dev/vdb").contains("LABEL=precious"));

    let replaced = bench.apply(&over(true));
    assert_eq!(failures(&replaced), 0, "{}", replaced.text());
    assert!(table(&bench).contains("label: gpt"));
    assert!(signature(&bench, "/dev/vdb2").contains("TYPE=swap"));
}
