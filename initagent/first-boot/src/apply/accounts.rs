//! Users, groups and passwords, by the image's own programs.
//!
//! Knows useradd and its sisters. Refuses to put a password on a command line. Invariant: doing it
//! twice is doing it once; a user that exists loses nothing.

use std::fs;
use std::io::Read;

use user_data::plan::step::{Group, Password, User};

use super::{Host, closing};
use crate::accounts;
use crate::files::Change;
use crate::programs::Call;
use crate::step_error::StepError;

/// As long as nobody guesses.
const RANDOM_LENGTH: usize = 20;
const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Makes a group, or adds members to one that is there.
pub(crate) fn create_group(group: &Group, host: &Host<'_>) -> Result<Change, StepError> {
    let mut change = Change::None;
    let known = accounts::group(host.root, &group.name);
    if known.is_none() {
        host.programs.run(&Call::new("groupadd", groupadd_arguments(group)))?;
        change = Change::Made;
    }
    let known = known.map(|(_, members)| members).unwrap_or_default();
    for member in group.members.iter().filter(|member| !known.contains(member)) {
        host.programs.run(&Call::new("usermod", ["-a", "-G", &group.name, member]))?;
        change = Change::Made;
    }
    Ok(change)
}

fn groupadd_arguments(group: &Group) -> Vec<String> {
    let mut arguments = Vec::new();
    if let Some(gid) = group.gid {
        arguments.extend(["--gid".to_owned(), gid.to_string()]);
    }
    if group.system {
        arguments.push("--system".to_owned());
    }
    arguments.push(group.name.clone());
    arguments
}

/// Makes a user; of one that is there, groups, password and lock are brought up to date.
pub(crate) fn create_user(user: &User, host: &Host<'_>) -> Result<Change, StepError> {
    let is_new = accounts::user(host.root, &user.name).is_none();
    let mut change = if is_new { make(user, host)? } else { join_groups(user, host)? };
    if let Some(password) = &user.password {
        change = change.and(set_password(&user.name, password, false, host)?);
    }
    if let Some(lock) = user.lock.filter(|lock| !(is_new && *lock && user.password.is_none())) {
        change = change.and(set_lock(user, lock, host)?);
    }
    Ok(change)
}

fn make(user: &User, host: &Host<'_>) -> Result<Change, StepError> {
    let groups: Vec<&String> =
        user.groups.iter().filter(|group| accounts::group(host.root, group).is_some()).collect();
    host.programs.run(&Call::new("useradd", useradd_arguments(user, &groups, host)))?;
    missing_groups(user, groups.len())?;
    Ok(Change::Made)
}

/// A group that is not there is told, but the user is made.
fn missing_groups(user: &User, joined: usize) -> Result<(), StepError> {
    if joined == user.groups.len() {
        return Ok(());
    }
    Err(StepError::Said(format!(
        "the user was made, but some of its groups ({}) are not there",
        user.groups.join(", ")
    )))
}

fn useradd_arguments(user: &User, groups: &[&String], host: &Host<'_>) -> Vec<String> {
    // Not `!`, which some PAM set-ups take for a locked account: keys must work without a password.
    let mut arguments = vec!["--password".to_owned(), "*".to_owned()];
    let mut add = |option: &str, value: Option<String>| {
        if let Some(value) = value {
            arguments.extend([option.to_owned(), value]);
        }
    };
    add("--uid", user.uid.map(|uid| uid.to_string()));
    add("--comment", user.gecos.clone());
    add("--home-dir", user.home.clone());
    add("--gid", user.primary_group.clone());
    add("--groups", (!groups.is_empty()).then(|| join(groups)));
    add("--shell", Some(user.shell.clone().unwrap_or_else(|| "/bin/bash".to_owned())));
    add("--expiredate", user.expires.clone());
    add("--inactive", user.inactive.map(|days| days.to_string()));
    // A group of that name that is there already is the user's own one.
    let own = user.primary_group.is_none() && accounts::group(host.root, &user.name).is_some();
    add("--gid", own.then(|| user.name.clone()));
    arguments.push(if user.no_create_home { "--no-create-home" } else { "--create-home" }.to_owned());
    for (set, option) in [
        (user.no_user_group || own || user.primary_group.is_some(), "--no-user-group"),
        (user.system, "--system"),
        (user.no_log_init, "--no-log-init"),
    ] {
        arguments.extend(set.then(|| option.to_owned()));
    }
    arguments.push(user.name.clone());
    arguments
}

fn join(names: &[&String]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",")
}

fn join_groups(user: &User, host: &Host<'_>) -> Result<Change, StepError> {
    let wanted = user.groups.iter().filter(|group| {
        accounts::group(host.root, group).is_none_or(|(_, members)| !members.contains(&user.name))
    });
    let wanted: Vec<&String> = wanted.collect();
    if wanted.is_empty() {
        return Ok(Change::None);
    }
    host.programs.run(&Call::new("usermod", ["-a", "-G", &join(&wanted), &user.name]))?;
    Ok(Change::Made)
}

fn set_lock(user: &User, lock: bool, host: &Host<'_>) -> Result<Change, StepError> {
    let option = if lock { "--lock" } else { "--unlock" };
    let done = host.programs.run(&Call::new("usermod", [option, &user.name]));
    match done {
        // Nothing to unlock without a password: usermod refuses to make a login that needs none.
        Err(_) if !lock && user.password.is_none() => Ok(Change::None),
        done => Ok(done.map(|_| Change::Made)?),
    }
}

/// Sets a password, and may demand that it be changed at the next login.
pub(crate) fn set_password(
    user: &str,
    password: &Password,
    expire: bool,
    host: &Host<'_>,
) -> Result<Change, StepError> {
    let (hashed, text) = match password {
        Password::Hash(hash) => (true, hash.reveal().clone()),
        Password::Plain(text) => (false, text.reveal().clone()),
        Password::Random => (false, random(host)?),
    };
    let arguments = if hashed { vec!["--encrypted"] } else { Vec::new() };
    host.programs.run(&Call::new("chpasswd", arguments).input(format!("{user}:{text}\n")))?;
    if matches!(password, Password::Random) {
        // The console is the one place where only the owner of the machine reads.
        closing::say_on_console(&format!("the password of {user} is {text}\n"), host)?;
    }
    if expire {
        host.programs.run(&Call::new("chage", ["-d", "0", user]))?;
    }
    Ok(Change::Made)
}

fn random(host: &Host<'_>) -> Result<String, StepError> {
    let path = host.root.path("/dev/urandom");
    let mut bytes = [0_u8; RANDOM_LENGTH];
    let read = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| StepError::Read { path, source })?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect())
}
