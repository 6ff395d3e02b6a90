//! Looks into and changes the trees of configurations, before they are read field by field.
//!
//! Knows mappings, lists and texts. Refuses to know what a key means. Invariant: a value that is moved
//! keeps the place where its author wrote it.

use document::source::SourceMark;
use document::yaml::{MappingEntry, Node, Scalar, ScalarStyle, Value};

/// The value of a key; nothing written counts as no key.
pub(super) fn find_value<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Mapping(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value).filter(|value| !value.is_null())
}

/// The value below several keys.
pub(super) fn find_below<'n>(node: &'n Node, keys: &[&str]) -> Option<&'n Node> {
    keys.iter().try_fold(node, |node, key| find_value(node, key))
}

/// The value of a key, to be changed.
pub(super) fn find_mut<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    let Value::Mapping(entries) = &mut node.value else { return None };
    entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
}

/// Takes an entry out of a mapping.
pub(super) fn remove_entry(node: &mut Node, key: &str) -> Option<MappingEntry> {
    let Value::Mapping(entries) = &mut node.value else { return None };
    let place = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(place))
}

/// Sets a key that is not there.
pub(super) fn insert_entry(node: &mut Node, key: &str, value: Node) {
    if let Value::Mapping(entries) = &mut node.value {
        entries.push(MappingEntry { key: key.to_owned(), key_at: value.at, value });
    }
}

/// The items of a list; none of what is no list.
pub(super) fn list_items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Value::Sequence(items)) => items,
        _ => &[],
    }
}

/// The items of a list below a key, to be changed.
pub(super) fn items_mut<'n>(node: &'n mut Node, key: &str) -> &'n mut [Node] {
    match find_mut(node, key).map(|node| &mut node.value) {
        Some(Value::Sequence(items)) => items,
        _ => &mut [],
    }
}

/// The text of a scalar.
pub(super) fn scalar_text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}

/// The text below a key; an empty one counts as none, as in Ignition's own reader.
pub(super) fn text_of<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    find_value(node, key).and_then(scalar_text).filter(|text| !text.is_empty())
}

/// Whether a key says true.
pub(super) fn is_true(node: &Node, key: &str) -> bool {
    find_value(node, key).and_then(scalar_text) == Some("true")
}

/// A value that nobody wrote, in the place of one that somebody did.
pub(super) fn make_node(at: SourceMark, value: Value) -> Node {
    Node { at, value }
}

/// A text, number or boolean that nobody wrote.
pub(super) fn make_scalar(at: SourceMark, text: &str, style: ScalarStyle) -> Node {
    make_node(at, Value::Scalar(Scalar { text: text.to_owned(), style, binary: false }))
}

/// Gives every place of a tree the number that its source has now.
pub(super) fn renumber_marks(node: &mut Node, numbers: &[u16]) {
    renumber_mark(&mut node.at, numbers);
    match &mut node.value {
        Value::Mapping(entries) => {
            for entry in entries {
                renumber_mark(&mut entry.key_at, numbers);
                renumber_marks(&mut entry.value, numbers);
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| renumber_marks(item, numbers)),
        Value::Scalar(_) | Value::Unreadable => {}
    }
}

/// Gives one place the number that its source has now.
pub(super) fn renumber_mark(mark: &mut SourceMark, numbers: &[u16]) {
    if let Some(number) = numbers.get(usize::from(mark.part)) {
        mark.part = *number;
    }
}
