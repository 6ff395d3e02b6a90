//! The watch over the way in: what this run wrote for sshd stays only if somebody still gets in. What can
//! be judged without sshd, [`user_data::protected`] did.
//!
//! Knows whom the machine belongs to: whoever has a key or a password and may become root. Refuses to
//! change a setting. Invariant: after this, sshd starts and lets an owner in, or its files are as they
//! were.
//!
//! Documentation: sshd(8) for `-T` and `-C`, `sshd_config(5)` for `Match`.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;

use user_data::plan::step::DEFAULT_USER;
use user_data::plan::step::UnitVerb;

use super::key_files::{KEYS, key_kinds, kinds_in};
use super::reach::{self, LoginCandidate, SshdSettings};
use super::snapshot::FileSnapshot;
use super::{ApplyContext, access};
use crate::accounts;
use crate::files::{self, FileChange, FileRights};
use crate::programs::ProgramCall;
use crate::step_error::StepError;
use crate::systemd::UnitRequest;

const SSHD: &str = "/usr/sbin/sshd";
const SERVICE: &str = "ssh.service";
/// sshd refuses to run without it.
// Debian's ssh.service makes it, but at the first boot it has not run yet.
const SEPARATION: &str = "/run/sshd";
const CONFIG: &str = "/etc/ssh/sshd_config";
const DROP_INS: &str = "/etc/ssh/sshd_config.d";
const SUDOERS: &str = "/etc/sudoers.d/90-cloud-init-users";
/// Rules may be for some addresses only: those of the world and of the usual private nets.
// RFC 5737 and RFC 3849 keep the first and the last for documentation, so no rule lets them in by name. The
// others are of RFC 1918.
const FROM: [&str; 4] = ["192.0.2.1", "10.0.0.1", "192.168.0.1", "2001:db8::1"];
/// Who is asked about at most.
// Where there are rules, each costs up to four runs of sshd, and in a machine that starved each run took
// seconds.
const MOST_OWNERS: usize = 8;

/// Whether a file is neither a host key that sshd cannot read (it starts without, but who knows the
/// machine by that one turns away) nor a list of keys that had some and has none any more.
fn check_usable(snapshot: &FileSnapshot, host: &ApplyContext<'_>) -> Result<(), String> {
    let name = snapshot.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let had_keys = snapshot.known_content().is_some_and(|content| !kinds_in(content).is_empty());
    if snapshot.path.ends_with(KEYS) && had_keys && key_kinds(&snapshot.path).is_empty() {
        return Err("there were keys in it, and now there is none".to_owned());
    }
    if !name.starts_with("ssh_host_") || !name.ends_with("_key") || !snapshot.path.exists() {
        return Ok(());
    }
    let file = snapshot.path.display().to_string();
    // sshd starts with one key of three that it can read, so `sshd -T` does not show that another one is broken.
    let read = host.programs.run_program(&ProgramCall::new("ssh-keygen", ["-y", "-P", "", "-f", &file]));
    read.map(drop).map_err(|_| format!("{name} is no key that sshd can read"))
}

/// Asks sshd what would become of its files; of those that this run wrote, takes back what keeps the
/// owner out, and nothing else.
pub(crate) fn check_lockout(host: &ApplyContext<'_>) -> Result<FileChange, StepError> {
    files::make_directory(&host.root.path_of(SEPARATION), FileRights { mode: 0o755, ..FileRights::PUBLIC })?;
    let before = host.before.take();
    settle_keys(&before, host);
    let keys = || before.iter().try_for_each(|one| check_usable(one, host));
    let Err(complaint) = way_in(host).and_then(|()| keys()) else {
        reload_sshd(host);
        return Ok(FileChange::None);
    };
    let after: Vec<FileSnapshot> =
        before.iter().map(|one| FileSnapshot::take_snapshot(one.path.clone())).collect();
    // All of them first, then one by one: it tells which file it was, and the others stay as they were asked
    // for.
    before.iter().rev().try_for_each(FileSnapshot::restore_file)?;
    if before.is_empty() || way_in(host).is_err() {
        // It was so before this run, too, so that nothing can be told of each file.
        let taken = before.iter().map(|one| (one.path.clone(), complaint.clone()));
        return Err(revert_error(taken.collect(), host));
    }
    let mut taken = Vec::new();
    for (before, after) in before.iter().zip(&after) {
        after.restore_file()?;
        if let Err(complaint) = check_usable(before, host).and_then(|()| way_in(host)) {
            before.restore_file()?;
            taken.push((before.path.clone(), complaint));
        }
    }
    reload_sshd(host);
    Err(revert_error(taken, host))
}

/// Notes what was taken back, so that it is told where it was asked for.
fn revert_error(taken: Vec<(PathBuf, String)>, host: &ApplyContext<'_>) -> StepError {
    let lines: Vec<String> =
        taken.iter().map(|(path, reason)| format!("{}: {reason}", path.display())).collect();
    host.taken_back.replace(taken);
    StepError::Said(format!("these files were put back as they were: {}", lines.join("; ")))
}

/// Why the step that wrote this file failed after all.
pub(crate) fn taken_back(path: &str, host: &ApplyContext<'_>) -> Option<String> {
    let path = host.root.path_of(path);
    let taken = host.taken_back.borrow();
    let (_, reason) = taken.iter().find(|(taken, _)| *taken == path)?;
    Some(format!("with it nobody would get in, so it was put back as it was: {reason}"))
}

/// Whether sshd starts, listens where it is reached, and lets somebody in who owns the machine.
///
/// It is asked as seldom as can be: on a machine that starves, each program takes seconds.
fn way_in(host: &ApplyContext<'_>) -> Result<(), String> {
    let has_rules = has_rules(host);
    // Without `Match` one answer serves all people. Thirty were asked for before.
    let mut said = ask_sshd(&["-T"], host)?;
    if let Some(reason) = reach::listen_blocker(SshdSettings(&said), is_ours) {
        return Err(reason);
    }
    let mut reason = None;
    for who in login_candidates(host) {
        for from in if has_rules { &FROM[..] } else { &FROM[..1] } {
            if has_rules {
                said = ask_sshd(&["-T", "-C", &format!("user={},host={from},addr={from}", who.name)], host)?;
            }
            match reach::login_blocker(SshdSettings(&said), &who) {
                None => return Ok(()),
                Some(obstacle) => reason = reason.or(Some(obstacle)),
            }
        }
    }
    Err(reason.unwrap_or_else(|| "nobody has a key".to_owned()))
}

/// Whether settings depend on who asks from where, as far as the usual files tell.
fn has_rules(host: &ApplyContext<'_>) -> bool {
    let folder = fs::read_dir(host.root.path_of(DROP_INS)).into_iter().flatten().flatten();
    let files = folder.map(|entry| entry.path()).chain([host.root.path_of(CONFIG)]);
    let is_rule = |line: &str| {
        let line = line.trim_start().to_ascii_lowercase();
        line.starts_with("match") || (line.starts_with("include") && !line.contains("sshd_config.d/*.conf"))
    };
    files
        .filter_map(|path| fs::read(path).ok())
        .any(|text| String::from_utf8_lossy(&text).lines().any(is_rule))
}

fn ask_sshd(arguments: &[&str], host: &ApplyContext<'_>) -> Result<String, String> {
    let said = host.programs.run_program(&ProgramCall::new(SSHD, arguments.iter().copied()));
    said.map(|said| String::from_utf8_lossy(&said).into_owned())
        .map_err(|error| format!("sshd would not start ({error})"))
}

/// sshd takes keys only from a file of their user in a home that others cannot write, and a file of root's
/// that all others may not read is as good as none.
fn settle_keys(written: &[FileSnapshot], host: &ApplyContext<'_>) {
    for (name, login) in accounts::all_users(host.root) {
        let keys = host.root.path_of(&login.home).join(KEYS);
        if written.iter().any(|one| one.path == keys) {
            // If it cannot be done, the file is as its author asked for.
            let _ = access::authorize_keys(&name, &[], host);
        }
    }
}

/// Whether this machine has the address: only then can somebody listen on it.
fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Who has a way to prove who they are and may become root; the image's own user if there is none, who
/// will get a key some day.
fn login_candidates(host: &ApplyContext<'_>) -> Vec<LoginCandidate> {
    let read = |path: &str| fs::read_to_string(host.root.path_of(path)).unwrap_or_default();
    let (passwd, group, shadow, sudoers) =
        (read("/etc/passwd"), read("/etc/group"), read("/etc/shadow"), read(SUDOERS));
    let people = passwd.lines().filter_map(|line| login_candidate(line, &group, &shadow, host));
    let owners = |who: &LoginCandidate| {
        let named = sudoers.lines().any(|line| line.split(' ').next() == Some(who.name.as_str()));
        who.is_root || named || who.groups.iter().any(|group| group == "sudo")
    };
    let (mut own, mut others): (Vec<_>, Vec<_>) =
        people.filter(owners).partition(|who| who.name == DEFAULT_USER);
    let proves = |who: &LoginCandidate| who.has_password || who.has_key();
    others.retain(proves);
    if !others.is_empty() {
        own.retain(proves);
    }
    own.extend(others);
    own.truncate(MOST_OWNERS);
    own
}

fn login_candidate(line: &str, group: &str, shadow: &str, host: &ApplyContext<'_>) -> Option<LoginCandidate> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    // nologin(8) and false(1) end the session at once, so such an account is no way in.
    if shell.ends_with("/nologin") || shell.ends_with("/false") {
        return None;
    }
    let is_in = |line: &&str| {
        let fields: Vec<&str> = line.split(':').collect();
        fields.get(2) == Some(&gid)
            || fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
    };
    let groups = group.lines().filter(is_in).filter_map(|line| line.split(':').next()).map(str::to_owned);
    let hash = shadow.lines().filter_map(|line| line.split_once(':')).find(|(known, _)| *known == name);
    Some(LoginCandidate {
        name: name.to_owned(),
        home: home.to_owned(),
        groups: groups.collect(),
        key_kinds: key_kinds(&host.root.path_of(home).join(KEYS)),
        platform_key_kinds: key_kinds(&access::platform_keys(name, host)),
        has_password: hash.is_some_and(|(_, rest)| rest.starts_with(['$', '_'])),
        is_root: uid == "0",
    })
}

/// If sshd runs already, it takes the new settings; if not, there is nothing to do.
fn reload_sshd(host: &ApplyContext<'_>) {
    // Without a running manager sshd is not running either.
    let _ =
        host.manager.send_requests(&[UnitRequest::Job { unit: SERVICE, verb: UnitVerb::ReloadOrTryRestart }]);
}
