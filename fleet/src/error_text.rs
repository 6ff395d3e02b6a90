//! An error as one line.
//!
//! Knows how the causes of an error hang together. Refuses to know who reads the line: what a terminal must not see
//! is removed by who prints it.

use std::error::Error;

/// An error and its causes in one line.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries write their cause into their own text (`ureq::Error::Io` does); ours do not.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
