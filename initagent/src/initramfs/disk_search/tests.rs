//! Disks that come and go, as the search sees them.

use std::os::unix::fs::FileExt as _;

use image_format::disk_tag::DiskTag;
use image_format::gpt::GrowthStep;
use image_format::slot::{SECTOR_BYTES, SlotTable};

use super::super::disk::tests::layout;
use super::super::disk_choice::tests::{Blocks, select, tags_in};
use super::super::disk_identity;
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
        Self { search: Search::in_folders(&class, &nodes), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("dev").join(name)
    }

    /// Attaches a disk that holds a system, with this table in both copies.
    fn attach(&self, name: &str, table: SlotTable) {
        let layout = layout();
        let file = fs::File::create(self.path(name)).unwrap();
        file.set_len(layout.disk_size().get()).unwrap();
        let copies = gpt::encode_table(&layout.partition_table(), layout.disk_size()).unwrap();
        file.write_all_at(&copies.primary, PRIMARY_OFFSET.get()).unwrap();
        let backup = backup_offset(layout.disk_size()).unwrap();
        file.write_all_at(&copies.backup, backup.get()).unwrap();
        for offset in [ENV0_OFFSET, ENV1_OFFSET] {
            let start = layout.partition_of(PartitionRole::Abstate).byte_offset().get();
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
        match self.search.search_disks(&BootParameters { slot: Slot::A, disk }, LoadProgress::Nothing, now) {
            Found::Ambiguous(said) => said,
            Found::Disk(disk) => disk.name,
            Found::Nothing => "nothing".to_owned(),
        }
    }
}

/// The table that the selector leaves, and what it hands on.
fn started(tag: DiskTag) -> (KnownDisk, SlotTable) {
    let mut blocks = [SlotTable::FRESH.with_tag(tag).to_block(); 2];
    let known = select(&mut blocks);
    (known, SlotTable::from_block(&blocks[0]).unwrap())
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

    let found = machine.search.search_disks(
        &BootParameters { slot: Slot::A, disk: known },
        LoadProgress::Nothing,
        Duration::ZERO,
    );

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
        machine.search.explain_failure(&BootParameters { slot: Slot::B, disk }, WAITED).to_string()
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

/// One sector that a first boot writes: where, and what.
type SectorWrite = (u64, Vec<u8>);

/// Everything that a first boot writes to the disk before its file systems are mounted, in order.
fn first_boot_writes(disk: &Path) -> Vec<SectorWrite> {
    let own = SlotTable::FRESH.with_tag(SETTLED).to_block();
    let abstate = layout().partition_of(PartitionRole::Abstate).byte_offset().get();
    let tag = [ENV1_OFFSET, ENV0_OFFSET].map(|offset| (abstate + offset.get(), own[..SECTOR_BYTES].to_vec()));
    tag.into_iter().chain(serial_writes(disk)).chain(table_writes(disk)).collect()
}

/// The boot sectors of the two FAT volumes, of which the ESP has a copy in its sector 6.
fn serial_writes(disk: &Path) -> Vec<SectorWrite> {
    let renewed = tempfile::NamedTempFile::new().unwrap();
    fs::copy(disk, renewed.path()).unwrap();
    let device = BlockDevice::open_device(renewed.path(), AccessMode::Write).unwrap();
    let boot =
        BootDisk::new("/sys".into(), renewed.path().to_owned(), "vda".into(), layout().partition_table());
    disk_identity::renew_serials(&boot, &device);
    let start = |role| layout().partition_of(role).byte_offset().get();
    let sector = SECTOR_BYTES as u64;
    let places =
        [start(PartitionRole::Esp) + 6 * sector, start(PartitionRole::Esp), start(PartitionRole::Abstate)];
    places.map(|at| (at, device.read(Bytes::new(at), SECTOR_BYTES).unwrap())).into()
}

fn table_writes(disk: &Path) -> Vec<SectorWrite> {
    let device = BlockDevice::open_device(disk, AccessMode::Read).unwrap();
    let size = device.byte_size().unwrap();
    let copy = |offset| device.read(offset, COPY_BYTES).unwrap();
    let (primary, backup) = (copy(PRIMARY_OFFSET), copy(backup_offset(size).unwrap()));
    let steps = gpt::plan_growth(size, &primary, &backup, "STATE", [7; 16]).unwrap();
    let sectors = |step: &GrowthStep| match step {
        GrowthStep::Sync => vec![],
        GrowthStep::Write { offset, bytes } => {
            let sectors = bytes.chunks_exact(SECTOR_BYTES).enumerate();
            sectors.map(|(n, bytes)| (offset.get() + (n * SECTOR_BYTES) as u64, bytes.to_vec())).collect()
        }
    };
    steps.iter().flat_map(sectors).collect()
}

/// A disk of the image, larger than it, with boot sectors in its FAT volumes.
fn imaged(machine: &Machine, name: &str) -> PathBuf {
    machine.attach(name, SlotTable::FRESH);
    let path = machine.path(name);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(2 * layout().disk_size().get()).unwrap();
    for (role, sector, kind) in
        [(PartitionRole::Esp, 0, 82), (PartitionRole::Esp, 6, 82), (PartitionRole::Abstate, 0, 54)]
    {
        let mut boot = vec![0; SECTOR_BYTES];
        boot[50] = 6;
        boot[kind..kind + 5].copy_from_slice(if kind == 82 { b"FAT32" } else { b"FAT12" });
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let at = layout().partition_of(role).byte_offset().get() + sector * SECTOR_BYTES as u64;
        file.write_all_at(&boot, at).unwrap();
    }
    path
}

/// The selector's turn: it reads and writes the slot table where it lies.
fn select_on(disk: &fs::File) -> KnownDisk {
    let mut blocks: Blocks = table_places().map(|at| {
        let mut block = [0; BLOCK_BYTES];
        disk.read_exact_at(&mut block, at).unwrap();
        block
    });
    let known = select(&mut blocks);
    for (at, block) in table_places().into_iter().zip(blocks) {
        disk.write_all_at(&block, at).unwrap();
    }
    assert!(tags_in(&blocks).iter().all(Option::is_some));
    known
}

fn table_places() -> [u64; 2] {
    [ENV0_OFFSET, ENV1_OFFSET]
        .map(|offset| layout().partition_of(PartitionRole::Abstate).byte_offset().get() + offset.get())
}

/// Invariant 1, over the very bytes that a first boot writes: cut the power before, in or after any
/// sector. The disk boots and finds itself beside a disk that is as it was before the boot.
#[test]
fn after_every_cut_of_a_first_boots_writes_the_disk_finds_itself_beside_its_copy() {
    let mut machine = Machine::new();
    let (disk, copy) = (imaged(&machine, "vdb"), imaged(&machine, "vda"));
    let image = fs::read(&copy).unwrap();
    let writes = first_boot_writes(&disk);
    assert!(writes.len() > 60, "{} sectors", writes.len());
    let file = fs::OpenOptions::new().read(true).write(true).open(&disk).unwrap();
    let restore = |at: u64, length: usize| {
        let start = usize::try_from(at).unwrap();
        file.write_all_at(&image[start..start + length], at).unwrap();
    };
    for (cut, reached) in (0..=writes.len()).flat_map(|cut| [0, 100, 256, 509].map(|at| (cut, at))) {
        for (at, length) in writes.iter().map(|(at, _)| (*at, SECTOR_BYTES)) {
            restore(at, length);
        }
        for at in table_places() {
            restore(at, BLOCK_BYTES);
        }
        writes[..cut].iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        if let Some((at, bytes)) = writes.get(cut) {
            file.write_all_at(&bytes[..reached], *at).unwrap();
        }

        let known = select_on(&file);

        machine.search.seen.clear();
        assert_eq!(machine.look(known, Duration::ZERO), "vdb", "cut in write {cut} at {reached}");
    }
    assert_eq!(fs::read(&copy).unwrap(), image);
}

/// A person's tool may leave in the slot table what the agent would not: the selector does not mind.
#[test]
fn a_table_with_a_strange_variable_still_says_which_disk_it_is() {
    let mut machine = Machine::new();
    machine.attach("vda", SlotTable::FRESH);
    let file = fs::OpenOptions::new().read(true).write(true).open(machine.path("vda")).unwrap();
    let tag = SlotTable::FRESH.with_tag(SETTLED.next_boot());
    let strange = String::from_utf8(tag.to_block().into()).unwrap().replacen("\n#", "\nsaved_entry=0\n#", 1);
    for at in table_places() {
        file.write_all_at(&strange.as_bytes()[..BLOCK_BYTES], at).unwrap();
    }

    assert_eq!(machine.look(KnownDisk::Written(SETTLED.next_boot()), Duration::ZERO), "vda");
}
