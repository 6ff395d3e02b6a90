//! From a text of the spec to a value, or a sentence about what is wrong with it.

use std::path::{Path, PathBuf};

use document::spelling;
use image_format::bytes::Bytes;
use image_format::command_line::{CommandLine, ParseCommandLineError};
use image_format::version::Version;

use super::super::ContainerEngine;
use crate::artefact::ArtefactKind;

pub(super) fn parse_artefact(text: &str) -> Result<ArtefactKind, String> {
    let names = || ArtefactKind::ALL.into_iter().map(ArtefactKind::kind_name);
    // The disk itself is there without being asked for.
    match ArtefactKind::of_name(text) {
        Some(kind) if kind.kind_name() == "raw" => Err("disk.raw is always written".to_owned()),
        Some(kind) => Ok(kind),
        None => Err(match spelling::nearest_name(text, names()) {
            Some(near) => format!("no format is called `{text}`; did you mean `{near}`?"),
            None => {
                format!("no format is called `{text}`; there are {}", names().collect::<Vec<_>>().join(", "))
            }
        }),
    }
}

pub(super) fn parse_word(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    // Some become names of folders, others words of a program's command line.
    if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) || !text.chars().all(allowed) {
        return Err("letters, digits and `-_.+` only, a letter or digit first".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn parse_package(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.+".contains(c);
    let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if text.len() < 2 || !begins || !text.chars().all(allowed) {
        return Err("not the name of a Debian package: lower-case letters, digits and `-.+`".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn parse_unit(text: &str) -> Result<String, String> {
    // systemd.unit(5), but for kinds that cannot be enabled.
    const KINDS: [&str; 7] = ["automount", "mount", "path", "service", "socket", "target", "timer"];
    match text.rsplit_once('.') {
        Some((_, kind)) if KINDS.contains(&kind) => Ok(text.to_owned()),
        _ => Err(format!("not the name of a unit: it ends in .{}", KINDS.join(", ."))),
    }
}

pub(super) fn parse_url(text: &str) -> Result<String, String> {
    if ["http://", "https://", "file://"].iter().any(|scheme| text.starts_with(scheme)) && !text.contains(' ')
    {
        Ok(text.to_owned())
    } else {
        Err("not a URL that starts with http://, https:// or file://".to_owned())
    }
}

pub(super) fn command_line(text: &str) -> Result<CommandLine, String> {
    text.parse().map_err(|error: ParseCommandLineError| error.to_string())
}

pub(super) fn parse_engine(text: &str) -> Result<ContainerEngine, String> {
    ContainerEngine::NAMES
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, engine)| *engine)
        .ok_or_else(|| "one of docker, podman, none".to_owned())
}

pub(super) fn parse_version(text: &str) -> Result<Version, String> {
    text.parse().map_err(|error| format!("not a version: {error}"))
}

pub(super) fn parse_epoch(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "a security epoch is a whole number from 0 on".to_owned())
}

pub(super) fn parse_size(text: &str) -> Result<Bytes, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].trim() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        // `2` could be bytes or GiB, and a wrong guess costs a build.
        "" => return Err(format!("a size needs its unit: {text} MiB, or {text} GiB?")),
        other => return Err(format!("`{other}` is no unit of size here: KiB, MiB, GiB")),
    };
    let bytes = text[..digits].parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    let bytes = bytes.ok_or_else(|| "a size is a whole number and a unit, like 1536 MiB".to_owned())?;
    if bytes == 0 || !bytes.is_multiple_of(1 << 20) {
        return Err("a partition is a multiple of 1 MiB".to_owned());
    }
    Ok(Bytes::new(bytes))
}

pub(super) fn resolve_path(folder: &Path, text: &str) -> Result<PathBuf, String> {
    let path = folder.join(text);
    // A missing one is a mistake of the spec, so it is found with the others.
    if path.exists() { Ok(path) } else { Err(format!("{} does not exist", path.display())) }
}

pub(super) fn parse_inner_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') || text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("a path inside the root, without a leading slash, like usr/share/doc".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn parse_absolute_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("an absolute path".to_owned()) }
}

pub(super) fn uid_number(text: &str) -> Result<u32, String> {
    match text.parse() {
        // Debian policy, 9.2.2.
        Ok(uid @ 1000..=59_999) => Ok(uid),
        _ => Err("a number from 1000 to 59999, Debian's range for people".to_owned()),
    }
}
