use std::fs;
use std::path::Path;

use super::*;
use crate::plan::text::describe;
use document::caret::{Excerpts, render};
use document::source::Sources;

/// The units and findings of a document, as a person reads them in review.
fn printed(name: &str, content: &[u8]) -> String {
    let mut sources = Sources::default();
    let part = sources.add(name, String::from_utf8_lossy(content));
    let mut found = Diagnostics::default();
    let plan = read(content, part, &mut found);
    let mut text = String::new();
    for planned in &plan.steps {
        match &planned.step {
            Step::WriteUnit { name, content, .. } => text.extend(["--- ", name, "\n", content.reveal()]),
            other => text.extend(["--- ", &describe(other), "\n"]),
        }
    }
    text + &render(&found, &sources, Excerpts::Hidden)
}

/// With `BLESS=1` the expectations are written anew, to be read in review.
#[test]
fn every_document_makes_the_units_beside_it() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/network/golden"));
    let mut documents: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    documents.retain(|path| path.extension().is_some_and(|ending| ending != "units"));
    documents.sort();
    assert!(documents.len() >= 12, "{documents:?}");
    for document in documents {
        let name = document.file_name().unwrap().to_str().unwrap();
        let expectation = document.with_extension("units");
        let text = printed(name, &fs::read(&document).unwrap());
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expectation, &text).unwrap();
        }

        assert_eq!(text, fs::read_to_string(&expectation).unwrap_or_default(), "{name}");
    }
}

#[test]
fn nothing_that_is_written_becomes_a_second_setting() {
    let evil = "\"x\\nDHCP=yes\\n[Route]\"";
    let text = format!(
        "version: 2\nethernets:\n  {evil}:\n    match: {{macaddress: {evil}, name: {evil}}}\n  eth0:\n    set-name: {evil}\n    \
         addresses: [{evil}]\n    nameservers: {{search: [{evil}], addresses: [{evil}]}}\n    dhcp4-overrides: {{hostname: {evil}}}\n\
         bonds:\n  {evil}: {{interfaces: [{evil}]}}\n  bond0: {{interfaces: [{evil}], parameters: {{mode: {evil}}}, dhcp6: true}}\n"
    );

    let units = printed("evil", text.as_bytes());

    let units: Vec<&str> = units.lines().take_while(|line| !line.starts_with("error")).collect();
    assert!(!units.iter().any(|line| line.contains("DHCP=yes") || line.contains("[Route]")), "{units:?}");
}

#[test]
fn thousands_of_interfaces_are_refused_at_once() {
    let links = "{\"id\": \"a\"},".repeat(10_000);

    let text = printed("x", format!("{{\"links\": [{links}{{}}]}}").as_bytes());

    assert!(text.contains("more than 1024 interfaces"), "{text}");
}

#[test]
fn a_configuration_that_is_switched_off_or_empty_writes_nothing() {
    for text in ["network: {config: disabled}", "{\"version\": 2}", "version: 1\nconfig: []\n", ""] {
        assert_eq!(printed("x", text.as_bytes()), "", "{text}");
    }
}
