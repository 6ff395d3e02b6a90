//! Writes an image to a disk of this machine: `image-builder flash`.
//!
//! Data flows one way: what was typed → disks of this machine → choice → writing → report. The choice is pure.
//! Invariant: without a disk that is meant beyond doubt nothing is written, and until all of it is proven, the disk
//! does not start.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows the table of disks and asks")]

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk_formats::open::Opened;
use disk_install::choice::{DiskNeed, ask_consent, choose_disk, disk_table, find_disks};
use disk_install::disks::DiskFacts;
use disk_install::esp::{FatFile, SEED};
use disk_install::install::{InstallRequest, InstallStage, Installation, KeptData, image_need};
use disk_install::stream::{FileHash, PieceStream};
use disk_install::target::DiskFile;
use disk_install::write::EraseScope;
use image_format::signed::PublicKey;

use crate::disk::DiskImage;
use crate::inspect::{self, InspectDepth, InspectQuestion};
use crate::process::InterruptFlag;
use crate::progress::OutputFormat;
use crate::seed;
use crate::source::open_source;
use crate::transfer::TransferMeter;

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
    pub(crate) erase: EraseScope,
    pub(crate) keep: KeptData,
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
    let files = user_data.map(|bytes| FatFile { path: format!("{SEED}/user-data"), bytes });
    let hash = if request.sha256.is_some() { FileHash::Wanted } else { FileHash::Unasked };
    let mut stream = open_stream(request.image, hash).map_err(failed)?;
    let first = stream.next_piece().map_err(failed)?;
    let first = first.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
    let need = image_need(&first)
        .map_err(|because| FlashError::Refused { image: request.image.to_owned(), because })?;
    let Some(disk) = agreed_disk(request, need)? else { return Ok(None) };
    let opened =
        DiskFile::open(&disk.path).map_err(|source| FlashError::Open { path: disk.path.clone(), source })?;
    let installation = Installation::prepare(Arc::new(opened), disk.bytes, &first, request.keep)?;
    let mut meter: Option<(InstallStage, TransferMeter)> = None;
    let mut watch = |stage, done, total| {
        if meter.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            meter = Some((stage, TransferMeter::start_meter(stage_name(stage), request.output)));
        }
        if let Some((_, meter)) = &mut meter {
            meter.set_progress(done, total);
        }
        interrupt.check_interrupted().map_err(io::Error::other)
    };
    let installed = installation.carry_out(
        stream,
        &first,
        InstallRequest {
            sha256: request.sha256,
            files: files.as_slice(),
            erase: request.erase,
            keep: request.keep,
            verify: &|view, table| {
                let view = DiskImage::of_disk(&disk.path, view);
                let threads = crate::convert::all_threads();
                let question =
                    InspectQuestion { keys: request.keys.clone(), depth: InspectDepth::Blocks, threads };
                inspect::verify_slots(&view, table, &question)
            },
            watch: &mut watch,
        },
    );
    match installed {
        Ok(installed) => {
            Ok(Some(FlashedDisk { disk: disk.path, signed: installed.signed, sha256: installed.sha256 }))
        }
        Err(source) => Err(FlashError::Unfinished { path: disk.path, source: source.into() }.into()),
    }
}

const fn stage_name(stage: InstallStage) -> &'static str {
    match stage {
        InstallStage::Erase => "erase",
        InstallStage::ReadBack => "read back",
        InstallStage::Write => "write",
    }
}

/// Opens a file or a URL. What is in an archive is unpacked first.
fn open_stream(image: &str, hash: FileHash) -> io::Result<PieceStream> {
    if PieceStream::is_url(image) {
        return PieceStream::fetch(image);
    }
    let path = Path::new(image);
    let file = std::fs::File::open(path)?;
    if let Opened::Stream(_) = disk_formats::open::open_disk(file).map_err(io::Error::other)? {
        return PieceStream::of_compressed(path);
    }
    let sha256 = hash.of_file(path)?;
    Ok(PieceStream::of_disk(open_source(path).map_err(io::Error::other)?.disk, sha256))
}

/// Shows the disks, chooses one, and asks.
fn agreed_disk(request: &FlashRequest<'_>, need: DiskNeed) -> Result<Option<DiskFacts>, BoxedError> {
    let (wish, disks) = find_disks(request.device)?;
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
            let loss = match request.keep {
                KeptData::Nothing => "All that is",
                KeptData::State => "All but STATE",
            };
            let agreed = ask_consent(&disk, loss, &mut io::stdin().lock(), &mut io::stderr())?;
            Ok(agreed.then_some(disk))
        }
    }
}

/// Why an image is not on the disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlashError {
    #[error("cannot read the image {image}")]
    Image { image: String, source: io::Error },
    #[error("cannot use {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{image} is no image of ours that can be installed: {because}. Nothing was written")]
    Refused { image: String, because: String },
    #[error("cannot write {path}; it has no partition table now, does not start, and can be written again")]
    Unfinished { path: PathBuf, source: BoxedError },
}

#[cfg(test)]
mod tests;
