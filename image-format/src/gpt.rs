//! The partition table: read without trust, composed in memory, written so that power may fail.
//!
//! The `gpt` crate is the codec of headers and entries. It panics on foreign entry sizes, checks
//! neither the array nor where a header says it is, and writes both copies before either is whole;
//! so bytes are checked here before it sees them, and what is to be written comes back as
//! [`growth::GrowthStep`]s in an order that is safe. Knows both copies and how to move and mend them; refuses to
//! know devices.
//! Invariant: after any prefix of a plan, whatever part of the writes since the last
//! [`growth::GrowthStep::Sync`] has reached the disk, one copy is whole and names every partition.
//!
//! Documentation: UEFI's specification, section 5.3,
//! <https://uefi.org/specs/UEFI/2.10/05_GUID_Partition_Table_Format.html>.

use std::io::{self, Read, Seek, SeekFrom, Write};

use uuid::Uuid;

use crate::bytes::Bytes;
use crate::bytes::{ALIGNMENT, SECTOR};

mod growth;

pub use growth::{GrowthStep, PlanGrowthError, plan_growth};

/// Bytes of one copy: a header sector and an array of [`ENTRIES`] entries.
pub const COPY_BYTES: usize = SECTOR_BYTES + ARRAY_BYTES;
/// Where the primary copy begins: header first, then the array.
pub const PRIMARY_OFFSET: Bytes = SECTOR;
/// Entries that an array of ours has room for.
// UEFI 5.3.1 asks for 16 KiB at least, which are 128 entries of 128 bytes. All tools make so many.
pub const ENTRIES: u32 = 128;

const SECTOR_BYTES: usize = 512;
const ENTRY_BYTES: u32 = 128;
const ARRAY_BYTES: usize = (ENTRIES * ENTRY_BYTES) as usize;
const ARRAY_SECTORS: u64 = 32;
const COPY_SECTORS: u64 = 1 + ARRAY_SECTORS;
const FIRST_USABLE: u64 = 1 + COPY_SECTORS;
// UEFI 5.3.2: the fields end here, and the checksum covers so much. Later revisions may have more.
const HEADER_BYTES: usize = 92;
// UEFI 5.3.3: 72 bytes of UTF-16.
const LABEL_UNITS: usize = 36;
// UEFI 5.3.2 means the CRC of Ethernet and zip, RFC 1952.
const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// Where the backup copy of a disk of that size begins: array first, then the header in the last
/// sector. A disk without room for both copies has none.
#[must_use]
pub fn backup_offset(disk: Bytes) -> Option<Bytes> {
    let room = FIRST_USABLE + COPY_SECTORS;
    let sectors = disk.get() / SECTOR.get();
    // Both copies and one sector between them.
    (sectors > room).then(|| Bytes::new((sectors - COPY_SECTORS) * SECTOR.get()))
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionEntry {
    /// Its number, from 1.
    pub number: u32,
    /// What it is for.
    pub type_guid: Uuid,
    /// Its own name for machines.
    pub guid: Uuid,
    /// Its first sector.
    pub first_lba: u64,
    /// Its last sector, which belongs to it.
    pub last_lba: u64,
    /// Its attribute bits.
    pub attributes: u64,
    /// Its name for people.
    pub label: String,
}

impl PartitionEntry {
    /// Where it begins, in bytes.
    #[must_use]
    pub const fn byte_offset(&self) -> Bytes {
        Bytes::new(self.first_lba * SECTOR.get())
    }

    /// How long it is, in bytes.
    #[must_use]
    pub const fn byte_size(&self) -> Bytes {
        Bytes::new((self.last_lba - self.first_lba + 1) * SECTOR.get())
    }
}

/// What both copies say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// The disk's own name for machines.
    pub disk_guid: Uuid,
    /// The partitions, by number.
    pub entries: Vec<PartitionEntry>,
}

impl PartitionTable {
    /// The partition with that label, if there is exactly one.
    #[must_use]
    pub fn find_label(&self, label: &str) -> Option<&PartitionEntry> {
        // Labels are free text. Of two with one label nobody can say which is meant, so neither is.
        let mut found = self.entries.iter().filter(|entry| entry.label == label);
        found.next().filter(|_| found.next().is_none())
    }

    /// Whether a GUID is still the image's, like that of every other machine of the image.
    #[must_use]
    pub fn is_of_image(&self) -> bool {
        is_derived(self.disk_guid) || self.entries.iter().any(|entry| is_derived(entry.guid))
    }

    /// The same partitions under GUIDs of this disk's own, which follow from random bytes. Only
    /// GUIDs of an image are replaced: a random one is this disk's already, or a person's choice.
    fn with_own_guids(mut self, random: [u8; 16]) -> Self {
        let random = Uuid::from_bytes(random);
        let own = |label: &str| {
            // Marked as random, so that a second run sees that it is this disk's own.
            uuid::Builder::from_random_bytes(Uuid::new_v5(&random, label.as_bytes()).into_bytes()).into_uuid()
        };
        for entry in self.entries.iter_mut().filter(|entry| is_derived(entry.guid)) {
            entry.guid = own(&entry.label);
        }
        if is_derived(self.disk_guid) {
            self.disk_guid = own("disk");
        }
        self
    }

    fn check_entries(&self, usable: std::ops::RangeInclusive<u64>) -> Result<(), TableError> {
        // Entries may stand in any order, UEFI 5.3.3. Sorted, only neighbours can overlap.
        let mut by_place: Vec<&PartitionEntry> = self.entries.iter().collect();
        by_place.sort_by_key(|entry| entry.first_lba);
        for entry in &by_place {
            let number = entry.number;
            if entry.first_lba > entry.last_lba
                || !usable.contains(&entry.first_lba)
                || !usable.contains(&entry.last_lba)
            {
                let (first, last) = (entry.first_lba, entry.last_lba);
                return Err(TableError::Bounds { number, first, last, end: *usable.end() });
            }
            if entry.label.encode_utf16().count() > LABEL_UNITS {
                return Err(TableError::Label { number });
            }
            if number == 0 || number > ENTRIES {
                return Err(TableError::Number { number });
            }
        }
        let overlap = by_place.windows(2).find(|pair| pair[0].last_lba >= pair[1].first_lba);
        if let Some(pair) = overlap {
            return Err(TableError::Overlap { one: pair[0].number, two: pair[1].number });
        }
        let mut numbers: Vec<u32> = self.entries.iter().map(|entry| entry.number).collect();
        numbers.sort_unstable();
        match numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(TableError::Overlap { one: pair[0], two: pair[1] }),
            None => Ok(()),
        }
    }
}

/// Whether a UUID is one that image-builder derives from what goes into an image: of version 5, by
/// names (RFC 9562, section 5.5). What a machine or a tool makes is random, of version 4.
#[must_use]
pub fn is_derived(uuid: Uuid) -> bool {
    uuid.get_version_num() == 5
}

/// One copy as it was found, whole and consistent in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCopy {
    /// What it says about the partitions.
    pub table: PartitionTable,
    /// Where it says the other copy's header is.
    pub other_lba: u64,
    /// The last sector that it allows a partition to have.
    pub last_usable: u64,
}

/// Both copies of a fresh disk, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableCopies {
    /// [`COPY_BYTES`] for [`PRIMARY_OFFSET`].
    pub primary: Vec<u8>,
    /// [`COPY_BYTES`] for [`backup_offset`].
    pub backup: Vec<u8>,
}

/// Composes both copies of a table for a disk of that size. The protective MBR is not part of it.
pub fn encode_table(table: &PartitionTable, disk: Bytes) -> Result<TableCopies, EncodeError> {
    let sectors = disk.get() / SECTOR.get();
    backup_offset(disk).ok_or(EncodeError::Disk { disk })?;
    table.check_entries(FIRST_USABLE..=last_usable(sectors))?;
    Ok(TableCopies {
        primary: encode_copy(table, CopyPlace::Primary, sectors)?,
        backup: encode_copy(table, CopyPlace::Backup, sectors)?,
    })
}

/// Reads the primary copy: the [`COPY_BYTES`] at [`PRIMARY_OFFSET`].
pub fn read_primary(bytes: &[u8], disk: Bytes) -> Result<FoundCopy, ReadCopyError> {
    read_copy(bytes, CopyPlace::Primary, disk)
}

/// Reads the backup copy: the [`COPY_BYTES`] at [`backup_offset`].
pub fn read_backup(bytes: &[u8], disk: Bytes) -> Result<FoundCopy, ReadCopyError> {
    read_copy(bytes, CopyPlace::Backup, disk)
}

/// Reads the table of a disk from whichever copy is whole, the primary first.
pub fn read(primary: &[u8], backup: &[u8], disk: Bytes) -> Result<PartitionTable, ReadTableError> {
    let found = read_primary(primary, disk)
        .or_else(|primary| read_backup(backup, disk).map_err(|backup| ReadTableError { backup, primary }));
    found.map(|found| found.table)
}

/// The two places of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyPlace {
    Primary,
    Backup,
}

impl CopyPlace {
    const fn header_lba(self, disk_sectors: u64) -> u64 {
        match self {
            Self::Primary => 1,
            Self::Backup => disk_sectors - 1,
        }
    }

    const fn array_lba(self, disk_sectors: u64) -> u64 {
        match self {
            Self::Primary => 2,
            Self::Backup => disk_sectors - 1 - ARRAY_SECTORS,
        }
    }

    const fn other_copy(self) -> Self {
        match self {
            Self::Primary => Self::Backup,
            Self::Backup => Self::Primary,
        }
    }

    /// The header and the array inside the bytes of a copy.
    fn split_copy(self, copy: &[u8]) -> (&[u8], &[u8]) {
        match self {
            Self::Primary => copy.split_at(SECTOR_BYTES),
            Self::Backup => {
                let (array, header) = copy.split_at(ARRAY_BYTES);
                (header, array)
            }
        }
    }
}

const fn last_usable(disk_sectors: u64) -> u64 {
    disk_sectors - 1 - COPY_SECTORS
}

fn encode_copy(table: &PartitionTable, place: CopyPlace, disk_sectors: u64) -> Result<Vec<u8>, EncodeError> {
    let (header_lba, array_lba) = (place.header_lba(disk_sectors), place.array_lba(disk_sectors));
    let mut window = DiskWindow::over_sectors(header_lba.min(array_lba), vec![0; COPY_BYTES]);
    let size = gpt::disk::LogicalBlockSize::Lb512;
    for entry in &table.entries {
        let partition = gpt::partition::Partition {
            part_type_guid: entry.type_guid.into(),
            part_guid: entry.guid,
            first_lba: entry.first_lba,
            last_lba: entry.last_lba,
            flags: entry.attributes,
            name: entry.label.clone(),
        };
        let index = u64::from(entry.number - 1);
        let written = partition.write_to_device(&mut window, index, array_lba, size, ENTRY_BYTES);
        written.map_err(|source| EncodeError::Entry { number: entry.number, source })?;
    }
    let mut header = gpt::header::Header {
        signature: "EFI PART".to_owned(),
        // The only revision of the header that there has been.
        revision: (1, 0),
        header_size_le: 92,
        crc32: 0,
        reserved: 0,
        current_lba: header_lba,
        backup_lba: place.other_copy().header_lba(disk_sectors),
        first_usable: FIRST_USABLE,
        last_usable: last_usable(disk_sectors),
        disk_guid: table.disk_guid,
        part_start: array_lba,
        num_parts: ENTRIES,
        part_size: ENTRY_BYTES,
        crc32_parts: 0,
    };
    let written = match place {
        CopyPlace::Primary => header.write_primary(&mut window, size),
        CopyPlace::Backup => header.write_backup(&mut window, size),
    };
    written.map_err(|source| EncodeError::Header { source })?;
    Ok(window.bytes)
}

fn read_copy(bytes: &[u8], place: CopyPlace, disk: Bytes) -> Result<FoundCopy, ReadCopyError> {
    if bytes.len() != COPY_BYTES {
        return Err(ReadCopyError::Size { given: bytes.len() });
    }
    backup_offset(disk).ok_or(ReadCopyError::Disk { disk })?;
    let disk_sectors = disk.get() / SECTOR.get();
    let (header, array) = place.split_copy(bytes);
    let header = RawHeader::read(header)?;
    header.check_header(place, disk_sectors, array)?;
    let parsed = parse_checked(header, bytes, place, disk_sectors)?;
    parsed.table.check_entries(header.first_usable..=header.last_usable)?;
    Ok(parsed)
}

/// The fields that must be right before the codec may look at the rest.
#[derive(Debug, Clone, Copy)]
struct RawHeader {
    lba: u64,
    other_lba: u64,
    first_usable: u64,
    last_usable: u64,
    array_lba: u64,
    entries: u32,
    entry_bytes: u32,
    array_crc: u32,
}

impl RawHeader {
    fn read(sector: &[u8]) -> Result<Self, ReadCopyError> {
        let u32_at = |at: usize| fixed_bytes(sector, at).map(u32::from_le_bytes);
        let u64_at = |at: usize| fixed_bytes(sector, at).map(u64::from_le_bytes);
        if !sector.starts_with(b"EFI PART") {
            return Err(ReadCopyError::Signature);
        }
        let size = u32_at(12)?;
        if size as usize != HEADER_BYTES {
            return Err(ReadCopyError::HeaderSize { given: size });
        }
        let mut summed: [u8; HEADER_BYTES] = fixed_bytes(sector, 0)?;
        // UEFI 5.3.2: the checksum is computed with its own field as zero.
        summed[16..20].fill(0);
        if CRC32.checksum(&summed) != u32_at(16)? {
            return Err(ReadCopyError::HeaderChecksum);
        }
        Ok(Self {
            lba: u64_at(24)?,
            other_lba: u64_at(32)?,
            first_usable: u64_at(40)?,
            last_usable: u64_at(48)?,
            array_lba: u64_at(72)?,
            entries: u32_at(80)?,
            entry_bytes: u32_at(84)?,
            array_crc: u32_at(88)?,
        })
    }

    fn check_header(&self, place: CopyPlace, disk_sectors: u64, array: &[u8]) -> Result<(), ReadCopyError> {
        let expected = place.header_lba(disk_sectors);
        // UEFI 5.3.2 asks for this check. A copy of the table at another place is that of another disk, or of
        // a disk image.
        if self.lba != expected {
            return Err(ReadCopyError::Place { given: self.lba, expected });
        }
        if self.entry_bytes != ENTRY_BYTES || self.entries == 0 || self.entries > ENTRIES {
            return Err(ReadCopyError::Array { entries: self.entries, bytes: self.entry_bytes });
        }
        // The header is only trusted with what the bytes at hand can prove, and they are those of this place.
        if self.array_lba != place.array_lba(disk_sectors) {
            let expected = place.array_lba(disk_sectors);
            return Err(ReadCopyError::Place { given: self.array_lba, expected });
        }
        if self.first_usable < FIRST_USABLE || self.last_usable > last_usable(disk_sectors) {
            return Err(ReadCopyError::Usable { first: self.first_usable, last: self.last_usable });
        }
        let used = self.entries as usize * ENTRY_BYTES as usize;
        if array.get(..used).map(|used| CRC32.checksum(used)) != Some(self.array_crc) {
            return Err(ReadCopyError::ArrayChecksum);
        }
        Ok(())
    }
}

/// Lets the codec read what was checked. It only looks for a header in sector 1, so the backup's
/// is shown to it there.
fn parse_checked(
    raw: RawHeader,
    bytes: &[u8],
    place: CopyPlace,
    disk_sectors: u64,
) -> Result<FoundCopy, ReadCopyError> {
    let size = gpt::disk::LogicalBlockSize::Lb512;
    let (header, _) = place.split_copy(bytes);
    let mut shown = DiskWindow::over_sectors(1, header.to_vec());
    let header = gpt::header::read_header_from_arbitrary_device(&mut shown, size)
        .map_err(|source| ReadCopyError::Header { source })?;
    let first = place.header_lba(disk_sectors).min(place.array_lba(disk_sectors));
    let mut window = DiskWindow::over_sectors(first, bytes.to_vec());
    let partitions = gpt::partition::file_read_partitions(&mut window, &header, size)
        .map_err(|source| ReadCopyError::Entries { source })?;
    let used = partitions.into_iter().filter(|(_, partition)| partition.is_used());
    let entries = used.map(|(number, partition)| PartitionEntry {
        number,
        type_guid: partition.part_type_guid.guid,
        guid: partition.part_guid,
        first_lba: partition.first_lba,
        last_lba: partition.last_lba,
        attributes: partition.flags,
        label: partition.name,
    });
    let table = PartitionTable { disk_guid: header.disk_guid, entries: entries.collect() };
    Ok(FoundCopy { table, other_lba: raw.other_lba, last_usable: raw.last_usable })
}

fn fixed_bytes<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ReadCopyError> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().ok_or(ReadCopyError::Size { given: bytes.len() })
}

/// A stretch of a disk, held in memory under the addresses it has there.
#[derive(Debug)]
struct DiskWindow {
    start: u64,
    bytes: Vec<u8>,
    position: u64,
}

impl DiskWindow {
    fn over_sectors(first_lba: u64, bytes: Vec<u8>) -> Self {
        Self { start: first_lba * SECTOR.get(), bytes, position: 0 }
    }

    /// What lies behind the position, at most `length` bytes of it.
    fn at_position(&mut self, length: usize) -> io::Result<&mut [u8]> {
        let offset = self.position.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let offset = offset.filter(|at| *at <= self.bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = length.min(self.bytes.len() - offset);
        self.position += length as u64;
        Ok(&mut self.bytes[offset..offset + length])
    }
}

impl Read for DiskWindow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let here = self.at_position(buffer.len())?;
        buffer[..here.len()].copy_from_slice(here);
        Ok(here.len())
    }
}

impl Write for DiskWindow {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let here = self.at_position(buffer.len())?;
        here.copy_from_slice(&buffer[..here.len()]);
        Ok(here.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for DiskWindow {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = self.start + self.bytes.len() as u64;
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => end.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// What is wrong with a set of partitions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum TableError {
    #[error("partition {number} lies at sectors {first} to {last}, but usable ones end at {end}")]
    Bounds { number: u32, first: u64, last: u64, end: u64 },
    #[error("the label of partition {number} is longer than {LABEL_UNITS} UTF-16 units")]
    Label { number: u32 },
    #[error("{number} is no partition number, which go from 1 to {ENTRIES}")]
    Number { number: u32 },
    #[error("partitions {one} and {two} overlap")]
    Overlap { one: u32, two: u32 },
}

/// Why a table could not be composed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum EncodeError {
    #[error("a disk of {disk} has no room for a partition table")]
    Disk { disk: Bytes },
    #[error("cannot compose the entry of partition {number}")]
    Entry { number: u32, source: io::Error },
    #[error("cannot compose the header of the partition table")]
    Header { source: gpt::header::HeaderError },
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Why bytes are not a copy of a partition table.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ReadCopyError {
    #[error(
        "the array has {entries} entries of {bytes} bytes, only up to {ENTRIES} of {ENTRY_BYTES} are read"
    )]
    Array { entries: u32, bytes: u32 },
    #[error("the checksum of the array does not match")]
    ArrayChecksum,
    #[error("a disk of {disk} has no room for a partition table")]
    Disk { disk: Bytes },
    #[error("the entries cannot be read")]
    Entries { source: io::Error },
    #[error("the header cannot be read")]
    Header { source: gpt::header::HeaderError },
    #[error("the checksum of the header does not match")]
    HeaderChecksum,
    #[error("the header says it has {given} bytes, not {HEADER_BYTES}")]
    HeaderSize { given: u32 },
    #[error("it says it lies at sector {given}, but it is the one for sector {expected}")]
    Place { given: u64, expected: u64 },
    #[error("there is no partition table")]
    Signature,
    #[error("a copy of the table has {COPY_BYTES} bytes, not {given}")]
    Size { given: usize },
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the usable sectors go from {first} to {last}, which is not inside the disk")]
    Usable { first: u64, last: u64 },
}

/// Neither copy of the partition table is whole.
#[derive(Debug, thiserror::Error)]
#[error("no copy of the partition table is whole (backup: {backup})")]
pub struct ReadTableError {
    /// What is wrong with the backup copy.
    backup: ReadCopyError,
    /// What is wrong with the primary copy.
    #[source]
    primary: ReadCopyError,
}

#[cfg(test)]
mod tests;
