//! Turns what Debian's packages unpack to into an image's root.
//!
//! Knows which traces a bootstrap leaves and which files belong to whom. Refuses to know disks, keys
//! and overlays' contents. Every step is a function from a tree to a tree, so that a test needs only
//! a few entries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;

use super::tree::{EntryKind, RootTree, TreeEntry};
use crate::debian::status::{self, InstalledPackage};

/// What dpkg knows of the tree.
#[derive(Debug)]
pub(crate) struct DpkgDatabase {
    pub(crate) installed: Vec<InstalledPackage>,
    /// Which packages a path belongs to.
    owners: BTreeMap<String, BTreeSet<String>>,
}

impl DpkgDatabase {
    /// Reads the tree's dpkg database.
    pub(crate) fn read(tree: &RootTree) -> io::Result<Self> {
        let installed = status::parse_status(&tree.read_text("var/lib/dpkg/status")?);
        let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for package in &installed {
            let list = [
                format!("var/lib/dpkg/info/{}.list", package.name),
                format!("var/lib/dpkg/info/{}:{}.list", package.name, package.architecture),
            ];
            let Some(path) = list.iter().find(|path| tree.get(path).is_some()) else { continue };
            for line in tree.read_text(path)?.lines() {
                owners
                    .entry(merged_usr(line.trim_start_matches('/')))
                    .or_default()
                    .insert(package.name.clone());
            }
        }
        Ok(Self { installed, owners })
    }

    /// Follows files that now have other names to their owners.
    pub(crate) fn rename_paths(&mut self, renamed: Vec<(String, String)>) {
        for (from, to) in renamed {
            if let Some(owners) = self.owners.remove(&from) {
                self.owners.insert(to, owners);
            }
        }
    }

    /// The packages that own a path; none own what maintainer scripts made.
    pub(crate) fn owners_of(&self, path: &str) -> Option<&BTreeSet<String>> {
        self.owners.get(path)
    }
}

/// Debian's lists still name `/bin` and `/lib`, which are links into `/usr`.
fn merged_usr(path: &str) -> String {
    let moved = ["bin", "sbin", "lib", "lib64"]
        .iter()
        .any(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if moved { format!("usr/{path}") } else { path.to_owned() }
}

/// Leaves only what `kept` packages own, and what no package owns.
pub(crate) fn keep_packages(tree: &mut RootTree, database: &DpkgDatabase, kept: &BTreeSet<String>) {
    tree.retain(|path, entry| {
        matches!(entry.kind, EntryKind::Directory)
            || database.owners_of(path).is_none_or(|owners| owners.iter().any(|owner| kept.contains(owner)))
    });
    remove_empty_directories(tree, |path| {
        database.owners_of(path).is_some_and(|owners| owners.iter().all(|owner| !kept.contains(owner)))
    });
}

fn remove_empty_directories(tree: &mut RootTree, may_go: impl Fn(&str) -> bool) {
    loop {
        let empty: BTreeSet<String> = tree
            .iter()
            .filter(|(path, entry)| {
                matches!(entry.kind, EntryKind::Directory)
                    && may_go(path)
                    && tree.entries_below(path).next().is_none()
            })
            .map(|(path, _)| path.to_owned())
            .collect();
        if empty.is_empty() {
            return;
        }
        tree.retain(|path, _| !empty.contains(path));
    }
}

/// Removes what a bootstrap leaves behind and no image may carry: this host's name, keys, identities,
/// caches and logs.
pub(crate) fn remove_traces(tree: &mut RootTree) {
    const TRACES: [&str; 13] = [
        "etc/.pwd.lock",
        "etc/group-",
        "etc/gshadow-",
        "etc/hostname",
        "etc/machine-id",
        "etc/passwd-",
        "etc/resolv.conf",
        "etc/shadow-",
        "etc/subgid-",
        "etc/subuid-",
        "root/.bash_history",
        "tmp",
        "var/lib/systemd/random-seed",
    ];
    for path in TRACES {
        tree.remove(path);
    }
    tree.retain(|path, entry| {
        !path.starts_with("etc/ssh/ssh_host_")
            && !(matches!(entry.kind, EntryKind::Symlink(_))
                && (path.starts_with("initrd.img") || path.starts_with("vmlinuz")))
    });
    tree.insert("tmp", TreeEntry::new(EntryKind::Directory, 0o1777));
}

/// Removes links whose targets went with a package.
pub(crate) fn remove_dangling_links(tree: &mut RootTree, had: impl Fn(&str) -> bool) {
    loop {
        let dangling: BTreeSet<String> = tree
            .iter()
            .filter_map(|(path, entry)| {
                let EntryKind::Symlink(target) = &entry.kind else { return None };
                let target = resolve_link(path, target);
                (tree.get(&merged_usr(&target)).is_none() && had(&merged_usr(&target)))
                    .then(|| path.to_owned())
            })
            .collect();
        if dangling.is_empty() {
            return;
        }
        tree.retain(|path, _| !dangling.contains(path));
    }
}

/// Where a link at `path` points, inside the tree, its parents taken as they are written.
fn resolve_link(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { path.split('/').collect() };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The one kernel of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelFiles {
    /// As `uname -r` prints it.
    pub(crate) release: String,
}

/// Moves the kernel to `boot/vmlinuz` and removes what only Debian's own boot needs.
pub(crate) fn settle_kernel(tree: &mut RootTree) -> Result<KernelFiles, KernelError> {
    let mut images: Vec<String> = tree
        .entries_below("boot")
        .map(|(path, _)| path.to_owned())
        .filter(|path| path.starts_with("boot/vmlinuz-"))
        .collect();
    let image = match images.len() {
        1 => images.remove(0),
        0 => return Err(KernelError::None),
        _ => return Err(KernelError::Several { images }),
    };
    let release = image.trim_start_matches("boot/vmlinuz-").to_owned();
    let entry = tree.get(&image).cloned().ok_or(KernelError::None)?;
    tree.remove("boot");
    tree.insert("boot", TreeEntry::new(EntryKind::Directory, 0o755));
    tree.insert("boot/vmlinuz", TreeEntry { mode: 0o644, ..entry });
    Ok(KernelFiles { release })
}

/// Moves what packages ship in /var to where every boot can make it again, on whatever /var it finds:
/// `tmpfiles.d(5)` lines and, for files, copies under /usr/share/factory.
pub(crate) fn move_var(tree: &mut RootTree) {
    // Regenerated, or of no use without the package manager.
    const DROPPED: [&str; 17] = [
        "var/backups",
        "var/cache",
        "var/lib/apt",
        "var/lib/debconf",
        "var/lib/dpkg",
        "var/lib/initramfs-tools",
        "var/lib/pam",
        "var/lib/shim-signed",
        "var/lib/systemd/catalog",
        "var/lib/systemd/deb-systemd-helper-enabled",
        "var/lib/systemd/deb-systemd-helper-masked",
        "var/lib/systemd/deb-systemd-user-helper-enabled",
        "var/lib/ucf",
        "var/log",
        "var/lib/vim",
        "var/lib/python",
        "var/lib/usbutils",
    ];
    for path in DROPPED {
        tree.remove(path);
    }
    let mut lines = String::from("# Made by image-builder from what the packages ship in /var.\n");
    let mut factory = Vec::new();
    for (path, entry) in tree.entries_below("var") {
        let TreeEntry { kind, mode, uid, gid, .. } = entry;
        let _ = match kind {
            EntryKind::Directory => writeln!(lines, "d /{path} {mode:04o} {uid} {gid} -"),
            // tmpfiles.d(5): `L` and `C` make only what is missing, so what a machine has changed stays.
            EntryKind::Symlink(target) => writeln!(lines, "L /{path} - - - - {target}"),
            EntryKind::File(_) | EntryKind::HardLink(_) => {
                factory.push((format!("usr/share/factory/{path}"), entry.clone()));
                writeln!(lines, "C /{path} {mode:04o} {uid} {gid} -")
            }
        };
    }
    tree.remove("var");
    tree.insert("var", TreeEntry::new(EntryKind::Directory, 0o755));
    for (path, entry) in factory {
        tree.insert(&path, entry);
    }
    // Last in order, so that a package's own line about the same path wins.
    tree.insert("usr/lib/tmpfiles.d/zz-catamaran-var.conf", TreeEntry::file(lines.into_bytes(), 0o644));
}

/// Why a tree has not exactly one kernel.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KernelError {
    #[error(
        "the packages brought no kernel: name one in `kernel.package`, for example linux-image-cloud-amd64"
    )]
    None,
    #[error("the packages brought several kernels ({}), but a slot boots one", images.join(", "))]
    Several { images: Vec<String> },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> RootTree {
        let mut tree = RootTree::default();
        for (path, text) in files {
            tree.insert(path, TreeEntry::file(text.as_bytes(), 0o644));
        }
        tree
    }

    #[test]
    fn a_dropped_packages_files_go_and_its_empty_folders_with_them() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n\
                      Package: b\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n";
        let mut tree = tree(&[
            ("var/lib/dpkg/status", status),
            ("var/lib/dpkg/info/a.list", "/.\n/bin/a\n/usr/share/both\n"),
            ("var/lib/dpkg/info/b.list", "/bin/b\n/usr/share/both\n/usr/share/b\n/usr/share/b/x\n"),
            ("usr/bin/a", ""),
            ("usr/bin/b", ""),
            ("usr/share/both", ""),
            ("usr/share/b/x", ""),
            ("etc/made-by-postinst", ""),
        ]);
        let database = DpkgDatabase::read(&tree).unwrap();

        keep_packages(&mut tree, &database, &BTreeSet::from(["a".to_owned()]));

        let left: Vec<&str> =
            tree.iter().map(|(path, _)| path).filter(|path| !path.starts_with("var")).collect();
        assert_eq!(
            left,
            ["etc", "etc/made-by-postinst", "usr", "usr/bin", "usr/bin/a", "usr/share", "usr/share/both"]
        );
    }

    #[test]
    fn two_kernels_are_one_too_many() {
        let mut tree = tree(&[("boot/vmlinuz-1", ""), ("boot/vmlinuz-2", "")]);

        let error = settle_kernel(&mut tree).unwrap_err();

        assert!(error.to_string().contains("boot/vmlinuz-1, boot/vmlinuz-2"));
    }

    #[test]
    fn var_is_made_again_at_boot() {
        let mut tree = tree(&[("var/lib/etcd/note", "n"), ("var/log/dpkg.log", "secret")]);
        tree.get_mut("var/lib/etcd").unwrap().uid = 100;

        move_var(&mut tree);

        let lines = tree.read_text("usr/lib/tmpfiles.d/zz-catamaran-var.conf").unwrap();
        assert!(lines.contains("d /var/lib/etcd 0755 100 0 -\nC /var/lib/etcd/note 0644 0 0 -\n"), "{lines}");
        assert_eq!(tree.read("usr/share/factory/var/lib/etcd/note").unwrap(), b"n");
        assert!(tree.entries_below("var").next().is_none());
    }

    #[test]
    fn a_link_dangles_only_if_its_target_was_there() {
        let mut tree = tree(&[("usr/bin/vi", "")]);
        tree.insert("etc/alternatives/editor", TreeEntry::symlink("/bin/gone"));
        tree.insert("etc/resolv.conf", TreeEntry::symlink("../run/resolv.conf"));

        remove_dangling_links(&mut tree, |path| path == "usr/bin/gone");

        assert!(tree.get("etc/alternatives/editor").is_none());
        assert!(tree.get("etc/resolv.conf").is_some());
    }
}
