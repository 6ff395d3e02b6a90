//! `write_files`.
//!
//! Knows paths, encodings, owners and permissions. Refuses what could close the machine, and a file
//! whose content or rights cannot be understood: a secret must not land in a file that all may read.
//! Invariant: a bad file costs itself only.
//!
//! Documentation: cloud-init's module "Write Files" in
//! <https://docs.cloud-init.io/en/latest/reference/modules.html>, coreos-cloudinit's
//! `Documentation/cloud-config.md`, `path_resolution(7)`, chmod(1).

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::fields::{FieldKey, MappingFields, bad_choice, is_bare, supported_key};
use crate::address;
use crate::plan::step::{AccountRef, ExistingFile, FetchRequest, FileContent, FileOwner, FileStep, Timeouts};
use crate::protected::{self, PolicyObjection};
use crate::room::DecompressionBudget;
use crate::secret::Secret;
use document::diagnostic::{Diagnostic, DiagnosticCode, Diagnostics};
use document::source::Located;
use document::spelling;
use document::yaml::{Node, Value};

/// The key of the top level that this module reads.
pub const KEYS: &[FieldKey] = &[supported_key("write_files")];
/// The keys of a file.
pub const FILE_KEYS: &[FieldKey] = &[
    supported_key("path"),
    supported_key("content"),
    supported_key("encoding"),
    supported_key("owner"),
    supported_key("permissions"),
    supported_key("append"),
    supported_key("defer"),
    supported_key("source"),
];
/// The keys of `source`.
pub const SOURCE_KEYS: &[FieldKey] = &[supported_key("uri"), supported_key("headers")];

// `PATH_MAX` is 4096 with the zero at its end.
const LONGEST_PATH: usize = 4095;

/// A file and whether it waits for everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// The file.
    pub file: FileStep,
    /// Whether it is written after users' own settings, as `defer` asks.
    pub defer: bool,
    /// The path of keys to it.
    pub key: String,
}

/// The encodings people write; each is some of gzip and base64.
const ENCODINGS: [(&str, bool, bool); 11] = [
    ("", false, false),
    ("text/plain", false, false),
    ("text", false, false),
    ("b64", false, true),
    ("base64", false, true),
    ("gz", true, false),
    ("gzip", true, false),
    ("gz+base64", true, true),
    ("gzip+base64", true, true),
    ("gz+b64", true, true),
    ("gzip+b64", true, true),
];

/// How long a server is asked before `content` is used instead; cloud-init's three tries take as long.
// The pauses between tries grow, so without this bound the fallback would come after minutes.
const FALLBACK_SECONDS: u64 = 20;

pub(crate) fn read(
    fields: &mut MappingFields<'_>,
    room: &mut DecompressionBudget,
    found: &mut Diagnostics,
) -> Vec<Located<WrittenFile>> {
    let path = fields.child_path("write_files");
    let items = fields.read_list("write_files", found).iter().enumerate();
    let files: Vec<Located<WrittenFile>> =
        items.filter_map(|(index, item)| read_file(item, format!("{path}[{index}]"), room, found)).collect();
    warn_of_rewritten(&files, found);
    files
}

/// Of two files at one path, only the later one is there in the end; parts that add up may have both.
fn warn_of_rewritten(files: &[Located<WrittenFile>], found: &mut Diagnostics) {
    let mut ordered: Vec<&Located<WrittenFile>> = files.iter().collect();
    // Deferred files are written after all others, wherever they stand.
    ordered.sort_by_key(|written| written.value.defer);
    let mut last: HashMap<&str, &Located<WrittenFile>> = HashMap::new();
    for written in ordered {
        let file = &written.value.file;
        if file.existing == ExistingFile::Append {
            continue;
        }
        if let Some(earlier) = last.insert(&file.path, written).filter(|earlier| earlier.value.file != *file)
        {
            let message = format!("{} is written again below; this one is not used", file.path);
            let diagnostic = Diagnostic::warning(DiagnosticCode::Conflict, earlier.at, message);
            found.push(diagnostic.with_key(earlier.value.key.clone()));
        }
    }
}

fn read_file(
    item: &Node,
    key: String,
    room: &mut DecompressionBudget,
    found: &mut Diagnostics,
) -> Option<Located<WrittenFile>> {
    let mut fields = MappingFields::read_mapping(item, FILE_KEYS, key.clone(), found)?;
    let path = file_path(&mut fields, found);
    let content = read_content(&mut fields, room, found);
    // A template that left a value empty means something, and a secret may be in the file.
    fields.warn_if_empty("permissions", "a new file gets 0644, which all may read", found);
    fields.warn_if_empty("owner", "a new file is root's", found);
    fields.warn_if_empty("content", "the file is empty", found);
    let mode = read_permissions(&mut fields, found);
    let owner = read_owner(&mut fields, found);
    let append = fields.read_flag("append", found).is_some_and(|flag| flag.value);
    let defer = fields.read_flag("defer", found).is_some_and(|flag| flag.value);
    // Half a file would be worse than none: with other rights or cut contents.
    if fields.has_broken_field() {
        return None;
    }
    let existing = if append { ExistingFile::Append } else { ExistingFile::Replace };
    let file = FileStep { path: path?, content: content?, mode, owner, existing };
    Some(Located { value: WrittenFile { file, defer, key }, at: item.at })
}

fn file_path(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<String> {
    let Some(text) = fields.read_text("path", found) else {
        if !fields.has_broken_field() {
            let at = fields.start_mark();
            fields.refuse_field(
                "path",
                Diagnostic::error(DiagnosticCode::MissingKey, at, "this file has no `path`"),
                found,
            );
        }
        return None;
    };
    match clean_path(&text.value) {
        Err(flaw) => {
            fields.refuse_field(
                "path",
                Diagnostic::error(DiagnosticCode::BadValue, text.at, format!("`path` {flaw}")),
                found,
            );
            None
        }
        Ok(path) => match protected::check_path(&path) {
            Some(PolicyObjection { message, instead }) => {
                let diagnostic = Diagnostic::error(DiagnosticCode::Protected, text.at, message);
                fields.refuse_field("path", diagnostic.with_help(instead), found);
                None
            }
            None => Some(path),
        },
    }
}

/// The path as it is meant: relative ones start at the root, doubled slashes and dots vanish.
pub fn clean_path(path: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    match parts.last() {
        _ if path.len() > LONGEST_PATH => Err("is too long"),
        _ if path.contains(['\0', '\n']) => Err("has a line break or a zero in it"),
        _ if parts.contains(&"..") => Err("has `..` in it; write where the file really goes"),
        _ if path.starts_with('~') => {
            Err("begins with `~`, which only a shell knows; write /home/core, or where it lies")
        }
        _ if path.ends_with('/') => Err("ends with a slash, but a file is to be written"),
        None => Err("is empty"),
        Some(_) => Ok(format!("/{}", parts.join("/"))),
    }
}

fn read_content(
    fields: &mut MappingFields<'_>,
    room: &mut DecompressionBudget,
    found: &mut Diagnostics,
) -> Option<FileContent> {
    let inline = read_inline(fields, room, found);
    let Some(node) = fields.field_node("source") else {
        return inline.map(Secret::new).map(FileContent::Inline);
    };
    let fallback = fields.field_node("content").and(inline).map(Secret::new);
    let mut source = MappingFields::read_mapping(node, SOURCE_KEYS, fields.child_path("source"), found)?;
    let url = source.read_text("uri", found);
    let headers = read_headers(&source, found);
    match url {
        Some(url) if address::is_web(&url.value) => {
            let (gzip, _) = read_encoding(fields, found)?;
            // Who gave another content does not want to wait long for this one.
            let total = fallback.as_ref().map(|_| FALLBACK_SECONDS);
            let timeouts = Timeouts { headers: None, total };
            Some(FileContent::Fetched(FetchRequest {
                url: url.value,
                headers,
                hash: None,
                gzip,
                fallback,
                timeouts,
            }))
        }
        _ => {
            let at = url.map_or(node.at, |url| url.at);
            let message = "`source.uri` must be an http or https address";
            fields.refuse_field("source", Diagnostic::error(DiagnosticCode::BadValue, at, message), found);
            None
        }
    }
}

fn read_headers(source: &MappingFields<'_>, found: &mut Diagnostics) -> Vec<(String, Secret<String>)> {
    let Some(node) = source.field_node("headers") else { return Vec::new() };
    let Value::Mapping(entries) = &node.value else {
        found.push(super::fields::wrong_type("a mapping", node).with_key(source.child_path("headers")));
        return Vec::new();
    };
    let value =
        |entry: &document::yaml::MappingEntry| super::fields::text_of(&entry.value).map(|text| text.value);
    entries.iter().filter_map(|entry| Some((entry.key.clone(), Secret::new(value(entry)?)))).collect()
}

/// The bytes of `content`, decoded; empty if there is none.
fn read_inline(
    fields: &mut MappingFields<'_>,
    room: &mut DecompressionBudget,
    found: &mut Diagnostics,
) -> Option<Vec<u8>> {
    let (gzip, base64) = read_encoding(fields, found)?;
    let Some(node) = fields.field_node("content") else { return Some(Vec::new()) };
    let (mut bytes, is_binary) = match &node.value {
        Value::Scalar(scalar) if scalar.binary => (scalar.text.as_bytes().to_vec(), true),
        _ => (fields.read_text("content", found)?.value.into_bytes(), false),
    };
    let at = node.at;
    if base64 || is_binary {
        if let Some(decoded) = decode_base64(&bytes) {
            bytes = decoded;
        } else {
            fields.refuse_field(
                "content",
                Diagnostic::error(DiagnosticCode::Encoding, at, "`content` is not base64"),
                found,
            );
            return None;
        }
    }
    if base64 && is_binary {
        // YAML's own decoding comes first, as with cloud-init; many write both and encoded once.
        if let Some(decoded) = decode_base64(&bytes) {
            bytes = decoded;
        } else {
            let message = "`!!binary` is base64 already, so `encoding` has nothing more to decode";
            let diagnostic = Diagnostic::warning(DiagnosticCode::NoEffect, at, message);
            found.push(
                diagnostic.with_help("leave one of the two out").with_key(fields.child_path("content")),
            );
        }
    }
    if gzip {
        match room.unpack_gzip(&bytes) {
            Ok(unpacked) => bytes = unpacked,
            Err(flaw) => {
                fields.refuse_field(
                    "content",
                    Diagnostic::error(DiagnosticCode::Encoding, at, format!("`content` {flaw}")),
                    found,
                );
                return None;
            }
        }
    }
    Some(bytes)
}

/// Which of gzip and base64 `encoding` asks for.
fn read_encoding(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<(bool, bool)> {
    let Some(text) = fields.read_text("encoding", found) else {
        return (!fields.has_broken_field()).then_some((false, false));
    };
    // cloud-init compares in small letters, too.
    let written = text.value.to_ascii_lowercase();
    if let Some((_, gzip, base64)) = ENCODINGS.iter().find(|(name, ..)| *name == written) {
        return Some((*gzip, *base64));
    }
    let near = spelling::nearest_name(
        &written,
        ENCODINGS.iter().map(|(name, ..)| *name).filter(|name| !name.is_empty()),
    );
    let diagnostic =
        bad_choice("encoding", near.unwrap_or_default(), text.at, &["b64", "gz", "gz+b64", "text/plain"]);
    fields.refuse_field("encoding", diagnostic, found);
    None
}

/// Base64 as people write it: broken into lines, with or without padding.
pub(crate) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    // Padding is taken off and put on again: people cut it off, and some programs never write it.
    let digits: Vec<u8> =
        text.iter().copied().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=').collect();
    let padding = (4 - digits.len() % 4) % 4;
    STANDARD.decode([digits.as_slice(), &b"=="[..padding.min(2)]].concat()).ok()
}

/// Octal digits, read from what was typed: `0644`, `'644'`, `0o644` and `420` mean what they look like.
fn read_permissions(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> Option<u32> {
    let text = fields.read_text("permissions", found)?;
    if let Some(mode) = parse_mode(text.value.trim()) {
        warn_odd_mode(mode, &text, fields, found);
        return Some(mode);
    }
    let decimal = text
        .value
        .trim()
        .parse::<u32>()
        .ok()
        .filter(|_| fields.field_node("permissions").is_some_and(is_bare));
    let diagnostic = Diagnostic::error(
        DiagnosticCode::BadValue,
        text.at,
        "`permissions` must be 3 or 4 octal digits, like \"0644\"",
    );
    let diagnostic = match decimal.filter(|mode| *mode <= 0o7777) {
        Some(decimal) => {
            diagnostic.with_help(format!("if it was meant as a decimal number, write \"{decimal:04o}\""))
        }
        None => diagnostic,
    };
    fields.refuse_field("permissions", diagnostic, found);
    None
}

/// A mode by which others may do what its owner may not is hardly meant: `420` is what programs make of
/// `0644` that write YAML without its octal numbers, and cloud-init reads it so; CoreOS reads 0420.
fn warn_odd_mode(mode: u32, text: &Located<String>, fields: &MappingFields<'_>, found: &mut Diagnostics) {
    let is_usual = |mode: u32| {
        let (owner, group, others) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
        group & !owner == 0 && others & !owner == 0
    };
    let written = text.value.trim();
    if is_usual(mode) || written.starts_with('0') {
        return;
    }
    let message = format!(
        "`permissions` of {written} is read as octal {mode:04o}, by which others may do what the owner may not"
    );
    let diagnostic = Diagnostic::warning(DiagnosticCode::BadValue, text.at, message)
        .with_key(fields.child_path("permissions"));
    let decimal = written.parse::<u32>().ok().filter(|decimal| *decimal <= 0o7777 && is_usual(*decimal));
    found.push(match decimal {
        Some(decimal) => {
            diagnostic.with_help(format!("if a program lost the octal, write \"{decimal:04o}\""))
        }
        None => diagnostic,
    });
}

/// Reads a mode.
pub(crate) fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix("0O")).unwrap_or(text);
    let digits = match digits.len() {
        // coreos-cloudinit's own rule is `^0?[0-7]{3,4}$`.
        5 => digits.strip_prefix('0')?,
        _ => digits,
    };
    if !(3..=4).contains(&digits.len()) || !digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        return None;
    }
    u32::from_str_radix(digits, 8).ok()
}

/// `user`, `user:group`, `:group`, by name or number.
fn read_owner(fields: &mut MappingFields<'_>, found: &mut Diagnostics) -> FileOwner {
    let Some(text) = fields.read_text("owner", found) else { return FileOwner::default() };
    if let Some(owner) = parse_owner(&text.value) {
        owner
    } else {
        let diagnostic =
            Diagnostic::error(DiagnosticCode::BadValue, text.at, "`owner` must be `user` or `user:group`");
        fields.refuse_field("owner", diagnostic, found);
        FileOwner::default()
    }
}

fn parse_owner(text: &str) -> Option<FileOwner> {
    let (user, group) = text.trim().split_once(':').unwrap_or_else(|| (text.trim(), ""));
    let half = |name: &str| match name {
        "" => Ok(None),
        name => parse_account(name).map(Some).ok_or(()),
    };
    Some(FileOwner { user: half(user).ok()?, group: half(group).ok()? })
}

fn parse_account(name: &str) -> Option<AccountRef> {
    let id = name.parse().ok().map(AccountRef::Id);
    id.or_else(|| super::accounts::check_name(name).is_ok().then(|| AccountRef::Name(name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal_however_they_are_written() {
        for (text, expected) in
            [("644", 0o644), ("0644", 0o644), ("0o755", 0o755), ("4755", 0o4755), ("04755", 0o4755)]
        {
            assert_eq!(parse_mode(text), Some(expected), "{text}");
        }
        for bad in ["", "9", "888", "rw-", "77777", "-644", "12"] {
            assert_eq!(parse_mode(bad), None, "{bad}");
        }
    }

    #[test]
    fn base64_is_read_as_people_write_it() {
        for text in ["aGVsbG8=", "aGVs\nbG8=\n", "aGVsbG8"] {
            assert_eq!(decode_base64(text.as_bytes()).as_deref(), Some(b"hello".as_slice()), "{text}");
        }
        assert_eq!(decode_base64(b"a"), None);
        assert_eq!(decode_base64(b"\xff\xff"), None);
    }

    #[test]
    fn paths_are_made_clean_and_may_not_climb() {
        assert_eq!(clean_path("etc//x/./y").as_deref(), Ok("/etc/x/y"));
        for bad in ["", "/", "~/x", "/etc/../etc/shadow", "/a/", "/a\nb", "/a\0"] {
            assert!(clean_path(bad).is_err(), "{bad:?}");
        }
    }
}
