//! The image's people: accounts that exist before the first boot, with no password.
//!
//! Sources: `passwd(5)`, `shadow(5)`, `group(5)`.

use std::fmt::Write as _;
use std::io;

use super::tree::{RootTree, TreeEntry};

/// An account to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SystemAccount {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) shell: String,
    /// Further groups; one the image does not have is made.
    pub(crate) groups: Vec<String>,
}

/// Adds accounts to the tree's databases; `epoch` (seconds since 1970) is when their password state
/// counts as set.
pub(crate) fn add(tree: &mut RootTree, accounts: &[SystemAccount], epoch: u64) -> io::Result<()> {
    let mut passwd = tree.read_text("etc/passwd")?;
    let mut shadow = tree.read_text("etc/shadow")?;
    let mut group = tree.read_text("etc/group")?;
    let days = epoch / 86_400;
    for SystemAccount { name, uid, shell, groups } in accounts {
        if has_entry(&passwd, name) {
            continue;
        }
        // A group of the same number, as useradd makes one.
        let _ = writeln!(passwd, "{name}:x:{uid}:{uid}::/home/{name}:{shell}");
        // shadow(5): `*` is the hash of no password, so keys alone let somebody in. The day is the epoch's,
        // not today.
        let _ = writeln!(shadow, "{name}:*:{days}:0:99999:7:::");
        let _ = writeln!(group, "{name}:x:{uid}:");
        for wanted in groups {
            group = with_member(&group, wanted, name);
        }
    }
    replace_text(tree, "etc/passwd", passwd);
    replace_text(tree, "etc/shadow", shadow);
    replace_text(tree, "etc/group", group);
    // gshadow only repeats group; without it the tools fall back to group (gshadow(5)).
    tree.remove("etc/gshadow");
    Ok(())
}

fn has_entry(database: &str, name: &str) -> bool {
    database.lines().any(|line| line.split(':').next() == Some(name))
}

fn with_member(database: &str, group: &str, member: &str) -> String {
    if !has_entry(database, group) {
        let taken = |gid: u32| database.lines().any(|line| line.split(':').nth(2) == Some(&gid.to_string()));
        // 500 to 900 is Debian's range for groups without a fixed number.
        let gid = (500..900).rev().find(|gid| !taken(*gid)).unwrap_or(500);
        return format!("{database}{group}:x:{gid}:{member}\n");
    }
    database
        .lines()
        .map(|line| match line.split(':').next() {
            Some(found) if found == group => {
                let separator = if line.ends_with(':') { "" } else { "," };
                format!("{line}{separator}{member}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

/// Replaces a file's text; its mode and owner stay.
fn replace_text(tree: &mut RootTree, path: &str, text: String) {
    let kept = tree.get(path).map(|old| (old.mode, old.uid, old.gid));
    let mut entry = TreeEntry::file(text.into_bytes(), 0o644);
    if let Some((mode, uid, gid)) = kept {
        (entry.mode, entry.uid, entry.gid) = (mode, uid, gid);
    }
    tree.insert(path, entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_joins_groups_that_exist_and_makes_the_others() {
        let mut tree = RootTree::default();
        tree.insert("etc/passwd", TreeEntry::file(*b"root:x:0:0:root:/root:/bin/bash\n", 0o644));
        tree.insert("etc/shadow", TreeEntry::file(*b"root:*:1:0:99999:7:::\n", 0o640));
        tree.insert("etc/group", TreeEntry::file(*b"root:x:0:\nsudo:x:27:ada\n", 0o644));
        let core = SystemAccount {
            name: "core".to_owned(),
            uid: 1000,
            shell: "/bin/bash".to_owned(),
            groups: vec!["sudo".to_owned(), "docker".to_owned()],
        };

        add(&mut tree, &[core], 86_400 * 3).unwrap();

        assert_eq!(
            tree.read_text("etc/group").unwrap(),
            "root:x:0:\nsudo:x:27:ada,core\ncore:x:1000:\ndocker:x:899:core\n"
        );
        assert!(tree.read_text("etc/shadow").unwrap().ends_with("core:*:3:0:99999:7:::\n"));
        assert_eq!(tree.get("etc/shadow").unwrap().mode, 0o640);
    }
}
