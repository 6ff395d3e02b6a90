//! Opens what user-data may be wrapped in, until only documents and scripts are left.
//!
//! Knows gzip, base64, MIME multipart, archives, includes and Ignition's references, nested in one
//! another in any order. Refuses to fetch: that is done by a function it is given, if at all.
//! Invariants: depth, number and size of parts are bounded over the whole payload; a part that cannot
//! be opened is reported in its own place and costs no other part anything.
//!
//! Documentation: <https://docs.cloud-init.io/en/latest/explanation/format/index.html>.

mod archive;
mod mime;

use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::address;
use crate::cloudconfig::files;
use crate::ignition;
use crate::part::PayloadPart;
use crate::payload::{self, PayloadKind};
use crate::plan::step::{FetchRequest, Timeouts};
use document::diagnostic::{Diagnostic, DiagnosticCode};
use document::source::SourceMark;

/// How many containers may lie in one another.
// Real payloads are three deep: base64 of gzip of MIME.
pub const DEEPEST: usize = 8;
/// How many parts a payload may have.
// OpenStack's Magnum hands over 25 parts, the most that was found.
pub const MOST_PARTS: usize = 256;
/// How many bytes all unpacking together may make.
// As much as one payload may have, so that packing gains nothing.
pub const MOST_BYTES: usize = 16 << 20;
/// How many addresses a payload may refer to.
// Each may take as long as fetching takes. The time of them all is bounded besides.
const MOST_ADDRESSES: usize = 64;

/// Gets the bytes at an address, or says why not.
pub type Fetcher<'a> = &'a mut dyn FnMut(&FetchRequest) -> Result<Vec<u8>, String>;

/// What may be fetched while a payload is opened.
pub struct FetchPolicy<'a> {
    /// What `#include` names. Off unless the platform's operator turned it on, because it lets
    /// whoever serves the address decide what is done to the machine.
    pub include: bool,
    /// How it is fetched; `None` where there is no network, as in `validate`.
    pub fetch: Option<Fetcher<'a>>,
}

impl FetchPolicy<'_> {
    /// Nothing is fetched.
    #[must_use]
    pub fn none() -> Self {
        FetchPolicy { include: false, fetch: None }
    }
}

impl std::fmt::Debug for FetchPolicy<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "References {{ include: {}, fetch: {} }}", self.include, self.fetch.is_some())
    }
}

/// Opens a payload. What comes back are its parts in their order; those that could not be opened are
/// empty and carry the reason.
///
/// ```
/// use user_data::container::{self, FetchPolicy};
///
/// let message = concat!(
///     "Content-Type: multipart/mixed; boundary=B\nMIME-Version: 1.0\n\n",
///     "--B\nContent-Type: text/cloud-config\n\nhostname: node1\n",
///     "--B\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n",
///     "--B--\n",
/// );
/// let parts = container::open_payload("user-data", message.as_bytes(), FetchPolicy::none());
///
/// assert_eq!(parts.len(), 2);
/// assert_eq!(parts[1].name, "user-data part 2");
/// assert_eq!(parts[1].content, b"#!/bin/sh");
/// ```
#[must_use]
pub fn open_payload(name: &str, content: &[u8], references: FetchPolicy<'_>) -> Vec<PayloadPart> {
    let mut opener = PayloadOpener { references, parts: Vec::new(), bytes: 0, addresses: 0, full: false };
    opener.open_part(PayloadPart::whole(name, content), 0);
    opener.parts
}

/// Opens one payload and keeps its accounts.
struct PayloadOpener<'a> {
    references: FetchPolicy<'a>,
    parts: Vec<PayloadPart>,
    /// How many bytes were unpacked so far.
    bytes: usize,
    /// How many addresses were fetched so far.
    addresses: usize,
    full: bool,
}

impl PayloadOpener<'_> {
    fn open_part(&mut self, part: PayloadPart, depth: usize) {
        if depth > DEEPEST {
            return self
                .give_up(part, too_much(format!("containers lie more than {DEEPEST} deep in one another")));
        }
        match part.payload_kind() {
            PayloadKind::Base64 => self.unwrap_part(part, depth, |content, _| decode_base64(content)),
            PayloadKind::CloudConfigArchive => self.open_archive(part, depth),
            PayloadKind::Gzip => self.unwrap_part(part, depth, unpack_gzip),
            PayloadKind::Ignition => self.resolve_references(part),
            // Includes and references count against the same limits as what was handed over, since others
            // write them.
            PayloadKind::Include => self.open_include(part, depth),
            PayloadKind::Multipart => self.open_multipart(part, depth),
            _ => self.keep_part(part),
        }
    }

    /// Replaces a part by what it wraps.
    fn unwrap_part(
        &mut self,
        part: PayloadPart,
        depth: usize,
        open: impl FnOnce(&[u8], usize) -> Result<Vec<u8>, Diagnostic>,
    ) {
        let left = MOST_BYTES.saturating_sub(self.bytes);
        match open(&part.content, left).and_then(|content| self.count_unpacked(content)) {
            Ok(content) => self.open_part(PayloadPart { content, first_line: 1, ..part }, depth + 1),
            Err(flaw) => self.give_up(part, flaw),
        }
    }

    fn open_multipart(&mut self, part: PayloadPart, depth: usize) {
        match mime::mime_parts(&part, MOST_PARTS) {
            Ok(parts) => self.open_each(parts, depth),
            Err(flaw) => self.give_up(part, flaw),
        }
    }

    fn open_archive(&mut self, part: PayloadPart, depth: usize) {
        match archive::archive_parts(&part) {
            Ok(parts) => self.open_each(parts, depth),
            Err(flaw) => self.give_up(part, flaw),
        }
    }

    fn open_each(&mut self, parts: Vec<PayloadPart>, depth: usize) {
        for part in parts {
            match self.count_unpacked(Vec::new()) {
                // Archives and MIME copy what they hold, so a deep nest of one text would be kept once for
                // each level.
                Ok(_) if self.bytes + part.content.len() <= MOST_BYTES => {
                    self.bytes += part.content.len();
                    self.open_part(part, depth + 1);
                }
                _ => self.give_up(part, too_large()),
            }
        }
    }

    /// Fetches each address of an include and opens what is there.
    fn open_include(&mut self, part: PayloadPart, depth: usize) {
        if !self.references.include {
            let flaw = Diagnostic::error(
                DiagnosticCode::Refused,
                SourceMark::default(),
                "`#include` is switched off on this machine",
            )
            .with_help("hand over the parts themselves as MIME multipart, or let the operator switch it on");
            return self.give_up(part, flaw);
        }
        let text = String::from_utf8_lossy(payload::without_marks(&part.content)).into_owned();
        let addresses =
            text.lines().map(included_address).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for (index, url) in addresses.enumerate() {
            let name = format!("{} include {}", part.name, index + 1);
            let empty = PayloadPart::whole(name, Vec::new());
            match self.fetch_bytes(&plain_fetch(url)).and_then(|content| self.count_unpacked(content)) {
                Ok(content) => self.open_part(PayloadPart { content, ..empty }, depth + 1),
                // cloud-init drops all of user-data where one include fails. Here the others are used.
                Err(flaw) => self.give_up(empty, flaw),
            }
        }
    }

    /// Puts what an Ignition configuration refers to beside it; it is merged where it is read.
    fn resolve_references(&mut self, part: PayloadPart) {
        let resolved = ignition::reference::resolve_references(&part.content, &mut |fetch| {
            self.fetch_bytes(fetch).and_then(|content| self.count_unpacked(content))
        });
        self.keep_part(PayloadPart { resolved: resolved.map(Box::new), ..part });
    }

    fn fetch_bytes(&mut self, what: &FetchRequest) -> Result<Vec<u8>, Diagnostic> {
        let failed = |why: &str| {
            Diagnostic::error(
                DiagnosticCode::BadValue,
                SourceMark::default(),
                format!("a configuration this refers to is missing: {why}"),
            )
        };
        if !address::is_web(&what.url) {
            return Err(failed("its address is not http or https"));
        }
        self.addresses += 1;
        if self.addresses > MOST_ADDRESSES {
            return Err(too_much(format!("more than {MOST_ADDRESSES} addresses are referred to")));
        }
        match &mut self.references.fetch {
            Some(fetch) => fetch(what).map_err(|why| failed(&why)),
            None => Err(Diagnostic::note(
                DiagnosticCode::NoEffect,
                SourceMark::default(),
                "this refers to addresses, which are not asked here",
            )),
        }
    }

    /// Counts unpacked bytes, and refuses those beyond the limit.
    fn count_unpacked(&mut self, content: Vec<u8>) -> Result<Vec<u8>, Diagnostic> {
        self.bytes = self.bytes.saturating_add(content.len());
        if self.bytes > MOST_BYTES { Err(too_large()) } else { Ok(content) }
    }

    fn keep_part(&mut self, part: PayloadPart) {
        if self.parts.len() < MOST_PARTS {
            self.parts.push(part);
        } else if !self.full {
            self.full = true;
            let flaw = too_much(format!("there are more than {MOST_PARTS} parts; the rest is not used"));
            self.parts.push(PayloadPart { flaws: vec![flaw], ..PayloadPart::whole(part.name, Vec::new()) });
        }
    }

    /// Keeps the place of a part that cannot be opened, without its bytes.
    fn give_up(&mut self, part: PayloadPart, flaw: Diagnostic) {
        self.keep_part(PayloadPart {
            content: Vec::new(),
            kind: Some(PayloadKind::Empty),
            flaws: [part.flaws, vec![flaw]].concat(),
            ..part
        });
    }
}

/// A line of an include, without the word that it may begin with: cloud-init takes an address behind it.
fn included_address(line: &str) -> &str {
    let line = line.trim();
    let word = ["#include-once", "#include"]
        .into_iter()
        .find(|word| line.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word)));
    word.map_or(line, |word| line[word.len()..].trim_start_matches(':').trim())
}

/// A page as it is.
fn plain_fetch(url: &str) -> FetchRequest {
    FetchRequest {
        url: url.to_owned(),
        headers: Vec::new(),
        hash: None,
        gzip: false,
        fallback: None,
        timeouts: Timeouts::default(),
    }
}

/// Base64 as people paste it: with line ends, spaces and perhaps without padding.
fn decode_base64(content: &[u8]) -> Result<Vec<u8>, Diagnostic> {
    files::decode_base64(payload::without_marks(content)).ok_or_else(|| {
        Diagnostic::error(
            DiagnosticCode::Encoding,
            SourceMark::default(),
            "this is base64, but its end is damaged or missing",
        )
    })
}

fn unpack_gzip(content: &[u8], most: usize) -> Result<Vec<u8>, Diagnostic> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    match MultiGzDecoder::new(content).take(limit).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > most => Err(too_large()),
        Ok(_) => Ok(bytes),
        Err(_) => Err(Diagnostic::error(
            DiagnosticCode::Encoding,
            SourceMark::default(),
            "this is gzip, but it is damaged or cut off",
        )),
    }
}

fn too_large() -> Diagnostic {
    too_much(format!("unpacked, this is larger than {} MiB", MOST_BYTES >> 20))
}

fn too_much(message: String) -> Diagnostic {
    Diagnostic::error(DiagnosticCode::LimitExceeded, SourceMark::default(), message)
}

#[cfg(test)]
mod tests;
