//! What YAML says, and where.
//!
//! Refuses to say what a scalar means: it keeps its text, so that the reader of a key decides whether
//! `0644`, `off` or `no` is a number, a word or a boolean.

use crate::source::SourceMark;

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it starts.
    pub at: SourceMark,
    /// What it is.
    pub value: Value,
}

/// The three shapes of YAML.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// `key: value` pairs, in their order.
    Mapping(Vec<MappingEntry>),
    /// Text, a number, a boolean or nothing: its reader decides.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Something that was already reported; readers take it as absent.
    Unreadable,
}

/// One pair of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingEntry {
    /// The key as written.
    pub key: String,
    /// Where the key stands.
    pub key_at: SourceMark,
    /// Its value.
    pub value: Node,
}

/// The text of a scalar and how it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text after YAML's own escapes.
    pub text: String,
    /// How it was written.
    pub style: ScalarStyle,
    /// Whether `!!binary` stands before it, so that the text is base64.
    // Not decoded here, since a key's `encoding` may say that its text is base64 once more.
    pub binary: bool,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarStyle {
    /// `|`: line for line.
    Literal,
    /// Without quotes: may be a number, a boolean or nothing.
    Plain,
    /// With quotes or folded: always text.
    Quoted,
}

/// Says only the shape: values may be secret.
impl std::fmt::Debug for Value {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mapping(entries) => out.debug_list().entries(entries).finish(),
            Self::Sequence(items) => out.debug_list().entries(items).finish(),
            Self::Scalar(scalar) => scalar.fmt(out),
            Self::Unreadable => out.write_str("unreadable"),
        }
    }
}

/// Says only the length.
impl std::fmt::Debug for Scalar {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "scalar of {} bytes", self.text.len())
    }
}

impl Node {
    /// Whether nothing was written: an empty value, `~` or `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => {
                scalar.style == ScalarStyle::Plain
                    && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::Unreadable => true,
            _ => false,
        }
    }

    /// What people call its shape.
    #[must_use]
    pub fn shape_name(&self) -> &'static str {
        match &self.value {
            Value::Mapping(_) => "a mapping",
            Value::Scalar(_) if self.is_null() => "nothing",
            Value::Scalar(scalar) => scalar.shape_name(),
            Value::Sequence(_) => "a list",
            Value::Unreadable => "something unreadable",
        }
    }
}

impl Scalar {
    /// The boolean it spells, as YAML 1.1 and every cloud-config reader so far understands it.
    ///
    /// YAML 1.1 has `y` and `n` too, and cloud-init's own reader takes 1 and 0: generators write them.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.text.to_ascii_lowercase().as_str() {
            // Documentation: <https://yaml.org/type/bool.html>, and cloud-init's `util.is_true`.
            "true" | "yes" | "on" | "y" | "1" => Some(true),
            "false" | "no" | "off" | "n" | "0" => Some(false),
            _ => None,
        }
    }

    fn shape_name(&self) -> &'static str {
        match self.style {
            ScalarStyle::Plain if self.text.parse::<i64>().is_ok() => "a number",
            ScalarStyle::Plain if self.as_bool().is_some() => "a boolean",
            _ => "text",
        }
    }
}
