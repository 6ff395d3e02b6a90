//! Every corpus entry and every past crash of the fuzz targets, and what is made of the entries by
//! cutting and damaging them, as plain tests.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

fn entries(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Each entry as it is, then cut at many places and damaged in many ways, always the same ones.
fn run_all(target: &str, damaged: usize, run: fn(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    for entry in entries(target) {
        run(&entry);
        for _ in 0..damaged {
            let mut copy = entry[..random(entry.len() + 1)].to_vec();
            for _ in 0..random(4) {
                let (at, byte) = (random(copy.len()), b"\0\"[]{}:,-=#%\n\xff"[random(14)]);
                if let Some(place) = copy.get_mut(at) {
                    *place = byte;
                }
            }
            run(&copy);
        }
    }
}

#[test]
fn containers() {
    run_all("container", 100, targets::container);
}

#[test]
fn ignition() {
    run_all("ignition", 200, targets::ignition);
}

#[test]
fn network() {
    run_all("network", 60, targets::network);
}

#[test]
fn readings() {
    run_all("reading", 8, targets::reading);
}

#[test]
fn nesting_and_length_are_bounded_in_every_format() {
    let deep = "[".repeat(100_000);
    let deep_map = "{\"a\":".repeat(100_000);
    let long = format!("{{\"ignition\": {{\"version\": \"3.0.0\"}}, \"x\": [{}1]}}", "1,".repeat(200_000));
    let users = format!("#cloud-config\nusers:\n{}", "- {name: a, groups: [b, c]}\n".repeat(20_000));
    let links = format!("{{\"links\": [{}{{}}]}}", "{\"id\": \"a\"},".repeat(20_000));
    for document in [deep, deep_map, long, users, links] {
        for run in [targets::container, targets::ignition, targets::network, targets::reading] {
            run(document.as_bytes());
        }
    }
}
