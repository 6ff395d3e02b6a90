//! Trees that nobody wrote, and the ways in which people write them.

use proptest::prelude::*;

/// A tree to write in YAML.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    Mapping(Vec<(String, Self)>),
    Scalar(String),
    Sequence(Vec<Self>),
}

/// What YAML gives a meaning, of one version or another.
const WORDS: [&str; 12] =
    ["yes", "~", "null", "0644", "1.5", "true", "- x", "a: b", "# c", "1e3", ".inf", "0x1F"];

pub(crate) fn trees() -> impl Strategy<Value = Tree> {
    let word = prop_oneof![
        "[a-z][a-z0-9_ -]{0,8}[a-z]",
        "[0-9]{1,6}",
        "[ -~\u{e4}\u{4e2d}]{0,12}",
        "[a-z\n\t\"'\\\\:#]{0,10}",
        prop::sample::select(&WORDS[..]).prop_map(str::to_owned),
    ];
    let leaf = word.prop_map(Tree::Scalar);
    leaf.prop_recursive(4, 40, 5, |inner| {
        let map = prop::collection::btree_map("[a-z][a-z_-]{0,6}", inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Tree::Sequence),
            map.prop_map(|map| Tree::Mapping(map.into_iter().collect())),
        ]
    })
}

impl Tree {
    /// A document; `styles` choose at each node between block and flow, and among the kinds of quotes.
    pub(crate) fn document(&self, styles: Vec<u8>) -> String {
        let mut out = String::new();
        self.write(0, Place::Block, &mut styles.into_iter().cycle(), &mut out);
        out + "\n"
    }

    fn write(&self, depth: usize, place: Place, styles: &mut impl Iterator<Item = u8>, out: &mut String) {
        let style = styles.next().unwrap_or(0);
        let place = if style.is_multiple_of(4) { Place::Flow } else { place };
        let blanks = "  ".repeat(depth);
        match self {
            Self::Scalar(text) => *out += &scalar(text, style, place, depth),
            Self::Sequence(items) => {
                let is_flow = place == Place::Flow || items.is_empty();
                *out += if is_flow { "[" } else { "" };
                for (index, item) in items.iter().enumerate() {
                    let start = if is_flow { separator(index).to_owned() } else { format!("\n{blanks}- ") };
                    *out += &start;
                    item.write(depth + 1, if is_flow { Place::Flow } else { Place::Block }, styles, out);
                }
                *out += if is_flow { "]" } else { "" };
            }
            Self::Mapping(entries) => {
                let is_flow = place == Place::Flow || entries.is_empty();
                *out += if is_flow { "{" } else { "" };
                for (index, (key, value)) in entries.iter().enumerate() {
                    let start = if is_flow {
                        format!("{}{key}: ", separator(index))
                    } else {
                        format!("\n{blanks}{key}: ")
                    };
                    *out += &start;
                    value.write(depth + 1, if is_flow { Place::Flow } else { Place::Block }, styles, out);
                }
                *out += if is_flow { "}" } else { "" };
            }
        }
    }
}

/// Whether a node stands between brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Block,
    Flow,
}

fn separator(index: usize) -> &'static str {
    if index == 0 { "" } else { ", " }
}

/// Without quotes it may be another value than was meant, or no YAML: both readers must say the same.
fn scalar(text: &str, style: u8, place: Place, depth: usize) -> String {
    let is_line = !text.contains(['\n', '\t']);
    let starts_blank = text.starts_with([' ', '\n', '\t']);
    match style % 5 {
        0 if is_line => format!("'{}'", text.replace('\'', "''")),
        1 if is_line => text.to_owned(),
        2 if place == Place::Block && !text.is_empty() && !starts_blank => {
            let blanks = "  ".repeat(depth + 1);
            let lines: Vec<String> = text.lines().map(|line| format!("{blanks}{line}")).collect();
            format!("|-\n{}", lines.join("\n"))
        }
        3 if !text.contains(['\t', '\\']) => {
            format!("\"{}\"", text.replace('"', "\\\"").replace('\n', "\n\n"))
        }
        _ => format!(
            "\"{}\"",
            text.escape_default().to_string().replace("\\'", "'").replace("\\u{e4}", "\\xe4")
        ),
    }
}
