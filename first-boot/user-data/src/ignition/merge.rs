//! How one configuration is put on top of another.
//!
//! Knows Ignition's rules: every field that the child gives wins, one by one; lists are merged by what names
//! their items; files, directories and links share one set of names. Refuses to know what fields mean.
//! Invariant: a value keeps its place, so that whatever is wrong is found in the file it came from.
//!
//! <https://coreos.github.io/ignition/operator-notes/#config-merging>. It is field by field even where that
//! surprises: a child that only names another `source` keeps the parent's `compression` and `verification`.

use std::collections::{HashMap, HashSet};

use document::yaml::{MappingEntry, Node, Value};

use super::tree;

/// Files, directories and links may not lie at the same path.
const PATHS: [&str; 3] = ["directories", "files", "links"];
/// Arguments of kernels are one set, whichever way they are meant.
const ARGUMENTS: [&str; 2] = ["shouldExist", "shouldNotExist"];
/// Arguments of commands and parts of files: their order and number count, so they are only added.
// Ignition merges these by putting the child's behind the parent's.
const ADDED: [&str; 4] = ["append", "mountOptions", "openOptions", "options"];

/// Puts `child` on top of `parent`. `name` is the key both stand under.
pub(super) fn merge_documents(parent: &mut Node, child: Node, name: &str) {
    if child.is_null() {
        return;
    }
    match (&mut parent.value, child.value) {
        (Value::Mapping(base), Value::Mapping(over)) => merge_mappings(base, over),
        (Value::Sequence(base), Value::Sequence(over)) => merge_lists(base, over, name),
        (_, value) => *parent = Node { at: child.at, value },
    }
}

fn merge_mappings(base: &mut Vec<MappingEntry>, over: Vec<MappingEntry>) {
    // Before the lists are merged: a path that the parent makes a file may be a link by the child.
    drop_taken(base, &over, &PATHS);
    drop_taken(base, &over, &ARGUMENTS);
    for entry in over {
        match base.iter_mut().find(|known| known.key == entry.key) {
            Some(known) => merge_documents(&mut known.value, entry.value, &entry.key),
            None => base.push(entry),
        }
    }
}

/// Takes out of the parent's lists what the child names in another list of the same family.
fn drop_taken(base: &mut [MappingEntry], over: &[MappingEntry], family: &[&str]) {
    for kind in family {
        let taken: HashSet<String> =
            list_of_key(over, kind).iter().filter_map(|item| item_identity(item, kind)).collect();
        if taken.is_empty() {
            continue;
        }
        let others =
            base.iter_mut().filter(|entry| entry.key != *kind && family.contains(&entry.key.as_str()));
        for entry in others {
            let name = entry.key.clone();
            if let Value::Sequence(items) = &mut entry.value.value {
                items.retain(|item| item_identity(item, &name).is_none_or(|key| !taken.contains(&key)));
            }
        }
    }
}

fn list_of_key<'e>(entries: &'e [MappingEntry], key: &str) -> &'e [Node] {
    tree::list_items(entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value))
}

fn merge_lists(base: &mut Vec<Node>, over: Vec<Node>, name: &str) {
    if ADDED.contains(&name) {
        return base.extend(over);
    }
    let mut places: HashMap<String, usize> = HashMap::new();
    for (place, item) in base.iter().enumerate() {
        places.extend(item_identity(item, name).map(|key| (key, place)));
    }
    let mut gone = HashSet::new();
    for item in over {
        match item_identity(&item, name).and_then(|key| places.get(&key)) {
            // A header without a value takes the parent's away.
            Some(place) if name == "httpHeaders" && tree::find_value(&item, "value").is_none() => {
                gone.insert(*place);
            }
            Some(place) => merge_documents(&mut base[*place], item, ""),
            None => base.push(item),
        }
    }
    let mut place = 0;
    base.retain(|_| {
        place += 1;
        !gone.contains(&(place - 1))
    });
}

/// What names an item of a list, by the list's own name; an item without a name is its own.
pub(super) fn item_identity(item: &Node, list: &str) -> Option<String> {
    let named = |key: &str| tree::text_of(item, key).map(str::to_owned);
    match list {
        "directories" | "files" | "links" => named("path"),
        "disks" | "filesystems" => named("device"),
        "certificateAuthorities" => named("source"),
        "tang" => named("url"),
        "partitions" => {
            // Zero means the next free number, so only the label says which partition it is.
            let number = named("number").filter(|number| number != "0");
            let label = || tree::find_value(item, "label").and_then(tree::scalar_text);
            number.map(|number| format!("number {number}")).or_else(|| Some(format!("label {}", label()?)))
        }
        _ => match &item.value {
            Value::Scalar(scalar) => Some(scalar.text.clone()),
            _ => named("name"),
        },
    }
}
