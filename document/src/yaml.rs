//! Reads YAML into a tree in which every value knows its place.
//!
//! Knows the parser (the one below serde-saphyr) and its limits. Refuses to know any key. Invariants: size, depth and number of nodes are bounded before they are built,
//! after aliases are expanded too; a duplicate key is reported, never silently the last.
//!
//! Documentation: <https://yaml.org/spec/1.2.2/>, and for `<<` <https://yaml.org/type/merge.html>.

mod builder;
mod quoted;
mod tree;

use granit_parser::{Options, ScanError, options};

use crate::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use crate::source::SourceMark;
use builder::TreeBuilder;
use quoted::Padded;
pub use tree::{MappingEntry, Node, Scalar, ScalarStyle, Value};

/// No cloud hands over more than this.
// EC2 hands over 16 KiB, Azure 64 KiB, Google 256 KiB.
pub const MOST_BYTES: usize = 1 << 20;
/// Nodes of the tree, those of expanded aliases included.
pub const MOST_NODES: usize = 50_000;
/// Nodes that aliases may add to those that were written.
// Each alias copies its tree. With this bound a bomb of seven levels is refused within half a millisecond.
const MOST_ALIASED: usize = 10_000;
/// Bytes of all scalars, those of expanded aliases included.
const MOST_TEXT: usize = 4 << 20;
/// Levels of nesting, those of expanded aliases included.
// Trees are walked and dropped by recursion, so the depth is stack.
const DEEPEST: usize = 64;

/// Reads a document. What cannot be read is reported; what comes back is a complete tree.
///
/// `None` means that there is no tree: the document is empty, too large or not YAML.
///
/// ```
/// use document::diagnostic::Diagnostics;
/// use document::source::SourceTexts;
/// use document::yaml::{self, Value};
///
/// let text = "hostname: node1\nhostname: node2\n";
/// let (mut sources, mut found) = (SourceTexts::default(), Diagnostics::default());
/// let part = sources.add("user-data", text);
/// let tree = yaml::parse_yaml(text, part, &mut found);
///
/// // The first of two equal keys counts, and the second one is reported where it stands.
/// let Some(Value::Mapping(entries)) = tree.map(|node| node.value) else { panic!("it is a mapping") };
/// assert_eq!(entries.len(), 1);
/// assert_eq!((entries[0].value.at.line, entries[0].value.at.column), (1, 11));
/// assert_eq!(sources.place_of(found.list()[0].at).to_string(), "user-data:2:1");
/// ```
pub fn parse_yaml(text: &str, part: u16, found: &mut Diagnostics) -> Option<Node> {
    parse_from(text, part, 1, found)
}

/// As [`parse_yaml`], for a text that starts at a later line of its part.
pub fn parse_from(text: &str, part: u16, first_line: u32, found: &mut Diagnostics) -> Option<Node> {
    let mut builder = TreeBuilder::new(part, first_line, found);
    if text.len() > MOST_BYTES {
        builder.push_diagnostic(Diagnostic::error(
            DiagnosticCode::LimitExceeded,
            SourceMark::start_of(part),
            format!("the document has {} bytes; at most {MOST_BYTES} are read", text.len()),
        ));
        return None;
    }
    match builder.read(text) {
        Ending::Tree => builder.root,
        Ending::Nothing => None,
        Ending::Quoted(error) => {
            if let Some(padded) = quoted::indent_lines(text) {
                return read_padded(padded, part, first_line, found);
            }
            let diagnostic = builder.syntax_diagnostic(&error);
            builder.push_diagnostic(diagnostic);
            None
        }
    }
}

/// A text of which some lines were indented; [`TreeBuilder`] warns of each.
fn read_padded(mut padded: Padded, part: u16, first_line: u32, found: &mut Diagnostics) -> Option<Node> {
    let text = std::mem::take(&mut padded.text);
    let mut builder = TreeBuilder::new(part, first_line, found);
    builder.padded = Some(padded);
    match builder.read(&text) {
        Ending::Tree => builder.root,
        Ending::Nothing => None,
        Ending::Quoted(error) => {
            let diagnostic = builder.syntax_diagnostic(&error);
            builder.push_diagnostic(diagnostic);
            None
        }
    }
}

fn parser_options() -> Options {
    options! {
        // Else the parser stops there, and everything behind one value that begins with a star would be
        // unread.
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: DEEPEST,
        block_nesting_limit: DEEPEST,
    }
}

/// How the reading of a text ended.
enum Ending {
    /// With what was reported.
    Nothing,
    /// At a line of a quoted text that is indented too little.
    Quoted(ScanError),
    Tree,
}

/// The top-level entries with one of these keys that can be read on their own, out of a document
/// that as a whole cannot: what a user needs to get into the machine and mend it.
#[must_use]
pub fn salvage_entries(text: &str, part: u16, keys: &[&str]) -> Vec<MappingEntry> {
    let mut entries = Vec::new();
    for (first_line, block) in top_level_blocks(text) {
        // By text and not by YAML: the document is not YAML as a whole.
        let wanted = block.split(':').next().map(|key| key.trim().replace('-', "_"));
        if !wanted.is_some_and(|key| keys.contains(&key.as_str())) || entries.len() >= keys.len() {
            continue;
        }
        let mut ignored = Diagnostics::default();
        if let Some(Node { value: Value::Mapping(read), .. }) =
            parse_from(block, part, first_line, &mut ignored)
        {
            entries.extend(read);
        }
    }
    entries
}

/// The text cut at every line that starts a top-level key, with the number of its first line.
fn top_level_blocks(text: &str) -> Vec<(u32, &str)> {
    let mut blocks = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (number, line) in (1_u32..).zip(text.split_inclusive('\n')) {
        // A key of the top level is the only thing that stands in the first column, but for comments and
        // lists.
        if line.starts_with(|c: char| c.is_ascii_alphabetic()) && offset > start {
            blocks.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, number);
        }
        offset += line.len();
    }
    blocks.push((start_line, &text[start..]));
    blocks
}

#[cfg(test)]
mod tests;
