use super::*;

fn read(text: &str) -> (Option<Node>, Diagnostics) {
    let mut found = Diagnostics::default();
    let node = parse_yaml(text, 0, &mut found);
    (node, found)
}

fn entries(text: &str) -> Vec<MappingEntry> {
    match read(text).0.map(|node| node.value) {
        Some(Value::Mapping(entries)) => entries,
        other => panic!("not a mapping: {other:?}"),
    }
}

fn codes(found: &Diagnostics) -> Vec<(&'static str, u32, u32)> {
    found.list().iter().map(|one| (one.code.code_word(), one.at.line, one.at.column)).collect()
}

fn text(node: &Node) -> &str {
    match &node.value {
        Value::Scalar(scalar) => &scalar.text,
        other => panic!("not a scalar: {other:?}"),
    }
}

#[test]
fn every_value_knows_its_line_and_column() {
    let entries = entries("a: 1\nb:\n  - x\n  - |\n    lines\n");

    let Value::Sequence(items) = &entries[1].value.value else { panic!("not a list") };
    assert_eq!((entries[0].value.at.line, entries[0].value.at.column, entries[0].value.at.width), (1, 4, 1));
    assert_eq!((items[0].at.line, items[0].at.column), (3, 5));
    assert_eq!((items[1].at.line, items[1].at.column), (5, 5));
}

#[test]
fn numbers_and_booleans_keep_their_text() {
    let entries = entries("mode: 0644\nstrategy: off\nversion: 1.20\n");

    assert_eq!(entries.iter().map(|one| text(&one.value)).collect::<Vec<_>>(), ["0644", "off", "1.20"]);
}

#[test]
fn a_duplicate_key_is_reported_where_it_stands_and_the_first_counts() {
    let (node, found) = read("a: 1\nb: 2\na: 3\n");

    let Some(Value::Mapping(entries)) = node.map(|node| node.value) else { panic!("not a mapping") };
    assert_eq!(codes(&found), [("duplicate-key", 3, 1)]);
    assert_eq!(entries.len(), 2);
    assert_eq!(text(&entries[0].value), "1");
}

#[test]
fn aliases_and_merge_keys_are_expanded() {
    let entries = entries("base: &b {shell: /bin/sh, system: yes}\nuser: {<<: *b, system: no}\n");

    let Value::Mapping(user) = &entries[1].value.value else { panic!("not a mapping") };
    let pairs: Vec<_> = user.iter().map(|one| (one.key.as_str(), text(&one.value))).collect();
    assert_eq!(pairs, [("system", "no"), ("shell", "/bin/sh")]);
}

#[test]
fn an_alias_bomb_is_refused_at_once() {
    let mut bomb = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]\n".to_owned();
    for level in 1..10 {
        let refs = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.extend([format!("a{level}: &a{level} [{refs}]\n")]);
    }

    let (node, found) = read(&bomb);

    assert!(node.is_none());
    assert_eq!(found.list()[0].code, DiagnosticCode::LimitExceeded);
}

#[test]
fn a_chain_of_aliases_is_not_deeper_than_the_limit() {
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for level in 1..500 {
        chain.extend([format!("a{level}: &a{level} [*a{}]\n", level - 1)]);
    }

    assert!(codes(&read(&chain).1)[0].0 == "limit-exceeded");
}

#[test]
fn deep_nesting_and_long_documents_are_refused() {
    assert!(read(&"[".repeat(100_000)).0.is_none());
    assert!(read(&"- ".repeat(100_000)).0.is_none());
    assert!(read(&"a: b\n".repeat(MOST_BYTES)).0.is_none());
    assert!(read(&format!("[{}]", "a,".repeat(MOST_NODES))).0.is_none());
}

#[test]
fn an_alias_inside_its_own_anchor_is_reported() {
    assert_eq!(codes(&read("a: &a [*a]\n").1), [("bad-value", 1, 8)]);
}

#[test]
fn syntax_errors_have_a_place_and_advice() {
    let (node, found) = read("a:\n\tb: 2\n");

    assert!(node.is_none());
    assert_eq!(codes(&found)[0].0, "syntax");
    assert_eq!(found.list()[0].at.line, 2);
}

#[test]
fn a_second_document_is_reported_and_the_first_is_kept() {
    let (node, found) = read("---\na: 1\n---\nb: 2\n");

    assert!(node.is_some());
    assert_eq!(codes(&found), [("no-effect", 3, 1)]);
}

#[test]
fn foreign_tags_are_not_obeyed() {
    let (node, found) = read("a: !!python/object/apply:os.system [ls]\nb: !foo x\nc: !!binary YQ==\n");

    let Some(Value::Mapping(entries)) = node.map(|node| node.value) else { panic!("not a mapping") };
    assert_eq!(codes(&found).last().map(|one| one.1), Some(2));
    assert_eq!(entries[1].value.value, Value::Unreadable);
    assert!(matches!(&entries[2].value.value, Value::Scalar(scalar) if scalar.binary));
}

#[test]
fn what_a_broken_document_says_of_access_is_salvaged_with_its_line() {
    let broken =
        "#cloud-config\nwrite_files:\n\t- broken\nssh-authorized-keys:\n  - ssh-ed25519 AAAA me\nx: [\n";

    let entries = salvage_entries(broken, 0, &["ssh_authorized_keys"]);

    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].key_at.line, 4);
}

#[test]
fn quoted_texts_may_be_indented_less_than_their_key() {
    for (text, expected) in [
        ("a: \"first words\nand the rest\"\nb: 1\n", "first words and the rest"),
        ("a: 'first words\n\n  and\nthe rest' # comment\nb: 1\n", "first words\nand the rest"),
        ("a: \"first\n\twords\"\nb: 1\n", "first words"),
        ("a: \"first\r\nwords\"\r\nb: 1\r\n", "first words"),
        ("a: \"it's\nours\"\nb: 1\n", "it's ours"),
    ] {
        let nested = format!("top:\n  {}", text.replacen("\nb:", "\n  b:", 1));

        let (node, found) = read(&nested);

        let Some(Value::Mapping(top)) = node.map(|node| node.value) else { panic!("{nested}: {found:?}") };
        let Value::Mapping(entries) = &top[0].value.value else { panic!("{nested}") };
        assert_eq!(self::text(&entries[0].value), expected, "{nested:?}");
        assert_eq!((entries[1].key.as_str(), entries[1].key_at.column), ("b", 3), "{nested:?}");
        assert_eq!(
            codes(&found).iter().map(|(code, ..)| *code).collect::<Vec<_>>(),
            ["syntax"],
            "{nested:?}"
        );
        assert_eq!(found.worst_severity(), Some(crate::diagnostic::Severity::Warning), "{nested:?}");
    }
}

#[test]
fn places_behind_such_a_text_are_the_users() {
    let (node, found) = read("a:\n  - {b: \"x\ny\", c: z}\n  - d\n");

    let Some(Value::Mapping(entries)) = node.map(|node| node.value) else { panic!("{found:?}") };
    let Value::Sequence(items) = &entries[0].value.value else { panic!("not a list") };
    let Value::Mapping(first) = &items[0].value else { panic!("not a mapping") };
    assert_eq!((first[1].key_at.line, first[1].key_at.column), (3, 5));
    assert_eq!((items[1].at.line, items[1].at.column), (4, 5));
}

#[test]
fn other_mistakes_behind_such_a_text_are_found_in_their_places() {
    let (node, found) = read("a:\n  b: \"x\ny\"\nc: [\n");

    assert!(node.is_none());
    assert!(codes(&found).iter().any(|(code, line, _)| *code == "syntax" && *line >= 4), "{found:?}");
}

#[test]
fn more_such_lines_than_anybody_writes_are_a_mistake() {
    // Each has a quote in it, so that each is looked for anew.
    let text = "a:\n  b: \"x\n".to_owned() + &"y's\n".repeat(100_000) + "\"\n";

    let (node, found) = read(&text);

    assert!(node.is_none());
    assert_eq!(codes(&found), [("syntax", 3, 1)]);
}
