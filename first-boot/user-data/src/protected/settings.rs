//! Files that hold settings of every login or of the whole machine: judged by what they say.
//!
//! Knows /etc/environment, the manager's own configuration and tmpfiles.d(5). Refuses to know who writes
//! them. Invariant: what may close every login, or remove what people get in by, is refused; everything
//! else in these files is their author's business.
//!
//! Documentation: `pam_env(8)`, systemd-system.conf(5), tmpfiles.d(5).

use super::PolicyObjection;
use super::paths::{NEEDED, PATHS, TREES};
use super::units::is_limit;

/// A file that is judged by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// /etc/environment, which PAM reads at each login.
    Environment,
    /// system.conf and its drop-ins.
    Manager,
    /// A file below tmpfiles.d.
    TemporaryFiles,
}

/// Settings of the manager that cannot keep a unit of the way in from running, whatever their value.
///
/// Told by name, since those that can are many: `NoNewPrivileges=` ends sudo, `DefaultTimeoutStartSec=1`
/// kills what starts slowly, `SystemCallArchitectures=` what is of another one.
const HARMLESS: [&str; 27] = [
    "CrashChangeVT",
    "CtrlAltDelBurstAction",
    "DefaultBlockIOAccounting",
    "DefaultCPUAccounting",
    "DefaultDeviceTimeoutSec",
    "DefaultIOAccounting",
    "DefaultIPAccounting",
    "DefaultLimitCORE",
    "DefaultMemoryAccounting",
    "DefaultMemoryPressureWatch",
    "DefaultOOMPolicy",
    "DefaultRestartSec",
    "DefaultStandardError",
    "DefaultStandardOutput",
    "DefaultTasksAccounting",
    "DefaultTimeoutAbortSec",
    "DefaultTimeoutStopSec",
    "DefaultTimerAccuracySec",
    "DumpCore",
    "KExecWatchdogSec",
    "LogColor",
    "LogLevel",
    "LogLocation",
    "LogTime",
    "RebootWatchdogSec",
    "RuntimeWatchdogSec",
    "ShowStatus",
];
/// Settings that must leave room for sshd and those who log in.
// A small limit ends each login, but larger ones than the default are what databases ask for.
const LIMITS: [&str; 3] = ["DefaultLimitNOFILE", "DefaultLimitNPROC", "DefaultTasksMax"];

/// What people get in by, besides what no document may write: nothing of it may be removed or emptied.
const KEPT: [&str; 5] = ["/etc/ssh", "/etc/sudoers.d", "/home/*/.ssh", "/root/.ssh", "/run/sshd"];

/// More than anybody writes; each line is compared with all that is kept.
const LONGEST: usize = 64 << 10;

/// Of a PATH that lacks one of these, a login finds no program.
// /bin leads to /usr/bin on Debian, so either will do.
const PROGRAMS: [&str; 2] = ["/usr/bin", "/bin"];

fn kind_of(path: &str) -> Option<Kind> {
    let is_in = |folders: &[&str]| {
        folders.iter().any(|folder| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    match path {
        "/etc/environment" => Some(Kind::Environment),
        "/etc/systemd/system.conf" => Some(Kind::Manager),
        _ if is_in(&["/etc/systemd/system.conf.d", "/run/systemd/system.conf.d"]) => Some(Kind::Manager),
        _ if is_in(&["/etc/tmpfiles.d", "/run/tmpfiles.d"]) => Some(Kind::TemporaryFiles),
        _ => None,
    }
}

/// Why such a file may not be a link: nobody has read what it leads to. /dev/null says nothing.
pub(super) fn link_objection(path: &str, target: &str) -> Option<PolicyObjection> {
    kind_of(path).filter(|_| target != "/dev/null").map(|_| {
        let message = format!("{path} cannot be a link: what it leads to is not judged");
        PolicyObjection::new(message, "write the file itself")
    })
}

/// Why a file may not hold this.
pub(super) fn content_objection(path: &str, content: &str) -> Option<PolicyObjection> {
    let kind = kind_of(path)?;
    if content.len() > LONGEST {
        let message = format!("{path} has {} bytes; at most {LONGEST} are judged", content.len());
        return Some(PolicyObjection::new(message, "divide it into several files"));
    }
    match kind {
        Kind::Environment => content.lines().find_map(variable_objection),
        Kind::Manager => content.lines().find_map(setting_objection),
        Kind::TemporaryFiles => content.lines().find_map(tmpfiles_objection),
    }
}

/// PAM reads `NAME=value`, also behind `export`.
fn variable_objection(line: &str) -> Option<PolicyObjection> {
    // pam_env drops the word, so that shells can read the same file.
    let line = line.trim().trim_start_matches("export ").trim_start();
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim(), value.trim().trim_matches(['"', '\'']));
    let lacks = |folder: &&str| !value.split(':').any(|known| known.trim_end_matches('/') == *folder);
    let because = match name {
        _ if name.starts_with("LD_") => "with it no program may start in a login",
        // bash(1) and dash(1) obey these when they start.
        "BASH_ENV" | "ENV" | "SHELLOPTS" => "each shell would run what it names",
        "PATH" if PROGRAMS.iter().all(lacks) => "with it a login finds no program; keep /usr/bin in it",
        _ => return None,
    };
    let message = format!("`{name}` in /etc/environment is for every login: {because}");
    Some(PolicyObjection::new(message, "set it in a unit's drop-in, or in a file in /etc/profile.d"))
}

fn setting_objection(line: &str) -> Option<PolicyObjection> {
    let line = line.trim();
    if line.starts_with(['#', ';', '[']) {
        return None;
    }
    let (key, value) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()))?;
    let is_fine = match key {
        "DefaultEnvironment" | "ManagerEnvironment" => !value.contains("LD_") && !value.contains("PATH="),
        _ if LIMITS.contains(&key) => is_limit(value),
        _ => HARMLESS.contains(&key),
    };
    if is_fine {
        return None;
    }
    let message = format!("`{key}` of the manager is for every unit, those that people get in by among them");
    Some(PolicyObjection::new(message, "set it in the drop-ins of the units that you mean"))
}

/// A line of tmpfiles.d: its kind, then a path that may be a pattern.
fn tmpfiles_objection(line: &str) -> Option<PolicyObjection> {
    let mut words = line.split_ascii_whitespace();
    let (kind, path) = (words.next()?, words.next()?);
    // `x` and `X` leave paths alone.
    if kind.starts_with(['#', 'x', 'X']) {
        return None;
    }
    let path = expand_specifiers(path.trim_matches(['"', '\'']));
    let kept = protected_paths().find(|kept| paths_meet(&path, kept))?;
    let message = format!("`{kind} {path}` would change {kept}, by which people get in");
    Some(PolicyObjection::new(message, "leave this line out; `write_files` and `users` make what you need"))
}

fn protected_paths() -> impl Iterator<Item = &'static str> {
    // Of the trees, those of the kernel and of the image: writing there is what `w` is for, or fails.
    let trees = TREES
        .iter()
        .map(|(tree, _)| *tree)
        .filter(|tree| tree.starts_with("/etc/") || tree.ends_with("/catamaran"));
    PATHS.iter().map(|(path, _)| *path).chain(trees).chain(NEEDED).chain(KEPT)
}

/// The specifiers that stand for directories; others may stand for anything.
fn expand_specifiers(path: &str) -> String {
    // The manager's values in system mode, tmpfiles.d(5).
    let known =
        [("%h", "/root"), ("%t", "/run"), ("%S", "/var/lib"), ("%L", "/var/log"), ("%C", "/var/cache")];
    let path = known.iter().fold(path.to_owned(), |path, (name, folder)| path.replace(name, folder));
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .map(|part| if part.contains('%') { "*" } else { part })
        .collect();
    format!("/{}", parts.join("/"))
}

/// Whether one path is the other, holds it or lies in it; a pattern meets all that it may stand for.
fn paths_meet(one: &str, other: &str) -> bool {
    let is_pattern = |part: &str| part.contains(['*', '?', '[']);
    let mut pairs = path_parts(one).zip(path_parts(other));
    pairs.all(|(a, b)| a == b || is_pattern(a) || is_pattern(b))
}

fn path_parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPORARY: &str = "/etc/tmpfiles.d/site.conf";
    const MANAGER: &str = "/etc/systemd/system.conf.d/site.conf";

    #[test]
    fn temporary_files_do_not_take_the_way_in_away() {
        for line in [
            "R! /home/core/.ssh",
            "r /home/core/.ssh/authorized_keys",
            "D /home/core 0700 core core -",
            "e /home - - - 10d",
            "d /home/core 0777 core core 1h",
            "R /home/*",
            "R /*/core",
            "z /etc/ssh/sshd_config 0000 - - -",
            "D! /run/sshd",
            "R %h/.ssh",
            "R %t",
            "R /",
            "f+ /etc/passwd 0644 root root - root::0:0::/:/bin/sh",
            "L+ /etc/systemd/system/ssh.service - - - - /dev/null",
            "R \"/etc/systemd/system\"",
            "R %S/catamaran",
        ] {
            assert!(content_objection(TEMPORARY, &format!("# site\n{line}\n")).is_some(), "{line}");
        }
        for line in [
            "d /run/site 0755 root root -",
            "D /tmp 1777 root root 3d",
            "w /sys/kernel/mm/transparent_hugepage/enabled - - - - never",
            "w /proc/sys/vm/swappiness - - - - 1",
            "f /etc/motd 0644 root root - hello",
            "x /home/core/.ssh",
            "R /home/core/cache",
            "L /opt/bin/tool - - - - /srv/tool",
        ] {
            assert_eq!(content_objection(TEMPORARY, line), None, "{line}");
        }
    }

    #[test]
    fn the_manager_is_not_told_what_may_keep_units_from_starting() {
        for line in [
            "DefaultTimeoutStartSec=1",
            "DefaultTasksMax=5",
            "DefaultLimitNOFILE=16:32",
            "NoNewPrivileges=yes",
            "SystemCallArchitectures=arm",
            "DefaultEnvironment=\"LD_PRELOAD=/x.so\"",
        ] {
            assert!(content_objection(MANAGER, &format!("[Manager]\n{line}\n")).is_some(), "{line}");
        }
        let text = "[Manager]\nDefaultEnvironment=\"HTTP_PROXY=http://192.0.2.3:3128\"\nDefaultTasksMax=infinity\n\
                    DefaultLimitNOFILE=1048576\nRuntimeWatchdogSec=20\n# NoNewPrivileges=yes\n";
        assert_eq!(content_objection(MANAGER, text), None);
        assert_eq!(content_objection("/etc/systemd/user.conf", "DefaultTasksMax=1"), None);
    }

    #[test]
    fn the_environment_of_all_logins_leaves_them_a_shell() {
        for line in ["LD_PRELOAD=/x.so", "export LD_LIBRARY_PATH=/opt/lib", "PATH=/opt/bin", "BASH_ENV=/x"] {
            assert!(content_objection("/etc/environment", line).is_some(), "{line}");
        }
        for line in
            ["PATH=\"/usr/local/bin:/usr/bin:/bin:/opt/bin\"", "HTTP_PROXY=http://a:1", "# LD_PRELOAD=x"]
        {
            assert_eq!(content_objection("/etc/environment", line), None, "{line}");
        }
    }

    #[test]
    fn nobody_reads_what_a_link_leads_to() {
        assert!(link_objection("/etc/environment", "/srv/environment").is_some());
        assert!(link_objection("/etc/tmpfiles.d", "/srv/tmpfiles").is_some());
        assert_eq!(link_objection(TEMPORARY, "/dev/null"), None);
    }
}
