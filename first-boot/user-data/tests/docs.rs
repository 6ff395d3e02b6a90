//! The documentation names every key of the tables with what becomes of it, and no other;
//! its examples hold.

#![expect(clippy::unwrap_used, reason = "this file is a test")]

use std::collections::BTreeSet;
use std::path::Path;

use user_data::cloudconfig;
use user_data::cloudconfig::fields::KeySupport;
use user_data::cloudconfig::order::PlanFacts;
use user_data::part::PayloadPart;
use user_data::reading::{self, UserDataInput};
use user_data::tokens::TokenAddresses;

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cloud-config.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows of the tables of cloud-config: mapping, key, what becomes of it, why.
fn documented() -> BTreeSet<[String; 4]> {
    let (mut table, mut rows) = (String::new(), BTreeSet::new());
    for line in text().lines() {
        if line == "## Ignition" {
            break;
        }
        if let Some(title) = line.strip_prefix("## ") {
            table = if title == "The top level" { String::new() } else { title.trim_matches('`').to_owned() };
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [key, support, why] = cells[..]
            && let Some(key) = key.strip_prefix('`')
        {
            let key = key.trim_end_matches('`').to_owned();
            rows.insert([table.clone(), key, support.to_owned(), why.to_owned()]);
        }
    }
    rows
}

#[test]
fn every_key_is_documented_and_no_other() {
    let rows = documented();
    let found: BTreeSet<[&str; 3]> =
        rows.iter().map(|[table, key, support, _]| [table.as_str(), key, support]).collect();
    let mut known = BTreeSet::new();
    for (table, keys) in cloudconfig::key_tables() {
        for key in keys {
            let (word, why) = match key.support {
                KeySupport::NoEffect(why) => ("no effect", why),
                KeySupport::Refused(why) => ("refused", why),
                KeySupport::Supported => ("supported", ""),
                KeySupport::Translated(why) => ("translated", why),
            };
            known.insert([table, key.name, word]);
            let told = rows.iter().any(|[in_table, name, _, told]| {
                in_table == table && name == key.name && (why.is_empty() || told == why)
            });
            assert!(told, "the reason of `{}` in {table:?} is not the documented one", key.name);
        }
    }

    assert_eq!(found, known);
}

#[test]
fn every_key_of_the_other_formats_is_documented() {
    let text = text();
    for (title, tables) in [
        ("Ignition", user_data::ignition::key_tables()),
        ("Network configuration", user_data::network::key_tables()),
    ] {
        let section = text.split("\n## ").find(|section| section.lines().next() == Some(title)).unwrap();
        for (table, keys) in tables {
            let table = if table.is_empty() { "the whole" } else { table };
            let start = format!("| `{table}` | ");
            let row = section.lines().find_map(|line| line.strip_prefix(&start));
            let row = row.unwrap_or_else(|| panic!("{title}: no row for {table}"));
            let (supported, other) = row.split_once(" | ").unwrap();
            let count = keys.iter().filter(|key| key.support == KeySupport::Supported).count();
            assert_eq!(supported.matches('`').count(), 2 * count, "{title}: {table}");
            for key in keys {
                let told = match key.support {
                    KeySupport::NoEffect(why) => {
                        other.contains(&format!("`{}` has no effect: {why}", key.name))
                    }
                    KeySupport::Refused(why) => other.contains(&format!("`{}`: {why}", key.name)),
                    KeySupport::Supported => supported.contains(&format!("`{}`", key.name)),
                    KeySupport::Translated(why) => other.contains(why),
                };
                assert!(told, "{title}: `{}` of {table}", key.name);
            }
        }
    }
}

#[test]
fn every_example_is_without_mistakes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.starts_with("#cloud-config") {
            continue;
        }
        seen += 1;
        let user = vec![PayloadPart::whole(path.display().to_string(), text)];
        let facts = PlanFacts { addresses: TokenAddresses::placeholders(), ..PlanFacts::default() };

        let found = reading::read(&UserDataInput { user, ..UserDataInput::default() }, &facts).found;

        assert_eq!(found.list(), [], "{}", path.display());
    }
    assert!(seen > 0);
}
