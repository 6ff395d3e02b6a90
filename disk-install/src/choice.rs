//! Chooses the disk, and says of every disk why it is it, or is not.
//!
//! Pure: facts in, a table and a choice out. Invariant: no disk that is mounted, in use, too small, or of another sector
//! size is ever chosen, and none where two could be meant.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use crate::disks::{self, DiskFacts};
use crate::expression::{DiskExpression, DiskMatch, ParseExpressionError};
use error_text::printable::printable_text;

/// What the image needs of a disk.
#[derive(Debug, Clone, Copy)]
pub struct DiskNeed {
    /// How large it must be.
    pub bytes: u64,
    /// Bytes of a sector.
    pub sector: u64,
}

/// How a person said which disk.
#[derive(Debug, Clone)]
pub enum DiskWish {
    /// By what the disk is.
    Expression(DiskExpression),
    /// By its node.
    Path(PathBuf),
}

/// The disks of this machine, and which of them a text means: an expression, or a path.
pub fn find_disks(device: &str) -> Result<(DiskWish, Vec<DiskFacts>), FindDisksError> {
    let listed = || disks::list_disks().map_err(FindDisksError::List);
    if !device.contains('/') && !Path::new(device).is_file() {
        return Ok((DiskWish::Expression(device.parse()?), listed()?));
    }
    let failed = |source| FindDisksError::Open { path: PathBuf::from(device), source };
    let disk = disks::disk_at(Path::new(device)).map_err(failed)?;
    let wish = DiskWish::Path(disk.path.clone());
    // The others are shown, too, so that a person who mistyped sees it.
    let mut all = disks::list_disks().unwrap_or_default();
    all.retain(|other| other.path != disk.path);
    all.insert(0, disk);
    Ok((wish, all))
}

/// Why it is not known which disks there are.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum FindDisksError {
    #[error(transparent)]
    Expression(#[from] ParseExpressionError),
    #[error("cannot list the disks of this machine")]
    List(#[source] io::Error),
    #[error("cannot use {path}")]
    Open { path: PathBuf, source: io::Error },
}

/// Asks a person whether all that is on the disk may be lost.
pub fn ask_consent(
    disk: &DiskFacts,
    loss: &str,
    input: &mut dyn io::BufRead,
    output: &mut dyn io::Write,
) -> io::Result<bool> {
    write!(output, "{loss} on {} will be lost. Type yes to go on: ", disk.path.display())?;
    output.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Chooses; gives the index.
pub fn choose_disk(wish: &DiskWish, disks: &[DiskFacts], need: DiskNeed) -> Result<usize, ChooseDiskError> {
    let matches = match_disks(wish, disks);
    let mut fitting = (0..disks.len()).filter(|index| matches[*index] == DiskMatch::Yes);
    let Some(index) = fitting.next() else { return Err(ChooseDiskError::None) };
    let more: Vec<usize> = fitting.collect();
    if !more.is_empty() {
        let all = std::iter::once(index).chain(more);
        return Err(ChooseDiskError::Several {
            paths: all.map(|index| disks[index].path.display().to_string()).collect(),
        });
    }
    match refusal_reason(&disks[index], need) {
        Some(because) => {
            Err(ChooseDiskError::Refused { path: disks[index].path.display().to_string(), because })
        }
        None => Ok(index),
    }
}

fn match_disks(wish: &DiskWish, disks: &[DiskFacts]) -> Vec<DiskMatch> {
    match wish {
        DiskWish::Expression(expression) => expression.match_disks(disks),
        DiskWish::Path(path) => disks
            .iter()
            .map(
                |disk| {
                    if disk.path == *path { DiskMatch::Yes } else { DiskMatch::No("not named".to_owned()) }
                },
            )
            .collect(),
    }
}

/// Why the disk must not be written to.
fn refusal_reason(disk: &DiskFacts, need: DiskNeed) -> Option<String> {
    if let Some(place) = disk.mounts.first() {
        return Some(format!("it is mounted at {place}: unmount it first"));
    }
    if let Some(user) = disk.users.first() {
        return Some(format!("{user} uses it: stop that first"));
    }
    if disk.read_only {
        return Some("it can only be read".to_owned());
    }
    if disk.sector != need.sector {
        let DiskFacts { sector, .. } = disk;
        return Some(format!("it has sectors of {sector} bytes, and the image is for {}", need.sector));
    }
    (disk.bytes < need.bytes)
        .then(|| format!("it has {} bytes, and the image needs {}", disk.bytes, need.bytes))
}

/// The table of all disks.
#[must_use]
pub fn disk_table(wish: &DiskWish, disks: &[DiskFacts], need: DiskNeed) -> String {
    let mut text = String::new();
    let line = |text: &mut String, cells: [&str; 7]| {
        let [path, size, transport, model, serial, wwn, says] = cells;
        let _ =
            writeln!(text, "{path:<14} {size:>9}  {transport:<9} {model:<20} {serial:<20} {wwn:<22} {says}");
    };
    line(&mut text, ["disk", "size", "transport", "model", "serial", "wwn", "match"]);
    for (disk, found) in disks.iter().zip(match_disks(wish, disks)) {
        let says = match (found, refusal_reason(disk, need)) {
            (DiskMatch::No(because), _) => format!("no: {because}"),
            (DiskMatch::Yes, Some(because)) => format!("yes, but {because}"),
            (DiskMatch::Yes, None) => "YES".to_owned(),
        };
        let size = format!("{:.1} GB", to_gigabytes(disk.bytes));
        let cells = [&disk.model, &disk.serial, &disk.wwn].map(|cell| printable_text(cell));
        let [model, serial, wwn] = cells.each_ref().map(String::as_str);
        line(
            &mut text,
            [
                &disk.path.display().to_string(),
                &size,
                &disk.transport,
                model,
                serial,
                wwn,
                &printable_text(&says),
            ],
        );
    }
    text
}

fn to_gigabytes(bytes: u64) -> f64 {
    // Tenths are exact enough for people, and fit.
    f64::from(u32::try_from(bytes / 100_000_000).unwrap_or(u32::MAX)) / 10.0
}

/// Why no disk is chosen.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ChooseDiskError {
    None,
    Refused { path: String, because: String },
    Several { paths: Vec<String> },
}

impl std::error::Error for ChooseDiskError {}

impl fmt::Display for ChooseDiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "no disk matches; nothing was written"),
            Self::Refused { path, because } => write!(f, "{path} is not written to: {because}"),
            Self::Several { paths } => {
                write!(f, "{} match; nothing was written. Say more, for example serial=", paths.join(" and "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
