//! The accounts of a machine, changed in memory and written at once.
//!
//! Knows what useradd, groupadd, usermod and chage do to passwd, shadow, group, gshadow, subuid and
//! subgid. Refuses to know why. Invariants: while it is there nobody else changes accounts; passwd is
//! written last, so that whoever is in it is whole; what was there before is never removed.
//!
//! Documentation: useradd(8), groupadd(8), chage(1), crypt(5).
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::Date;
use user_data::plan::step::{GroupStep, UserStep};

use super::lock::AccountLock;
use super::table::ColonTable;
use super::{LoginDefaults, PasswdEntry};
use crate::edit_error::EditError;
use crate::root::MachineRoot;
use crate::step_error::StepError;

/// Users of Debian without a group of their own are in this one.
const USERS: u32 = 100;
const SHELL: &str = "/bin/bash";
const HOMES: &str = "/home";
/// Not `!`, which some PAM set-ups take for a locked account: keys must work without a password.
const NO_PASSWORD: &str = "*";

/// The files. They hold hashes of passwords, so they cannot be printed.
pub(crate) struct AccountDatabase {
    _lock: AccountLock,
    defaults: LoginDefaults,
    passwd: ColonTable,
    shadow: ColonTable,
    group: ColonTable,
    gshadow: ColonTable,
    subuid: ColonTable,
    subgid: ColonTable,
    uids: HashSet<u32>,
    gids: HashSet<u32>,
    /// The first number that no subordinate range before it has.
    sub_uid: u64,
    sub_gid: u64,
}

// useradd and groupadd were run before. On a plan of twenty users they took nearly all of its time, since
// each of them locks, reads and rewrites the files.
impl AccountDatabase {
    /// Reads them, under their lock.
    pub(crate) fn open_locked(root: &MachineRoot) -> Result<Self, StepError> {
        let lock = AccountLock::acquire_lock(root).map_err(|source| StepError::LockAccounts { source })?;
        let (passwd, group) = (ColonTable::read(root, "/etc/passwd")?, ColonTable::read(root, "/etc/group")?);
        let (subuid, subgid) =
            (ColonTable::read(root, "/etc/subuid")?, ColonTable::read(root, "/etc/subgid")?);
        let defaults = LoginDefaults::of_machine(root);
        Ok(Self {
            _lock: lock,
            uids: taken_numbers(&passwd),
            gids: taken_numbers(&group),
            sub_uid: first_free(&subuid, &defaults.sub_uids),
            sub_gid: first_free(&subgid, &defaults.sub_gids),
            shadow: ColonTable::read(root, "/etc/shadow")?,
            gshadow: ColonTable::read(root, "/etc/gshadow")?,
            defaults,
            passwd,
            group,
            subuid,
            subgid,
        })
    }

    /// Brings what was changed onto the disk.
    pub(crate) fn write(&mut self) -> Result<(), StepError> {
        let tables =
            // A power cut between two files leaves numbers and groups that nobody uses, but no user without a
            // group or a shadow line.
            [&mut self.group, &mut self.gshadow, &mut self.subuid, &mut self.subgid, &mut self.shadow];
        tables.into_iter().try_for_each(ColonTable::write)?;
        self.passwd.write()
    }

    /// The user of this name.
    pub(crate) fn find_user(&self, name: &str) -> Option<PasswdEntry> {
        let fields = self.passwd.fields_of(name)?;
        let number = |at: usize| fields.get(at)?.parse().ok();
        Some(PasswdEntry { uid: number(2)?, gid: number(3)?, home: (*fields.get(5)?).to_owned() })
    }

    /// The number of the group of this name.
    pub(crate) fn find_group(&self, name: &str) -> Option<u32> {
        self.group.fields_of(name)?.get(2)?.parse().ok()
    }

    /// Makes a group without members, whose name is not taken.
    pub(crate) fn add_group(&mut self, group: &GroupStep) -> Result<(), EditError> {
        let gid = match group.gid {
            Some(gid) if self.gids.contains(&gid) => {
                return Err(EditError::Taken { kind: "group", number: gid });
            }
            Some(gid) => gid,
            None if group.system => last_free(&self.defaults.system_gids, &self.gids)?,
            None => next_free(&self.defaults.gids, &self.gids)?,
        };
        self.put_group(&group.name, gid)
    }

    fn put_group(&mut self, name: &str, gid: u32) -> Result<(), EditError> {
        // group(5) and gshadow(5): `x` says that the password is in gshadow, and `!` is the hash of none.
        self.group.set_line(&[name, "x", &gid.to_string(), ""])?;
        self.gshadow.set_line(&[name, "!", "", ""])?;
        self.gids.insert(gid);
        Ok(())
    }

    /// Adds a user to a group; whether it was no member before.
    pub(crate) fn add_to_group(&mut self, user: &str, group: &str) -> Result<bool, EditError> {
        let no_group = || EditError::NoGroup { name: group.to_owned() };
        if self.passwd.fields_of(user).is_none() {
            return Err(EditError::NoUser { name: user.to_owned() });
        }
        let is_new = add_member(&mut self.group, group, user)?.ok_or_else(no_group)?;
        // A machine may do without this file, and a group without a line in it.
        add_member(&mut self.gshadow, group, user)?;
        Ok(is_new)
    }

    /// Makes a user, whose name is not taken, in those of its groups that are there.
    pub(crate) fn add_user(&mut self, user: &UserStep) -> Result<(), EditError> {
        let uid = self.new_uid(user)?;
        let expires = user.expires.as_deref().map(days_since_epoch).transpose()?.map(|day| day.to_string());
        let inactive = user.inactive.map(|days| days.to_string());
        let gid = self.primary_group(user, uid)?.to_string();
        let home = user.home.clone().unwrap_or_else(|| format!("{HOMES}/{}", user.name));
        let [least, most, warning] = self.defaults.password_days.clone();
        self.shadow.set_line(&[
            &user.name,
            NO_PASSWORD,
            &shadow_today(),
            &least,
            &most,
            &warning,
            &inactive.unwrap_or_default(),
            &expires.unwrap_or_default(),
            "",
        ])?;
        let gecos = user.gecos.as_deref().unwrap_or_default();
        let shell = user.shell.as_deref().unwrap_or(SHELL);
        // passwd(5): `x` says that the password is in shadow.
        self.passwd.set_line(&[&user.name, "x", &uid.to_string(), &gid, gecos, &home, shell])?;
        self.uids.insert(uid);
        // useradd gives subordinate numbers to such users only, too.
        if !user.system && self.defaults.uids.contains(&uid) {
            self.add_subordinates(&user.name)?;
        }
        for group in &user.groups {
            if self.find_group(group).is_some() {
                self.add_to_group(&user.name, group)?;
            }
        }
        Ok(())
    }

    fn new_uid(&self, user: &UserStep) -> Result<u32, EditError> {
        match user.uid {
            Some(uid) if self.uids.contains(&uid) => Err(EditError::Taken { kind: "user", number: uid }),
            Some(uid) => Ok(uid),
            None if user.system => last_free(&self.defaults.system_uids, &self.uids),
            None => next_free(&self.defaults.uids, &self.uids),
        }
    }

    /// The group that was named, the one of the user's own name, a new one of its name, or everybody's.
    fn primary_group(&mut self, user: &UserStep, uid: u32) -> Result<u32, EditError> {
        if let Some(name) = &user.primary_group {
            let by_number = || name.parse().ok().filter(|gid| self.gids.contains(gid));
            return self
                .find_group(name)
                .or_else(by_number)
                .ok_or_else(|| EditError::NoGroup { name: name.clone() });
        }
        if let Some(gid) = self.find_group(&user.name) {
            return Ok(gid);
        }
        if user.no_user_group {
            return Ok(USERS);
        }
        // One number for both, as useradd takes it where it is free: people compare them by eye.
        let gid = match self.gids.contains(&uid) {
            false => uid,
            true if user.system => last_free(&self.defaults.system_gids, &self.gids)?,
            true => next_free(&self.defaults.gids, &self.gids)?,
        };
        self.put_group(&user.name, gid)?;
        Ok(gid)
    }

    /// Numbers for containers; a machine where they ran out makes users without.
    fn add_subordinates(&mut self, name: &str) -> Result<(), EditError> {
        let LoginDefaults { sub_uids, sub_gids, sub_uid_count, sub_gid_count, .. } = &self.defaults;
        let files = [
            (&mut self.subuid, &mut self.sub_uid, sub_uids, *sub_uid_count),
            (&mut self.subgid, &mut self.sub_gid, sub_gids, *sub_gid_count),
        ];
        for (table, next, range, count) in files {
            let end = *next + u64::from(count);
            if count > 0 && table.fields_of(name).is_none() && end <= u64::from(*range.end()) + 1 {
                table.set_line(&[name, &next.to_string(), &count.to_string()])?;
                *next = end;
            }
        }
        Ok(())
    }

    /// Sets a password that is a hash already; whether it was another one before.
    pub(crate) fn set_password(&mut self, name: &str, hash: &str) -> Result<bool, EditError> {
        self.change_shadow(name, |fields| {
            if fields[1] != hash {
                fields[2] = shadow_today();
            }
            hash.clone_into(&mut fields[1]);
        })
    }

    /// Locks a password or unlocks it, if there is one; whether it was otherwise before.
    pub(crate) fn set_lock(&mut self, name: &str, lock: bool) -> Result<bool, EditError> {
        self.change_shadow(name, |fields| {
            let bare = fields[1].trim_start_matches('!').to_owned();
            match lock {
                // What `passwd --lock` does: no hash begins so, and the old one can be had back.
                true if bare.len() == fields[1].len() => fields[1].insert(0, '!'),
                // Without the mark it would be a login that needs no password.
                false if !bare.is_empty() => fields[1] = bare,
                _ => {}
            }
        })
    }

    /// Demands that the password be changed at the next login.
    pub(crate) fn expire_password(&mut self, name: &str) -> Result<bool, EditError> {
        // shadow(5): a last change on day 0 means a new password at the next login, as `chage -d 0` sets it.
        self.change_shadow(name, |fields| "0".clone_into(&mut fields[2]))
    }

    fn change_shadow(&mut self, name: &str, change: impl Fn(&mut [String])) -> Result<bool, EditError> {
        let no_user = || EditError::NoUser { name: name.to_owned() };
        let known = self.shadow.fields_of(name).ok_or_else(no_user)?;
        let old: Vec<String> = known.into_iter().map(str::to_owned).collect();
        let mut fields = old.clone();
        // shadow(5) has nine fields, yet a line that was written by hand may lack the last ones.
        fields.resize(9, String::new());
        change(&mut fields);
        self.shadow.set_line(&fields.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(fields != old)
    }
}

/// The numbers that are taken.
fn taken_numbers(table: &ColonTable) -> HashSet<u32> {
    table.rows().filter_map(|fields| fields.get(2)?.parse().ok()).collect()
}

/// The first number behind all subordinate ranges.
fn first_free(table: &ColonTable, range: &RangeInclusive<u32>) -> u64 {
    let end = |fields: Vec<&str>| {
        let number = |at: usize| fields.get(at)?.parse::<u32>().ok().map(u64::from);
        Some(number(1)? + number(2)?)
    };
    table.rows().filter_map(end).max().unwrap_or_default().max(u64::from(*range.start()))
}

/// The number behind the highest one that is taken, or the lowest free one if there is none.
fn next_free(range: &RangeInclusive<u32>, taken: &HashSet<u32>) -> Result<u32, EditError> {
    // A number of a user who is gone may still own files, so it is taken last. useradd counts so, too.
    let highest = taken.iter().filter(|number| range.contains(number)).max();
    let behind = highest.map_or_else(|| *range.start(), |number| number + 1);
    if range.contains(&behind) {
        return Ok(behind);
    }
    range
        .clone()
        .find(|number| !taken.contains(number))
        .ok_or_else(|| EditError::Full { range: range.clone() })
}

/// The highest free number, as the system's own accounts are counted downwards.
fn last_free(range: &RangeInclusive<u32>, taken: &HashSet<u32>) -> Result<u32, EditError> {
    // Packages count theirs from the other end, so that the two do not meet.
    let free = range.clone().rev().find(|number| !taken.contains(number));
    free.ok_or_else(|| EditError::Full { range: range.clone() })
}

/// Adds a name to the last field of a line; `None` if there is no such line.
fn add_member(table: &mut ColonTable, group: &str, user: &str) -> Result<Option<bool>, EditError> {
    let Some(fields) = table.fields_of(group) else { return Ok(None) };
    let Some((members, rest)) = fields.split_last().filter(|(_, rest)| rest.len() == 3) else {
        return Ok(None);
    };
    if members.split(',').any(|member| member == user) {
        return Ok(Some(false));
    }
    let members = if members.is_empty() { user.to_owned() } else { format!("{members},{user}") };
    let line: Vec<String> = rest.iter().copied().chain([members.as_str()]).map(str::to_owned).collect();
    table.set_line(&line.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(Some(true))
}

/// Today as shadow counts days; nothing on a machine that does not know the day, since 0 would mean
/// that the password must be changed.
fn shadow_today() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    if days == 0 { String::new() } else { days.to_string() }
}

/// Days from 1970 to a date like 2030-12-31; shadow(5) has no words for one before.
fn days_since_epoch(date: &str) -> Result<i32, EditError> {
    let no_day = || EditError::Date { date: date.to_owned() };
    let day: Date = date.parse().map_err(|_| no_day())?;
    let days = day.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24;
    i32::try_from(days).ok().filter(|days| *days >= 0).ok_or_else(no_day)
}

#[cfg(test)]
mod tests;
