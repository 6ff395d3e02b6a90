//! From the parser's events to a tree.
//!
//! Knows anchors, merges and doubled keys. Refuses to know the text. Invariant: a tree is never larger than the limits of
//! the module above, however small the text that asks for it.

use std::collections::HashMap;
use std::collections::HashSet;

use granit_parser::{ErrorKind, Event, Parser, ScanError, Span, Tag};

use super::quoted::Padded;
use super::tree::{MappingEntry, Node, Scalar, ScalarStyle, Value};
use super::{DEEPEST, Ending, MOST_ALIASED, MOST_NODES, MOST_TEXT, parser_options, quoted};
use crate::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use crate::source::SourceMark;

/// What ends the reading of a document.
pub(super) type StopReason = Box<Diagnostic>;

pub(super) enum ParseFlow {
    GoOn,
    Stop,
}

/// A collection that is still open.
pub(super) struct OpenCollection {
    at: SourceMark,
    anchor: usize,
    content: CollectionContent,
    deepest: usize,
}

pub(super) enum CollectionContent {
    Mapping {
        entries: Vec<MappingEntry>,
        seen: HashSet<String>,
        key: Option<(PendingKey, SourceMark)>,
        merged: Vec<Node>,
    },
    Sequence(Vec<Node>),
}

/// A key of a mapping while its value is awaited.
pub(super) enum PendingKey {
    /// An ordinary one.
    Named(String),
    /// `<<`.
    Merge,
    /// One that was reported and whose value is dropped.
    Dropped,
}

/// What an alias stands for, with its cost.
pub(super) struct AnchoredNode {
    node: Node,
    cost: NodeCost,
    depth: usize,
}

#[derive(Clone, Copy, Default)]
pub(super) struct NodeCost {
    nodes: usize,
    text: usize,
}

pub(super) struct TreeBuilder<'a> {
    part: u16,
    first_line: u32,
    found: &'a mut Diagnostics,
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, AnchoredNode>,
    spent: NodeCost,
    aliased: usize,
    pub(super) root: Option<Node>,
    documents: usize,
    /// What is read is the user's text with these lines indented.
    pub(super) padded: Option<Padded>,
}

impl<'a> TreeBuilder<'a> {
    pub(super) fn new(part: u16, first_line: u32, found: &'a mut Diagnostics) -> Self {
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
        }
    }

    pub(super) fn read(&mut self, text: &str) -> Ending {
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

    pub(super) fn push_diagnostic(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    fn accept_event(&mut self, event: Event<'_>, span: &Span) -> Result<ParseFlow, StopReason> {
        let at = self.mark_of(span);
        match event {
            Event::DocumentStart(..) => return Ok(self.start_document(at)),
            Event::Scalar(text, style, anchor, tag) => {
                self.warn_if_padded(span, at);
                let node = self.scalar_node(&text, style, tag.as_deref(), at);
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

    pub(super) fn syntax_diagnostic(&self, error: &ScanError) -> Diagnostic {
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

pub(super) fn advice_for(kind: &ErrorKind) -> Option<&'static str> {
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

pub(super) fn too_large(at: SourceMark) -> Diagnostic {
    let message = format!(
        "the document is too large here: at most {MOST_NODES} values, of them {MOST_ALIASED} by aliases, and {MOST_TEXT} bytes of text are read"
    );
    Diagnostic::error(DiagnosticCode::LimitExceeded, at, message)
        .with_help("aliases count as often as they are used")
}

pub(super) fn too_deep(at: SourceMark) -> Diagnostic {
    let message = format!("the document nests deeper than {DEEPEST} levels here");
    Diagnostic::error(DiagnosticCode::LimitExceeded, at, message)
}

pub(super) fn name_key(
    node: Node,
    seen: &mut HashSet<String>,
    found: &mut Diagnostics,
) -> (PendingKey, SourceMark) {
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
pub(super) fn with_merged(mut entries: Vec<MappingEntry>, merged: Vec<Node>) -> Vec<MappingEntry> {
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

pub(super) fn cost_of(node: &Node) -> NodeCost {
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
