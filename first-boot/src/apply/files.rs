//! Files, directories and links.
//!
//! Knows owners by name and what lies behind symbolic links. Refuses to write through a link to what
//! the machine is reached by, and through one of a user's at all. Invariant: parents that were made are owned as the file is.
//!
//! Documentation: cloud-init's module "Write Files", and for the others Ignition's `storage` in
//! <https://coreos.github.io/ignition/configuration-v3_6/>.

use std::fs;
use std::path::{Path, PathBuf};

use user_data::plan::step::{
    AccountRef, DirectoryStep, ExistingFile, FileOwner, FileStep, LinkStep, PlacedFile, PlanStep,
};
use user_data::protected::{self, PolicyObjection};

use super::{ApplyContext, access, content, snapshot, units};
use crate::accounts;
use crate::files::{self, FileChange, FileRights};
use crate::folder::{self, Held};
use crate::step_error::StepError;

/// The mode of a file that nobody said one for, as cloud-init and CoreOS have it.
const NEW_FILE: u32 = 0o644;
/// A file that is appended to is read first.
const MOST_APPENDED: u64 = 64 << 20;
/// Set-user-ID and set-group-ID.
const SET_ID: u32 = 0o6000;
/// Ignition's mode of a directory that is made without one; cloud-init has no directories.
const DIRECTORY_MODE: u32 = 0o755;

/// Writes a file of a document.
pub(crate) fn write_file(file: &FileStep, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let (path, real) = resolve_place(&file.path, host);
    // sshd reads the keys in a home only if they are its user's.
    let rights = match access::key_rights(&path, host) {
        Some(rights) => rights,
        None => kept_rights(&file.owner, file.mode, files::existing_rights(&path), NEW_FILE, host)?,
    };
    let bytes = content::content_bytes(&file.content, host)?;
    let bytes = match file.existing {
        ExistingFile::Append => append_once(&path, bytes, rights)?,
        ExistingFile::Refuse if is_another(&path, &bytes) => {
            return Err(refuse_path(&file.path, "is there already, and replacing it was not asked for"));
        }
        ExistingFile::Refuse | ExistingFile::Replace => bytes,
    };
    check_allowed(protected::check_file(&real, &bytes), &file.path, &real)?;
    let rights = units::file_rights(&real, &bytes, rights, host);
    if protected::paths::concerns_access(&real) {
        snapshot::snapshot_file(&file.path, host);
        return files::write_durably(&path, &bytes, rights);
    }
    files::write(&path, &bytes, rights)
}

/// Whether something else is at a path; what cannot be read is.
fn is_another(path: &Path, bytes: &[u8]) -> bool {
    let most = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    files::read(path, 0, most).map_or(true, |held| held.is_some_and(|held| held.content != bytes))
}

/// What a file becomes when something is added to its end, once.
fn append_once(path: &Path, addition: Vec<u8>, rights: FileRights) -> Result<Vec<u8>, StepError> {
    let Some(Held { content: mut known, rights: before }) = files::read(path, rights.uid, MOST_APPENDED)?
    else {
        return Ok(addition);
    };
    // Else what one user wrote would run as another.
    if rights.mode & SET_ID != 0 && rights.uid != before.uid {
        return Err(refuse_path(
            &path.display().to_string(),
            "is another user's, so it gets no set-user-ID bit",
        ));
    }
    // A run that a power cut ended is done again, and must not add it twice.
    if !known.ends_with(&addition) {
        known.extend(addition);
    }
    Ok(known)
}

/// Puts a file in its place as Ignition does: <https://coreos.github.io/ignition/configuration-v3_6/>.
pub(crate) fn place_file(file: &PlacedFile, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let (path, real) = resolve_place(&file.path, host);
    claim_place(&file.path, &real, host)?;
    let known = files::stat_path(&path);
    if known.is_some_and(|stat| !folder::is_regular(&stat)) && !file.overwrite {
        return Err(refuse_path(
            &file.path,
            "is there already, but is no regular file, and `overwrite` is off",
        ));
    }
    // What is overwritten leaves neither its mode nor its owner behind.
    let kept = files::existing_rights(&path).filter(|_| !file.overwrite);
    let rights = match access::key_rights(&path, host) {
        Some(rights) => rights,
        None => kept_rights(&file.owner, file.mode, kept, NEW_FILE, host)?,
    };
    let bytes = placed_bytes(file, &path, kept.map(|_| rights), host)?;
    check_allowed(protected::check_file(&real, &bytes), &file.path, &real)?;
    let rights = units::file_rights(&real, &bytes, rights, host);
    if known.is_some_and(|stat| folder::is_directory(&stat)) {
        files::remove_path(&path)?;
    }
    if protected::paths::concerns_access(&real) {
        snapshot::snapshot_file(&file.path, host);
        return files::write_durably(&path, &bytes, rights);
    }
    files::write(&path, &bytes, rights)
}

/// What a placed file holds in the end; `kept` are the rights of one that is there and stays.
fn placed_bytes(
    file: &PlacedFile,
    path: &Path,
    kept: Option<FileRights>,
    host: &ApplyContext<'_>,
) -> Result<Vec<u8>, StepError> {
    let mut addition = Vec::new();
    for content in &file.append {
        addition.extend(content::content_bytes(content, host)?);
    }
    let Some(contents) = &file.contents else {
        return match kept {
            Some(rights) => append_once(path, addition, rights),
            None => Ok(addition),
        };
    };
    let mut bytes = content::content_bytes(contents, host)?;
    bytes.extend(addition);
    // A second run finds what the first one wrote.
    if kept.is_some() && is_another(path, &bytes) {
        return Err(refuse_path(&file.path, "is there already, and replacing it was not asked for"));
    }
    Ok(bytes)
}

/// Keeps a place for one path of a document. Links that are there may lead two of them to one place, which is
/// seen nowhere but here.
fn claim_place(path: &str, real: &str, host: &ApplyContext<'_>) -> Result<(), StepError> {
    let mut placed = host.placed.borrow_mut();
    let owner = placed.entry(real.to_owned()).or_insert_with(|| path.to_owned());
    if owner == path {
        return Ok(());
    }
    Err(refuse_path(path, &format!("leads to {real}, where {owner} is put already")))
}

/// Rights of which those that are not given are those of what is there: a secret that is appended to, or
/// replaced, must not become one that all may read.
fn kept_rights(
    owner: &FileOwner,
    mode: Option<u32>,
    known: Option<FileRights>,
    default: u32,
    host: &ApplyContext<'_>,
) -> Result<FileRights, StepError> {
    let mode = mode.or_else(|| known.map(|known| known.mode)).unwrap_or(default);
    let given = rights_for(owner, mode, host)?;
    let uid = known.filter(|_| owner.user.is_none()).map_or(given.uid, |known| known.uid);
    let gid = known.filter(|_| owner.group.is_none()).map_or(given.gid, |known| known.gid);
    Ok(FileRights { uid, gid, mode })
}

/// Makes a directory of a document.
pub(crate) fn make_directory(
    directory: &DirectoryStep,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let (path, real) = resolve_place(&directory.path, host);
    let meant = DirectoryStep { path: real.clone(), ..directory.clone() };
    check_allowed(protected::check_step(&PlanStep::MakeDirectory(meant)), &directory.path, &real)?;
    claim_place(&directory.path, &real, host)?;
    let known = files::stat_path(&path);
    if known.is_some_and(|stat| !folder::is_directory(&stat)) && !directory.overwrite {
        return Err(refuse_path(
            &directory.path,
            "is there already, but is no directory, and `overwrite` is off",
        ));
    }
    let kept = known.filter(|_| !directory.overwrite).map(|stat| folder::rights_of(&stat));
    let rights = kept_rights(&directory.owner, directory.mode, kept, DIRECTORY_MODE, host)?;
    if directory.overwrite {
        files::remove_path(&path)?;
    }
    files::make_parents(&path, rights)?;
    files::make_directory(&path, rights)
}

/// Makes a link of a document.
pub(crate) fn make_link(link: &LinkStep, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let (path, real) = resolve_place(&link.path, host);
    let meant = LinkStep { path: real.clone(), ..link.clone() };
    check_allowed(protected::check_step(&PlanStep::MakeLink(meant)), &link.path, &real)?;
    claim_place(&link.path, &real, host)?;
    let target = link.hard.then(|| resolve_place(&link.target, host));
    if let Some(instead) = target.as_ref().and_then(|(_, real)| protected::paths::denied_path(real)) {
        return Err(refuse_path(&link.target, &format!("is protected; {instead}")));
    }
    let is_right = match &target {
        Some((target, _)) => is_same_file(&path, target),
        None => fs::read_link(&path).is_ok_and(|known| known == Path::new(&link.target)),
    };
    if !is_right && !link.overwrite && files::stat_path(&path).is_some() {
        return Err(refuse_path(&link.path, "is there already, and replacing it was not asked for"));
    }
    match target {
        Some(_) if is_right => Ok(FileChange::None),
        Some((target, _)) => {
            files::remove_path(&path)?;
            files::make_parents(&path, rights_for(&link.owner, DIRECTORY_MODE, host)?)?;
            files::hard_link(&path, &target)
        }
        None => make_symlink(link, &path, is_right, host),
    }
}

/// A link that is right already keeps its owner, unless another one is given.
fn make_symlink(
    link: &LinkStep,
    path: &Path,
    is_right: bool,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let known = files::stat_path(path);
    let kept = known.filter(|_| is_right).map(|stat| folder::rights_of(&stat));
    // symlink(7): a link's own mode is always this one.
    let rights = kept_rights(&link.owner, None, kept, 0o777, host)?;
    if known.is_some_and(|stat| folder::is_directory(&stat)) {
        files::remove_path(path)?;
    }
    files::link_as(path, &link.target, rights)
}

/// Whether two paths name one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let node = |path| files::stat_path(path).map(|stat| (stat.st_dev, stat.st_ino));
    node(one).is_some_and(|known| node(other) == Some(known))
}

/// Where a path lies, and what the machine calls it once links on the way are followed.
fn resolve_place(path: &str, host: &ApplyContext<'_>) -> (PathBuf, String) {
    let place = host.root.path_of(path);
    // Only what is there can be a link. The rest is still to be made, by us and without links.
    let existing = place.ancestors().skip(1).find(|parent| parent.exists());
    let real = existing.and_then(|parent| {
        let rest = place.strip_prefix(parent).ok()?;
        Some(Path::new(&host.root.real_path(parent)?).join(rest).display().to_string())
    });
    (place, real.unwrap_or_else(|| path.to_owned()))
}

/// Refuses a mount on a place that links lead to something which people get in by.
pub(super) fn allow_mount(path: &str, host: &ApplyContext<'_>) -> Result<(), StepError> {
    // The mount point itself may be a link too, which mount(8) follows.
    let real = host.root.real_path(&host.root.path_of(path)).unwrap_or_else(|| resolve_place(path, host).1);
    check_allowed(protected::mounts::mount_objection(&real), path, &real)
}

/// What was planned was judged; here is judged what it leads to, and what was fetched or added to.
fn check_allowed(objection: Option<PolicyObjection>, path: &str, real: &str) -> Result<(), StepError> {
    let Some(PolicyObjection { message, instead }) = objection else { return Ok(()) };
    let verb = if path == real { "is refused" } else { "leads to a protected place" };
    Err(refuse_path(path, &format!("{verb}: {message}; {instead}")))
}

fn refuse_path(path: &str, reason: &str) -> StepError {
    StepError::Path { path: path.to_owned(), reason: reason.to_owned() }
}

fn rights_for(owner: &FileOwner, mode: u32, host: &ApplyContext<'_>) -> Result<FileRights, StepError> {
    let no = |kind, name: &str| StepError::NoAccount { kind, name: name.to_owned() };
    let uid = match &owner.user {
        None => 0,
        Some(AccountRef::Id(id)) => *id,
        Some(AccountRef::Name(name)) => {
            accounts::find_user(host.root, name).ok_or_else(|| no("user", name))?.uid
        }
    };
    let gid = match &owner.group {
        None => 0,
        Some(AccountRef::Id(id)) => *id,
        Some(AccountRef::Name(name)) => {
            accounts::find_group(host.root, name).ok_or_else(|| no("group", name))?
        }
    };
    Ok(FileRights { uid, gid, mode })
}
