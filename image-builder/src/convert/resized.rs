//! A disk that is larger than its image, with the backup of the partition table at its end.

use std::io;
use std::ops::Range;

use disk_formats::disk::ReadDisk;
use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, PRIMARY_OFFSET};

use disk_install::mapped::partition_table;

/// A disk, longer.
#[derive(Debug)]
pub(crate) struct ResizedDisk<'a> {
    disk: &'a dyn ReadDisk,
    size: u64,
    /// What differs from the image, in order.
    patches: Vec<(u64, Vec<u8>)>,
}

impl<'a> ResizedDisk<'a> {
    /// The disk as one of a size that is a multiple of `unit`.
    pub(crate) fn rounded_up(disk: &'a dyn ReadDisk, unit: u64) -> Self {
        let size = disk.disk_size().next_multiple_of(unit);
        Self { disk, size, patches: moved_table(disk, size).unwrap_or_default() }
    }
}

/// Both copies of the table for the new size, and zeros where the backup was.
fn moved_table(disk: &dyn ReadDisk, size: u64) -> Option<Vec<(u64, Vec<u8>)>> {
    if size == disk.disk_size() {
        return None;
    }
    let table = partition_table(disk)?;
    let copies = gpt::encode_table(&table, Bytes::new(size)).ok()?;
    let old = gpt::backup_offset(Bytes::new(disk.disk_size()))?;
    let new = gpt::backup_offset(Bytes::new(size))?;
    let mut patches = vec![
        (PRIMARY_OFFSET.get(), copies.primary),
        (old.get(), vec![0; COPY_BYTES]),
        (new.get(), copies.backup),
    ];
    // A disk that grew by less than a copy: the new one lies over the old one's place.
    patches.retain(|(at, bytes)| *at == new.get() || at + bytes.len() as u64 <= new.get());
    Some(patches)
}

impl ReadDisk for ResizedDisk<'_> {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let old = usize::try_from(self.disk.disk_size().saturating_sub(offset))
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (image, rest) = buffer.split_at_mut(old);
        if !image.is_empty() {
            self.disk.read_exact_at(image, offset)?;
        }
        rest.fill(0);
        for (at, bytes) in &self.patches {
            let (start, end) = (offset.max(*at), (offset + buffer.len() as u64).min(at + bytes.len() as u64));
            if start < end {
                let index = |at: u64, from: u64| usize::try_from(at - from).map_err(io::Error::other);
                let into = index(start, offset)?..index(end, offset)?;
                buffer[into].copy_from_slice(&bytes[index(start, *at)?..index(end, *at)?]);
            }
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let image = if offset < self.disk.disk_size() { self.disk.next_data(offset)? } else { None };
        let patch = |(at, bytes): &(u64, Vec<u8>)| {
            let end = at + bytes.len() as u64;
            (offset < end).then(|| offset.max(*at)..end)
        };
        let patches = self.patches.iter().filter_map(patch);
        Ok(image.into_iter().chain(patches).min_by_key(|run| run.start))
    }
}
