//! What the stories share: the image, one key pair, and beginnings that are made once.
//!
//! A beginning is a disk in a known state; each story that starts from it gets a copy. Invariant: neither the
//! image nor a beginning is ever booted itself.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use image_format::slot::{Slot, SlotState, SlotTable};
use vm::builder::MachineBuilder;
use vm::disk::{self, BackingFormat, DiskEditor, DiskSize, MachineDisk};
use vm::firmware::Firmware;
use vm::ssh::SshKey;
use vm::{Machine, RunningMachine};

use crate::disk_map::DiskMap;

/// How long anything may take. Nothing takes that long when all is well, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// How much bigger a disk is than the image.
pub(crate) const MORE: u64 = 3 << 30;

/// The instance all copies of a beginning stay.
const INSTANCE: &str = "i-story";

/// What a machine that has been booted once was told. Its unit is for the story of the three panics alone, which
/// has the board that it asks for; an image takes no units from the firmware. The kernel would wait ten seconds
/// before it reboots, and burn them.
pub(crate) const SETTLED_USER_DATA: &str = "#cloud-config
hostname: settled
write_files:
  - path: /etc/story
    content: |
      once upon a time
  - path: /home/core/story
    owner: core:core
    content: |
      by the fire
coreos:
  units:
    - name: panic.service
      enable: true
      content: |
        [Unit]
        Description=Panics in slot A
        DefaultDependencies=no
        After=systemd-remount-fs.service
        Before=sysinit.target
        ConditionFirmware=smbios-field(board_version = panics)
        ConditionKernelCommandLine=catamaran.slot=a
        [Service]
        Type=oneshot
        TimeoutStartSec=30
        ExecStart=/bin/sh -c 'cd /proc; echo 1 >sys/kernel/panic; echo 1 >sys/kernel/sysrq; echo c >sysrq-trigger'
        [Install]
        WantedBy=sysinit.target
";

/// The shared things.
pub(crate) struct Scene {
    image: PathBuf,
    folder: tempfile::TempDir,
    key: SshKey,
    settled: OnceLock<Settled>,
    two_slots: OnceLock<PathBuf>,
    number: AtomicU32,
}

/// A machine after its first boot with [`SETTLED_USER_DATA`] and an orderly shutdown.
pub(crate) struct Settled {
    /// Its disk
    pub(crate) disk: PathBuf,
    /// The record of all its writes
    pub(crate) writes: PathBuf,
    /// What a later boot must not change
    pub(crate) facts: String,
    /// The bytes of its /var
    pub(crate) room: u64,
}

impl Scene {
    pub(crate) fn new(image: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("stories-").tempdir().unwrap();
        let key = SshKey::generate_pair(&folder.path().join("key")).unwrap();
        Self {
            image,
            folder,
            key,
            settled: OnceLock::new(),
            two_slots: OnceLock::new(),
            number: AtomicU32::new(0),
        }
    }

    /// A folder of its own for a machine's disk.
    fn new_folder(&self) -> PathBuf {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.path().join(format!("{number}"));
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    /// A machine over an image in that format, which stays as it is.
    pub(crate) fn over(&self, image: &Path, format: BackingFormat) -> MachineBuilder {
        let overlay = self.new_folder().join("disk.qcow2");
        self.builder_on(disk::create_overlay_of(image, format, &overlay).unwrap())
    }

    /// A builder on a new copy of `disk`.
    fn builder(&self, disk: &Path, size: DiskSize) -> MachineBuilder {
        self.builder_on(disk::copy_image(disk, &self.new_folder().join("disk.raw"), size).unwrap())
    }

    fn builder_on(&self, disk: MachineDisk) -> MachineBuilder {
        Machine::builder(disk).key(self.key.clone()).instance_id(INSTANCE).user_data(SETTLED_USER_DATA)
    }

    /// A machine that starts from the untouched image.
    pub(crate) fn fresh(&self, name: &str) -> MachineBuilder {
        self.builder(&self.image, DiskSize::More(MORE)).name(name)
    }

    /// The size of every story's disk: bigger than the image, as disks are, so every first boot also grows
    /// STATE, and what a cut does to that is seen too.
    pub(crate) fn disk_size(&self) -> u64 {
        std::fs::metadata(&self.image).unwrap().len() + MORE
    }

    /// The untouched image, for machines that make their own overlay of it.
    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    /// Writes a file that stays as long as the scene.
    pub(crate) fn keep(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The line for `authorized_keys`.
    pub(crate) fn public_key(&self) -> &str {
        self.key.public_line()
    }

    /// A machine that was booted once, in slot A, and holds nothing in slot B.
    pub(crate) fn settled(&self, name: &str) -> MachineBuilder {
        self.builder(&self.settling().disk, DiskSize::Same).name(name)
    }

    /// A machine that was booted once, and holds the same good system in both slots.
    pub(crate) fn two_slots(&self, name: &str) -> MachineBuilder {
        self.builder(self.two_slots.get_or_init(|| self.fill_slot_b()), DiskSize::Same).name(name)
    }

    /// A machine of [`Self::two_slots`], damaged.
    pub(crate) fn damaged(
        &self,
        name: &str,
        firmware: Firmware,
        damage: impl Fn(&DiskMap),
    ) -> RunningMachine {
        start_damaged(self.two_slots(name).firmware(firmware).build().unwrap(), damage)
    }

    /// A copy of the image as it is written to a disk, to be attached beside a machine's own.
    pub(crate) fn fresh_copy(&self) -> Bystander {
        Bystander::of(self, &self.image, DiskSize::More(MORE))
    }

    /// A copy of the disk of a machine that was booted once.
    pub(crate) fn settled_copy(&self) -> Bystander {
        Bystander::of(self, &self.settling().disk, DiskSize::Same)
    }

    /// A copy of the disk that [`Self::two_slots`] starts from.
    pub(crate) fn two_slots_copy(&self) -> Bystander {
        Bystander::of(self, self.two_slots.get_or_init(|| self.fill_slot_b()), DiskSize::Same)
    }

    /// The first boot that all settled machines share; made when first asked for.
    pub(crate) fn settling(&self) -> &Settled {
        self.settled.get_or_init(|| self.settle())
    }

    fn settle(&self) -> Settled {
        let mut running = self.fresh("settling").log_writes().build().unwrap().start_machine().unwrap();
        wait_until_up(&mut running);
        let facts = facts(&running);
        let room = run(&running, "df --output=size -B1 /var | tail -n 1").trim().parse().unwrap();
        let machine = power_off(running);
        let disk = self.folder.path().join("settled.raw");
        disk::copy_image(machine.disk_path(), &disk, DiskSize::Same).unwrap();
        let writes = self.folder.path().join("writes.log");
        std::fs::rename(machine.write_log().unwrap(), &writes)
            .or_else(|_| std::fs::copy(machine.write_log().unwrap(), &writes).map(drop))
            .unwrap();
        discard(&machine);
        Settled { disk, writes, facts, room }
    }

    fn fill_slot_b(&self) -> PathBuf {
        let path = self.folder.path().join("two-slots.raw");
        disk::copy_image(&self.settling().disk, &path, DiskSize::Same).unwrap();
        let map = DiskMap::of(DiskEditor::open_disk(&path).unwrap());
        let (a, b) = (map.root(Slot::A), map.root(Slot::B));
        assert_eq!(a.end - a.start, b.end - b.start);
        map.edit().copy_within(a.start, b.start, a.end - a.start).unwrap();
        map.write_slot_table(SlotTable { b: SlotState::GOOD, ..map.slot_table() });
        path
    }
}

/// A disk that lies beside a machine's own, and that the machine must not touch.
pub(crate) struct Bystander {
    path: PathBuf,
    before: SystemTime,
}

impl Bystander {
    fn of(scene: &Scene, disk: &Path, size: DiskSize) -> Self {
        let number = scene.number.fetch_add(1, Ordering::Relaxed);
        let path =
            disk::copy_image(disk, &scene.folder.path().join(format!("beside-{number}.raw")), size).unwrap();
        let path = path.path().to_owned();
        Self { before: modified(&path), path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if anything was written or discarded, be it the same bytes again: QEMU writes through to the
    /// file, whose time the host changes then. Ends the disk.
    pub(crate) fn assert_untouched(self) {
        assert_eq!(modified(&self.path), self.before, "{} was written to", self.path.display());
        std::fs::remove_file(&self.path).unwrap();
    }
}

fn modified(path: &Path) -> SystemTime {
    std::fs::metadata(path).unwrap().modified().unwrap()
}

/// Fails unless everything that the machine uses is on the disk that the firmware started from.
pub(crate) fn assert_runs_from_own_disk(running: &RunningMachine) {
    // A virtio disk says its serial number itself, a SCSI disk in the page 0x80 of its product data.
    let script = "set -e
        for disk in /sys/block/*; do
            if grep -qsx disk $disk/serial || grep -qsa disk $disk/device/vpd_pg80; then own=${disk##*/}; fi
        done
        grep -o '\"/dev/[a-z0-9]*\"' /run/catamaran/boot.json | tr -d '\"' | grep -v /dev/dm-
        findmnt -no SOURCE /run/catamaran/state
        ls /sys/block/dm-0/slaves | sed s,^,/dev/,
        echo own=/dev/$own";
    let said = run(running, script);
    let (devices, own) = said.trim().split_once("\nown=").unwrap();
    assert!(own.starts_with("/dev/") && devices.lines().count() > 6, "{said}");
    assert!(devices.lines().all(|device| device.starts_with(own)), "{said}");
}

/// Damages a machine's disk and switches it on.
pub(crate) fn start_damaged(machine: Machine, damage: impl Fn(&DiskMap)) -> RunningMachine {
    damage(&DiskMap::of(machine.edit_disk().unwrap()));
    machine.start_machine().unwrap()
}

/// Waits until ssh answers: the machine is back, which is all that a story of a fallback asks.
pub(crate) fn wait_until_back(running: &mut RunningMachine) {
    running.wait_for_ssh(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until ssh answers and the boot has ended, and sees that it ended well.
pub(crate) fn wait_until_up(running: &mut RunningMachine) {
    wait_until_back(running);
    let state = run(running, "systemctl is-system-running --wait || true");
    if state.trim() != "running" {
        let name = running.machine().name();
        panic!("{name} is {}: {}", state.trim(), run(running, WHAT_FAILED));
    }
}

const WHAT_FAILED: &str = "systemctl --failed --no-legend --plain
    for unit in $(systemctl --failed --no-legend --plain | cut -d ' ' -f 1); do
        journalctl -b --no-pager -n 25 -o cat -u $unit
    done
    sudo initagent status";

/// Runs a script that must succeed.
pub(crate) fn run(running: &RunningMachine, script: &str) -> String {
    running.ssh_access().run_checked(script, PATIENCE).unwrap_or_else(|error| {
        panic!("{}: {error}\n--- console\n{}", running.machine().name(), running.console().last_lines(15))
    })
}

/// The slot that a running machine was booted from.
pub(crate) fn slot(running: &RunningMachine) -> Slot {
    let words = run(running, "cat /proc/cmdline");
    let slot = words.split_whitespace().find_map(|word| word.strip_prefix("catamaran.slot="));
    slot.unwrap_or_else(|| panic!("no slot in {words:?}")).parse().unwrap()
}

/// Fails if the console holds lines that no healthy machine says.
pub(crate) fn assert_calm(running: &RunningMachine) {
    let complaints = running.console().find_complaints().unwrap();
    assert!(complaints.is_empty(), "{} complains: {complaints:#?}", running.machine().name());
}

/// Everything that is decided on the first boot and must stay as it is.
pub(crate) fn facts(running: &RunningMachine) -> String {
    run(
        running,
        "set -e; hostname; cat /etc/machine-id; id core; cat /etc/story /home/core/story
         sudo sh -c 'cat /etc/ssh/ssh_host_*_key.pub; sha256sum /etc/passwd /etc/group /etc/shadow'
         stat -c '%a %U %G %n' /etc/story /home/core/story",
    )
}

/// Ends a machine whose disk nobody will ask about: a shutdown would only take time.
pub(crate) fn throw_away(running: RunningMachine) {
    discard(&pull_the_plug(running));
}

/// Ends a machine at once.
pub(crate) fn pull_the_plug(running: RunningMachine) -> Machine {
    note_processor_time(&running);
    running.power_cut().unwrap()
}

thread_local! {
    /// What the machines of the story on this thread have used.
    static PROCESSOR_TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The processor time of all machines that ended on this thread since it was last asked.
pub(crate) fn take_processor_time() -> Duration {
    PROCESSOR_TIME.take()
}

fn note_processor_time(running: &RunningMachine) {
    PROCESSOR_TIME.set(PROCESSOR_TIME.get() + running.processor_time());
}

/// Switches a machine off in an orderly way.
fn power_off(running: RunningMachine) -> Machine {
    note_processor_time(&running);
    running.power_off(PATIENCE).unwrap_or_else(|error| panic!("{error}"))
}

/// Switches a machine off in an orderly way and opens its disk.
pub(crate) fn switch_off(running: RunningMachine) -> (Machine, DiskMap) {
    let machine = power_off(running);
    let map = DiskMap::of(machine.edit_disk().unwrap());
    (machine, map)
}

/// Gives back the room of a machine's disk.
pub(crate) fn discard(machine: &Machine) {
    std::fs::remove_file(machine.disk_path()).unwrap();
}
