//! Folders of a FAT volume: finds a name, and the sector that makes it mean another file.
//!
//! Knows short names, and long ones as far as they name the short one behind them. Refuses to make long names: all files
//! of an ESP have short ones.

use super::{FatStep, FatVolume, ReplaceFileError, SECTOR};

/// Bytes of an entry.
pub(super) const ENTRY: usize = 32;
const ATTRIBUTES: usize = 11;
const DIRECTORY: u8 = 0x10;
const VOLUME: u8 = 0x08;
/// Made of bits that exclude each other, by which old systems pass over it.
const LONG_NAME: u8 = 0x0f;
/// What stands at the beginning of an entry that is free, and of the first one that never was used.
const DELETED: u8 = 0xe5;
const NEVER_USED: u8 = 0;

/// Where a file's entry is, or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DirectoryPlace {
    /// It is there.
    File {
        /// The first byte of its entry
        at: usize,
    },
    /// Its folder has room for it here.
    Room {
        /// The first byte of the free entry
        at: usize,
        /// Its short name, as entries have it
        name: [u8; 11],
    },
}

/// Finds the entry of a file by its path, in which letters may be of either case.
pub(super) fn find_entry(volume: &FatVolume<'_>, path: &str) -> Result<DirectoryPlace, ReplaceFileError> {
    let (folders, file) = path.rsplit_once('/').map_or(("", path), |(folders, file)| (folders, file));
    let mut folder = volume.root_cluster;
    for name in folders.split('/').filter(|name| !name.is_empty()) {
        let name = short_name(name)?;
        let is_it = |entry: &[u8]| entry[ATTRIBUTES] & DIRECTORY != 0 && entry.starts_with(&name);
        let (_, entry) =
            entries(volume, folder)?.find(|(_, entry)| is_it(entry)).ok_or(ReplaceFileError::Folder)?;
        folder = first_cluster(entry);
    }
    let name = short_name(file)?;
    let is_it = |entry: &[u8]| {
        entry[ATTRIBUTES] & (DIRECTORY | VOLUME) == 0 && entry[0] != DELETED && entry.starts_with(&name)
    };
    if let Some((at, _)) = entries(volume, folder)?.find(|(_, entry)| is_it(entry)) {
        return Ok(DirectoryPlace::File { at });
    }
    find_room(volume, folder, name)
}

/// A free entry. Behind the last one that was ever used there must be another such, which ends the folder.
fn find_room(
    volume: &FatVolume<'_>,
    folder: u32,
    name: [u8; 11],
) -> Result<DirectoryPlace, ReplaceFileError> {
    let all: Vec<(usize, &[u8])> = all_entries(volume, folder)?.collect();
    let ends = |index: usize| all.get(index + 1).is_none_or(|(_, next)| next[0] == NEVER_USED);
    let free = all
        .iter()
        .enumerate()
        .find(|(index, (_, entry))| entry[0] == DELETED || entry[0] == NEVER_USED && ends(*index));
    free.map(|(_, (at, _))| DirectoryPlace::Room { at: *at, name }).ok_or(ReplaceFileError::FolderFull)
}

/// The step that makes a name mean other clusters. It is one sector: a disk writes it or does not.
pub(super) fn write_entry(
    volume: &FatVolume<'_>,
    place: &DirectoryPlace,
    first: u32,
    size: usize,
) -> FatStep {
    let (DirectoryPlace::File { at } | DirectoryPlace::Room { at, .. }) = *place;
    let sector_at = at - at % SECTOR;
    let mut sector = volume.bytes.get(sector_at..sector_at + SECTOR).unwrap_or_default().to_vec();
    let entry = &mut sector[at % SECTOR..at % SECTOR + ENTRY];
    if let DirectoryPlace::Room { name, .. } = place {
        entry.fill(0);
        entry[..name.len()].copy_from_slice(name);
        // `ATTR_ARCHIVE`, as every file has it.
        entry[ATTRIBUTES] = 0x20;
    }
    let first = first.to_le_bytes();
    entry[20..22].copy_from_slice(&first[2..]);
    entry[26..28].copy_from_slice(&first[..2]);
    // No file of an ESP is near the four gigabytes that an entry can say.
    entry[28..32].copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    FatStep::Write { offset: sector_at as u64, bytes: sector }
}

pub(super) fn first_cluster(entry: &[u8]) -> u32 {
    u32::from_le_bytes([entry[26], entry[27], entry[20], entry[21]])
}

pub(super) fn file_size(entry: &[u8]) -> usize {
    usize::try_from(u32::from_le_bytes([entry[28], entry[29], entry[30], entry[31]])).unwrap_or(usize::MAX)
}

/// The entries of a folder that name something, and where they are.
fn entries<'a>(
    volume: &'a FatVolume<'a>,
    folder: u32,
) -> Result<impl Iterator<Item = (usize, &'a [u8])>, ReplaceFileError> {
    let used = all_entries(volume, folder)?.take_while(|(_, entry)| entry[0] != NEVER_USED);
    Ok(used.filter(|(_, entry)| entry[ATTRIBUTES] != LONG_NAME && entry[0] != DELETED))
}

fn all_entries<'a>(
    volume: &'a FatVolume<'a>,
    folder: u32,
) -> Result<impl Iterator<Item = (usize, &'a [u8])>, ReplaceFileError> {
    // A subfolder of the root names it as cluster 0.
    let first = if folder == 0 { volume.root_cluster } else { folder };
    let chain = volume.chain(first).ok_or(ReplaceFileError::Folder)?;
    let clusters: Option<Vec<(usize, &[u8])>> =
        chain.into_iter().map(|one| Some((volume.cluster_at(one), volume.cluster(one)?))).collect();
    let clusters = clusters.ok_or(ReplaceFileError::Folder)?.into_iter();
    Ok(clusters.flat_map(|(at, bytes)| {
        bytes.chunks_exact(ENTRY).enumerate().map(move |(index, entry)| (at + index * ENTRY, entry))
    }))
}

/// A name as entries have it: eight characters and three, in capitals, filled with blanks.
fn short_name(name: &str) -> Result<[u8; 11], ReplaceFileError> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let is_plain =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte));
    if base.is_empty() || base.len() > 8 || extension.len() > 3 || !is_plain(base) || !is_plain(extension) {
        return Err(ReplaceFileError::Name);
    }
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.to_ascii_uppercase().as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.to_ascii_uppercase().as_bytes());
    Ok(short)
}
