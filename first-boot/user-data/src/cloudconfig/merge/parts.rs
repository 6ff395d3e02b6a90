//! Parts that do not say how they are merged add up.
//!
//! cloud-init lets a later part replace each key of an earlier one. Users of CoreOS know it otherwise:
//! coreos-cloudinit applied part after part, and collected the keys of all. Tools rely on that (Magnum
//! hands over 25 parts, each with files), and what replaces without a word costs files and keys. So lists
//! grow, mappings are merged, of two texts the later one is used, and each value that is not used is told.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/merging.html>, and for CoreOS
//! coreos-cloudinit's `Documentation/cloud-config.md`.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::SourceMark;
use document::yaml::{MappingEntry, Node, Scalar, ScalarStyle, Value};

use super::{Dropped, is_worth_words, name_of, places_of};

/// Lists that may also be written as one text, or as a mapping from names: two shapes add up too.
const LISTS: [&str; 16] = [
    "bootcmd",
    "ca_certs.trusted",
    "chpasswd.list",
    "groups",
    "ntp.peers",
    "ntp.pools",
    "ntp.servers",
    "packages",
    "phone_home.post",
    "resolv_conf.nameservers",
    "resolv_conf.searchdomains",
    "runcmd",
    "ssh_authorized_keys",
    "ssh_genkeytypes",
    "ssh_import_id",
    "users",
];
/// Lists whose items mean something by their place, so that a longer one would mean something else.
// `layout: [50, 50]` of two parts would be four partitions of half a disk each.
const POSITIONAL: [&str; 5] =
    ["condition", "cloud_config_modules", "cloud_init_modules", "layout", "mount_default_fields"];

/// The later part added to the earlier ones.
#[must_use]
pub fn add_up(earlier: Node, later: Node, found: &mut Diagnostics) -> Node {
    match (earlier.value, later.value) {
        (Value::Mapping(old), Value::Mapping(new)) => {
            Node { at: earlier.at, value: Value::Mapping(merge_mappings(old, new, "", found)) }
        }
        (_, value) => Node { at: later.at, value },
    }
}

fn merge_mappings(
    old: Vec<MappingEntry>,
    new: Vec<MappingEntry>,
    path: &str,
    found: &mut Diagnostics,
) -> Vec<MappingEntry> {
    let places = places_of(&old, &new);
    let mut merged = old;
    for entry in new {
        let Some(place) = places.get(&*name_of(&entry)) else {
            merged.push(entry);
            continue;
        };
        let name = name_of(&entry).into_owned();
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        let known = &mut merged[*place];
        let value = std::mem::replace(&mut known.value, Node { at: known.key_at, value: Value::Unreadable });
        let known_at = known.key_at;
        known.value = merge_values(value, known_at, entry.value, &path, found);
    }
    merged
}

/// Two values of one key.
fn merge_values(old: Node, old_at: SourceMark, new: Node, path: &str, found: &mut Diagnostics) -> Node {
    // A part that gives a key nothing takes nothing away from others.
    if new.is_null() || new.value == Value::Unreadable {
        return old;
    }
    if old.is_null() {
        return new;
    }
    let last = path.rsplit('.').next().unwrap_or_default();
    let is_list = |node: &Node| matches!(node.value, Value::Sequence(_));
    match (old.value, new.value) {
        (Value::Mapping(old_entries), Value::Mapping(new_entries))
            if path != "users" && path != "groups" && !is_someone_else(path, &old_entries, &new_entries) =>
        {
            Node { at: old.at, value: Value::Mapping(merge_mappings(old_entries, new_entries, path, found)) }
        }
        (Value::Sequence(mut items), Value::Sequence(more)) if !POSITIONAL.contains(&last) => {
            items.extend(more);
            Node { at: old.at, value: Value::Sequence(items) }
        }
        (old_value, new_value) => {
            let (old, new) = (Node { at: old.at, value: old_value }, Node { at: new.at, value: new_value });
            if LISTS.contains(&path) && !(is_list(&old) && is_list(&new)) {
                let items = as_items(old.clone(), path).zip(as_items(new.clone(), path));
                if let Some((mut items, more)) = items {
                    items.extend(more);
                    return Node { at: old.at, value: Value::Sequence(items) };
                }
            }
            Dropped { path, at: old_at, value: &old }.tell_unless(&new, found);
            new
        }
    }
}

/// Of `user`, options of one person must not go to another.
fn is_someone_else(path: &str, old: &[MappingEntry], new: &[MappingEntry]) -> bool {
    let name = |entries: &[MappingEntry]| {
        entries.iter().find(|entry| entry.key == "name").and_then(|entry| match &entry.value.value {
            Value::Scalar(scalar) => Some(scalar.text.clone()),
            _ => None,
        })
    };
    path == "user" && name(old) != name(new)
}

/// A list, whatever its author wrote for it; `None` for what cannot be one.
fn as_items(node: Node, path: &str) -> Option<Vec<Node>> {
    let named = matches!(path, "users" | "groups");
    match node.value {
        Value::Sequence(items) => Some(items),
        // `users: ana,bo` and a list of users are one list in the end.
        Value::Scalar(scalar) if named => Some(split_names(&scalar.text, node.at)),
        Value::Scalar(scalar) => Some(vec![Node { at: node.at, value: Value::Scalar(scalar) }]),
        Value::Mapping(entries) if path == "users" => Some(entries.into_iter().map(user_item).collect()),
        Value::Mapping(entries) if named => Some(
            entries
                .into_iter()
                .map(|entry| Node { at: entry.key_at, value: Value::Mapping(vec![entry]) })
                .collect(),
        ),
        _ => None,
    }
}

/// A text with commas.
fn split_names(text: &str, at: SourceMark) -> Vec<Node> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| text_node(name, at)).collect()
}

fn text_node(text: &str, at: SourceMark) -> Node {
    Node {
        at,
        value: Value::Scalar(Scalar { text: text.to_owned(), style: ScalarStyle::Quoted, binary: false }),
    }
}

/// `ana: {…}` as `{name: ana, …}`.
fn user_item(entry: MappingEntry) -> Node {
    let name = MappingEntry {
        key: "name".to_owned(),
        key_at: entry.key_at,
        value: text_node(&entry.key, entry.key_at),
    };
    let mut entries = match entry.value.value {
        Value::Mapping(entries) => entries,
        _ => Vec::new(),
    };
    entries.retain(|own| own.key != "name");
    entries.insert(0, name);
    Node { at: entry.key_at, value: Value::Mapping(entries) }
}

impl Dropped<'_> {
    /// Warns, unless nothing is lost: both parts say the same.
    fn tell_unless(&self, new: &Node, found: &mut Diagnostics) {
        if !is_worth_words(self.path, self.value) || super::says_the_same(self.value, new) {
            return;
        }
        let message = format!("`{}` is not used from here: a later part gives it another value", self.path);
        let diagnostic =
            Diagnostic::warning(DiagnosticCode::Conflict, self.at, message).with_key(self.path.to_owned());
        found.push(
            diagnostic
                .with_help("give it in one part only, or say in the later one by `merge_how` what is meant"),
        );
    }
}
