//! The kernel command line of a slot: what is signed of it, and what the boot selector adds.
//!
//! Knows which lines can be signed, which parameters are the selector's own, and when a kernel was given
//! exactly these two. Refuses to know what a word of the signed line means.
//! Invariant: a line that [`CommandLine::check_given`] accepts has the signed words, all of them, in their order,
//! between GRUB's `BOOT_IMAGE=` and the selector's parameters, and no other word.
//!
//! Documentation: <https://docs.kernel.org/admin-guide/kernel-parameters.html> and GRUB's manual, "linux".

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of the longest signed line. GRUB reads it from a block of 1024, and the kernel keeps 2048 of all
/// that it is given (`COMMAND_LINE_SIZE` of x86), of which the selector's parameters take some 300.
pub const MAX_LINE: usize = 900;

/// What begins the selector's parameters, and those that a person writes.
pub const PREFIX: &str = "catamaran.";
/// The parameters that the selector adds, each once. No signed line may have one of them.
pub const SELECTOR_PARAMETERS: [&str; 2] = ["slot", "disk"];

/// What GRUB puts first: where it read the kernel.
const BOOT_IMAGE: &str = "BOOT_IMAGE=";
/// Most bytes of a word that a message repeats.
const MAX_SHOWN: usize = 64;

/// A line that can be signed: words of printable ASCII that neither GRUB nor the kernel reads in another way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandLine {
    words: Vec<String>,
}

impl CommandLine {
    /// Its words, in order.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    /// This line with more words at its end.
    pub fn append_line(&self, more: &Self) -> Result<Self, ParseCommandLineError> {
        Self::try_from_words(self.words().chain(more.words()))
    }

    /// Whether a kernel was given this line and nothing else but what GRUB and the selector add.
    /// `kernel` is the path of the slot's kernel, as GRUB names it.
    // Considered: to read /boot/env once more through dm-verity. That would check the file, not what GRUB
    // made of it.
    pub fn check_given(&self, given: &GivenLine<'_>, kernel: &str) -> Result<(), CommandLineError> {
        let rest = match given.words.split_first() {
            Some((first, rest)) if is_boot_image(first, kernel) => rest,
            first => {
                let given = first.map(|(word, _)| shorten_word(word)).unwrap_or_default();
                return Err(CommandLineError::BootImage { given, kernel: kernel.to_owned() });
            }
        };
        let longest = self.words.len().max(rest.len());
        for (number, index) in (1..).zip(0..longest) {
            match (self.words.get(index), rest.get(index)) {
                (Some(signed), Some(given)) if signed == given => {}
                (Some(signed), Some(given)) => {
                    let (signed, given) = (shorten_word(signed), shorten_word(given));
                    return Err(CommandLineError::Changed { number, signed, given });
                }
                (Some(signed), None) => {
                    return Err(CommandLineError::Missing { signed: shorten_word(signed) });
                }
                (None, given) => {
                    let given = given.map(|word| shorten_word(word)).unwrap_or_default();
                    return Err(CommandLineError::Added { given });
                }
            }
        }
        Ok(())
    }

    fn try_from_words<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, ParseCommandLineError> {
        let words: Vec<String> = words.map(str::to_owned).collect();
        let length = words.iter().map(|word| word.len() + 1).sum::<usize>().saturating_sub(1);
        if length > MAX_LINE {
            return Err(ParseCommandLineError::TooLong { given: length });
        }
        match words.iter().find(|word| is_reserved(word)) {
            Some(word) => Err(ParseCommandLineError::Reserved { word: shorten_word(word) }),
            None => Ok(Self { words }),
        }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

impl FromStr for CommandLine {
    type Err = ParseCommandLineError;

    fn from_str(text: &str) -> Result<Self, ParseCommandLineError> {
        if text.len() > MAX_LINE {
            return Err(ParseCommandLineError::TooLong { given: text.len() });
        }
        match text.chars().find(|char| !is_plain(*char)) {
            Some(char) => Err(ParseCommandLineError::Character { char }),
            None => Self::try_from_words(text.split(' ').filter(|word| !word.is_empty())),
        }
    }
}

impl TryFrom<String> for CommandLine {
    type Error = ParseCommandLineError;

    fn try_from(text: String) -> Result<Self, ParseCommandLineError> {
        text.parse()
    }
}

impl From<CommandLine> for String {
    fn from(line: CommandLine) -> Self {
        line.to_string()
    }
}

/// What a kernel was given, in two parts: what stands before the selector's parameters, and these.
///
/// The selector writes last, so the parameters are what ends the line. A word in the slot's own part that
/// looks like one of them therefore decides nothing: it stays in that part, where the check finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenLine<'a> {
    words: Vec<&'a str>,
    parameters: BTreeMap<&'a str, &'a str>,
}

impl<'a> GivenLine<'a> {
    /// Splits a line, such as the kernel shows in /proc/cmdline.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
        let mut parameters = BTreeMap::new();
        // From the end: the selector writes last, so what stands before can only add words that the check
        // then finds.
        while let Some((name, value)) = words.last().and_then(|word| selector_parameter(word)) {
            if parameters.contains_key(name) {
                break;
            }
            parameters.insert(name, value);
            words.pop();
        }
        Self { words, parameters }
    }

    /// The value that the selector gave to one of [`SELECTOR_PARAMETERS`].
    #[must_use]
    pub fn selector_parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.get(name).copied()
    }
}

/// Why a line cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ParseCommandLineError {
    #[error(
        "the command line has {char:?}; words of printable ASCII are allowed, without quotes, `$` and backslashes"
    )]
    Character { char: char },
    #[error("the word {word:?} of the command line is the boot loader's own")]
    Reserved { word: String },
    #[error("the command line has {given} bytes, at most {MAX_LINE} are allowed")]
    TooLong { given: usize },
}

/// How what a kernel was given differs from the signed line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum CommandLineError {
    #[error("{given:?} was added")]
    Added { given: String },
    #[error("it begins with {given:?}, which does not name the kernel {kernel}")]
    BootImage { given: String, kernel: String },
    #[error("word {number} is {given:?}, but {signed:?} was signed")]
    Changed { number: usize, signed: String, given: String },
    #[error("{signed:?} is missing")]
    Missing { signed: String },
}

/// The kernel takes quotes for itself, GRUB also `$` and backslashes; a space only ends a word.
fn is_plain(char: char) -> bool {
    (char.is_ascii_graphic() && !matches!(char, '"' | '\'' | '$' | '\\')) || char == ' '
}

fn is_reserved(word: &str) -> bool {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    let ours = name.strip_prefix(PREFIX).is_some_and(|name| SELECTOR_PARAMETERS.contains(&name));
    // By these names the kernel is told what GRUB and the selector did, so nobody else may use them.
    ours || name == BOOT_IMAGE.trim_end_matches('=')
}

fn selector_parameter(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.strip_prefix(PREFIX)?.split_once('=')?;
    SELECTOR_PARAMETERS.contains(&name).then_some((name, value))
}

/// `BOOT_IMAGE=(DEVICE)/PATH`, where the device is GRUB's name of a disk, a partition or a loopback.
fn is_boot_image(word: &str, kernel: &str) -> bool {
    let device = word
        .strip_prefix(BOOT_IMAGE)
        .and_then(|rest| rest.strip_suffix(kernel))
        .and_then(|rest| rest.strip_prefix('(')?.strip_suffix(')'));
    device.is_some_and(|device| {
        // GRUB's device syntax, such as `hd0,gpt4`: "Device syntax" in its manual.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b",_-".contains(&byte);
        (1..=MAX_SHOWN).contains(&device.len()) && device.bytes().all(allowed)
    })
}

fn shorten_word(word: &str) -> String {
    word.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests;
