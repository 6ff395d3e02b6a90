//! A metadata document as a tree that is asked for one fact at a time.
//!
//! Knows JSON and YAML. Refuses to insist on a type: a field that is missing or of another kind
//! reads as absent, so that one odd field costs that fact and no other.
//! Invariant: a document is bounded in size before it gets here, and in depth and nodes here.
//!
//! Documentation: RFC 8259 (JSON), RFC 6901 (the pointers), and YAML 1.2 as `document` reads it.

use document::{
    diagnostic::Diagnostics,
    yaml::{self, Node, Scalar, ScalarStyle},
};
use serde_json::Value;

use crate::MetaData;

/// An empty map takes 600 bytes of memory and two of a document, so their number is bounded too.
// A document of one MiB that was nothing but empty maps took 109 MiB.
const MAX_MAPS: usize = 30_000;
const MAX_VALUES: usize = 250_000;

/// A parsed document, or a part of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct DocumentTree(Value);

impl DocumentTree {
    /// A JSON document; a message says where it breaks, and never shows a value.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        // Counting before parsing also counts braces in texts. No real document comes near, so none is
        // refused wrongly.
        if count_marks(bytes, b"{") > MAX_MAPS || count_marks(bytes, b",[") > MAX_VALUES {
            return Err("it has more values than any metadata has".to_owned());
        }
        serde_json::from_slice(bytes).map_err(|error| json_error(&error)).and_then(Self::from_value)
    }

    /// A YAML document.
    pub(crate) fn from_yaml(bytes: &[u8]) -> Result<Self, String> {
        parse_yaml(bytes).and_then(Self::from_value)
    }

    fn from_value(value: Value) -> Result<Self, String> {
        if value.is_object() || value.is_array() {
            return Ok(Self(value));
        }
        Err(format!("it is {} where a map was expected", kind_name(&value)))
    }

    /// The text or number at a JSON pointer such as `/network/interfaces/0/mac`.
    pub(crate) fn text_at(&self, pointer: &str) -> Option<String> {
        self.0.pointer(pointer).and_then(scalar_text)
    }

    /// The text at `pointer` as it is, white space at its ends included.
    pub(crate) fn content_at(&self, pointer: &str) -> Option<Vec<u8>> {
        self.0.pointer(pointer).and_then(Value::as_str).map(|text| text.as_bytes().to_vec())
    }

    /// The text at `pointer`, or those of the list there, as they are.
    pub(crate) fn contents_at(&self, pointer: &str) -> Vec<String> {
        let texts = match self.0.pointer(pointer) {
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        texts.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// What `text` reads, as some other type.
    pub(crate) fn parse_at<T: std::str::FromStr>(&self, pointer: &str) -> Option<T> {
        self.text_at(pointer)?.parse().ok()
    }

    /// Whether the value at `pointer` is `true`, in whatever way it is written.
    pub(crate) fn is_true(&self, pointer: &str) -> bool {
        match self.0.pointer(pointer) {
            Some(Value::Bool(value)) => *value,
            Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
            _ => false,
        }
    }

    /// The elements of the list at `pointer`; none when there is no list.
    pub(crate) fn list_at(&self, pointer: &str) -> Vec<Self> {
        let list = self.0.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().cloned().map(Self).collect()
    }

    /// Every text at or below `pointer`, whether alone, in a list or in a map.
    pub(crate) fn texts_below(&self, pointer: &str) -> Vec<String> {
        let mut texts = Vec::new();
        if let Some(value) = self.0.pointer(pointer) {
            collect_texts(value, &mut texts);
        }
        texts
    }

    /// The part at `pointer`.
    pub(crate) fn subtree_at(&self, pointer: &str) -> Option<Self> {
        self.0.pointer(pointer).filter(|part| !part.is_null()).cloned().map(Self)
    }

    /// The names of the document.
    pub(crate) fn meta_data(&self) -> MetaData {
        MetaData::from_value(self.0.clone())
    }

    /// The document as JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }
}

/// How many of `marks` there are, in texts or out of them.
fn count_marks(bytes: &[u8], marks: &[u8]) -> usize {
    bytes.iter().filter(|byte| marks.contains(byte)).count()
}

/// A YAML document in JSON's shapes.
fn parse_yaml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is no UTF-8 text: {error}"))?;
    let mut found = Diagnostics::default();
    match yaml::parse_yaml(text, 0, &mut found) {
        Some(root) => Ok(value_of(&root)),
        None => Err(match found.list().last() {
            Some(why) => format!("line {}, column {}: it is no valid YAML", why.at.line, why.at.column),
            None => "it is empty".to_owned(),
        }),
    }
}

fn value_of(node: &Node) -> Value {
    match &node.value {
        _ if node.is_null() => Value::Null,
        yaml::Value::Mapping(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), value_of(&entry.value))).collect()
        }
        yaml::Value::Sequence(items) => items.iter().map(value_of).collect(),
        yaml::Value::Scalar(scalar) => scalar_of(scalar),
        yaml::Value::Unreadable => Value::Null,
    }
}

/// A number only if JSON would write it the same: `0644` and `1e5` may well be names.
fn scalar_of(scalar: &Scalar) -> Value {
    let text = scalar.text.as_str();
    match (scalar.style, text) {
        (ScalarStyle::Plain, "true") => Value::Bool(true),
        (ScalarStyle::Plain, "false") => Value::Bool(false),
        (ScalarStyle::Plain, _) => match text.parse::<i64>() {
            // A second YAML reader made numbers of them before. Three fields were read twice then to keep
            // their text.
            Ok(number) if number.to_string() == text => number.into(),
            _ => text.into(),
        },
        _ => text.into(),
    }
}

fn json_error(error: &serde_json::Error) -> String {
    let what = if error.is_eof() { "it ends too early" } else { "it is no valid JSON" };
    format!("line {}, column {}: {what}", error.line(), error.column())
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|part| collect_texts(part, texts)),
        Value::Object(map) => map.values().for_each(|part| collect_texts(part, texts)),
        other => texts.extend(scalar_text(other)),
    }
}

fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_another_kind_is_absent_and_the_rest_is_there() {
        let tree = DocumentTree::from_json(br#"{"id": 7, "name": ["x"], "keys": {"a": "k1", "b": ["k2"]}}"#)
            .unwrap();

        assert_eq!(tree.text_at("/id").as_deref(), Some("7"));
        assert_eq!(tree.text_at("/name"), None);
        assert_eq!(tree.texts_below("/keys"), ["k1", "k2"]);
    }

    #[test]
    fn documents_of_nothing_but_braces_are_refused_before_they_are_parsed() {
        for document in [format!("[{}{{}}]", "{},".repeat(300_000)), format!("[{}1]", "1,".repeat(300_000))] {
            assert_eq!(
                DocumentTree::from_json(document.as_bytes()).unwrap_err(),
                "it has more values than any metadata has"
            );
        }
    }

    #[test]
    fn what_looks_like_a_number_keeps_its_text() {
        let tree =
            DocumentTree::from_yaml(b"id: 1e5\nzone: 007\nmtu: 1450\nname: no\nquoted: '12'\nnone: ~\n")
                .unwrap();

        let said = ["/id", "/zone", "/mtu", "/name", "/quoted"].map(|pointer| tree.text_at(pointer).unwrap());

        assert_eq!(said, ["1e5", "007", "1450", "no", "12"]);
        assert_eq!(tree.text_at("/none"), None);
        assert_eq!(tree.subtree_at("/mtu").unwrap().to_json(), b"1450");
        assert_eq!(tree.subtree_at("/quoted").unwrap().to_json(), b"\"12\"");
    }

    #[test]
    fn errors_say_where_and_show_no_value() {
        assert_eq!(
            DocumentTree::from_json(b"{\"password\": \"hunter2\"").unwrap_err(),
            "line 1, column 22: it ends too early"
        );
        assert_eq!(DocumentTree::from_json(b"7").unwrap_err(), "it is a number where a map was expected");
        let error = DocumentTree::from_yaml(b"a: 1\npassword: [hunter2").unwrap_err();
        assert!(error.starts_with("line 2") && !error.contains("hunter2"), "{error}");
    }
}
