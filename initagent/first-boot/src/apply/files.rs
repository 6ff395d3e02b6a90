//! Files, directories and links.
//!
//! Knows owners by name and what lies behind symbolic links. Refuses to write through a link to what
//! the machine is reached by. Invariant: parents that were made are owned as the file is.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use user_data::plan::step::{Account, Directory, Existing, File, Link, Owner, PlacedFile, Step};
use user_data::protected::{self, Objection};

use super::{Host, content, guard};
use crate::accounts;
use crate::files::{self, Change, Rights};
use crate::step_error::StepError;

/// A file that is appended to is read first.
const MOST_APPENDED: u64 = 64 << 20;
/// Ignition's modes of what is made without one.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// Writes a file of a document.
pub(crate) fn write_file(file: &File, host: &Host<'_>) -> Result<Change, StepError> {
    let (path, real) = place(&file.path, host);
    let rights = rights(&file.owner, file.mode, host)?;
    let bytes = content::bytes(&file.content, host)?;
    let bytes = match file.existing {
        Existing::Append => appended(&path, bytes)?,
        Existing::Refuse if path.exists() && fs::read(&path).ok().as_deref() != Some(bytes.as_slice()) => {
            return Err(refusal(&file.path, "is there already, and replacing it was not asked for"));
        }
        Existing::Refuse | Existing::Replace => bytes,
    };
    allow(protected::file(&real, &bytes), &file.path, &real)?;
    if protected::concerns_access(&real) {
        guard::remember(&file.path, host);
        return files::write_durably(&path, &bytes, rights);
    }
    files::write(&path, &bytes, rights)
}

/// What a file becomes when something is added to its end, once.
fn appended(path: &Path, addition: Vec<u8>) -> Result<Vec<u8>, StepError> {
    let read = |source| StepError::Read { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(addition),
        Err(error) => return Err(read(error)),
        Ok(meta) if meta.len() > MOST_APPENDED => {
            return Err(refusal(&path.display().to_string(), "is too large to be appended to"));
        }
        Ok(_) => {}
    }
    let mut known = fs::read(path).map_err(read)?;
    if !known.ends_with(&addition) {
        known.extend(addition);
    }
    Ok(known)
}

/// Puts a file in its place as Ignition does: <https://coreos.github.io/ignition/configuration-v3_6/>.
pub(crate) fn place_file(file: &PlacedFile, host: &Host<'_>) -> Result<Change, StepError> {
    let (path, real) = place(&file.path, host);
    claim_place(&file.path, &real, host)?;
    let known = fs::symlink_metadata(&path).ok();
    if known.as_ref().is_some_and(|known| !known.is_file()) && !file.overwrite {
        return Err(refusal(&file.path, "is there already, but is no regular file, and `overwrite` is off"));
    }
    // What is overwritten leaves neither its mode nor its owner behind.
    let kept = known.as_ref().filter(|_| !file.overwrite);
    let rights = kept_rights(&file.owner, file.mode, kept, FILE_MODE, host)?;
    let bytes = placed_bytes(file, &path, kept.is_some(), host)?;
    allow(protected::file(&real, &bytes), &file.path, &real)?;
    if known.is_some_and(|known| known.is_dir()) {
        remove(&path)?;
    }
    if protected::concerns_access(&real) {
        guard::remember(&file.path, host);
        return files::write_durably(&path, &bytes, rights);
    }
    files::write(&path, &bytes, rights)
}

/// What a placed file holds in the end.
fn placed_bytes(
    file: &PlacedFile,
    path: &Path,
    is_kept: bool,
    host: &Host<'_>,
) -> Result<Vec<u8>, StepError> {
    let mut addition = Vec::new();
    for content in &file.append {
        addition.extend(content::bytes(content, host)?);
    }
    let Some(contents) = &file.contents else {
        return if is_kept { appended(path, addition) } else { Ok(addition) };
    };
    let mut bytes = content::bytes(contents, host)?;
    bytes.extend(addition);
    // A second run finds what the first one wrote.
    if is_kept && fs::read(path).ok().as_deref() != Some(bytes.as_slice()) {
        return Err(refusal(&file.path, "is there already, and replacing it was not asked for"));
    }
    Ok(bytes)
}

/// Keeps a place for one path of a document. Links that are there may lead two of them to one place, which is
/// seen nowhere but here.
fn claim_place(path: &str, real: &str, host: &Host<'_>) -> Result<(), StepError> {
    let mut placed = host.placed.borrow_mut();
    let owner = placed.entry(real.to_owned()).or_insert_with(|| path.to_owned());
    if owner == path {
        return Ok(());
    }
    Err(refusal(path, &format!("leads to {real}, where {owner} is put already")))
}

/// Rights of which those that are not given are those of what is there.
fn kept_rights(
    owner: &Owner,
    mode: Option<u32>,
    known: Option<&Metadata>,
    default: u32,
    host: &Host<'_>,
) -> Result<Rights, StepError> {
    let mode = mode.unwrap_or_else(|| known.map_or(default, |known| known.mode() & 0o7777));
    let given = rights(owner, mode, host)?;
    let uid = known.filter(|_| owner.user.is_none()).map_or(given.uid, Metadata::uid);
    let gid = known.filter(|_| owner.group.is_none()).map_or(given.gid, Metadata::gid);
    Ok(Rights { uid, gid, mode })
}

/// Makes a directory of a document.
pub(crate) fn make_directory(directory: &Directory, host: &Host<'_>) -> Result<Change, StepError> {
    let (path, real) = place(&directory.path, host);
    let meant = Directory { path: real.clone(), ..directory.clone() };
    allow(protected::objection(&Step::MakeDirectory(meant)), &directory.path, &real)?;
    claim_place(&directory.path, &real, host)?;
    let known = fs::symlink_metadata(&path).ok();
    if known.as_ref().is_some_and(|known| !known.is_dir()) && !directory.overwrite {
        return Err(refusal(
            &directory.path,
            "is there already, but is no directory, and `overwrite` is off",
        ));
    }
    let kept = known.as_ref().filter(|_| !directory.overwrite);
    let rights = kept_rights(&directory.owner, directory.mode, kept, DIRECTORY_MODE, host)?;
    if directory.overwrite {
        remove(&path)?;
    }
    files::make_parents(&path, rights)?;
    files::make_directory(&path, rights)
}

/// Makes a link of a document.
pub(crate) fn make_link(link: &Link, host: &Host<'_>) -> Result<Change, StepError> {
    let (path, real) = place(&link.path, host);
    let meant = Link { path: real.clone(), ..link.clone() };
    allow(protected::objection(&Step::MakeLink(meant)), &link.path, &real)?;
    claim_place(&link.path, &real, host)?;
    let target = link.hard.then(|| place(&link.target, host));
    if let Some(instead) = target.as_ref().and_then(|(_, real)| protected::path(real)) {
        return Err(refusal(&link.target, &format!("is protected; {instead}")));
    }
    let is_right = match &target {
        Some((target, _)) => is_same_file(&path, target),
        None => fs::read_link(&path).is_ok_and(|known| known == Path::new(&link.target)),
    };
    if !is_right && !link.overwrite && fs::symlink_metadata(&path).is_ok() {
        return Err(refusal(&link.path, "is there already, and replacing it was not asked for"));
    }
    match target {
        Some(_) if is_right => Ok(Change::None),
        Some((target, _)) => {
            remove(&path)?;
            files::make_parents(&path, rights(&link.owner, DIRECTORY_MODE, host)?)?;
            let linked = fs::hard_link(target, &path);
            linked.map(|()| Change::Made).map_err(|source| StepError::Link { path, source })
        }
        None => make_symlink(link, &path, is_right, host),
    }
}

fn make_symlink(link: &Link, path: &Path, is_right: bool, host: &Host<'_>) -> Result<Change, StepError> {
    let known = fs::symlink_metadata(path).ok();
    let kept = known.as_ref().filter(|_| is_right);
    let Rights { uid, gid, .. } = kept_rights(&link.owner, None, kept, 0o777, host)?;
    if !is_right && known.is_some_and(|known| known.is_dir()) {
        remove(path)?;
    }
    let change = files::link(path, &link.target)?;
    let failed = |source| StepError::Link { path: path.to_owned(), source };
    let made = fs::symlink_metadata(path).map_err(failed)?;
    // Where we are not root, as in tests, everything is ours.
    if (made.uid(), made.gid()) == (uid, gid) || !nix::unistd::Uid::effective().is_root() {
        return Ok(change);
    }
    lchown(path, Some(uid), Some(gid)).map_err(failed)?;
    Ok(Change::Made)
}

/// Whether two paths name one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let node = |path| fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    node(one).is_some_and(|known| node(other) == Some(known))
}

fn remove(path: &Path) -> Result<(), StepError> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(|source| StepError::Write { path: path.to_owned(), source })
}

/// Where a path lies, and what the machine calls it once links on the way are followed.
fn place(path: &str, host: &Host<'_>) -> (PathBuf, String) {
    let place = host.root.path(path);
    let existing = place.ancestors().skip(1).find(|parent| parent.exists());
    let real = existing.and_then(|parent| {
        let rest = place.strip_prefix(parent).ok()?;
        Some(Path::new(&host.root.real_path(parent)?).join(rest).display().to_string())
    });
    (place, real.unwrap_or_else(|| path.to_owned()))
}

/// What was planned was judged; here is judged what it leads to, and what was fetched or added to.
fn allow(objection: Option<Objection>, path: &str, real: &str) -> Result<(), StepError> {
    let Some(Objection { message, instead }) = objection else { return Ok(()) };
    let verb = if path == real { "is refused" } else { "leads to a protected place" };
    Err(refusal(path, &format!("{verb}: {message}; {instead}")))
}

fn refusal(path: &str, reason: &str) -> StepError {
    StepError::Path { path: path.to_owned(), reason: reason.to_owned() }
}

fn rights(owner: &Owner, mode: u32, host: &Host<'_>) -> Result<Rights, StepError> {
    let no = |kind, name: &str| StepError::NoAccount { kind, name: name.to_owned() };
    let uid = match &owner.user {
        None => 0,
        Some(Account::Id(id)) => *id,
        Some(Account::Name(name)) => accounts::user(host.root, name).ok_or_else(|| no("user", name))?.uid,
    };
    let gid = match &owner.group {
        None => 0,
        Some(Account::Id(id)) => *id,
        Some(Account::Name(name)) => accounts::group(host.root, name).ok_or_else(|| no("group", name))?,
    };
    Ok(Rights { uid, gid, mode })
}
