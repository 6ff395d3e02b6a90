//! What each fuzz target does with its bytes. The fuzzer and the corpus test both include this file,
//! so that a past crash is a plain test from then on.

use std::io::Read as _;

use disk_formats::bmap::Bmap;
use disk_formats::disk::MAX_DISK_BYTES;
use disk_formats::open::{Opened, open_disk};

/// A file of any bytes: what can be opened is a disk of a size that can be, and reading it gives bytes or an error.
pub(crate) fn disk(bytes: &[u8]) {
    match open_disk(bytes.to_vec()) {
        Ok(Opened::Disk(_, disk)) => {
            assert!(disk.disk_size() <= MAX_DISK_BYTES && disk.disk_size().is_multiple_of(512));
            let mut at = 0;
            for _ in 0..16 {
                let Ok(Some(run)) = disk.next_data(at) else { break };
                assert!(run.start >= at && run.start < run.end && run.end <= disk.disk_size());
                let mut buffer = [0; 4096];
                let length = usize::try_from(run.end - run.start).map_or(4096, |length| length.min(4096));
                let _ = disk.read_exact_at(&mut buffer[..length], run.start);
                let _ = disk.read_exact_at(&mut buffer[..length], run.end - length as u64);
                at = run.end;
            }
            assert!(disk.read_exact_at(&mut [0; 2], disk.disk_size() - disk.disk_size().min(1)).is_err());
        }
        Ok(Opened::Stream(compression)) => {
            if let Ok(stream) = compression.open_decoder(bytes) {
                let _ = std::io::copy(&mut stream.take(1 << 20), &mut std::io::sink());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A block map of any bytes: its ranges are in order, and of the image.
pub(crate) fn bmap(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(map) = Bmap::parse_map(text)
    {
        let mut end = 0;
        for run in &map.runs {
            assert!(run.range.start >= end && run.range.start < run.range.end && run.range.end <= map.size);
            end = run.range.end;
        }
    }
}
