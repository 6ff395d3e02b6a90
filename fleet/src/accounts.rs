//! The groups of this machine, from its own files.
//!
//! Knows passwd(5) and group(5). Refuses to ask the name service switch: a static program loads the system's own
//! libraries for that, of another C library than it was linked with, and dies of it. So users that only a directory
//! service knows are nobody's members here.

use std::fs;
use std::path::Path;

/// The text of both files; one that cannot be read has nobody in it.
pub(crate) struct AccountFiles {
    passwd: String,
    group: String,
}

impl AccountFiles {
    /// Those of this machine, as they are now.
    pub(crate) fn of_this_machine() -> Self {
        let read = |path: &str| fs::read(Path::new(path)).unwrap_or_default();
        let text = |path: &str| String::from_utf8_lossy(&read(path)).into_owned();
        Self { passwd: text("/etc/passwd"), group: text("/etc/group") }
    }

    /// The number of a group.
    pub(crate) fn group_id(&self, name: &str) -> Option<u32> {
        self.group_line(name)?.1.parse().ok()
    }

    /// Whether a user is in a group: by the user's own group, or by the list of the group's members.
    pub(crate) fn is_member(&self, uid: u32, group: &str) -> bool {
        let Some((members, gid)) = self.group_line(group) else { return false };
        self.passwd.lines().any(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, user, own_group, ..] = fields[..] else { return false };
            user.parse() == Ok(uid) && (own_group == gid || members.split(',').any(|member| member == name))
        })
    }

    /// The members of a group and its number.
    fn group_line(&self, name: &str) -> Option<(&str, &str)> {
        self.group.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            match fields[..] {
                [known, _, gid, members, ..] if known == name => Some((members, gid)),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed_or_have_the_group_as_their_own() {
        let files = AccountFiles {
            passwd: "root:x:0:0::/root:/bin/sh\ncore:x:1000:1000::/home/core:/bin/bash\nana:x:1001:899::/:/bin/sh\nbroken\n"
                .to_owned(),
            group: "root:x:0:\nfleet:x:899:eve,core\nhalf:x\n".to_owned(),
        };

        assert_eq!(
            (files.group_id("fleet"), files.group_id("half"), files.group_id("none")),
            (Some(899), None, None)
        );
        assert!(files.is_member(1000, "fleet") && files.is_member(1001, "fleet"));
        assert!(
            !files.is_member(0, "fleet") && !files.is_member(1002, "fleet") && !files.is_member(1000, "none")
        );
    }
}
