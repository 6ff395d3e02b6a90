//! What `verify` finds in a repository that something happened to.

use std::fs;
use std::time::Duration;

use image_format::release::paths;

use super::site::{MONTH, NOW, Site, version};

fn published() -> Site {
    let site = Site::new();
    site.publish("1.0.0").unwrap();
    site.publish("1.1.0").unwrap();
    site
}

fn change_byte(site: &Site, relative: &str) {
    let path = site.repository.file_path(relative);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The one chunk of a release.
fn chunk(site: &Site, text: &str) -> String {
    let index = fs::read_to_string(site.repository.file_path(&paths::index(&version(text)))).unwrap();
    index.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_sound_repository_is_said_to_be_sound() {
    let report = published().verify();

    assert!(report.is_sound());
    // Two roots and a patch between them.
    assert_eq!(report.to_string(), "sound: 1 roots, 1 channels, 2 releases, 3 objects of 0 MB\n");
}

#[test]
fn every_file_that_changed_or_went_is_named() {
    for name in ["manifest", "index", "sbom"] {
        let relative = format!("release/1.1.0/{name}");
        let site = published();
        change_byte(&site, &relative);
        assert!(site.findings()[0].starts_with("FAULT   release 1.1.0 of channel stable: "), "{relative}");
        let site = published();
        fs::remove_file(site.repository.file_path(&relative)).unwrap();
        assert_eq!(site.findings().len(), 1, "{relative}");
    }
    for text in ["1.0.0", "1.1.0"] {
        let site = published();
        change_byte(&site, &chunk(&site, text));
        let findings = site.findings();
        assert!(findings[0].contains(&chunk(&site, text)) && !site.verify().is_sound(), "{findings:?}");
        let site = published();
        fs::remove_file(site.repository.file_path(&chunk(&site, text))).unwrap();
        assert!(site.findings()[0].ends_with("it is missing"));
    }
}

#[test]
fn one_run_names_all_faults() {
    let site = published();
    change_byte(&site, &chunk(&site, "1.0.0"));
    change_byte(&site, "release/1.1.0/sbom");
    change_byte(&site, "release/1.1.0/index");

    assert_eq!(site.verify().findings.len(), 3);
}

#[test]
fn a_channel_that_no_key_signed_is_a_fault() {
    let site = published();
    change_byte(&site, "channel/stable");
    assert!(!site.verify().is_sound());

    let site = published();
    fs::copy(site.repository.file_path("channel/stable"), site.repository.file_path("channel/beta")).unwrap();
    let findings = site.findings();
    assert!(
        findings[0].ends_with("gave the metadata of channel stable for that of channel beta"),
        "{findings:?}"
    );
}

#[test]
fn what_will_expire_is_a_warning_and_what_has_expired_a_fault() {
    let mut site = published();
    site.now = NOW.saturating_add(Duration::from_hours(29 * 24));
    assert!(
        site.findings()[0].starts_with("warning channel stable: it expires at 2026-12-28T"),
        "{:?}",
        site.findings()
    );
    assert!(site.verify().is_sound());

    site.now = NOW.saturating_add(MONTH + Duration::from_hours(24));
    assert!(!site.verify().is_sound());
}

#[test]
fn a_root_behind_a_gap_is_a_fault() {
    let site = published();
    fs::copy(site.repository.file_path("root/1"), site.repository.file_path("root/3")).unwrap();

    assert_eq!(site.findings(), ["FAULT   root 3: root 2 is missing before it"]);
}

#[test]
fn an_empty_folder_is_no_repository() {
    let site = Site::new();
    fs::remove_dir_all(site.repository.folder()).unwrap();

    assert!(site.findings()[0].contains("has no root metadata"), "{:?}", site.findings());
}
