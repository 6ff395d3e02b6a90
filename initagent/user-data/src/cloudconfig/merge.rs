//! Several documents become one.
//!
//! Knows cloud-init's mergers and their defaults. Refuses to know keys. Invariants: what comes later
//! wins unless `merge_how` says otherwise; what the user says wins over what the vendor says.

use std::collections::HashMap;

use document::diagnostic::{Code, Diagnostic, Diagnostics};
use document::source::At;
use document::yaml::{Entry, Node, Value};

/// How each shape is merged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct How {
    dict: Dict,
    list: List,
    append_text: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "four options that cloud-init documents, all independent")]
struct Dict {
    replace: bool,
    allow_delete: bool,
    recurse_text: bool,
    recurse_lists: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct List {
    method: ListMethod,
    recurse_dict: bool,
    recurse_lists: bool,
    recurse_text: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum ListMethod {
    Append,
    NoReplace,
    Prepend,
    #[default]
    Replace,
}

impl How {
    /// `dict(replace)+list()+str()`: a later part's top-level key replaces the earlier one's.
    pub const USER_DATA: Self = Self {
        dict: Dict { replace: true, allow_delete: false, recurse_text: false, recurse_lists: false },
        list: List {
            method: ListMethod::Replace,
            recurse_dict: false,
            recurse_lists: false,
            recurse_text: false,
        },
        append_text: false,
    };
    /// What is already there wins, and mappings are merged: the vendor's below the user's.
    pub const BELOW: Self = Self { dict: Dict { replace: false, ..Self::USER_DATA.dict }, ..Self::USER_DATA };
}

/// What a document says about how it is merged, by `merge_how` or `merge_type`.
pub fn how(document: &Node, found: &mut Diagnostics) -> Option<How> {
    let Value::Mapping(entries) = &document.value else { return None };
    let entry = entries
        .iter()
        .find(|entry| matches!(entry.key.replace('-', "_").as_str(), "merge_how" | "merge_type"))?;
    let mergers = match &entry.value.value {
        Value::Scalar(scalar) => parse_text(&scalar.text),
        Value::Sequence(items) => items.iter().map(parse_item).collect(),
        _ => None,
    };
    let how = mergers.and_then(assemble);
    if how.is_none() {
        let message = "these mergers are not understood, so this part is merged in the default way";
        found.push(
            Diagnostic::error(Code::BadValue, entry.value.at, message)
                .key(entry.key.clone())
                .help("write `dict(recurse_array)+list(append)+str()`, say"),
        );
    }
    how
}

/// As [`how`], for the text of a MIME header.
pub fn how_from_header(text: &At<String>, found: &mut Diagnostics) -> Option<How> {
    let how = parse_text(&text.value).and_then(assemble);
    if how.is_none() {
        found.push(Diagnostic::error(
            Code::BadValue,
            text.at,
            "the mergers in this part's header are not understood",
        ));
    }
    how
}

type Merger = (String, Vec<String>);

/// `dict(a,b)+list(c)`.
fn parse_text(text: &str) -> Option<Vec<Merger>> {
    text.split('+')
        .map(|merger| {
            let (name, options) = merger.trim().split_once('(').unwrap_or_else(|| (merger.trim(), ")"));
            let options = options.strip_suffix(')')?;
            let options =
                options.split(',').map(|option| option.trim().to_owned()).filter(|option| !option.is_empty());
            Some((name.trim().to_owned(), options.collect()))
        })
        .collect()
}

/// `{name: list, settings: [append]}`.
fn parse_item(item: &Node) -> Option<Merger> {
    let Value::Mapping(entries) = &item.value else { return None };
    let text = |node: &Node| match &node.value {
        Value::Scalar(scalar) => Some(scalar.text.clone()),
        _ => None,
    };
    let value = |name: &str| entries.iter().find(|entry| entry.key == name).map(|entry| &entry.value);
    let settings = match value("settings").map(|node| &node.value) {
        Some(Value::Sequence(items)) => items.iter().map(text).collect::<Option<_>>()?,
        _ => Vec::new(),
    };
    Some((text(value("name")?)?, settings))
}

fn assemble(mergers: Vec<Merger>) -> Option<How> {
    let mut how = How { dict: Dict::default(), list: List::default(), append_text: false };
    for (name, options) in mergers {
        let has = |option: &str| options.iter().any(|known| known == option);
        match name.as_str() {
            "dict" => {
                how.dict = Dict {
                    replace: has("replace"),
                    allow_delete: has("allow_delete"),
                    recurse_text: has("recurse_str"),
                    recurse_lists: has("recurse_array") || has("recurse_list"),
                };
            }
            "list" => {
                how.list = List {
                    method: list_method(&options),
                    recurse_dict: has("recurse_dict"),
                    recurse_lists: has("recurse_array") || has("recurse_list"),
                    recurse_text: has("recurse_str"),
                };
            }
            "str" => how.append_text = has("append"),
            _ => return None,
        }
    }
    Some(how)
}

fn list_method(options: &[String]) -> ListMethod {
    let known = options.iter().find_map(|option| match option.as_str() {
        "append" => Some(ListMethod::Append),
        "prepend" => Some(ListMethod::Prepend),
        "no_replace" => Some(ListMethod::NoReplace),
        "replace" => Some(ListMethod::Replace),
        _ => None,
    });
    known.unwrap_or_default()
}

/// The later value merged into the earlier one.
#[must_use]
pub fn merge(earlier: Node, later: Node, how: How) -> Node {
    let at = earlier.at;
    match (earlier.value, later.value) {
        (Value::Mapping(old), Value::Mapping(new)) => {
            Node { at, value: Value::Mapping(mappings(old, new, how)) }
        }
        (Value::Sequence(old), Value::Sequence(new)) => {
            Node { at, value: Value::Sequence(lists(old, new, how)) }
        }
        (Value::Scalar(mut old), Value::Scalar(new)) if how.append_text => {
            old.text += &new.text;
            Node { at, value: Value::Scalar(old) }
        }
        (_, value) => Node { at: later.at, value },
    }
}

fn mappings(old: Vec<Entry>, new: Vec<Entry>, how: How) -> Vec<Entry> {
    let name = |entry: &Entry| entry.key.replace('-', "_");
    let mut places: HashMap<String, usize> = HashMap::new();
    old.iter().enumerate().for_each(|(index, entry)| {
        places.entry(name(entry)).or_insert(index);
    });
    let mut merged: Vec<Option<Entry>> = old.into_iter().map(Some).collect();
    for entry in new {
        match places.get(&name(&entry)) {
            None => merged.push(Some(entry)),
            Some(index) if entry.value.is_null() && how.dict.allow_delete => merged[*index] = None,
            Some(index) => {
                let known = merged[*index].take();
                merged[*index] = Some(match known {
                    Some(known) => same_key(known, entry, how),
                    None => entry,
                });
            }
        }
    }
    merged.into_iter().flatten().collect()
}

fn same_key(old: Entry, new: Entry, how: How) -> Entry {
    let recurse = match &new.value.value {
        Value::Mapping(_) => true,
        Value::Sequence(_) => how.dict.recurse_lists,
        Value::Scalar(_) => how.dict.recurse_text,
        Value::Unreadable => false,
    };
    match (how.dict.replace, recurse) {
        (true, _) => new,
        (false, true) => Entry { value: merge(old.value, new.value, how), ..old },
        (false, false) => old,
    }
}

fn lists(mut old: Vec<Node>, new: Vec<Node>, how: How) -> Vec<Node> {
    match how.list.method {
        ListMethod::Append => old.extend(new),
        ListMethod::Prepend => old = new.into_iter().chain(old).collect(),
        ListMethod::NoReplace => {}
        ListMethod::Replace => {
            let mut new = new.into_iter();
            old = old
                .into_iter()
                .map(|old| match new.next() {
                    Some(new) => same_index(old, new, how),
                    None => old,
                })
                .collect();
        }
    }
    old
}

fn same_index(old: Node, new: Node, how: How) -> Node {
    let recurse = match &new.value {
        Value::Mapping(_) => how.list.recurse_dict,
        Value::Sequence(_) => how.list.recurse_lists,
        Value::Scalar(_) => how.list.recurse_text,
        Value::Unreadable => false,
    };
    if recurse { merge(old, new, how) } else { new }
}

#[cfg(test)]
mod tests {
    use super::*;
    use document::yaml;

    fn tree(text: &str) -> Node {
        yaml::parse(text, 0, &mut Diagnostics::default()).unwrap()
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
        let how = assemble(parse_text(how).unwrap()).unwrap();
        flat(&merge(tree(old), tree(new), how))
    }

    #[test]
    fn by_default_a_later_part_replaces_whole_keys() {
        let both = merge(tree("{a: [1], b: {c: 1}}"), tree("{a: [2], d: 3}"), How::USER_DATA);

        assert_eq!(flat(&both), "{a:[2],b:{c:1},d:3}");
    }

    #[test]
    fn the_users_word_stands_above_the_vendors() {
        let both = merge(tree("{a: 1, b: {c: 1}}"), tree("{a: 2, b: {c: 2, d: 2}, e: 2}"), How::BELOW);

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

        let how = how(&part, &mut Diagnostics::default()).unwrap();

        assert_eq!(how.list.method, ListMethod::Append);
        assert!(how.dict.recurse_lists && !how.dict.replace);
    }

    #[test]
    fn unknown_mergers_are_reported() {
        let mut found = Diagnostics::default();

        assert_eq!(how(&tree("merge_how: shuffle()"), &mut found), None);
        assert_eq!(found.list()[0].code, Code::BadValue);
    }
}
