//! Every corpus entry and every past crash of the fuzz targets, and what is made of the fixtures by
//! cutting and damaging them, as plain tests.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::path::{Path, PathBuf};

#[path = "../fuzz/targets.rs"]
mod targets;

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths
}

fn run_all(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    for path in entries(&folder) {
        run(&std::fs::read(path).unwrap());
    }
}

#[test]
fn metadata() {
    run_all("metadata", targets::metadata);
}

#[test]
fn disks() {
    run_all("disk", targets::disk);
}

/// Cuts each document at many places and damages it in many ways, always the same ones.
#[test]
fn damaged_fixtures_panic_nowhere() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    for platform in targets::PLATFORMS {
        let folder = data.join(platform.name());
        let documents = if folder.is_dir() { entries(&folder) } else { Vec::new() };
        for document in documents.iter().map(|path| std::fs::read(path).unwrap()) {
            for _ in 0..150 {
                let mut damaged = document[..random(document.len() + 1)].to_vec();
                for _ in 0..random(4) {
                    let (at, byte) = (random(damaged.len()), b"\0\"[]{}:,-x9\n\xff"[random(13)]);
                    if let Some(place) = damaged.get_mut(at) {
                        *place = byte;
                    }
                }
                targets::facts(platform, &damaged);
            }
        }
    }
}

#[test]
fn nesting_and_length_are_bounded_on_every_platform() {
    let deep = "[".repeat(100_000);
    let long = format!("{{\"public_keys\": [{}\"x\"]}}", "\"x\",".repeat(100_000));
    let anchors = format!("a: &a [x]\n{}", "b: *a\n".repeat(1000));
    let wide = format!("<a>{}</a>", "<b>x</b>".repeat(50_000));
    for platform in targets::PLATFORMS {
        for document in [&deep, &long, &anchors, &wide] {
            targets::facts(platform, document.as_bytes());
        }
    }
}
