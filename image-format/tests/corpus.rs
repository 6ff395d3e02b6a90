//! Every corpus entry and every past crash of the fuzz targets, as a plain test.
#![expect(clippy::unwrap_used, reason = "a test that can not read its fixtures has failed")]

use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

fn run_all(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let count = entries.inspect(|path| run(&std::fs::read(path).unwrap())).count();
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn command_lines() {
    run_all("command_line", targets::command_line);
}

#[test]
fn slot_tables() {
    run_all("slot_table", targets::slot_table);
}

#[test]
fn envelopes_and_manifests() {
    run_all("envelope", targets::envelope);
}

#[test]
fn partition_tables() {
    run_all("gpt", targets::partition_table);
}

#[test]
fn module_indexes() {
    run_all("modules", targets::modules);
}

#[test]
fn payload_indexes() {
    run_all("payload", targets::payload);
}

#[test]
fn root_metadata() {
    run_all("release_root", targets::release_root);
}

#[test]
fn channel_metadata() {
    run_all("release_channel", targets::release_channel);
}

#[test]
fn trust_states() {
    run_all("trust_state", targets::trust_state);
}
