//! Who may say what a machine is to be once it is in service: volumes that somebody attaches, and the switch.

use std::fs;

use first_boot::{RunOptions, Switch, Verdict, last_status, set_switch};

use crate::machine::{Bench, KEY};

const BOOT: RunOptions = RunOptions { force: false };
const EVIL: &str = "#cloud-config
bootcmd: [echo evil]
runcmd: [echo evil]
write_files: [{path: /etc/evil, content: evil}]
";
const GOOD: &str = "#cloud-config\nwrite_files: [{path: /etc/a, content: good}]\n";

/// A disk of 1 MiB with a FAT file system of this label, attached as `name`.
fn attach(bench: &Bench, name: &str, label: &str, files: &[(&str, &str)], uevent: &str) {
    let mut bytes = std::io::Cursor::new(vec![0; 1 << 20]);
    let mut padded = [b' '; 11];
    padded[..label.len()].copy_from_slice(label.as_bytes());
    fatfs::format_volume(&mut bytes, fatfs::FormatVolumeOptions::new().volume_label(padded)).unwrap();
    let volume = fatfs::FileSystem::new(&mut bytes, fatfs::FsOptions::new()).unwrap();
    for (path, text) in files {
        let mut folder = volume.root_dir();
        let mut parts: Vec<&str> = path.split('/').collect();
        let file = parts.pop().unwrap();
        for part in parts {
            folder = folder.create_dir(part).unwrap();
        }
        std::io::Write::write_all(&mut folder.create_file(file).unwrap(), text.as_bytes()).unwrap();
    }
    volume.unmount().unwrap();
    let root = &bench.machine.root;
    let sys = root.path_of(&format!("/sys/class/block/{name}"));
    fs::create_dir_all(&sys).unwrap();
    fs::write(sys.join("size"), "2048\n").unwrap();
    fs::write(sys.join("uevent"), format!("DEVNAME={name}\n{uevent}")).unwrap();
    fs::write(root.path_of(&format!("/dev/{name}")), bytes.into_inner()).unwrap();
}

/// What the initramfs leaves: without it no EFI system partition is the machine's own.
fn runs_from_vda(bench: &Bench) {
    fs::create_dir_all(bench.machine.root.path_of("/run/catamaran")).unwrap();
    let record = r#"{"devices": {"disk": "/dev/vda", "esp": "/dev/vda1"}}"#;
    fs::write(bench.machine.root.path_of("/run/catamaran/boot.json"), record).unwrap();
}

fn cidata(bench: &Bench, name: &str, instance: &str, user_data: &str) {
    let meta_data = format!("instance-id: {instance}\npublic-keys: [{KEY} {instance}]\n");
    attach(bench, name, "CIDATA", &[("meta-data", &meta_data), ("user-data", user_data)], "DEVTYPE=disk\n");
}

fn detach(bench: &Bench, name: &str) {
    fs::remove_dir_all(bench.machine.root.path_of(&format!("/sys/class/block/{name}"))).unwrap();
}

fn firmware(bench: &Bench, field: &str, value: &str) {
    let folder = bench.machine.root.path_of("/sys/class/dmi/id");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(field), format!("{value}\n")).unwrap();
}

/// Boots, and nothing of what the attacker wrote is done; whether it was told that somebody tried.
fn resists(bench: &Bench) -> bool {
    let outcome = bench.boot(BOOT);
    assert!(!bench.called("catamaran-user-"), "{:#?}", bench.calls());
    assert!(!bench.machine.root.path_of("/etc/evil").exists());
    assert_eq!(
        outcome.run_verdict(),
        Verdict::Ok,
        "a stray volume must not make a good slot look bad: {}",
        outcome.journal_text()
    );
    let keys = fs::read_to_string(bench.machine.root.path_of("/run/catamaran/keys/core")).unwrap_or_default();
    assert!(!keys.contains("evil"), "{keys}");
    let json = outcome.to_json();
    let is_told = !json["refused_sources"].as_array().unwrap().is_empty();
    assert_eq!(
        is_told,
        outcome.journal_text().contains("does not say what this machine is to be"),
        "{}",
        outcome.journal_text()
    );
    assert_eq!(is_told, last_status(&bench.machine.root).text.contains("refused: "));
    is_told
}

#[test]
fn a_stray_volume_does_not_configure_a_machine_in_service() {
    let bench = Bench::new();
    runs_from_vda(&bench);
    attach(
        &bench,
        "vda1",
        "ESP",
        &[("seed/user-data", GOOD), ("seed/meta-data", "instance-id: esp-1\n")],
        "DEVTYPE=partition\nPARTNAME=ESP\n",
    );
    assert_eq!(bench.boot(BOOT).run_verdict(), Verdict::Ok);
    assert_eq!(bench.read("/etc/a"), "good");

    // By another name, and by the same, which can be guessed.
    for instance in ["evil-1", "esp-1"] {
        cidata(&bench, "sda", instance, EVIL);
        assert!(resists(&bench), "{instance}");
        detach(&bench, "sda");
    }
    attach(
        &bench,
        "sda",
        "CONFIG-2",
        &[("openstack/latest/meta_data.json", "{\"uuid\": \"evil\"}"), ("openstack/latest/user_data", EVIL)],
        "DEVTYPE=disk\n",
    );
    assert!(resists(&bench));
    detach(&bench, "sda");
    assert!(!resists(&bench), "nobody is there any more");
}

#[test]
fn the_volume_that_configured_a_machine_is_known_by_what_is_on_it() {
    let bench = Bench::new();
    cidata(&bench, "vdb", "i-1", GOOD);
    bench.boot(BOOT);
    assert_eq!(bench.read("/etc/a"), "good");

    // Beside it, under a name that goes before it.
    cidata(&bench, "sda", "i-1", EVIL);
    assert!(resists(&bench));
    // It is another device at this boot.
    detach(&bench, "sda");
    detach(&bench, "vdb");
    cidata(&bench, "sr0", "i-1", GOOD);
    assert!(!resists(&bench));
    assert_eq!(bench.read("/run/catamaran/keys/core"), format!("{KEY} i-1\n"));
    // It is gone, as the stick of an installation is, and another comes.
    detach(&bench, "sr0");
    assert!(!resists(&bench));
    cidata(&bench, "sda", "evil-1", EVIL);
    assert!(resists(&bench));
}

#[test]
fn a_partition_and_a_foreign_esp_are_no_sources() {
    let bench = Bench::new();
    runs_from_vda(&bench);
    let seed = [("seed/user-data", EVIL), ("user-data", EVIL)];
    attach(&bench, "sda1", "CIDATA", &seed, "DEVTYPE=partition\nPARTNAME=data\n");
    attach(&bench, "vdaa1", "ESP", &seed, "DEVTYPE=partition\nPARTNAME=ESP\n");

    assert!(!resists(&bench));

    attach(&bench, "vda1", "ESP", &[("seed/user-data", GOOD)], "DEVTYPE=partition\nPARTNAME=ESP\n");
    bench.boot(BOOT);
    assert_eq!(bench.read("/etc/a"), "good");
}

#[test]
fn a_copy_in_another_machine_is_another_instance() {
    let bench = Bench::new();
    firmware(&bench, "product_uuid", "4C4C4544-0000-0000-0000-000000000001");
    cidata(&bench, "vdb", "i-1", GOOD);
    bench.boot(BOOT);
    let before = bench.read("/etc/ssh/ssh_host_ed25519_key");
    firmware(&bench, "product_uuid", "4C4C4544-0000-0000-0000-000000000002");
    cidata(&bench, "vdb", "i-2", "#cloud-config\nwrite_files: [{path: /etc/a, content: copy}]\n");

    let outcome = bench.boot(BOOT);

    assert_eq!(outcome.run_verdict(), Verdict::Ok, "{}", outcome.journal_text());
    assert_eq!(bench.read("/etc/a"), "copy");
    assert_ne!(bench.read("/etc/ssh/ssh_host_ed25519_key"), before);
    // It has settled there.
    cidata(&bench, "vdb", "evil-1", EVIL);
    assert!(resists(&bench));
}

#[test]
fn a_cloud_that_the_firmware_names_goes_before_a_label() {
    let bench = Bench::new();
    firmware(&bench, "product_name", "Google Compute Engine");
    cidata(&bench, "sda", "evil-1", EVIL);
    let place = platform::Host::at_directory(&bench.machine.root.path_of("/"));

    let offers: Vec<String> =
        platform::detect_platforms(&place, None).iter().map(|one| one.platform.to_string()).collect();

    assert_eq!(offers, ["gce", "nocloud"]);
    firmware(&bench, "product_name", "OpenStack Nova");
    attach(&bench, "sr0", "CONFIG-2", &[("openstack/latest/meta_data.json", "{}")], "DEVTYPE=disk\n");
    let place = platform::Host::at_directory(&bench.machine.root.path_of("/"));
    let offers: Vec<String> =
        platform::detect_platforms(&place, None).iter().map(|one| one.platform.to_string()).collect();
    assert_eq!(offers, ["config-drive", "openstack", "nocloud"]);
    // A person names it.
    fs::create_dir_all(bench.machine.root.path_of("/proc")).unwrap();
    fs::write(bench.machine.root.path_of("/proc/cmdline"), "ro ds=nocloud\n").unwrap();
    let place = platform::Host::at_directory(&bench.machine.root.path_of("/"));
    assert_eq!(platform::detect_platforms(&place, None)[0].platform.to_string(), "nocloud");
}

#[test]
fn the_switch_allows_and_forbids() {
    let bench = Bench::seeded("i-1", "#cloud-config\nprovision: always\n");
    bench.boot(BOOT);
    assert_eq!(bench.read("/etc/catamaran/provision"), "always\n");
    // The source is there: it stays the only one.
    cidata(
        &bench,
        "sda",
        "i-2",
        "#cloud-config\nprovision: locked\nwrite_files: [{path: /etc/a, content: second}]\n",
    );
    assert!(resists(&bench));
    fs::remove_dir_all(bench.machine.root.path_of("/var/lib/cloud")).unwrap();

    let outcome = bench.boot(BOOT);

    assert_eq!(
        (outcome.run_verdict(), bench.read("/etc/a").as_str()),
        (Verdict::Ok, "second"),
        "{}",
        outcome.journal_text()
    );
    // Locked now: the same source cannot make another instance of it.
    cidata(&bench, "sda", "i-3", EVIL);
    assert!(resists(&bench));
    bench.seed("i-4", EVIL);
    assert!(resists(&bench));
    // Root may, by hand.
    detach(&bench, "sda");
    set_switch(&bench.machine.root, Switch::Once).unwrap();
    bench.boot(RunOptions { force: true });
    assert!(bench.machine.root.path_of("/etc/evil").exists());
}

#[test]
fn a_locked_machine_stays_the_instance_that_it_is() {
    let bench = Bench::seeded("i-1", "#cloud-config\nprovision: locked\n");
    bench.boot(BOOT);
    bench.seed("i-2", EVIL);

    let outcome = bench.boot(BOOT);

    assert!(!bench.called("catamaran-user-"));
    assert!(outcome.journal_text().contains("it stays i-1"), "{}", outcome.journal_text());
    assert_eq!(bench.read("/var/lib/catamaran/first-boot/instance-id"), "i-1\n");
}

#[test]
fn a_machine_that_was_told_nothing_takes_the_first_word_unless_it_is_locked() {
    let bench = Bench::new();
    bench.boot(BOOT);
    set_switch(&bench.machine.root, Switch::Locked).unwrap();
    cidata(&bench, "sda", "evil-1", EVIL);
    assert!(resists(&bench));
    set_switch(&bench.machine.root, Switch::Once).unwrap();
    cidata(&bench, "sda", "i-1", GOOD);

    bench.boot(BOOT);

    assert_eq!(bench.read("/etc/a"), "good");
}
