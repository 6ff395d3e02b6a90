//! Finds the disk that holds the slot, and the nodes of its partitions.
//!
//! Knows where the kernel lists disks, and reads their partition tables itself: the kernel's own
//! reading needs a whole primary copy and gives no GUIDs to a program without udev.
//! Invariant: slot, slot table and STATE are of one disk, so that the clone of a disk, attached
//! beside it, is never mixed with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, Entry, PRIMARY_OFFSET, Table, backup_offset};
use image_format::layout::{Partition, Role};
use image_format::slot::Slot;

use super::command_line::Parameters;
use super::console;
use crate::block_device::{Access, BlockDevice};
use crate::ioctl::{self, PartitionCommand};
use crate::report::chain;

const CLASS: &str = "/sys/class/block";
/// Devices that are no disks a slot could be on, by the beginning of their names.
const NEVER: [&str; 7] = ["dm-", "fd", "loop", "nbd", "ram", "sr", "zram"];

/// The disk, and the nodes of the partitions that the boot needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootDisk {
    /// The kernel's name of it.
    pub(super) name: String,
    /// Its node.
    pub(super) device: PathBuf,
    /// What its partition table says.
    pub(super) table: Table,
    /// The node of the slot table.
    pub(super) abstate: PathBuf,
    /// The node of the slot.
    pub(super) root: PathBuf,
}

impl BootDisk {
    /// The entry of a role.
    pub(super) fn entry(&self, role: Role) -> Option<&Entry> {
        self.table.labelled(Partition::of(role).label)
    }

    /// Where a role's node is, if its partition exists.
    pub(super) fn partition_path(&self, role: Role) -> PathBuf {
        let number = Partition::of(role).number;
        let found =
            kernel_partitions(Path::new(CLASS), &self.name).into_iter().find(|known| known.number == number);
        found.map_or_else(PathBuf::new, |known| known.node)
    }

    /// The node of an entry, after making the kernel know its place and size.
    pub(super) fn node(&self, entry: &Entry) -> io::Result<PathBuf> {
        let command = match self.known(entry) {
            Some(one) if one.start != entry.offset() => {
                let error = format!("the kernel believes that partition {} begins elsewhere", entry.number);
                return Err(io::Error::other(error));
            }
            Some(one) if one.size == entry.size() => return Ok(one.node),
            Some(_) => PartitionCommand::Resize,
            None => PartitionCommand::Add,
        };
        let disk = BlockDevice::open(&self.device, Access::Read)?;
        let (start, length) = (entry.offset().get(), entry.size().get());
        ioctl::partition(disk.file(), command, entry.number, start, length)?;
        self.known(entry).map(|one| one.node).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn known(&self, entry: &Entry) -> Option<KernelPartition> {
        kernel_partitions(Path::new(CLASS), &self.name).into_iter().find(|one| one.number == entry.number)
    }
}

/// Why the disk was not found.
#[derive(Debug, thiserror::Error)]
#[error(
    "no disk has slot {slot} (partition {root}) together with STATE and ABSTATE after {} seconds; \
     disks seen: {seen}", waited.as_secs()
)]
pub(super) struct NoDiskError {
    slot: Slot,
    root: uuid::Uuid,
    waited: Duration,
    seen: String,
}

/// A search that goes on while disks appear.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// What each disk is that is not the one, or not yet.
    seen: BTreeMap<String, NotTheDisk>,
}

/// Why a disk is not the one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NotTheDisk {
    /// It is another one, for good.
    Another(String),
    /// It can not be read, or the kernel is still reading it: worth another look.
    Unready(String),
}

impl Search {
    /// Looks at the disks that came since the last look, or were not ready then.
    pub(super) fn look(&mut self, wanted: &Parameters) -> Option<BootDisk> {
        let mut found = None;
        for name in whole_disks(Path::new(CLASS)) {
            let missing = match self.seen.get(&name) {
                None => Missing::Wait,
                Some(NotTheDisk::Unready(_)) => Missing::Add,
                Some(NotTheDisk::Another(_)) => continue,
            };
            match examine(&name, wanted, missing) {
                Ok(disk) if found.is_none() => found = Some(disk),
                Ok(disk) => {
                    console::log(&format!("{} is a copy of the disk that starts", disk.device.display()));
                }
                Err(why) => {
                    self.seen.insert(name, why);
                }
            }
        }
        found
    }

    /// What to say when the time is up.
    pub(super) fn diagnosis(&self, wanted: &Parameters, patience: Duration) -> NoDiskError {
        let said = |(name, why): (&String, &NotTheDisk)| match why {
            NotTheDisk::Another(said) | NotTheDisk::Unready(said) => format!("{name} ({said})"),
        };
        let seen: Vec<String> = self.seen.iter().map(said).collect();
        let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
        NoDiskError { slot: wanted.slot, root: wanted.root, waited: patience, seen }
    }
}

/// What to do about a partition that the table has and the kernel does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Tell the kernel: it will not find it by itself, because its copy of the table is broken.
    Add,
    /// The kernel may still be reading the table.
    Wait,
}

/// The disk, if it is the one.
fn examine(name: &str, wanted: &Parameters, missing: Missing) -> Result<BootDisk, NotTheDisk> {
    let device = Path::new("/dev").join(name);
    let table = read_table(&device)?;
    let entries = wanted_entries(&table, wanted).map_err(NotTheDisk::Another)?;
    let (abstate, root) = (entries.abstate.clone(), entries.root.clone());
    let nowhere = PathBuf::new;
    let disk = BootDisk { name: name.to_owned(), device, table, abstate: nowhere(), root: nowhere() };
    let node = |entry| {
        if missing == Missing::Wait && disk.known(entry).is_none() {
            return Err(NotTheDisk::Unready("its partitions are not there yet".to_owned()));
        }
        disk.node(entry).map_err(|error| NotTheDisk::Unready(chain(&error)))
    };
    let (abstate, root) = (node(&abstate)?, node(&root)?);
    Ok(BootDisk { abstate, root, ..disk })
}

fn read_table(device: &Path) -> Result<Table, NotTheDisk> {
    let read = |device: &BlockDevice| -> io::Result<(Bytes, Vec<u8>, Vec<u8>)> {
        let size = device.size()?;
        let backup = backup_offset(size).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((size, device.read(PRIMARY_OFFSET, COPY_BYTES)?, device.read(backup, COPY_BYTES)?))
    };
    let opened = BlockDevice::open(device, Access::Read).and_then(|device| read(&device));
    let unready = |error| NotTheDisk::Unready(format!("can not be read: {error}"));
    let (size, primary, backup) = opened.map_err(unready)?;
    gpt::read(&primary, &backup, size).map_err(|error| NotTheDisk::Another(chain(&error)))
}

struct Wanted<'a> {
    abstate: &'a Entry,
    root: &'a Entry,
}

/// The partitions that the selector named, if they are all here and the slot has the right name.
fn wanted_entries<'a>(table: &'a Table, wanted: &Parameters) -> Result<Wanted<'a>, String> {
    let find = |guid, role| {
        let label = Partition::of(role).label;
        let entry = table.with_guid(guid).ok_or_else(|| format!("has no partition {guid} for {label}"))?;
        let named = entry.label == label;
        if named { Ok(entry) } else { Err(format!("calls partition {guid} {:?}, not {label}", entry.label)) }
    };
    find(wanted.state, Role::State)?;
    Ok(Wanted {
        abstate: find(wanted.abstate, Role::Abstate)?,
        root: find(wanted.root, Role::Root(wanted.slot))?,
    })
}

/// The kernel's names of disks that are neither partitions nor made of other devices.
fn whole_disks(class: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(class).into_iter().flatten().flatten();
    names
        .filter(|entry| {
            !entry.path().join("partition").exists() && number_in(&entry.path().join("size")) > Some(0)
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !NEVER.iter().any(|never| name.starts_with(never)))
        .collect()
}

/// A partition as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KernelPartition {
    number: u32,
    node: PathBuf,
    start: Bytes,
    size: Bytes,
}

fn kernel_partitions(class: &Path, disk: &str) -> Vec<KernelPartition> {
    let folders = fs::read_dir(class.join(disk)).into_iter().flatten().flatten();
    let read = |folder: fs::DirEntry| {
        let number = |file: &str| number_in(&folder.path().join(file));
        let sectors = |file: &str| number(file).map(|count| Bytes::new(count.saturating_mul(512)));
        Some(KernelPartition {
            number: u32::try_from(number("partition")?).ok()?,
            node: Path::new("/dev").join(folder.file_name()),
            start: sectors("start")?,
            size: sectors("size")?,
        })
    };
    folders.filter_map(read).collect()
}

fn number_in(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use image_format::layout::{Layout, Sizes};
    use uuid::{Uuid, uuid};

    use super::*;

    const DISK: Uuid = uuid!("a2f3c1d0-0000-4000-8000-000000000001");

    fn layout() -> Layout {
        Layout::plan(DISK, Sizes { root: Bytes::mib(64), state: Bytes::mib(8) }).unwrap()
    }

    fn parameters() -> Parameters {
        let layout = layout();
        Parameters {
            slot: Slot::B,
            root: layout.guid(Role::Root(Slot::B)),
            state: layout.guid(Role::State),
            abstate: layout.guid(Role::Abstate),
        }
    }

    #[test]
    fn the_named_partitions_are_found_on_their_disk() {
        let table = layout().table();

        let found = wanted_entries(&table, &parameters()).unwrap_or_else(|said| panic!("{said}"));

        assert_eq!((found.root.number, found.abstate.number), (5, 3));
    }

    #[test]
    fn a_disk_with_only_some_of_the_partitions_is_not_the_one() {
        let said = |table: &Table, parameters: &Parameters| wanted_entries(table, parameters).err().unwrap();
        let mut without_state = layout().table();
        without_state.entries.pop();
        let (state, root) = (parameters().state, parameters().root);
        assert_eq!(said(&without_state, &parameters()), format!("has no partition {state} for STATE"));

        let other_slot = Parameters { slot: Slot::A, ..parameters() };
        assert_eq!(
            said(&layout().table(), &other_slot),
            format!("calls partition {root} \"ROOT-B\", not ROOT-A")
        );
    }

    #[test]
    fn disks_are_told_from_partitions_and_from_what_is_made_of_them() {
        let class = tempfile::tempdir().unwrap();
        let folders = ["vda", "vda/vda4", "vda4", "loop0", "dm-0", "sr0", "sdb"];
        for name in folders {
            fs::create_dir_all(class.path().join(name)).unwrap();
            fs::write(class.path().join(name).join("size"), if name == "sdb" { "0\n" } else { "100\n" })
                .unwrap();
        }
        for name in ["vda4", "vda/vda4"] {
            fs::write(class.path().join(name).join("partition"), "4\n").unwrap();
            fs::write(class.path().join(name).join("start"), "2048\n").unwrap();
        }

        assert_eq!(whole_disks(class.path()), BTreeSet::from(["vda".to_owned()]));
        assert_eq!(
            kernel_partitions(class.path(), "vda"),
            [KernelPartition {
                number: 4,
                node: "/dev/vda4".into(),
                start: Bytes::MIB,
                size: Bytes::new(51200),
            }]
        );
    }

    #[test]
    fn an_empty_search_says_what_it_saw() {
        let mut search = Search::default();
        let wanted = parameters();
        let root = wanted.root;
        let said = |search: &Search| search.diagnosis(&wanted, Duration::from_mins(1)).to_string();
        assert_eq!(
            said(&search),
            format!(
                "no disk has slot B (partition {root}) together with STATE and ABSTATE after 60 seconds; \
                 disks seen: none"
            )
        );
        search.seen.insert("sda".into(), NotTheDisk::Another("has no partition table".into()));
        assert!(said(&search).ends_with("disks seen: sda (has no partition table)"));
    }
}
