//! MIME messages: of one part, or multipart of any subtype, nested.
//!
//! Knows headers, boundaries and transfer encodings. Refuses character sets other than UTF-8: bytes
//! are passed on as they are. Invariant: a part that isn't closed is used and reported, because a
//! cloud may have cut the payload at its limit.
//!
//! Documentation: RFC 2045 (headers and encodings), RFC 2046, section 5.1 (multipart), RFC 2183 (`filename`),
//! and cloud-init's `Launch-Index` and `Merge-Type` in
//! <https://docs.cloud-init.io/en/latest/explanation/format/index.html>.

use crate::cloudconfig::files;
use crate::part::PayloadPart;
use crate::payload::{self, PayloadKind};
use document::diagnostic::{Diagnostic, DiagnosticCode};
use document::source::SourceMark;

/// Levels of multipart in multipart.
// Each level is a level of recursion here. cloud-init's own tool makes one.
const DEEPEST: usize = 8;
/// More header lines than this make no header.
// cloud-init's own tool writes four. A script that is taken for a message has no empty line for long.
const MOST_HEADERS: usize = 64;

/// A message or a part of one: headers, then bytes.
struct MimeEntity<'a> {
    headers: Vec<(String, String)>,
    body: &'a [u8],
    /// The line of the payload on which the body begins.
    line: u32,
}

/// The parts of a message, in their order, those of nested ones included.
pub(super) fn mime_parts(whole: &PayloadPart, most: usize) -> Result<Vec<PayloadPart>, Diagnostic> {
    let content = payload::without_marks(&whole.content);
    let start = content.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    let line = whole.first_line.saturating_add(line_count(&content[..start]));
    let entity = MimeEntity::read(&content[start..], line);
    let mut splitter = MimeSplitter { name: &whole.name, parts: Vec::new(), most };
    if entity.content_type().starts_with("multipart/") {
        splitter.split_entity(&entity, 0)?;
    } else {
        splitter.add(&entity);
        // The only one is no "part 1".
        if let Some(part) = splitter.parts.first_mut() {
            part.name = part.name.replacen(" part 1", "", 1);
        }
    }
    Ok(splitter.parts)
}

struct MimeSplitter<'a> {
    name: &'a str,
    parts: Vec<PayloadPart>,
    most: usize,
}

impl MimeSplitter<'_> {
    fn split_entity(&mut self, entity: &MimeEntity<'_>, depth: usize) -> Result<(), Diagnostic> {
        let error =
            |message: &str| Err(Diagnostic::error(DiagnosticCode::Encoding, SourceMark::default(), message));
        let Some(boundary) = entity.header_parameter("content-type", "boundary") else {
            return error("this is MIME multipart, but its header names no boundary");
        };
        let (bodies, closed) = split_sections(entity.body, entity.line, &boundary);
        if bodies.is_empty() {
            return error("this is MIME multipart, but its boundary never occurs");
        }
        for (body, line) in bodies {
            if self.parts.len() > self.most {
                return Ok(());
            }
            let inner = MimeEntity::read(body, line);
            if inner.content_type().starts_with("multipart/") && depth < DEEPEST {
                self.split_entity(&inner, depth + 1)?;
            } else {
                self.add(&inner);
            }
        }
        if let Some(last) = self.parts.last_mut().filter(|_| !closed) {
            last.flaws.push(Diagnostic::warning(
                DiagnosticCode::Encoding,
                SourceMark::default(),
                "the multipart message ends without its closing line; it may have been cut off here",
            ));
        }
        Ok(())
    }

    fn add(&mut self, entity: &MimeEntity<'_>) {
        let number = self.parts.len() + 1;
        // RFC 2183 moved the name to `Content-Disposition`. Older programs write it into `Content-Type`.
        let file = entity
            .header_parameter("content-disposition", "filename")
            .or_else(|| entity.header_parameter("content-type", "name"));
        let name = match file {
            Some(file) => format!("{} part {number} ({file})", self.name),
            None => format!("{} part {number}", self.name),
        };
        let mut part = PayloadPart { first_line: entity.line, ..PayloadPart::whole(name, Vec::new()) };
        match decode_transfer(
            entity.body,
            &entity.header_value("content-transfer-encoding").unwrap_or_default(),
        ) {
            Ok((content, plain)) => {
                part.content = content;
                // Base64 has other lines than the text in it, so there the text counts for itself.
                part.first_line = if plain { entity.line } else { 1 };
            }
            Err(message) => {
                part.flaws.push(Diagnostic::error(DiagnosticCode::Encoding, SourceMark::default(), message));
            }
        }
        classify_part(&mut part, &entity.content_type());
        // cloud-init knows both headers, the one without `X-` first.
        part.merge_how = entity.header_value("merge-type").or_else(|| entity.header_value("x-merge-type"));
        set_launch_index(&mut part, entity.header_value("launch-index"));
        self.parts.push(part);
    }
}

/// Takes over what the header says about the part's kind.
pub(super) fn classify_part(part: &mut PayloadPart, content_type: &str) {
    part.kind = match content_type {
        "text/cloud-boothook" => Some(PayloadKind::Boothook),
        "text/cloud-config" => Some(PayloadKind::CloudConfig),
        "text/cloud-config-archive" => Some(PayloadKind::CloudConfigArchive),
        "text/cloud-config-jsonp" => Some(PayloadKind::CloudConfigJsonPatch),
        "text/jinja2" => Some(PayloadKind::Jinja),
        "text/part-handler" => Some(PayloadKind::PartHandler),
        "text/x-include-url" | "text/x-include-once-url" => Some(PayloadKind::Include),
        "text/x-shellscript" | "text/x-shellscript-per-instance" => Some(PayloadKind::Script),
        "text/x-shellscript-per-boot" => Some(PayloadKind::ScriptPerBoot),
        "text/x-shellscript-per-once" => Some(PayloadKind::ScriptPerOnce),
        _ => None,
    };
}

/// A type without its parameters.
pub(super) fn type_essence(written: &str) -> String {
    written.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Takes over which machine a part is for.
pub(super) fn set_launch_index(part: &mut PayloadPart, written: Option<String>) {
    let Some(written) = written else { return };
    match written.trim().parse() {
        Ok(index) => part.launch_index = Some(index),
        Err(_) => part.flaws.push(
            Diagnostic::warning(
                DiagnosticCode::BadValue,
                SourceMark::default(),
                "the launch index of this part is no number, so the part is for every machine",
            )
            .with_help("write a number, 0 for the first machine"),
        ),
    }
}

impl<'a> MimeEntity<'a> {
    /// A message or part: headers, if any, then an empty line, then the body.
    fn read(content: &'a [u8], line: u32) -> Self {
        let mut entity = Self { headers: Vec::new(), body: content, line };
        while let Some((text, rest)) = next_line(entity.body) {
            entity.body = rest;
            entity.line = entity.line.saturating_add(1);
            if text.is_empty() || entity.headers.len() >= MOST_HEADERS {
                break;
            }
            entity.add_header(&String::from_utf8_lossy(text));
        }
        entity
    }

    fn add_header(&mut self, text: &str) {
        match (text.starts_with([' ', '\t']), self.headers.last_mut(), text.split_once(':')) {
            (true, Some((_, value)), _) => {
                value.push(' ');
                value.push_str(text.trim());
            }
            (_, _, Some((name, value))) => {
                self.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
            // The "From " line of a mailbox, or rubbish.
            _ => {}
        }
    }

    fn header_value(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn content_type(&self) -> String {
        type_essence(&self.header_value("content-type").unwrap_or_default())
    }

    /// A parameter such as `boundary="x y"`.
    fn header_parameter(&self, header: &str, name: &str) -> Option<String> {
        let value = self.header_value(header)?;
        let mut rest = value.split_once(';')?.1.trim_start();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let (value, after) = parameter_value(after.trim_start());
            if key.trim().eq_ignore_ascii_case(name) {
                return Some(value).filter(|value| !value.is_empty());
            }
            rest = after.split_once(';').map_or("", |(_, after)| after.trim_start());
        }
        None
    }
}

/// The value at the start of a text, quoted or not, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// What lies between the boundary's lines, each with the number of its first line, and whether the
/// closing line is there.
fn split_sections<'a>(body: &'a [u8], first_line: u32, boundary: &str) -> (Vec<(&'a [u8], u32)>, bool) {
    let opening = format!("--{boundary}").into_bytes();
    let closing = format!("--{boundary}--").into_bytes();
    let mut sections = Vec::new();
    let mut start: Option<(usize, u32)> = None;
    let (mut rest, mut line) = (body, first_line);
    while let Some((text, after)) = next_line(rest) {
        let at = body.len() - rest.len();
        // RFC 2046, section 5.1.1, allows blanks behind a boundary that a relay has put there.
        let delimiter = text.trim_ascii_end();
        line = line.saturating_add(1);
        if delimiter == opening || delimiter == closing {
            if let Some((from, number)) = start.take() {
                sections.push((without_line_end(&body[from..at]), number));
            }
            if delimiter == closing {
                return (sections, true);
            }
            start = Some((body.len() - after.len(), line));
        }
        rest = after;
    }
    sections.extend(start.map(|(from, number)| (&body[from..], number)));
    (sections, false)
}

/// The line end before a boundary belongs to the boundary.
fn without_line_end(section: &[u8]) -> &[u8] {
    let section = section.strip_suffix(b"\n").unwrap_or(section);
    section.strip_suffix(b"\r").unwrap_or(section)
}

/// The first line without its end, and what follows; `None` at the end.
fn next_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.is_empty() {
        return None;
    }
    let (line, rest) = match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &text[text.len()..]),
    };
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest))
}

/// The bytes that were meant, and whether they are those of the payload; else what is wrong with them.
fn decode_transfer(body: &[u8], encoding: &str) -> Result<(Vec<u8>, bool), &'static str> {
    match encoding.trim().to_ascii_lowercase().as_str() {
        // With or without its padding, as every reader of mail takes it.
        "base64" => match files::decode_base64(body) {
            Some(content) => Ok((content, false)),
            None => Err("the header says that this part is base64, but it is not"),
        },
        // Its soft line breaks shift lines. That is rare in user-data, so the places are taken as they are.
        "quoted-printable" => Ok((quoted_printable(body), true)),
        "uuencode" | "x-uuencode" | "uue" | "x-uue" => {
            Err("this part is uuencoded, which is not read here; send it as base64")
        }
        _ => Ok((body.to_vec(), true)),
    }
}

fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'=' {
            content.push(byte);
            continue;
        }
        let hex =
            rest.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match hex {
            Some(value) => {
                content.push(value);
                rest = &rest[2..];
            }
            // A soft line break.
            None => match next_line(rest) {
                Some((line, after)) if line.trim_ascii().is_empty() => rest = after,
                None => {}
                _ => content.push(byte),
            },
        }
    }
    content
}

fn line_count(text: &[u8]) -> u32 {
    u32::try_from(text.split(|byte| *byte == b'\n').count() - 1).unwrap_or(u32::MAX)
}
