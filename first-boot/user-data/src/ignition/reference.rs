//! `ignition.config`: configurations that a configuration refers to, put into it.
//!
//! Knows the order: depth first, each on top of what refers to it. Refuses to fetch: that is done by a
//! function it is given. Invariants: depth, number and size of what is referred to are bounded; every value
//! keeps the place that it has in its own file, and no copy is written anew.
//!
//! Documentation: <https://coreos.github.io/ignition/operator-notes/#config-merging>.

use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::SourceMark;
use document::yaml::Node;
use error_text::redacted_address;

use crate::json;
use crate::plan::step::{FetchRequest, FileContent};
use crate::room::{self, DecompressionBudget};

use super::{merge, resource, timeouts, tree, verification, version};

/// Ignition has no bound; a configuration that refers to itself must end all the same.
const DEEPEST: usize = 8;
// As many as of addresses in a container, since both are fetched in the same time.
const MOST_REFERENCES: usize = 64;

/// Gets the bytes at an address.
pub type ReferenceGetter<'a> = &'a mut dyn FnMut(&FetchRequest) -> Result<Vec<u8>, Diagnostic>;

/// A configuration with everything it refers to in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What it refers to, in the order in which it was fetched: the places with the numbers 1 and so on.
    pub referred: Vec<Referred>,
    /// All of them merged.
    pub(super) tree: Node,
    /// Each of them as it was written, to be judged alone.
    pub(super) documents: Vec<Node>,
    /// What was found so far.
    pub(super) found: Diagnostics,
}

/// A configuration that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referred {
    /// Where it came from, for people.
    pub name: String,
    /// What it says.
    pub text: crate::secret::Secret<String>,
}

impl Resolved {
    /// The same, its places being those of sources with these numbers.
    #[must_use]
    pub(super) fn renumber_sources(mut self, numbers: &[u16]) -> Self {
        tree::renumber_marks(&mut self.tree, numbers);
        self.documents.iter_mut().for_each(|document| tree::renumber_marks(document, numbers));
        let mut found = Diagnostics::default();
        for diagnostic in self.found.list() {
            let mut diagnostic = diagnostic.clone();
            tree::renumber_mark(&mut diagnostic.at, numbers);
            found.push(diagnostic);
        }
        // An error beyond those that are kept still counts.
        if self.found.worst_severity() > found.worst_severity() {
            found.push(reference_problem(DiagnosticCode::Refused, "more is wrong than is shown"));
        }
        self.found = found;
        self
    }
}

/// The configuration with what it refers to; `None` if it refers to nothing, or cannot be read at all.
pub fn resolve_references(content: &[u8], get: ReferenceGetter<'_>) -> Option<Resolved> {
    // A document that cannot be read is reported by who reads it, with the place.
    let document =
        json::is_bounded(content).then(|| parse_document(content, 0, &mut Diagnostics::default()))??;
    let config = tree::find_below(&document, &["ignition", "config"])?;
    // `append` is the word of specification 2, which is not translated yet here.
    let refers = ["append", "merge", "replace"].iter().any(|key| tree::find_value(config, key).is_some());
    if !refers {
        return None;
    }
    let mut resolver = ReferenceResolver {
        get,
        room: DecompressionBudget::default(),
        referred: Vec::new(),
        documents: Vec::new(),
        found: Diagnostics::default(),
    };
    let tree = resolver.resolve_document(document, 0);
    Some(Resolved { referred: resolver.referred, tree, documents: resolver.documents, found: resolver.found })
}

fn parse_document(content: &[u8], part: u16, found: &mut Diagnostics) -> Option<Node> {
    let text = String::from_utf8_lossy(content);
    json::parse_json(text.trim_start_matches('\u{feff}'), part, found)
}

struct ReferenceResolver<'a> {
    get: ReferenceGetter<'a>,
    room: DecompressionBudget,
    referred: Vec<Referred>,
    documents: Vec<Node>,
    found: Diagnostics,
}

impl ReferenceResolver<'_> {
    fn resolve_document(&mut self, mut document: Node, depth: usize) -> Node {
        version::modernize_document(&mut document, &mut self.found);
        // Merging makes one of two equals, so each is kept as it was to be judged.
        self.documents.push(document.clone());
        // Each configuration says how long what it names may take.
        let patience = timeouts::read(&document);
        let config =
            tree::find_mut(&mut document, "ignition").and_then(|node| tree::remove_entry(node, "config"));
        let Some(config) = config.map(|entry| entry.value) else { return document };
        if depth >= DEEPEST {
            self.refuse_reference(
                config.at,
                DiagnosticCode::LimitExceeded,
                "configurations refer to one another more than 8 deep",
            );
            return document;
        }
        // An empty `replace`, as tools write it, replaces nothing.
        if let Some(replace) =
            tree::find_value(&config, "replace").filter(|node| tree::text_of(node, "source").is_some())
        {
            let path = "$.ignition.config.replace";
            return match self.fetch_reference(replace, path, patience) {
                Some(other) => self.resolve_document(other, depth + 1),
                None => document,
            };
        }
        for (index, reference) in tree::list_items(tree::find_value(&config, "merge")).iter().enumerate() {
            let path = format!("$.ignition.config.merge[{index}]");
            if let Some(other) = self.fetch_reference(reference, &path, patience) {
                let other = self.resolve_document(other, depth + 1);
                merge::merge_documents(&mut document, other, "");
            }
        }
        document
    }

    /// Gets a configuration and reads it; says where it was asked for why it cannot be had.
    fn fetch_reference(
        &mut self,
        reference: &Node,
        path: &str,
        patience: timeouts::Timeouts,
    ) -> Option<Node> {
        let source = tree::find_value(reference, "source");
        let at = source.map_or(reference.at, |node| node.at);
        if self.referred.len() >= MOST_REFERENCES {
            self.refuse_reference(
                at,
                DiagnosticCode::LimitExceeded,
                "more than 64 configurations are referred to",
            );
            return None;
        }
        let content = resource::required_content(
            reference,
            path.to_owned(),
            patience,
            &mut self.room,
            &mut self.found,
        )?;
        let (name, bytes) = match content {
            FileContent::Inline(bytes) => {
                (format!("the data address in line {}", at.line), bytes.reveal().clone())
            }
            FileContent::Fetched(fetch) => match self.fetch_content(&fetch) {
                Ok(bytes) => (redacted_address(&fetch.url), bytes),
                Err(flaw) => {
                    self.found.push(Diagnostic { at, ..flaw }.with_key(path));
                    return None;
                }
            },
        };
        self.parse_referred(name, &bytes, at)
    }

    fn fetch_content(&mut self, fetch: &FetchRequest) -> Result<Vec<u8>, Diagnostic> {
        let packed = (self.get)(fetch)?;
        let flawed = |flaw: &str| {
            reference_problem(DiagnosticCode::Encoding, &format!("a configuration this refers to {flaw}"))
        };
        let bytes = if fetch.gzip { room::unpack_gzip(&packed).map_err(flawed)? } else { packed };
        match &fetch.hash {
            Some(hash) if !verification::digest_matches(&bytes, hash) => {
                Err(flawed("does not have the hash it must have"))
            }
            _ => Ok(bytes),
        }
    }

    fn parse_referred(&mut self, name: String, bytes: &[u8], at: SourceMark) -> Option<Node> {
        if !json::is_bounded(bytes) {
            self.refuse_reference(
                at,
                DiagnosticCode::LimitExceeded,
                "a configuration this refers to is too large",
            );
            return None;
        }
        let number = u16::try_from(self.referred.len() + 1).unwrap_or(u16::MAX);
        let text = String::from_utf8_lossy(bytes).trim_start_matches('\u{feff}').to_owned();
        let document = json::parse_json(&text, number, &mut self.found);
        self.referred.push(Referred { name, text: crate::secret::Secret::new(text) });
        document
    }

    fn refuse_reference(&mut self, at: SourceMark, code: DiagnosticCode, message: &str) {
        self.found.push(Diagnostic::error(code, at, message).with_key("$.ignition.config"));
    }
}

fn reference_problem(code: DiagnosticCode, message: &str) -> Diagnostic {
    Diagnostic::error(code, SourceMark::default(), message)
}
