//! Reads VHDs.

use std::io;

use super::{COOKIE, DYNAMIC, DYNAMIC_COOKIE, FIXED, FOOTER_BYTES, MAX_VHD_BYTES, NO_BLOCK, footer_checksum};
use crate::disk::OpenDiskError;
use crate::disk::{ReadAt, ReadDisk, SECTOR};
use crate::mapped::{MappedDisk, Place, Table, UnitMap, read_be32, read_be64};
use crate::raw::RawDisk;

#[derive(Debug)]
struct VhdMap {
    size: u64,
    block: u64,
    table: Table,
}

/// Whether a file's last sector is the footer of a VHD.
pub(crate) fn has_footer(file: &dyn ReadAt) -> io::Result<bool> {
    let length = file.byte_length()?;
    let Some(at) = length.checked_sub(FOOTER_BYTES as u64) else { return Ok(false) };
    let mut cookie = [0; 8];
    file.read_exact_at(&mut cookie, at)?;
    Ok(cookie == COOKIE)
}

/// Opens a VHD.
pub fn open_vhd(file: impl ReadAt + 'static) -> Result<Box<dyn ReadDisk>, OpenDiskError> {
    let length = file.byte_length().map_err(OpenDiskError::Read)?;
    let damaged = |at, what| OpenDiskError::Damaged { format: "VHD", at, what };
    let at =
        length.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged(0, "it is shorter than a footer"))?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(&mut footer, at).map_err(OpenDiskError::Read)?;
    if footer[..8] != COOKIE {
        return Err(damaged(at, "it has no footer: the file is cut"));
    }
    if read_be32(&footer, 64) != footer_checksum(&footer, 64) {
        return Err(damaged(at + 64, "the footer's checksum does not hold"));
    }
    let size = disk_size(&footer);
    if size > MAX_VHD_BYTES || !size.is_multiple_of(SECTOR) {
        return Err(damaged(at + 48, "the size is no VHD's"));
    }
    match read_be32(&footer, 60) {
        FIXED if size <= at => Ok(Box::new(RawDisk::with_size(file, size)?)),
        FIXED => Err(damaged(at + 48, "the disk is larger than the file")),
        DYNAMIC => open_dynamic(file, size, read_be64(&footer, 16)),
        _ => Err(OpenDiskError::Unsupported {
            format: "VHD",
            what: "a parent: it is only what differs from another file",
        }),
    }
}

/// QEMU's rule (`block/vpc.c`): these two mean cylinders x heads x sectors, all others the exact size.
fn disk_size(footer: &[u8; FOOTER_BYTES]) -> u64 {
    let cylinders = u64::from(u16::from_be_bytes([footer[56], footer[57]]));
    let by_geometry = cylinders * u64::from(footer[58]) * u64::from(footer[59]) * SECTOR;
    let largest = 65535 * 16 * 255 * SECTOR;
    match &footer[28..32] {
        b"vpc " | b"vs  " | b"qemu" if by_geometry != largest => by_geometry,
        _ => read_be64(footer, 48),
    }
}

fn open_dynamic(
    file: impl ReadAt + 'static,
    size: u64,
    header_at: u64,
) -> Result<Box<dyn ReadDisk>, OpenDiskError> {
    let damaged = |at, what| OpenDiskError::Damaged { format: "VHD", at, what };
    let mut header = [0; 1024];
    file.read_exact_at(&mut header, header_at).map_err(|_| damaged(header_at, "the header is not there"))?;
    if header[..8] != DYNAMIC_COOKIE || read_be32(&header, 36) != footer_checksum(&header, 36) {
        return Err(damaged(header_at, "the header is damaged"));
    }
    let (table_at, entries, block) =
        (read_be64(&header, 16), read_be32(&header, 28), u64::from(read_be32(&header, 32)));
    if !block.is_power_of_two() || !(SECTOR..=256 << 20).contains(&block) {
        return Err(damaged(header_at + 32, "blocks have a power of two of bytes, from a sector to 256 MiB"));
    }
    if u64::from(entries) < size.div_ceil(block) {
        return Err(damaged(header_at + 28, "the table is too short for the disk"));
    }
    if !table_at.is_multiple_of(4) {
        return Err(damaged(header_at + 16, "the table is not aligned"));
    }
    let map = VhdMap { size, block, table: Table::new(table_at, u64::from(entries)) };
    Ok(Box::new(MappedDisk::new(file, map)))
}

impl UnitMap for VhdMap {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn unit_bytes(&self) -> u64 {
        self.block
    }

    fn locate_unit(&self, file: &dyn ReadAt, number: u64) -> io::Result<Place> {
        let sector = u32::from_be_bytes(self.table.read_entry(file, number)?);
        if sector == NO_BLOCK {
            return Ok(Place::Zeros);
        }
        // A bit for each sector of the block, padded to a sector. Without a parent it says nothing that a reader needs.
        let bitmap = (self.block / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
        Ok(Place::Stored(u64::from(sector) * SECTOR + bitmap))
    }
}
