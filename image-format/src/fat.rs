//! Replaces one file of a FAT32 volume so that a power cut leaves the old file or the new one, whole.
//!
//! A file system driver overwrites in place, and FAT has no journal. Here the new content goes into free clusters, and
//! one sector of the directory is the moment at which the file becomes the new one. Knows FAT32 as far as the ESP of an
//! image has it: no FAT12, no removal of names. Refuses to write: it plans steps, in their order. Invariant: before a
//! [`FatStep::Sync`] has returned, nothing that follows it has begun; after any prefix of the steps, and any part of the
//! writes since the last sync, each file of the volume is whole, and so is the replaced one, as it was or as it is to be.
//!
//! Documentation: Microsoft's "FAT: General Overview of On-Disk Format" (fatgen103).

use std::collections::BTreeMap;

use directory::{DirectoryPlace, find_entry};

/// Names, and where they stand.
mod directory;

const SECTOR: usize = 512;
/// The bits of an entry of the table that count; the others are kept as they are.
const CLUSTER_MASK: u32 = 0x0fff_ffff;
const END_OF_CHAIN: u32 = 0x0fff_ffff;
/// From here on an entry says that the chain ends, or that a cluster is bad.
const FIRST_SPECIAL: u32 = 0x0fff_fff7;
/// Where `FSInfo` counts the free clusters.
const FREE_COUNT: usize = 488;

/// One step of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FatStep {
    /// Wait until everything written before is stored.
    Sync,
    /// Write whole sectors.
    Write {
        /// Where, from the volume's first byte on
        offset: u64,
        /// What
        bytes: Vec<u8>,
    },
}

/// Why a file cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ReplaceFileError {
    #[error("it is no FAT32 volume with sectors of 512 bytes: {what}")]
    Volume { what: &'static str },
    #[error("its folder is not there, or its chain of clusters is broken")]
    Folder,
    #[error("its folder has no room for one more name")]
    FolderFull,
    #[error("it needs {needed} free clusters, and the volume has {free}")]
    Full { needed: usize, free: usize },
    #[error("its name is not one of eight characters and three")]
    Name,
}

/// A FAT32 volume in memory.
#[derive(Debug)]
pub struct FatVolume<'a> {
    bytes: &'a [u8],
    cluster_bytes: usize,
    /// The first bytes of each copy of the table.
    tables: Vec<usize>,
    data_at: usize,
    root_cluster: u32,
    info_at: usize,
    clusters: u32,
}

impl<'a> FatVolume<'a> {
    /// Reads the boot sector.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ReplaceFileError> {
        let volume = |what| ReplaceFileError::Volume { what };
        let u16_at = |at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
        let short = || volume("it is cut short");
        let sectors = |at| u16_at(at).map(|count| count * SECTOR).ok_or_else(short);
        if u16_at(11) != Some(SECTOR) || u16_at(22) != Some(0) || u16_at(17) != Some(0) {
            return Err(volume("its boot sector says something else"));
        }
        let cluster_bytes = usize::from(*bytes.get(13).ok_or_else(short)?) * SECTOR;
        let (reserved, count) = (sectors(14)?, usize::from(*bytes.get(16).ok_or_else(short)?));
        let table_bytes = word(bytes, 36).and_then(|count| usize::try_from(count).ok()).ok_or_else(short)?;
        let table_bytes = table_bytes.checked_mul(SECTOR).ok_or_else(short)?;
        let total = word(bytes, 32).and_then(|count| usize::try_from(count).ok()).ok_or_else(short)?;
        let total = total.checked_mul(SECTOR).filter(|total| *total <= bytes.len()).ok_or_else(short)?;
        let data_at =
            table_bytes.checked_mul(count).and_then(|all| all.checked_add(reserved)).ok_or_else(short)?;
        if !cluster_bytes.is_power_of_two() || !(1..=2).contains(&count) || data_at >= total {
            return Err(volume("its clusters or tables do not fit into it"));
        }
        // No more than the table has entries for, of which the first two are not clusters.
        let clusters = ((total - data_at) / cluster_bytes).min((table_bytes / 4).saturating_sub(2));
        Ok(Self {
            bytes,
            cluster_bytes,
            tables: (0..count).map(|index| reserved + index * table_bytes).collect(),
            data_at,
            root_cluster: word(bytes, 44).ok_or_else(short)?,
            info_at: sectors(48)?,
            clusters: u32::try_from(clusters).map_err(|_| short())?,
        })
    }

    /// The content of a file, if it is there and its chain is whole.
    #[must_use]
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        let DirectoryPlace::File { at, .. } = find_entry(self, path).ok()? else { return None };
        let entry = self.bytes.get(at..at + directory::ENTRY)?;
        let (first, size) = (directory::first_cluster(entry), directory::file_size(entry));
        let mut content = Vec::new();
        for cluster in self.chain(first)? {
            content.extend_from_slice(self.cluster(cluster)?);
        }
        (content.len() >= size).then(|| {
            content.truncate(size);
            content
        })
    }

    /// Plans how the file at `path` gets this content. A file that is not there is made; its folder must be.
    pub fn plan_replacement(&self, path: &str, content: &[u8]) -> Result<Vec<FatStep>, ReplaceFileError> {
        let place = find_entry(self, path)?;
        let needed = content.len().div_ceil(self.cluster_bytes);
        let all_free: Vec<u32> = self.free_clusters().collect();
        let free = all_free.len();
        let clusters = all_free.get(..needed).ok_or(ReplaceFileError::Full { needed, free })?;
        let mut steps = self.write_content(clusters, content);
        let mut table = TableChange::default();
        for (index, cluster) in clusters.iter().enumerate() {
            table.set(*cluster, clusters.get(index + 1).copied().unwrap_or(END_OF_CHAIN));
        }
        steps.extend(table.steps(self));
        steps.push(FatStep::Sync);
        let first = clusters.first().copied().unwrap_or(0);
        steps.push(directory::write_entry(self, &place, first, content.len()));
        steps.push(FatStep::Sync);
        // Only now: until then these are the file.
        let old = self.old_chain(&place);
        let mut freed = table;
        freed.change_all(&old, 0);
        if !old.is_empty() {
            steps.extend(freed.steps_for(self, &old));
        }
        steps.extend(self.count_free(free - needed + old.len()));
        steps.push(FatStep::Sync);
        Ok(steps)
    }

    /// The clusters of the file that is replaced. A chain that is not as long as the file says is left as it is: it may
    /// lead into another's.
    fn old_chain(&self, place: &DirectoryPlace) -> Vec<u32> {
        let DirectoryPlace::File { at, .. } = *place else { return Vec::new() };
        let Some(entry) = self.bytes.get(at..at + directory::ENTRY) else { return Vec::new() };
        let chain = self.chain(directory::first_cluster(entry)).unwrap_or_default();
        let expected = directory::file_size(entry).div_ceil(self.cluster_bytes);
        if chain.len() == expected { chain } else { Vec::new() }
    }

    fn write_content(&self, clusters: &[u32], content: &[u8]) -> Vec<FatStep> {
        let mut steps: Vec<FatStep> = Vec::new();
        for (cluster, piece) in clusters.iter().zip(content.chunks(self.cluster_bytes)) {
            let at = self.cluster_at(*cluster) as u64;
            let mut piece = piece.to_vec();
            piece.resize(self.cluster_bytes, 0);
            match steps.last_mut() {
                Some(FatStep::Write { offset, bytes }) if *offset + bytes.len() as u64 == at => {
                    bytes.extend(piece);
                }
                _ => steps.push(FatStep::Write { offset: at, bytes: piece }),
            }
        }
        steps
    }

    /// `FSInfo` is a hint, but fsck.vfat compares it.
    fn count_free(&self, free: usize) -> Option<FatStep> {
        let mut sector = self.bytes.get(self.info_at..self.info_at + SECTOR)?.to_vec();
        // `FSI_LeadSig`; a volume without it has no count.
        if !sector.starts_with(b"RRaA") || self.info_at == 0 {
            return None;
        }
        sector[FREE_COUNT..FREE_COUNT + 4].copy_from_slice(&u32::try_from(free).ok()?.to_le_bytes());
        Some(FatStep::Write { offset: self.info_at as u64, bytes: sector })
    }

    fn free_clusters(&self) -> impl Iterator<Item = u32> + '_ {
        (2..self.clusters.saturating_add(2)).filter(|cluster| self.next(*cluster) == Some(0))
    }

    /// What the table says of a cluster.
    fn next(&self, cluster: u32) -> Option<u32> {
        let known = (2..self.clusters.saturating_add(2)).contains(&cluster);
        let at = self.tables.first()? + usize::try_from(cluster).ok()? * 4;
        word(self.bytes, at).filter(|_| known).map(|next| next & CLUSTER_MASK)
    }

    /// A chain from its first cluster on; none if it is broken or goes in a circle.
    fn chain(&self, first: u32) -> Option<Vec<u32>> {
        let mut chain = Vec::new();
        let mut cluster = first;
        // An empty file has no cluster.
        while cluster != 0 && cluster < FIRST_SPECIAL {
            if chain.len() > self.clusters as usize {
                return None;
            }
            chain.push(cluster);
            cluster = self.next(cluster).filter(|next| *next != 0)?;
        }
        Some(chain)
    }

    fn cluster_at(&self, cluster: u32) -> usize {
        self.data_at + (cluster as usize - 2) * self.cluster_bytes
    }

    fn cluster(&self, cluster: u32) -> Option<&'a [u8]> {
        let at = self.cluster_at(cluster);
        self.bytes.get(at..at + self.cluster_bytes)
    }
}

/// Entries of the table that change, in all of its copies.
#[derive(Debug, Clone, Default)]
struct TableChange {
    entries: BTreeMap<u32, u32>,
}

impl TableChange {
    fn set(&mut self, cluster: u32, next: u32) {
        self.entries.insert(cluster, next);
    }

    fn change_all(&mut self, clusters: &[u32], next: u32) {
        for cluster in clusters {
            self.set(*cluster, next);
        }
    }

    fn steps(&self, volume: &FatVolume<'_>) -> Vec<FatStep> {
        let all: Vec<u32> = self.entries.keys().copied().collect();
        self.steps_for(volume, &all)
    }

    /// The sectors in which these clusters have their entries, as they are after all changes so far.
    fn steps_for(&self, volume: &FatVolume<'_>, clusters: &[u32]) -> Vec<FatStep> {
        let sector_of = |cluster: u32| cluster as usize * 4 / SECTOR;
        let sectors: std::collections::BTreeSet<usize> = clusters.iter().map(|one| sector_of(*one)).collect();
        let mut steps = Vec::new();
        for table in &volume.tables {
            for sector in &sectors {
                let at = table + sector * SECTOR;
                let mut bytes = volume.bytes.get(at..at + SECTOR).unwrap_or_default().to_vec();
                for (cluster, next) in
                    self.entries.iter().filter(|(cluster, _)| sector_of(**cluster) == *sector)
                {
                    let place = *cluster as usize * 4 % SECTOR;
                    let before = word(&bytes, place).unwrap_or_default();
                    let after = before & !CLUSTER_MASK | next & CLUSTER_MASK;
                    bytes[place..place + 4].copy_from_slice(&after.to_le_bytes());
                }
                steps.push(FatStep::Write { offset: at as u64, bytes });
            }
        }
        steps
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
