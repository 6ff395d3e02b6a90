//! SHA-256 digests and hexadecimal text.
//!
//! Knows lower-case hex of bounded length; refuses to know what was hashed.
//! Invariant: one text per value, so equal digests are equal strings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The digest of some bytes.
    #[must_use]
    pub fn digest_of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// A digest computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl FromStr for Sha256 {
    type Err = ParseHexError;

    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        fixed_from_hex(text).map(Self)
    }
}

impl TryFrom<String> for Sha256 {
    type Error = ParseHexError;

    fn try_from(text: String) -> Result<Self, ParseHexError> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

/// Why a text is not the hexadecimal number it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseHexError {
    #[error("{found:?} is not a lower-case hexadecimal digit")]
    Digit { found: char },
    #[error("{given} hexadecimal digits where {needed} are needed")]
    Length { given: usize, needed: usize },
    #[error("{given} hexadecimal digits, but bytes have two each")]
    Odd { given: usize },
}

/// Lower-case hexadecimal text.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads hexadecimal text of any even length; the caller bounds it first.
pub fn from_hex(text: &str) -> Result<Vec<u8>, ParseHexError> {
    if !text.len().is_multiple_of(2) {
        return Err(ParseHexError::Odd { given: text.len() });
    }
    let nibbles = text.chars().map(parse_nibble).collect::<Result<Vec<u8>, _>>()?;
    Ok(nibbles.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Reads hexadecimal text of exactly `N` bytes.
pub fn fixed_from_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseHexError> {
    if text.len() != 2 * N {
        return Err(ParseHexError::Length { given: text.len(), needed: 2 * N });
    }
    let bytes = from_hex(text)?;
    bytes.try_into().map_err(|bytes: Vec<u8>| ParseHexError::Length { given: 2 * bytes.len(), needed: 2 * N })
}

fn parse_nibble(digit: char) -> Result<u8, ParseHexError> {
    let value = match digit {
        '0'..='9' => u32::from(digit) - u32::from('0'),
        'a'..='f' => u32::from(digit) - u32::from('a') + 10,
        // Capitals would be a second text of the same value, and names of files are compared as text.
        _ => return Err(ParseHexError::Digit { found: digit }),
    };
    u8::try_from(value).map_err(|_| ParseHexError::Digit { found: digit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

        assert_eq!(Sha256::digest_of(b"").to_string(), text);
        assert_eq!(text.parse(), Ok(Sha256::digest_of(b"")));
    }

    #[test]
    fn a_digest_has_one_spelling_only() {
        let upper = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";

        assert_eq!(upper.parse::<Sha256>(), Err(ParseHexError::Digit { found: 'E' }));
        assert_eq!("e3".parse::<Sha256>(), Err(ParseHexError::Length { given: 2, needed: 64 }));
        assert_eq!(from_hex("abc"), Err(ParseHexError::Odd { given: 3 }));
        assert!(from_hex("aß").is_err());
    }
}
