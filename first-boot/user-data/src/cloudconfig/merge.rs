//! Several documents become one.
//!
//! Knows cloud-init's mergers, and by `parts` what is done without one. Refuses to know what a key
//! means. Invariants: what comes later wins unless `merge_how` says otherwise; what the user says wins
//! over what the vendor says; whatever a part says and is not used is told, with its place.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/reference/merging.html>.

pub mod parts;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::yaml::{MappingEntry, Node, Value};

use super::fields::KeySupport;

/// How each shape is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeStyle {
    dict: DictMerge,
    list: ListMerge,
    append_text: bool,
}

// cloud-init's names of the options. Without any, an earlier value stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four options that cloud-init documents, all independent")]
struct DictMerge {
    replace: bool,
    allow_delete: bool,
    recurse_text: bool,
    recurse_lists: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ListMerge {
    method: ListMethod,
    recurse_dict: bool,
    recurse_lists: bool,
    recurse_text: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ListMethod {
    Append,
    NoReplace,
    Prepend,
    #[default]
    Replace,
}

impl MergeStyle {
    /// What is already there wins, and mappings are merged: the vendor's below the user's.
    pub const BELOW: Self = Self {
        dict: DictMerge { replace: false, allow_delete: false, recurse_text: false, recurse_lists: false },
        list: ListMerge {
            method: ListMethod::Replace,
            recurse_dict: false,
            recurse_lists: false,
            recurse_text: false,
        },
        append_text: false,
    };
}

/// What a document says about how it is merged, by `merge_how` or `merge_type`, and where.
///
/// Nothing behind the key says nothing, as in cloud-init.
pub fn merge_style(document: &Node, found: &mut Diagnostics) -> Option<Located<MergeStyle>> {
    let Value::Mapping(entries) = &document.value else { return None };
    // cloud-init knows both names, the second one since the headers are called so.
    let entry = entries
        .iter()
        .find(|entry| matches!(entry.key.replace('-', "_").as_str(), "merge_how" | "merge_type"))?;
    if !says_something(&entry.value) {
        return None;
    }
    let mergers = match &entry.value.value {
        Value::Scalar(scalar) => parse_text(&scalar.text),
        Value::Sequence(items) => items.iter().map(parse_item).collect(),
        _ => None,
    };
    let how = mergers.and_then(assemble_style);
    if how.is_none() {
        let message = "these mergers are not understood, so this part is merged in the default way";
        found.push(
            Diagnostic::error(DiagnosticCode::BadValue, entry.value.at, message)
                .with_key(entry.key.clone())
                .with_help("write `dict(recurse_array)+list(append)+str()`, say"),
        );
    }
    how.map(|how| Located { value: how, at: entry.key_at })
}

/// As [`merge_style`], for the text of a MIME header.
pub fn how_from_header(text: &Located<String>, found: &mut Diagnostics) -> Option<Located<MergeStyle>> {
    let how = parse_text(&text.value).and_then(assemble_style);
    if how.is_none() {
        found.push(Diagnostic::error(
            DiagnosticCode::BadValue,
            text.at,
            "the mergers in this part's header are not understood",
        ));
    }
    how.map(|how| Located { value: how, at: text.at })
}

type MergerWords = (String, Vec<String>);

/// `dict(a,b)+list(c)`.
fn parse_text(text: &str) -> Option<Vec<MergerWords>> {
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
fn parse_item(item: &Node) -> Option<MergerWords> {
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

fn assemble_style(mergers: Vec<MergerWords>) -> Option<MergeStyle> {
    let mut how = MergeStyle { dict: DictMerge::default(), list: ListMerge::default(), append_text: false };
    for (name, options) in mergers {
        let has = |option: &str| options.iter().any(|known| known == option);
        match name.as_str() {
            "dict" => {
                how.dict = DictMerge {
                    replace: has("replace"),
                    allow_delete: has("allow_delete"),
                    recurse_text: has("recurse_str"),
                    // Both words are in use for this option.
                    recurse_lists: has("recurse_array") || has("recurse_list"),
                };
            }
            "list" => {
                how.list = ListMerge {
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

/// The later part merged into the earlier one by its own word. What that leaves out is told.
#[must_use]
pub fn merge_nodes(earlier: Node, later: Node, how: Located<MergeStyle>, found: &mut Diagnostics) -> Node {
    merge_by_style(
        earlier,
        later,
        &mut Merging { how: how.value, at: how.at, path: Vec::new(), found: Some(found) },
    )
}

/// The vendor's document below the user's. That the user's word wins is the vendor's business only.
#[must_use]
pub fn merge_vendor(user: Node, vendor: Node) -> Node {
    merge_by_style(
        user,
        vendor,
        &mut Merging { how: MergeStyle::BELOW, at: SourceMark::default(), path: Vec::new(), found: None },
    )
}

/// A merge under way.
struct Merging<'a> {
    how: MergeStyle,
    /// Where that is said.
    at: SourceMark,
    /// The keys to what is merged now, and where the earlier one stands.
    path: Vec<(String, SourceMark)>,
    found: Option<&'a mut Diagnostics>,
}

impl Merging<'_> {
    fn key_path(&self) -> String {
        self.path.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".")
    }

    /// A value of the earlier part is not used.
    fn lose_earlier(&mut self, value: &Node, because: &str) {
        let Some((_, at)) = self.path.last() else { return };
        self.report_override(*at, value, &format!("is not used from here: {because}"), None);
    }

    /// A value of the later part is not used.
    fn lose_later(&mut self, at: SourceMark, value: &Node, because: &str, help: &str) {
        self.report_override(at, value, because, Some(help));
    }

    fn report_override(&mut self, at: SourceMark, value: &Node, because: &str, help: Option<&str>) {
        let path = self.key_path();
        if !is_worth_words(&path, value) {
            return;
        }
        let Some(found) = &mut self.found else { return };
        let diagnostic = Diagnostic::warning(DiagnosticCode::Conflict, at, format!("`{path}` {because}"));
        let help =
            help.unwrap_or("`dict(recurse_array)+list(append)` in the later part's `merge_how` keeps both");
        found.push(diagnostic.with_help(help).with_key(path));
    }
}

/// A value that is not used, and where its key stands.
struct Dropped<'n> {
    path: &'n str,
    at: SourceMark,
    value: &'n Node,
}

/// Whether anybody misses a value: not one that says nothing, nor one of a key that does nothing here.
fn is_worth_words(path: &str, value: &Node) -> bool {
    let top = path.split('.').next().unwrap_or_default();
    let key = super::top_level().iter().find(|key| key.name == top);
    let has_effect =
        matches!(key.map(|key| key.support), Some(KeySupport::Supported | KeySupport::Translated(_)));
    says_something(value) && has_effect && !matches!(top, "merge_how" | "merge_type")
}

fn says_something(node: &Node) -> bool {
    match &node.value {
        Value::Mapping(entries) => !entries.is_empty(),
        Value::Scalar(scalar) => !node.is_null() && !scalar.text.is_empty(),
        Value::Sequence(items) => !items.is_empty(),
        Value::Unreadable => false,
    }
}

/// Whether two values are equal wherever they stand.
fn says_the_same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Scalar(one), Value::Scalar(other)) => one.text == other.text,
        (Value::Sequence(one), Value::Sequence(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| says_the_same(one, other))
        }
        (Value::Mapping(one), Value::Mapping(other)) => {
            let same = |(one, other): (&MappingEntry, &MappingEntry)| {
                name_of(one) == name_of(other) && says_the_same(&one.value, &other.value)
            };
            one.len() == other.len() && one.iter().zip(other).all(same)
        }
        _ => false,
    }
}

/// Hyphens equal underscores.
fn name_of(entry: &MappingEntry) -> Cow<'_, str> {
    if entry.key.contains('-') { Cow::Owned(entry.key.replace('-', "_")) } else { Cow::Borrowed(&entry.key) }
}

/// Where those keys of a mapping stand that another has too.
///
/// Of the other, since a part is often short and what was merged so far is long: its names are not copied
/// for each of the parts.
fn places_of(old: &[MappingEntry], new: &[MappingEntry]) -> HashMap<String, usize> {
    // Each of 256 parts copied all names before. With 20 000 keys in the first one that took seven seconds.
    let wanted: HashSet<Cow<'_, str>> = new.iter().map(name_of).collect();
    let mut places = HashMap::new();
    for (index, entry) in old.iter().enumerate() {
        let name = name_of(entry);
        if wanted.contains(&name) {
            places.entry(name.into_owned()).or_insert(index);
        }
    }
    places
}

fn merge_by_style(earlier: Node, later: Node, merging: &mut Merging<'_>) -> Node {
    let at = earlier.at;
    match (earlier.value, later.value) {
        (Value::Mapping(old), Value::Mapping(new)) => {
            Node { at, value: Value::Mapping(merge_mappings(old, new, merging)) }
        }
        (Value::Sequence(old), Value::Sequence(new)) => {
            Node { at, value: Value::Sequence(merge_lists(old, new, merging)) }
        }
        (Value::Scalar(mut old), Value::Scalar(new)) if merging.how.append_text => {
            old.text += &new.text;
            Node { at, value: Value::Scalar(old) }
        }
        (old, value) => {
            let (old, new) = (Node { at, value: old }, Node { at: later.at, value });
            if !says_the_same(&old, &new) {
                merging.lose_earlier(&old, "a later part gives it another value");
            }
            new
        }
    }
}

fn merge_mappings(
    old: Vec<MappingEntry>,
    new: Vec<MappingEntry>,
    merging: &mut Merging<'_>,
) -> Vec<MappingEntry> {
    let places = places_of(&old, &new);
    let mut all: Vec<Option<MappingEntry>> = old.into_iter().map(Some).collect();
    for entry in new {
        let Some(index) = places.get(&*name_of(&entry)) else {
            all.push(Some(entry));
            continue;
        };
        let Some(known) = all[*index].take() else {
            all[*index] = Some(entry);
            continue;
        };
        merging.path.push((name_of(&entry).into_owned(), known.key_at));
        if entry.value.is_null() && merging.how.dict.allow_delete {
            merging.lose_earlier(&known.value, "a later part removes it by `allow_delete`");
        } else {
            all[*index] = Some(same_key(known, entry, merging));
        }
        merging.path.pop();
    }
    all.into_iter().flatten().collect()
}

fn same_key(old: MappingEntry, new: MappingEntry, merging: &mut Merging<'_>) -> MappingEntry {
    let dict = merging.how.dict;
    let recurse = match &new.value.value {
        Value::Mapping(_) => true,
        // Without it cloud-init leaves the earlier list, whatever `list()` says, which surprises most
        // authors.
        Value::Sequence(_) => dict.recurse_lists,
        Value::Scalar(_) => dict.recurse_text,
        Value::Unreadable => false,
    };
    if dict.replace {
        if !says_the_same(&old.value, &new.value) {
            merging.lose_earlier(&old.value, "a later part replaces it, as its `merge_how` says");
        }
        return new;
    }
    if recurse {
        return MappingEntry { value: merge_by_style(old.value, new.value, merging), ..old };
    }
    if !says_the_same(&old.value, &new.value) {
        keep_earlier(&new, merging);
    }
    old
}

/// Says that the earlier value stays, where its author can mend that.
fn keep_earlier(new: &MappingEntry, merging: &mut Merging<'_>) {
    if matches!(new.value.value, Value::Sequence(_)) {
        let because = "of this part is not used: lists are not merged by this `merge_how`, since `dict` lacks `recurse_list`";
        let help =
            "write `dict(recurse_list)` beside `list(append)`, or leave `merge_how` out: then parts add up";
        merging.lose_later(merging.at, &new.value, because, help);
    } else {
        let because = "is not used from here: by this part's `merge_how` an earlier value stays";
        merging.lose_later(new.key_at, &new.value, because, "write `dict(replace)` to have it replaced");
    }
}

fn merge_lists(mut old: Vec<Node>, new: Vec<Node>, merging: &mut Merging<'_>) -> Vec<Node> {
    match merging.how.list.method {
        ListMethod::Append => old.extend(new),
        ListMethod::Prepend => old = new.into_iter().chain(old).collect(),
        ListMethod::NoReplace => {
            let value = Node { at: merging.at, value: Value::Sequence(new) };
            let because = "of this part is not used: `list(no_replace)` keeps the earlier list";
            merging.lose_later(merging.at, &value, because, "write `list(append)` to have both");
        }
        ListMethod::Replace => old = by_index(old, new, merging),
    }
    old
}

/// As cloud-init has it, item by item; what the later list has more is left out.
fn by_index(old: Vec<Node>, new: Vec<Node>, merging: &mut Merging<'_>) -> Vec<Node> {
    let rest = Value::Sequence(new.iter().skip(old.len()).cloned().collect());
    let rest = Node { at: merging.at, value: rest };
    let because =
        "of this part is used only as far as the earlier list is long: `list()` replaces item by item";
    merging.lose_later(merging.at, &rest, because, "write `list(append)` to have both");
    let mut new = new.into_iter();
    let item = |old: Node| match new.next() {
        Some(new) => same_index(old, new, merging),
        None => old,
    };
    old.into_iter().map(item).collect()
}

fn same_index(old: Node, new: Node, merging: &mut Merging<'_>) -> Node {
    let list = merging.how.list;
    let recurse = match &new.value {
        Value::Mapping(_) => list.recurse_dict,
        Value::Sequence(_) => list.recurse_lists,
        Value::Scalar(_) => list.recurse_text,
        Value::Unreadable => false,
    };
    if recurse {
        return merge_by_style(old, new, merging);
    }
    if !says_the_same(&old, &new) {
        merging.lose_earlier(&old, "`list()` in a later part replaces it item by item");
    }
    new
}

#[cfg(test)]
mod tests;
