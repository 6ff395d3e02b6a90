//! Which paths of the machine no document may write, link over or close.
//!
//! Knows the files by which people log in and the system starts, and what to use instead. Refuses to know what a file
//! holds. Invariant: the answer depends on the path and its rights alone.

use super::PolicyObjection;
use crate::plan::step::{AccountRef, DEFAULT_USER, DirectoryStep, FileOwner};

/// A path that no document may write, and which key does what its author wants.
// A list of what is refused, not of what is allowed: documents write files of any name, and almost all are
// harmless.
pub(super) const PATHS: [(&str, &str); 25] = [
    ("/etc/passwd", "use `users`"),
    ("/etc/shadow", "use `users` or `chpasswd`"),
    ("/etc/group", "use `groups`"),
    ("/etc/gshadow", "use `groups`"),
    ("/etc/subuid", "use `users`"),
    ("/etc/subgid", "use `users`"),
    ("/etc/hosts.allow", "sshd obeys it; use a firewall's unit"),
    ("/etc/hosts.deny", "sshd obeys it; use a firewall's unit"),
    ("/etc/nologin", "with it nobody logs in"),
    ("/run/nologin", "with it nobody logs in"),
    ("/etc/ssh/sshd_not_to_be_run", "with it sshd does not start"),
    ("/etc/ssh/sshrc", SSH_SCRIPT),
    // Each shell of a login reads it, and Debian's bash also that of a command over ssh.
    ("/etc/bash.bashrc", "each login runs it; put a file into /etc/profile.d"),
    ("/etc/default/ssh", "sshd's settings belong into /etc/ssh/sshd_config.d"),
    ("/etc/sudoers", "put a file into /etc/sudoers.d"),
    ("/etc/sudoers.d/core", "by it `core` becomes root; use another name in /etc/sudoers.d"),
    ("/etc/ld.so.cache", "set LD_LIBRARY_PATH in a unit's drop-in"),
    ("/etc/fstab", "use `mounts`, or a `.mount` unit"),
    ("/etc/nsswitch.conf", "name servers belong into `resolv_conf`, users into `users`"),
    ("/etc/ld.so.preload", "set LD_PRELOAD in a unit's drop-in"),
    ("/etc/machine-id", "it is made on the machine"),
    ("/etc/pam.conf", "password rules belong into `users` and `chpasswd`"),
    ("/etc/login.defs", "set what differs in `users`"),
    ("/etc/profile", "put a file into /etc/profile.d"),
    ("/etc/ssl/certs/ca-certificates.crt", "use `ca_certs`"),
];

/// Trees that no document may write.
pub(super) const TREES: [(&str, &str); 13] = [
    ("/bin", READ_ONLY),
    ("/boot", READ_ONLY),
    ("/dev", "devices belong into `disk_setup`, `fs_setup` and `mounts`"),
    ("/efi", READ_ONLY),
    ("/etc/pam.d", "password rules belong into `users` and `chpasswd`"),
    ("/etc/security", "limits belong into a unit's drop-in"),
    ("/lib", READ_ONLY),
    ("/lib64", READ_ONLY),
    ("/proc", "use a file in /etc/sysctl.d"),
    ("/run/catamaran", "it is the agent's own"),
    ("/sbin", READ_ONLY),
    ("/usr", READ_ONLY),
    ("/var/lib/catamaran", "it is the agent's own"),
];

/// sshd runs it at each login and waits for it, before there is a shell to mend it by.
pub(super) const SSH_SCRIPT: &str = "each login by ssh waits for it; put a file into /etc/profile.d";

pub(super) const READ_ONLY: &str = "it is part of the verified, read-only image; use /etc, /opt or /var";

/// The directories of the root that can be written, or that other file systems are mounted on.
pub(super) const WRITABLE: [&str; 10] =
    ["etc", "home", "media", "mnt", "opt", "root", "run", "srv", "tmp", "var"];

pub(super) const NOT_WRITABLE: &str = "the root is read-only; use /opt, /srv, /var or /etc";

/// What the machine cannot do without; neither it nor what it lies in may be replaced or closed.
// `authorized_keys` of `core` is the way in that each document has, so its folder is among them.
pub(super) const NEEDED: [&str; 4] =
    ["/etc/ssh/sshd_config.d", "/etc/systemd/system", "/home/core/.ssh", "/run/systemd/system"];

/// Why this path may not become a file or a link: it is a directory that the machine needs.
pub(super) fn instead_of(path: &str) -> Option<PolicyObjection> {
    is_needed(path).then(|| {
        PolicyObjection::new(format!("{path} cannot be replaced"), "it is a directory that the machine needs")
    })
}

/// Why a directory may not get these rights, or be emptied.
pub(super) fn check_directory(directory: &DirectoryStep) -> Option<PolicyObjection> {
    let path = &directory.path;
    let needs = "it is a directory that the machine needs";
    match is_needed(path) {
        true if directory.overwrite => Some(PolicyObjection::new(format!("{path} cannot be emptied"), needs)),
        true if !keeps_open(directory) => {
            Some(PolicyObjection::new(format!("{path} cannot get other rights"), needs))
        }
        false if directory.overwrite && holds_keys(path) => Some(PolicyObjection::new(
            format!("{path} cannot be emptied"),
            "there are keys in it by which somebody gets in; name the directories below it",
        )),
        // sshd's `StrictModes` is on by default, sshd_config(5).
        false if is_home(path) && directory.mode.is_some_and(|mode| mode & 0o022 != 0) => {
            Some(PolicyObjection::new(
                format!("{path} cannot be writable by others"),
                "sshd ignores the keys in such a home; use mode 493, which is 0755",
            ))
        }
        _ => None,
    }
}

/// Whether what the machine needs stays as open as it must be, and no more. What is not given stays.
pub(super) fn keeps_open(directory: &DirectoryStep) -> bool {
    if directory.mode.is_none() && directory.owner == FileOwner::default() {
        return true;
    }
    let is = |account: &Option<AccountRef>, id, name: &str| match account {
        None => id == 0,
        Some(AccountRef::Id(known)) => *known == id,
        Some(AccountRef::Name(known)) => known == name,
    };
    let DirectoryStep { path, owner, .. } = directory;
    let mode = directory.mode.unwrap_or(0o755);
    let is_roots = is(&owner.user, 0, "root") && is(&owner.group, 0, "root") && mode == 0o755;
    let is_cores =
        // 1000 is the number that the image gives `core`. CoreOS's was 500.
        path.starts_with("/home/core") && is(&owner.user, 1000, DEFAULT_USER) && mode & 0o722 == 0o700;
    is_roots || is_cores
}

/// Whether a home or its keys would go with what is in this directory.
pub(super) fn holds_keys(path: &str) -> bool {
    is_home(path) || path == "/root" || path.ends_with("/.ssh")
}

pub(super) fn is_home(path: &str) -> bool {
    path.strip_prefix("/home/").is_some_and(|name| !name.contains('/'))
}

/// Whether a path is, or holds, what the machine cannot do without.
pub(super) fn is_needed(path: &str) -> bool {
    let needed = PATHS.iter().chain(&TREES).map(|(path, _)| *path).chain(NEEDED);
    let inner =
        |needed: &str| needed.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    needed.into_iter().any(inner)
}

/// Why a document may not write this path, and what to do instead.
#[must_use]
pub fn denied_path(path: &str) -> Option<&'static str> {
    let path = path.trim_end_matches('/');
    let file = PATHS.iter().find(|(protected, _)| *protected == path);
    let tree = TREES.iter().find(|(tree, _)| {
        path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let elsewhere = (!WRITABLE.contains(&first)).then_some(NOT_WRITABLE);
    let script = path.ends_with("/.ssh/rc").then_some(SSH_SCRIPT);
    file.or(tree).map(|(_, instead)| *instead).or(script).or(elsewhere)
}

/// Whether a file takes part in letting people in, so that it is checked after it was written.
#[must_use]
pub fn concerns_access(path: &str) -> bool {
    path.starts_with("/etc/ssh/") || path.contains("/.ssh/") || path.ends_with("/.ssh")
}
