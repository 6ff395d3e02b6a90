//! The accounts of a machine, changed in memory and written at once.
//!
//! Knows what useradd, groupadd, usermod and chage do to passwd, shadow, group, gshadow, subuid and
//! subgid. Refuses to know why. Invariants: while it is there nobody else changes accounts; passwd is
//! written last, so that whoever is in it is whole; what was there before is never removed.
#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use user_data::plan::step::{GroupStep, UserStep};

use super::lock::Lock;
use super::table::Table;
use super::{Defaults, Login};
use crate::edit_error::EditError;
use crate::root::Root;
use crate::step_error::StepError;

/// Users of Debian without a group of their own are in this one.
const USERS: u32 = 100;
const SHELL: &str = "/bin/bash";
const HOMES: &str = "/home";
/// Not `!`, which some PAM set-ups take for a locked account: keys must work without a password.
const NO_PASSWORD: &str = "*";

/// The files. They hold hashes of passwords, so they can't be printed.
pub(crate) struct Database {
    _lock: Lock,
    defaults: Defaults,
    passwd: Table,
    shadow: Table,
    group: Table,
    gshadow: Table,
    subuid: Table,
    subgid: Table,
    uids: HashSet<u32>,
    gids: HashSet<u32>,
    /// The first number that no subordinate range before it has.
    sub_uid: u64,
    sub_gid: u64,
}

impl Database {
    /// Reads them, under their lock.
    pub(crate) fn open(root: &Root) -> Result<Self, StepError> {
        let lock = Lock::take(root).map_err(|source| StepError::LockAccounts { source })?;
        let (passwd, group) = (Table::read(root, "/etc/passwd")?, Table::read(root, "/etc/group")?);
        let (subuid, subgid) = (Table::read(root, "/etc/subuid")?, Table::read(root, "/etc/subgid")?);
        let defaults = Defaults::of(root);
        Ok(Self {
            _lock: lock,
            uids: numbers(&passwd),
            gids: numbers(&group),
            sub_uid: behind(&subuid, &defaults.sub_uids),
            sub_gid: behind(&subgid, &defaults.sub_gids),
            shadow: Table::read(root, "/etc/shadow")?,
            gshadow: Table::read(root, "/etc/gshadow")?,
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
            [&mut self.group, &mut self.gshadow, &mut self.subuid, &mut self.subgid, &mut self.shadow];
        tables.into_iter().try_for_each(Table::write)?;
        self.passwd.write()
    }

    /// The user of this name.
    pub(crate) fn user(&self, name: &str) -> Option<Login> {
        let fields = self.passwd.fields(name)?;
        let number = |at: usize| fields.get(at)?.parse().ok();
        Some(Login { uid: number(2)?, gid: number(3)?, home: (*fields.get(5)?).to_owned() })
    }

    /// The number of the group of this name.
    pub(crate) fn group(&self, name: &str) -> Option<u32> {
        self.group.fields(name)?.get(2)?.parse().ok()
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
        self.group.set(&[name, "x", &gid.to_string(), ""])?;
        self.gshadow.set(&[name, "!", "", ""])?;
        self.gids.insert(gid);
        Ok(())
    }

    /// Adds a user to a group; whether it was no member before.
    pub(crate) fn join(&mut self, user: &str, group: &str) -> Result<bool, EditError> {
        let no_group = || EditError::NoGroup { name: group.to_owned() };
        if self.passwd.fields(user).is_none() {
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
        let expires = user.expires.as_deref().map(day).transpose()?.map(|day| day.to_string());
        let inactive = user.inactive.map(|days| days.to_string());
        let gid = self.primary_group(user, uid)?.to_string();
        let home = user.home.clone().unwrap_or_else(|| format!("{HOMES}/{}", user.name));
        let [least, most, warning] = self.defaults.password_days.clone();
        self.shadow.set(&[
            &user.name,
            NO_PASSWORD,
            &today(),
            &least,
            &most,
            &warning,
            &inactive.unwrap_or_default(),
            &expires.unwrap_or_default(),
            "",
        ])?;
        let gecos = user.gecos.as_deref().unwrap_or_default();
        let shell = user.shell.as_deref().unwrap_or(SHELL);
        self.passwd.set(&[&user.name, "x", &uid.to_string(), &gid, gecos, &home, shell])?;
        self.uids.insert(uid);
        if !user.system && self.defaults.uids.contains(&uid) {
            self.add_subordinates(&user.name)?;
        }
        for group in &user.groups {
            if self.group(group).is_some() {
                self.join(&user.name, group)?;
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
                .group(name)
                .or_else(by_number)
                .ok_or_else(|| EditError::NoGroup { name: name.clone() });
        }
        if let Some(gid) = self.group(&user.name) {
            return Ok(gid);
        }
        if user.no_user_group {
            return Ok(USERS);
        }
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
        let Defaults { sub_uids, sub_gids, sub_uid_count, sub_gid_count, .. } = &self.defaults;
        let files = [
            (&mut self.subuid, &mut self.sub_uid, sub_uids, *sub_uid_count),
            (&mut self.subgid, &mut self.sub_gid, sub_gids, *sub_gid_count),
        ];
        for (table, next, range, count) in files {
            let end = *next + u64::from(count);
            if count > 0 && table.fields(name).is_none() && end <= u64::from(*range.end()) + 1 {
                table.set(&[name, &next.to_string(), &count.to_string()])?;
                *next = end;
            }
        }
        Ok(())
    }

    /// Sets a password that is a hash already; whether it was another one before.
    pub(crate) fn set_password(&mut self, name: &str, hash: &str) -> Result<bool, EditError> {
        self.change_shadow(name, |fields| {
            if fields[1] != hash {
                fields[2] = today();
            }
            hash.clone_into(&mut fields[1]);
        })
    }

    /// Locks a password or unlocks it, if there is one; whether it was otherwise before.
    pub(crate) fn lock(&mut self, name: &str, lock: bool) -> Result<bool, EditError> {
        self.change_shadow(name, |fields| {
            let bare = fields[1].trim_start_matches('!').to_owned();
            match lock {
                true if bare.len() == fields[1].len() => fields[1].insert(0, '!'),
                // Without the mark it would be a login that needs no password.
                false if !bare.is_empty() => fields[1] = bare,
                _ => {}
            }
        })
    }

    /// Demands that the password be changed at the next login.
    pub(crate) fn expire(&mut self, name: &str) -> Result<bool, EditError> {
        self.change_shadow(name, |fields| "0".clone_into(&mut fields[2]))
    }

    fn change_shadow(&mut self, name: &str, change: impl Fn(&mut [String])) -> Result<bool, EditError> {
        let no_user = || EditError::NoUser { name: name.to_owned() };
        let known = self.shadow.fields(name).ok_or_else(no_user)?;
        let old: Vec<String> = known.into_iter().map(str::to_owned).collect();
        let mut fields = old.clone();
        fields.resize(9, String::new());
        change(&mut fields);
        self.shadow.set(&fields.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(fields != old)
    }
}

/// The numbers that are taken.
fn numbers(table: &Table) -> HashSet<u32> {
    table.rows().filter_map(|fields| fields.get(2)?.parse().ok()).collect()
}

/// The first number behind all subordinate ranges.
fn behind(table: &Table, range: &RangeInclusive<u32>) -> u64 {
    let end = |fields: Vec<&str>| {
        let number = |at: usize| fields.get(at)?.parse::<u32>().ok().map(u64::from);
        Some(number(1)? + number(2)?)
    };
    table.rows().filter_map(end).max().unwrap_or_default().max(u64::from(*range.start()))
}

/// The number behind the highest one that is taken, or the lowest free one if there is none.
fn next_free(range: &RangeInclusive<u32>, taken: &HashSet<u32>) -> Result<u32, EditError> {
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
    let free = range.clone().rev().find(|number| !taken.contains(number));
    free.ok_or_else(|| EditError::Full { range: range.clone() })
}

/// Adds a name to the last field of a line; `None` if there is no such line.
fn add_member(table: &mut Table, group: &str, user: &str) -> Result<Option<bool>, EditError> {
    let Some(fields) = table.fields(group) else { return Ok(None) };
    let Some((members, rest)) = fields.split_last().filter(|(_, rest)| rest.len() == 3) else {
        return Ok(None);
    };
    if members.split(',').any(|member| member == user) {
        return Ok(Some(false));
    }
    let members = if members.is_empty() { user.to_owned() } else { format!("{members},{user}") };
    let line: Vec<String> = rest.iter().copied().chain([members.as_str()]).map(str::to_owned).collect();
    table.set(&line.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(Some(true))
}

/// Today as shadow counts days; nothing on a machine that does not know the day, since 0 would mean
/// that the password must be changed.
fn today() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    if days == 0 { String::new() } else { days.to_string() }
}

/// Days from 1970 to a date like 2030-12-31.
fn day(date: &str) -> Result<i64, EditError> {
    let no_day = || EditError::Date { date: date.to_owned() };
    let numbers: Vec<i64> = date.split('-').filter_map(|part| part.parse().ok()).collect();
    let [year, month, day] = numbers[..] else { return Err(no_day()) };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(no_day());
    }
    // The year begins in March here, so that a leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let era = year / 400;
    let year_of_era = year % 400;
    Ok(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

#[cfg(test)]
mod tests;
