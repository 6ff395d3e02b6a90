//! The file system that is kept: grown to the end of the disk, mounted, and put under the root.
//!
//! Knows which folders of the root live on STATE and how /etc is laid over the image's. Refuses to repair more than
//! e2fsck does by itself: what is on STATE is the machine's, and a person decides.
//! Invariant: systemd finds /var, /home, /root, /opt, /srv writable and /etc as the machine left it. What is wrong
//! with STATE costs its data at most, never the boot: then these folders are in memory.
//!
//! Documentation: <https://docs.kernel.org/filesystems/overlayfs.html>, and for the superblock
//! <https://docs.kernel.org/filesystems/ext4/super.html>.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use image_format::bytes::Bytes;
use image_format::gpt::PartitionTable;
use image_format::layout::PartitionRole;
use nix::mount::MsFlags;

use super::console;
use super::disk::BootDisk;
use super::disk_identity;
use super::growth::{self, GrowthOutcome};
use super::machine_id::{self, KeepMachineIdError};
use super::mounts::{self, MountError, MountPoint};
use super::populate::{ExistingFolder, PopulateError, populate_state};
use crate::block_device::{AccessMode, BlockDevice};
use crate::ioctl;
use crate::state::content::PartitionContent;
use crate::state::{self, StateCondition, StateRecord};
use error_text::error_chain;

/// e2fsck and mke2fs, before there is a system.
mod programs;

use programs::{FileSystemProgramError, RootPrograms};

/// Where STATE is mounted, in the initramfs and afterwards.
pub(super) const MOUNT_POINT: &str = state::MOUNT_POINT;

/// Where STATE holds what the machine changed in /etc.
const ETC: &str = "etc/upper";

/// What lives on STATE, and what a newer image may add to it.
const FOLDERS: [(&str, ExistingFolder); 5] = [
    ("home", ExistingFolder::Keep),
    ("opt", ExistingFolder::Keep),
    ("root", ExistingFolder::Keep),
    ("srv", ExistingFolder::Keep),
    // A newer image may have programs that need a folder there. The others are people's own.
    ("var", ExistingFolder::Extend),
];

/// What holds data: no program in it gets another's rights, and no file in it is a device.
const DATA: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// The folders where that would break what people run. /var holds whole roots: those of containers whose engine
/// has no overlay to mount, and of units with `RootDirectory=`, in which sudo, ping and device nodes have to work;
/// volumes of containers are bound from there and would inherit it. /opt is where people install programs.
/// Nobody but root writes to the parts of either where such a file could be left for others.
const PROGRAMS: [&str; 2] = ["opt", "var"];

/// Why STATE cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenStateError {
    #[error("cannot make the folder {path} on STATE")]
    Folder { path: PathBuf, source: io::Error },
    #[error("{device} holds {content}")]
    Foreign { device: PathBuf, content: &'static str },
    #[error(transparent)]
    MachineId(#[from] KeepMachineIdError),
    #[error("the disk has no partition STATE")]
    Missing,
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("the partition STATE of {disk} has no node")]
    Node { disk: PathBuf, source: io::Error },
    #[error(transparent)]
    Populate(#[from] PopulateError),
    #[error("{mount}, and {repair}")]
    Repair { mount: String, repair: String },
    #[error(transparent)]
    Program(#[from] FileSystemProgramError),
    #[error("cannot read {device}")]
    Unreadable { device: PathBuf, source: io::Error },
}

/// Grows STATE and mounts it, or an empty one in memory if it cannot be used. Says which it is, and why.
pub(super) fn open_state(disk: &BootDisk, new_root: &Path) -> Result<StateRecord, OpenStateError> {
    let node = match grown_partition(disk) {
        Ok(node) => node,
        Err(error) => return use_memory(disk.partition_path(PartitionRole::State), &error),
    };
    mount_kept(&node, &RootPrograms::of_root(new_root)).or_else(|error| use_memory(node, &error))
}

/// Lays the mounted STATE under the new root. If that fails, as on a full disk, STATE is in memory from then on.
pub(super) fn lay_under(new_root: &Path, record: StateRecord) -> Result<StateRecord, OpenStateError> {
    match lay_folders(new_root) {
        Ok(()) => Ok(record),
        Err(error) if record.condition == StateCondition::Volatile => Err(error),
        Err(error) => {
            let places = FOLDERS.iter().map(|(name, _)| *name).chain(["etc"]);
            places.for_each(|name| mounts::detach_all(&new_root.join(name)));
            let record = use_memory(record.device, &error)?;
            lay_folders(new_root)?;
            Ok(record)
        }
    }
}

/// Mounts what is on the partition, after e2fsck if the kernel or the mount asks for it.
fn mount_kept(node: &Path, programs: &RootPrograms<'_>) -> Result<StateRecord, OpenStateError> {
    let device = node.to_owned();
    let content = PartitionContent::read(node)
        .map_err(|source| OpenStateError::Unreadable { device: device.clone(), source })?;
    let PartitionContent::Ext4 { has_errors } = content else {
        return Err(OpenStateError::Foreign { device, content: content.describe() });
    };
    // A journal is replayed by the mount itself; e2fsck is for what a journal does not mend.
    let mut mended = if has_errors { Some(programs.repair(node)?) } else { None };
    if let Err(error) = mount_ext4(node) {
        if mended.is_some() {
            return Err(error.into());
        }
        let unmended = |repair: FileSystemProgramError| OpenStateError::Repair {
            mount: error_chain(&error),
            repair: error_chain(&repair),
        };
        mended = Some(programs.repair(node).map_err(unmended)?);
        mount_ext4(node)?;
    }
    let mut condition = if mended.is_some() { StateCondition::Repaired } else { StateCondition::Healthy };
    if Path::new(MOUNT_POINT).join(state::RESET_MARK).exists() {
        mounts::detach_all(Path::new(MOUNT_POINT));
        programs.make_anew(node)?;
        mount_ext4(node)?;
        (condition, mended) = (StateCondition::Reset, None);
    }
    if let Err(error) = adapt_file_system(node, Path::new(MOUNT_POINT)) {
        console::write_kernel_log(&format!("the file system on STATE stays as small as it is: {error}"));
    }
    Ok(StateRecord { device, condition, reason: mended })
}

fn mount_ext4(node: &Path) -> Result<(), MountError> {
    let what = node.to_string_lossy();
    MountPoint { what: &what, at: Path::new(MOUNT_POINT), kind: "ext4", flags: DATA, options: "" }
        .mount_point()
}

/// Puts an empty STATE in memory in the place of the one that cannot be used. Nothing is written to the disk.
fn use_memory(device: PathBuf, because: &OpenStateError) -> Result<StateRecord, OpenStateError> {
    let reason = error_chain(because);
    console::print_to_console(&format!("STATE is not in use, and an empty one is in memory: {reason}"));
    let at = Path::new(MOUNT_POINT);
    mounts::detach_all(at);
    // Half of the memory, as for any tmpfs: what fills it must leave the machine able to answer.
    MountPoint { what: "tmpfs", at, kind: "tmpfs", flags: DATA, options: "mode=0755,size=50%" }
        .mount_point()?;
    Ok(StateRecord { device, condition: StateCondition::Volatile, reason: Some(reason) })
}

/// Mounts it again for a machine that runs: at the end of a run systemd takes this mount away, while /var stays.
pub(super) fn mount_again(node: &Path) -> Result<(), OpenStateError> {
    Ok(mount_ext4(node)?)
}

/// Lays the folders of the mounted STATE under the new root.
pub(super) fn lay_folders(new_root: &Path) -> Result<(), OpenStateError> {
    let state = Path::new(MOUNT_POINT);
    // Before the bind mounts hide what the image has at these places.
    populate_state(new_root, state, &FOLDERS)?;
    for (name, _) in FOLDERS {
        let flags = if PROGRAMS.contains(&name) { MsFlags::empty() } else { DATA };
        mounts::bind_mount(&state.join(name), &new_root.join(name), flags)?;
    }
    if !state.join(ETC).exists()
        && let Err(error) = note_update(new_root, state)
    {
        console::write_kernel_log(&format!("cannot note that /etc and /var are new: {error}"));
    }
    lay_over_etc(state, &new_root.join("etc"))
}

/// The node of STATE, after growing it. A disk that cannot be grown still has what it had.
fn grown_partition(disk: &BootDisk) -> Result<PathBuf, OpenStateError> {
    let grown = BlockDevice::open_device(&disk.device, AccessMode::Write)
        .map_err(|error| error.to_string())
        .and_then(|device| grow_table(disk, &device));
    let entry = match &grown {
        Ok((table, outcome)) => {
            if *outcome == GrowthOutcome::Written {
                console::write_kernel_log("the partition table is mended or grown to the end of the disk");
            }
            table
                .entries
                .iter()
                .find(|entry| Some(entry.number) == disk.entry_of(PartitionRole::State).map(|now| now.number))
        }
        Err(said) => {
            console::write_kernel_log(&format!("the partition table stays as it is: {said}"));
            disk.entry_of(PartitionRole::State)
        }
    };
    let entry = entry.ok_or(OpenStateError::Missing)?;
    disk.device_node(entry).map_err(|source| OpenStateError::Node { disk: disk.device.clone(), source })
}

fn grow_table(disk: &BootDisk, device: &BlockDevice) -> Result<(PartitionTable, GrowthOutcome), String> {
    // Only where they are needed: early in a boot the kernel may have to collect them first.
    let random = if disk.table.is_of_image() { disk_identity::random_bytes() } else { Some([0; 16]) };
    let random = random.ok_or("there are no random bytes for its GUIDs")?;
    disk_identity::renew_serials(disk, device);
    growth::grow_state(device, random).map_err(|error| error_chain(&error))
}

/// Gives the mounted file system a UUID of its own, and grows it to the end of its partition.
fn adapt_file_system(node: &Path, mounted: &Path) -> io::Result<()> {
    let device = BlockDevice::open_device(node, AccessMode::Read)?;
    // It begins behind the room for a boot sector.
    let superblock = device.read(Bytes::new(1024), 1024)?;
    let now = Ext4Size::read(&superblock).ok_or(io::ErrorKind::InvalidData)?;
    // Before it grows: each group that has a copy of the superblock is one more write.
    disk_identity::renew_uuid(&superblock, &File::open(mounted)?);
    let blocks = device.byte_size()?.get() / now.block_bytes;
    if blocks <= now.blocks {
        return Ok(());
    }
    ioctl::grow_ext4(&File::open(mounted)?, blocks)?;
    let size = Bytes::new(blocks * now.block_bytes);
    console::write_kernel_log(&format!("the file system on STATE is grown to {size}"));
    Ok(())
}

/// How large an ext4 file system says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ext4Size {
    block_bytes: u64,
    blocks: u64,
}

impl Ext4Size {
    /// Reads it from a superblock, if it is one.
    fn read(superblock: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(*superblock.get(at..)?.first_chunk()?));
        // `s_magic`.
        if superblock.get(0x38..0x3a)? != [0x53, 0xef] {
            return None;
        }
        // `INCOMPAT_64BIT`: only then the upper half of the count means anything.
        let wide = u32_at(0x60)? & 0x80 != 0;
        let high = if wide { u32_at(0x150)? } else { 0 };
        let shift = u32_at(0x18)?.checked_add(10).filter(|shift| *shift <= 16)?;
        Some(Self { block_bytes: 1 << shift, blocks: u64::from(high) << 32 | u64::from(u32_at(0x4)?) })
    }
}

/// Notes that /etc and /var are as new as the image, which they come from, by the time of /usr
/// (systemd.unit(5), `ConditionNeedsUpdate=`). A later image is newer, and has its accounts added then.
fn note_update(new_root: &Path, state: &Path) -> io::Result<()> {
    let time = fs::metadata(new_root.join("usr"))?.modified()?;
    fs::create_dir_all(state.join(ETC))?;
    for folder in ["var", ETC] {
        File::create(state.join(folder).join(".updated"))?.set_modified(time)?;
    }
    Ok(())
}

/// Lays what the machine changed in /etc over the image's, with an id of the machine's own.
fn lay_over_etc(state: &Path, etc: &Path) -> Result<(), OpenStateError> {
    let (upper, work) = (state.join(ETC), state.join("etc/work"));
    // overlayfs wants both on one file system, and `workdir` for itself.
    for (path, mode) in [(&upper, 0o755), (&work, 0o700)] {
        let made = fs::create_dir_all(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
        made.map_err(|source| OpenStateError::Folder { path: path.clone(), source })?;
    }
    // In the upper layer and before the overlay: overlayfs forbids changes beneath it once it is mounted.
    machine_id::ensure_machine_id(&upper)?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", etc.display(), upper.display(), work.display());
    let overlay = MountPoint { what: "overlay", at: etc, kind: "overlay", flags: DATA, options: &options };
    Ok(overlay.mount_point()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[0x4..0x8].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[0x18..0x1c].copy_from_slice(&2_u32.to_le_bytes());
        bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        bytes[0x150..0x154].copy_from_slice(&1_u32.to_le_bytes());
        bytes
    }

    #[test]
    fn a_superblock_says_how_large_its_file_system_is() {
        let mut bytes = superblock();
        assert_eq!(Ext4Size::read(&bytes), Some(Ext4Size { block_bytes: 4096, blocks: 4096 }));

        bytes[0x60] = 0x80;
        assert_eq!(Ext4Size::read(&bytes).unwrap().blocks, (1 << 32) + 4096);
    }

    #[test]
    fn what_is_no_superblock_says_nothing() {
        let mut bytes = superblock();
        bytes[0x18] = 99;
        assert_eq!(Ext4Size::read(&bytes), None);
        assert_eq!(Ext4Size::read(&[0; 1024]), None);
        assert_eq!(Ext4Size::read(&[0; 10]), None);
    }
}
