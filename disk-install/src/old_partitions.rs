//! Where the partitions of a disk lie that is to be overwritten, whoever made them.
//!
//! RAID, LVM, ZFS and file systems leave their marks at the start and the end of a partition. A new partition that
//! begins or ends at the same place would inherit them: mdadm would assemble a dead array out of it. Reads MBR and GPT
//! without trust, and gives stretches to be emptied. Refuses to say what a table means beyond that, so a damaged one is
//! read as far as it goes.
//!
//! Documentation: UEFI's specification, section 5; for the places of marks `wipefs(8)`, md(4) (superblocks 0.90 and
//! 1.0 are in the last 128 KiB), and OpenZFS' "On-Disk Format" (two labels of 256 KiB at either end).

use std::io;
use std::ops::Range;

use crate::target::InstallTarget;

const SECTOR_BYTES: usize = 512;
const SECTOR: u64 = SECTOR_BYTES as u64;
/// Emptied at both ends of a partition. The largest mark is ZFS' with 512 KiB.
const EDGE_BYTES: u64 = 1 << 20;
/// No tool makes more; a table that claims more is damaged.
const MAX_ENTRIES: u32 = 1024;
/// Logical partitions of one extended partition. The chain of a damaged one may be a circle.
const MAX_LOGICAL: usize = 64;

/// Both ends of every partition that a table on the disk names.
pub fn partition_edges(target: &dyn InstallTarget, size: u64) -> io::Result<Vec<Range<u64>>> {
    let mut edges = Vec::new();
    for partition in old_partitions(target, size)? {
        let Range { start, end } = partition;
        edges.push(start..end.min(start + EDGE_BYTES));
        edges.push(end.saturating_sub(EDGE_BYTES).max(start)..end);
    }
    edges.sort_by_key(|edge| edge.start);
    edges.dedup();
    Ok(edges)
}

fn old_partitions(target: &dyn InstallTarget, size: u64) -> io::Result<Vec<Range<u64>>> {
    let reader = TableReader { target, size };
    let mut found = reader.read_mbr()?;
    found.extend(reader.read_gpt(SECTOR)?);
    // The backup, for a disk whose primary table somebody has emptied already.
    found.extend(reader.read_gpt((size / SECTOR).saturating_sub(1) * SECTOR)?);
    found.retain(|partition| partition.start < partition.end);
    Ok(found)
}

struct TableReader<'a> {
    target: &'a dyn InstallTarget,
    size: u64,
}

impl TableReader<'_> {
    fn read(&self, offset: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        self.target.read_exact_at(&mut bytes, offset)?;
        Ok(Some(bytes))
    }

    fn clip(&self, first: u64, sectors: u64) -> Range<u64> {
        let start = first.saturating_mul(SECTOR).min(self.size);
        start..first.saturating_add(sectors).saturating_mul(SECTOR).min(self.size)
    }

    fn read_mbr(&self) -> io::Result<Vec<Range<u64>>> {
        let mut found = Vec::new();
        for entry in self.mbr_entries(0)? {
            match entry.kind {
                // Empty, and the protective entry over a GPT.
                0 | 0xee => {}
                // Extended partitions of CHS, LBA and Linux.
                0x05 | 0x0f | 0x85 => {
                    found.push(self.clip(entry.first, entry.sectors));
                    found.extend(self.read_logical(entry.first)?);
                }
                _ => found.push(self.clip(entry.first, entry.sectors)),
            }
        }
        Ok(found)
    }

    /// The chain of an extended partition: each link names a partition, and the next link from the chain's start.
    fn read_logical(&self, chain: u64) -> io::Result<Vec<Range<u64>>> {
        let (mut found, mut link) = (Vec::new(), chain);
        for _ in 0..MAX_LOGICAL {
            let entries = self.mbr_entries(link.saturating_mul(SECTOR))?;
            let [partition, next, ..] = entries.as_slice() else { break };
            if partition.kind != 0 {
                found.push(self.clip(link + partition.first, partition.sectors));
            }
            if next.kind == 0 || next.first == 0 {
                break;
            }
            link = chain + next.first;
        }
        Ok(found)
    }

    fn mbr_entries(&self, offset: u64) -> io::Result<Vec<MbrEntry>> {
        let sector = self.read(offset, SECTOR_BYTES)?;
        let Some(sector) = sector.filter(|sector| sector[510..] == [0x55, 0xaa]) else {
            return Ok(Vec::new());
        };
        let entries = sector[446..510].chunks_exact(16);
        let number =
            |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
        let entry = |bytes: &[u8]| MbrEntry {
            kind: bytes[4],
            first: number(&bytes[8..]),
            sectors: number(&bytes[12..]),
        };
        Ok(entries.map(entry).collect())
    }

    fn read_gpt(&self, header_at: u64) -> io::Result<Vec<Range<u64>>> {
        let header = self.read(header_at, SECTOR_BYTES)?;
        let Some(header) = header.filter(|header| header.starts_with(b"EFI PART")) else {
            return Ok(Vec::new());
        };
        let u32_at = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let (array, count, entry_bytes) = (u64_at(&header, 72), u32_at(80), u32_at(84));
        if count > MAX_ENTRIES || !(128..=4096).contains(&entry_bytes) {
            return Ok(Vec::new());
        }
        let length = count as usize * entry_bytes as usize;
        let Some(entries) = self.read(array.saturating_mul(SECTOR), length)? else { return Ok(Vec::new()) };
        let used = entries.chunks_exact(entry_bytes as usize).filter(|entry| entry[..16] != [0; 16]);
        let partition = |entry: &[u8]| {
            let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
            self.clip(first, last.saturating_sub(first).saturating_add(1))
        };
        Ok(used.map(partition).collect())
    }
}

struct MbrEntry {
    kind: u8,
    first: u64,
    sectors: u64,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Debug)]
    struct MemoryDisk(Vec<u8>);

    impl InstallTarget for MemoryDisk {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            buffer.copy_from_slice(
                self.0.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?,
            );
            Ok(())
        }

        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }

        fn discard(&self, _: Range<u64>) -> bool {
            false
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    const SIZE: usize = 8 << 20;

    fn mebibytes(disk: Vec<u8>) -> Vec<(u64, u64)> {
        let disk = Arc::new(MemoryDisk(disk));
        let found = old_partitions(disk.as_ref(), SIZE as u64).unwrap();
        found.iter().map(|one| (one.start >> 20, one.end >> 20)).collect()
    }

    fn mbr_entry(disk: &mut [u8], sector: usize, index: usize, kind: u8, first: u32, sectors: u32) {
        let at = sector * 512 + 446 + index * 16;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        disk[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    #[test]
    fn primary_and_logical_partitions_are_found_and_a_circle_ends() {
        let mut disk = vec![0; SIZE];
        mbr_entry(&mut disk, 0, 0, 0x83, 2048, 2048);
        mbr_entry(&mut disk, 0, 1, 0x05, 4096, 8192);
        mbr_entry(&mut disk, 4096, 0, 0x8e, 2048, 2048);
        // The next link is the chain's first again.
        mbr_entry(&mut disk, 4096, 1, 0x05, 4096, 4096);
        mbr_entry(&mut disk, 8192, 0, 0xfd, 2048, 1 << 30);
        mbr_entry(&mut disk, 8192, 1, 0x05, 4096, 4096);

        let mut found = mebibytes(disk);

        found.dedup();
        // What reaches over the end is cut there.
        assert_eq!(found, [(1, 2), (2, 6), (3, 4), (5, 8)]);
    }

    fn gpt_header(disk: &mut [u8], at: usize, count: u32) {
        disk[at..at + 8].copy_from_slice(b"EFI PART");
        disk[at + 72..at + 80].copy_from_slice(&2_u64.to_le_bytes());
        disk[at + 80..at + 84].copy_from_slice(&count.to_le_bytes());
        disk[at + 84..at + 88].copy_from_slice(&128_u32.to_le_bytes());
        disk[1024..1040].fill(1);
        disk[1024 + 32..1024 + 40].copy_from_slice(&2048_u64.to_le_bytes());
        disk[1024 + 40..1024 + 48].copy_from_slice(&4095_u64.to_le_bytes());
    }

    #[test]
    fn either_header_of_a_gpt_leads_to_its_partitions() {
        for at in [512, SIZE - 512] {
            let mut disk = vec![0; SIZE];
            gpt_header(&mut disk, at, 128);

            assert_eq!(mebibytes(disk), [(1, 2)], "the header at {at}");
        }
    }

    #[test]
    fn a_table_that_claims_too_much_names_nothing() {
        let mut disk = vec![0; SIZE];
        gpt_header(&mut disk, 512, u32::MAX);

        assert_eq!(mebibytes(disk), []);
    }
}
