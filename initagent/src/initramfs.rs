//! The life as `/init`: from a bare kernel to systemd on a verified root.
//!
//! Knows the order: devices, disk, signature, dm-verity, STATE, the overlay of /etc, handover. Each
//! step is a module; what it finds is the argument of the next. Refuses to repair anything but the
//! partition table, the slot table, and what e2fsck mends by itself.
//! Invariant: systemd starts only on a root whose manifest a trusted key signed and whose blocks
//! the kernel checks, and with a kernel command line that the manifest names; whatever fails ends in one sentence on the console and a restart.
//!
//! Documentation: <https://docs.kernel.org/filesystems/ramfs-rootfs-initramfs.html> and bootup(7).
#![expect(clippy::disallowed_methods, reason = "the clock of PID 1; effects live here")]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image_format::command_line::GivenLine;
use image_format::layout::PartitionRole;
use image_format::manifest::Manifest;
use image_format::signed::Verified;
use image_format::slot::{Slot, SlotTable, boot_decision};
use image_format::version::Version;

use crate::block_device::AccessMode;
use crate::boot_record::{BootDevices, BootRecord};
use crate::devices::BUSES;
use crate::release_floor::{Release, ReleaseFloor, Verdict};
use crate::slots::store::{SlotStore, StoreError};
use error_text::error_chain;

/// The parameters of the kernel command line.
mod command_line;
/// What people at the machine read.
mod console;
/// dm-verity by way of the device-mapper.
pub(crate) mod device_mapper;
/// The disk that the machine runs from.
mod disk;
/// Decides which disk that is.
mod disk_choice;
/// Makes the disk differ from all others of its image.
mod disk_identity;
/// Looks for it while disks appear.
mod disk_search;
/// Makes the partition table cover the whole disk.
mod growth;
/// Moves to the new root.
mod handover;
/// Spares the boot some programs.
mod head_start;
/// Loads drivers until the disk is there.
mod kernel_modules;
/// What the machine is known by.
mod machine_id;
/// Mounts, with errors that say which.
mod mounts;
/// The root that a soft-reboot switches to.
pub(crate) mod next_root;
/// Brings folders of the image onto STATE.
mod populate;
/// The file system that is kept.
mod state;
/// Disk controllers without a driver.
mod undriven_devices;
/// Reads and believes the manifest of the slot.
pub(crate) mod verified_root;

use command_line::BootParameters;
use disk::BootDisk;
use disk_search::{Found, Search};
use kernel_modules::LoadProgress;
use undriven_devices::{undriven_devices, undriven_sentence};

/// Where the new root is put together.
const NEW_ROOT: &str = "/sysroot";
/// How long to wait for the disk.
const DISK_DEADLINE: Duration = Duration::from_mins(1);
/// How long a person has to read why the machine restarts.
const READING_TIME: Duration = Duration::from_secs(5);

/// Whether this process is the first one, started under the name that kernels give it.
pub(crate) fn is_init() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    // In a container a program is process 1, too, but not by this name.
    std::process::id() == 1 && name.is_some_and(|path| path.ends_with("init"))
}

/// Starts the machine, or restarts it.
pub(crate) fn run_initramfs() -> ! {
    let Err(failure) = start_machine();
    console::print_to_console(&failure.failure_sentence());
    std::thread::sleep(READING_TIME);
    handover::restart_machine()
}

/// Why the machine could not be started, and what was done about it.
#[derive(Debug)]
struct StartFailure {
    what: String,
    then: String,
}

impl StartFailure {
    fn failure_sentence(&self) -> String {
        format!("{}; {}", self.what, self.then)
    }

    /// Nothing is known to be wrong with the slot: its try is spent, and the count decides.
    fn without_verdict(doing: &str, error: &dyn std::error::Error) -> Self {
        let then = "the machine restarts, and this try of the slot is spent".to_owned();
        Self { what: format!("{doing}: {}", error_chain(error)), then }
    }

    /// What is in the slot cannot boot, ever.
    fn of_slot(disk: &BootDisk, slot: Slot, error: &dyn std::error::Error) -> Self {
        let what = format!("slot {slot} cannot be trusted: {}", error_chain(error));
        let then = match mark_bad(disk, slot) {
            Ok(table) if table.slot_state(!slot).good => {
                format!("it is marked bad, and the machine restarts with slot {}", !slot)
            }
            Ok(_) => format!("it is marked bad, but slot {} is not good either; the machine restarts", !slot),
            Err(error) => {
                format!("it could not be marked bad ({}); the machine restarts", error_chain(&error))
            }
        };
        Self { what, then }
    }
}

fn start_machine() -> Result<Infallible, StartFailure> {
    let began = Instant::now();
    mounts::kernel_file_systems().map_err(|error| StartFailure::without_verdict("cannot begin", &error))?;
    let unclear = |error| StartFailure::without_verdict("the boot loader did not say what to start", &error);
    let line = command_line::read().map_err(unclear)?;
    let line = GivenLine::parse(&line);
    let parameters = command_line::parse_parameters(&line).map_err(unclear)?;
    let disk = find_disk(&parameters, began)?;
    // Before anything of the slot is judged: whatever happens from here on, the next boot takes turns.
    update_table(&disk, parameters.slot);
    // Before dm-verity, so that what the kernel is told of the root comes from signed bytes only.
    let manifest = verified_root::read(&disk.root, Path::new(verified_root::KEYS), parameters.slot, &line)
        .map_err(|error| slot_failure(&disk, parameters.slot, error.is_about_slot(), &error))?;
    let verity = device_mapper::open_root(&disk.root, parameters.slot, &manifest)
        .map_err(|error| slot_failure(&disk, parameters.slot, error.is_about_slot(), &error))?;
    let new_root = Path::new(NEW_ROOT);
    mounts::mount_root(&verity, new_root)
        .map_err(|error| StartFailure::without_verdict("cannot mount the verified root", &error))?;
    let unusable = |error| {
        StartFailure::without_verdict("there is neither a STATE on the disk nor one in memory", &error)
    };
    let state = state::open_state(&disk, new_root).map_err(unusable)?;
    // As soon as STATE is mounted, which has the floor, and before anything of the slot runs.
    let below = check_floor(&disk, parameters.slot, &manifest)?;
    let state = state::lay_under(new_root, state).map_err(unusable)?;
    head_start::prepare_for_systemd(new_root);
    let node = state.device.clone();
    let record = BootRecord { below, ..boot_record(&disk, parameters.slot, &manifest, verity, node) };
    let named = format!("{} {} from slot {}", record.name, record.version, record.slot);
    handover::leave_records(&record, &state)
        .map_err(|error| StartFailure::without_verdict("cannot prepare the handover", &error))?;
    console::write_kernel_log(&format!("starting {named} after {} ms", began.elapsed().as_millis()));
    let handed_over = |error| StartFailure::without_verdict("cannot hand over to the root", &error);
    handover::switch_root(new_root).map_err(handed_over)?;
    // In the new root, since it is a program of it and uses its modprobe.
    head_start::bring_up_network_cards();
    handover::start_systemd().map_err(handed_over)
}

fn slot_failure(
    disk: &BootDisk,
    slot: Slot,
    about_slot: bool,
    error: &dyn std::error::Error,
) -> StartFailure {
    if about_slot {
        StartFailure::of_slot(disk, slot, error)
    } else {
        StartFailure::without_verdict("cannot open the root", error)
    }
}

/// An older release than this machine has proven.
#[derive(Debug, thiserror::Error)]
#[error(
    "it holds {version}, but this machine has proven {floor} already ('initagent slots lower-floor' allows it)"
)]
struct OlderReleaseError {
    version: Version,
    floor: Version,
}

/// Refuses a release below the floor, or says below which version it is if it starts all the same. What cannot be
/// read of the floor refuses nothing: it must not cost a machine its boot.
fn check_floor(disk: &BootDisk, slot: Slot, manifest: &Manifest) -> Result<Option<Version>, StartFailure> {
    let floor = ReleaseFloor::read(Path::new(state::MOUNT_POINT)).unwrap_or_else(|error| {
        console::print_to_console(&format!("old releases are not refused: {}", error_chain(&error)));
        None
    });
    let release = Release { slot, version: &manifest.version, root_hash: manifest.root.root_hash };
    let Some(floor) = floor else { return Ok(None) };
    // Read anew, since this boot may have changed it.
    let table = SlotStore::open_store(&disk.abstate, AccessMode::Read).and_then(|store| store.read());
    let other = table.ok().and_then(|copies| copies.current_table()).map(|table| table.slot_state(!slot));
    let verdict = floor.judge_release(release, other);
    let error = OlderReleaseError { version: manifest.version.clone(), floor: floor.version };
    match verdict {
        Verdict::Start => Ok(None),
        Verdict::Refuse => Err(StartFailure::of_slot(disk, slot, &error)),
        Verdict::StartForWant => {
            console::print_to_console(&format!(
                "slot {slot} starts, since slot {} cannot, although {error}",
                !slot
            ));
            Ok(Some(error.floor))
        }
    }
}

/// Loads drivers until the disk of the slot appears. While two could be meant, it stops there: to
/// restart would change nothing, and would spend the tries of a slot that is not at fault.
fn find_disk(parameters: &BootParameters, began: Instant) -> Result<BootDisk, StartFailure> {
    let mut loader = kernel_modules::ModuleLoader::open_index()
        .map_err(|error| StartFailure::without_verdict("cannot load kernel modules", &error))?;
    loader.load_always();
    let mut search = Search::default();
    let mut said = String::new();
    loop {
        let progress = loader.load_driver();
        match search.search_disks(parameters, progress, began.elapsed()) {
            Found::Disk(disk) => return Ok(*disk),
            Found::Ambiguous(doubt) if doubt != said => {
                console::print_to_console(&doubt);
                said = doubt;
            }
            // A person has to act, so nothing needs to be quick.
            Found::Ambiguous(_) => std::thread::sleep(Duration::from_millis(100)),
            Found::Nothing if said.is_empty() && began.elapsed() > DISK_DEADLINE => {
                let undriven = undriven_devices(Path::new(BUSES));
                if let Some(sentence) = undriven_sentence(&undriven) {
                    console::print_to_console(&sentence);
                }
                let error = search.explain_failure(parameters, DISK_DEADLINE);
                return Err(StartFailure::without_verdict("cannot find the disk to start from", &error));
            }
            // A driver that was just loaded may have made devices that need another one.
            Found::Nothing if progress == LoadProgress::Nothing => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Found::Nothing => {}
        }
    }
}

/// Lets the good slots take turns in a last resort, and gives the disk a tag of its own on its first
/// boot. Not being able to is no reason to stop; a table that was lost is left to the complete boot.
fn update_table(disk: &BootDisk, slot: Slot) {
    let change = |table: SlotTable| {
        let tag = if table.tag.is_of_image() { disk_identity::random_tag() } else { None };
        tag.map_or(table, |tag| table.with_tag(tag)).take_turns(slot)
    };
    let changed = change_table(disk, |table| table.map(change));
    if let Err(error) = changed {
        console::write_kernel_log(&format!("cannot update the slot table: {}", error_chain(&error)));
    }
}

fn mark_bad(disk: &BootDisk, slot: Slot) -> Result<SlotTable, StoreError> {
    let marked =
        |table: Option<SlotTable>| table.unwrap_or_else(|| SlotTable::replace_lost(slot)).mark_bad(slot);
    change_table(disk, |table| Some(marked(table))).map(|table| table.unwrap_or_else(|| marked(None)))
}

/// Changes the table, and says what it is then; if it was lost, it is only written if it is changed.
fn change_table(
    disk: &BootDisk,
    change: impl Fn(Option<SlotTable>) -> Option<SlotTable>,
) -> Result<Option<SlotTable>, StoreError> {
    let store = SlotStore::open_store(&disk.abstate, AccessMode::Write)?;
    let copies = store.read()?;
    let before = copies.current_table();
    let after = change(before);
    if let Some(table) = after {
        if after != before {
            store.write(&copies, table)?;
        }
        let next = boot_decision(&table.to_block(), &table.to_block()).attempts;
        console::write_kernel_log(&format!(
            "the slots to start next are {:?}",
            next.iter().map(|one| one.slot).collect::<Vec<_>>()
        ));
    }
    Ok(after)
}

fn boot_record(
    disk: &BootDisk,
    slot: Slot,
    manifest: &Verified<Manifest>,
    verity: PathBuf,
    state: PathBuf,
) -> BootRecord {
    let devices = BootDevices {
        disk: disk.device.clone(),
        esp: disk.partition_path(PartitionRole::Esp),
        abstate: disk.abstate.clone(),
        root: disk.root.clone(),
        other_root: disk.partition_path(PartitionRole::Root(!slot)),
        state,
        verity,
    };
    record_release(slot, manifest, devices)
}

/// What is noted of a release that runs from these devices.
fn record_release(slot: Slot, manifest: &Verified<Manifest>, devices: BootDevices) -> BootRecord {
    BootRecord {
        slot,
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        channel: manifest.channel.clone(),
        root_hash: manifest.root.root_hash,
        development: manifest.development,
        built: manifest.built,
        security_epoch: manifest.security_epoch,
        below: None,
        devices,
    }
}
