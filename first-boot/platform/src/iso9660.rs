//! Finds files in an ISO 9660 image by the names a person gave them.
//!
//! Knows the primary tree with Rock Ridge names and the Joliet tree. Refuses interleaved and
//! multi-extent files, which no configuration disk has. Invariant: no length or offset from the
//! disk is used before it is compared with a limit.
//!
//! Documentation: ECMA-119, the Joliet Specification of 1995, and IEEE P1281 and P1282 (SUSP and Rock Ridge).

use std::io::{self, Read, Seek, SeekFrom};

const SECTOR: u64 = 2048;
const SECTOR_LENGTH: usize = 2048;
// ECMA-119, section 6.2.1: the sixteen sectors before it belong to the system.
const FIRST_DESCRIPTOR: u64 = 16;
// Real discs have three or four. The standard has no limit, so a crafted one could go on to its end.
const MAX_DESCRIPTORS: u64 = 32;
// About ten thousand names. The folders that are looked into have five.
const MAX_DIRECTORY: u32 = 1 << 20;
// ECMA-119 allows eight levels.
const MAX_DEPTH: usize = 8;

const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;
const DIRECTORY_FLAG: u8 = 0x02;
const MULTI_EXTENT_FLAG: u8 = 0x80;

/// An ISO 9660 file system; `R` is what it lies on.
pub(crate) struct Iso9660<R> {
    label: String,
    root: FileExtent,
    names: NameEncoding,
    source: R,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileExtent {
    sector: u32,
    length: u32,
    flags: u8,
}

/// How the names in a tree are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameEncoding {
    /// Latin letters with `;1` behind them, and Rock Ridge names beside them.
    Primary,
    /// UCS-2, big end first.
    Joliet,
}

impl<R: Read + Seek> Iso9660<R> {
    /// Reads the volume descriptors; `None` when there is no primary one.
    pub(crate) fn open_iso(source: &mut R) -> Option<Iso9660<()>> {
        let mut found = None;
        for index in 0..MAX_DESCRIPTORS {
            let descriptor = read_at(source, (FIRST_DESCRIPTOR + index) * SECTOR, SECTOR_LENGTH).ok()?;
            match descriptor[0] {
                PRIMARY if found.is_none() => found = Some(read_volume(&descriptor, NameEncoding::Primary)),
                // Joliet goes first: genisoimage cuts `network-config` to `NETWORK_.;1` in the primary tree,
                // and Rock Ridge is optional.
                SUPPLEMENTARY if is_joliet(&descriptor) => {
                    let joliet = read_volume(&descriptor, NameEncoding::Joliet);
                    found = found.map(|primary| Iso9660 { label: primary.label, ..joliet });
                }
                TERMINATOR => break,
                _ => {}
            }
        }
        found
    }

    /// The file at `path`; `None` when there is none.
    pub(crate) fn read(&mut self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let mut here = self.root;
        for name in path.split('/').filter(|name| !name.is_empty()).take(MAX_DEPTH) {
            match self.find_entry(here, name)? {
                Some(extent) => here = extent,
                None => return Ok(None),
            }
        }
        if here.flags & DIRECTORY_FLAG != 0 {
            return Ok(None);
        }
        if here.flags & MULTI_EXTENT_FLAG != 0 || u64::from(here.length) > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is larger than {limit} bytes"),
            ));
        }
        self.read_extent(here).map(Some)
    }

    fn find_entry(&mut self, directory: FileExtent, name: &str) -> io::Result<Option<FileExtent>> {
        if directory.flags & DIRECTORY_FLAG == 0 {
            return Ok(None);
        }
        let bytes =
            self.read_extent(FileExtent { length: directory.length.min(MAX_DIRECTORY), ..directory })?;
        let mut entries = bytes.chunks(SECTOR_LENGTH).flat_map(DirectoryRecords);
        Ok(entries
            .find(|record| self.names.decode_name(record).eq_ignore_ascii_case(name))
            .and_then(record_extent))
    }

    /// Grows with what the disk really gives, so that a false length cannot reserve memory.
    fn read_extent(&mut self, extent: FileExtent) -> io::Result<Vec<u8>> {
        self.source.seek(SeekFrom::Start(u64::from(extent.sector) * SECTOR))?;
        let mut bytes = Vec::new();
        self.source.by_ref().take(u64::from(extent.length)).read_to_end(&mut bytes)?;
        if bytes.len() < extent.length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

impl Iso9660<()> {
    pub(crate) fn volume_label(&self) -> String {
        self.label.clone()
    }

    /// The same volume, read from `source`.
    pub(crate) fn with_source<R>(self, source: R) -> Iso9660<R> {
        Iso9660 { label: self.label, root: self.root, names: self.names, source }
    }
}

impl NameEncoding {
    fn decode_name(self, record: &[u8]) -> String {
        let length = usize::from(record[32]);
        let Some(raw) = record.get(33..33 + length) else { return String::new() };
        match self {
            Self::Joliet => {
                let units: Vec<u16> =
                    raw.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                without_version(&String::from_utf16_lossy(&units))
            }
            Self::Primary => {
                let system_use = record.get(33 + length + (1 - length % 2)..).unwrap_or_default();
                rock_ridge_name(system_use).unwrap_or_else(|| without_version(&String::from_utf8_lossy(raw)))
            }
        }
    }
}

/// The directory records of one sector; they never cross into the next.
struct DirectoryRecords<'a>(&'a [u8]);

impl<'a> Iterator for DirectoryRecords<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.0.first()?);
        // ECMA-119, section 9.1: 33 bytes and a name of one at least. Zeros fill the end of a sector.
        if length < 34 || length > self.0.len() {
            return None;
        }
        let (record, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(record)
    }
}

fn read_volume(descriptor: &[u8], names: NameEncoding) -> Iso9660<()> {
    let label = String::from_utf8_lossy(&descriptor[40..72]).trim_end_matches([' ', '\0']).to_owned();
    let root = record_extent(&descriptor[156..190]).unwrap_or(FileExtent { sector: 0, length: 0, flags: 0 });
    Iso9660 { label, root: FileExtent { flags: DIRECTORY_FLAG, ..root }, names, source: () }
}

fn is_joliet(descriptor: &[u8]) -> bool {
    // Joliet's escape sequences for the three levels of UCS-2.
    [b"%/@", b"%/C", b"%/E"].iter().any(|escape| descriptor[88..91] == escape[..])
}

/// Where the bytes that a directory record names are.
fn record_extent(record: &[u8]) -> Option<FileExtent> {
    let number = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
    Some(FileExtent { sector: number(2)?, length: number(10)?, flags: *record.get(25)? })
}

// ECMA-119, section 7.5.1, puts `;1` behind each name, and a dot where there is no extension.
fn without_version(name: &str) -> String {
    let name = name.split_once(';').map_or(name, |(name, _)| name);
    name.trim_end_matches('.').to_owned()
}

/// The `NM` entries of a record's system use area, put together.
fn rock_ridge_name(mut area: &[u8]) -> Option<String> {
    let mut name = Vec::new();
    while area.len() >= 4 {
        let length = usize::from(area[2]);
        if length < 4 || length > area.len() {
            break;
        }
        if area.starts_with(b"NM") && length > 5 {
            name.extend_from_slice(&area[5..length]);
        }
        area = &area[length..];
    }
    (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned())
}

/// Exactly `length` bytes at `offset`.
pub(crate) fn read_at(source: &mut (impl Read + Seek), offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    source.seek(SeekFrom::Start(offset))?;
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}
