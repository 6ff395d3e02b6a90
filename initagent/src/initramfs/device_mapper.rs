//! Opens the verified root: a dm-verity device over the slot, made by device-mapper calls.
//!
//! Knows the calls' buffers and verity's table. Refuses to know who signed the root hash.
//! Invariant: the device panics the kernel on the first block that does not match, so that no
//! program ever sees one.
//!
//! Documentation: <https://docs.kernel.org/admin-guide/device-mapper/verity.html> and linux/dm-ioctl.h.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use image_format::digest::to_hex;
use image_format::manifest::{Manifest, RootPlacement};
use image_format::signed::Verified;
use image_format::slot::Slot;
use image_format::verity::BLOCK_BYTES;

use crate::ioctl::{DM_HEADER_BYTES, DmCommand, device_mapper};

const CONTROL: &str = "/dev/mapper/control";
const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES as u64 / 512;
/// Room for the answers, which repeat the request.
// `struct dm_target_spec`.
const TARGET_BYTES: usize = 40;
const READ_ONLY: u32 = 1;

/// Why the device could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenVerityError {
    #[error("cannot open {CONTROL}; is the module dm_mod there?")]
    Control { source: io::Error },
    #[error("cannot make a device for the root")]
    Create { source: io::Error },
    #[error("the kernel refuses to check the root by its hash tree")]
    Load { source: io::Error },
    #[error("cannot start the device of the root")]
    Resume { source: io::Error },
}

impl OpenVerityError {
    /// Whether it is the slot that is wrong: the kernel looked at its numbers and refused them.
    pub(super) fn is_about_slot(&self) -> bool {
        matches!(self, Self::Load { source } if source.kind() == io::ErrorKind::InvalidInput)
    }
}

/// Opens the verified root of a slot, and says where its node is.
pub(super) fn open_root(
    device: &Path,
    slot: Slot,
    manifest: &Verified<Manifest>,
) -> Result<PathBuf, OpenVerityError> {
    let control = open_control().map_err(|source| OpenVerityError::Control { source })?;
    let name = device_name(slot);
    let table = verity_table(device, &manifest.root);
    let sectors = manifest.root.data_blocks() * SECTORS_PER_BLOCK;
    let call = |command, target| call(&control, command, &name, target);
    call(DmCommand::Create, None).map_err(|source| OpenVerityError::Create { source })?;
    let target = TableTarget { kind: "verity", sectors, table: &table };
    call(DmCommand::LoadTable, Some(target)).map_err(|source| OpenVerityError::Load { source })?;
    let answer = call(DmCommand::Resume, None).map_err(|source| OpenVerityError::Resume { source })?;
    Ok(PathBuf::from(format!("/dev/dm-{}", minor_number(&answer))))
}

/// Takes the device of a slot's root away, which a soft-reboot has left behind. The kernel refuses while anything uses
/// it; that there is none is as good.
pub(crate) fn close_root(slot: Slot) -> io::Result<()> {
    let closed = call(&open_control()?, DmCommand::Remove, &device_name(slot), None);
    match closed {
        Err(error) if error.raw_os_error() != Some(nix::libc::ENXIO) => Err(error),
        _ => Ok(()),
    }
}

fn open_control() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CONTROL)
}

fn device_name(slot: Slot) -> String {
    format!("catamaran-root-{}", slot.to_string().to_lowercase())
}

fn call(
    control: &File,
    command: DmCommand,
    name: &str,
    target: Option<TableTarget<'_>>,
) -> io::Result<Vec<u8>> {
    let mut buffer = encode_request(name, target);
    device_mapper(control, command, &mut buffer)?;
    Ok(buffer)
}

/// One line of a device's table.
#[derive(Debug, Clone, Copy)]
struct TableTarget<'a> {
    kind: &'a str,
    sectors: u64,
    table: &'a str,
}

/// What dm-verity is told: version 1, data and tree on the same partition, and to panic.
fn verity_table(device: &Path, root: &RootPlacement) -> String {
    let (device, block) = (device.display(), BLOCK_BYTES);
    let (blocks, tree) = (root.data_blocks(), root.tree_block());
    let salt = match root.salt.as_bytes() {
        // The table's word for no salt.
        [] => "-".to_owned(),
        bytes => to_hex(bytes),
    };
    let hash = root.root_hash;
    format!(
        // A panic and not an error, which programs may pass over: so the boot fails as a whole, and its tries
        // count. `ignore_zero_blocks` spares the hashing of what must be zeros.
        "1 {device} {device} {block} {block} {blocks} {tree} sha256 {hash} {salt} \
         2 panic_on_corruption ignore_zero_blocks"
    )
}

/// A request for the device of that name, as linux/dm-ioctl.h lays it out.
fn encode_request(name: &str, target: Option<TableTarget<'_>>) -> Vec<u8> {
    let mut buffer = vec![0; DM_HEADER_BYTES];
    if let Some(target) = target {
        append_target(&mut buffer, target);
    }
    let size = u32::try_from(buffer.len()).unwrap_or_default();
    let mut put = |at: usize, value: u32| buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    // The major version of the interface, which the kernel compares. It is 4 since Linux 2.6.
    put(0, 4);
    put(12, size);
    put(16, u32::try_from(DM_HEADER_BYTES).unwrap_or_default());
    if target.is_some() {
        put(20, 1);
        put(28, READ_ONLY);
    }
    buffer[48..48 + name.len()].copy_from_slice(name.as_bytes());
    buffer
}

fn append_target(buffer: &mut Vec<u8>, target: TableTarget<'_>) {
    // dm-ioctl.h: the next target begins at a multiple of eight, and the text ends with a zero.
    let length = (TARGET_BYTES + target.table.len() + 1).next_multiple_of(8);
    let next = u32::try_from(length).unwrap_or_default();
    let mut kind = [0; 16];
    kind[..target.kind.len()].copy_from_slice(target.kind.as_bytes());
    let end = buffer.len() + length;
    buffer.extend(0_u64.to_ne_bytes());
    buffer.extend(target.sectors.to_ne_bytes());
    buffer.extend(0_u32.to_ne_bytes());
    buffer.extend(next.to_ne_bytes());
    buffer.extend(kind);
    buffer.extend(target.table.as_bytes());
    buffer.resize(end, 0);
}

/// The minor number in an answer, in the kernel's spread-out encoding.
fn minor_number(answer: &[u8]) -> u64 {
    let device =
        answer.get(40..48).and_then(|bytes| bytes.first_chunk().copied()).map_or(0, u64::from_ne_bytes);
    // `huge_encode_dev` of linux/kdev_t.h.
    (device & 0xff) | ((device >> 12) & 0xfff_ff00)
}

#[cfg(test)]
mod tests {
    use image_format::digest::Sha256;
    use image_format::manifest::Salt;

    use super::*;

    #[test]
    fn the_table_says_what_the_manifest_says() {
        let root = RootPlacement {
            data_bytes: 1000 * 4096,
            tree_offset: 1024 * 4096,
            tree_bytes: 9 * 4096,
            root_hash: Sha256::digest_of(b""),
            salt: Salt::new(vec![0xab; 2]).unwrap(),
        };

        assert_eq!(
            verity_table(Path::new("/dev/vda4"), &root),
            "1 /dev/vda4 /dev/vda4 4096 4096 1000 1024 sha256 \
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 abab \
             2 panic_on_corruption ignore_zero_blocks"
        );
        let unsalted = RootPlacement { salt: Salt::new(vec![]).unwrap(), ..root };
        assert!(verity_table(Path::new("/dev/vda4"), &unsalted).contains(" - 2 panic"));
    }

    #[test]
    fn a_request_has_the_kernels_layout() {
        let target = TableTarget { kind: "verity", sectors: 8000, table: "1 a b" };

        let buffer = encode_request("root-a", Some(target));

        let u32_at = |at: usize| u32::from_ne_bytes(buffer[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_ne_bytes(buffer[at..at + 8].try_into().unwrap());
        assert_eq!(buffer.len(), 312 + 48);
        assert_eq!((u32_at(0), u32_at(12), u32_at(16), u32_at(20), u32_at(28)), (4, 360, 312, 1, 1));
        assert_eq!(&buffer[48..55], b"root-a\0");
        assert_eq!((u64_at(312), u64_at(320), u32_at(332)), (0, 8000, 48));
        assert_eq!(&buffer[336..343], b"verity\0");
        assert_eq!(&buffer[352..], b"1 a b\0\0\0");
    }

    #[test]
    fn a_minor_number_is_read_from_both_its_parts() {
        let mut answer = vec![0; 312];
        answer[40..48].copy_from_slice(&(0xfe_u64 << 8 | 3 | 1 << 20).to_ne_bytes());

        assert_eq!(minor_number(&answer), 0x103);
    }
}
