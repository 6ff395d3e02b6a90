//! Why an account cannot be as it was asked for.

use std::ops::RangeInclusive;

/// Why an account cannot be as it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("{date} is no day")]
    Date { date: String },
    #[error("a text of {length} characters has a colon or a line's end in it")]
    Field { length: usize },
    #[error("all numbers from {} to {} are taken", range.start(), range.end())]
    Full { range: RangeInclusive<u32> },
    #[error("there is no group {name}")]
    NoGroup { name: String },
    #[error("there is no user {name}")]
    NoUser { name: String },
    #[error("{kind} number {number} belongs to another one")]
    Taken { kind: &'static str, number: u32 },
}
