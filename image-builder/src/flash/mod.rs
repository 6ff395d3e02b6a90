//! Writes an image to a disk of this machine: `image-builder flash`.
//!
//! Data flows one way: what was typed → disks of this machine → choice → writing → report. The choice is pure.
//! Invariant: without a disk that is meant beyond doubt nothing is written, and until all of it is proven, the disk
//! does not start.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows the table of disks and asks")]

mod choice;
pub(crate) mod disks;
pub(crate) mod expression;
mod stream;
mod write;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use disk_formats::piece::Piece;
use image_format::bytes::Bytes;
use image_format::gpt::{self, COPY_BYTES, PRIMARY_OFFSET};
use image_format::signed::PublicKey;

use crate::boot::fat::FatFile;
use crate::disk::DiskImage;
use crate::inspect::{self, InspectDepth, InspectQuestion};
use crate::process::InterruptFlag;
use crate::progress::OutputFormat;
use crate::seed;
use crate::transfer::TransferMeter;
use choice::{DiskNeed, DiskWish, choose_disk, disk_table};
use disks::DiskFacts;
use stream::PieceStream;
use write::{DiskWriter, FlashError, HEAD_BYTES};

type BoxedError = Box<dyn std::error::Error>;

/// What is asked of a flash.
#[derive(Debug)]
pub(crate) struct FlashRequest<'a> {
    /// A file or a URL.
    pub(crate) image: &'a str,
    /// A path or an expression.
    pub(crate) device: &'a str,
    pub(crate) keys: Vec<PublicKey>,
    /// What the file's SHA-256 must be.
    pub(crate) sha256: Option<&'a str>,
    pub(crate) user_data: Option<&'a Path>,
    pub(crate) consent: Consent,
    pub(crate) output: OutputFormat,
}

/// Whether a person has agreed to lose what is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    Ask,
    Given,
    /// Only show what would be done.
    ShowOnly,
}

/// What was written.
#[derive(Debug, serde::Serialize)]
pub(crate) struct FlashedDisk {
    pub(crate) disk: PathBuf,
    /// Whose signature holds, in words.
    pub(crate) signed: String,
    pub(crate) sha256: Option<String>,
}

/// Writes an image; nothing if it was only to be shown, or nobody agreed.
pub(crate) fn flash_image(
    request: &FlashRequest<'_>,
    interrupt: &InterruptFlag,
) -> Result<Option<FlashedDisk>, BoxedError> {
    let failed = |source| FlashError::Image { image: request.image.to_owned(), source };
    let user_data = request.user_data.map(seed::read_file).transpose()?;
    let mut stream = PieceStream::open_source(request.image, request.sha256.is_some()).map_err(failed)?;
    let first = stream.next_piece().map_err(failed)?;
    let first = first.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
    let need = image_need(&first)
        .map_err(|because| FlashError::Refused { image: request.image.to_owned(), because })?;
    let Some(disk) = agreed_disk(request, need)? else { return Ok(None) };
    let file =
        open_disk(&disk.path).map_err(|source| FlashError::Open { path: disk.path.clone(), source })?;
    let written = write_disk(request, interrupt, &disk, file, stream, &first, user_data);
    match written {
        Ok(flashed) => Ok(Some(flashed)),
        Err(source) => Err(FlashError::Unfinished { path: disk.path, source }.into()),
    }
}

/// What the first piece says of the whole image.
fn image_need(first: &Piece) -> Result<DiskNeed, String> {
    let none = || "it has no partition table (GPT) for sectors of 512 bytes".to_owned();
    let data = first.data.as_ref().ok_or_else(none)?;
    let start = usize::try_from(PRIMARY_OFFSET.get()).map_err(|error| error.to_string())?;
    let copy = data.get(start..start + COPY_BYTES).ok_or_else(none)?;
    // How large the disk is follows from the table itself: the backup is in its last sector.
    let found =
        gpt::read_primary(copy, Bytes::new(disk_formats::disk::MAX_DISK_BYTES)).map_err(|_| none())?;
    if !found.table.is_of_image() {
        return Err("its partitions are not those of a Catamaran image".to_owned());
    }
    if first.length < HEAD_BYTES {
        return Err("it ends in its first MiB".to_owned());
    }
    Ok(DiskNeed { bytes: (found.other_lba + 1).saturating_mul(512), sector: 512 })
}

/// Shows the disks, chooses one, and asks.
fn agreed_disk(request: &FlashRequest<'_>, need: DiskNeed) -> Result<Option<DiskFacts>, BoxedError> {
    let (wish, disks) = wished_disks(request.device)?;
    let table = disk_table(&wish, &disks, need);
    if request.output == OutputFormat::People {
        eprintln!("{table}");
    }
    let disk = disks[choose_disk(&wish, &disks, need)?].clone();
    match request.consent {
        Consent::Given => Ok(Some(disk)),
        Consent::ShowOnly => {
            println!("would write {} to {}", request.image, disk.path.display());
            Ok(None)
        }
        Consent::Ask if !io::stdin().is_terminal() => {
            Err("all that is on the disk would be lost: agree to it with --yes".into())
        }
        Consent::Ask => {
            eprint!("All that is on {} will be lost. Type yes to go on: ", disk.path.display());
            io::stderr().flush()?;
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer)?;
            Ok((answer.trim() == "yes").then_some(disk))
        }
    }
}

fn wished_disks(device: &str) -> Result<(DiskWish, Vec<DiskFacts>), BoxedError> {
    if device.contains('/') || Path::new(device).is_file() {
        let disk = disks::disk_at(Path::new(device))
            .map_err(|source| FlashError::Open { path: PathBuf::from(device), source })?;
        let wish = DiskWish::Path(disk.path.clone());
        // The others are shown, too: whoever mistyped sees it.
        let mut all = disks::list_disks().unwrap_or_default();
        all.retain(|other| other.path != disk.path);
        all.insert(0, disk);
        return Ok((wish, all));
    }
    Ok((DiskWish::Expression(device.parse()?), disks::list_disks()?))
}

fn open_disk(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if std::fs::metadata(path)?.file_type().is_block_device() {
        // open(2): on a block device this fails while the system uses it, whatever was found before.
        options.custom_flags(nix::fcntl::OFlag::O_EXCL.bits());
    }
    options.open(path)
}

fn write_disk(
    request: &FlashRequest<'_>,
    interrupt: &InterruptFlag,
    disk: &DiskFacts,
    file: File,
    mut stream: PieceStream,
    first: &Piece,
    user_data: Option<Vec<u8>>,
) -> Result<FlashedDisk, BoxedError> {
    let mut writer = DiskWriter::start_writing(file, disk.bytes)?;
    writer.add(first)?;
    let table = writer.partition_table()?;
    let mut meter = TransferMeter::start_meter("write", request.output);
    while let Some(piece) = stream.next_piece()? {
        interrupt.check_interrupted()?;
        writer.add(&piece)?;
        let (done, total) = stream.read_position();
        meter.set_progress(done, total);
    }
    drop(meter);
    writer.write_needed_zeros(&table)?;
    let sha256 = stream.file_digest();
    if let Some(wanted) = request.sha256
        && !sha256.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(wanted))
    {
        let found = sha256.unwrap_or_default();
        return Err(format!("the image's SHA-256 is {found}, and {wanted} was promised").into());
    }
    let mut meter = TransferMeter::start_meter("read back", request.output);
    writer.read_back(&mut |done, total| {
        meter.set_progress(done, total);
        interrupt.check_interrupted().map_err(io::Error::other)
    })?;
    drop(meter);
    let view = DiskImage::of_disk(&disk.path, writer.disk_view()?);
    let threads = crate::convert::all_threads();
    let question = InspectQuestion { keys: request.keys.clone(), depth: InspectDepth::Blocks, threads };
    let signed = inspect::verify_slots(&view, &table, &question)?;
    if let Some(bytes) = user_data {
        let files = [FatFile { path: format!("{}/user-data", crate::boot::esp::SEED), bytes }];
        seed::add_files(&DiskImage::open_image(&disk.path)?, &table, &files)?;
    }
    writer.finish_disk(&table)?;
    Ok(FlashedDisk { disk: disk.path.clone(), signed, sha256 })
}

#[cfg(test)]
mod tests;
