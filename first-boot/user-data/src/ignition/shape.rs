//! The shapes of values: what must be a number, a boolean, a text, a list or a mapping.
//!
//! Knows the types of Ignition's specification (its `schema.go` files), and that Go's JSON reader takes
//! `null` for nothing everywhere. Refuses to know what a value means. Invariant: what has another shape is
//! reported once, and is not in the tree any more.
//!
//! The readers of fields are shared with YAML, where `"420"` is as good a number as `420`. Ignition is strict
//! here, and a tool that writes the wrong type has usually written the wrong value, too.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::yaml::{MappingEntry, Node, ScalarStyle, Value};

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Flag,
    List,
    Mapping,
    Number,
    Text,
}

impl Shape {
    fn shape_words(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::List => "a list",
            Self::Mapping => "a mapping",
            Self::Number => "a whole number without quotes",
            Self::Text => "text in quotes",
        }
    }

    fn fits_node(self, node: &Node) -> bool {
        match (self, &node.value) {
            (Self::List, Value::Sequence(_)) | (Self::Mapping, Value::Mapping(_)) => true,
            // The tree is shared with YAML, where quotes are a style. In JSON they make the text.
            (Self::Text, Value::Scalar(scalar)) => scalar.style == ScalarStyle::Quoted,
            (Self::Flag, Value::Scalar(scalar)) => {
                scalar.style == ScalarStyle::Plain && matches!(scalar.text.as_str(), "true" | "false")
            }
            // Go reads no fraction and no exponent into an integer.
            (Self::Number, Value::Scalar(scalar)) => {
                scalar.style == ScalarStyle::Plain && scalar.text.parse::<i64>().is_ok()
            }
            _ => false,
        }
    }
}

// By name, not by path: a name has one type nearly everywhere, and the exceptions are in `shape_of`.
const FLAGS: [&str; 17] = [
    "discard",
    "enabled",
    "hard",
    "mask",
    "needsNetwork",
    "noCreateHome",
    "noLogInit",
    "noUserGroup",
    "overwrite",
    "resize",
    "shouldExist",
    "system",
    "tpm2",
    "wipeFilesystem",
    "wipePartitionEntry",
    "wipeTable",
    "wipeVolume",
];
const LISTS: [&str; 24] = [
    "append",
    "certificateAuthorities",
    "devices",
    "directories",
    "disks",
    "dropins",
    "files",
    "filesystems",
    "groups",
    "httpHeaders",
    "links",
    "luks",
    "merge",
    "mountOptions",
    "noProxy",
    "openOptions",
    "options",
    "partitions",
    "raid",
    "shouldNotExist",
    "sshAuthorizedKeys",
    "tang",
    "units",
    "users",
];
const MAPPINGS: [&str; 17] = [
    "cex",
    "clevis",
    "config",
    "custom",
    "group",
    "ignition",
    "kernelArguments",
    "keyFile",
    "passwd",
    "proxy",
    "replace",
    "security",
    "storage",
    "systemd",
    "timeouts",
    "tls",
    "user",
];
const NUMBERS: [&str; 11] = [
    "gid",
    "httpResponseHeaders",
    "httpTotal",
    "id",
    "mode",
    "number",
    "sizeMiB",
    "spares",
    "startMiB",
    "threshold",
    "uid",
];
const TEXTS: [&str; 26] = [
    "advertisement",
    "compression",
    "device",
    "format",
    "gecos",
    "guid",
    "hash",
    "homeDir",
    "httpProxy",
    "httpsProxy",
    "label",
    "level",
    "name",
    "passwordHash",
    "path",
    "pin",
    "primaryGroup",
    "shell",
    "source",
    "target",
    "thumbprint",
    "typeGuid",
    "url",
    "uuid",
    "value",
    "version",
];
/// Lists of texts, by the mapping that they stand in where their name alone does not say so.
const TEXT_LISTS: [&str; 8] = [
    "devices",
    "mountOptions",
    "noProxy",
    "openOptions",
    "options",
    "shouldExist",
    "shouldNotExist",
    "sshAuthorizedKeys",
];

/// Takes out of a tree what has not the shape that it must have, and reports it.
pub(super) fn check_shapes(document: &mut Node, found: &mut Diagnostics) {
    check_node(document, Shape::Mapping, "this configuration", "", "$", found);
}

fn check_node(node: &mut Node, shape: Shape, name: &str, within: &str, path: &str, found: &mut Diagnostics) {
    // Go's JSON reader leaves a field alone where it reads `null`.
    if node.is_null() {
        return;
    }
    if !shape.fits_node(node) {
        let message = format!("{name} must be {}, but it is {}", shape.shape_words(), node.shape_name());
        found.push(Diagnostic::error(DiagnosticCode::WrongType, node.at, message).with_key(path));
        node.value = Value::Unreadable;
        return;
    }
    match &mut node.value {
        Value::Mapping(entries) => {
            for entry in entries {
                check_entry(entry, within, path, found);
            }
        }
        Value::Sequence(items) => {
            let list = path.rsplit('.').next().unwrap_or_default().to_owned();
            let is_text = TEXT_LISTS.contains(&list.as_str()) || (list == "groups" && within == "users");
            let shape = if is_text { Shape::Text } else { Shape::Mapping };
            for (index, item) in items.iter_mut().enumerate() {
                check_node(
                    item,
                    shape,
                    &format!("an item of `{list}`"),
                    &list,
                    &format!("{path}[{index}]"),
                    found,
                );
            }
        }
        Value::Scalar(_) | Value::Unreadable => {}
    }
}

fn check_entry(entry: &mut MappingEntry, within: &str, path: &str, found: &mut Diagnostics) {
    let Some(shape) = shape_of(&entry.key, within) else { return };
    let path = format!("{path}.{}", entry.key);
    // A list's items know the list's own surroundings by its name; only `users` makes a difference.
    let inner = if shape == Shape::List { within.to_owned() } else { entry.key.clone() };
    check_node(&mut entry.value, shape, &format!("`{}`", entry.key), &inner, &path, found);
}

/// The shape of a known key. Some names are used twice, so what they stand in counts.
fn shape_of(key: &str, within: &str) -> Option<Shape> {
    match (key, within) {
        ("shouldExist", "kernelArguments") => Some(Shape::List),
        ("contents", "units" | "dropins") | ("config", "custom") => Some(Shape::Text),
        ("contents" | "verification", _) => Some(Shape::Mapping),
        (key, _) if FLAGS.contains(&key) => Some(Shape::Flag),
        (key, _) if LISTS.contains(&key) => Some(Shape::List),
        (key, _) if MAPPINGS.contains(&key) => Some(Shape::Mapping),
        (key, _) if NUMBERS.contains(&key) => Some(Shape::Number),
        (key, _) if TEXTS.contains(&key) => Some(Shape::Text),
        _ => None,
    }
}
