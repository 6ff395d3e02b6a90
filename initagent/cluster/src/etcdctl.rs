//! `etcdctl` as people type it: which of etcd's two APIs is meant, and with which certificate.
//!
//! Knows the commands of both. Refuses to speak to etcd: Debian's program does, which stands aside for this one.
//! Invariant: who says which API he means gets it, and who brings his own certificate keeps it.
//!
//! Unit files of CoreOS's time say `etcdctl set /coreos.com/network/config …` and mean version 2; guides of today
//! say `etcdctl put` and mean version 3. Most words belong to one of them; for those of both, see [`plan_call`].

#![expect(clippy::disallowed_methods, reason = "effects live here")]

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use crate::etcd::Variables;
use crate::prepare::read_served;
use crate::site::Site;

/// Where the image keeps Debian's program.
const PROGRAM: &str = "/usr/libexec/etcdctl";
/// Words of version 2 alone.
const CLASSIC: [&str; 13] = [
    "backup",
    "cluster-health",
    "exec-watch",
    "import",
    "ls",
    "mk",
    "mkdir",
    "rm",
    "rmdir",
    "set",
    "setdir",
    "update",
    "updatedir",
];
/// Options of version 2 alone, by which `get` and `watch` are told apart.
const CLASSIC_OPTIONS: [&str; 7] =
    ["after-index", "consistent", "forever", "quorum", "recursive", "sort", "with-index"];
/// Who gives one of these goes his own way.
const OWN_WAY: [&str; 11] = [
    "ca-file",
    "cacert",
    "cert",
    "cert-file",
    "discovery-srv",
    "endpoint",
    "endpoints",
    "key",
    "key-file",
    "peers",
    "user",
];

/// What is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdctlCall {
    /// Exactly what was typed.
    AsTyped,
    /// Version 2.
    Classic,
    /// A key that may be in either store.
    Either,
    /// Version 3.
    Modern,
}

/// Which API a command line means.
///
/// `get KEY` and `watch KEY` are words of both. With an option of one of them they mean that one. Otherwise a key
/// with a slash in front, as all keys of version 2 have, is looked for there first.
#[must_use]
pub fn plan_call(words: &[String], environment: &Variables) -> EtcdctlCall {
    let options: Vec<&str> = words.iter().filter_map(|word| option_name(word)).collect();
    let plain: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let has = |names: &[&str]| options.iter().any(|option| names.contains(option));
    let is_own = has(&OWN_WAY) || environment.contains_key("ETCDCTL_ENDPOINTS");
    match environment.get("ETCDCTL_API").map(String::as_str) {
        Some("2") => return EtcdctlCall::Classic,
        Some(_) if !is_own => return EtcdctlCall::Modern,
        Some(_) => return EtcdctlCall::AsTyped,
        None => {}
    }
    // An option may stand before the command, with its value as the next word.
    let is_command = |word: &&&str| CLASSIC.contains(*word) || matches!(**word, "get" | "watch");
    let command = plain.iter().find(is_command).or_else(|| plain.first()).copied().unwrap_or_default();
    let is_path =
        plain.iter().skip_while(|word| **word != command).nth(1).is_some_and(|key| key.starts_with('/'));
    match command {
        word if CLASSIC.contains(&word) => EtcdctlCall::Classic,
        "get" | "watch" if has(&CLASSIC_OPTIONS) => EtcdctlCall::Classic,
        _ if is_own => EtcdctlCall::AsTyped,
        "get" if is_path && options.is_empty() => EtcdctlCall::Either,
        "watch" if is_path && options.is_empty() => EtcdctlCall::Classic,
        _ => EtcdctlCall::Modern,
    }
}

/// `cacert` of `--cacert=FILE`.
fn option_name(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    Some(name.split('=').next().unwrap_or(name))
}

/// What Debian's program is told besides the words.
#[must_use]
pub fn call_environment(call: EtcdctlCall, site: &Site) -> Variables {
    let mut variables = Variables::new();
    match call {
        // Without a word for it, Debian's program means version 3.
        EtcdctlCall::AsTyped | EtcdctlCall::Either => {}
        EtcdctlCall::Classic => {
            variables.insert("ETCDCTL_API".to_owned(), "2".to_owned());
        }
        EtcdctlCall::Modern => {
            variables.insert("ETCDCTL_API".to_owned(), "3".to_owned());
            let members = read_served(site).ok().flatten().map(|served| served.members).unwrap_or_default();
            if !members.is_empty() {
                let members: Vec<String> = members.iter().map(|member| format!("https://{member}")).collect();
                let path = |name: &str| site.runtime_path(name).display().to_string();
                variables.insert("ETCDCTL_ENDPOINTS".to_owned(), members.join(","));
                variables.insert("ETCDCTL_CACERT".to_owned(), path("client-ca.pem"));
                variables.insert("ETCDCTL_CERT".to_owned(), path("client.pem"));
                variables.insert("ETCDCTL_KEY".to_owned(), path("client.key"));
            }
        }
    }
    variables
}

/// Becomes Debian's program, or runs it; the exit code if it ended.
pub fn run_etcdctl(words: &[OsString], environment: &Variables) -> io::Result<u8> {
    let site = Site::at_root(std::path::Path::new("/"));
    let texts: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let call = plan_call(&texts, environment);
    if call == EtcdctlCall::Either {
        return get_from_either(words, &site);
    }
    let variables = call_environment(call, &site);
    if let Some(key) = variables.get("ETCDCTL_KEY").filter(|key| std::fs::File::open(key).is_err()) {
        let hint = format!("this machine's certificate for etcd is root's ({key}): use 'sudo etcdctl'");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, hint));
    }
    Err(Command::new(PROGRAM).args(words).envs(variables).exec())
}

/// A key of version 2, or else of version 3; if it is in neither, what version 2 says of that.
fn get_from_either(words: &[OsString], site: &Site) -> io::Result<u8> {
    let run = |call| -> io::Result<Output> {
        Command::new(PROGRAM).args(words).envs(call_environment(call, site)).stdin(Stdio::null()).output()
    };
    let classic = run(EtcdctlCall::Classic)?;
    if classic.status.success() {
        io::stdout().write_all(&classic.stdout)?;
        return Ok(0);
    }
    let modern = run(EtcdctlCall::Modern)?;
    if modern.status.success() && !modern.stdout.is_empty() {
        io::stdout().write_all(&modern.stdout)?;
        return Ok(0);
    }
    io::stderr().write_all(&classic.stderr)?;
    Ok(classic.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(line: &str, environment: &[(&str, &str)]) -> EtcdctlCall {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        plan_call(&words, &environment.collect())
    }

    #[test]
    fn what_unit_files_of_coreos_say_means_version_2() {
        for line in [
            "set /coreos.com/network/config {\"Network\":\"10.1.0.0/16\"}",
            "--debug set /a b",
            "ls --recursive /",
            "mk /a b --ttl 5",
            "rm /a",
            "cluster-health",
            "get --quorum /a",
            "watch /a",
            "watch --recursive /a",
            "exec-watch /a -- sh -c true",
            "--endpoint http://10.0.0.1:4001 ls",
        ] {
            assert_eq!(planned(line, &[]), EtcdctlCall::Classic, "{line}");
        }
    }

    #[test]
    fn what_guides_of_today_say_means_version_3() {
        for line in [
            "put greeting ahoy",
            "get greeting",
            "get --prefix /",
            "get /a --print-value-only",
            "del /a",
            "member list",
            "endpoint health",
            "snapshot save /tmp/x",
            "watch a",
            "version",
            "",
        ] {
            assert_eq!(planned(line, &[]), EtcdctlCall::Modern, "{line}");
        }
    }

    #[test]
    fn a_key_with_a_slash_may_be_in_either() {
        assert_eq!(planned("get /coreos.com/network/config", &[]), EtcdctlCall::Either);
    }

    #[test]
    fn who_says_what_he_means_gets_it() {
        assert_eq!(planned("get /a", &[("ETCDCTL_API", "2")]), EtcdctlCall::Classic);
        assert_eq!(planned("get /a", &[("ETCDCTL_API", "3")]), EtcdctlCall::Modern);
        assert_eq!(
            planned("get /a", &[("ETCDCTL_API", "3"), ("ETCDCTL_ENDPOINTS", "x")]),
            EtcdctlCall::AsTyped
        );
        assert_eq!(planned("--endpoints=https://10.0.0.1:2379 get /a", &[]), EtcdctlCall::AsTyped);
        assert_eq!(planned("put a b --cert /my.pem --key /my.key", &[]), EtcdctlCall::AsTyped);
    }

    #[test]
    fn version_3_comes_with_the_machines_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::at_root(folder.path());
        let path = site.runtime_path("served.json");
        let served =
            crate::prepare::ServedCluster { members: vec![crate::etcd::LOCAL], ..Default::default() };
        let text = serde_json::to_string(&served).unwrap();
        site.write(&path, &text, crate::site::Readers::All).unwrap();

        let variables = call_environment(EtcdctlCall::Modern, &site);

        assert_eq!(variables["ETCDCTL_ENDPOINTS"], "https://127.0.0.1:2378");
        assert_eq!(variables.len(), 5);
        assert_eq!(call_environment(EtcdctlCall::Classic, &site).len(), 1);
    }
}
