//! Release versions, `MAJOR.MINOR.PATCH` with an optional `+build`, and their order.
//!
//! Knows the grammar and the order; refuses to know where versions come from.
//! Invariant: one text per version, and versions that compare equal are the same text.
//!
//! Documentation: <https://semver.org/spec/v2.0.0.html>. Unlike there, there are no pre-releases, and builds
//! have an order: a release that is built again must come after the one before it.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest version text that is read.
pub const MAX_TEXT: usize = 64;

/// A release version. A version with a build comes after the same one without; builds compare
/// part by part, numbers as numbers and before words.
///
/// ```
/// use image_format::version::Version;
///
/// let release: Version = "1.2.3".parse().unwrap();
/// let rebuilt: Version = "1.2.3+build.7".parse().unwrap();
/// assert!(release < rebuilt && rebuilt < Version::new(1, 3, 0));
/// assert!("1.02.3".parse::<Version>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    build: Option<String>,
}

impl Version {
    /// A version without a build.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch, build: None }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        self.build.as_ref().map_or(Ok(()), |build| write!(f, "+{build}"))
    }
}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        if text.len() > MAX_TEXT {
            return Err(ParseVersionError::TooLong { given: text.len() });
        }
        let shape = || ParseVersionError::Shape { given: text.to_owned() };
        let (release, build) = match text.split_once('+') {
            Some((release, build)) => (release, Some(build)),
            None => (text, None),
        };
        let numbers = release.split('.').map(parse_number).collect::<Option<Vec<u32>>>().ok_or_else(shape)?;
        let [major, minor, patch] = numbers[..] else { return Err(shape()) };
        if build.is_some_and(|build| !build.split('.').all(is_build_part)) {
            return Err(shape());
        }
        Ok(Self { major, minor, patch, build: build.map(ToOwned::to_owned) })
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let release = (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch));
        release.then_with(|| match (&self.build, &other.build) {
            (Some(one), Some(two)) => build_order(one, two),
            (one, two) => one.is_some().cmp(&two.is_some()),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TryFrom<String> for Version {
    type Error = ParseVersionError;

    fn try_from(text: String) -> Result<Self, ParseVersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

/// Why a text is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseVersionError {
    #[error("version {given:?} is not MAJOR.MINOR.PATCH[+build] (numbers without leading zeros)")]
    Shape { given: String },
    #[error("version text has {given} characters, at most {MAX_TEXT} are allowed")]
    TooLong { given: usize },
}

fn parse_number(text: &str) -> Option<u32> {
    // Semantic Versioning, item 2. Rust's `parse` would also take a `+`.
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && digits { text.parse().ok() } else { None }
}

// Semantic Versioning, item 10.
fn is_build_part(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn build_order(one: &str, two: &str) -> Ordering {
    let parts = |text: &str| text.split('.').map(BuildPart::parse_part).collect::<Vec<_>>();
    // The texts decide last, so that 01 and 1 are not the same build.
    parts(one).cmp(&parts(two)).then_with(|| one.cmp(two))
}

// The order of Semantic Versioning's item 11: numbers as numbers, and before words. The derived order follows
// the lines.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum BuildPart {
    Number(u64),
    Word(String),
}

impl BuildPart {
    fn parse_part(text: &str) -> Self {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            // A number that is too large for 64 bits is a word, so that every text still has its place.
            Ok(number) if digits => Self::Number(number),
            _ => Self::Word(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_by_number_and_then_by_build() {
        let ordered = ["0.9.10", "0.10.0", "1.0.0", "1.0.0+2", "1.0.0+10", "1.0.0+10.a", "1.0.0+rc", "1.0.1"];

        assert!(ordered.windows(2).all(|pair| version(pair[0]) < version(pair[1])));
    }

    #[test]
    fn versions_print_as_they_were_read() {
        for text in ["0.0.0", "1.2.3", "4294967295.0.1", "1.2.3+20260101.git-1a2b"] {
            assert_eq!(version(text).to_string(), text);
        }
    }

    #[test]
    fn anything_but_the_grammar_is_refused() {
        let long = format!("1.2.3+{}", "a".repeat(MAX_TEXT));
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.-3",
            "+1.2.3",
            "1.2.3+",
            "1.2.3+a..b",
            "1.2.3-rc1",
            " 1.2.3",
            "1.2.4294967296",
            "1.2.3+ä",
            &long,
        ] {
            assert!(text.parse::<Version>().is_err(), "{text:?} was accepted");
        }
    }
}
