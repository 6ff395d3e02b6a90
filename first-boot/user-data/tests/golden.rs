//! Each folder of `tests/data` is a document: what it plans and what is said about it are compared
//! as text. `BLESS=1` writes what is missing or changed.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "this file is a test")]

use std::fs;
use std::path::{Path, PathBuf};

use document::caret::{self, Excerpts};
use serde_json::json;
use user_data::cloudconfig::order::PlanFacts;
use user_data::container::{self, FetchPolicy};
use user_data::part::PayloadPart;
use user_data::plan::text::{self, ContentDisplay};
use user_data::reading::{self, ReadResult, UserDataInput};
use user_data::template::InstanceData;
use user_data::tokens::TokenAddresses;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(data()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

/// `facts`: `name=value` lines; nothing is known without it.
fn facts(case: &Path) -> PlanFacts {
    let text = fs::read_to_string(case.join("facts")).unwrap_or_default();
    let mut facts = PlanFacts { addresses: TokenAddresses::default(), ..PlanFacts::default() };
    let mut names = Vec::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let value = value.to_owned();
        match name {
            "public_ipv4" => facts.addresses.public_ipv4 = Some(value),
            "private_ipv4" => facts.addresses.private_ipv4 = Some(value),
            "public_ipv6" => facts.addresses.public_ipv6 = Some(value),
            "private_ipv6" => facts.addresses.private_ipv6 = Some(value),
            "hostname" => facts.hostname = Some(value),
            "key" => facts.keys.push(value),
            "clone" => facts.is_clone = value == "yes",
            "launch_index" => facts.launch_index = value.parse().ok(),
            // Names of templates: `v1.local-hostname=web-1`.
            name if name.starts_with("v1.") || name.starts_with("ds.meta_data.") => {
                names.push((name.to_owned(), value));
            }
            other => panic!("{}: unknown fact {other}", case.display()),
        }
    }
    let below = |prefix: &str| {
        let of =
            |(name, value): &(String, String)| Some((name.strip_prefix(prefix)?.to_owned(), json!(value)));
        names.iter().filter_map(of).collect()
    };
    facts.instance = InstanceData::new(below("v1."), below("ds.meta_data."));
    facts
}

/// `user-data`, `user-data.2`, …, `vendor-data`, `files`, each maybe a container.
fn read(case: &Path) -> ReadResult {
    let parts = |name: &str| -> Option<Vec<PayloadPart>> {
        fs::read(case.join(name))
            .ok()
            .map(|content| container::open_payload(name, &content, FetchPolicy::none()))
    };
    let later = (2..10).map_while(|number| parts(&format!("user-data.{number}")));
    let user = parts("user-data").into_iter().chain(later).flatten().collect();
    reading::read(
        &UserDataInput {
            user,
            vendor: parts("vendor-data").unwrap_or_default(),
            files: parts("files").unwrap_or_default(),
            network: None,
        },
        &facts(case),
    )
}

/// Compares, or writes when asked to; says whether it was equal.
fn agrees(path: &Path, actual: &str) -> bool {
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == actual {
        return true;
    }
    if std::env::var_os("BLESS").is_some() {
        if actual.is_empty() {
            fs::remove_file(path).unwrap();
        } else {
            fs::write(path, actual).unwrap();
        }
        return true;
    }
    eprintln!("--- {} expected\n{expected}\n+++ actual\n{actual}", path.display());
    false
}

#[test]
fn every_document_plans_and_is_judged_as_written() {
    let mut wrong = Vec::new();
    for case in cases() {
        let reading = read(&case);
        let plan = text::render_plan(&reading.plan, &reading.sources, ContentDisplay::Shown);
        let found = caret::render_diagnostics(&reading.found, &reading.sources, Excerpts::Shown);
        if !agrees(&case.join("plan.txt"), &plan) | !agrees(&case.join("diagnostics.txt"), &found) {
            wrong.push(case.file_name().unwrap().to_owned());
        }
    }

    assert!(wrong.is_empty(), "changed: {wrong:?}; read the difference, then BLESS=1 if it is right");
}

#[test]
fn there_are_documents_for_every_key() {
    let all: String = cases()
        .iter()
        .flat_map(|case| {
            ["user-data", "user-data.2", "user-data.3", "vendor-data"].map(|name| case.join(name))
        })
        .filter_map(|path| fs::read(path).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('-', "_"))
        .collect();

    for (table, keys) in user_data::cloudconfig::key_tables() {
        for key in keys {
            let used =
                all.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == key.name);
            assert!(used, "no document uses `{}` of {table:?}", key.name);
        }
    }
    assert!(cases().len() >= 60, "{} documents", cases().len());
}
