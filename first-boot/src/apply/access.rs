//! Keys and host keys.
//!
//! Knows sshd's files and what it asks of their owners. Refuses to take a user's key away. Invariant:
//! after this, sshd finds the keys, whatever else the document wrote.
//!
//! Documentation: sshd(8), `AUTHORIZED_KEYS FILE FORMAT`, `sshd_config(5)`, ssh-keygen(1), ssh-import-id(1).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use user_data::plan::step::{HostKeys, KeySource};
use user_data::ssh_key;

use super::key_files::{KEYS, MAX_KEYS, PLATFORM_KEYS};
use super::{ApplyContext, snapshot};
use crate::accounts::{self, PasswdEntry};
use crate::files::{self, FileChange, FileRights};
use crate::folder::Held;
use crate::home;
use crate::programs::ProgramCall;
use crate::root::MachineRoot;
use crate::step_error::StepError;

const SSH_FOLDER: &str = "/etc/ssh";
const STICKY: u32 = 0o1000;

/// Adds keys to those a user has, and sees to the rights that sshd insists on.
pub(crate) fn authorize_keys(
    user: &str,
    keys: &[String],
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let login = accounts::find_user(host.root, user)
        .ok_or_else(|| StepError::NoAccount { kind: "user", name: user.to_owned() })?;
    let home = host.root.path_of(&login.home);
    let change = prepare_home(&home, &login, host)?;
    let path = home.join(KEYS);
    let folder = path.parent().unwrap_or(&home);
    refuse_link(folder)?;
    // sshd_config(5), `StrictModes`: with a directory or file that others can write, sshd ignores all keys in
    // it.
    let change = change.combine_with(files::make_directory(folder, owned_rights(&login, 0o700))?);
    let known = known_keys(&path, &login)?;
    let mut text = known.clone();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    // Added and never sorted or taken away: the file may be edited by people as well.
    for key in keys.iter().filter(|key| !known.lines().any(|line| line.trim() == key.as_str())) {
        text.extend([key.as_str(), "\n"]);
    }
    // The run ends with a sync; until then a power cut means that it is done again.
    Ok(change.combine_with(files::write(&path, text.as_bytes(), owned_rights(&login, 0o600))?))
}

/// Replaces the keys that the platform has for a user.
pub(crate) fn set_platform_keys(
    user: &str,
    keys: &[String],
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let path = platform_keys(user, host);
    let text: String = keys.iter().flat_map(|key| [key.as_str(), "\n"]).collect();
    let change = files::write(&path, text.as_bytes(), FileRights::PUBLIC)?;
    // Who gets in by these alone wants a home, too.
    match accounts::find_user(host.root, user) {
        Some(login) => Ok(change.combine_with(home::make_home(host.root, &login)?)),
        None => Ok(change),
    }
}

/// Takes away what the platform had for everybody else.
pub(crate) fn retain_platform_keys(root: &MachineRoot, users: &[&str]) {
    let entries = fs::read_dir(root.path_of(PLATFORM_KEYS)).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| !users.iter().any(|user| entry.file_name() == *user)) {
        // The directory is the agent's own and in memory: what is there can be removed.
        let _ = fs::remove_file(entry.path());
    }
}

/// The file of the keys that the platform has for a user.
pub(super) fn platform_keys(user: &str, host: &ApplyContext<'_>) -> PathBuf {
    host.root.path_of(PLATFORM_KEYS).join(user)
}

/// Owner and mode of the file of a user's keys, if that is what lies at a path.
pub(crate) fn key_rights(path: &Path, host: &ApplyContext<'_>) -> Option<FileRights> {
    let is_its_own = |login: &PasswdEntry| host.root.path_of(&login.home).join(KEYS) == path;
    let (_, login) = accounts::all_users(host.root).into_iter().find(|(_, login)| is_its_own(login))?;
    Some(owned_rights(&login, 0o600))
}

/// The keys that a user has.
///
/// sshd takes a file of root's, too. That it holds nothing but keys tells it from another file of root's, to
/// which the user made a hard link: what is in here becomes the user's.
fn known_keys(path: &Path, login: &PasswdEntry) -> Result<String, StepError> {
    let text = |held: Option<Held>| {
        held.map(|held| String::from_utf8_lossy(&held.content).into_owned()).unwrap_or_default()
    };
    match files::read(path, login.uid, MAX_KEYS) {
        Ok(held) => Ok(text(held)),
        Err(error) => {
            let text = files::read(path, 0, MAX_KEYS).map(text).unwrap_or_default();
            let are_keys = ssh_key::key_lines(&text).all(|line| ssh_key::check_key(line).is_ok());
            if are_keys && !text.is_empty() { Ok(text) } else { Err(error) }
        }
    }
}

fn owned_rights(login: &PasswdEntry, mode: u32) -> FileRights {
    FileRights { uid: login.uid, gid: login.gid, mode }
}

/// The home directory: there, the user's own, and not writable by others, or sshd ignores its keys.
// sshd checks every directory from the file up to the home, `StrictModes` in sshd_config(5).
fn prepare_home(home: &Path, login: &PasswdEntry, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let Ok(meta) = fs::metadata(home) else { return home::make_home(host.root, login) };
    let (uid, mode) = (meta.uid(), meta.mode() & 0o7777);
    let is_its_own = uid == login.uid || uid == 0;
    if mode & 0o022 == 0 && is_its_own {
        return Ok(FileChange::None);
    }
    // A directory for everybody, like /tmp, or of somebody else does not become this user's.
    if mode & STICKY != 0 || !is_its_own {
        let reason = "is not the user's own, so no key is put there".to_owned();
        return Err(StepError::Path { path: login.home.clone(), reason });
    }
    files::make_directory(home, owned_rights(login, mode & !0o022))
}

/// A user must not make root write elsewhere.
fn refuse_link(path: &Path) -> Result<(), StepError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => Err(StepError::Path {
            path: path.display().to_string(),
            reason: "is a symbolic link; it is not followed".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Fetches public keys and authorizes them.
pub(crate) fn import_keys(
    user: &str,
    from: &KeySource,
    host: &ApplyContext<'_>,
) -> Result<FileChange, StepError> {
    let url = match from {
        // ssh-import-id asks GitHub's API, whose requests without a token are limited to 60 an hour for each
        // address. Behind a NAT that is one for many machines.
        KeySource::GitHub(account) => format!("https://github.com/{account}.keys"),
        // The address that ssh-import-id asks.
        KeySource::Launchpad(account) => format!("https://launchpad.net/~{account}/+sshkeys"),
        KeySource::Url(url) => url.clone(),
    };
    let answer = host.web.get(&url, &[], MAX_KEYS)?;
    let keys = keys_in(&answer);
    // A page that says that there is no such account is an answer, too.
    if keys.is_empty() {
        return Err(StepError::NoKeys { user: user.to_owned() });
    }
    authorize_keys(user, &keys, host)
}

/// The good keys of an answer: JSON as GitHub's API gives it, or one a line.
fn keys_in(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer);
    let listed = serde_json::from_slice::<serde_json::Value>(answer).ok();
    let lines: Vec<String> = match listed.as_ref().and_then(|list| list.as_array()) {
        Some(list) => list
            .iter()
            .filter_map(|item| item.get("key")?.as_str())
            .map(|key| key.trim().to_owned())
            .collect(),
        None => ssh_key::key_lines(&text).map(str::to_owned).collect(),
    };
    lines.into_iter().filter(|line| ssh_key::check_key(line).is_ok()).collect()
}

/// Removes a clone's keys, puts given ones in place, makes those that are missing.
pub(crate) fn prepare_host_keys(keys: &HostKeys, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let mut change = FileChange::None;
    // Before new ones are put there. Two machines with one host key could pose as each other.
    if keys.renew {
        change = change.combine_with(remove_host_keys(host)?);
    }
    for (name, content) in &keys.given {
        // sshd_config(5), `HostKey`: sshd does not use a private key that others can read.
        let mode = if is_public(name) { 0o644 } else { 0o600 };
        let path = format!("{SSH_FOLDER}/{name}");
        snapshot::snapshot_file(&path, host);
        let rights = FileRights { uid: 0, gid: 0, mode };
        change = change.combine_with(files::write_durably(
            &host.root.path_of(&path),
            content.reveal().as_bytes(),
            rights,
        )?);
    }
    let given = |kind: &str| keys.given.iter().any(|(name, _)| name.contains(&format!("_{kind}_")));
    for kind in keys.types.iter().filter(|kind| !given(kind)) {
        change = change.combine_with(make_host_key(kind, host)?);
    }
    Ok(change)
}

fn is_public(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "pub")
}

fn remove_host_keys(host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let folder = host.root.path_of(SSH_FOLDER);
    let entries = fs::read_dir(&folder).map_err(|source| StepError::Read { path: folder.clone(), source })?;
    let mut change = FileChange::None;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| StepError::Write { path, source })?;
            change = FileChange::Made;
        }
    }
    Ok(change)
}

fn make_host_key(kind: &str, host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    let path = host.root.path_of(&format!("{SSH_FOLDER}/ssh_host_{kind}_key"));
    let whole = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    if whole(&path) && whole(&path.with_extension("pub")) {
        return Ok(FileChange::None);
    }
    // One half, or an empty file, is what a power cut leaves; ssh-keygen would ask about it.
    let _ = fs::remove_file(&path);
    let _ = fs::remove_file(path.with_extension("pub"));
    let file = path.display().to_string();
    host.programs
        // Without a passphrase, since nobody is there to type it, and without a comment: it would be root@
        // and a name that the machine may not have any more.
        .run_program(&ProgramCall::new("ssh-keygen", ["-q", "-N", "", "-C", "", "-t", kind, "-f", &file]))?;
    Ok(FileChange::Made)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtUsNNX8kEnqp0nrmHYBNCJYGPTrPHmFQhRCGGQpqaH";

    #[test]
    fn keys_are_found_in_json_and_in_lines() {
        assert_eq!(keys_in(format!("[{{\"id\": 1, \"key\": \"{KEY}\"}}]").as_bytes()), [KEY]);
        assert_eq!(keys_in(format!("# a comment\n{KEY}\nnonsense\n").as_bytes()), [KEY]);
        assert_eq!(keys_in(b"<html>not found</html>"), [""; 0]);
    }
}
