//! Disks that come and go, as the search sees them.

use std::os::unix::fs::FileExt as _;

use image_format::disk_tag::DiskTag;
use image_format::slot::{Condition, boot_decision};

use super::super::disk::tests::layout;
use super::*;

const WAITED: Duration = Duration::from_mins(1);
const SETTLED: DiskTag = DiskTag::new([7; 16]);

/// A folder of disks, and what the kernel lists of them.
struct Machine {
    folder: tempfile::TempDir,
    search: Search,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (class, nodes) = (folder.path().join("class"), folder.path().join("dev"));
        for path in [&class, &nodes] {
            fs::create_dir(path).unwrap();
        }
        Self { search: Search::at(&class, &nodes), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("dev").join(name)
    }

    /// Attaches a disk that holds a system, with this table in both copies.
    fn attach(&self, name: &str, table: SlotTable) {
        let layout = layout();
        let file = fs::File::create(self.path(name)).unwrap();
        file.set_len(layout.disk_size().get()).unwrap();
        let copies = gpt::encode(&layout.table(), layout.disk_size()).unwrap();
        file.write_all_at(&copies.primary, PRIMARY_OFFSET.get()).unwrap();
        let backup = backup_offset(layout.disk_size()).unwrap();
        file.write_all_at(&copies.backup, backup.get()).unwrap();
        for offset in [ENV0_OFFSET, ENV1_OFFSET] {
            let start = layout.place(Role::Abstate).offset().get();
            file.write_all_at(&table.to_block(), start + offset.get()).unwrap();
        }
        let class = self.folder.path().join("class").join(name);
        fs::create_dir(&class).unwrap();
        fs::write(class.join("size"), "100\n").unwrap();
        for number in [3, 4, 5] {
            let place = layout.partitions()[number - 1];
            let partition = class.join(format!("{name}{number}"));
            fs::create_dir(&partition).unwrap();
            for (file, value) in
                [("partition", number as u64), ("start", place.first_lba), ("size", place.sectors)]
            {
                fs::write(partition.join(file), format!("{value}\n")).unwrap();
            }
        }
    }

    fn detach(&self, name: &str) {
        fs::remove_dir_all(self.folder.path().join("class").join(name)).unwrap();
    }

    fn look(&mut self, disk: KnownDisk, now: Duration) -> String {
        match self.search.look(&Parameters { slot: Slot::A, disk }, Progress::Nothing, now) {
            Found::Ambiguous(said) => said,
            Found::Disk(disk) => disk.name,
            Found::Nothing => "nothing".to_owned(),
        }
    }
}

/// The table that the selector leaves, and what it hands on.
fn started(tag: DiskTag) -> (KnownDisk, SlotTable) {
    let block = SlotTable::FRESH.with_tag(tag).to_block();
    let Condition::Saves(table) = boot_decision(&block, &block).attempts[0].condition else { panic!() };
    (KnownDisk::Written(table.tag), table)
}

#[test]
fn the_started_disk_is_found_before_or_after_its_copy() {
    let (known, started) = started(SETTLED);
    for (own, copy) in [("sda", "vda"), ("vda", "sda"), ("vdb", "vda")] {
        let mut machine = Machine::new();
        machine.attach(copy, SlotTable::FRESH.with_tag(SETTLED));
        assert_eq!(machine.look(known, Duration::ZERO), "nothing");

        machine.attach(own, started);

        assert_eq!(machine.look(known, Duration::ZERO), own);
    }
}

#[test]
fn the_other_disks_are_left_as_they_were() {
    let (known, started) = started(SETTLED);
    let mut machine = Machine::new();
    machine.attach("vda", SlotTable::FRESH.with_tag(SETTLED));
    machine.attach("vdb", started);
    let copy = machine.path("vda");
    let before = fs::read(&copy).unwrap();
    // Opened for writing, it would fail here; root may do that anyway, so the bytes are compared too.
    fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();

    let found =
        machine.search.look(&Parameters { slot: Slot::A, disk: known }, Progress::Nothing, Duration::ZERO);

    let Found::Disk(disk) = found else { panic!("{found:?}") };
    assert!(disk.device.ends_with("dev/vdb"));
    assert_eq!((disk.abstate, disk.root), ("/dev/vdb3".into(), "/dev/vdb4".into()));
    assert_eq!(fs::read(&copy).unwrap(), before);
}

#[test]
fn a_machine_in_doubt_names_the_disks_and_goes_on_when_one_is_detached() {
    let mut machine = Machine::new();
    let known = KnownDisk::Read(SETTLED);
    for name in ["sda", "vda"] {
        machine.attach(name, SlotTable::FRESH.with_tag(SETTLED));
    }
    assert_eq!(
        machine.look(known, WAITED),
        "the machine was started from one of /dev/sda and /dev/vda, but their slot tables are the same, and \
         the boot loader could not mark its own; nothing is written to any of them. Detach the disks that are \
         copies, and the machine goes on"
    );

    machine.detach("sda");

    assert_eq!(machine.look(known, WAITED), "nothing");
    assert_eq!(machine.look(known, WAITED + QUIET + Duration::from_millis(1)), "vda");
}

#[test]
fn a_disk_whose_tag_could_not_be_written_is_taken_only_after_a_quiet_time() {
    let mut machine = Machine::new();
    machine.attach("vda", SlotTable::FRESH);
    assert_eq!(machine.look(KnownDisk::Unknown, WAITED), "nothing");
    assert_eq!(machine.look(KnownDisk::Unknown, WAITED + QUIET), "nothing");

    machine.attach("vdb", SlotTable::FRESH);

    let said = machine.look(KnownDisk::Unknown, WAITED + 2 * QUIET);
    assert!(said.contains("one of /dev/vda and /dev/vdb"), "{said}");
}

#[test]
fn partitions_that_the_kernel_is_still_reading_are_waited_for_once() {
    let (known, started) = started(SETTLED);
    let mut machine = Machine::new();
    machine.attach("vda", started);
    let class = machine.folder.path().join("class/vda");
    fs::rename(class.join("vda3"), machine.folder.path().join("hidden")).unwrap();
    assert_eq!(machine.look(known, Duration::ZERO), "nothing");

    fs::rename(machine.folder.path().join("hidden"), class.join("vda3")).unwrap();

    assert_eq!(machine.look(known, Duration::ZERO), "vda");
}

#[test]
fn disks_are_told_from_partitions_and_from_what_is_made_of_them() {
    let class = tempfile::tempdir().unwrap();
    for name in ["vda", "vda4", "loop0", "dm-0", "sr0", "sdb"] {
        fs::create_dir_all(class.path().join(name)).unwrap();
        let size = if name == "sdb" { "0\n" } else { "100\n" };
        fs::write(class.path().join(name).join("size"), size).unwrap();
    }
    fs::write(class.path().join("vda4/partition"), "4\n").unwrap();

    assert_eq!(whole_disks(class.path()), BTreeSet::from(["vda".to_owned()]));
}

#[test]
fn an_empty_search_says_what_it_saw() {
    let mut machine = Machine::new();
    let (known, _) = started(SETTLED);
    let said = |machine: &Machine, disk| {
        machine.search.diagnosis(&Parameters { slot: Slot::B, disk }, WAITED).to_string()
    };
    assert_eq!(
        said(&machine, KnownDisk::Unknown),
        "no disk has slot B together with STATE and ABSTATE after 60 seconds; disks seen: none"
    );
    machine.attach("vda", SlotTable::FRESH);
    fs::write(machine.path("sda"), vec![0; 1 << 20]).unwrap();
    fs::create_dir(machine.folder.path().join("class/sda")).unwrap();
    fs::write(machine.folder.path().join("class/sda/size"), "2048\n").unwrap();

    machine.look(known, Duration::ZERO);

    assert_eq!(
        said(&machine, known),
        "no disk has slot B and the slot table that the boot loader used after 60 seconds; disks seen: \
         sda (no copy of the partition table is whole (backup: there is no partition table): there is no \
         partition table), vda (has a slot table, but another one)"
    );
}
