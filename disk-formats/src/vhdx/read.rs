//! Reads a VHDX.

use std::io;

use super::{
    CRC32C, FULLY_PRESENT, HEADER_BYTES, HEADERS_AT, MIB, REGION_TABLE_BYTES, REGIONS_AT, SIGNATURE,
    chunk_ratio, guid,
};
use crate::disk::OpenDiskError;
use crate::disk::{MAX_DISK_BYTES, ReadAt, ReadDisk, SECTOR};
use crate::mapped::{MappedDisk, Place, Table, UnitMap, damage_error, read_le16, read_le32, read_le64};

#[derive(Debug)]
struct VhdxMap {
    size: u64,
    block: u64,
    ratio: u64,
    bat: Table,
}

fn damaged_error(at: u64, what: &'static str) -> OpenDiskError {
    OpenDiskError::Damaged { format: "VHDX", at, what }
}

fn unsupported_error(what: &'static str) -> OpenDiskError {
    OpenDiskError::Unsupported { format: "VHDX", what }
}

/// Opens a VHDX.
pub fn open_vhdx(file: impl ReadAt + 'static) -> Result<Box<dyn ReadDisk>, OpenDiskError> {
    let signature = read(&file, 0, 8)?;
    if signature != SIGNATURE {
        return Err(damaged_error(0, "it has no signature"));
    }
    let header = newest_header(&file)?;
    // A log that is not empty holds writes that are not in their places yet.
    if header[48..64] != [0; 16] {
        return Err(unsupported_error("a log to replay: it was not closed. Open it once where it was made"));
    }
    let regions = region_table(&file)?;
    let region = |id: &[u8; 16]| {
        let entries = usize::try_from(read_le32(&regions, 8)).unwrap_or_default().min(2047);
        let found = (0..entries)
            .map(|entry| &regions[16 + entry * 32..48 + entry * 32])
            .find(|entry| entry[..16] == *id);
        found.map(|entry| (read_le64(entry, 16), read_le32(entry, 24)))
    };
    let (bat_at, bat_bytes) =
        region(&guid::BAT).ok_or_else(|| damaged_error(REGIONS_AT[0], "it has no table of blocks"))?;
    let (at, length) =
        region(&guid::METADATA).ok_or_else(|| damaged_error(REGIONS_AT[0], "it has no metadata"))?;
    let metadata = Metadata { file: &file, at, length: u64::from(length), table: read(&file, at, 64 << 10)? };
    if metadata.table[..8] != *b"metadata" {
        return Err(damaged_error(at, "the metadata have no signature"));
    }
    let parameters = metadata.find_item::<8>(&guid::FILE_PARAMETERS)?;
    let size = u64::from_le_bytes(metadata.find_item(&guid::DISK_SIZE)?);
    let sector = u64::from(u32::from_le_bytes(metadata.find_item(&guid::LOGICAL_SECTOR)?));
    let block = u64::from(read_le32(&parameters, 0));
    if parameters[4] & 2 != 0 {
        return Err(unsupported_error("a parent: it is only what differs from another file"));
    }
    if !block.is_power_of_two() || !(MIB..=256 * MIB).contains(&block) || !matches!(sector, 512 | 4096) {
        return Err(damaged_error(at, "the sizes of blocks or sectors are none that the format has"));
    }
    if size > MAX_DISK_BYTES || !size.is_multiple_of(SECTOR) {
        return Err(damaged_error(at, "the size is no disk's"));
    }
    if !bat_at.is_multiple_of(MIB) {
        return Err(damaged_error(REGIONS_AT[0], "the table of blocks is not aligned"));
    }
    let ratio = chunk_ratio(block, sector);
    let bat = Table::new(bat_at, u64::from(bat_bytes) / 8);
    Ok(Box::new(MappedDisk::new(file, VhdxMap { size, block, ratio, bat })))
}

fn read(file: &dyn ReadAt, at: u64, length: usize) -> Result<Vec<u8>, OpenDiskError> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged_error(at, "the file ends before this"),
        _ => OpenDiskError::Read(error),
    })?;
    Ok(bytes)
}

/// The header with the higher sequence number, of those whose checksum holds.
fn newest_header(file: &dyn ReadAt) -> Result<Vec<u8>, OpenDiskError> {
    let mut newest: Option<Vec<u8>> = None;
    for at in HEADERS_AT {
        let header = read(file, at, HEADER_BYTES)?;
        let newer = newest.as_ref().is_none_or(|known| read_le64(known, 8) < read_le64(&header, 8));
        if header[..4] == *b"head" && checksum_matches(&header) && newer {
            newest = Some(header);
        }
    }
    let newest = newest.ok_or_else(|| damaged_error(HEADERS_AT[0], "neither header is whole"))?;
    if read_le16(&newest, 66) != 1 {
        return Err(unsupported_error("another version than 1"));
    }
    Ok(newest)
}

fn region_table(file: &dyn ReadAt) -> Result<Vec<u8>, OpenDiskError> {
    for at in REGIONS_AT {
        let table = read(file, at, REGION_TABLE_BYTES)?;
        if table[..4] == *b"regi" && checksum_matches(&table) {
            return Ok(table);
        }
    }
    Err(damaged_error(REGIONS_AT[0], "neither table of regions is whole"))
}

/// Whether the checksum at 4 is that of the bytes.
fn checksum_matches(bytes: &[u8]) -> bool {
    let mut digest = CRC32C.digest();
    digest.update(&bytes[..4]);
    digest.update(&[0; 4]);
    digest.update(&bytes[8..]);
    digest.finalize() == read_le32(bytes, 4)
}

struct Metadata<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    length: u64,
    table: Vec<u8>,
}

impl Metadata<'_> {
    fn find_item<const N: usize>(&self, id: &[u8; 16]) -> Result<[u8; N], OpenDiskError> {
        // 2047 entries fill the table.
        let entries = usize::from(read_le16(&self.table, 10)).min(2047);
        let found = (0..entries)
            .map(|entry| &self.table[32 + entry * 32..64 + entry * 32])
            .find(|entry| entry[..16] == *id);
        let entry = found.ok_or_else(|| damaged_error(self.at, "an item of the metadata is missing"))?;
        let offset = u64::from(read_le32(entry, 16));
        if offset + N as u64 > self.length {
            return Err(damaged_error(self.at, "an item of the metadata lies behind their end"));
        }
        let mut value = [0; N];
        value.copy_from_slice(&read(self.file, self.at.saturating_add(offset), N)?);
        Ok(value)
    }
}

impl UnitMap for VhdxMap {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn unit_bytes(&self) -> u64 {
        self.block
    }

    fn locate_unit(&self, file: &dyn ReadAt, number: u64) -> io::Result<Place> {
        let entry = u64::from_le_bytes(self.bat.read_entry(file, number + number / self.ratio)?);
        match entry & 7 {
            // Not present, undefined, zero, unmapped: no reader may expect more than zeros.
            0..=3 => Ok(Place::Zeros),
            FULLY_PRESENT => Ok(Place::Stored(entry & !(MIB - 1))),
            _ => Err(damage_error(
                entry & !(MIB - 1),
                "a block is in a state that a disk without a parent has not",
            )),
        }
    }
}
