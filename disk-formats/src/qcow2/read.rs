//! Reads a qcow2 of version 2 or 3.

use std::io;

use super::{COMPRESSED, COMPRESSION_TYPE_BIT, MAGIC, OFFSET_MASK};
use crate::disk::OpenDiskError;
use crate::disk::{MAX_DISK_BYTES, ReadAt, ReadDisk, SECTOR};
use crate::mapped::{MappedDisk, Method, Place, Table, UnitMap, damage_error, read_be32, read_be64};

/// "Dirty" says that counts of references may be wrong, which a reader does not need.
const DIRTY_BIT: u64 = 1;
/// QEMU's bound, too.
const MAX_LEVEL1_BYTES: u64 = 32 << 20;

#[derive(Debug)]
struct Qcow2Map {
    size: u64,
    cluster_bits: u32,
    zstd: bool,
    level1: Table,
    /// Pages of all L2 tables.
    level2: Table,
}

/// Opens a qcow2.
pub fn open_qcow2(file: impl ReadAt + 'static) -> Result<Box<dyn ReadDisk>, OpenDiskError> {
    let mut header = [0; 112];
    let length = file.byte_length().map_err(OpenDiskError::Read)?;
    let available = usize::try_from(length.min(112)).unwrap_or_default();
    file.read_exact_at(&mut header[..available], 0).map_err(OpenDiskError::Read)?;
    let damaged = |at, what| Err(OpenDiskError::Damaged { format: "qcow2", at, what });
    let unsupported = |what| Err(OpenDiskError::Unsupported { format: "qcow2", what });
    if header[..4] != MAGIC || available < 72 {
        return damaged(0, "it has no header");
    }
    let version = read_be32(&header, 4);
    if !matches!(version, 2 | 3) {
        return unsupported("another version than 2 and 3");
    }
    if read_be64(&header, 8) != 0 {
        return unsupported("a backing file: `qemu-img convert` makes one file of both");
    }
    if read_be32(&header, 32) != 0 {
        return unsupported("encryption");
    }
    let features = if version == 3 { read_be64(&header, 72) } else { 0 };
    if features & !(DIRTY_BIT | COMPRESSION_TYPE_BIT) != 0 {
        return unsupported("an external data file, a damage mark, or extended L2 entries");
    }
    let zstd = match (features & COMPRESSION_TYPE_BIT != 0, header[104]) {
        (false, _) | (true, 0) => false,
        (true, 1) => true,
        _ => return unsupported("a compression other than deflate and zstd"),
    };
    let cluster_bits = read_be32(&header, 20);
    if !(9..=21).contains(&cluster_bits) {
        return damaged(20, "clusters have 512 bytes to 2 MiB");
    }
    let (size, entries, level1_at) =
        (read_be64(&header, 24), u64::from(read_be32(&header, 36)), read_be64(&header, 40));
    if size > MAX_DISK_BYTES || !size.is_multiple_of(SECTOR) {
        return damaged(24, "the size is no disk's");
    }
    // An L2 table has 2^(bits - 3) entries.
    if entries < size.div_ceil(1 << (2 * cluster_bits - 3)) || entries * 8 > MAX_LEVEL1_BYTES {
        return damaged(36, "the L1 table is too short for the disk, or too long for any");
    }
    if !level1_at.is_multiple_of(8) {
        return damaged(40, "the L1 table is not aligned");
    }
    let map = Qcow2Map {
        size,
        cluster_bits,
        zstd,
        level1: Table::new(level1_at, entries),
        level2: Table::new(0, u64::MAX),
    };
    Ok(Box::new(MappedDisk::new(file, map)))
}

impl Qcow2Map {
    /// Bits of a cluster's number that its L2 table resolves.
    const fn l2_bits(&self) -> u32 {
        self.cluster_bits - 3
    }
}

impl UnitMap for Qcow2Map {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn unit_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn locate_unit(&self, file: &dyn ReadAt, number: u64) -> io::Result<Place> {
        let table = u64::from_be_bytes(self.level1.read_entry(file, number >> self.l2_bits())?) & OFFSET_MASK;
        if table == 0 {
            return Ok(Place::Zeros);
        }
        if !table.is_multiple_of(self.unit_bytes()) {
            return Err(damage_error(table, "an L2 table is not aligned"));
        }
        let at = table + (number & ((1 << self.l2_bits()) - 1)) * 8;
        let entry = u64::from_be_bytes(self.level2.bytes_at(file, at)?);
        if entry & COMPRESSED != 0 {
            let shift = 62 - (self.cluster_bits - 8);
            let offset = entry & ((1 << shift) - 1);
            let sectors = ((entry & (COMPRESSED - 1)) >> shift) + 1;
            let method = if self.zstd { Method::Zstd } else { Method::Deflate };
            return Ok(Place::Packed { offset, length: sectors * SECTOR - offset % SECTOR, method });
        }
        let offset = entry & OFFSET_MASK;
        // Bit 0: reads as zeros, whatever is there.
        if entry & 1 != 0 || offset == 0 {
            return Ok(Place::Zeros);
        }
        if !offset.is_multiple_of(self.unit_bytes()) {
            return Err(damage_error(at, "a cluster is not aligned"));
        }
        Ok(Place::Stored(offset))
    }

    fn skip_zeros(&self, file: &dyn ReadAt, mut number: u64) -> io::Result<u64> {
        let last = self.size >> self.cluster_bits;
        while number <= last && number << self.cluster_bits < self.size {
            let index = number >> self.l2_bits();
            if u64::from_be_bytes(self.level1.read_entry(file, index)?) & OFFSET_MASK != 0 {
                break;
            }
            number = (index + 1) << self.l2_bits();
        }
        Ok(number)
    }
}
