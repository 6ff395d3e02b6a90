//! Configurations of specification 2, as Container Linux and older Flatcar read them, turned into 3.
//!
//! Knows what moved, what was renamed and which defaults changed. Refuses by name what 3 has no words for.
//! Invariant: everything that is not refused means what it meant.
//!
//! The differences are listed in Ignition's migration guide
//! (<https://coreos.github.io/ignition/migrating-configs/>, "From Version 2.x to 3.0.0") and in Flatcar's
//! <https://www.flatcar.org/docs/latest/provisioning/ignition/specification/>.

use std::collections::HashMap;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::SourceMark;
use document::yaml::{MappingEntry, Node, ScalarStyle, Value};

use super::tree;

/// The file system that files are on unless they say otherwise.
const ROOT: &str = "root";
/// Sectors of 512 bytes in one MiB: 2.0 to 2.2 count in sectors, 3 in MiB.
// Ignition 2 counted 512 bytes whatever the disk's sectors, and so does its migration guide.
const SECTORS_PER_MIB: u64 = 2048;
const NETWORK_FOLDER: &str = "/etc/systemd/network";
/// What an unreserved character of RFC 3986 need not be escaped as.
const UNRESERVED: &[u8] = b"-._~";

/// Turns a document of version 2.`minor` into one of version 3.
pub(super) fn translate_legacy(document: &mut Node, minor: u32, found: &mut Diagnostics) {
    let at = tree::find_below(document, &["ignition", "version"]).map_or(document.at, |node| node.at);
    let message = format!("this is specification 2.{minor}.0; it is read as the same of specification 3");
    found.push(Diagnostic::note(DiagnosticCode::Translated, at, message).with_key("$.ignition.version"));
    // First, so that what `config` refers to is found by the reader of 3.
    rename_references(document);
    let mut mover = Mover { found, places: HashMap::from([(ROOT.to_owned(), "/".to_owned())]) };
    if let Some(storage) = tree::find_mut(document, "storage") {
        mover.move_filesystems(storage);
        mover.move_nodes(storage);
        mover.move_disks(storage);
    }
    move_users(document);
    move_units(document);
    network_units(document);
}

/// `append` became `merge`.
fn rename_references(document: &mut Node) {
    let config = tree::find_mut(document, "ignition").and_then(|node| tree::find_mut(node, "config"));
    if let Some(config) = config
        && let Some(append) = tree::remove_entry(config, "append")
    {
        tree::insert_entry(config, "merge", append.value);
    }
}

/// Moves what `storage` holds.
struct Mover<'f> {
    found: &'f mut Diagnostics,
    /// Where the file systems are that files name.
    places: HashMap<String, String>,
}

impl Mover<'_> {
    fn refuse_key(&mut self, at: SourceMark, key: &str, message: &str, help: &str) {
        self.found
            .push(Diagnostic::error(DiagnosticCode::Refused, at, message).with_key(key).with_help(help));
    }

    /// `name` and `mount` are gone: what was below `mount` stands beside `path`.
    fn move_filesystems(&mut self, storage: &mut Node) {
        let mut kept = Vec::new();
        for mut item in tree::items_mut(storage, "filesystems").to_vec() {
            let name = tree::remove_entry(&mut item, "name");
            let name =
                name.and_then(|entry| tree::scalar_text(&entry.value).map(str::to_owned)).unwrap_or_default();
            match (tree::remove_entry(&mut item, "mount"), tree::text_of(&item, "path")) {
                (Some(mount), _) if name == ROOT => self.refuse_key(
                    mount.key_at,
                    "$.storage.filesystems",
                    "the root file system cannot be made anew: it is the verified, read-only image",
                    "leave this file system out",
                ),
                (Some(mount), _) => kept.push(flatten_mount(item, mount.value)),
                // One that is there already and only gets a name.
                (None, Some(path)) => {
                    self.places.insert(name, path.to_owned());
                }
                (None, None) => kept.push(item),
            }
        }
        if let Some(node) = tree::find_mut(storage, "filesystems") {
            node.value = Value::Sequence(kept);
        }
    }

    /// Files, directories and links lie below the place of the file system they name.
    fn move_nodes(&mut self, storage: &mut Node) {
        for list in ["directories", "files", "links"] {
            for item in tree::items_mut(storage, list) {
                self.place_node(item, list);
            }
        }
        let mut files: Vec<Node> = Vec::new();
        for mut item in tree::items_mut(storage, "files").to_vec() {
            let appends = move_contents(&mut item);
            let path = tree::text_of(&item, "path").map(str::to_owned);
            let earlier = files.iter_mut().find(|file| tree::text_of(file, "path") == path.as_deref());
            match (appends, earlier) {
                // 2 lists a file and each addition to it one by one, 3 all of them together.
                // The order in the list is the order in the file.
                (Some(addition), Some(file)) => add_item(file, "append", addition),
                (Some(addition), None) => {
                    add_item(&mut item, "append", addition);
                    files.push(item);
                }
                (None, _) => files.push(item),
            }
        }
        if let Some(node) = tree::find_mut(storage, "files") {
            node.value = Value::Sequence(files);
        }
    }

    fn place_node(&mut self, item: &mut Node, list: &str) {
        let Some(entry) = tree::remove_entry(item, "filesystem") else { return };
        let name = tree::scalar_text(&entry.value).unwrap_or(ROOT).to_owned();
        let Some(place) = self.places.get(&name).cloned() else {
            return self.refuse_key(
                entry.value.at,
                &format!("$.storage.{list}"),
                "nothing says where the file system of this name is mounted, so the path of this is not known",
                "give the file system a `path` in a configuration of version 3, and leave `filesystem` out",
            );
        };
        if let Some(path) = tree::find_mut(item, "path") {
            let joined = clean_path(&format!("{place}/{}", tree::scalar_text(path).unwrap_or_default()));
            *path = tree::make_scalar(path.at, &joined, ScalarStyle::Quoted);
        }
    }

    /// Sizes and starts in sectors become MiB.
    fn move_disks(&mut self, storage: &mut Node) {
        for disk in tree::items_mut(storage, "disks") {
            for partition in tree::items_mut(disk, "partitions") {
                for (from, to) in [("size", "sizeMiB"), ("start", "startMiB")] {
                    let Some(entry) = tree::remove_entry(partition, from) else { continue };
                    let sectors = tree::scalar_text(&entry.value).and_then(|text| text.parse::<u64>().ok());
                    match sectors.filter(|sectors| sectors % SECTORS_PER_MIB == 0) {
                        Some(sectors) => {
                            let text = (sectors / SECTORS_PER_MIB).to_string();
                            let value = tree::make_scalar(entry.value.at, &text, ScalarStyle::Plain);
                            tree::insert_entry(partition, to, value);
                        }
                        None if entry.value.is_null() => {}
                        // Rounding would move a partition, and data on it would be lost.
                        None => self.refuse_key(
                            entry.value.at,
                            "$.storage.disks",
                            &format!("`{from}` must be a multiple of 2048 sectors, since partitions begin and end at whole MiB"),
                            &format!("write `{to}`, in MiB"),
                        ),
                    }
                }
            }
        }
    }
}

/// What stood below `mount` and below its `create`.
fn flatten_mount(mut item: Node, mut mount: Node) -> Node {
    let create = tree::remove_entry(&mut mount, "create");
    if let Value::Mapping(entries) = mount.value {
        for entry in entries {
            tree::insert_entry(&mut item, &entry.key, entry.value);
        }
    }
    if let Some(mut create) = create.map(|entry| entry.value) {
        if let Some(force) = tree::remove_entry(&mut create, "force") {
            tree::insert_entry(&mut item, "wipeFilesystem", force.value);
        }
        if let Some(options) = tree::remove_entry(&mut create, "options") {
            tree::insert_entry(&mut item, "options", options.value);
        }
    }
    item
}

/// Sets the defaults of 2, and hands out the contents if they are to be appended.
fn move_contents(item: &mut Node) -> Option<Node> {
    let appends = tree::remove_entry(item, "append")
        .is_some_and(|entry| tree::scalar_text(&entry.value) == Some("true"));
    if appends {
        tree::remove_entry(item, "overwrite");
        let at = item.at;
        let nothing = || tree::make_node(at, Value::Mapping(Vec::new()));
        return Some(tree::remove_entry(item, "contents").map_or_else(nothing, |entry| entry.value));
    }
    let at = item.at;
    if tree::find_value(item, "overwrite").is_none() {
        // 2 replaced what was there unless told otherwise; 3 refuses unless told otherwise.
        tree::insert_entry(item, "overwrite", tree::make_scalar(at, "true", ScalarStyle::Plain));
    }
    if tree::find_value(item, "contents").is_none() {
        tree::remove_entry(item, "contents");
        tree::insert_entry(item, "contents", tree::make_node(at, Value::Mapping(Vec::new())));
    }
    if let Some(contents) = tree::find_mut(item, "contents")
        && tree::find_value(contents, "source").is_none()
    {
        // In 3 a file without a source is left as it is; in 2 it was made empty.
        tree::insert_entry(contents, "source", tree::make_scalar(at, "", ScalarStyle::Quoted));
    }
    None
}

fn add_item(node: &mut Node, key: &str, item: Node) {
    match tree::find_mut(node, key).map(|list| &mut list.value) {
        Some(Value::Sequence(items)) => items.push(item),
        _ => tree::insert_entry(node, key, tree::make_node(item.at, Value::Sequence(vec![item]))),
    }
}

/// What 2.0 had below `create` stands beside `name`.
fn move_users(document: &mut Node) {
    let Some(passwd) = tree::find_mut(document, "passwd") else { return };
    for user in tree::items_mut(passwd, "users") {
        let Some(create) = tree::remove_entry(user, "create") else { continue };
        if let Value::Mapping(entries) = create.value.value {
            for entry in entries {
                tree::insert_entry(user, &entry.key, entry.value);
            }
        }
    }
}

/// `enable` is gone; `enabled` won over it.
fn move_units(document: &mut Node) {
    let Some(systemd) = tree::find_mut(document, "systemd") else { return };
    for unit in tree::items_mut(systemd, "units") {
        let enable = tree::remove_entry(unit, "enable")
            .filter(|entry| tree::scalar_text(&entry.value) == Some("true"));
        if let Some(entry) = enable
            && tree::find_value(unit, "enabled").is_none()
        {
            tree::insert_entry(unit, "enabled", entry.value);
        }
    }
}

/// The section `networkd` is gone; its units are files.
fn network_units(document: &mut Node) {
    let Some(mut networkd) = tree::remove_entry(document, "networkd").map(|entry| entry.value) else {
        return;
    };
    let mut files = Vec::new();
    for unit in tree::items_mut(&mut networkd, "units") {
        let Some(name) = tree::text_of(unit, "name").map(str::to_owned) else { continue };
        files.extend(network_file(unit, &format!("{NETWORK_FOLDER}/{name}")));
        for drop_in in tree::list_items(tree::find_value(unit, "dropins")) {
            let file = tree::text_of(drop_in, "name").unwrap_or_default();
            files.extend(network_file(drop_in, &format!("{NETWORK_FOLDER}/{name}.d/{file}")));
        }
    }
    if tree::find_value(document, "storage").is_none() {
        tree::remove_entry(document, "storage");
        tree::insert_entry(document, "storage", tree::make_node(networkd.at, Value::Mapping(Vec::new())));
    }
    if let Some(storage) = tree::find_mut(document, "storage") {
        for file in files {
            add_item(storage, "files", file);
        }
    }
}

fn network_file(unit: &Node, path: &str) -> Option<Node> {
    let contents = tree::find_value(unit, "contents")?;
    let at = contents.at;
    let text = |text: &str| tree::make_scalar(at, text, ScalarStyle::Quoted);
    let source = format!("data:,{}", percent_encoded(tree::scalar_text(contents)?));
    let mapping = |pairs: Vec<(&str, Node)>| {
        let entry = |(key, value): (&str, Node)| MappingEntry { key: key.to_owned(), key_at: at, value };
        tree::make_node(at, Value::Mapping(pairs.into_iter().map(entry).collect()))
    };
    let resource = mapping(vec![("source", text(&source))]);
    // As 2 wrote units of networkd over those that were there.
    let overwrite = tree::make_scalar(at, "true", ScalarStyle::Plain);
    Some(mapping(vec![("path", text(path)), ("overwrite", overwrite), ("contents", resource)]))
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || UNRESERVED.contains(&byte);
    text.bytes().fold(String::new(), |out, byte| {
        if plain(byte) { out + &char::from(byte).to_string() } else { out + &format!("%{byte:02X}") }
    })
}

/// A path without doubled slashes and dots; one that climbs is left for its reader to refuse.
fn clean_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}
