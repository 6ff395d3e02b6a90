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

stories! {
    cat destroy drain explain import_from_itself journal lists load old_habits
    rebalance replace restart ssh start status stop submit top unload usage waits
}
