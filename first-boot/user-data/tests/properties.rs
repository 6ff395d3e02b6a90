//! What holds for every document: the order of keys and the spelling of hyphens change nothing, and
//! anything at all is read without a panic.

#![expect(clippy::unwrap_used, reason = "this file is a test")]

use std::fs;
use std::path::Path;

use document::diagnostic::Diagnostics;
use document::source::SourceMark;
use document::yaml::{self, Node, Value};
use proptest::prelude::*;
use user_data::cloudconfig::order::PlanFacts;
use user_data::part::PayloadPart;
use user_data::plan::step::PlanStep;
use user_data::reading::{self, UserDataInput};
use user_data::template::{self, InstanceData};

/// The documents of the golden tests.
fn documents() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let cases = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("user-data"));
    let texts = cases.filter_map(|path| fs::read_to_string(path).ok());
    let mut texts: Vec<String> = texts.filter(|text| text.starts_with("#cloud-config\n")).collect();
    texts.sort();
    texts
}

/// The document again, with the keys of each mapping in another order and hyphens for underscores.
fn rewritten(node: &Node, order: &mut impl FnMut(usize) -> usize, hyphens: bool, depth: usize) -> String {
    match &node.value {
        Value::Mapping(entries) => {
            let mut left: Vec<_> = entries.iter().collect();
            let mut pairs = Vec::new();
            while !left.is_empty() {
                let entry = left.remove(order(left.len()));
                let is_ours = depth == 0 || !entry.key.contains(['/', '.']);
                let key = if hyphens && is_ours { entry.key.replace('_', "-") } else { entry.key.clone() };
                pairs.push(format!(
                    "{}: {}",
                    quoted(&key),
                    rewritten(&entry.value, order, hyphens, depth + 1)
                ));
            }
            format!("{{{}}}", pairs.join(", "))
        }
        Value::Sequence(items) => {
            let items: Vec<_> = items.iter().map(|item| rewritten(item, order, hyphens, depth + 1)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Scalar(_) if node.is_null() => "~".to_owned(),
        Value::Scalar(scalar) if scalar.binary => format!("!!binary {}", quoted(&scalar.text)),
        Value::Scalar(scalar) => quoted(&scalar.text),
        Value::Unreadable => "~".to_owned(),
    }
}

/// JSON's strings are YAML's too.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn steps(document: &str) -> Vec<PlanStep> {
    let handed =
        UserDataInput { user: vec![PayloadPart::whole("user-data", document)], ..UserDataInput::default() };
    let plan = reading::read(&handed, &PlanFacts::default()).plan;
    plan.steps.into_iter().map(|planned| planned.step).collect()
}

fn tree(document: &str) -> Option<Node> {
    yaml::parse_yaml(document, 0, &mut Diagnostics::default())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_keys_and_their_hyphens_change_nothing(seed in any::<u64>(), hyphens in any::<bool>()) {
        let mut state = seed | 1;
        let mut order = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 40).unwrap() % below
        };
        for document in documents() {
            let Some(node) = tree(&document) else { continue };
            // Which of two spellings is the second one does depend on the order.
            if document.contains("write-files: [{path: /etc/a}]") || document.contains("hostname: a\nwrite_files") {
                continue;
            }
            let other = format!("#cloud-config\n{}\n", rewritten(&node, &mut order, hyphens, 0));

            let (one, two) = (steps(&document), steps(&other));

            prop_assert_eq!(one, two, "{}", other);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let handed = UserDataInput { user: vec![PayloadPart::whole("user-data", bytes)], ..UserDataInput::default() };

        let reading = reading::read(&handed, &PlanFacts::default());

        prop_assert!(!reading.plan.steps.is_empty(), "host keys are always seen to");
    }

    #[test]
    fn any_text_after_the_header_is_read(text in "\\PC{0,300}") {
        steps(&format!("#cloud-config\n{text}"));
    }

    #[test]
    fn damaged_documents_are_read(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let documents = documents();
        let mut bytes = documents[which.index(documents.len())].clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let handed = UserDataInput { user: vec![PayloadPart::whole("user-data", bytes)], ..UserDataInput::default() };

        let reading = reading::read(&handed, &PlanFacts::default());

        let found = document::caret::render_diagnostics(&reading.found, &reading.sources, document::caret::Excerpts::Shown);
        prop_assert!(!found.contains(char::from(27)), "an escape code reaches the terminal");
    }
}

/// Pieces of which templates are made, right and wrong ones.
fn template() -> impl Strategy<Value = String> {
    let pieces = [
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{# ",
        " #}",
        "v1.region",
        "ds.meta_data['x']",
        "for a in [1, 'é']",
        "endfor",
        "if v1.zone",
        "else",
        "endif",
        "set b = 1",
        "raw",
        "endraw",
        "'",
        "\"",
        "\\",
        "(",
        "]",
        "|upper",
        "a",
        "\n",
        "é\n",
        "- ",
        "-%}",
        "hostname: ",
    ];
    let body = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..40);
    body.prop_map(|pieces| format!("## template: jinja\n#cloud-config\n{}", pieces.concat()))
}

proptest! {
    #[test]
    fn each_place_of_a_template_is_one_in_its_authors_text(text in template()) {
        let names = serde_json::json!({"region": "north\nsouth"}).as_object().unwrap().clone();
        let data = InstanceData::new(names, serde_json::Map::default());
        let is_in_text = |mark: SourceMark| {
            let line = text.split('\n').nth(mark.line as usize - 1);
            line.is_some_and(|line| mark.column as usize <= line.chars().count() + 1)
        };

        match template::expand_template(&text, 0, &data) {
            Err(flaw) => prop_assert!(is_in_text(flaw.at), "{flaw:?}"),
            Ok(expansion) => for (index, line) in expansion.text.split('\n').enumerate() {
                for column in 1..=line.chars().count() {
                    let (line, column) = (u32::try_from(index).unwrap() + 1, u32::try_from(column).unwrap());
                    let origin = expansion.places.original_mark(SourceMark { part: 0, line, column, width: 1 });
                    prop_assert!(is_in_text(origin), "{line}:{column} became {origin:?}");
                }
            },
        }
    }
}
