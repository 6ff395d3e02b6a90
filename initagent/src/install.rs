//! Writes a system to a disk of this machine: `initagent install`.
//!
//! Data flows one way: what was typed → image → disks → choice → writing → report. `disk-install` does the work, as it
//! does for `image-builder flash`; here is what only the running machine knows: its own system, and whom it trusts.
//! Invariant: a disk is written only by a person's word, and starts only if keys that this machine trusts signed it.

#![expect(clippy::disallowed_methods, reason = "effects live here: it looks at the clock")]

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use disk_formats::piece::Piece;
use disk_install::choice::{
    ChooseDiskError, FindDisksError, ask_consent, choose_disk, disk_table, find_disks,
};
use disk_install::disks::DiskFacts;
use disk_install::esp::{FatFile, MAX_SEED_BYTES, SEED};
use disk_install::install::{
    InstallError, InstallRequest, InstallStage, Installation, InstalledImage, KeptData, image_need,
};
use disk_install::progress::rate_text;
use disk_install::root::verify_slots;
use disk_install::stream::{FileHash, PieceStream};
use disk_install::target::DiskFile;
use disk_install::write::EraseScope;
use first_boot::OutputFormat;
use image_format::signed::{Keyring, ParseKeyError, PublicKey};

use crate::boot_record::{self, BootRecord, ReadBootRecordError};
use crate::initramfs::verified_root::{ReadRootError, read_keyring};

mod running_disk;

use running_disk::{ReadRunningDiskError, RunningDisk};

/// The keys that this image trusts, inside the verified root.
const KEYS: &str = "/usr/lib/catamaran/release-keys";
/// Where the boot keeps what a restart forgets.
const WORKSPACE: &str = "/run/catamaran";
/// A line about progress comes so often at most: it may go to a serial console.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstallOrder {
    /// A device, or an expression.
    pub(crate) disk: String,
    /// What is written.
    pub(crate) source: ImageSource,
    /// Files of keys to trust instead of the machine's.
    pub(crate) keys: Vec<PathBuf>,
    /// What the image's file must have.
    pub(crate) sha256: Option<String>,
    /// Configuration for the first boot.
    pub(crate) user_data: Option<PathBuf>,
    /// What of the old disk stays.
    pub(crate) keep: KeptData,
    /// What of it goes.
    pub(crate) erase: EraseScope,
    /// Whether a person agreed.
    pub(crate) consent: Consent,
    /// How to say what came of it.
    pub(crate) format: OutputFormat,
}

/// What is written to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageSource {
    /// A file, a device or a URL.
    Image(String),
    /// The system that runs.
    RunningSystem,
}

/// Whether a person agreed to lose what is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// To be asked.
    Ask,
    /// Yes.
    Given,
    /// Only to be shown.
    ShowOnly,
}

/// Why no system was installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallSystemError {
    #[error(transparent)]
    Choose(#[from] ChooseDiskError),
    #[error("all that is on {path} would be lost: agree to it with --yes")]
    Consent { path: PathBuf },
    #[error("cannot read the answer")]
    Answer { source: io::Error },
    #[error(transparent)]
    FindDisks(#[from] FindDisksError),
    #[error("cannot read the image {image}")]
    Image { image: String, source: io::Error },
    #[error("{path} holds no public key")]
    Key { path: PathBuf, source: ParseKeyError },
    #[error("cannot tell which keys to trust")]
    Keys(#[from] ReadRootError),
    #[error("cannot use {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot write to {path}. Nothing was written")]
    Prepare { path: PathBuf, source: InstallError },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{image} cannot be installed: {because}. Nothing was written")]
    Refused { image: String, because: String },
    #[error("cannot tell which system runs: give an image with --from")]
    Record(#[from] ReadBootRecordError),
    #[error("cannot read the running system: give an image with --from")]
    RunningDisk(#[from] ReadRunningDiskError),
    #[error("{path} has {size} bytes; machines read at most {MAX_SEED_BYTES}")]
    UserDataSize { path: PathBuf, size: u64 },
    #[error("cannot write {path}; it has no partition table now, does not start, and can be written again")]
    Unfinished { path: PathBuf, source: InstallError },
}

/// Says at once what goes on.
type Announce<'a> = &'a dyn Fn(&str);

/// Installs; gives what to say at the end.
pub(crate) fn install_system(
    order: &InstallOrder,
    announce: Announce<'_>,
) -> Result<String, InstallSystemError> {
    let keys = trusted_keys(&order.keys)?;
    let files = seed_files(order.user_data.as_deref())?;
    let name = order.source.describe();
    let failed = |source| InstallSystemError::Image { image: name.clone(), source };
    let mut stream = open_source(order)?;
    let first = stream.next_piece().map_err(failed)?;
    let first = first.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
    let need =
        image_need(&first).map_err(|because| InstallSystemError::Refused { image: name.clone(), because })?;
    let (wish, disks) = find_disks(&order.disk)?;
    announce(&format!("the disks of this machine:\n{}", disk_table(&wish, &disks, need)));
    let disk = &disks[choose_disk(&wish, &disks, need)?];
    if order.consent == Consent::ShowOnly {
        return Ok(format!("would write {name} to {}", disk.path.display()));
    }
    if !is_agreed(order, disk)? {
        return Ok("nothing was written".to_owned());
    }
    let installed = Writer { order, disk, keys: &keys, announce }.write_disk(stream, &first, &files)?;
    Ok(describe_end(order.format, disk, &installed))
}

impl ImageSource {
    fn describe(&self) -> String {
        match self {
            Self::Image(image) => image.clone(),
            Self::RunningSystem => "the running system".to_owned(),
        }
    }
}

fn open_source(order: &InstallOrder) -> Result<PieceStream, InstallSystemError> {
    let hash = if order.sha256.is_some() { FileHash::Wanted } else { FileHash::Unasked };
    match &order.source {
        ImageSource::RunningSystem => {
            let record = BootRecord::read(Path::new(boot_record::PATH))?;
            let disk = RunningDisk::open(&record, Path::new(WORKSPACE))?;
            Ok(PieceStream::of_disk(Box::new(disk), None))
        }
        ImageSource::Image(image) => {
            let opened = if PieceStream::is_url(image) {
                PieceStream::fetch(image)
            } else {
                PieceStream::of_file(Path::new(image), hash)
            };
            opened.map_err(|source| InstallSystemError::Image { image: image.clone(), source })
        }
    }
}

/// The keys that were named, or those of the running system.
fn trusted_keys(files: &[PathBuf]) -> Result<Keyring, InstallSystemError> {
    if files.is_empty() {
        return Ok(read_keyring(Path::new(KEYS))?);
    }
    let mut keys = Vec::new();
    for path in files {
        let text = fs::read_to_string(path)
            .map_err(|source| InstallSystemError::Read { path: path.clone(), source })?;
        let key: PublicKey =
            text.parse().map_err(|source| InstallSystemError::Key { path: path.clone(), source })?;
        keys.push(key);
    }
    Ok(Keyring::new(keys, 1).map_err(ReadRootError::Keyring)?)
}

fn seed_files(user_data: Option<&Path>) -> Result<Vec<FatFile>, InstallSystemError> {
    let Some(path) = user_data else { return Ok(Vec::new()) };
    let unread = |source| InstallSystemError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(unread)?.len();
    if size > MAX_SEED_BYTES {
        return Err(InstallSystemError::UserDataSize { path: path.to_owned(), size });
    }
    let bytes = fs::read(path).map_err(unread)?;
    Ok(vec![FatFile { path: format!("{SEED}/user-data"), bytes }])
}

fn is_agreed(order: &InstallOrder, disk: &DiskFacts) -> Result<bool, InstallSystemError> {
    match order.consent {
        Consent::Given => Ok(true),
        Consent::ShowOnly => Ok(false),
        Consent::Ask if !io::stdin().is_terminal() => {
            Err(InstallSystemError::Consent { path: disk.path.clone() })
        }
        Consent::Ask => {
            let loss = match order.keep {
                KeptData::Nothing => "All that is",
                KeptData::State => "All but STATE",
            };
            ask_consent(disk, loss, &mut io::stdin().lock(), &mut io::stderr())
                .map_err(|source| InstallSystemError::Answer { source })
        }
    }
}

/// What a disk is written by.
struct Writer<'a> {
    order: &'a InstallOrder,
    disk: &'a DiskFacts,
    keys: &'a Keyring,
    announce: Announce<'a>,
}

impl Writer<'_> {
    fn write_disk(
        &self,
        stream: PieceStream,
        first: &Piece,
        files: &[FatFile],
    ) -> Result<InstalledImage, InstallSystemError> {
        let Self { order, disk, keys, announce } = *self;
        let path = || disk.path.clone();
        let target =
            DiskFile::open(&disk.path).map_err(|source| InstallSystemError::Open { path: path(), source })?;
        let installation = Installation::prepare(Arc::new(target), disk.bytes, first, order.keep)
            .map_err(|source| InstallSystemError::Prepare { path: path(), source })?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut meter = ProgressMeter { announce, current: None };
        let request = InstallRequest {
            sha256: order.sha256.as_deref(),
            files,
            erase: order.erase,
            keep: order.keep,
            verify: &|view, table| {
                announce("verifying signatures and every block");
                verify_slots(view.as_ref(), table, keys, threads)
            },
            watch: &mut |stage, done, total| {
                meter.advance(stage, done, total);
                Ok(())
            },
        };
        installation
            .carry_out(stream, first, request)
            .map_err(|source| InstallSystemError::Unfinished { path: path(), source })
    }
}

fn describe_end(format: OutputFormat, disk: &DiskFacts, installed: &InstalledImage) -> String {
    let (path, signed) = (disk.path.display().to_string(), &installed.signed);
    match format {
        OutputFormat::Json => {
            let end = serde_json::json!({ "disk": path, "signed": signed, "sha256": installed.sha256 });
            format!("{end:#}")
        }
        OutputFormat::Text => format!(
            "wrote {path}, and read it back; signed: {signed}\nTake the medium away that this system runs from, and restart."
        ),
    }
}

/// Says how far it is, now and then.
struct ProgressMeter<'a> {
    announce: Announce<'a>,
    /// What goes on, since when, and when it was last said.
    current: Option<(InstallStage, Instant, Instant)>,
}

impl ProgressMeter<'_> {
    fn advance(&mut self, stage: InstallStage, done: u64, total: u64) {
        let now = Instant::now();
        let (known, began, said) = *self.current.get_or_insert((stage, now, now));
        if known != stage {
            self.current = Some((stage, now, now));
        } else if now.duration_since(said) >= INTERVAL {
            self.current = Some((stage, began, now));
            let word = match stage {
                InstallStage::Erase => "erasing",
                InstallStage::ReadBack => "reading back",
                InstallStage::Write => "writing",
            };
            let percent = done.saturating_mul(100) / total.max(1);
            (self.announce)(&format!(
                "{word}: {percent} %, {}",
                rate_text(done, total, now.duration_since(began))
            ));
        }
    }
}
