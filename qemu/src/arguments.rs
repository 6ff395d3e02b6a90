//! Turns a description of a machine into QEMU's command line.
//!
//! Pure: values in, words out, compared as golden text. Knows the options of QEMU 7.2 and later; touches no
//! file. Invariant: a path is only ever handed over inside JSON or as a word of its own, never spliced into
//! QEMU's comma syntax, so no file name can turn into an option.

use std::ffi::OsString;

use serde_json::{Value, json};

use crate::acceleration::Acceleration;
use crate::options::{Bus, ClusterCard, DeviceSet, MachineOptions, OtherDisk, Reach};

/// Everything QEMU needs to know of one start of a machine. Paths are absolute, or relative to the directory
/// QEMU runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Shown in the process list
    pub name: String,
    /// What runs the guest
    pub acceleration: Acceleration,
    /// The firmware that starts the disk
    pub boot: BootFirmware,
    /// The disk to boot from
    pub disk: DriveFile,
    /// How configuration goes in
    pub seed: SeedSource,
    /// What was chosen, as it is
    pub options: MachineOptions,
}

/// The firmware that starts the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootFirmware {
    /// The firmware inside QEMU
    Bios,
    /// OVMF: its code, and this machine's own copy of the variables
    Flash {
        /// Read-only program
        code: String,
        /// Writable variable store
        variables: String,
        /// Whether only the firmware, in system management mode, may write the variables
        locked: bool,
    },
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveFile {
    /// The file
    pub path: String,
    /// How the file is to be read
    pub format: DiskFormat,
    /// Where to record each write and flush, in dm-log-writes' format
    pub log: Option<String>,
}

/// How configuration goes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedSource {
    /// Not at all
    None,
    /// By a read-only NoCloud disk, in this file
    Disk(String),
    /// By QEMU's `fw_cfg`; the keys of root's account by a systemd credential
    FwCfg {
        /// File with the user-data, its name without commas
        user_data: Option<String>,
        /// Line for `authorized_keys`
        root_key: String,
    },
}

/// What a disk's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes
    Raw,
    /// An overlay over a base
    Qcow2,
}

/// All that QEMU can emulate, but: Linux 6.12 panics on QEMU 7.2's cmpxchg16b when there are two processors;
/// "fast" string instructions make Linux copy and clear memory byte by byte, each byte a round of emulation;
/// and a fifth level of page tables is one more step in each walk.
const EMULATED_PROCESSOR: &str = "max,-cx16,-erms,-fsrm,-la57";

/// The name under which machine images look for user-data in `fw_cfg`.
pub const FW_CFG_USER_DATA: &str = "opt/com.coreos/config";
/// The control socket, in the directory QEMU runs in.
pub const QMP_SOCKET: &str = "qmp.sock";
/// The serial console's socket, in the directory QEMU runs in.
pub const CONSOLE_SOCKET: &str = "console.sock";
/// The socket at which QEMU offers the card of a cluster, in the directory QEMU runs in.
pub(crate) const FRAME_SOCKET: &str = "frames.sock";

/// The serial console's output since the machine was made, in the directory QEMU runs in.
pub const CONSOLE_LOG: &str = "console.log";

/// QEMU's arguments. Sockets are named relative to QEMU's working directory: a socket's path has room for
/// 107 bytes only, and a user's directory may be deeper than that.
#[must_use]
pub fn qemu_arguments(hardware: &Hardware) -> Vec<OsString> {
    let options = &hardware.options;
    let mut words = ArgumentList::default();
    words.push_option("-name", &hardware.name.replace(',', ",,"));
    add_machine(&mut words, hardware);
    words.push_option("-smp", &options.hardware.cpus.to_string());
    words.push_option("-m", &format!("{}M", options.hardware.memory));
    // No devices and no configuration of this host's, so that every machine is the same everywhere; without an
    // entropy device a guest without KVM waits for its random numbers.
    words.push_words("-nodefaults -no-user-config -display none -vga none -boot strict=on");
    words.push_words("-rtc base=utc -device virtio-rng-pci");
    for (index, other) in options.beside.iter().enumerate() {
        other_disk(&mut words, index, other);
    }
    add_disk(&mut words, &hardware.disk, options.devices);
    add_network(&mut words, options);
    if let Some(card) = &options.cluster_card {
        add_cluster_card(&mut words, card);
    }
    add_console(&mut words);
    add_seed(&mut words, &hardware.seed);
    if options.watchdog {
        words.push_words("-device i6300esb -action watchdog=reset");
    }
    words.0.extend(options.extra.iter().cloned());
    words.0
}

fn add_machine(words: &mut ArgumentList, hardware: &Hardware) {
    let mut machine = "q35,usb=off".to_owned();
    if let BootFirmware::Flash { code, variables, locked } = &hardware.boot {
        words.push_blockdev(&read_only("code", code));
        words
            .push_blockdev(&json!({"driver": "raw", "file": file_node(variables), "node-name": "variables"}));
        // Two devices, so that the code can be read-only (OVMF's README: "-pflash" twice, never "-bios").
        machine.push_str(",pflash0=code,pflash1=variables");
        if *locked {
            // Without SMM the guest's kernel could write the store itself, and enrol keys of its own.
            machine.push_str(",smm=on");
            words.push_words("-global driver=cfi.pflash01,property=secure,value=on");
        }
    }
    words.push_option("-machine", &machine);
    match hardware.acceleration {
        Acceleration::Kvm => words.push_words("-accel kvm -cpu host"),
        Acceleration::Tcg if hardware.options.hardware.cpus > 1 => {
            words.push_words("-accel tcg,thread=multi");
        }
        Acceleration::Tcg => words.push_words("-accel tcg,thread=single"),
    }
    if hardware.acceleration == Acceleration::Tcg {
        words.push_option("-cpu", EMULATED_PROCESSOR);
    }
}

fn add_disk(words: &mut ArgumentList, drive: &DriveFile, devices: DeviceSet) {
    words.push_blockdev(&disk_node(drive));
    words.push_words(match devices {
        DeviceSet::Virtual => "-device virtio-blk-pci,drive=disk,bootindex=1,serial=disk",
        DeviceSet::Physical => "-device nvme,drive=disk,bootindex=1,serial=disk",
        DeviceSet::Scsi => {
            "-device virtio-scsi-pci,id=scsi -device scsi-hd,bus=scsi.0,drive=disk,bootindex=1,serial=disk"
        }
    });
}

/// The name of a further disk, by which [`crate::Running::start_detached`] finds it.
pub(crate) fn other_disk_name(index: usize) -> String {
    format!("beside{index}")
}

fn other_disk(words: &mut ArgumentList, index: usize, other: &OtherDisk) {
    let name = other_disk_name(index);
    words.push_blockdev(&json!({"driver": "raw", "file": file_node(&other.path), "node-name": name}));
    let device = format!("drive={name},id={name},serial={name}");
    match other.bus {
        Bus::Scsi => {
            words.push_option("-device", &format!("virtio-scsi-pci,id={name}-bus"));
            words.push_option("-device", &format!("scsi-hd,bus={name}-bus.0,{device}"));
        }
        Bus::Virtio => words.push_option("-device", &format!("virtio-blk-pci,{device}")),
    }
}

fn disk_node(drive: &DriveFile) -> Value {
    // The host's page cache survives QEMU's death, so the guest's flushes need not reach the host's disk.
    let file = json!({
        "cache": {"no-flush": true}, "discard": "unmap", "driver": "file", "filename": drive.path,
    });
    let driver = match drive.format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    };
    match &drive.log {
        None => json!({"discard": "unmap", "driver": driver, "file": file, "node-name": "disk"}),
        Some(log) => json!({
            "discard": "unmap",
            "driver": "blklogwrites",
            "file": {"discard": "unmap", "driver": driver, "file": file},
            "log": file_node(log),
            "log-sector-size": 512,
            "node-name": "disk",
        }),
    }
}

/// The guest's ssh server.
pub(crate) const SSH_PORT: u16 = 22;

/// A port of the guest where nothing ever listens.
pub(crate) const CLOSED_PORT: u16 = 1;

fn add_network(words: &mut ArgumentList, options: &MachineOptions) {
    let MachineOptions { mac, devices, metadata_service, reach, cluster_card, .. } = options;
    // Port 0: the kernel picks a free one, and QMP tells which; picking one ourselves would be a race.
    let forward = |port| format!("hostfwd=tcp:127.0.0.1:0-:{port}");
    let net = if cluster_card.is_some() { CLUSTER_SIDE_NET } else { "" };
    let mut user = format!("user,id=net,{net}{},{}", forward(SSH_PORT), forward(CLOSED_PORT));
    if let Some(port) = cluster_card.as_ref().and_then(|card| card.metadata_port) {
        user = format!("{user},{}", forward_metadata(port));
    }
    // No boot ROM: this machine never boots from the network, and the ROM costs a second.
    let model = match *devices {
        DeviceSet::Scsi | DeviceSet::Virtual => "virtio-net-pci",
        DeviceSet::Physical => "e1000e",
    };
    let device = format!("{model},netdev=net,romfile=,mac={mac}");
    // This host may be in a cloud itself, whose service must not answer in the test's place.
    let restricted = metadata_service.is_some() || *reach == Reach::Nothing;
    words.push_option("-netdev", &if restricted { format!("{user},restrict=on") } else { user });
    words.push_option("-device", &device);
    let Some(port) = metadata_service else { return };
    let forward = forward_metadata(*port);
    words.push_option("-netdev", &format!("user,id=cloud,net=169.254.169.0/24,restrict=on,{forward}"));
    words.push_words("-device virtio-net-pci,netdev=cloud,romfile=");
}

/// Where the guest finds a cloud's metadata service that listens at `port` of this host.
fn forward_metadata(port: u16) -> String {
    // A connection each, so a program: QEMU shares a character device among all.
    format!("guestfwd=tcp:169.254.169.254:80-cmd:busybox nc 127.0.0.1 {port}")
}

/// Where the card for ssh and the world is in a cluster. Not QEMU's 10.0.2.15, which would be the same private
/// address on each machine, and the first that software finds: link-local ones are nobody's idea of the address
/// that peers should use, so that `$private_ipv4` can only be that of the cluster.
const CLUSTER_SIDE_NET: &str = "net=169.254.169.0/24,";

/// The card whose frames the switch carries. QEMU listens, and the switch connects ([`crate::switch::process`]).
fn add_cluster_card(words: &mut ArgumentList, card: &ClusterCard) {
    let socket = format!("addr.type=unix,addr.path={FRAME_SOCKET}");
    words.push_option("-netdev", &format!("stream,id=cluster,server=on,{socket}"));
    words.push_option("-device", &format!("virtio-net-pci,netdev=cluster,romfile=,mac={}", card.mac));
    if card.metadata_port.is_some() {
        // By this a guest knows whose service it may ask; without a word of the firmware's it asks nobody.
        words.push_option("-smbios", "type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova");
    }
}

fn add_console(words: &mut ArgumentList) {
    // QEMU logs what it sends to the socket whether or not somebody reads it, so that no word is missed before a
    // person connects; appended, since a restart is part of the same story.
    let socket = format!("path={CONSOLE_SOCKET},server=on,wait=off");
    words.push_option("-chardev", &format!("socket,id=console,{socket},logfile={CONSOLE_LOG},logappend=on"));
    words.push_option("-serial", "chardev:console");
    words.push_option("-qmp", &format!("unix:{QMP_SOCKET},server=on,wait=off"));
}

fn add_seed(words: &mut ArgumentList, seed: &SeedSource) {
    match seed {
        SeedSource::None => {}
        SeedSource::Disk(path) => {
            words.push_blockdev(&read_only("seed", path));
            words.push_words("-device virtio-blk-pci,drive=seed,serial=seed");
        }
        SeedSource::FwCfg { user_data, root_key } => {
            if let Some(path) = user_data {
                words.push_option("-fw_cfg", &format!("name={FW_CFG_USER_DATA},file={path}"));
            }
            words.push_option("-smbios", &credential_option("ssh.authorized_keys.root", root_key.as_bytes()));
        }
    }
}

/// What `-smbios` takes to hand a credential to systemd.
fn credential_option(name: &str, value: &[u8]) -> String {
    format!("type=11,value=io.systemd.credential.binary:{name}={}", encode_base64(value))
}

/// RFC 4648, with padding: what systemd wants a credential in.
fn encode_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { DIGITS[index] as char } else { '=' });
        }
    }
    text
}

fn read_only(node: &str, path: &str) -> Value {
    json!({"driver": "raw", "file": file_node(path), "node-name": node, "read-only": true})
}

fn file_node(path: &str) -> Value {
    json!({"driver": "file", "filename": path})
}

#[derive(Default)]
struct ArgumentList(Vec<OsString>);

impl ArgumentList {
    fn push_words(&mut self, words: &str) {
        self.0.extend(words.split_whitespace().map(OsString::from));
    }

    fn push_option(&mut self, option: &str, value: &str) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    fn push_blockdev(&mut self, node: &Value) {
        self.push_option("-blockdev", &node.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hardware() -> Hardware {
        Hardware {
            name: "web".into(),
            acceleration: Acceleration::Tcg,
            boot: BootFirmware::Bios,
            disk: DriveFile { path: "disk.qcow2".into(), format: DiskFormat::Qcow2, log: None },
            seed: SeedSource::Disk("seed.img".into()),
            options: options(),
        }
    }

    fn options() -> MachineOptions {
        let mut options = MachineOptions { mac: "52:54:00:12:34:56".into(), ..MachineOptions::default() };
        options.hardware.cpus = 2;
        options.hardware.memory = 2048;
        options
    }

    /// A machine for which this was chosen.
    fn with_options(options: MachineOptions) -> Hardware {
        Hardware { options, ..hardware() }
    }

    fn lines(hardware: &Hardware) -> String {
        let words = qemu_arguments(hardware);
        let mut text = String::new();
        for word in words {
            let word = word.into_string().unwrap();
            text.push_str(if text.is_empty() { "" } else { if_option(&word) });
            text.push_str(&word);
        }
        text
    }

    fn if_option(word: &str) -> &'static str {
        if word.starts_with('-') { "\n" } else { " " }
    }

    #[test]
    fn a_real_computer_has_other_devices() {
        let text = lines(&with_options(MachineOptions { devices: DeviceSet::Physical, ..options() }));

        assert!(text.contains("-device nvme,drive=disk,bootindex=1,serial=disk\n"), "{text}");
        assert!(text.contains("-device e1000e,netdev=net,romfile=,mac=52:54:00:12:34:56\n"), "{text}");
    }

    #[test]
    fn other_disks_come_before_the_one_that_the_firmware_starts_from() {
        let other = |path: &str, bus| OtherDisk { path: path.into(), bus };
        let beside = vec![other("copy,1.raw", Bus::Virtio), other("two.raw", Bus::Scsi)];

        let text = lines(&with_options(MachineOptions { beside, devices: DeviceSet::Scsi, ..options() }));

        assert!(
            text.contains(
                r#"
-blockdev {"driver":"raw","file":{"driver":"file","filename":"copy,1.raw"},"node-name":"beside0"}
-device virtio-blk-pci,drive=beside0,id=beside0,serial=beside0
-blockdev {"driver":"raw","file":{"driver":"file","filename":"two.raw"},"node-name":"beside1"}
-device virtio-scsi-pci,id=beside1-bus
-device scsi-hd,bus=beside1-bus.0,drive=beside1,id=beside1,serial=beside1
-blockdev {"discard":"unmap","driver":"qcow2","#
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "-device virtio-scsi-pci,id=scsi
-device scsi-hd,bus=scsi.0,drive=disk,bootindex=1,serial=disk
"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_bios_machine_with_a_seed_disk() {
        let text = lines(&hardware());

        assert_eq!(
            text,
            r#"-name web
-machine q35,usb=off
-accel tcg,thread=multi
-cpu max,-cx16,-erms,-fsrm,-la57
-smp 2
-m 2048M
-nodefaults
-no-user-config
-display none
-vga none
-boot strict=on
-rtc base=utc
-device virtio-rng-pci
-blockdev {"discard":"unmap","driver":"qcow2","file":{"cache":{"no-flush":true},"discard":"unmap","driver":"file","filename":"disk.qcow2"},"node-name":"disk"}
-device virtio-blk-pci,drive=disk,bootindex=1,serial=disk
-netdev user,id=net,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-:1
-device virtio-net-pci,netdev=net,romfile=,mac=52:54:00:12:34:56
-chardev socket,id=console,path=console.sock,server=on,wait=off,logfile=console.log,logappend=on
-serial chardev:console
-qmp unix:qmp.sock,server=on,wait=off
-blockdev {"driver":"raw","file":{"driver":"file","filename":"seed.img"},"node-name":"seed","read-only":true}
-device virtio-blk-pci,drive=seed,serial=seed"#
        );
    }

    #[test]
    fn secure_boot_locks_the_variables() {
        let boot =
            BootFirmware::Flash { code: "/f/code.fd".into(), variables: "variables.fd".into(), locked: true };

        let text = lines(&Hardware { boot, ..hardware() });

        assert!(
            text.contains(
                r#"
-blockdev {"driver":"raw","file":{"driver":"file","filename":"/f/code.fd"},"node-name":"code","read-only":true}
-blockdev {"driver":"raw","file":{"driver":"file","filename":"variables.fd"},"node-name":"variables"}
-global driver=cfi.pflash01,property=secure,value=on
-machine q35,usb=off,pflash0=code,pflash1=variables,smm=on
"#
            ),
            "{text}"
        );
    }

    #[test]
    fn a_log_goes_around_the_disk() {
        let disk =
            DriveFile { path: "d,x.raw".into(), format: DiskFormat::Raw, log: Some("writes.log".into()) };

        let text = lines(&Hardware { disk, ..hardware() });

        assert!(
            text.contains(
                r#"-blockdev {"discard":"unmap","driver":"blklogwrites","file":{"discard":"unmap","driver":"raw","file":{"cache":{"no-flush":true},"discard":"unmap","driver":"file","filename":"d,x.raw"}},"log":{"driver":"file","filename":"writes.log"},"log-sector-size":512,"node-name":"disk"}"#
            ),
            "{text}"
        );
    }

    #[test]
    fn fw_cfg_carries_user_data_and_a_credential_the_key() {
        let seed = SeedSource::FwCfg { user_data: Some("user-data".into()), root_key: "key".into() };

        let text = lines(&Hardware {
            seed,
            ..with_options(MachineOptions { watchdog: true, extra: vec!["-s".into()], ..options() })
        });

        assert!(
            text.ends_with(
                "-fw_cfg name=opt/com.coreos/config,file=user-data
-smbios type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root=a2V5
-device i6300esb
-action watchdog=reset
-s"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_metadata_service_is_the_only_thing_in_reach() {
        let text = lines(&with_options(MachineOptions { metadata_service: Some(8080), ..options() }));

        assert!(
            text.contains(
                "-netdev user,id=net,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-:1,restrict=on
-device virtio-net-pci,netdev=net,romfile=,mac=52:54:00:12:34:56
-netdev user,id=cloud,net=169.254.169.0/24,restrict=on,guestfwd=tcp:169.254.169.254:80-cmd:busybox nc 127.0.0.1 8080
-device virtio-net-pci,netdev=cloud,romfile=\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn an_isolated_guest_reaches_nobody_and_ssh_reaches_it() {
        let text = lines(&with_options(MachineOptions { reach: Reach::Nothing, ..options() }));

        assert!(
            text.contains(
                "-netdev user,id=net,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-:1,restrict=on\n"
            ),
            "{text}"
        );
        assert!(!lines(&hardware()).contains("restrict"));
    }

    #[test]
    fn a_machine_of_a_cluster_has_a_second_card_and_no_private_address_on_the_first() {
        let card = ClusterCard { mac: "52:54:00:c1:00:01".into(), metadata_port: None };

        let text = lines(&with_options(MachineOptions { cluster_card: Some(card), ..options() }));

        assert!(
            text.contains(
                "-netdev user,id=net,net=169.254.169.0/24,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-:1
-device virtio-net-pci,netdev=net,romfile=,mac=52:54:00:12:34:56
-netdev stream,id=cluster,server=on,addr.type=unix,addr.path=frames.sock
-device virtio-net-pci,netdev=cluster,romfile=,mac=52:54:00:c1:00:01\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_machine_of_a_cluster_finds_its_metadata_where_a_cloud_has_it() {
        let card = ClusterCard { mac: "52:54:00:c1:00:01".into(), metadata_port: Some(8080) };

        let text = lines(&with_options(MachineOptions { cluster_card: Some(card), ..options() }));

        let forward = ",guestfwd=tcp:169.254.169.254:80-cmd:busybox nc 127.0.0.1 8080\n";
        assert!(text.contains(forward) && text.contains("product=OpenStack Nova"), "{text}");
        assert!(!text.contains("restrict"), "the machine reaches the world: {text}");
    }

    #[test]
    fn base64_pads() {
        let encoded: Vec<String> =
            ["", "f", "fo", "foo", "foob"].map(|text| encode_base64(text.as_bytes())).into();

        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn one_emulated_processor_needs_one_thread_and_kvm_the_host_s_processor() {
        let mut single = hardware();
        single.options.hardware.cpus = 1;
        let single = lines(&single);
        let kvm = lines(&Hardware { acceleration: Acceleration::Kvm, ..hardware() });

        assert!(single.contains("-accel tcg,thread=single\n"));
        assert!(kvm.contains("-accel kvm\n-cpu host\n"));
    }
}
