//! The verbs of `keys` and `release` as an operator types them: what they print, and with which status they end.
#![expect(clippy::disallowed_methods, reason = "it runs the program")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use image_format::bytes::Bytes;
use image_format::digest::Sha256;
use image_format::gpt;
use image_format::layout::{DiskLayout, PartitionRole, PartitionSizes};
use image_format::manifest::{BootFile, FORMAT, Manifest, RootPlacement, Salt};
use image_format::signed::{SecretKey, Signed};
use image_format::slot::Slot;
use image_format::verity;

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

/// What `build` leaves in a folder, with a root of 16 KiB.
fn build_small(folder: &Path, version: &str, openssl: &str) {
    let out = folder.join(version);
    fs::create_dir(&out).unwrap();
    let mut data = format!("root of {version}").into_bytes();
    data.resize(4 * 4096, 0);
    let tree = verity::build_tree(&data.as_slice(), data.len() as u64, b"salt", 1).unwrap();
    let file = |path: &str| BootFile { path: path.to_owned(), sha256: Sha256::digest_of(b"") };
    let manifest = Manifest {
        format: FORMAT,
        name: "cloud".into(),
        version: version.parse().unwrap(),
        channel: "stable".into(),
        architecture: "x86_64".into(),
        built: 0,
        development: false,
        security_epoch: 0,
        root: RootPlacement {
            data_bytes: data.len() as u64,
            tree_offset: data.len() as u64,
            tree_bytes: tree.bytes.len() as u64,
            root_hash: tree.root_hash,
            salt: Salt::new(b"salt".to_vec()).unwrap(),
        },
        kernel: file("/boot/vmlinuz"),
        initrd: file("/boot/initrd.img"),
        command_line: "quiet".parse().unwrap(),
    };
    let key: SecretKey = fs::read_to_string(folder.join("keys/release.key")).unwrap().parse().unwrap();
    let signed = Signed::<Manifest>::sign_payload(manifest.to_bytes().unwrap(), &[key]);
    let package = serde_json::json!({
        "versionInfo": openssl, "externalRefs": [{ "referenceLocator": format!("pkg:deb/debian/openssl@{openssl}") }],
    });
    fs::write(out.join("manifest"), signed.to_envelope()).unwrap();
    fs::write(out.join("sbom.spdx.json"), serde_json::json!({ "packages": [package] }).to_string()).unwrap();
    fs::write(out.join("packages.lock"), "epoch 1\n[root]\n[tools]\n").unwrap();
    write_disk(&out.join("disk.raw"), &data);
}

fn write_disk(path: &Path, root: &[u8]) {
    let sizes = PartitionSizes { root: Bytes::from_mib(1), state: Bytes::from_mib(1) };
    let layout = DiskLayout::plan_layout(uuid::Uuid::from_u128(1), sizes).unwrap();
    let size = layout.disk_size();
    let copies = gpt::encode_table(&layout.partition_table(), size).unwrap();
    let disk = fs::File::create(path).unwrap();
    disk.set_len(size.get()).unwrap();
    disk.write_all_at(&copies.primary, gpt::PRIMARY_OFFSET.get()).unwrap();
    disk.write_all_at(&copies.backup, gpt::backup_offset(size).unwrap().get()).unwrap();
    disk.write_all_at(root, layout.partition_of(PartitionRole::Root(Slot::A)).byte_offset().get()).unwrap();
}

#[test]
fn a_channel_is_led_from_its_first_release_to_its_garbage() {
    let folder = begun();
    let folder = folder.path();
    let key = "--channel stable --key keys/channel.key";
    for (version, openssl) in [("1.0.0", "3.5.1-1"), ("1.1.0", "3.5.1-2"), ("1.2.0", "3.5.1-2")] {
        build_small(folder, version, openssl);
    }

    succeed(folder, &format!("release add repo 1.0.0 {key}"));
    let added = succeed(folder, &format!("release add repo 1.1.0 --waves 10%@0h,100%@2d {key}"));
    assert!(added.starts_with("release 1.1.0 is published in repo\n  payload    whole "), "{added}");
    assert!(
        succeed(folder, "release diff repo 1.0.0 1.1.0").contains("deb/debian/openssl 3.5.1-1 -> 3.5.1-2")
    );
    assert!(
        succeed(folder, "release list repo").contains("1.1.0, to 10 % of the machines, to 100 % from 20")
    );

    succeed(folder, &format!("release pause repo --reason too-slow {key}"));
    assert!(succeed(folder, "release list repo").contains("PAUSED: too-slow"));
    succeed(folder, &format!("release resume repo {key}"));
    succeed(folder, &format!("release floor repo 1.0.0 {key}"));
    succeed(folder, "release withdraw repo 1.1.0 --reason it-loses-data --key keys/channel.key");
    let listed = succeed(folder, "release list repo");
    assert!(
        listed.contains("1.1.0, WITHDRAWN: it-loses-data") && listed.contains("1.0.0, floor"),
        "{listed}"
    );

    // Published, and on no channel yet.
    succeed(folder, "release add repo 1.2.0");
    assert!(succeed(folder, "release list repo").contains("not offered: 1.2.0"));
    succeed(folder, &format!("release promote repo 1.2.0 {key} --json"));
    let listed: serde_json::Value =
        serde_json::from_str(&succeed(folder, "release list repo --json")).unwrap();
    assert_eq!(listed["channels"][0]["counter"], 7);
    assert!(succeed(folder, "release verify repo").starts_with("sound: 1 roots, 1 channels, 3 releases"));

    assert!(succeed(folder, "release gc repo --min-age 0m").starts_with("went: no release; 0 files"));
    fs::remove_file(folder.join("repo/release/1.1.0/sbom")).unwrap();
    let broken = run(folder, "release verify repo");
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stdout).contains("release/1.1.0/sbom is missing"));
}
