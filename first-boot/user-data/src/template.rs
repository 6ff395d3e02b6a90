//! `## template: jinja`: a document or script with names of the machine in it.
//!
//! Knows cloud-init's names ([`InstanceData`]) and hands the text to minijinja. Refuses names that the machine
//! does not know: cloud-init would write `CI_MISSING_JINJA_VAR/…` into the file and go on. Invariants: time,
//! memory and stack are bounded whatever the text; each place in what comes out leads back to the author's text;
//! a text with nothing to expand is never parsed.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/explanation/instancedata.html>.

mod bounds;
mod names;
mod places;

use std::thread;

use document::diagnostic::{Diagnostic, DiagnosticCode};
use document::source::SourceMark;
use minijinja::{Environment, Error, ErrorKind, OutputSpan, UndefinedBehavior};

pub use names::InstanceData;
pub use places::Places;

/// What starts something to expand.
// Cluster API puts the header before all that it makes. A text without these must stay as it is to the byte.
const OPENINGS: [&str; 3] = ["{{", "{%", "{#"];
/// So many instructions, or 64 times as many bytes: some hundred times what Cluster API's largest template needs,
/// done in a tenth of a second.
const FUEL: u64 = 200_000;
/// minijinja reads nested things by recursion, of up to 4096 levels by [`bounds`]; a level of its unoptimized
/// build takes some kilobytes. Memory of a stack that is not used costs nothing.
const STACK: usize = 128 << 20;
/// So many names that only a platform can know are given examples.
const MOST_EXAMPLES: usize = 64;

/// A template that was expanded.
#[derive(Debug)]
pub struct Expansion {
    /// What it became; its first line is empty, where the header was.
    pub text: String,
    /// Where its places come from.
    pub places: Places,
    /// What is worth knowing; the places are those of the template.
    pub notes: Vec<Diagnostic>,
}

/// Expands a template, with or without its first line.
pub fn expand_template(text: &str, part: u16, data: &InstanceData) -> Result<Expansion, Diagnostic> {
    let start = header_end(text, part)?;
    let body = &text[start..];
    let head = "\n".repeat(text[..start].matches('\n').count());
    if !OPENINGS.iter().any(|opening| body.contains(opening)) {
        return Ok(Expansion { text: head + body, places: Places::unmoved(), notes: Vec::new() });
    }
    let template = Template { text, start, part };
    bounds::check_bounds(body)
        .map_err(|flaw| template.refusal_at(DiagnosticCode::LimitExceeded, flaw.at, flaw.message))?;
    let mut data = data.clone();
    let mut notes = Vec::new();
    loop {
        match render_body(body, &data) {
            Ok((output, spans)) => {
                let places = Places::new(text, start, &head, &output, &spans);
                return Ok(Expansion { text: head + &output, places, notes });
            }
            Err(Failure::Template(error)) => {
                // On no machine, each name that only a platform knows is given an example and the text is
                // expanded again.
                let name = missing_name(&error).filter(|_| notes.len() < MOST_EXAMPLES);
                match name.filter(|name| data.add_example(name)) {
                    Some(name) => notes.push(template.only_there(&error, &name)),
                    None => return Err(template.error_diagnostic(&error, &data)),
                }
            }
            Err(Failure::Thread) => {
                return Err(template.refusal_at(
                    DiagnosticCode::LimitExceeded,
                    0,
                    "there is no memory to expand this template",
                ));
            }
        }
    }
}

/// Where the template begins, behind its header.
fn header_end(text: &str, part: u16) -> Result<usize, Diagnostic> {
    let blank = text.len() - text.trim_start().len();
    let Some(rest) = text[blank..].strip_prefix("##") else { return Ok(0) };
    let line = rest.lines().next().unwrap_or_default();
    let lower = line.to_ascii_lowercase();
    let Some(engine) = lower.trim_start().strip_prefix("template:") else { return Ok(0) };
    // cloud-init knows `basic` and Cheetah's templates besides, which nothing here expands.
    if !engine.trim_start().starts_with("jinja") {
        let message = "this template is written for a program that is not here";
        let at = SourceMark::start_of(part);
        return Err(Diagnostic::error(DiagnosticCode::Refused, at, message)
            .with_help("write `## template: jinja`, and Jinja's `{{ … }}`"));
    }
    let end = blank + 2 + line.len();
    Ok(text[end..].find('\n').map_or(text.len(), |newline| end + newline + 1))
}

/// Why nothing came out.
enum Failure {
    Template(Error),
    Thread,
}

type Rendered = (String, Vec<OutputSpan>);

/// On a stack of its own, since the recursion's depth is the author's choice.
fn render_body(body: &str, data: &InstanceData) -> Result<Rendered, Failure> {
    let context = data.template_context();
    thread::scope(|scope| {
        let work = || {
            let environment = jinja_environment();
            let template = environment.template_from_str(body)?;
            template.render_with_spans(context)
        };
        // A thread of its own, since the main thread's stack has 8 MiB by the usual limit, and an overflow
        // ends the program.
        let running = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let ended = running.map_err(|_| Failure::Thread)?.join();
        ended.map_err(|_| Failure::Thread)?.map_err(Failure::Template)
    })
}

/// As cloud-init sets Jinja up: the line end behind a block goes, the last one stays; and with the methods of
/// Python's texts and mappings, which templates for it use.
fn jinja_environment<'source>() -> Environment<'source> {
    let mut environment = Environment::new();
    // A test whether a name is there is allowed: `{% if v1.region %}`.
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_fuel(Some(FUEL));
    environment.set_debug(true);
    // cloud-init's Jinja runs in Python, so authors write `name.split('-')` and `d.items()`.
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    // It would write everything that the machine knows into the document.
    environment.remove_global("debug");
    let syntax = environment.syntax().to_builder().trim_blocks(true).keep_trailing_newline(true).build();
    if let Ok(syntax) = syntax {
        environment.set_syntax(syntax);
    }
    environment
}

/// The name that is not known, as `ds.meta_data.rack`.
fn missing_name(error: &Error) -> Option<String> {
    if error.kind() != ErrorKind::UndefinedError {
        return None;
    }
    // minijinja says the name in its message only.
    let name = error.detail()?.split('`').nth(1)?;
    Some(name.replace(['\'', '"', ']'], "").replace('[', "."))
}

/// The author's text, for places in it.
struct Template<'a> {
    text: &'a str,
    start: usize,
    part: u16,
}

impl Template<'_> {
    fn error_diagnostic(&self, error: &Error, data: &InstanceData) -> Diagnostic {
        let at = self.error_mark(error);
        if let Some(name) = missing_name(error) {
            let whose = data.machine_words();
            let message =
                format!("`{name}` is not known on {whose} machine, so this template is not expanded");
            return Diagnostic::error(DiagnosticCode::UnknownToken, at, message)
                .with_help(data.suggest_name(&name));
        }
        if error.kind() == ErrorKind::OutOfFuel {
            let message = format!("this template takes more than {FUEL} steps, so it is not expanded");
            return Diagnostic::error(DiagnosticCode::LimitExceeded, at, message)
                .with_help("write what it makes");
        }
        // The parser says where the text ends; `${#array[@]}` of a shell begins a comment of Jinja's.
        let at = if error.detail() == Some("unexpected end of comment") { self.open_comment() } else { at };
        let kind = error.kind();
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        // The words of a template may hold secrets.
        let public = format!("this template cannot be expanded: {kind}");
        Diagnostic::error(DiagnosticCode::Syntax, at, format!("{public}{detail}"))
            .with_help("write a brace that is meant as text as `{{ '{{' }}`, or between `{% raw %}` and `{% endraw %}`")
            .in_public(public, "")
    }

    /// A name that each platform may have or not.
    fn only_there(&self, error: &Error, name: &str) -> Diagnostic {
        let message =
            format!("whether `{name}` is known is seen on the machine only; here an example stands for it");
        Diagnostic::note(DiagnosticCode::UnknownToken, self.error_mark(error), message)
    }

    fn refusal_at(&self, code: DiagnosticCode, offset: usize, message: impl std::fmt::Display) -> Diagnostic {
        Diagnostic::error(code, self.mark_at(offset, 1), message)
    }

    fn mark_at(&self, offset: usize, width: u32) -> SourceMark {
        places::Text::new(self.text.to_owned()).mark_of(self.start + offset, self.part, width)
    }

    /// The comment that does not end.
    fn open_comment(&self) -> SourceMark {
        let body = &self.text[self.start..];
        let closed = body.rfind("#}").map_or(0, |end| end + 2);
        self.mark_at(closed + body[closed..].find("{#").unwrap_or_default(), 2)
    }

    fn error_mark(&self, error: &Error) -> SourceMark {
        let range = error.range().unwrap_or_default();
        let width = self.text.get(self.start + range.start..self.start + range.end);
        let width = width.map_or(1, |text| text.chars().count().max(1));
        self.mark_at(range.start, u32::try_from(width).unwrap_or(1))
    }
}

#[cfg(test)]
mod tests;
