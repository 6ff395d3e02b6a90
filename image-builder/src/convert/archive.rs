//! Archives: tar as `vagrant`, VMware and Google read it, always the same for the same files.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;

use disk_formats::artefact;
use disk_formats::disk::ReadDisk;
use disk_formats::encode::{EncodeError, Pass, encode_disk};
use disk_formats::format::Format;
use disk_formats::piece::{self, Piece};

use super::Job;
use super::resized::ResizedDisk;
use crate::artefact::ArtefactKind;
use crate::transfer::TransferMeter;

const BLOCK: u64 = 512;

/// A header of a plain file, owned by root, of 1970, in POSIX's format; above 8 GiB with GNU's number.
fn file_header(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

/// Writes a plain tar of texts and files, in that order.
pub(crate) struct TarWriter {
    file: File,
}

impl TarWriter {
    pub(crate) const fn new(file: File) -> Self {
        Self { file }
    }

    pub(crate) fn add_text(&mut self, name: &str, text: &[u8]) -> io::Result<()> {
        self.file.write_all(file_header(name, text.len() as u64)?.as_bytes())?;
        self.file.write_all(text)?;
        self.pad_file(text.len() as u64)
    }

    /// Adds a file; the kernel copies it.
    pub(crate) fn add_file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        let mut from = File::open(path)?;
        let length = from.metadata()?.len();
        self.file.write_all(file_header(name, length)?.as_bytes())?;
        io::copy(&mut from, &mut self.file)?;
        self.pad_file(length)
    }

    fn pad_file(&mut self, length: u64) -> io::Result<()> {
        let rest = length.next_multiple_of(BLOCK) - length;
        self.file.write_all(&vec![0; usize::try_from(rest).map_err(io::Error::other)?])
    }

    /// Two blocks of zeros end an archive.
    pub(crate) fn finish_archive(mut self) -> io::Result<()> {
        self.file.write_all(&[0; 1024])
    }
}

/// Google wants whole GiB.
const GCE_UNIT: u64 = 1 << 30;

/// Google's archive: gzip over tar in GNU's old format, with `disk.raw` as a sparse file.
/// <https://cloud.google.com/compute/docs/import/import-existing-image#create_image_file>
pub(crate) fn write_gce(job: &Job<'_>, disk: &dyn ReadDisk) -> io::Result<()> {
    let disk = ResizedDisk::rounded_up(disk, GCE_UNIT);
    let archive = SparseArchive::new(&disk, &mut |done, total| {
        let _ = (done, total);
        job.interrupt.check_interrupted().map_err(io::Error::other)
    })?;
    let suffix = ArtefactKind::Gce.file_suffix();
    let file = File::options().read(true).write(true).create_new(true).open(job.partial_path(suffix))?;
    let encoder = artefact::open_encoder(Format::RawGz, file, archive.disk_size(), "disk.raw")?;
    let mut meter = TransferMeter::start_meter("gce", job.request.output);
    let mut watch = |done, total| job.report_progress(&mut meter, done, total);
    let pass = &mut Pass { threads: job.request.threads, mapped: &[], watch: &mut watch };
    encode_disk(&archive, vec![encoder], pass).map(|_| ()).map_err(|error| match error {
        EncodeError::Stopped(source) => source,
        other => io::Error::other(other),
    })
}

/// The bytes of a tar archive that holds a sparse disk.raw, as if they were a disk: so workers compress it.
#[derive(Debug)]
struct SparseArchive<'a> {
    disk: &'a ResizedDisk<'a>,
    head: Vec<u8>,
    /// Where in the archive each stretch of the disk begins, in order.
    stretches: Vec<(u64, Range<u64>)>,
    size: u64,
}

impl<'a> SparseArchive<'a> {
    fn new(disk: &'a ResizedDisk<'a>, watch: &mut dyn FnMut(u64, u64) -> io::Result<()>) -> io::Result<Self> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for number in 0..piece::count_pieces(disk.disk_size()) {
            let piece = Piece::read(disk, number)?;
            watch(piece.offset, disk.disk_size())?;
            for run in piece.block_runs(|_| false) {
                let run = piece.offset + run.start as u64..piece.offset + run.end as u64;
                match runs.last_mut() {
                    Some(last) if last.end == run.start => last.end = run.end,
                    _ => runs.push(run),
                }
            }
        }
        // GNU tar ends the map with an empty stretch at the end, so that a hole there is one.
        if runs.last().is_none_or(|last| last.end < disk.disk_size()) {
            runs.push(disk.disk_size()..disk.disk_size());
        }
        let head = sparse_head(&runs, disk.disk_size())?;
        let mut at = head.len() as u64;
        let mut stretches = Vec::new();
        for run in runs {
            let length = run.end - run.start;
            stretches.push((at, run));
            at += length;
        }
        let size = at.next_multiple_of(BLOCK) + 2 * BLOCK;
        Ok(Self { disk, head, stretches, size })
    }
}

/// The header of type `S` with four stretches, then 21 in each block that follows.
fn sparse_head(runs: &[Range<u64>], size: u64) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_path("disk.raw")?;
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(runs.iter().map(|run| run.end - run.start).sum());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().ok_or(io::ErrorKind::InvalidInput)?;
    let (first, rest) = runs.split_at(runs.len().min(4));
    for (field, run) in gnu.sparse.iter_mut().zip(first) {
        write_stretch(&mut field.offset, &mut field.numbytes, run);
    }
    gnu.isextended = [u8::from(!rest.is_empty())];
    write_number(&mut gnu.realsize, size);
    header.set_cksum();
    let mut head = header.as_bytes().to_vec();
    let blocks = rest.chunks(21);
    let count = blocks.len();
    for (index, block) in blocks.enumerate() {
        let mut extended = tar::GnuExtSparseHeader::new();
        for (field, run) in extended.sparse.iter_mut().zip(block) {
            write_stretch(&mut field.offset, &mut field.numbytes, run);
        }
        extended.isextended = [u8::from(index + 1 < count)];
        head.extend(extended.as_bytes());
    }
    Ok(head)
}

fn write_stretch(offset: &mut [u8; 12], length: &mut [u8; 12], run: &Range<u64>) {
    write_number(offset, run.start);
    write_number(length, run.end - run.start);
}

/// Eleven octal digits; larger numbers in GNU's base 256.
fn write_number(field: &mut [u8; 12], number: u64) {
    if number < 1 << 33 {
        field[..11].copy_from_slice(format!("{number:011o}").as_bytes());
        field[11] = 0;
    } else {
        field.fill(0);
        field[0] = 0x80;
        field[4..].copy_from_slice(&number.to_be_bytes());
    }
}

impl ReadDisk for SparseArchive<'_> {
    fn disk_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        let index = |at: u64| usize::try_from(at - offset).map_err(io::Error::other);
        let head = self.head.len() as u64;
        if offset < head {
            let stop = end.min(head);
            let from = usize::try_from(offset).map_err(io::Error::other)?;
            let length = index(stop)?;
            buffer[..length].copy_from_slice(&self.head[from..from + length]);
        }
        let first = self.stretches.partition_point(|(at, run)| at + (run.end - run.start) <= offset);
        for (at, run) in self.stretches[first..].iter().take_while(|(at, _)| *at < end) {
            let (start, stop) = (offset.max(*at), end.min(at + (run.end - run.start)));
            if start < stop {
                let range = index(start)?..index(stop)?;
                self.disk.read_exact_at(&mut buffer[range], run.start + (start - at))?;
            }
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok((offset < self.size).then_some(offset..self.size))
    }
}
