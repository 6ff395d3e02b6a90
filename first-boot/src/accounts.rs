//! Users and groups as the machine's own files say them.
//!
//! Knows passwd(5), group(5) and the files beside them, since a static binary has no name service.
//! Refuses to change them other than by one [`AccountDatabase`], whole and under the lock of shadow-utils.
//!
//! Documentation: passwd(5), group(5), shadow(5), gshadow(5), subuid(5), subgid(5).

mod database;
mod defaults;
mod lock;
mod table;

use std::fs;

use crate::root::MachineRoot;

pub(crate) use database::AccountDatabase;
pub(crate) use defaults::LoginDefaults;

/// A line of passwd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PasswdEntry {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
}

/// The user of this name.
pub(crate) fn find_user(root: &MachineRoot, name: &str) -> Option<PasswdEntry> {
    all_users(root).into_iter().find(|(known, _)| known == name).map(|(_, login)| login)
}

/// Every user, by name.
// A line of another shape is skipped, as glibc's own reader of the file does, so one damaged line hides
// nobody else.
pub(crate) fn all_users(root: &MachineRoot) -> Vec<(String, PasswdEntry)> {
    let text = fs::read_to_string(root.path_of("/etc/passwd")).unwrap_or_default();
    let login = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
        [name, _, uid, gid, _, home, _] => {
            let login = PasswdEntry { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.to_owned() };
            Some((name.to_owned(), login))
        }
        _ => None,
    };
    text.lines().filter_map(login).collect()
}

/// The number of the group of this name.
pub(crate) fn find_group(root: &MachineRoot, name: &str) -> Option<u32> {
    let text = fs::read_to_string(root.path_of("/etc/group")).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}
