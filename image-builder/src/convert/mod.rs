//! Writes an image in the formats of clouds and hypervisors.
//!
//! Data flows one way: kinds → plan of files → one pass over the disk → archives made of what it wrote. All of it is
//! written to a folder beside the output that goes away with its owner; finished files are moved to their place.
//! Invariant: the same disk gives the same bytes, whatever folder or machine.

pub(crate) mod archive;
pub(crate) mod ova;
mod resized;
mod vagrant;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use disk_formats::artefact::open_encoder as format_encoder;
use disk_formats::disk::ReadDisk;
use disk_formats::encode::{EncodeError, Pass, encode_disk};
use disk_formats::format::Format;
use serde::Serialize;

use crate::artefact::ArtefactKind;
use crate::process::InterruptFlag;
use crate::progress::OutputFormat;
use crate::source::{SourceError, open_source};
use crate::transfer::TransferMeter;

/// `ESXi` 6.7 U2 and later take it. Older ones refuse what is newer than they are, and newer ones what is below 10.
pub(crate) const HARDWARE_VERSION: u8 = 15;

/// One thread for each processor.
pub(crate) fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What is asked of a conversion.
#[derive(Debug)]
pub(crate) struct ConvertRequest<'a> {
    pub(crate) image: &'a Path,
    pub(crate) kinds: &'a [ArtefactKind],
    pub(crate) folder: &'a Path,
    /// VMware's version of the virtual machine in an OVA.
    pub(crate) hardware_version: u8,
    /// Where boxes will be downloaded from; without it, the catalogue names the files where they are.
    pub(crate) box_url: Option<&'a str>,
    pub(crate) threads: usize,
    pub(crate) output: OutputFormat,
}

/// A file that was made.
#[derive(Debug, Serialize)]
pub(crate) struct MadeArtefact {
    pub(crate) kind: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The stem of an image's name: `disk` of disk.raw.zst.
pub(crate) fn image_stem(image: &Path) -> String {
    let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut suffixes: Vec<&str> = ArtefactKind::ALL.iter().map(|kind| kind.file_suffix()).collect();
    suffixes.extend([".img", ".iso"]);
    suffixes.sort_by_key(|suffix| std::cmp::Reverse(suffix.len()));
    let found = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|stem| !stem.is_empty());
    found.unwrap_or(&name).to_owned()
}

/// The formats that the kinds are, or are made of.
fn needed_formats(kinds: &[ArtefactKind]) -> Vec<Format> {
    let mut formats = Vec::new();
    let mut add = |format| {
        if !formats.contains(&format) {
            formats.push(format);
        }
    };
    for kind in kinds {
        add(kind.disk_format());
        // Whoever writes a raw image to a disk wants to know what of it to write.
        if matches!(kind.disk_format(), Format::Raw | Format::RawGz | Format::RawXz | Format::RawZst)
            && !matches!(kind, ArtefactKind::Gce)
        {
            add(Format::Bmap);
        }
    }
    formats
}

/// Converts an image.
pub(crate) fn convert_image(
    request: &ConvertRequest<'_>,
    interrupt: &InterruptFlag,
) -> Result<Vec<MadeArtefact>, ConvertError> {
    let source = open_source(request.image)?;
    let stem = image_stem(request.image);
    refuse_overwrite(request, &stem)?;
    let folder = request.folder;
    let prepare = |source| ConvertError::Write { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(prepare)?;
    let workspace = tempfile::Builder::new().prefix(".converting-").tempdir_in(folder).map_err(prepare)?;
    let job = Job { request, interrupt, stem, workspace: workspace.path() };
    job.encode_formats(source.disk.as_ref())?;
    job.make_archives(source.disk.as_ref())?;
    let mut made = Vec::new();
    for format in needed_formats(request.kinds) {
        // What only went into an archive stays behind.
        let wanted = |kind: &&ArtefactKind| kind.disk_format() == format && kind.is_disk();
        if format == Format::Bmap || request.kinds.iter().any(|kind| wanted(&kind)) {
            made.push(job.publish_artefact(format.option_name(), format.file_suffix())?);
        }
    }
    for kind in request.kinds.iter().filter(|kind| !kind.is_disk()) {
        made.push(job.publish_artefact(kind.kind_name(), kind.file_suffix())?);
    }
    if request.kinds.iter().any(|kind| kind.is_box()) {
        let catalogue = vagrant::write_catalogue(&job, source.disk.as_ref(), &made)?;
        made.push(catalogue);
    }
    Ok(made)
}

/// An artefact that would replace the image it is made of.
fn refuse_overwrite(request: &ConvertRequest<'_>, stem: &str) -> Result<(), ConvertError> {
    let image = fs::canonicalize(request.image).ok();
    let same = |suffix: &str| {
        let path = request.folder.join(format!("{stem}{suffix}"));
        image.is_some() && fs::canonicalize(path).ok() == image
    };
    let formats = needed_formats(request.kinds).into_iter().map(Format::file_suffix);
    match formats.chain(request.kinds.iter().map(|kind| kind.file_suffix())).find(|suffix| same(suffix)) {
        Some(_) => Err(ConvertError::Overwrite { image: request.image.to_owned() }),
        None => Ok(()),
    }
}

/// Writes a disk in one format.
pub(crate) fn write_disk(disk: &dyn ReadDisk, format: Format, path: &Path) -> Result<(), ConvertError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let failed = |source| ConvertError::Write { path: path.to_owned(), source };
    let file = File::create_new(path).map_err(failed)?;
    let encoder = format_encoder(format, file, disk.disk_size(), &name).map_err(failed)?;
    let pass = &mut Pass { threads: all_threads(), mapped: &[], watch: &mut |_, _| Ok(()) };
    encode_disk(disk, vec![encoder], pass)?;
    Ok(())
}

/// A conversion on its way.
pub(crate) struct Job<'a> {
    request: &'a ConvertRequest<'a>,
    interrupt: &'a InterruptFlag,
    stem: String,
    workspace: &'a Path,
}

impl Job<'_> {
    /// Where a file is until it is finished.
    fn partial_path(&self, suffix: &str) -> PathBuf {
        self.workspace.join(format!("{}{suffix}", self.stem))
    }

    fn create_partial(&self, suffix: &str) -> Result<File, ConvertError> {
        let path = self.partial_path(suffix);
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        file.map_err(|source| ConvertError::Write { path, source })
    }

    /// One pass over the disk writes every format.
    fn encode_formats(&self, disk: &dyn ReadDisk) -> Result<(), ConvertError> {
        // Google's archive is packed from the disk itself, since its disk has another size.
        let direct: Vec<ArtefactKind> =
            self.request.kinds.iter().copied().filter(|kind| *kind != ArtefactKind::Gce).collect();
        let formats = needed_formats(&direct);
        if formats.is_empty() {
            return Ok(());
        }
        let mapped = if formats.contains(&Format::Bmap) {
            disk_install::mapped::needed(disk).map_err(ConvertError::Map)?
        } else {
            Vec::new()
        };
        let mut encoders = Vec::new();
        for format in formats {
            let name = format!("{}{}", self.stem, format.file_suffix());
            let encoder =
                format_encoder(format, self.create_partial(format.file_suffix())?, disk.disk_size(), &name);
            let path = self.partial_path(format.file_suffix());
            encoders.push(encoder.map_err(|source| ConvertError::Write { path, source })?);
        }
        let mut meter = TransferMeter::start_meter("convert", self.request.output);
        let mut watch = |done, total| self.report_progress(&mut meter, done, total);
        encode_disk(
            disk,
            encoders,
            &mut Pass { threads: self.request.threads, mapped: &mapped, watch: &mut watch },
        )?;
        Ok(())
    }

    /// Shows how far a pass is, and ends it when the user asks.
    fn report_progress(&self, meter: &mut TransferMeter, done: u64, total: u64) -> io::Result<()> {
        meter.set_progress(done, total);
        self.interrupt.check_interrupted().map_err(io::Error::other)
    }

    fn make_archives(&self, disk: &dyn ReadDisk) -> Result<(), ConvertError> {
        for kind in self.request.kinds {
            let made = match kind {
                ArtefactKind::Gce => archive::write_gce(self, disk),
                ArtefactKind::Ova => ova::write(self, disk),
                ArtefactKind::VagrantLibvirt
                | ArtefactKind::VagrantQemu
                | ArtefactKind::VagrantVirtualbox => vagrant::write_box(self, disk, *kind),
                ArtefactKind::Disk(_) => Ok(()),
            };
            made.map_err(|source| ConvertError::Archive { kind: kind.kind_name(), source })?;
        }
        Ok(())
    }

    /// Moves a finished file to its place. It is not synced: whoever loses power converts again.
    fn publish_artefact(&self, kind: &'static str, suffix: &str) -> Result<MadeArtefact, ConvertError> {
        let path = self.request.folder.join(format!("{}{suffix}", self.stem));
        let moved = fs::rename(self.partial_path(suffix), &path).and_then(|()| fs::metadata(&path));
        match moved {
            Ok(found) => Ok(MadeArtefact { kind, path, bytes: found.len() }),
            Err(source) => Err(ConvertError::Write { path, source }),
        }
    }
}

/// Why an image could not be converted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConvertError {
    #[error("cannot make the {kind} archive")]
    Archive { kind: &'static str, source: io::Error },
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("cannot find out what of the disk must be written")]
    Map(#[source] io::Error),
    #[error("{image} is what would be written: name another folder with --out")]
    Overwrite { image: PathBuf },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests;
