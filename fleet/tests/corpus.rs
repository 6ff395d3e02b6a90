//! Every corpus entry and every past crash of the fuzz targets, as a plain test.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its entries has failed")]

use std::{fs, path::Path};

#[path = "../fuzz/targets.rs"]
mod targets;

/// Runs a target on each entry, whole and cut short.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut entries = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        run(&bytes);
        for cut in 0..bytes.len().min(400) {
            run(&bytes[..cut]);
        }
        entries += 1;
    }
    assert!(entries > 0, "no entries in {}", folder.display());
}

#[test]
fn unit_files() {
    replay("unit_file", targets::unit_file);
}

#[test]
fn api_bodies() {
    replay("api_body", targets::api_body);
}

#[test]
fn store_values() {
    replay("store_value", targets::store_value);
}

#[test]
fn settings() {
    replay("settings", targets::settings);
}
