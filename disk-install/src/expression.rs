//! Which disk is meant: `serial=ABC`, `transport=usb and size>=16GB`, `smallest >= 20 GB`.
//!
//! Pure. Invariant: an expression that fits two disks chooses none.

use std::fmt;
use std::str::FromStr;

use crate::disks::DiskFacts;

/// What a disk must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskExpression {
    terms: Vec<DiskTerm>,
    /// Which of those that are left.
    extreme: Option<Extreme>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extreme {
    Largest,
    Smallest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DiskTerm {
    /// A property is this text; `*` stands for anything.
    Is(Property, String),
    Size(Comparison, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    Model,
    Serial,
    Transport,
    Wwn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
    Exactly,
}

/// Why a disk does not fit, or that it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskMatch {
    /// It does not, for that reason.
    No(String),
    /// It does.
    Yes,
}

impl DiskExpression {
    /// Holds every disk against the expression, in the same order.
    #[must_use]
    pub fn match_disks(&self, disks: &[DiskFacts]) -> Vec<DiskMatch> {
        let mut matches: Vec<DiskMatch> = disks.iter().map(|disk| self.match_terms(disk)).collect();
        let left = disks.iter().zip(&matches).filter(|(_, found)| **found == DiskMatch::Yes);
        let sizes = left.map(|(disk, _)| disk.bytes);
        let (best, word) = match self.extreme {
            Some(Extreme::Largest) => (sizes.max(), "larger"),
            Some(Extreme::Smallest) => (sizes.min(), "smaller"),
            None => return matches,
        };
        for (disk, found) in disks.iter().zip(&mut matches) {
            if *found == DiskMatch::Yes && Some(disk.bytes) != best {
                *found = DiskMatch::No(format!("another one is {word}"));
            }
        }
        matches
    }

    fn match_terms(&self, disk: &DiskFacts) -> DiskMatch {
        let misses = self.terms.iter().filter_map(|term| term.mismatch_reason(disk));
        misses.into_iter().next().map_or(DiskMatch::Yes, DiskMatch::No)
    }
}

impl DiskTerm {
    /// Why the disk is not it.
    fn mismatch_reason(&self, disk: &DiskFacts) -> Option<String> {
        match self {
            Self::Is(property, wanted) => {
                let (name, value) = match property {
                    Property::Model => ("model", &disk.model),
                    Property::Serial => ("serial", &disk.serial),
                    Property::Transport => ("transport", &disk.transport),
                    Property::Wwn => ("wwn", &disk.wwn),
                };
                (!fits(wanted, value)).then(|| format!("its {name} is not {wanted}"))
            }
            Self::Size(comparison, bytes) => {
                let (holds, says) = match comparison {
                    Comparison::AtLeast => (disk.bytes >= *bytes, "smaller than"),
                    Comparison::AtMost => (disk.bytes <= *bytes, "larger than"),
                    Comparison::Exactly => (disk.bytes == *bytes, "not of"),
                };
                (!holds).then(|| format!("it is {says} {bytes} bytes"))
            }
        }
    }
}

/// Whether a text fits a pattern, in which `*` stands for anything. Letters' case does not matter: labels on disks
/// and what firmware says of them differ in it.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    last.map_or(rest.is_empty(), |part| part.is_empty() || text.ends_with(part))
}

impl FromStr for DiskExpression {
    type Err = ParseExpressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut expression = Self { terms: Vec::new(), extreme: None };
        for part in text.split(',').flat_map(|part| part.split(" and ")) {
            let part = part.trim();
            let failed = || ParseExpressionError { part: part.to_owned() };
            let split = part.find(['=', '<', '>']).unwrap_or(part.len());
            let (key, rest) = (part[..split].trim(), &part[split..]);
            let operator = rest.find(|char| !"=<>".contains(char)).unwrap_or(rest.len());
            let (operator, value) = (&rest[..operator], rest[operator..].trim());
            let property = match key {
                "largest" => {
                    expression.extreme = Some(Extreme::Largest);
                    None
                }
                "smallest" => {
                    expression.extreme = Some(Extreme::Smallest);
                    None
                }
                "size" if !value.is_empty() => None,
                "model" => Some(Property::Model),
                "serial" => Some(Property::Serial),
                "transport" => Some(Property::Transport),
                "wwn" => Some(Property::Wwn),
                _ => return Err(failed()),
            };
            let comparison = match operator {
                ">=" => Some(Comparison::AtLeast),
                "<=" => Some(Comparison::AtMost),
                "=" => Some(Comparison::Exactly),
                "" => None,
                _ => return Err(failed()),
            };
            match (property, comparison) {
                (Some(property), Some(Comparison::Exactly)) if !value.is_empty() => {
                    expression.terms.push(DiskTerm::Is(property, value.to_owned()));
                }
                (None, Some(comparison)) => {
                    let bytes = parse_size(value).ok_or_else(failed)?;
                    expression.terms.push(DiskTerm::Size(comparison, bytes));
                }
                // `smallest` alone.
                (None, None) if value.is_empty() => {}
                _ => return Err(failed()),
            }
        }
        Ok(expression)
    }
}

/// `20 GB`, `20GiB`, `20G` (GiB, as fdisk means it), or bytes.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim().to_lowercase().as_str() {
        "" | "b" | "bytes" => 1,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A part of an expression that means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseExpressionError {
    part: String,
}

impl std::error::Error for ParseExpressionError {}

impl fmt::Display for ParseExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` chooses no disk: name a device (/dev/sdb), or say serial=, wwn=, model=, transport=, size>=, smallest, \
             largest, joined by `and`",
            self.part
        )
    }
}
