//! Reads a VMDK that is one sparse file.

use std::io;

use super::{AT_END, FLAG_COMPRESSED, FLAG_MARKERS, MAGIC, SECTOR};
use crate::disk::OpenDiskError;
use crate::disk::{MAX_DISK_BYTES, ReadAt, ReadDisk};
use crate::mapped::{
    MappedDisk, Method, Place, Table, UnitMap, damage_error, read_le16, read_le32, read_le64,
};

#[derive(Debug)]
struct VmdkMap {
    size: u64,
    grain: u64,
    table_entries: u64,
    compressed: bool,
    directory: Table,
    /// Pages of all grain tables.
    tables: Table,
}

/// Opens a VMDK.
pub fn open_vmdk(file: impl ReadAt + 'static) -> Result<Box<dyn ReadDisk>, OpenDiskError> {
    let damaged = |at, what| OpenDiskError::Damaged { format: "VMDK", at, what };
    let unsupported = |what| OpenDiskError::Unsupported { format: "VMDK", what };
    let length = file.byte_length().map_err(OpenDiskError::Read)?;
    let mut header = read_header(&file, 0, length)?;
    if read_le64(&header, 56) == AT_END {
        // The footer is the last sector but one, behind its marker and before the marker of the end.
        let at = length.checked_sub(1024).ok_or_else(|| damaged(0, "it has no footer: the file is cut"))?;
        header =
            read_header(&file, at, length).map_err(|_| damaged(at, "it has no footer: the file is cut"))?;
    }
    let (version, flags) = (read_le32(&header, 4), read_le32(&header, 8));
    if !(1..=3).contains(&version) {
        return Err(unsupported("another version than 1 to 3"));
    }
    let compressed = flags & FLAG_COMPRESSED != 0;
    if compressed && (flags & FLAG_MARKERS == 0 || read_le16(&header, 77) != 1) {
        return Err(unsupported("a compression other than deflate with markers"));
    }
    let (capacity, grain_sectors) = (read_le64(&header, 12), read_le64(&header, 20));
    let (table_entries, directory_at) = (u64::from(read_le32(&header, 44)), read_le64(&header, 56));
    if capacity > MAX_DISK_BYTES / SECTOR {
        return Err(damaged(12, "the size is no disk's"));
    }
    if !grain_sectors.is_power_of_two() || !(8..=4096).contains(&grain_sectors) {
        return Err(damaged(20, "grains have a power of two of bytes, from 4 KiB to 2 MiB"));
    }
    if !table_entries.is_power_of_two() || table_entries > 1 << 20 {
        return Err(damaged(44, "a grain table has a power of two of entries"));
    }
    let size = capacity * SECTOR;
    let (grain, tables) = (grain_sectors * SECTOR, capacity.div_ceil(grain_sectors * table_entries));
    let directory_at = directory_at.checked_mul(SECTOR).filter(|at| *at < length);
    let directory_at =
        directory_at.ok_or_else(|| damaged(56, "the directory lies behind the end of the file"))?;
    let directory = Table::new(directory_at, tables);
    let map = VmdkMap { size, grain, table_entries, compressed, directory, tables: Table::new(0, u64::MAX) };
    Ok(Box::new(MappedDisk::new(file, map)))
}

fn read_header(file: &dyn ReadAt, at: u64, length: u64) -> Result<[u8; 512], OpenDiskError> {
    let mut header = [0; 512];
    if length < at + SECTOR {
        return Err(OpenDiskError::Damaged { format: "VMDK", at, what: "it has no header" });
    }
    file.read_exact_at(&mut header, at).map_err(OpenDiskError::Read)?;
    if header[..4] != MAGIC {
        return Err(OpenDiskError::Damaged { format: "VMDK", at, what: "it has no header" });
    }
    if header[73..77] != *b"\n \r\n" {
        return Err(OpenDiskError::Damaged { format: "VMDK", at: at + 73, what: "it was copied as a text" });
    }
    Ok(header)
}

impl UnitMap for VmdkMap {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn unit_bytes(&self) -> u64 {
        self.grain
    }

    fn locate_unit(&self, file: &dyn ReadAt, number: u64) -> io::Result<Place> {
        let table = u32::from_le_bytes(self.directory.read_entry(file, number / self.table_entries)?);
        if table == 0 {
            return Ok(Place::Zeros);
        }
        let at = u64::from(table) * SECTOR + number % self.table_entries * 4;
        let sector = u32::from_le_bytes(self.tables.bytes_at(file, at)?);
        // One is a grain that reads as zeros.
        if sector <= 1 {
            return Ok(Place::Zeros);
        }
        let offset = u64::from(sector) * SECTOR;
        if !self.compressed {
            return Ok(Place::Stored(offset));
        }
        let mut marker = [0; 12];
        file.read_exact_at(&mut marker, offset)?;
        if read_le64(&marker, 0) != number * (self.grain / SECTOR) {
            return Err(damage_error(offset, "a grain is of another place than its table says"));
        }
        Ok(Place::Packed {
            offset: offset + 12,
            length: u64::from(read_le32(&marker, 8)),
            method: Method::Zlib,
        })
    }

    fn skip_zeros(&self, file: &dyn ReadAt, mut number: u64) -> io::Result<u64> {
        while number.saturating_mul(self.grain) < self.size {
            let index = number / self.table_entries;
            if u32::from_le_bytes(self.directory.read_entry(file, index)?) != 0 {
                break;
            }
            number = (index + 1) * self.table_entries;
        }
        Ok(number)
    }
}
