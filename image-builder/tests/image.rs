//! A finished image, looked at from outside: what other tools say of it, whether it comes out the same
//! again, and whether forged ones are told from it.
//!
//! Needs `CATAMARAN_IMAGE`, a disk.raw with its packages.lock beside it, and `CATAMARAN_KEY`, the
//! secret key that signed it: `ci/test image` makes both.
#![expect(clippy::disallowed_methods, reason = "it runs the program and tools that judge its output")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why it did not run"
)]

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// What the tests are about; without it they cannot say anything.
struct Subject {
    image: PathBuf,
    key: PathBuf,
}

/// The subject, or `None` with a word why not. In CI there is no excuse.
fn subject() -> Option<Subject> {
    let path = |name: &str| env::var(name).ok().map(PathBuf::from);
    let Some((image, key)) = path("CATAMARAN_IMAGE").zip(path("CATAMARAN_KEY")) else {
        assert!(env::var("CI").is_err(), "CATAMARAN_IMAGE and CATAMARAN_KEY are not set: run ci/test image");
        eprintln!("skipped: CATAMARAN_IMAGE and CATAMARAN_KEY are not set: run ci/test image");
        return None;
    };
    Some(Subject { image, key })
}

fn builder(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_image-builder")).args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a tool that judges, and gives what it said.
fn judged(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()))
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}; ci/setup installs it"));
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn report(image: &Path) -> serde_json::Value {
    serde_json::from_slice(&builder(&["inspect", text(image), "--verify", "--json"]).stdout).unwrap()
}

/// A partition's first byte and length.
fn partition(report: &serde_json::Value, label: &str) -> (u64, u64) {
    let all = report["partitions"].as_array().unwrap();
    let found = all.iter().find(|partition| partition["label"] == label).unwrap();
    (found["first_lba"].as_u64().unwrap() * 512, found["bytes"].as_u64().unwrap())
}

/// A copy of a stretch of the image, sparse where it is zero.
fn cut(image: &Path, (offset, length): (u64, u64), to: &Path) {
    let mut from = File::open(image).unwrap();
    from.seek(SeekFrom::Start(offset)).unwrap();
    let mut from = from.take(length);
    let to = File::create(to).unwrap();
    to.set_len(length).unwrap();
    let (mut buffer, mut at) = (vec![0; 1 << 20], 0);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if buffer[..read].iter().any(|byte| *byte != 0) {
            to.write_all_at(&buffer[..read], at).unwrap();
        }
        at += read as u64;
    }
}

fn copy(image: &Path, folder: &Path) -> PathBuf {
    let to = folder.join("copy.raw");
    cut(image, (0, fs::metadata(image).unwrap().len()), &to);
    to
}

#[test]
fn other_tools_find_nothing_wrong_with_it() {
    let Some(Subject { image, .. }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    let piece = folder.path().join("piece");
    let report = report(&image);

    let (_, said) = judged("sgdisk", &["-v", text(&image)]);
    assert!(said.contains("No problems found"), "{said}");
    for label in ["ESP", "ABSTATE"] {
        cut(&image, partition(&report, label), &piece);
        let (clean, said) = judged("fsck.vfat", &["-n", text(&piece)]);
        assert!(clean && !said.contains("differences"), "{label}: {said}");
    }
    cut(&image, partition(&report, "STATE"), &piece);
    let (clean, said) = judged("e2fsck", &["-fn", text(&piece)]);
    assert!(clean, "STATE: {said}");
    cut(&image, partition(&report, "ROOT-A"), &piece);
    let (clean, said) = judged("e2fsck", &["-fn", text(&piece)]);
    assert!(clean, "ROOT-A: {said}");

    let root = &report["slots"][0]["manifest"]["root"];
    let number = |field: &str| root[field].as_u64().unwrap();
    let (verified, said) = judged(
        "veritysetup",
        &[
            "verify",
            "--no-superblock",
            "--hash=sha256",
            "--data-block-size=4096",
            "--hash-block-size=4096",
            &format!("--data-blocks={}", number("data_bytes") / 4096),
            &format!("--hash-offset={}", number("tree_offset")),
            &format!("--salt={}", root["salt"].as_str().unwrap()),
            text(&piece),
            text(&piece),
            root["root_hash"].as_str().unwrap(),
        ],
    );
    assert!(verified, "veritysetup: {said}");
}

/// The checker is out of the same packages as the GRUB that will read it.
#[test]
fn grub_can_parse_the_selector() {
    let Some(Subject { image, .. }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (piece, selector) = (folder.path().join("esp"), folder.path().join("grub.cfg"));
    cut(&image, partition(&report(&image), "ESP"), &piece);
    let esp =
        fatfs::FileSystem::new(File::open(&piece).map(ReadOnly).unwrap(), fatfs::FsOptions::new()).unwrap();
    let mut text = String::new();
    esp.root_dir().open_file("EFI/debian/grub.cfg").unwrap().read_to_string(&mut text).unwrap();
    fs::write(&selector, &text).unwrap();

    let tools = newest_tools();
    let libraries = tools.join("usr/lib/x86_64-linux-gnu");
    let (accepted, said) = judged(
        self::text(&libraries.join("ld-linux-x86-64.so.2")),
        &[
            "--library-path",
            self::text(&libraries),
            self::text(&tools.join("usr/bin/grub-script-check")),
            self::text(&selector),
        ],
    );

    assert!(accepted, "{said}");
}

/// A file that fatfs may only read.
struct ReadOnly(File);

impl std::io::Read for ReadOnly {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl std::io::Write for ReadOnly {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Seek for ReadOnly {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

fn newest_tools() -> PathBuf {
    let folders = fs::read_dir(cache().join("tools")).unwrap().flatten().map(|entry| entry.path());
    folders.max_by_key(|path| fs::metadata(path).and_then(|found| found.modified()).unwrap()).unwrap()
}

#[test]
fn its_root_holds_what_it_should_and_nothing_else() {
    let Some(Subject { image, .. }) = subject() else { return };
    let names = |folder: &str| -> Vec<String> {
        let items = succeeded(builder(&["inspect", text(&image), folder, "--json"]));
        let items: serde_json::Value = serde_json::from_str(&items).unwrap();
        items.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };

    let programs = [names("/usr/bin"), names("/usr/sbin")].concat();
    let for_disks =
        ["blkid", "mkfs.btrfs", "mkfs.ext4", "mkfs.vfat", "mkfs.xfs", "mkswap", "sfdisk", "wipefs"];
    let for_nodes =
        ["bash", "dockerd", "etcd", "etcdctl", "fleetctl", "fleetd", "initagent", "sshd", "systemctl"];
    for wanted in for_disks.into_iter().chain(for_nodes) {
        assert!(programs.iter().any(|name| name == wanted), "{wanted} is missing");
    }
    for unwanted in ["apt", "apt-get", "cc", "dpkg", "gcc", "perl", "python3"] {
        assert!(!programs.iter().any(|name| name == unwanted), "{unwanted} is there");
    }
    let rests = [names("/etc"), names("/usr/lib"), names("/usr/share")].concat();
    assert!(!rests.iter().any(|name| name.starts_with("python")), "Python left something behind");
    assert!(!names("/etc/ssh").iter().any(|name| name.starts_with("ssh_host_")));
    for unwanted in ["chage", "chfn", "chsh", "expiry", "gpasswd", "newgrp", "sg"] {
        assert!(!programs.iter().any(|name| name == unwanted), "{unwanted} is there");
    }
    let generators = names("/usr/lib/systemd/system-generators");
    // Each was looked at: the first reads a file, the second asks for consoles, and neither starts what it is told.
    assert_eq!(generators, ["systemd-fstab-generator", "systemd-getty-generator"]);
    assert_eq!(names("/boot"), ["env", "initrd.img", "vmlinuz"]);
    assert_eq!(names("/var"), [""; 0]);
    assert_eq!(succeeded(builder(&["inspect", text(&image), "/etc/machine-id"])), "uninitialized\n");
    let release = succeeded(builder(&["inspect", text(&image), "/etc/os-release"]));
    assert!(release.contains("ID=catamaran\n"), "{release}");
    let shadow = succeeded(builder(&["inspect", text(&image), "/etc/shadow"]));
    assert!(
        shadow.lines().all(|line| matches!(line.split(':').nth(1), Some("*" | "!" | "!*" | "!!"))),
        "a password"
    );
}

/// Panics name source files. The builder's folders would tell who built it, and make another home another image.
#[test]
fn no_program_names_a_folder_of_its_builder() {
    let Some(Subject { image, .. }) = subject() else { return };
    let in_image = builder(&["inspect", text(&image), "/usr/bin/initagent"]).stdout;
    assert!(in_image == fs::read(initagent()).unwrap(), "the image has another initagent");
    let home = env::var("CARGO_HOME").unwrap_or_else(|_| env::var("HOME").unwrap() + "/.cargo");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // Programs that were built with it lie beside it.
    let beside = ["image-builder", "vm"].map(|name| Path::new(&initagent()).with_file_name(name));
    let programs = beside.iter().filter_map(|path| fs::read(path).ok()).chain([in_image]);
    for (number, program) in programs.enumerate() {
        for folder in [home.as_bytes(), text(workspace).as_bytes()] {
            let found = program.windows(folder.len()).position(|window| window == folder);
            let said = found
                .map(|at| String::from_utf8_lossy(&program[at..program.len().min(at + 120)]).into_owned());
            assert_eq!(said, None, "program {number}");
        }
    }
}

#[test]
fn it_says_whose_keys_vouch_for_it() {
    let Some(Subject { image, key }) = subject() else { return };

    let own = succeeded(builder(&["inspect", text(&image)]));
    let given = succeeded(builder(&["inspect", text(&image), "--key", text(&key.with_extension("pub"))]));

    assert!(own.contains("by the keys that the image itself brings"), "{own}");
    assert!(given.contains("slot A: signed") && !given.contains("itself brings"), "{given}");
    assert!(own.contains("module.sig_enforce=1") && own.contains("systemd.import_credentials=no"), "{own}");
}

/// What becomes the first program, and what starts before any of ours, is in the lock and in the bill.
#[test]
fn lock_and_bill_have_more_than_the_packages_of_the_root() {
    let Some(Subject { image, .. }) = subject() else { return };
    let beside = |name: &str| fs::read_to_string(image.with_file_name(name)).unwrap();
    let digest = judged("sha256sum", &[&initagent()]).1.split(' ').next().unwrap().to_owned();

    assert!(beside("packages.lock").contains(&format!("\ninitagent {digest}\n")));
    let bill = beside("sbom.spdx.json");
    for part in
        ["pkg:cargo/rustls@", "pkg:deb/debian/shim-signed@", "pkg:deb/debian/grub-efi-amd64-signed@", &digest]
    {
        assert!(bill.contains(part), "{part} is missing");
    }
}

#[test]
fn a_slot_that_was_changed_is_refused() {
    let Some(Subject { image, .. }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    let forged = copy(&image, folder.path());
    let (start, length) = partition(&report(&image), "ROOT-A");
    let disk = OpenOptions::new().read(true).write(true).open(&forged).unwrap();
    let flip = |offset: u64| {
        let mut byte = [0];
        disk.read_exact_at(&mut byte, offset).unwrap();
        disk.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    };

    flip(start + (100 << 20));
    let output = builder(&["inspect", text(&forged), "--verify"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("slot A: REFUSED: a block of the root is not what was signed"), "{said}");
    flip(start + (100 << 20));
    assert!(builder(&["inspect", text(&forged), "--verify"]).status.success());

    // In the payload's first line, behind the trailer's head and the envelope's.
    flip(start + length - (64 << 10) + 400);
    let said = String::from_utf8(builder(&["inspect", text(&forged)]).stdout).unwrap();
    assert!(said.contains("slot A: REFUSED"), "{said}");
}

#[test]
fn a_strangers_key_does_not_vouch_for_it() {
    let Some(Subject { image, .. }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    succeeded(builder(&["keys", "new", text(folder.path())]));
    let key = folder.path().join("release.pub");

    let output = builder(&["inspect", text(&image), "--key", text(&key)]);

    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("0 trusted keys signed the manifest, but 1 must")
    );
}

#[test]
fn a_seed_lands_in_the_esp_and_nothing_else_changes() {
    let Some(Subject { image, .. }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    let seeded = copy(&image, folder.path());
    let user_data = folder.path().join("user-data");
    fs::write(&user_data, "#cloud-config\nhostname: seeded\n").unwrap();

    for _ in 0..2 {
        succeeded(builder(&["seed", text(&seeded), "--user-data", text(&user_data)]));
    }

    let piece = folder.path().join("esp");
    cut(&seeded, partition(&report(&seeded), "ESP"), &piece);
    let (clean, said) = judged("fsck.vfat", &["-n", text(&piece)]);
    assert!(clean && !said.contains("differences"), "{said}");
    let mut esp = Vec::new();
    File::open(&piece).unwrap().read_to_end(&mut esp).unwrap();
    assert!(esp.windows(17).any(|window| window == b"hostname: seeded\n"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&seeded).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "others can read what was seeded");
    assert!(builder(&["inspect", text(&seeded), "--verify"]).status.success());
    let (_, said) = judged("sgdisk", &["-v", text(&seeded)]);
    assert!(said.contains("No problems found"), "{said}");
}

fn cache() -> PathBuf {
    let home = env::var("XDG_CACHE_HOME").map(PathBuf::from);
    home.unwrap_or_else(|_| PathBuf::from(env::var("HOME").unwrap()).join(".cache")).join("image-builder")
}

/// The packages that the image was built from, for a build with another cache.
fn packages_copied_to(other: &Path) {
    let (copied, said) = judged("cp", &["-r", text(&cache().join("apt")), text(other)]);
    assert!(copied, "{said}");
}

fn initagent() -> String {
    env::var("CATAMARAN_INITAGENT").unwrap()
}

/// Another folder, another cache, another time and, where the test may become one, another user.
#[test]
fn the_same_lock_gives_the_same_bytes() {
    let Some(Subject { image, key }) = subject() else { return };
    let folder = tempfile::Builder::new().prefix("another place ").tempdir().unwrap();
    let place = folder.path();
    let (cache, out) = (place.join("cache"), place.join("out"));
    fs::create_dir(&cache).unwrap();
    packages_copied_to(&cache);
    for (from, name) in
        [(image.with_file_name("packages.lock"), "lock"), (key, "key"), (PathBuf::from(initagent()), "agent")]
    {
        fs::copy(from, place.join(name)).unwrap();
    }
    let overlays = Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlays");
    let (copied, said) = judged("cp", &["-r", text(&overlays), text(&place.join("overlays"))]);
    assert!(copied, "{said}");
    // What is made of the disk does not change the disk; the format is the cheapest one.
    fs::write(place.join("overlays/formats.yaml"), "include: cloud.yaml\nformats: [raw.zst, raw.zst]\n")
        .unwrap();
    fs::copy(env!("CARGO_BIN_EXE_image-builder"), place.join("image-builder")).unwrap();
    // It looks for them beside itself, and ci/build puts them beside initagent.
    for program in ["fleetctl", "fleetd", "locksmithctl"] {
        fs::copy(Path::new(&initagent()).with_file_name(program), place.join(program)).unwrap();
    }

    let build = "umask 027; export TZ=Asia/Tokyo LANG=C; exec \"$1/image-builder\" build \"$1/overlays/formats.yaml\" \
                 --out \"$1/out\" --cache \"$1/cache\" --locked \"$1/lock\" --key \"$1/key\" --initagent \"$1/agent\"";
    let (built, said) = as_another_user(place, build);

    assert!(built, "{said}");
    let (same, said) = judged("cmp", &[text(&image), text(&out.join("disk.raw"))]);
    assert!(same, "{said}");
    assert_eq!(report(&out.join("disk.raw.zst"))["slots"], report(&image)["slots"]);
    assert!(fs::read_to_string(out.join("disk.bmap")).unwrap().contains("<bmap version=\"2.0\">"));
}

/// Runs a script as a user who is not root, with subordinate ids, where this test is root: in a mount
/// namespace whose account files have one more line. Otherwise as whoever runs the test.
fn as_another_user(place: &Path, script: &str) -> (bool, String) {
    if !Path::new("/proc/self").join("root").exists() || judged("id", &["-u"]).1.trim() != "0" {
        return judged("sh", &["-c", script, "sh", text(place)]);
    }
    for (file, line) in [
        ("passwd", "builder:x:12345:12345::/:/bin/sh\n"),
        ("group", "builder:x:12345:\n"),
        ("subuid", "builder:200000:65536\n"),
    ] {
        let mut contents = fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
        contents += line;
        fs::write(place.join(file), contents).unwrap();
        OpenOptions::new().create(true).append(true).open(Path::new("/etc").join(file)).unwrap();
    }
    OpenOptions::new().create(true).append(true).open("/etc/subgid").unwrap();
    let namespace = "set -e; cd \"$1\"; for file in passwd group subuid; do mount --bind $file /etc/$file; done; \
                     mount --bind subuid /etc/subgid; chown -R 12345:12345 .; \
                     exec setpriv --reuid 12345 --regid 12345 --clear-groups env HOME=\"$1\" sh -c \"$2\" sh \"$1\"";
    judged("unshare", &["-m", "sh", "-c", namespace, "sh", text(place), script])
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let Some(Subject { image, key }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (cache, out) = (folder.path().join("cache"), folder.path().join("out"));
    fs::create_dir(&cache).unwrap();
    packages_copied_to(&cache);
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlays/cloud.yaml");
    let lock = image.with_file_name("packages.lock");

    let mut build = Command::new(env!("CARGO_BIN_EXE_image-builder"))
        .args(["build", text(&spec), "--out", text(&out), "--cache", text(&cache), "--locked", text(&lock)])
        .args(["--key", text(&key), "--initagent", &initagent()])
        .env("TMPDIR", folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // In the middle of mmdebstrap, which has a chroot of its own to remove.
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while !fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("image-builder-"))
    {
        assert!(std::time::Instant::now() < deadline, "mmdebstrap did not start");
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_secs(1));
    let (signalled, said) = judged("kill", &["-INT", &build.id().to_string()]);
    assert!(signalled, "{said}");
    let status = build.wait().unwrap();
    let mut said = String::new();
    build.stderr.take().unwrap().read_to_string(&mut said).unwrap();

    assert_eq!(status.code(), Some(1));
    assert!(said.contains("interrupted; nothing half-made was left behind"), "{said}");
    let left = |folder: &Path| {
        fs::read_dir(folder)
            .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>())
    };
    assert_eq!(left(&out).unwrap().len(), 0);
    assert_eq!(left(&cache.join("roots")).unwrap().len(), 0, "a half-made tree is in the cache");
    let names: Vec<_> = left(folder.path()).unwrap();
    assert_eq!(names.len(), 2, "temporary files stayed: {names:?}");
}

#[test]
fn a_slot_too_small_says_what_is_needed() {
    let Some(Subject { image, key }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("small.yaml");
    let cloud = Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlays/cloud.yaml").canonicalize().unwrap();
    fs::write(&spec, format!("include: {}\npartitions:\n  root: 128 MiB\n", cloud.display())).unwrap();
    let out = folder.path().join("out");

    let output = builder(&[
        "build",
        text(&spec),
        "--out",
        text(&out),
        "--locked",
        text(&image.with_file_name("packages.lock")),
        "--key",
        text(&key),
        "--initagent",
        &initagent(),
    ]);

    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("`partitions.root` gives a slot 128 MiB") && said.contains("the root needs "),
        "{said}"
    );
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn a_package_that_is_gone_is_named() {
    let Some(Subject { image, key }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    let lock = fs::read_to_string(image.with_file_name("packages.lock")).unwrap();
    let changed: String = lock
        .lines()
        .map(|line| match line.strip_prefix("bash ") {
            Some(_) => format!("bash 0.0-1 amd64 {} 1\n", "00".repeat(32)),
            None => format!("{line}\n"),
        })
        .collect();
    let path = folder.path().join("packages.lock");
    File::create(&path).unwrap().write_all(changed.as_bytes()).unwrap();
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlays/cloud.yaml");

    let output = builder(&[
        "build",
        text(&spec),
        "--out",
        text(&folder.path().join("out")),
        "--locked",
        text(&path),
        "--key",
        text(&key),
        "--initagent",
        &initagent(),
    ]);

    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no longer has 1 of the locked packages (bash=0.0-1)"), "{said}");
}

#[test]
fn mistakes_of_a_spec_are_shown_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("bad.yaml");
    fs::write(&spec, "name: x\npakages: [bash]\npartitions: {root: 12}\n").unwrap();

    let output = builder(&["build", text(&spec), "--initagent", "/proc/self/exe"]);

    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("bad.yaml:2:1") && said.contains("did you mean `packages`?"), "{said}");
    assert!(said.contains("bad.yaml:3:20") && said.contains("12 MiB, or 12 GiB?"), "{said}");
}

/// One conversion to the formats that share nothing; each is read as the same image.
#[test]
fn every_format_holds_the_same_signed_image() {
    let Some(Subject { image, .. }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();

    succeeded(builder(&["convert", text(&image), "--to", "qcow2,raw.zst,vhdx,ova", "--out", out]));

    for name in ["disk.qcow2", "disk.raw.zst", "disk.vhdx", "disk.ova"] {
        let found = report(&folder.path().join(name));
        assert_eq!(found["slots"][0]["state"]["state"], "verified", "{name}: {found}");
        assert_eq!(found["partitions"], report(&image)["partitions"], "{name}");
    }
    let path = folder.path().join("disk.qcow2");
    let (same, said) =
        judged("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&image), text(&path)]);
    assert!(same, "{said}");
    let seed = folder.path().join("user-data");
    fs::write(&seed, "#cloud-config\n").unwrap();
    succeeded(builder(&["seed", text(&path), "--user-data", text(&seed)]));
    let (whole, said) = judged("qemu-img", &["check", "-f", "qcow2", text(&path)]);
    assert!(whole, "{said}");
    assert_eq!(report(&path)["slots"][0]["state"]["state"], "verified");
}

/// The disk is larger than the image, and was used before.
#[test]
fn a_flashed_disk_is_the_image_and_one_that_was_interrupted_does_not_start() {
    let Some(Subject { image, .. }) = subject() else { return };
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let file = File::create(&disk).unwrap();
    for at in 0..300 {
        file.write_all_at(&vec![0xaa; 1 << 20], at << 20).unwrap();
    }
    file.set_len(fs::metadata(&image).unwrap().len() + (100 << 20)).unwrap();

    let mut child = Command::new(env!("CARGO_BIN_EXE_image-builder"))
        .args(["flash", text(&image), text(&disk), "--yes"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    let stopped = judged("kill", &["-9", &child.id().to_string()]).0;
    let ended = child.wait().unwrap();
    let mut head = vec![1; 1 << 20];
    File::open(&disk).unwrap().read_exact(&mut head).unwrap();
    let table = head[512..520] == *b"EFI PART" || head[510..512] == [0x55, 0xaa];
    // A fast machine may have finished by then.
    assert!(stopped && (ended.success() || !table), "it could start, though it was killed: {ended}");

    succeeded(builder(&["flash", text(&image), text(&disk), "--yes", "--json"]));

    assert_eq!(report(&disk)["slots"][0]["state"]["state"], "verified");
    let (_, said) = judged("sgdisk", &["-v", text(&disk)]);
    assert!(said.contains("No problems found"), "{said}");
}
