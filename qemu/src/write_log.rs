//! Reads QEMU's record of a guest's writes, and makes the disks a power cut could have left behind.
//!
//! A drive promises only what was flushed. So the disk after a cut holds every write before the last finished
//! flush, and of the later ones any subset; the write under way may be torn between two sectors. Knows the
//! format of dm-log-writes (<https://docs.kernel.org/admin-guide/device-mapper/log-writes.html>) as QEMU's
//! `blklogwrites` writes it (`block/blklogwrites.c`); what survives is a pure function of the entries, the moment and
//! a seed. QEMU's own `blkdebug` can only fail requests; it cannot lose what was acknowledged. Invariant: a flushed write survives every cut after it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::disk::{DiskEditor, DiskError};
use crate::seeded_random::SeededRandom;

// The head of the log, and the flags of an entry (`LOG_FLUSH_FLAG` and so on in the kernel's dm-log-writes.c). The
// kernel's further flags mark places in the log for a person; QEMU sets none of them.
const MAGIC: &[u8; 8] = b"rhswfsj\0";
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const SECTOR: u64 = 512;

/// What happened at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteEvent {
    /// Everything before is safe
    Flush,
    /// Sectors were written
    Write {
        /// First sector on the disk
        sector: u64,
        /// How many
        count: u64,
        /// Where the bytes are in the log
        data: u64,
        /// Whether the write was safe by itself
        forced: bool,
    },
    /// Sectors were given back
    Discard {
        /// First sector on the disk
        sector: u64,
        /// How many
        count: u64,
    },
}

/// A record of writes.
#[derive(Debug)]
pub struct WriteLog {
    path: PathBuf,
    file: File,
    events: Vec<WriteEvent>,
}

/// Why a record is of no use.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum WriteLogError {
    #[error("cannot read the record of writes {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a record of writes in sectors of 512 bytes")]
    Format { path: PathBuf },
    #[error("cannot apply the record of writes")]
    Apply(#[from] DiskError),
}

impl WriteLog {
    /// Reads the record at `path`. One whose machine was cut off ends at its last whole entry.
    pub fn read_log(path: &Path) -> Result<Self, WriteLogError> {
        let read = |source| WriteLogError::Read { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        let mut head = [0; 28];
        file.read_exact_at(&mut head, 0).map_err(read)?;
        let right = &head[..8] == MAGIC && read_u64(&head, 8) == VERSION && head[24..28] == [0, 2, 0, 0];
        // QEMU writes the head with the guest's first flush; a guest that was cut off before has none.
        let unfinished = head == [0; 28];
        if !right && !unfinished {
            return Err(WriteLogError::Format { path: path.into() });
        }
        let events = events_of(&file).map_err(read)?;
        Ok(Self { path: path.into(), file, events })
    }

    /// All that happened, in order.
    #[must_use]
    pub fn write_events(&self) -> &[WriteEvent] {
        &self.events
    }

    /// Brings `disk`, a copy of the disk as it was before the record, into a state that a power cut before
    /// event number `cut` could have left.
    pub fn cut_power(
        &self,
        disk: &DiskEditor,
        cut: usize,
        chance: &mut SeededRandom,
    ) -> Result<(), WriteLogError> {
        for survivor in surviving_events(&self.events, cut, chance) {
            self.apply_event(disk, &survivor)?;
        }
        Ok(())
    }

    fn apply_event(&self, disk: &DiskEditor, event: &WriteEvent) -> Result<(), WriteLogError> {
        match *event {
            WriteEvent::Flush => Ok(()),
            // What a discarded sector reads as is the drive's choice; zeros are what most of them say.
            WriteEvent::Discard { sector, count } => Ok(disk.write_zeros(sector * SECTOR, count * SECTOR)?),
            WriteEvent::Write { sector, count, data, .. } => {
                // Sector by sector: a torn write ends within what the log holds of it.
                for index in 0..count {
                    let mut bytes = [0; 512];
                    self.file
                        .read_exact_at(&mut bytes, data + index * SECTOR)
                        .map_err(|source| WriteLogError::Read { path: self.path.clone(), source })?;
                    disk.write((sector + index) * SECTOR, &bytes)?;
                }
                Ok(())
            }
        }
    }
}

/// The events that reach the platter when the power goes before event number `cut`: all up to the last flush,
/// each later one by chance, and of the one under way some first sectors.
#[must_use]
pub fn surviving_events(events: &[WriteEvent], cut: usize, chance: &mut SeededRandom) -> Vec<WriteEvent> {
    let before = &events[..cut.min(events.len())];
    let safe = before.iter().rposition(|event| *event == WriteEvent::Flush).unwrap_or(0);
    let mut survivors = before[..safe].to_vec();
    for event in &before[safe..] {
        // A write with FUA is on the platter when it is acknowledged, whatever becomes of its neighbours.
        let forced = matches!(event, WriteEvent::Write { forced: true, .. });
        if forced || chance.flip_coin() {
            survivors.push(*event);
        }
    }
    // Torn between sectors and never within one, which is what drives promise since sectors have checksums.
    if let Some(WriteEvent::Write { sector, count, data, forced }) = events.get(cut).copied() {
        let count = chance.number_below(count + 1);
        survivors.push(WriteEvent::Write { sector, count, data, forced });
    }
    survivors.retain(|event| *event != WriteEvent::Flush);
    survivors
}

fn events_of(file: &File) -> io::Result<Vec<WriteEvent>> {
    let end = file.metadata()?.len();
    let mut events = Vec::new();
    let mut at = SECTOR;
    while at + SECTOR <= end {
        let mut entry = [0; 32];
        file.read_exact_at(&mut entry, at)?;
        let (sector, count, flags, length) =
            (read_u64(&entry, 0), read_u64(&entry, 8), read_u64(&entry, 16), read_u64(&entry, 24));
        let data = at + SECTOR;
        let Some(next) = next_entry(data, count, flags, length, end) else { break };
        push_event(&mut events, flags, sector, count, data);
        at = next;
    }
    Ok(events)
}

/// Where the entry after this one starts; none if this one is no whole entry.
fn next_entry(data: u64, count: u64, flags: u64, length: u64, end: u64) -> Option<u64> {
    // Marks carry a string, discards nothing, writes their sectors.
    let bytes = if flags & DISCARD != 0 {
        0
    } else {
        count.checked_mul(SECTOR)?.max(length.next_multiple_of(SECTOR))
    };
    let next = data.checked_add(bytes)?;
    let empty = count == 0 && flags == 0 && length == 0;
    (next <= end && !empty).then_some(next)
}

fn push_event(events: &mut Vec<WriteEvent>, flags: u64, sector: u64, count: u64, data: u64) {
    // A write that carries a flush flag flushes what came before it.
    if flags & FLUSH != 0 {
        events.push(WriteEvent::Flush);
    }
    if flags & DISCARD != 0 {
        events.push(WriteEvent::Discard { sector, count });
    } else if count > 0 {
        events.push(WriteEvent::Write { sector, count, data, forced: flags & FUA != 0 });
    }
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(sector: u64) -> WriteEvent {
        WriteEvent::Write { sector, count: 4, data: 0, forced: false }
    }

    #[test]
    fn flushed_writes_survive_every_later_cut() {
        let events = [write(1), write(2), WriteEvent::Flush, write(3), write(4)];

        for seed in 0..100 {
            let left = surviving_events(&events, 5, &mut SeededRandom::from_seed(seed));
            assert!(left.starts_with(&[write(1), write(2)]), "{left:?}");
        }
    }

    #[test]
    fn unflushed_writes_are_lost_in_every_combination() {
        let events = [WriteEvent::Flush, write(1), write(2)];

        let mut seen: Vec<Vec<WriteEvent>> =
            (0..100).map(|seed| surviving_events(&events, 3, &mut SeededRandom::from_seed(seed))).collect();
        seen.sort_by_key(|left| format!("{left:?}"));
        seen.dedup();

        assert_eq!(seen.len(), 4, "{seen:?}");
    }

    #[test]
    fn a_forced_write_survives_without_a_flush() {
        let forced = WriteEvent::Write { sector: 9, count: 1, data: 0, forced: true };

        for seed in 0..20 {
            assert_eq!(
                surviving_events(&[forced, WriteEvent::Flush], 1, &mut SeededRandom::from_seed(seed))[0],
                forced
            );
        }
    }

    #[test]
    fn the_write_under_way_is_torn_between_sectors() {
        let counts: std::collections::BTreeSet<u64> = (0..100)
            .map(|seed| match surviving_events(&[write(1)], 0, &mut SeededRandom::from_seed(seed))[..] {
                [WriteEvent::Write { count, .. }] => count,
                ref other => panic!("{other:?}"),
            })
            .collect();

        assert_eq!(counts, [0, 1, 2, 3, 4].into());
    }

    #[test]
    fn a_log_cut_off_in_an_entry_ends_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("writes.log");
        let mut log = vec![0; 512 * 4];
        log[0..8].copy_from_slice(b"rhswfsj\0");
        log[8..16].copy_from_slice(&VERSION.to_le_bytes());
        log[24..28].copy_from_slice(&[0, 2, 0, 0]);
        log[512..520].copy_from_slice(&7_u64.to_le_bytes());
        log[520..528].copy_from_slice(&1_u64.to_le_bytes());
        log[1536..1544].copy_from_slice(&8_u64.to_le_bytes());
        log[1544..1552].copy_from_slice(&1_u64.to_le_bytes());
        fs::write(&path, log).unwrap();

        let log = WriteLog::read_log(&path).unwrap();

        assert_eq!(
            log.write_events(),
            [WriteEvent::Write { sector: 7, count: 1, data: 1024, forced: false }]
        );
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("writes.log");
        fs::write(&path, [1; 2048]).unwrap();

        assert!(matches!(WriteLog::read_log(&path), Err(WriteLogError::Format { .. })));
    }
}
