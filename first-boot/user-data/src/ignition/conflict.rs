//! What a configuration may not name twice, and what may not lie in what it names.
//!
//! Knows which lists are sets, and that files, directories and links are one. Refuses to know what is done with
//! an item. Invariant: of two that are equal, the second is reported, with the line of the first.
//!
//! It is judged per document, before they are merged: merging makes one of two equals.
//!
//! Documentation: <https://coreos.github.io/ignition/configuration-v3_5/>. Ignition's own rules are in its
//! packages `config/validate` and `config/v3_5/types`, whose cases this crate's tests try, too.

use std::collections::HashMap;

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::yaml::{Node, Value};

use super::{merge, tree};

/// Lists that are one set of names.
const NODES: [&str; 3] = ["directories", "files", "links"];
// One argument cannot both be there and not be there.
const ARGUMENTS: [&str; 2] = ["shouldExist", "shouldNotExist"];
/// Lists in which equals count as often as they stand there.
// The order and number of these mean something to the program that gets them.
const MULTISETS: [&str; 5] = ["append", "merge", "mountOptions", "openOptions", "options"];
const UNIT_FOLDER: &str = "/etc/systemd/system";

/// Reports everything that is named twice or lies in another's way.
pub(super) fn check_conflicts(document: &Node, found: &mut Diagnostics) {
    report_repeated(document, "$", found);
    if let Some(storage) = tree::find_value(document, "storage") {
        let nodes = placed_nodes(storage);
        below_others(&nodes, found);
        hard_links(storage, found);
        on_divided_disks(storage, found);
        in_place_of_units(document, &nodes, found);
    }
}

fn report_repeated(node: &Node, path: &str, found: &mut Diagnostics) {
    let Value::Mapping(entries) = &node.value else { return };
    for family in [&NODES[..], &ARGUMENTS[..]] {
        let lists: Vec<_> = entries.iter().filter(|entry| family.contains(&entry.key.as_str())).collect();
        let items = lists.iter().flat_map(|entry| named_items(&entry.value, &entry.key, path));
        repeated_items(items, found);
    }
    for entry in entries {
        let key = entry.key.as_str();
        if !NODES.contains(&key) && !ARGUMENTS.contains(&key) && !MULTISETS.contains(&key) {
            repeated_items(named_items(&entry.value, key, path), found);
        }
        let path = format!("{path}.{key}");
        match &entry.value.value {
            Value::Mapping(_) => report_repeated(&entry.value, &path, found),
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    report_repeated(item, &format!("{path}[{index}]"), found);
                }
            }
            Value::Scalar(_) | Value::Unreadable => {}
        }
    }
}

/// An item of a list, what names it, and its path of keys.
struct Named<'n> {
    name: String,
    item: &'n Node,
    path: String,
}

fn named_items<'n>(list: &'n Node, key: &str, path: &str) -> impl Iterator<Item = Named<'n>> {
    let (key, path) = (key.to_owned(), path.to_owned());
    tree::list_items(Some(list)).iter().enumerate().filter_map(move |(index, item)| {
        let name = merge::item_identity(item, &key)?;
        Some(Named { name, item, path: format!("{path}.{key}[{index}]") })
    })
}

fn repeated_items<'n>(items: impl Iterator<Item = Named<'n>>, found: &mut Diagnostics) {
    let mut lines: HashMap<String, u32> = HashMap::new();
    for one in items {
        let Some(line) = lines.get(&one.name) else {
            lines.insert(one.name, one.item.at.line);
            continue;
        };
        // Keys and headers may be secret, so the name is not printed.
        let message = format!("this is there twice: the first one stands in line {line}");
        let diagnostic = Diagnostic::error(DiagnosticCode::Conflict, one.item.at, message);
        found.push(diagnostic.with_key(one.path).with_help("leave one of them out, or put both into one"));
    }
}

/// A file, directory or link.
struct Placed<'n> {
    list: &'static str,
    at: &'n Node,
    path: &'n str,
    key: String,
}

fn placed_nodes(storage: &Node) -> Vec<Placed<'_>> {
    let of = |list: &'static str| {
        let items = tree::list_items(tree::find_value(storage, list)).iter().enumerate();
        items.filter_map(move |(index, item)| {
            let at = tree::find_value(item, "path")?;
            Some(Placed {
                list,
                at,
                path: tree::scalar_text(at)?,
                key: format!("$.storage.{list}[{index}].path"),
            })
        })
    };
    NODES.into_iter().flat_map(of).collect()
}

/// What is called a file or a link cannot be a directory that something else lies in.
fn below_others(nodes: &[Placed<'_>], found: &mut Diagnostics) {
    let mut holders: HashMap<&str, &Placed<'_>> = HashMap::new();
    holders.extend(nodes.iter().filter(|one| one.list != "directories").map(|one| (one.path, one)));
    for one in nodes {
        let mut above = one.path.match_indices('/').filter_map(|(end, _)| holders.get(&one.path[..end]));
        // The nearest one is what the author has to change.
        if let Some(holder) = above.next_back() {
            let (what, instead) = match holder.list {
                // Ignition refuses it, too: what the link leads to may be another thing on each machine.
                "links" => ("link", "write the path that the link leads to"),
                _ => ("file", "what other things lie in must be a directory"),
            };
            let message = format!(
                "{} lies in {}, which line {} makes a {what}",
                one.path, holder.path, holder.at.at.line
            );
            found.push(
                Diagnostic::error(DiagnosticCode::Conflict, one.at.at, message)
                    .with_key(one.key.clone())
                    .with_help(instead),
            );
        }
    }
}

fn hard_links(storage: &Node, found: &mut Diagnostics) {
    let directories: Vec<&str> = tree::list_items(tree::find_value(storage, "directories"))
        .iter()
        .filter_map(|item| tree::text_of(item, "path"))
        .collect();
    for (index, link) in tree::list_items(tree::find_value(storage, "links")).iter().enumerate() {
        if !tree::is_true(link, "hard") {
            continue;
        }
        let key = format!("$.storage.links[{index}]");
        let (path, target) = (tree::text_of(link, "path"), tree::text_of(link, "target"));
        // A target with dots or without a slash at its beginning named a directory of the same configuration
        // unnoticed.
        let target = link_target(path.unwrap_or_default(), target.unwrap_or_default());
        if directories.contains(&target.as_str()) {
            let message = format!("{target} is a directory, and nothing can be a hard link to one");
            let diagnostic = Diagnostic::error(DiagnosticCode::Conflict, link.at, message);
            found.push(diagnostic.with_key(key.clone()).with_help("leave `hard` out"));
        }
        let owner = ["user", "group"].into_iter().find_map(|name| tree::find_value(link, name));
        let is_owned =
            |owner: &&Node| ["id", "name"].iter().any(|name| tree::find_value(owner, name).is_some());
        if let Some(owner) = owner.filter(is_owned) {
            let message = "a hard link has the owner of its target; this one is not used";
            found.push(Diagnostic::warning(DiagnosticCode::NoEffect, owner.at, message).with_key(key));
        }
    }
}

/// Where a link leads; one that is not absolute begins at the link, as Ignition has it.
fn link_target(link: &str, target: &str) -> String {
    let whole = if target.starts_with('/') { target.to_owned() } else { format!("{link}/{target}") };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            // Above the root there is the root, path_resolution(7).
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Two things are said of one device.
fn on_divided_disks(storage: &Node, found: &mut Diagnostics) {
    let disks = tree::list_items(tree::find_value(storage, "disks"));
    for (index, item) in tree::list_items(tree::find_value(storage, "filesystems")).iter().enumerate() {
        let Some(device) = tree::find_value(item, "device") else { continue };
        let is_same = |disk: &&Node| tree::text_of(disk, "device") == tree::scalar_text(device);
        let Some(disk) = disks.iter().find(is_same) else { continue };
        let message = if !tree::list_items(tree::find_value(disk, "partitions")).is_empty() {
            "this file system takes the place of the partitions that the same disk gets"
        } else if tree::is_true(disk, "wipeTable") && !tree::is_true(item, "wipeFilesystem") {
            "`wipeTable` of the same disk may remove the file system that is kept here"
        } else {
            continue;
        };
        let key = format!("$.storage.filesystems[{index}].device");
        // A warning, as in Ignition's own validation.
        found.push(Diagnostic::warning(DiagnosticCode::Conflict, device.at, message).with_key(key));
    }
}

/// A unit or drop-in with contents is a file too.
fn in_place_of_units(document: &Node, nodes: &[Placed<'_>], found: &mut Diagnostics) {
    let has_text = |item: &Node| tree::text_of(item, "contents").is_some();
    let mut taken: HashMap<String, u32> = HashMap::new();
    for unit in tree::list_items(tree::find_below(document, &["systemd", "units"])) {
        let name = tree::text_of(unit, "name").unwrap_or_default();
        if has_text(unit) {
            taken.insert(format!("{UNIT_FOLDER}/{name}"), unit.at.line);
        }
        for drop_in in
            tree::list_items(tree::find_value(unit, "dropins")).iter().filter(|item| has_text(item))
        {
            let file = tree::text_of(drop_in, "name").unwrap_or_default();
            taken.insert(format!("{UNIT_FOLDER}/{name}.d/{file}"), drop_in.at.line);
        }
    }
    for one in nodes {
        if let Some(line) = taken.get(one.path) {
            let message = format!("{} is written as a unit, too, in line {line}", one.path);
            let diagnostic = Diagnostic::error(DiagnosticCode::Conflict, one.at.at, message);
            found.push(diagnostic.with_key(one.key.clone()).with_help("leave one of them out"));
        }
    }
}
