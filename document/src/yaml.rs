//! Reads YAML into a tree in which every value knows its place.
//!
//! Knows the parser (the one below serde-saphyr) and its limits. Refuses to know any key. Invariants: size, depth and number of nodes are bounded before they are built,
//! after aliases are expanded too; a duplicate key is reported, never silently the last.
//!
//! Documentation: <https://yaml.org/spec/1.2.2/>, and for `<<` <https://yaml.org/type/merge.html>.

use std::collections::HashMap;
use std::collections::HashSet;

use granit_parser::{ErrorKind, Event, Options, Parser, ScanError, Span, Tag, options};

use crate::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use crate::source::SourceMark;

mod quoted;
mod tree;
mod unended;

use quoted::Padded;
pub use tree::{MappingEntry, Node, Scalar, ScalarStyle, Value};
use unended::UnendedText;

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

/// What ends the reading of a document.
type StopReason = Box<Diagnostic>;

enum ParseFlow {
    GoOn,
    Stop,
}

/// A collection that is still open.
struct OpenCollection {
    at: SourceMark,
    anchor: usize,
    content: CollectionContent,
    deepest: usize,
}

enum CollectionContent {
    Mapping {
        entries: Vec<MappingEntry>,
        seen: HashSet<String>,
        key: Option<(PendingKey, SourceMark)>,
        merged: Vec<Node>,
    },
    Sequence(Vec<Node>),
}

/// A key of a mapping while its value is awaited.
enum PendingKey {
    /// An ordinary one.
    Named(String),
    /// `<<`.
    Merge,
    /// One that was reported and whose value is dropped.
    Dropped,
}

/// What an alias stands for, with its cost.
struct AnchoredNode {
    node: Node,
    cost: NodeCost,
    depth: usize,
}

#[derive(Clone, Copy, Default)]
struct NodeCost {
    nodes: usize,
    text: usize,
}

struct TreeBuilder<'a> {
    part: u16,
    first_line: u32,
    found: &'a mut Diagnostics,
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, AnchoredNode>,
    spent: NodeCost,
    aliased: usize,
    root: Option<Node>,
    documents: usize,
    /// What is read is the user's text with these lines indented.
    padded: Option<Padded>,
    /// Of a text that ends inside a line.
    unended: Option<UnendedText>,
}

impl<'a> TreeBuilder<'a> {
    fn new(part: u16, first_line: u32, found: &'a mut Diagnostics) -> Self {
        Self {
            part,
            first_line,
            found,
            open: Vec::new(),
            anchors: HashMap::new(),
            spent: NodeCost::default(),
            aliased: 0,
            root: None,
            documents: 0,
            padded: None,
            unended: None,
        }
    }

    fn read(&mut self, text: &str) -> Ending {
        self.unended = UnendedText::of_text(text);
        // What was found before such a line is found again when the text is read anew.
        let known = self.found.clone();
        for event in Parser::new_from_str_with_options(text, parser_options()) {
            let step = match event {
                Ok((event, span)) => self.accept_event(event, &span),
                Err(error) if quoted::is_one(error.kind()) => {
                    *self.found = known;
                    return Ending::Quoted(error);
                }
                Err(error) => Err(Box::new(self.syntax_diagnostic(&error))),
            };
            match step {
                Ok(ParseFlow::GoOn) => {}
                Ok(ParseFlow::Stop) => break,
                Err(diagnostic) => {
                    self.push_diagnostic(*diagnostic);
                    return Ending::Nothing;
                }
            }
        }
        Ending::Tree
    }

    fn push_diagnostic(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    fn accept_event(&mut self, event: Event<'_>, span: &Span) -> Result<ParseFlow, StopReason> {
        let at = self.mark_of(span);
        match event {
            Event::DocumentStart(..) => return Ok(self.start_document(at)),
            Event::Scalar(text, style, anchor, tag) => {
                self.warn_if_padded(span, at);
                let is_last = |unended: UnendedText| unended.ends_block(&text, style, span);
                let added = usize::from(self.unended.is_some_and(is_last));
                let node = self.scalar_node(&text[..text.len() - added], style, tag.as_deref(), at);
                self.place_node(node, anchor, 0)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open_collection(at, anchor, CollectionContent::Sequence(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, _) => self.open_collection(
                at,
                anchor,
                CollectionContent::Mapping {
                    entries: Vec::new(),
                    seen: HashSet::new(),
                    key: None,
                    merged: Vec::new(),
                },
            )?,
            Event::SequenceEnd | Event::MappingEnd => self.close_collection()?,
            Event::Alias(anchor) => self.expand_alias(anchor, at)?,
            Event::UnresolvedAlias(name) => {
                self.push_diagnostic(
                    Diagnostic::error(
                        DiagnosticCode::BadValue,
                        at,
                        format!("no anchor `&{name}` stands before this alias"),
                    )
                    .with_help("quote the value if it only begins with a star")
                    .in_public("no anchor of this name stands before this alias", ""),
                );
                self.place_node(Node { at, value: Value::Unreadable }, 0, 0)?;
            }
            _ => {}
        }
        Ok(ParseFlow::GoOn)
    }

    /// At the start of the text, whose line hides a secret as any other does; its other lines would not.
    fn warn_if_padded(&mut self, span: &Span, at: SourceMark) {
        let next = |padded: &Padded| padded.lines.range(span.start.line() + 1..).next().copied();
        if self.padded.as_ref().and_then(next).is_none_or(|line| line > span.end.line()) {
            return;
        }
        let message = "a later line of this text is indented less than its key, which YAML forbids; it is read all the same";
        let diagnostic = Diagnostic::warning(DiagnosticCode::Syntax, at, message);
        self.push_diagnostic(
            diagnostic.with_help("indent it further than its key, or write the text behind `|`"),
        );
    }

    fn start_document(&mut self, at: SourceMark) -> ParseFlow {
        self.documents += 1;
        if self.documents == 1 {
            return ParseFlow::GoOn;
        }
        self.push_diagnostic(
            Diagnostic::error(
                DiagnosticCode::NoEffect,
                at,
                "a second YAML document starts here; it is not read",
            )
            .with_help("remove the `---` line, or hand over several parts as MIME multipart"),
        );
        ParseFlow::Stop
    }

    /// The column of the user's own text.
    fn source_column(&self, line: usize, column: usize) -> usize {
        match &self.padded {
            Some(padded) => padded.source_column(line, column),
            None => column,
        }
    }

    fn mark_of(&self, span: &Span) -> SourceMark {
        let line = |line: usize| u32::try_from(line).unwrap_or(u32::MAX).saturating_add(self.first_line - 1);
        let column = self.source_column(span.start.line(), span.start.col());
        let column = u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1);
        let width = if span.end.line() == span.start.line() {
            u32::try_from(span.end.col().saturating_sub(span.start.col())).unwrap_or(u32::MAX)
        } else {
            1
        };
        SourceMark { part: self.part, line: line(span.start.line()), column, width }
    }

    fn scalar_node(
        &mut self,
        text: &str,
        style: granit_parser::ScalarStyle,
        tag: Option<&Tag>,
        at: SourceMark,
    ) -> Node {
        // Tags that make objects, as Python's readers know them, must mean nothing here.
        let known = tag.is_none_or(Tag::is_yaml_core_schema);
        let binary =
            // `!!binary` is no tag of the core schema, but cloud-init's own examples use it:
            // <https://yaml.org/type/binary.html>.
            tag.is_some_and(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() == Some("binary"));
        let text_tag = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
        if !known && !binary {
            self.push_diagnostic(
                Diagnostic::error(
                    DiagnosticCode::BadValue,
                    at,
                    "this YAML tag is not known here, so its value is not used",
                )
                .with_help("only `!!str`, `!!int`, `!!float`, `!!bool`, `!!null` and `!!binary` are"),
            );
            return Node { at, value: Value::Unreadable };
        }
        let style = match style {
            granit_parser::ScalarStyle::Plain if !text_tag => ScalarStyle::Plain,
            granit_parser::ScalarStyle::Literal => ScalarStyle::Literal,
            _ => ScalarStyle::Quoted,
        };
        Node { at, value: Value::Scalar(Scalar { text: text.to_owned(), style, binary }) }
    }

    fn open_collection(
        &mut self,
        at: SourceMark,
        anchor: usize,
        content: CollectionContent,
    ) -> Result<(), StopReason> {
        if self.open.len() >= DEEPEST {
            return Err(Box::new(too_deep(at)));
        }
        self.open.push(OpenCollection { at, anchor, content, deepest: 0 });
        Ok(())
    }

    fn close_collection(&mut self) -> Result<(), StopReason> {
        let Some(frame) = self.open.pop() else { return Ok(()) };
        let value = match frame.content {
            CollectionContent::Sequence(items) => Value::Sequence(items),
            CollectionContent::Mapping { entries, merged, .. } => {
                Value::Mapping(with_merged(entries, merged))
            }
        };
        self.place_node(Node { at: frame.at, value }, frame.anchor, frame.deepest + 1)
    }

    fn expand_alias(&mut self, anchor: usize, at: SourceMark) -> Result<(), StopReason> {
        let Some(target) = self.anchors.get(&anchor) else {
            self.push_diagnostic(Diagnostic::error(
                DiagnosticCode::BadValue,
                at,
                "this alias stands inside what it stands for",
            ));
            return self.place_node(Node { at, value: Value::Unreadable }, 0, 0);
        };
        let (cost, depth) = (target.cost, target.depth);
        // Before anything is copied.
        self.aliased = self.aliased.saturating_add(cost.nodes);
        if self.aliased > MOST_ALIASED {
            return Err(Box::new(too_large(at)));
        }
        self.spend_budget(cost, at)?;
        if self.open.len() + depth > DEEPEST {
            return Err(Box::new(too_deep(at)));
        }
        let node = self.anchors.get(&anchor).map(|target| target.node.clone());
        self.place_node(node.unwrap_or(Node { at, value: Value::Unreadable }), 0, depth)
    }

    fn spend_budget(&mut self, cost: NodeCost, at: SourceMark) -> Result<(), StopReason> {
        self.spent.nodes = self.spent.nodes.saturating_add(cost.nodes);
        self.spent.text = self.spent.text.saturating_add(cost.text);
        if self.spent.nodes <= MOST_NODES && self.spent.text <= MOST_TEXT {
            return Ok(());
        }
        Err(Box::new(too_large(at)))
    }

    /// A node is complete: it becomes the root, or a part of the innermost open collection.
    fn place_node(&mut self, node: Node, anchor: usize, depth: usize) -> Result<(), StopReason> {
        if let Value::Scalar(scalar) = &node.value {
            self.spend_budget(NodeCost { nodes: 1, text: scalar.text.len() }, node.at)?;
        } else {
            self.spend_budget(NodeCost { nodes: 1, text: 0 }, node.at)?;
        }
        if anchor != 0 {
            // An anchor keeps a copy, so it is paid for like an alias.
            let cost = cost_of(&node);
            self.spend_budget(cost, node.at)?;
            self.anchors.insert(anchor, AnchoredNode { node: node.clone(), cost, depth });
        }
        let Some(frame) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return Ok(());
        };
        frame.deepest = frame.deepest.max(depth);
        match &mut frame.content {
            CollectionContent::Sequence(items) => items.push(node),
            CollectionContent::Mapping { entries, seen, key, merged } => match key.take() {
                None => *key = Some(name_key(node, seen, self.found)),
                Some((PendingKey::Named(name), key_at)) => {
                    entries.push(MappingEntry { key: name, key_at, value: node });
                }
                Some((PendingKey::Merge, _)) => merged.push(node),
                Some((PendingKey::Dropped, _)) => {}
            },
        }
        Ok(())
    }

    fn syntax_diagnostic(&self, error: &ScanError) -> Diagnostic {
        let marker = error.marker();
        let line = u32::try_from(marker.line()).unwrap_or(u32::MAX).saturating_add(self.first_line - 1);
        let column = self.source_column(marker.line(), marker.col());
        let column = u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1);
        let at = SourceMark { part: self.part, line: line.max(1), column, width: 1 };
        let message = format!("this is not YAML: {}", error.kind());
        let diagnostic = Diagnostic::error(DiagnosticCode::Syntax, at, message);
        match advice_for(error.kind()) {
            Some(help) => diagnostic.with_help(help),
            None => diagnostic,
        }
    }
}

fn advice_for(kind: &ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation => {
            Some("indent with spaces, not with tabs")
        }
        ErrorKind::MappingValueNotAllowed => {
            Some("quote a value that contains `: `, or check the indentation of this line")
        }
        ErrorKind::UnexpectedCharacter { character: '@' | '`' } => {
            Some("quote a value that begins with this character")
        }
        ErrorKind::InvalidIndentation | ErrorKind::ExpectedBlockMappingKey => {
            Some("check that this line is indented as far as its neighbours")
        }
        _ => None,
    }
}

fn too_large(at: SourceMark) -> Diagnostic {
    let message = format!(
        "the document is too large here: at most {MOST_NODES} values, of them {MOST_ALIASED} by aliases, and {MOST_TEXT} bytes of text are read"
    );
    Diagnostic::error(DiagnosticCode::LimitExceeded, at, message)
        .with_help("aliases count as often as they are used")
}

fn too_deep(at: SourceMark) -> Diagnostic {
    let message = format!("the document nests deeper than {DEEPEST} levels here");
    Diagnostic::error(DiagnosticCode::LimitExceeded, at, message)
}

fn name_key(node: Node, seen: &mut HashSet<String>, found: &mut Diagnostics) -> (PendingKey, SourceMark) {
    let at = node.at;
    let Value::Scalar(scalar) = node.value else {
        found.push(Diagnostic::error(
            DiagnosticCode::WrongType,
            at,
            "a key must be text, not a list or a mapping",
        ));
        return (PendingKey::Dropped, at);
    };
    // In quotes it is an ordinary key.
    if scalar.text == "<<" && scalar.style == ScalarStyle::Plain {
        return (PendingKey::Merge, at);
    }
    // YAML 1.2.2, 3.2.1.1, wants keys that differ. Most readers take the last of two without a word.
    if !seen.insert(scalar.text.clone()) {
        found.push(
            Diagnostic::error(
                DiagnosticCode::DuplicateKey,
                at,
                format!("`{}` is given twice here; this second one is not used", scalar.text),
            )
            .with_help("put both together under one key")
            .in_public("a key is given twice here; this second one is not used", ""),
        );
        return (PendingKey::Dropped, at);
    }
    (PendingKey::Named(scalar.text), at)
}

/// `<<`: what the mapping itself says wins, then the earlier of the merged ones.
fn with_merged(mut entries: Vec<MappingEntry>, merged: Vec<Node>) -> Vec<MappingEntry> {
    let mut sources = Vec::new();
    for node in merged {
        match node.value {
            Value::Sequence(items) => sources.extend(items),
            _ => sources.push(node),
        }
    }
    // The order of <https://yaml.org/type/merge.html>: own keys first, then the earlier of the merged.
    let mut seen: HashSet<String> = entries.iter().map(|own| own.key.clone()).collect();
    for source in sources {
        let Value::Mapping(more) = source.value else { continue };
        entries.extend(more.into_iter().filter(|entry| seen.insert(entry.key.clone())));
    }
    entries
}

fn cost_of(node: &Node) -> NodeCost {
    let mut cost = NodeCost { nodes: 1, text: 0 };
    match &node.value {
        Value::Scalar(scalar) => cost.text = scalar.text.len(),
        Value::Sequence(items) => items.iter().for_each(|item| cost.add(cost_of(item))),
        Value::Mapping(entries) => entries.iter().for_each(|entry| {
            cost.text += entry.key.len();
            cost.add(cost_of(&entry.value));
        }),
        Value::Unreadable => {}
    }
    cost
}

impl NodeCost {
    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.text += other.text;
    }
}

#[cfg(test)]
mod tests;
