//! Where the keys of people lie, and which kinds of keys such a file holds.
//!
//! Knows sshd's two places. Refuses to write: [`super::access`] does.

use std::path::Path;

use crate::files;

/// Bytes of the largest list of keys that is read: more keys than anyone has.
pub(super) const MAX_KEYS: u64 = 1 << 20;
/// In a home.
// sshd's default, and the place where people and all other tools look.
pub(super) const KEYS: &str = ".ssh/authorized_keys";
/// Where sshd is told to look, too (`AuthorizedKeysFile`); gone at each boot.
// What is taken back at the platform must not work any more. In a user's own file nobody could tell these
// keys from the user's.
pub(super) const PLATFORM_KEYS: &str = "/run/catamaran/keys";

/// The kinds of the keys in a file. Links are not followed: to read as sshd does, one must be the user.
pub(super) fn key_kinds(path: &Path) -> Vec<String> {
    let held = files::read(path, 0, MAX_KEYS).ok().flatten();
    held.map(|held| kinds_in(&held.content)).unwrap_or_default()
}

/// The kinds of keys, one a line; before one may stand options.
pub(super) fn kinds_in(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let is_kind = |word: &&str| ["ssh-", "ecdsa-", "sk-"].iter().any(|start| word.starts_with(start));
    let kind = |line: &str| line.split_ascii_whitespace().find(is_kind).map(str::to_owned);
    text.lines().filter(|line| !line.starts_with('#')).filter_map(kind).collect()
}
