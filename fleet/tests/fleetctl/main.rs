//! `fleetctl`, the real program, against the real API: stories told as transcripts.
//!
//! A story in `stories/` is what one sees in a terminal: a line that starts with `$ ` is typed, the lines
//! below it are stdout, those with `! ` before them stderr, and `[N]` is an exit status other than 0. Run
//! with `ACCEPT=1` to write what was seen; read the difference before you keep it.
#![expect(clippy::disallowed_methods, reason = "tests run programs and wait for them")]
#![expect(clippy::format_push_string, reason = "a transcript is put together line by line")]
#![expect(clippy::unwrap_used, reason = "what prepares a test may fail it too")]

#[path = "../support/mod.rs"]
mod support;

mod connections;
mod documentation;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::{Options, Server, three_machines};

/// Runs the program in the server's folder; one that takes five minutes hangs, and is ended.
fn fleetctl(server: &Server, words: &[&str]) -> Output {
    Command::new("timeout")
        .args(["300", env!("CARGO_BIN_EXE_fleetctl")])
        .args(words)
        .current_dir(server.folder.path())
        .env_clear()
        .env("FLEETCTL_ENDPOINT", "unix:///proc/self/cwd/fleet.sock")
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", server.folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleetctl").join(name)
}

fn copy_units(server: &Server) {
    for entry in std::fs::read_dir(folder("units")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, server.folder.path().join(path.file_name().unwrap())).unwrap();
    }
}

/// Splits a typed line as a shell would, for the quoting that stories need.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words
}

/// The hint of one who waits for longer than two seconds, which everybody does where the host starves.
const HINT: &str = " still waits: ";

fn perform(server: &Server, line: &str, hints: bool) -> String {
    let words = split(line);
    if words[0] == "cp" {
        std::fs::copy(server.folder.path().join(&words[1]), server.folder.path().join(&words[2])).unwrap();
        return String::new();
    }
    assert_eq!(words[0], "fleetctl", "stories type only cp and fleetctl");
    let output = fleetctl(server, &words[1..].iter().map(String::as_str).collect::<Vec<_>>());
    let mut seen = String::from_utf8(output.stdout).unwrap();
    if !seen.is_empty() && !seen.ends_with('\n') {
        seen.push_str("(no line end)\n");
    }
    for line in String::from_utf8(output.stderr).unwrap().lines().filter(|line| hints || !line.contains(HINT))
    {
        seen.push_str(&format!("! {line}\n"));
    }
    match output.status.code() {
        Some(0) => {}
        code => seen.push_str(&format!("[{}]\n", code.unwrap())),
    }
    seen
}

fn tell(name: &str) {
    let server = Server::with(three_machines(), Options::default());
    copy_units(&server);
    let path = folder("stories").join(format!("{name}.txt"));
    let story = std::fs::read_to_string(&path).unwrap();

    let mut seen = String::new();
    for line in story.lines() {
        if line.starts_with('#') || (line.is_empty() && seen.ends_with('\n')) {
            continue;
        }
        if let Some(typed) = line.strip_prefix("$ ") {
            seen.push_str(&format!("{line}\n{}", perform(&server, typed, story.contains(HINT))));
        }
    }

    let expected: String = story.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
    if std::env::var_os("ACCEPT").is_some() {
        let comments: String = story.split_inclusive('\n').take_while(|line| line.starts_with('#')).collect();
        std::fs::write(&path, format!("{comments}{seen}")).unwrap();
        return;
    }
    assert_eq!(seen, expected, "story {name}");
}

macro_rules! stories {
    ($($name:ident)*) => {
        $(#[test] fn $name() { tell(stringify!($name)); })*

        #[test]
        fn every_story_is_told() {
            let mut told = [$(stringify!($name)),*];
            told.sort_unstable();
            let mut written: Vec<String> = std::fs::read_dir(folder("stories")).unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
            written.sort();
            assert_eq!(told.map(str::to_owned).to_vec(), written);
        }
    };
}

#[test]
fn every_verb_explains_itself() {
    use clap::CommandFactory;
    let server = Server::with(three_machines(), Options { idle: true, ..Options::default() });
    let help = |words: &[&str]| {
        let output = fleetctl(&server, words);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let usage = help(&[]);

    assert!(usage.contains(env!("CARGO_PKG_VERSION")) && usage.contains("list-unit-files"), "{usage}");
    for words in [&["help"][..], &["--help"], &["-h"], &["--h"]] {
        assert!(help(words).contains("list-unit-files"), "{words:?}");
    }
    for verb in fleet::ctl::arguments::Arguments::command().get_subcommands() {
        let name = verb.get_name();
        assert!(help(&[name, "--help"]).contains(&format!("fleetctl {name}")), "{name}");
        assert_eq!(help(&["help", name]).is_empty(), name == "help", "{name}");
    }
}

#[test]
fn every_program_takes_one_dash_or_two() {
    let programs = [
        ("fleetctl", env!("CARGO_BIN_EXE_fleetctl")),
        ("fleetd", env!("CARGO_BIN_EXE_fleetd")),
        ("locksmithctl", env!("CARGO_BIN_EXE_locksmithctl")),
    ];
    let run = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).env_clear().stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for (name, program) in programs {
        let version = (Some(0), concat!(env!("CARGO_PKG_VERSION"), "\n").to_owned(), String::new());
        for flag in ["-version", "--version"] {
            let (code, out, err) = run(program, &[flag]);
            assert_eq!((code, out.rsplit(' ').next().unwrap().to_owned(), err), version, "{name} {flag}");
        }
        assert_eq!(run(program, &["-help"]).0, Some(0), "{name}");
        assert_eq!(run(program, &["-help"]), run(program, &["--help"]), "{name}");
        assert_eq!(run(program, &["-h"]).0, Some(0), "{name}: a short flag stays one");
    }

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("fleet.conf");
    std::fs::write(&config, "agent_ttl=30s\netcd_password hunter2\n").unwrap();
    let path = config.to_str().unwrap();
    let inline = format!("-config={path}");
    for words in [&["-config", path][..], &["--config", path], &[&inline]] {
        let (code, out, err) = run(programs[1].1, words);
        let all = format!("{out}{err}");
        assert!(code == Some(1) && all.contains("line 2 of the configuration"), "{words:?}: {all}");
        assert!(!all.contains("hunter2"), "a line that cannot be read may be a password: {all}");
    }

    let server = Server::with(three_machines(), Options { idle: true, ..Options::default() });
    for words in [
        &["list-machines", "-no-legend", "-fields=machine", "-full"][..],
        &["-debug=false", "list-machines", "-fields", "machine", "-no-legend", "--full"],
        &["-request-timeout", "9", "list-machines", "-no-legend=true", "--fields=machine", "-full"],
    ] {
        let output = fleetctl(&server, words);
        let expected = ["a", "b", "c"].map(|id| format!("{}\n", id.repeat(32))).concat();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{words:?}");
    }
}

#[test]
fn files_that_are_not_utf_8_or_too_large_are_told_of() {
    let server = Server::with(three_machines(), Options { idle: true, ..Options::default() });
    let latin = b"[Unit]\nDescription=caf\xe9\n\n[Service]\nExecStart=/bin/true\n";
    std::fs::write(server.folder.path().join("latin.service"), latin).unwrap();
    std::fs::write(server.folder.path().join("large.service"), vec![b'#'; 700_000]).unwrap();
    let run = |words: &[&str]| {
        let output = fleetctl(&server, words);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };

    let warning = "WARNING: latin.service, line 2, column 16: byte 0xe9 is no UTF-8; it is stored as U+FFFD. Save the \
                   file as UTF-8 to keep the character.\n";
    assert_eq!(
        run(&["submit", "latin.service"]),
        (Some(0), "Unit latin.service inactive\n".into(), warning.into())
    );
    let text = "[Unit]\nDescription=caf\u{fffd}\n\n[Service]\nExecStart=/bin/true\n";
    assert_eq!(run(&["cat", "latin"]).1, text);
    let hash = fleet::model::unit_file::UnitHash::of_text(text).to_string();
    assert_eq!(run(&["list-unit-files", "--no-legend", "--full", "--fields=hash"]).1, format!("{hash}\n"));
    assert_eq!(run(&["submit", "latin.service"]).2, "", "it is the same as what is stored");
    let large = run(&["submit", "large.service"]);
    assert_eq!(large.0, Some(1));
    assert!(large.2.contains("unit file of 700000 bytes is too large (max 524288 bytes)"), "{}", large.2);
    // The bytes themselves, as a client sends them that knows no better.
    let mut body = br#"{"options":[{"section":"Unit","name":"Description","value":"caf"#.to_vec();
    body.extend(b"\xe9\"}]}");
    assert_eq!(server.put_bytes("/fleet/v1/units/raw.service", &body).status, 201);
    assert_eq!(run(&["cat", "raw"]).1, "[Unit]\nDescription=caf\u{fffd}\n");
}

stories! {
    cat destroy drain explain import_from_itself journal lists load old_habits
    rebalance replace restart ssh start status stop submit top unload usage waits
}
