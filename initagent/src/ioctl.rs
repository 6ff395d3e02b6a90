//! The kernel calls that have no safe binding: device-mapper, partitions, growing ext4.
//!
//! Knows numbers and layouts from the kernel's headers. Refuses to know when to call them.
//! Invariant: every buffer handed over is as long as the kernel was told, and lives through the call.
//!
//! Documentation: linux/dm-ioctl.h, linux/blkpg.h, and ext4's calls in `fs/ext4/ext4.h` and linux/ext4.h.
#![expect(unsafe_code, reason = "ioctl takes raw pointers; each call says why they are right")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;

/// Bytes of the header of every device-mapper call.
// `struct dm_ioctl`, with its padding.
pub(crate) const DM_HEADER_BYTES: usize = 312;

/// The device-mapper calls that opening and closing a device take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DmCommand {
    /// Makes a device without a table.
    Create,
    /// Gives it one.
    LoadTable,
    /// Takes it away, if nothing uses it.
    Remove,
    /// Puts the loaded table to work: "suspend" without its flag.
    Resume,
}

impl DmCommand {
    const fn number(self) -> u8 {
        match self {
            // `DM_DEV_CREATE_CMD`, `DM_DEV_REMOVE_CMD`, `DM_DEV_SUSPEND_CMD` and `DM_TABLE_LOAD_CMD`.
            Self::Create => 3,
            Self::Remove => 4,
            Self::Resume => 6,
            Self::LoadTable => 9,
        }
    }
}

/// Carries a device-mapper call out. The buffer begins with a header whose size field says how
/// long the buffer is; the answer replaces it.
pub(crate) fn device_mapper(control: &File, command: DmCommand, buffer: &mut [u8]) -> io::Result<()> {
    let said = buffer.get(12..16).and_then(|size| size.first_chunk().copied()).map(u32::from_ne_bytes);
    if buffer.len() < DM_HEADER_BYTES || said.map(|size| size as usize) != Some(buffer.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let code = nix::request_code_readwrite!(0xfd, command.number(), DM_HEADER_BYTES);
    // SAFETY: the kernel reads and writes at most as many bytes as the size field at 12 says, which
    // was just compared with the length of this exclusively borrowed buffer.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), code, buffer.as_mut_ptr()) };
    ioctl_result(result)
}

/// What to do to the kernel's idea of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartitionCommand {
    /// It does not know the partition yet.
    Add,
    /// It believes in another size.
    Resize,
}

#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

/// Tells the kernel of a partition of this disk, which may be in use.
pub(crate) fn change_partition(
    disk: &File,
    command: PartitionCommand,
    number: u32,
    start: u64,
    length: u64,
) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut partition = BlkpgPartition {
        start: start.try_into().map_err(too_large)?,
        length: length.try_into().map_err(too_large)?,
        number: number.try_into().map_err(too_large)?,
        names: [0; 128],
    };
    let mut argument = BlkpgArgument {
        operation: match command {
            PartitionCommand::Add => 1,
            PartitionCommand::Resize => 3,
        },
        flags: 0,
        length: size_of::<BlkpgPartition>().try_into().map_err(too_large)?,
        data: &raw mut partition,
    };
    // `BLKPG`. Its operations 1 and 3 add and resize.
    let code = nix::request_code_none!(0x12, 105);
    // SAFETY: BLKPG reads one argument and, through its pointer, one partition. Both live on this
    // stack until after the call and have the layout of linux/blkpg.h.
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), code, &raw mut argument) };
    ioctl_result(result)
}

/// Grows a mounted ext4 to that many blocks. The file is any of the file system's.
pub(crate) fn grow_ext4(file: &File, blocks: u64) -> io::Result<()> {
    let code = nix::request_code_write!(b'f', 16, size_of::<u64>());
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64, which lives on this stack through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), code, &raw const blocks) };
    ioctl_result(result)
}

#[repr(C)]
struct Ext4Uuid {
    length: u32,
    flags: u32,
    uuid: [u8; 16],
}

/// Gives a mounted ext4 another UUID, in all copies of its superblock. The file is any of the file system's.
pub(crate) fn set_ext4_uuid(file: &File, uuid: [u8; 16]) -> io::Result<()> {
    // The size in the number is that of the structure without the UUID, whose length is a field.
    let code = nix::request_code_write!(b'f', 44, 8);
    let argument = Ext4Uuid { length: 16, flags: 0, uuid };
    // SAFETY: EXT4_IOC_SETFSUUID reads the two fields and, since the length says 16, as many bytes
    // behind them. All of it lives on this stack through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), code, &raw const argument) };
    ioctl_result(result)
}

fn ioctl_result(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_lies_about_its_length_never_reaches_the_kernel() {
        let null = File::open("/dev/null").unwrap();
        let mut buffer = [0; DM_HEADER_BYTES];
        buffer[12..16].copy_from_slice(&9999_u32.to_ne_bytes());

        let refused = device_mapper(&null, DmCommand::Create, &mut buffer).unwrap_err();

        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(device_mapper(&null, DmCommand::Create, &mut []).is_err());
    }

    #[test]
    fn the_structures_have_the_kernels_layout() {
        assert_eq!(size_of::<BlkpgPartition>(), 152);
        assert_eq!(size_of::<BlkpgArgument>(), 24);
        assert_eq!(size_of::<Ext4Uuid>(), 24);
    }
}
