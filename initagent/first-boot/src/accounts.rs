//! Users and groups as the machine's own files say them.
//!
//! Knows passwd(5) and group(5), since a static binary has no name service. Refuses to change them.

use std::fs;

use crate::root::Root;

/// A line of passwd.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Login {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
}

/// The user of this name.
pub(crate) fn user(root: &Root, name: &str) -> Option<Login> {
    let text = fs::read_to_string(root.path("/etc/passwd")).ok()?;
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [login, _, uid, gid, _, home, _] if login == name => {
            Some(Login { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.to_owned() })
        }
        _ => None,
    })
}

/// Number and members of the group of this name.
pub(crate) fn group(root: &Root, name: &str) -> Option<(u32, Vec<String>)> {
    let text = fs::read_to_string(root.path("/etc/group")).ok()?;
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [group, _, gid, members] if group == name => {
            let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
            Some((gid.parse().ok()?, members))
        }
        _ => None,
    })
}
