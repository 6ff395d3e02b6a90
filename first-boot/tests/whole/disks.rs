//! Disks are divided and formatted by the real programs; each disk is a file.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use first_boot::{MachineRoot, ProgramCall, ProgramRunner, RealPrograms, RunError, RunOutcome, Verdict};

use crate::machine::Bench;

const TOOLS: [&str; 6] = ["sfdisk", "blkid", "mkfs.ext4", "mkfs.vfat", "mkswap", "wipefs"];

/// The host's programs, told where the machine's devices are.
#[derive(Debug)]
struct Disks(MachineRoot);

impl ProgramRunner for Disks {
    fn run_program(&self, call: &ProgramCall) -> Result<Vec<u8>, RunError> {
        if call.program == "udevadm" {
            return Ok(Vec::new());
        }
        let mut call = call.clone();
        for argument in &mut call.arguments {
            if argument.starts_with("/dev/") {
                *argument = self.0.path_of(argument).display().to_string();
            }
        }
        RealPrograms.run_program(&call)
    }
}

/// Whether the programs are there; says which are not, and fails if they must be.
fn can_divide() -> bool {
    let folders = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let is_missing = |tool: &&str| !folders.iter().any(|folder| Path::new(folder).join(tool).exists());
    let missing: Vec<&str> = TOOLS.into_iter().filter(is_missing).collect();
    assert!(
        missing.is_empty() || std::env::var("CI").as_deref() != Ok("true"),
        "CI must divide real disks: {missing:?} are missing (packages dosfstools, e2fsprogs, fdisk, util-linux)"
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
        File::create(root.path_of(&format!("/dev/{name}"))).unwrap().set_len(mib << 20).unwrap();
        let folder = root.path_of(&format!("/sys/class/block/{name}"));
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
    printed("/usr/sbin/blkid", &["-p", "-o", "export"], &bench.machine.root.path_of(device))
}

fn table(bench: &Bench) -> String {
    printed("/usr/sbin/sfdisk", &["--dump"], &bench.machine.root.path_of("/dev/vdb"))
}

fn failures(outcome: &RunOutcome) -> usize {
    let json = outcome.to_json();
    json["items"].as_array().unwrap().iter().filter(|item| item["status"] == "failed").count()
}

#[test]
fn a_disk_gets_its_partitions_and_file_systems_once() {
    if !can_divide() {
        return;
    }
    let bench = machine();

    let outcome = bench.apply(DOCUMENT);

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
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

    assert_eq!(again.run_verdict(), Verdict::Ok, "{}", again.journal_text());
    assert_eq!((table(&bench), signature(&bench, "/dev/vdb2")), uuids, "what is there is left alone");
}

#[test]
fn what_holds_something_is_left_unless_told_otherwise() {
    if !can_divide() {
        return;
    }
    let bench = machine();
    let disk = bench.machine.root.path_of("/dev/vdb");
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
    assert_eq!(failures(&kept), 1, "{}", kept.journal_text());
    assert!(kept.journal_text().contains("/dev/vdb holds ext4 already"), "{}", kept.journal_text());
    assert!(signature(&bench, "/dev/vdb").contains("LABEL=precious"));

    let replaced = bench.apply(&over(true));
    assert_eq!(failures(&replaced), 0, "{}", replaced.journal_text());
    assert!(table(&bench).contains("label: gpt"));
    assert!(signature(&bench, "/dev/vdb2").contains("TYPE=swap"));
}

/// An Ignition configuration of one section.
fn ignition(storage: &str) -> String {
    format!(r#"{{"ignition": {{"version": "3.4.0"}}, "storage": {{{storage}}}}}"#)
}

fn ignition_disk(fields: &str) -> String {
    ignition(&format!(r#""disks": [{{"device": "/dev/vdb", {fields}}}]"#))
}

fn ignition_filesystem(fields: &str) -> String {
    ignition(&format!(r#""filesystems": [{{"device": "/dev/vdb1", {fields}}}]"#))
}

#[test]
fn a_file_system_is_wiped_when_that_is_asked_for_and_only_then() {
    if !can_divide() {
        return;
    }
    let bench = machine();
    let made = bench.apply(&ignition_filesystem(r#""format": "ext4", "label": "OLD""#));
    assert_eq!(made.run_verdict(), Verdict::Ok, "{}", made.journal_text());
    let old = signature(&bench, "/dev/vdb1");

    let again = bench.apply(&ignition_filesystem(r#""format": "ext4", "label": "OLD""#));
    assert_eq!(
        (again.run_verdict(), signature(&bench, "/dev/vdb1")),
        (Verdict::Ok, old.clone()),
        "{}",
        again.journal_text()
    );
    for (fields, why) in [
        (r#""format": "ext4", "label": "NEW""#, "another label"),
        (r#""format": "ext4", "uuid": "0cc175b9-c0f1-46b6-a31c-399e26977266""#, "another UUID"),
        (r#""format": "swap""#, "holds ext4 already"),
        (r#""format": "none""#, "holds ext4 already"),
    ] {
        let kept = bench.apply(&ignition_filesystem(fields));
        assert!(
            failures(&kept) == 1 && kept.journal_text().contains(why),
            "{fields}: {}",
            kept.journal_text()
        );
        assert_eq!(signature(&bench, "/dev/vdb1"), old);
    }
    let wiped =
        bench.apply(&ignition_filesystem(r#""format": "ext4", "wipeFilesystem": true, "label": "NEW""#));
    assert_eq!(failures(&wiped), 0, "{}", wiped.journal_text());
    let new = signature(&bench, "/dev/vdb1");
    assert!(new.contains("LABEL=NEW") && new.contains("TYPE=ext4"), "{new}");
    let emptied = bench.apply(&ignition_filesystem(r#""format": "none", "wipeFilesystem": true"#));
    assert_eq!(
        (failures(&emptied), signature(&bench, "/dev/vdb1")),
        (0, String::new()),
        "{}",
        emptied.journal_text()
    );
}

#[test]
fn each_file_system_gets_its_uuid_in_its_own_way() {
    if !can_divide() {
        return;
    }
    for (format, uuid, shown) in [
        ("vfat", "1234ABCD", "UUID=1234-ABCD"),
        ("vfat", "1234-abcd", "UUID=1234-ABCD"),
        ("ext4", "0cc175b9-c0f1-46b6-a31c-399e26977266", "UUID=0cc175b9-c0f1-46b6-a31c-399e26977266"),
        ("swap", "0CC175B9-c0f1-46b6-a31c-399e26977266", "UUID=0cc175b9-c0f1-46b6-a31c-399e26977266"),
    ] {
        let bench = machine();
        let document =
            ignition_filesystem(&format!(r#""format": "{format}", "uuid": "{uuid}", "label": "Data""#));

        let outcome = bench.apply(&document);

        assert_eq!(outcome.run_verdict(), Verdict::Ok, "{format}: {}", outcome.journal_text());
        let made = signature(&bench, "/dev/vdb1");
        assert!(made.contains(shown), "{format}: {made}");
        let again = bench.apply(&document);
        assert_eq!(
            (failures(&again), signature(&bench, "/dev/vdb1")),
            (0, made),
            "{format}: {}",
            again.journal_text()
        );
    }
}

/// Puts the superblock of ext4 into a FAT, between the first sector and the files.
fn add_superblock(bench: &Bench, path: &Path) {
    use std::os::unix::fs::FileExt;
    let other = bench.machine.root.path_of("/dev/vdb2");
    printed("/usr/sbin/mkfs.ext4", &["-q", "-F"], &other);
    let mut superblock = [0; 1024];
    File::open(other).unwrap().read_exact_at(&mut superblock, 1024).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(&superblock, 1024).unwrap();
}

#[test]
fn a_device_with_two_signatures_is_wiped_or_left_alone() {
    if !can_divide() {
        return;
    }
    let bench = machine();
    let device = bench.machine.root.path_of("/dev/vdb1");
    printed("/usr/sbin/mkfs.vfat", &[], &device);
    add_superblock(&bench, &device);

    let kept = bench.apply(&ignition_filesystem(r#""format": "vfat""#));
    assert_eq!(failures(&kept), 1, "{}", kept.journal_text());
    assert!(kept.journal_text().contains("more than one file system"), "{}", kept.journal_text());

    let wiped = bench.apply(&ignition_filesystem(r#""format": "vfat", "wipeFilesystem": true"#));
    assert_eq!(failures(&wiped), 0, "{}", wiped.journal_text());
    assert!(signature(&bench, "/dev/vdb1").contains("TYPE=vfat"), "{}", signature(&bench, "/dev/vdb1"));
}

#[test]
fn a_partition_more_is_added_to_a_table_that_is_there() {
    if !can_divide() {
        return;
    }
    let bench = machine();
    let first = r#"{"number": 1, "label": "there-already", "sizeMiB": 8}"#;
    let made = bench.apply(&ignition_disk(&format!(r#""wipeTable": true, "partitions": [{first}]"#)));
    assert_eq!(made.run_verdict(), Verdict::Ok, "{}", made.journal_text());
    let before = table(&bench);
    let line = |text: &str, name: &str| text.lines().find(|line| line.contains(name)).map(str::to_owned);
    let both =
        ignition_disk(&format!(r#""partitions": [{first}, {{"number": 2, "label": "new", "sizeMiB": 8}}]"#));

    let added = bench.apply(&both);

    assert_eq!(added.run_verdict(), Verdict::Ok, "{}", added.journal_text());
    let after = table(&bench);
    assert_eq!(line(&after, "there-already"), line(&before, "there-already"), "{after}");
    assert!(line(&after, "\"new\"").is_some_and(|line| line.contains("size=       16384")), "{after}");
    assert_eq!(line(&after, "label-id"), line(&before, "label-id"));
    let again = bench.apply(&both);
    assert_eq!((failures(&again), table(&bench)), (0, after.clone()), "{}", again.journal_text());
    let other = bench.apply(&ignition_disk(r#""partitions": [{"number": 1, "label": "other"}]"#));
    assert!(other.journal_text().contains("another label"), "{}", other.journal_text());
    assert_eq!(table(&bench), after);
    let fewer =
        ignition_disk(r#""partitions": [{"number": 1, "shouldExist": false, "wipePartitionEntry": true}]"#);
    assert_eq!(failures(&bench.apply(&fewer)), 0);
    assert!(line(&table(&bench), "there-already").is_none());
}

#[test]
fn every_part_of_a_partition_is_as_it_was_asked_for() {
    if !can_divide() {
        return;
    }
    let bench = machine();

    let outcome = bench.apply(&ignition_disk(
        r#""wipeTable": true, "partitions": [
            {"number": 3, "label": "c\"d\\ \u00e9", "startMiB": 20, "sizeMiB": 8, "guid": "5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6",
             "typeGuid": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"},
            {"number": 1, "label": "rest"}]"#,
    ));

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    let json = printed("/usr/sbin/sfdisk", &["--json"], &bench.machine.root.path_of("/dev/vdb"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let partitions = json["partitiontable"]["partitions"].as_array().unwrap();
    let fields = |index: usize, name: &str| partitions[index][name].clone();
    assert_eq!(
        (fields(0, "start"), fields(0, "size")),
        (57344.into(), 71680.into()),
        "the larger gap is the one behind"
    );
    assert_eq!((fields(1, "start"), fields(1, "size")), (40960.into(), 16384.into()));
    assert_eq!(fields(1, "name"), "c\"d\\ \u{e9}");
    assert_eq!(fields(1, "uuid"), "5DFBF5F4-2848-4BAC-AA5E-0D9A20B745A6");
    assert_eq!(fields(1, "type"), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
}

#[test]
fn a_table_that_is_wiped_without_partitions_leaves_room_for_a_file_system() {
    if !can_divide() {
        return;
    }
    let bench = machine();
    assert_eq!(
        failures(&bench.apply(&ignition_disk(r#""wipeTable": true, "partitions": [{"number": 1}]"#))),
        0
    );
    let whole = r#""filesystems": [{"device": "/dev/vdb", "format": "ext4"}]"#;

    let divided = bench.apply(&ignition(whole));
    assert!(divided.journal_text().contains("a partition table (gpt)"), "{}", divided.journal_text());

    let both = ignition(&format!(r#""disks": [{{"device": "/dev/vdb", "wipeTable": true}}], {whole}"#));
    let outcome = bench.apply(&both);
    assert_eq!(failures(&outcome), 0, "{}", outcome.journal_text());
    assert!(signature(&bench, "/dev/vdb").contains("TYPE=ext4"));
}
