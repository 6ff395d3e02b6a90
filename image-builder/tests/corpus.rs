//! Every corpus entry and past crash of the fuzz target, cut at every byte, as a plain test.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::fs;
use std::path::Path;

fn corpus() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/spec");
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), read(&path))).collect()
}

#[test]
fn no_cut_of_a_spec_panics() {
    for (_, text) in corpus() {
        for (at, _) in text.char_indices() {
            let _ = image_builder::check_spec(&text[..at]);
        }
    }
}

#[test]
fn of_the_entries_written_by_hand_only_the_whole_spec_holds() {
    let entries = corpus();
    for name in ["aliases.yaml", "bytes.yaml", "mistakes.yaml", "whole.yaml"] {
        let (_, text) = entries.iter().find(|(known, _)| known == name).unwrap();
        let checked = image_builder::check_spec(text);
        assert_eq!(checked.is_ok(), name == "whole.yaml", "{name}: {checked:?}");
        if let Err(report) = checked {
            assert!(report.contains("spec.yaml:1:"), "{name} is told where: {report}");
        }
    }
}
