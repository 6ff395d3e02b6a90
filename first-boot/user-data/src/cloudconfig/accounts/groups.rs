//! The groups of a document, in each of the shapes that cloud-init takes.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::yaml::{MappingEntry, Node, Value};

use super::super::fields::{MappingFields, by_name, text_of, wrong_type};
use super::{check_name, node_names};
use crate::plan::step::GroupStep;

/// A list of names or of `{name: [members]}`, or such a mapping.
pub(super) fn read_groups(
    fields: &mut MappingFields<'_>,
    found: &mut Diagnostics,
) -> Vec<Located<GroupStep>> {
    let Some(node) = fields.field_node("groups") else { return Vec::new() };
    let path = fields.child_path("groups");
    let mut made = Vec::new();
    match &node.value {
        Value::Mapping(entries) => {
            made.extend(by_name(entries).filter_map(|entry| group_entry(entry, &path, found)));
        }
        Value::Scalar(_) => {
            made.extend(
                node_names(node, found)
                    .into_iter()
                    .filter_map(|name| checked_group(name, Vec::new(), &path, found)),
            );
        }
        Value::Sequence(items) => items.iter().for_each(|item| group_item(item, &path, &mut made, found)),
        Value::Unreadable => {}
    }
    made
}

pub(super) fn group_item(
    item: &Node,
    path: &str,
    made: &mut Vec<Located<GroupStep>>,
    found: &mut Diagnostics,
) {
    match &item.value {
        Value::Scalar(_) => {
            made.extend(
                node_names(item, found)
                    .into_iter()
                    .filter_map(|name| checked_group(name, Vec::new(), path, found)),
            );
        }
        Value::Mapping(entries) => {
            made.extend(by_name(entries).filter_map(|entry| group_entry(entry, path, found)));
        }
        _ => found.push(wrong_type("the name of a group or `name: [members]`", item).with_key(path)),
    }
}

pub(super) fn group_entry(
    entry: &MappingEntry,
    path: &str,
    found: &mut Diagnostics,
) -> Option<Located<GroupStep>> {
    let members = match &entry.value.value {
        Value::Sequence(items) => items.iter().filter_map(text_of).collect(),
        Value::Scalar(_) if !entry.value.is_null() => node_names(&entry.value, found),
        _ => Vec::new(),
    };
    let mut good = Vec::new();
    for member in members {
        match check_name(&member.value) {
            Ok(()) => good.push(member.value),
            Err(flaw) => {
                let message = format!("this member's name {flaw}; it is left out");
                found.push(Diagnostic::error(DiagnosticCode::BadValue, member.at, message).with_key(path));
            }
        }
    }
    checked_group(Located { value: entry.key.clone(), at: entry.key_at }, good, path, found)
}

pub(super) fn checked_group(
    name: Located<String>,
    members: Vec<String>,
    path: &str,
    found: &mut Diagnostics,
) -> Option<Located<GroupStep>> {
    if let Err(flaw) = check_name(&name.value) {
        found.push(
            Diagnostic::error(DiagnosticCode::BadValue, name.at, format!("this group name {flaw}"))
                .with_key(path),
        );
        return None;
    }
    Some(name.map_value(|name| GroupStep { name, members, ..GroupStep::default() }))
}
