//! What becomes of several documents, and what is told of what they lose.

use super::*;
use document::yaml;

fn tree(text: &str) -> Node {
    yaml::parse_yaml(text, 0, &mut Diagnostics::default()).unwrap()
}

/// The tree in one line, without marks.
fn flat(node: &Node) -> String {
    match &node.value {
        Value::Mapping(entries) => {
            let pairs: Vec<_> =
                entries.iter().map(|one| format!("{}:{}", one.key, flat(&one.value))).collect();
            format!("{{{}}}", pairs.join(","))
        }
        Value::Sequence(items) => format!("[{}]", items.iter().map(flat).collect::<Vec<_>>().join(",")),
        Value::Scalar(scalar) => scalar.text.clone(),
        Value::Unreadable => "?".to_owned(),
    }
}

fn merged(old: &str, new: &str, how: &str) -> String {
    merged_and_told(old, new, how).0
}

fn merged_and_told(old: &str, new: &str, how: &str) -> (String, Vec<String>) {
    let mut found = Diagnostics::default();
    let value = assemble_style(parse_text(how).unwrap()).unwrap();
    let both = merge_nodes(tree(old), tree(new), Located { value, at: SourceMark::default() }, &mut found);
    (flat(&both), found.list().iter().map(|one| one.message.clone()).collect())
}

fn added(old: &str, new: &str) -> (String, usize) {
    let mut found = Diagnostics::default();
    let both = parts::add_up(tree(old), tree(new), &mut found);
    (flat(&both), found.list().len())
}

#[test]
fn without_a_word_parts_add_up() {
    for (old, new, both) in [
        ("{runcmd: [1], b: {c: 1}}", "{runcmd: [2], d: 3}", "{runcmd:[1,2],b:{c:1},d:3}"),
        ("{write_files: [1]}", "{write-files: [2]}", "{write_files:[1,2]}"),
        (
            "{coreos: {units: [1]}}",
            "{coreos: {units: [2], etcd2: {name: a}}}",
            "{coreos:{units:[1,2],etcd2:{name:a}}}",
        ),
        ("{ssh_authorized_keys: a}", "{ssh_authorized_keys: [b]}", "{ssh_authorized_keys:[a,b]}"),
        ("{users: {ana: {uid: 1}}}", "{users: [ben]}", "{users:[{name:ana,uid:1},ben]}"),
        ("{users: {ana: }}", "{users: {ben: {uid: 2}}}", "{users:[{name:ana},{name:ben,uid:2}]}"),
        ("{users: 'ana, ben'}", "{users: [cy]}", "{users:[ana,ben,cy]}"),
        ("{groups: [a]}", "{groups: {b: [ana]}}", "{groups:[a,{b:[ana]}]}"),
        ("{chpasswd: {list: 'a:b'}}", "{chpasswd: {list: 'c:d'}}", "{chpasswd:{list:[a:b,c:d]}}"),
        ("{users: [ana], hostname: a}", "{users: , hostname: }", "{users:[ana],hostname:a}"),
        ("{hostname: a}", "{hostname: a}", "{hostname:a}"),
    ] {
        assert_eq!(added(old, new), (both.to_owned(), 0), "{old} and {new}");
    }
}

#[test]
fn what_does_not_add_up_is_told() {
    for (old, new, both) in [
        ("{hostname: a}", "{hostname: b}", "{hostname:b}"),
        ("{coreos: {update: {group: a}}}", "{coreos: {update: {group: b}}}", "{coreos:{update:{group:b}}}"),
        ("{mount_default_fields: [a, b]}", "{mount_default_fields: [c]}", "{mount_default_fields:[c]}"),
        (
            "{disk_setup: {a: {layout: [50, 50]}}}",
            "{disk_setup: {a: {layout: [100]}}}",
            "{disk_setup:{a:{layout:[100]}}}",
        ),
        ("{user: {name: ana, uid: 1}}", "{user: {name: ben}}", "{user:{name:ben}}"),
        ("{runcmd: {a: b}}", "{runcmd: [c]}", "{runcmd:[c]}"),
    ] {
        assert_eq!(added(old, new), (both.to_owned(), 1), "{old} and {new}");
    }
}

#[test]
fn whatever_a_merger_drops_is_told() {
    for (old, new, how, words) in [
        ("{users: [a]}", "{users: [b]}", "dict(replace)", "a later part replaces it"),
        ("{users: [a]}", "{users: [b]}", "dict(recurse_dict)+list(append)", "lacks `recurse_list`"),
        ("{users: [a]}", "{users: [b]}", "dict(recurse_array)+list(no_replace)", "keeps the earlier list"),
        ("{users: [a]}", "{users: [b]}", "dict(recurse_array)+list()", "item by item"),
        ("{users: []}", "{users: [b]}", "dict(recurse_array)+list()", "as far as the earlier list is long"),
        ("{hostname: a}", "{hostname: b}", "dict()", "an earlier value stays"),
        ("{hostname: a}", "{hostname: ~}", "dict(allow_delete)", "removes it"),
        ("{users: [a]}", "{users: {b: }}", "dict(recurse_array)", "another value"),
    ] {
        let (_, told) = merged_and_told(old, new, how);

        assert!(told.len() == 1 && told[0].contains(words), "{old} {new} {how}: {told:?}");
    }
    let both = merged_and_told("{users: [a]}", "{users: [b]}", "dict(recurse_array)+list(append)");
    assert_eq!(both, ("{users:[a,b]}".to_owned(), Vec::new()));
}

#[test]
fn the_users_word_stands_above_the_vendors() {
    let both = merge_vendor(tree("{a: 1, b: {c: 1}}"), tree("{a: 2, b: {c: 2, d: 2}, e: 2}"));

    assert_eq!(flat(&both), "{a:1,b:{c:1,d:2},e:2}");
}

#[test]
fn mergers_do_what_cloud_init_documents() {
    assert_eq!(merged("{a: [1]}", "{a: [2]}", "dict(recurse_array)+list(append)"), "{a:[1,2]}");
    assert_eq!(merged("{a: [1]}", "{a: [2]}", "dict(recurse_list)+list(prepend)"), "{a:[2,1]}");
    assert_eq!(merged("{a: [1]}", "{a: [2]}", "dict(recurse_array)+list(no_replace)"), "{a:[1]}");
    assert_eq!(merged("{a: x}", "{a: y}", "dict(recurse_str)+str(append)"), "{a:xy}");
    assert_eq!(merged("{a: x, b: y}", "{a: ~}", "dict(allow_delete)"), "{b:y}");
    assert_eq!(merged("{a: {b: 1}}", "{a: {b: 2, c: 3}}", "dict(replace)"), "{a:{b:2,c:3}}");
}

#[test]
fn hyphens_and_underscores_are_one_key() {
    assert_eq!(
        merged("{write_files: [1]}", "{write-files: [2]}", "dict(recurse_array)+list(append)"),
        "{write_files:[1,2]}"
    );
}

#[test]
fn mergers_can_be_written_as_a_list() {
    let part = tree(
        "merge_how:\n - name: list\n   settings: [append]\n - name: dict\n   settings: [recurse_array]\n",
    );

    let how = merge_style(&part, &mut Diagnostics::default()).unwrap().value;

    assert_eq!(how.list.method, ListMethod::Append);
    assert!(how.dict.recurse_lists && !how.dict.replace);
}

#[test]
fn unknown_mergers_are_reported() {
    let mut found = Diagnostics::default();

    assert_eq!(merge_style(&tree("merge_how: shuffle()"), &mut found), None);
    assert_eq!(found.list()[0].code, DiagnosticCode::BadValue);
}
