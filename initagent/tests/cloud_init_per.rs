//! The script that runs cloud-init's folders, with the real program, in a mount namespace of its own.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "this file is a test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Makes the folders on a disk of its own, and calls the runner three times, the last time as another instance.
const BOOTS: &str = r#"
set -eu
export PATH="$1:$PATH"
mount -t tmpfs tmpfs /var/lib
for often in once instance boot; do
    mkdir -p "/var/lib/cloud/scripts/per-$often"
    for name in b a; do
        printf '#!/bin/sh\necho %s-%s\n[ %s = b ]\n' "$often" "$name" "$name" >"/var/lib/cloud/scripts/per-$often/$name"
        chmod 0755 "/var/lib/cloud/scripts/per-$often/$name"
    done
done
echo 'echo never' >/var/lib/cloud/scripts/per-boot/c
INSTANCE_ID=i-1 "$2" || echo failed
INSTANCE_ID=i-1 "$2" || echo failed
INSTANCE_ID=i-2 "$2" || echo failed
"#;

/// What the printed plan of a document that writes into a folder runs at each boot.
fn runner(folder: &Path) -> String {
    let document = folder.join("user-data");
    let text =
        "#cloud-config\nwrite_files: [{path: /var/lib/cloud/scripts/per-boot/a, permissions: '0755'}]\n";
    fs::write(&document, text).unwrap();
    let initagent = env!("CARGO_BIN_EXE_initagent");
    let plan = Command::new(initagent).args(["plan", "--full"]).arg(document).output().unwrap();
    let plan = String::from_utf8(plan.stdout).unwrap();
    let (_, scripts) = plan.split_once("script-folders").unwrap();
    let lines: Vec<&str> = scripts.lines().filter_map(|line| line.strip_prefix("    | ")).collect();
    lines.join("\n") + "\n"
}

#[test]
fn the_folders_of_scripts_run_as_often_as_their_names_say() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("runner");
    fs::write(&script, runner(folder.path())).unwrap();
    assert!(Command::new("chmod").arg("0755").arg(&script).status().unwrap().success());
    symlink(Path::new(env!("CARGO_BIN_EXE_initagent")), folder.path().join("cloud-init-per")).unwrap();

    let run = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", BOOTS, "sh"])
        .args([folder.path(), &script])
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&run.stdout);
    let wants = "the test needs unshare of util-linux and user namespaces";
    assert!(run.status.success(), "{wants}: {}", String::from_utf8_lossy(&run.stderr));
    // A script that fails keeps no other from running, and its mark is made.
    let first = "once-a once-b boot-a boot-b instance-a instance-b failed";
    let second = "boot-a boot-b failed";
    let other = "boot-a boot-b instance-a instance-b failed";
    assert_eq!(said.split_whitespace().collect::<Vec<_>>().join(" "), format!("{first} {second} {other}"));
}

#[test]
fn the_exit_code_is_that_of_the_command_or_says_what_is_wrong() {
    let called = |words: &[&str]| {
        let run =
            Command::new(env!("CARGO_BIN_EXE_initagent")).arg("cloud-init-per").args(words).output().unwrap();
        (run.status.code().unwrap(), String::from_utf8_lossy(&run.stderr).into_owned())
    };

    assert_eq!(called(&["always", "a", "sh", "-c", "exit 7"]), (7, String::new()));
    assert_eq!(called(&["--help"]).0, 0);
    assert_eq!(called(&["once", "a/b", "true"]).0, 1);
    let (code, error) = called(&["always", "a", "/no/such/program"]);
    assert_eq!((code, error.contains("cannot run \"/no/such/program\"")), (1, true), "{error}");
    assert_eq!(called(&["sometimes", "a", "true"]).0, 64);
}
