//! `locksmithctl`, the real program, against a fleetd's API and against a real etcd.
#![expect(clippy::disallowed_methods, reason = "tests run programs and wait for them")]
#![expect(clippy::format_push_string, reason = "a request is put together line by line")]
#![expect(clippy::print_stderr, reason = "a skipped test says why")]
#![expect(clippy::unwrap_used, reason = "what prepares a test may fail it too")]

#[path = "../support/etcd.rs"]
mod etcd;
#[path = "../support/mod.rs"]
mod support;

use etcd::Etcd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use support::{Options, Server, three_machines, write};
use tempfile::TempDir;

type Seen = (Option<i32>, String, String);

fn locksmithctl(endpoint: &str, path: &str, words: &str) -> Seen {
    let output = Command::new("timeout")
        .args(["300", env!("CARGO_BIN_EXE_locksmithctl")])
        .args(words.split(' ').filter(|word| !word.is_empty()))
        .env_clear()
        .env("PATH", path)
        .env("LOCKSMITHCTL_ENDPOINT", endpoint)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn ok(text: &str) -> Seen {
    (Some(0), text.to_owned(), String::new())
}

fn refused(text: &str) -> Seen {
    (Some(1), String::new(), text.to_owned())
}

/// What holds wherever the slots are kept.
fn tell_the_story(endpoint: &str) {
    let run = |words: &str| locksmithctl(endpoint, "/usr/bin:/bin", words);

    assert_eq!(run("status"), ok("Available: 1\nMax: 1\n"));
    assert_eq!(run("lock m1"), ok(""));
    assert_eq!(run("lock m1"), ok(""), "who holds a slot may ask again");
    assert_eq!(run("status"), ok("Available: 0\nMax: 1\n\nMACHINE ID\nm1\n"));
    assert_eq!(run("lock m2"), refused("Error locking: semaphore is at 0\nHeld by: m1\n"));
    assert_eq!(run("unlock m2"), refused("Error unlocking: holder does not exist\n"));
    assert_eq!(run("set-max 2"), ok("Old-Max: 1\nMax: 2\n"));
    assert_eq!(run("lock --reason=disk m2"), ok(""));
    assert_eq!(run("status"), ok("Available: 0\nMax: 2\n\nMACHINE ID\nm1\nm2\n"));
    let (_, long, _) = run("status -long");
    assert!(long.lines().last().unwrap().starts_with("m2\t\t2") && long.ends_with("Z\tdisk\n"), "{long}");
    assert!(run("status -json").1.starts_with(r#"{"available":0,"group":"default","holders":[{"id":"m1","#));
    assert_eq!(run("-group=web status"), ok("Available: 1\nMax: 1\n"), "groups do not share slots");
    assert_eq!(run("--group web lock m9"), ok(""));
    assert_eq!(run("set-max 1"), ok("Old-Max: 2\nMax: 1\n"));
    assert_eq!(run("status"), ok("Available: 0\nMax: 1\n\nMACHINE ID\nm1\nm2\n"), "holders stay");
    assert_eq!(run("unlock m1"), ok(""));
    assert_eq!(run("lock m3"), refused("Error locking: semaphore is at 0\nHeld by: m2\n"));
    assert_eq!(run("unlock m2"), ok(""));
    assert_eq!(run("status"), ok("Available: 1\nMax: 1\n"));
    // A holder that would take over the terminal of who reads of it.
    if endpoint.starts_with("http") {
        let hostile = "m\u{1b}]0;OWNED\u{7}\u{9b}2J";
        assert_eq!(run(&format!("lock {hostile}")), ok(""));
        let shown = "m\\u{1b}]0;OWNED\\u{7}\\u{9b}2J";
        assert_eq!(run("lock m4").2, format!("Error locking: semaphore is at 0\nHeld by: {shown}\n"));
        for words in ["status", "status -long", "status -json"] {
            assert!(!run(words).1.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{words}");
        }
        assert_eq!(run(&format!("unlock {hostile}")), ok(""));
    }
}

#[test]
fn slots_behind_a_fleetd() {
    let server = Server::start();

    tell_the_story(&server.endpoint());
}

#[test]
fn slots_in_etcd() {
    let Some(etcd) = Etcd::start() else { return };

    tell_the_story(&etcd.endpoint());
}

#[test]
fn two_who_ask_at_once_get_one_slot() {
    let Some(etcd) = Etcd::start() else { return };
    let endpoint = etcd.endpoint();

    let askers: Vec<_> = (0..4)
        .map(|number| {
            let endpoint = endpoint.clone();
            std::thread::spawn(move || locksmithctl(&endpoint, "/usr/bin:/bin", &format!("lock m{number}")))
        })
        .collect();
    let got = askers.into_iter().map(|each| each.join().unwrap().0).filter(|code| *code == Some(0));

    assert_eq!(got.count(), 1);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let run = |words: &str| locksmithctl("unix:///nonexistent", "/usr/bin:/bin", words);

    let unknown = "locksmithctl: unknown subcommand: \"nonsense\"\nRun 'locksmithctl help' for usage.\n";
    assert_eq!(run("nonsense"), (Some(2), String::new(), unknown.to_owned()));
    assert_eq!(run("set-max"), refused("New maximum value must be set.\n"));
    assert_eq!(run("set-max many"), refused("Invalid maximum value: many\n"));
    assert_eq!(run("-version"), ok(concat!("locksmithctl version ", env!("CARGO_PKG_VERSION"), "\n")));
    assert!(run("help").1.contains("set-max") && run("").1.contains("set-max"));
    assert_eq!(run("help").0, Some(0));
    let (code, _, err) = run("status");
    assert_eq!(code, Some(1));
    assert!(err.starts_with("cannot reach the fleet API at unix:///nonexistent: "), "{err}");
    assert!(run("send-need-reboot").2.contains("update_engine"));
}

#[test]
fn an_etcd_that_is_not_there_is_named() {
    let run = locksmithctl("http://127.0.0.1:1", "/usr/bin:/bin", "status");

    assert_eq!(run.0, Some(1));
    assert!(run.2.starts_with("cannot reach etcd at http://127.0.0.1:1: "), "{}", run.2);
}

/// A folder with a systemctl that notes how it was called.
fn fake_systemctl() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("#!/bin/sh\necho \"$@\" >> {}/calls\n", folder.path().display());
    write(folder.path(), "systemctl", &script);
    std::fs::set_permissions(folder.path().join("systemctl"), std::fs::Permissions::from_mode(0o755))
        .unwrap();
    folder
}

#[test]
fn a_reboot_takes_the_slot_first() {
    let id =
        std::fs::read_to_string("/etc/machine-id").map(|text| text.trim().to_owned()).unwrap_or_default();
    if id.is_empty() || !nix::unistd::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root and /etc/machine-id");
        eprintln!("skipped: needs root and /etc/machine-id");
        return;
    }
    let server = Server::with(three_machines(), Options { drain_on_lock: true, ..Options::default() });
    let folder = fake_systemctl();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let run = |words: &str| locksmithctl(&server.endpoint(), &path, words);
    let calls = || std::fs::read_to_string(folder.path().join("calls")).unwrap_or_default();

    assert_eq!(run("lock other"), ok(""));
    assert_eq!(run("reboot"), refused("Error locking: semaphore is at 0\nHeld by: other\n"));
    assert_eq!(calls(), "", "without a slot nothing is rebooted");
    assert_eq!(run("unlock other"), ok(""));
    assert_eq!(run("reboot"), ok(""));
    assert_eq!(calls(), "reboot\n");
    assert_eq!(
        run("status").1,
        format!("Available: 0\nMax: 1\n\nMACHINE ID\n{id}\n"),
        "until it is given back"
    );
    assert_eq!(run("unlock"), ok(""));
}
