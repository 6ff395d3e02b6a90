//! The verbs of `keys` and `release` as an operator types them: what they print, and with which status they end.
#![expect(clippy::disallowed_methods, reason = "it runs the program")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, line: &str) -> Output {
    let words = line.split_whitespace();
    Command::new(env!("CARGO_BIN_EXE_image-builder")).args(words).current_dir(folder).output().unwrap()
}

fn succeed(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What it says when it fails, which is on standard error and with status 1.
fn fail(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert_eq!(output.status.code(), Some(1), "{line}");
    String::from_utf8(output.stderr).unwrap()
}

/// A folder with keys and a repository that has root metadata and nothing else.
fn begun() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["root", "channel", "release"] {
        succeed(folder.path(), &format!("keys new keys --name {name} --comment {name}-of-2026"));
    }
    let files = "--root keys/root.pub --channel keys/channel.pub --release keys/release.pub";
    succeed(folder.path(), &format!("keys init repo {files} --key keys/root.key"));
    folder
}

/// The id of a key, as `keys list` says it.
fn id_of(folder: &Path, comment: &str) -> String {
    let listed = succeed(folder, "keys list repo");
    let line = listed.lines().find(|line| line.ends_with(comment)).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_repository_begins_with_keys_and_is_sound() {
    let folder = begun();
    let folder = folder.path();

    let listed = succeed(folder, "keys list repo");

    assert!(listed.starts_with("root metadata 1, until 20"), "{listed}");
    assert_eq!(listed.matches(": 1 of 1 must sign").count(), 3, "{listed}");
    assert_eq!(
        succeed(folder, "release verify repo"),
        "sound: 1 roots, 0 channels, 0 releases, 0 objects of 0 MB\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&succeed(folder, "release verify repo --json")).unwrap();
    assert_eq!(json["roots"], 1);
    let secret = fs::metadata(folder.join("keys/root.key")).unwrap().permissions().mode();
    assert_eq!(secret & 0o777, 0o600);
    assert!(fail(folder, "keys new keys --name root").contains("must not be lost"));
}

#[test]
fn a_key_is_rotated_and_revoked() {
    let folder = begun();
    let folder = folder.path();
    succeed(folder, "keys new next --name release --comment release-of-2027");
    let old = id_of(folder, "release-of-2026");

    let refused = fail(folder, &format!("keys revoke repo {old} --key keys/root.key"));
    assert!(refused.contains("the role release wants 1 of 0 different keys to agree"), "{refused}");
    let line = format!("keys revoke repo {old} --add release=next/release.pub --key keys/root.key --json");
    let written: serde_json::Value = serde_json::from_str(&succeed(folder, &line)).unwrap();

    assert_eq!(written["number"], 2);
    let listed = succeed(folder, "keys list repo");
    assert!(listed.contains("release-of-2027") && !listed.contains("release-of-2026"), "{listed}");
    assert!(succeed(folder, "release verify repo").starts_with("sound: 2 roots"));
    assert!(fail(folder, "keys rotate repo --key keys/channel.key").contains("is no root key"));
}

#[test]
fn what_is_not_there_is_said_with_what_to_do() {
    let folder = begun();
    let folder = folder.path();
    for (line, said) in [
        (
            "release promote repo 1.0.0 --channel stable --key keys/channel.key",
            "`release list` shows what there is",
        ),
        (
            "release pause repo --channel stable --reason x --key keys/channel.key",
            "`release promote` begins one",
        ),
        ("release withdraw repo 1.0.0 --reason x --key keys/channel.key", "no channel offers release 1.0.0"),
        ("release diff repo 1.0.0 1.1.0", "the repository has no release 1.0.0"),
        ("release list nowhere", "make it with `image-builder keys init nowhere"),
        (
            "release pause repo --channel stable --reason x --expires soon --key keys/channel.key",
            "12h or 30d",
        ),
        (
            "release promote repo 1.0.0 --channel stable --key keys/none.key",
            "cannot read the key keys/none.key",
        ),
    ] {
        let refused = fail(folder, line);
        assert!(refused.contains(said), "{line}: {refused}");
    }
    assert!(
        fail(
            folder,
            "keys init repo --root keys/root.pub --channel keys/root.pub --release keys/release.pub"
        )
        .contains("has root metadata already")
    );
}

#[test]
fn a_root_key_serves_no_other_role() {
    let folder = begun();

    let refused = fail(
        folder.path(),
        "keys init other --root keys/root.pub --channel keys/root.pub --release keys/release.pub --key keys/root.key",
    );

    assert!(refused.contains("a root key must stay offline"), "{refused}");
}

#[test]
fn every_verb_has_help_and_wrong_usage_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let release = "add build diff floor gc list pause promote renew resume verify withdraw";
    let keys = "init list new publish revoke rotate sign";
    for (noun, verbs) in [("release", release), ("keys", keys)] {
        for verb in verbs.split(' ') {
            let help = succeed(folder.path(), &format!("{noun} {verb} --help"));
            assert!(help.contains("Usage: image-builder"), "{noun} {verb}: {help}");
            let wrong = run(folder.path(), &format!("{noun} {verb} --no-such-option"));
            assert_eq!(wrong.status.code(), Some(2), "{noun} {verb}");
        }
        assert!(succeed(folder.path(), &format!("{noun} --help")).contains("Examples:"));
    }
}
