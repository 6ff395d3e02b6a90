//! Says what came of it: output on one stream, the chain of errors once on the other.
//!
//! Knows exit codes. Refuses to know what was done.
//! Invariant: nothing else in the program prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the module that reports")]

use std::error::Error;
use std::process::ExitCode;

use crate::app::RunError;

/// Prints and decides the exit code: 0 done, 1 failed, 2 not understood.
pub(crate) fn finish(outcome: Result<String, RunError>) -> ExitCode {
    match outcome {
        Ok(text) => {
            println!("{}", text.trim_end_matches('\n'));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("initagent: {}", chain(&error));
            if matches!(error, RunError::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.extend([": ", &error.to_string()]);
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open /dev/vda3")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_said_once() {
        let error = Outer(std::io::Error::other("permission denied"));

        assert_eq!(chain(&error), "cannot open /dev/vda3: permission denied");
    }
}
