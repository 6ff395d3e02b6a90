use std::io::{Cursor, Write as _};
use std::os::unix::fs::FileExt as _;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use image_format::boot_reference::describe_places;
use image_format::gpt::encode_table;
use image_format::layout::{DiskLayout, PartitionRole, PartitionSizes};

use super::*;

/// A machine that boots what its release brings.
struct Machine {
    esp: tempfile::NamedTempFile,
    disk: tempfile::NamedTempFile,
    references: tempfile::TempDir,
    layout: DiskLayout,
}

fn reference_bytes(name: &str) -> Vec<u8> {
    let length = if name == reference::CORE { 3000 } else { 700 };
    name.bytes().cycle().take(length).collect()
}

impl Machine {
    fn new() -> Self {
        let sizes = PartitionSizes { root: Bytes::from_mib(1), state: Bytes::from_mib(1) };
        let layout = DiskLayout::plan_layout(uuid::Uuid::from_u128(1), sizes).unwrap();
        let references = tempfile::tempdir().unwrap();
        let names = ESP_FILES.iter().map(|(_, name)| *name).chain([reference::CORE, reference::BOOT_CODE]);
        for name in names {
            fs::write(references.path().join(name), reference_bytes(name)).unwrap();
        }
        let places = describe_places(&layout.partition_table());
        fs::write(references.path().join(reference::PLACES), places).unwrap();
        let disk = tempfile::NamedTempFile::new().unwrap();
        let copies = encode_table(&layout.partition_table(), layout.disk_size()).unwrap();
        disk.as_file().set_len(layout.disk_size().get()).unwrap();
        disk.as_file().write_all_at(&copies.primary, PRIMARY_OFFSET.get()).unwrap();
        let backup = backup_offset(layout.disk_size()).unwrap();
        disk.as_file().write_all_at(&copies.backup, backup.get()).unwrap();
        let machine = Self { esp: esp(), disk, references, layout };
        let core = reference_bytes(reference::CORE);
        let placed = machine.halves().place_core(&core, CoreHalf::First).unwrap();
        let code =
            machine.halves().boot_code(&reference_bytes(reference::BOOT_CODE), CoreHalf::First).unwrap();
        let first = machine.halves().first_lba(CoreHalf::First) * 512;
        machine.disk.as_file().write_all_at(&placed, first).unwrap();
        machine.disk.as_file().write_all_at(&code, 0).unwrap();
        machine
    }

    fn halves(&self) -> CoreHalves {
        let bios = self.layout.partition_of(PartitionRole::Bios);
        CoreHalves::of_partition(bios.first_lba, bios.sectors)
    }

    fn run(&self, age: ReleaseAge, order: LoaderOrder) -> LoaderAnswer {
        let open = |file: &tempfile::NamedTempFile| {
            BlockDevice::open_device(file.path(), AccessMode::Write).unwrap()
        };
        let (esp, disk) = (open(&self.esp), open(&self.disk));
        LoaderSite { esp: &esp, disk: &disk, references: self.references.path(), age, order }.run().unwrap()
    }

    fn file(&self, path: &str) -> Option<Vec<u8>> {
        FatVolume::read(&fs::read(self.esp.path()).unwrap()).unwrap().read_file(path)
    }

    /// The release brings another file.
    fn change_reference(&self, name: &str, bytes: &[u8]) {
        fs::write(self.references.path().join(name), bytes).unwrap();
    }
}

fn esp() -> tempfile::NamedTempFile {
    let mut volume = Cursor::new(vec![0; 34 << 20]);
    fatfs::format_volume(
        &mut volume,
        FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512),
    )
    .unwrap();
    {
        let system = FileSystem::new(&mut volume, FsOptions::new()).unwrap();
        let root = system.root_dir();
        for folder in ["EFI", "EFI/BOOT", "EFI/debian"] {
            root.create_dir(folder).unwrap();
        }
        for (path, name) in ESP_FILES {
            root.create_file(path).unwrap().write_all(&reference_bytes(name)).unwrap();
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(volume.get_ref(), 0).unwrap();
    file
}

#[test]
fn what_the_release_brings_is_left_alone() {
    let machine = Machine::new();
    let before = fs::read(machine.esp.path()).unwrap();

    let answer = machine.run(ReleaseAge::Newest, LoaderOrder::Repair);

    assert_eq!(answer.faults, 0);
    assert_eq!(answer.text.matches(" same\n").count(), 8, "{}", answer.text);
    assert!(fs::read(machine.esp.path()).unwrap() == before);
}

#[test]
fn another_loader_is_said_by_a_check_and_taken_by_a_repair() {
    let machine = Machine::new();
    machine.change_reference(reference::GRUB, b"a newer GRUB");

    assert_eq!(machine.run(ReleaseAge::Newest, LoaderOrder::Check).faults, 2);
    assert_eq!(machine.file("EFI/BOOT/grubx64.efi"), Some(reference_bytes(reference::GRUB)));
    let answer = machine.run(ReleaseAge::Newest, LoaderOrder::Repair);

    assert_eq!(answer.text.matches("replaced: this release brings another").count(), 2, "{}", answer.text);
    for path in ["EFI/BOOT/grubx64.efi", "EFI/debian/grubx64.efi"] {
        assert_eq!(machine.file(path).unwrap(), b"a newer GRUB");
    }
    assert_eq!(machine.file("EFI/BOOT/BOOTX64.EFI"), Some(reference_bytes(reference::SHIM)));
    assert_eq!(machine.run(ReleaseAge::Newest, LoaderOrder::Check).faults, 0);
}

#[test]
fn an_older_release_brings_nothing_back_but_what_is_gone() {
    let machine = Machine::new();
    machine.change_reference(reference::SELECTOR, b"an older selector");
    machine.change_reference(reference::CORE, &[5; 2000]);

    let answer = machine.run(ReleaseAge::Older, LoaderOrder::Repair);

    assert_eq!(answer.text.matches("kept: a newer release").count(), 2, "{}", answer.text);
    assert_eq!(machine.file("EFI/debian/grub.cfg"), Some(reference_bytes(reference::SELECTOR)));
}

#[test]
fn grub_for_bios_changes_its_half_and_sector_0_says_so_last() {
    let machine = Machine::new();
    let first = machine.halves().first_lba(CoreHalf::First) * 512;
    machine.disk.as_file().write_all_at(b"rotten", first + 700).unwrap();

    let answer = machine.run(ReleaseAge::Newest, LoaderOrder::Repair);

    assert!(answer.text.contains("GRUB for BIOS           replaced: "), "{}", answer.text);
    let disk = fs::read(machine.disk.path()).unwrap();
    assert_eq!(machine.halves().active(&disk), Some(CoreHalf::Second));
    let at = usize::try_from(machine.halves().first_lba(CoreHalf::Second) * 512).unwrap();
    let placed = machine.halves().place_core(&reference_bytes(reference::CORE), CoreHalf::Second).unwrap();
    assert!(disk[at..].starts_with(&placed));
    assert_eq!(machine.run(ReleaseAge::Newest, LoaderOrder::Check).faults, 0);
}

#[test]
fn a_release_for_another_layout_leaves_the_selectors_alone() {
    let machine = Machine::new();
    machine.change_reference(reference::PLACES, b"BIOS 2048+1\n");
    machine.change_reference(reference::SELECTOR, b"for other places");
    machine.change_reference(reference::CORE, &[5; 2000]);

    let answer = machine.run(ReleaseAge::Newest, LoaderOrder::Repair);

    assert_eq!(answer.text.matches("disks of another layout").count(), 2, "{}", answer.text);
    assert_eq!(machine.file("EFI/debian/grub.cfg"), Some(reference_bytes(reference::SELECTOR)));
}

/// A newer shim may revoke the GRUB beside it.
#[test]
fn every_grub_is_replaced_before_any_shim() {
    let last_grub = ESP_FILES.iter().rposition(|(_, name)| *name == reference::GRUB).unwrap();
    let first_shim = ESP_FILES.iter().position(|(_, name)| *name == reference::SHIM).unwrap();

    assert!(last_grub < first_shim);
}
