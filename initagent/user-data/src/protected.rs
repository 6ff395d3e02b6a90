//! What a document may not replace, because the machine is reached through it.
//!
//! Knows paths and units. Refuses to know who asks. Invariant: user-data can't cost the machine its
//! SSH access; what these tables can't see (a broken `sshd_config`, say) the one who acts checks after
//! the fact and takes back.

/// A path that no document may write, and which key does what its author wants.
const PATHS: [(&str, &str); 17] = [
    ("/etc/passwd", "use `users`"),
    ("/etc/shadow", "use `users` or `chpasswd`"),
    ("/etc/group", "use `groups`"),
    ("/etc/gshadow", "use `groups`"),
    ("/etc/subuid", "use `users`"),
    ("/etc/subgid", "use `users`"),
    ("/etc/hosts.allow", "sshd obeys it; use a firewall's unit"),
    ("/etc/hosts.deny", "sshd obeys it; use a firewall's unit"),
    ("/etc/nologin", "with it nobody logs in"),
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
const TREES: [(&str, &str); 13] = [
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

const READ_ONLY: &str = "it is part of the verified, read-only image; use /etc, /opt or /var";

/// The directories of the root that can be written, or that other file systems are mounted on.
const WRITABLE: [&str; 10] = ["etc", "home", "media", "mnt", "opt", "root", "run", "srv", "tmp", "var"];
const NOT_WRITABLE: &str = "the root is read-only; use /opt, /srv, /var or /etc";

/// Units without which nobody gets in.
const UNITS: [&str; 12] = [
    "basic.target",
    "dbus.service",
    "dbus.socket",
    "getty.target",
    "multi-user.target",
    "ssh.service",
    "ssh.socket",
    "sshd.service",
    "sysinit.target",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
];

/// What comes after everything that lets people in.
const LATE: [&str; 3] = ["default.target", "graphical.target", "multi-user.target"];

/// Why a document may not write this path, and what to do instead.
#[must_use]
pub fn path(path: &str) -> Option<&'static str> {
    let path = path.trim_end_matches('/');
    let file = PATHS.iter().find(|(protected, _)| *protected == path);
    let tree = TREES.iter().find(|(tree, _)| {
        path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let elsewhere = (!WRITABLE.contains(&first)).then_some(NOT_WRITABLE);
    file.or(tree).map(|(_, instead)| *instead).or(elsewhere).or_else(|| unit_file(path))
}

/// The file of a unit without which nobody gets in; its drop-ins are free.
fn unit_file(path: &str) -> Option<&'static str> {
    let (folder, name) = path.rsplit_once('/')?;
    let is_folder =
        ["/etc/systemd/system", "/run/systemd/system", "/etc/systemd/system.control"].contains(&folder);
    (is_folder && unit(name)).then_some(BY_DROP_IN)
}

/// What to do with a unit that may not be replaced.
pub const BY_DROP_IN: &str = "people get in by this unit; change it by a drop-in";

/// What to do with a unit that [`shut_out_by`] names.
pub const LEAVE_IT_OUT: &str =
    "leave that out of the unit: ssh must be able to start before the boot has ended, and to stay";

/// Whether a unit may not be masked, stopped or disabled.
#[must_use]
pub fn unit(name: &str) -> bool {
    UNITS.contains(&name)
}

/// Why this content of a unit or of its drop-in may not be: with it, systemd would leave out or stop a
/// unit without which nobody gets in.
#[must_use]
pub fn shut_out_by(name: &str, content: &str) -> Option<String> {
    let joined = content.replace("\\\n", " ");
    let named = |key: &str| -> Vec<&str> {
        let settings = joined.lines().filter_map(|line| line.split_once('='));
        settings
            .filter(|(known, _)| known.trim() == key)
            .flat_map(|(_, value)| value.split_whitespace())
            .collect()
    };
    if let Some(victim) = named("Conflicts").into_iter().find(|other| unit(other)) {
        return Some(format!("{name} conflicts with {victim}, so nobody could get in while it runs"));
    }
    let is_late = named("After").into_iter().any(|other| LATE.contains(&other));
    let first = named("Before").into_iter().find(|other| unit(other));
    let victim =
        first.or_else(|| (unit(name) && !LATE.contains(&name)).then_some(name)).filter(|_| is_late)?;
    Some(format!(
        "{victim} would wait for the end of the boot, which waits for it; systemd may then not start it"
    ))
}

/// Whether a file takes part in letting people in, so that it is checked after it was written.
#[must_use]
pub fn concerns_access(path: &str) -> bool {
    path.starts_with("/etc/ssh/") || path.contains("/.ssh/") || path.ends_with("/.ssh")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_and_the_image_are_protected() {
        for protected in [
            "/etc/shadow",
            "/usr/bin/ls",
            "/usr",
            "/etc/pam.d/sshd",
            "/lib/systemd/system/x.service",
            "/data/x",
            "/x",
        ] {
            assert!(path(protected).is_some(), "{protected}");
        }
    }

    #[test]
    fn the_way_in_is_changed_by_drop_ins_only() {
        assert!(path("/etc/systemd/system/ssh.service").is_some());
        assert_eq!(path("/etc/systemd/system/ssh.service.d/a.conf"), None);
        assert_eq!(path("/etc/systemd/system/web.service"), None);
    }

    #[test]
    fn a_unit_that_keeps_the_way_in_from_starting_is_told() {
        for (name, content) in [
            ("a.service", "[Unit]\nConflicts = x.service \\\n  ssh.service\n"),
            ("a.service", "[Unit]\nAfter=network.target multi-user.target\nBefore=ssh.service\n"),
            ("ssh.service", "[Unit]\n  After=graphical.target  \n"),
        ] {
            assert!(shut_out_by(name, content).is_some_and(|why| why.contains("ssh.service")), "{content}");
        }
        for (name, content) in [
            ("a.service", "[Unit]\nConflicts=shutdown.target\nBefore=ssh.service\nAfter=network.target\n"),
            ("a.service", "[Unit]\nAfter=multi-user.target\nBefore=b.service\n# Conflicts=ssh.service\n"),
            ("ssh.service", "[Unit]\nAfter=vpn.service\n"),
            ("multi-user.target", "[Unit]\nAfter=multi-user.target\n"),
        ] {
            assert_eq!(shut_out_by(name, content), None, "{content}");
        }
    }

    #[test]
    fn what_users_configure_is_not() {
        for free in [
            "/etc/ssh/sshd_config",
            "/etc/passwd.bak",
            "/var/usr",
            "/opt/bin/a",
            "/etc/libvirt",
            "/home/core/.ssh/authorized_keys",
        ] {
            assert_eq!(path(free), None, "{free}");
        }
    }
}
