//! Says what came of it: output on one stream, the chain of errors once on the other.
//!
//! Knows exit codes. Refuses to know what was done.
//! Invariant: nothing else in the program prints.
#![expect(clippy::print_stderr, reason = "this is the module that reports")]

use error_text::error_chain;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::run_error::RunError;

/// The exit code of a command line that is not understood, as sysexits.h has it. The small numbers
/// are verdicts.
const NOT_UNDERSTOOD: u8 = 64;

/// What a verb has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerbReport {
    /// For standard output.
    pub(crate) text: String,
    /// 0 done, 1 failed, 2 done in part.
    pub(crate) exit_code: u8,
}

impl VerbReport {
    /// Done, and this is to be said.
    pub(crate) fn done(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit_code: 0 }
    }
}

/// Prints and decides the exit code.
pub(crate) fn finish_report(outcome: Result<VerbReport, RunError>) -> ExitCode {
    match outcome {
        Ok(VerbReport { text, exit_code }) => {
            if !text.is_empty() {
                // Whoever closed the pipe, such as `head`, has read enough.
                // `println!` would panic when the pipe is closed.
                let _ = writeln!(io::stdout(), "{}", text.trim_end_matches('\n'));
            }
            ExitCode::from(exit_code)
        }
        Err(error) => {
            eprintln!("initagent: {}", error_chain(&error));
            if matches!(error, RunError::Usage(_)) {
                ExitCode::from(NOT_UNDERSTOOD)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Says what goes on, at once: a verb may wait for other machines for hours.
pub(crate) fn announce_line(line: &str) {
    eprintln!("initagent: {line}");
}
