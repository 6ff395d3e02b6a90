//! Files, directories and links.
//!
//! Knows owners by name and what lies behind symbolic links. Refuses to write through a link to what
//! the machine is reached by, and through one of a user's at all. Invariant: parents that were made are owned as the file is.

use std::fs;
use std::path::{Path, PathBuf};

use user_data::plan::step::{Account, Directory, Existing, File, Link, Owner, Step};
use user_data::protected::{self, Objection};

use super::{Host, access, content, guard, units};
use crate::accounts;
use crate::files::{self, Change, Rights};
use crate::folder::Held;
use crate::step_error::StepError;

/// The mode of a file that nobody said one for, as cloud-init and CoreOS have it.
const NEW_FILE: u32 = 0o644;
/// A file that is appended to is read first.
const MOST_APPENDED: u64 = 64 << 20;
/// Set-user-ID and set-group-ID.
const SET_ID: u32 = 0o6000;

/// Writes a file of a document.
pub(crate) fn write_file(file: &File, host: &Host<'_>) -> Result<Change, StepError> {
    let (path, real) = place(&file.path, host);
    // sshd reads the keys in a home only if they are its user's.
    let rights = access::key_rights(&path, host).map_or_else(|| file_rights(file, &path, host), Ok)?;
    let bytes = content::bytes(&file.content, host)?;
    let bytes = match file.existing {
        Existing::Append => appended(&path, bytes, rights)?,
        Existing::Refuse if is_another(&path, &bytes) => {
            return Err(refusal(&file.path, "is there already, and replacing it was not asked for"));
        }
        Existing::Refuse | Existing::Replace => bytes,
    };
    allow(protected::file(&real, &bytes), &file.path, &real)?;
    let rights = units::file_rights(&real, &bytes, rights, host);
    if protected::concerns_access(&real) {
        guard::remember(&file.path, host);
        return files::write_durably(&path, &bytes, rights);
    }
    files::write(&path, &bytes, rights)
}

/// Owner and mode of a file of a document. What it does not say stays as it is on a file that is there:
/// a secret that is appended to, or replaced, must not become one that all may read.
fn file_rights(file: &File, path: &Path, host: &Host<'_>) -> Result<Rights, StepError> {
    let known = files::existing_rights(path);
    let mode = file.mode.or_else(|| known.map(|known| known.mode)).unwrap_or(NEW_FILE);
    let given = rights(&file.owner, mode, host)?;
    let Some(known) = known else { return Ok(given) };
    let Owner { user, group } = &file.owner;
    Ok(Rights {
        uid: if user.is_some() { given.uid } else { known.uid },
        gid: if group.is_some() { given.gid } else { known.gid },
        mode,
    })
}

/// Whether something else is at a path; what cannot be read is.
fn is_another(path: &Path, bytes: &[u8]) -> bool {
    let most = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    files::read(path, 0, most).map_or(true, |held| held.is_some_and(|held| held.content != bytes))
}

/// What a file becomes when something is added to its end, once.
fn appended(path: &Path, addition: Vec<u8>, rights: Rights) -> Result<Vec<u8>, StepError> {
    let Some(Held { content: mut known, rights: before }) = files::read(path, rights.uid, MOST_APPENDED)?
    else {
        return Ok(addition);
    };
    // Else what one user wrote would run as another.
    if rights.mode & SET_ID != 0 && rights.uid != before.uid {
        return Err(refusal(&path.display().to_string(), "is another user's, so it gets no set-user-ID bit"));
    }
    if !known.ends_with(&addition) {
        known.extend(addition);
    }
    Ok(known)
}

/// Makes a directory of a document.
pub(crate) fn make_directory(directory: &Directory, host: &Host<'_>) -> Result<Change, StepError> {
    let (path, real) = place(&directory.path, host);
    let meant = Directory { path: real.clone(), ..directory.clone() };
    allow(protected::objection(&Step::MakeDirectory(meant)), &directory.path, &real)?;
    let rights = rights(&directory.owner, directory.mode, host)?;
    if directory.overwrite {
        files::remove(&path)?;
    }
    files::make_parents(&path, rights)?;
    files::make_directory(&path, rights)
}

/// Makes a link of a document.
pub(crate) fn make_link(link: &Link, host: &Host<'_>) -> Result<Change, StepError> {
    let (path, real) = place(&link.path, host);
    let meant = Link { path: real.clone(), ..link.clone() };
    allow(protected::objection(&Step::MakeLink(meant)), &link.path, &real)?;
    let already = fs::read_link(&path).is_ok_and(|target| target == Path::new(&link.target));
    if !already && !link.overwrite && fs::symlink_metadata(&path).is_ok() {
        return Err(refusal(&link.path, "is there already, and replacing it was not asked for"));
    }
    if !link.hard {
        return files::link(&path, &link.target);
    }
    files::remove(&path)?;
    files::make_parents(&path, rights(&link.owner, 0o755, host)?)?;
    let (target, real) = place(&link.target, host);
    if let Some(instead) = protected::path(&real) {
        return Err(refusal(&link.target, &format!("is protected; {instead}")));
    }
    files::hard_link(&path, &target)
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

/// Refuses a mount on a place that links lead to something which people get in by.
pub(super) fn allow_mount(path: &str, host: &Host<'_>) -> Result<(), StepError> {
    // The mount point itself may be a link too, which mount(8) follows.
    let real = host.root.real_path(&host.root.path(path)).unwrap_or_else(|| place(path, host).1);
    allow(protected::mounts::place(&real), path, &real)
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
