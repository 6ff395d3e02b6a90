//! The fields of a mapping, read by name and type.
//!
//! Knows that hyphens equal underscores, that a wrong field costs itself only, and which names a
//! mapping may have. Refuses to know what a field means. Invariant: each entry of a mapping is either
//! read or reported.
//!
//! Documentation: CoreOS's normalization of keys is that of coreos-cloudinit's `config/config.go`: `-`
//! becomes `_`.

use document::caret;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::{Located, SourceMark};
use document::spelling;
use document::yaml::{MappingEntry, Node, ScalarStyle, Value};

/// A name that a mapping may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldKey {
    /// The name, with underscores.
    pub name: &'static str,
    /// What becomes of it.
    pub support: KeySupport,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySupport {
    /// Accepted; it has nothing to do here, for this reason.
    NoEffect(&'static str),
    /// Refused by name; what to do instead.
    Refused(&'static str),
    /// It does what it is documented to do.
    Supported,
    /// It does what its author wants by other means, these.
    Translated(&'static str),
}

/// A supported key.
pub(crate) const fn supported_key(name: &'static str) -> FieldKey {
    FieldKey { name, support: KeySupport::Supported }
}

/// A key that is turned into something else.
pub(crate) const fn translated_key(name: &'static str, into: &'static str) -> FieldKey {
    FieldKey { name, support: KeySupport::Translated(into) }
}

/// A key that has nothing to do here.
pub(crate) const fn no_effect(name: &'static str, because: &'static str) -> FieldKey {
    FieldKey { name, support: KeySupport::NoEffect(because) }
}

/// A key that cannot be honoured.
pub(crate) const fn refused_key(name: &'static str, instead: &'static str) -> FieldKey {
    FieldKey { name, support: KeySupport::Refused(instead) }
}

/// The entries of one mapping, by name.
#[derive(Debug)]
pub(crate) struct MappingFields<'n> {
    entries: Vec<(&'static str, &'n MappingEntry)>,
    path: String,
    at: SourceMark,
    broken: bool,
    /// Where a key belongs that this mapping does not know.
    hint: fn(&str) -> Option<String>,
}

impl<'n> MappingFields<'n> {
    /// Reads the names of a mapping and reports those that are unknown, given twice or refused.
    pub(crate) fn read_mapping(
        node: &'n Node,
        table: &'static [FieldKey],
        path: impl Into<String>,
        found: &mut Diagnostics,
    ) -> Option<Self> {
        Self::read_with_hints(node, table, path, |_| None, found)
    }

    /// The same, and of an unknown key `hint` may know where it belongs.
    pub(crate) fn read_with_hints(
        node: &'n Node,
        table: &'static [FieldKey],
        path: impl Into<String>,
        hint: fn(&str) -> Option<String>,
        found: &mut Diagnostics,
    ) -> Option<Self> {
        let path = path.into();
        let Value::Mapping(entries) = &node.value else {
            if !node.is_null() {
                found.push(wrong_type("a mapping", node).with_key(path));
            }
            return None;
        };
        let mut fields = Self { entries: Vec::new(), path, at: node.at, broken: false, hint };
        for entry in entries {
            fields.accept_entry(entry, table, found);
        }
        Some(fields)
    }

    fn accept_entry(&mut self, entry: &'n MappingEntry, table: &'static [FieldKey], found: &mut Diagnostics) {
        let name = entry.key.replace('-', "_");
        // What begins with `x-` is the author's own, to hang anchors on.
        // Docker Compose has the same rule.
        if self.path.is_empty() && name.starts_with("x_") {
            return;
        }
        let Some(key) = table.iter().find(|key| key.name == name) else {
            // To look for a near name costs the most of an unknown key, and nobody reads more findings than
            // are kept.
            let near = (!found.is_full()).then(|| nearest_key(&name, table)).flatten();
            return found.push(self.unknown_key(entry, &name, near, table));
        };
        // The first counts, as with two equal keys of YAML.
        if self.entries.iter().any(|(known, _)| *known == key.name) {
            return found.push(self.at_field(
                Diagnostic::error(
                    DiagnosticCode::DuplicateKey,
                    entry.key_at,
                    format!(
                        "`{}` is given twice, since hyphens equal underscores; this second one is not used",
                        entry.key
                    ),
                ),
                key.name,
            ));
        }
        match key.support {
            // Tools write all keys that they know, most of them empty or false.
            KeySupport::Refused(_) | KeySupport::NoEffect(_) if says_nothing(&entry.value) => {}
            KeySupport::Refused(instead) => found.push(
                self.at_field(
                    Diagnostic::error(
                        DiagnosticCode::Refused,
                        entry.key_at,
                        format!("`{}` cannot be done on this system", entry.key),
                    ),
                    key.name,
                )
                .with_help(instead),
            ),
            KeySupport::NoEffect(because) => found.push(self.at_field(
                Diagnostic::note(
                    DiagnosticCode::NoEffect,
                    entry.key_at,
                    format!("`{}` has nothing to do here: {because}", entry.key),
                ),
                key.name,
            )),
            KeySupport::Supported | KeySupport::Translated(_) => self.entries.push((key.name, entry)),
        }
    }

    fn unknown_key(
        &self,
        entry: &MappingEntry,
        name: &str,
        near: Option<&str>,
        table: &'static [FieldKey],
    ) -> Diagnostic {
        let place = if self.path.is_empty() { "a cloud-config" } else { self.path.as_str() };
        let message = format!("`{}` is not a key of {place}", entry.key);
        let mut diagnostic = Diagnostic::warning(DiagnosticCode::UnknownKey, entry.key_at, message)
            .with_key(self.child_path(name));
        // Where secrets may be written, one that is indented wrongly looks like a key; a slip of the pen does
        // not look like a secret.
        if near.is_none() && table.iter().any(|key| caret::may_hold_secret(key.name)) {
            // Only what goes to the journal is veiled: `validate` shows it to who has the file anyway.
            let message = format!("a key here is not one of {place}; it may be a secret, so it is not shown");
            diagnostic = diagnostic.in_public(message, self.path.clone());
        }
        match ((self.hint)(name), near) {
            (Some(place), _) => diagnostic.with_help(place),
            (None, Some(near)) => diagnostic.with_help(format!("did you mean `{near}`?")),
            (None, None) => diagnostic,
        }
    }

    /// The path of keys to a field.
    pub(crate) fn child_path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The path of keys to this mapping.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Where the mapping starts.
    pub(crate) fn start_mark(&self) -> SourceMark {
        self.at
    }

    /// Whether some field was given and could not be read.
    pub(crate) fn has_broken_field(&self) -> bool {
        self.broken
    }

    /// Notes that a field could not be used, and reports why.
    pub(crate) fn refuse_field(&mut self, name: &str, diagnostic: Diagnostic, found: &mut Diagnostics) {
        self.broken = true;
        found.push(self.at_field(diagnostic, name));
    }

    fn at_field(&self, diagnostic: Diagnostic, name: &str) -> Diagnostic {
        diagnostic.with_key(self.child_path(name))
    }

    /// The value of a field, unless it is empty.
    pub(crate) fn field_node(&self, name: &str) -> Option<&'n Node> {
        debug_assert!(!name.contains('-'), "tables use underscores");
        self.field_entry(name).map(|entry| &entry.value).filter(|node| !node.is_null())
    }

    /// Whether a field was written, if only with nothing behind it: `sudo:` and `sudo: []` are words of
    /// their author, so that no default may stand in their place.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.field_entry(name).is_some()
    }

    /// Where the name of a field stands.
    pub(crate) fn key_at(&self, name: &str) -> Option<SourceMark> {
        self.field_entry(name).map(|entry| entry.key_at)
    }

    fn field_entry(&self, name: &str) -> Option<&'n MappingEntry> {
        self.entries.iter().find(|(known, _)| *known == name).map(|(_, entry)| *entry)
    }

    /// A text; numbers and booleans are taken as they are written.
    pub(crate) fn read_text(&mut self, name: &str, found: &mut Diagnostics) -> Option<Located<String>> {
        let node = self.field_node(name)?;
        match text_of(node) {
            Some(text) => Some(text),
            None => self.report_mistyped(name, "text", node, found),
        }
    }

    /// A boolean, quoted or not.
    pub(crate) fn read_flag(&mut self, name: &str, found: &mut Diagnostics) -> Option<Located<bool>> {
        let node = self.field_node(name)?;
        match &node.value {
            Value::Scalar(scalar) if scalar.as_bool().is_some() => {
                scalar.as_bool().map(|value| Located { value, at: node.at })
            }
            _ => self.report_mistyped(name, "true or false", node, found),
        }
    }

    /// A boolean that is true unless it is given.
    ///
    /// Without a value it stays true, since a template that left it empty must not shut anybody out; but
    /// cloud-init takes it for false, so that this is told.
    pub(crate) fn flag_or_true(&mut self, name: &str, found: &mut Diagnostics) -> bool {
        self.warn_if_empty(name, "its default is used, which is true", found);
        self.read_flag(name, found).is_none_or(|flag| flag.value)
    }

    /// Warns of a field that is there without a value, where its absence has an effect.
    pub(crate) fn warn_if_empty(&self, name: &str, instead: &str, found: &mut Diagnostics) {
        let is_empty = |node: &Node| matches!(node.value, Value::Scalar(_)) && node.is_null();
        if let Some(entry) = self.field_entry(name).filter(|entry| is_empty(&entry.value)) {
            let message = format!("`{name}` has no value, so {instead}");
            found.push(
                self.at_field(Diagnostic::warning(DiagnosticCode::BadValue, entry.key_at, message), name),
            );
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn read_number<T: TryFrom<u64>>(
        &mut self,
        name: &str,
        found: &mut Diagnostics,
    ) -> Option<Located<T>> {
        let node = self.field_node(name)?;
        // As text, since `0755` and `1e3` are numbers to some readers of YAML and none to others.
        let number = text_of(node).and_then(|text| text.value.trim().parse::<u64>().ok());
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(value) => Some(Located { value, at: node.at }),
            None => self.report_mistyped(name, "a whole number in its range", node, found),
        }
    }

    /// One of a set of words.
    pub(crate) fn read_choice(
        &mut self,
        name: &str,
        words: &'static [&'static str],
        found: &mut Diagnostics,
    ) -> Option<Located<&'static str>> {
        let text = self.read_text(name, found)?;
        if let Some(word) = words.iter().find(|word| **word == text.value) {
            return Some(Located { value: word, at: text.at });
        }
        let diagnostic = bad_choice(name, &text.value, text.at, words);
        self.refuse_field(name, diagnostic, found);
        None
    }

    /// The items of a list.
    pub(crate) fn read_list(&mut self, name: &str, found: &mut Diagnostics) -> &'n [Node] {
        let Some(node) = self.field_node(name) else { return &[] };
        if let Value::Sequence(items) = &node.value {
            items
        } else {
            self.report_mistyped::<()>(name, "a list", node, found);
            &[]
        }
    }

    /// A list of texts; a single text counts as a list of one. Items of another type are reported.
    pub(crate) fn read_texts(&mut self, name: &str, found: &mut Diagnostics) -> Vec<Located<String>> {
        let Some(node) = self.field_node(name) else { return Vec::new() };
        match &node.value {
            // cloud-init takes one text for a list of one at most keys.
            Value::Scalar(_) => text_of(node).into_iter().collect(),
            Value::Sequence(items) => {
                items.iter().filter_map(|item| self.text_item(name, item, found)).collect()
            }
            _ => {
                self.report_mistyped::<()>(name, "a list of texts", node, found);
                Vec::new()
            }
        }
    }

    fn text_item(&mut self, name: &str, item: &Node, found: &mut Diagnostics) -> Option<Located<String>> {
        if item.is_null() {
            return None;
        }
        match text_of(item) {
            Some(text) => Some(text),
            None => self.report_mistyped(name, "text", item, found),
        }
    }

    fn report_mistyped<T>(
        &mut self,
        name: &str,
        wanted: &str,
        node: &Node,
        found: &mut Diagnostics,
    ) -> Option<T> {
        if node.value == Value::Unreadable {
            self.broken = true;
        } else {
            let mut diagnostic = wrong_type(wanted, node);
            diagnostic.message =
                format!("`{name}` must be {}", diagnostic.message.trim_start_matches("this must be "));
            self.refuse_field(name, diagnostic, found);
        }
        None
    }
}

/// The key that was meant, if one is near.
fn nearest_key(name: &str, table: &[FieldKey]) -> Option<&'static str> {
    // Nobody is helped by a name that would be refused.
    let known = table.iter().filter(|key| !matches!(key.support, KeySupport::Refused(_))).map(|key| key.name);
    spelling::nearest_name(&name.to_ascii_lowercase(), known)
}

/// The entries of a mapping that stands for a set: the order in which they were written says nothing.
pub(crate) fn by_name(entries: &[MappingEntry]) -> impl Iterator<Item = &MappingEntry> {
    let mut sorted: Vec<&MappingEntry> = entries.iter().collect();
    // Two spellings of one document must make one plan, and tools write mappings in any order.
    sorted.sort_by(|one, other| one.key.cmp(&other.key));
    sorted.into_iter()
}

/// The text of a scalar; a `!!binary` one is not text.
pub(crate) fn text_of(node: &Node) -> Option<Located<String>> {
    match &node.value {
        Value::Scalar(scalar) if !scalar.binary => Some(Located { value: scalar.text.clone(), at: node.at }),
        _ => None,
    }
}

/// Whether a scalar is written as a number without quotes.
pub(crate) fn is_bare(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.style == ScalarStyle::Plain)
}

/// Says what a value must be and what it is, without the value.
pub(crate) fn wrong_type(wanted: &str, node: &Node) -> Diagnostic {
    Diagnostic::error(
        DiagnosticCode::WrongType,
        node.at,
        format!("this must be {wanted}, but it is {}", node.shape_name()),
    )
}

/// Says which words a field may have. The word that was written is no secret where this is used.
pub(crate) fn bad_choice(name: &str, written: &str, at: SourceMark, words: &[&'static str]) -> Diagnostic {
    let list = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let diagnostic =
        Diagnostic::error(DiagnosticCode::BadValue, at, format!("`{name}` must be one of {list}"));
    match spelling::nearest_name(written, words.iter().copied()) {
        Some(near) => diagnostic.with_help(format!("did you mean `{near}`?")),
        None => diagnostic,
    }
}

/// Empty, false and empty collections ask for nothing.
fn says_nothing(node: &Node) -> bool {
    match &node.value {
        Value::Mapping(entries) => entries.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        Value::Scalar(scalar) => node.is_null() || scalar.as_bool() == Some(false),
        Value::Unreadable => true,
    }
}
