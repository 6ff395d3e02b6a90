//! Says to the person what happened. The only module that writes to standard error.

use error_text::error_chain;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use vm::cluster::folder::ClusterError;
use vm::cluster::plan::ClusterSizeError;
use vm::registry::RegistryError;
use vm::running::GuestError;

use crate::failure::CommandFailure;

/// A line on standard error: progress, not results.
pub(crate) fn print_note(text: impl Display) {
    // Nobody listens any more: the work goes on all the same.
    let _ = writeln!(io::stderr(), "vm: {}", printable_text(&text.to_string()));
}

/// Messages repeat what guests, their ssh and QEMU said, which gives this terminal no orders.
fn printable_text(text: &str) -> String {
    let plain = |char: char| !char.is_control() || matches!(char, '\n' | '\t');
    text.chars().map(|char| if plain(char) { char } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Results, on standard output.
pub(crate) fn print_result(text: impl Display) {
    // A reader that has seen enough (`| head`) is no failure.
    let _ = write!(io::stdout(), "{text}");
}

/// Turns the outcome into an exit code, and a failure into one message with its causes.
pub(crate) fn finish_command(outcome: Result<(), CommandFailure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let error = failure.0;
            print_note(error_chain(error.as_ref()));
            ExitCode::from(exit_code(error.as_ref()))
        }
    }
}

fn exit_code(error: &(dyn Error + 'static)) -> u8 {
    if let Some(error) = error.downcast_ref::<RegistryError>() {
        return match error {
            RegistryError::Name(_) => 2,
            RegistryError::Root { .. } | RegistryError::Unsafe { .. } | RegistryError::Change { .. } => 1,
            _ => 3,
        };
    }
    match error.downcast_ref::<ClusterError>() {
        Some(ClusterError::Folder { .. } | ClusterError::NetworkRuns) => return 1,
        Some(_) => return 3,
        None => {}
    }
    if error.is::<ClusterSizeError>() {
        return 2;
    }
    match error.downcast_ref::<GuestError>() {
        Some(GuestError::NoSsh { .. } | GuestError::Silent { .. } | GuestError::StillOn { .. }) => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_gives_the_terminal_no_orders() {
        assert_eq!(printable_text("a\u{1b}[2J\u{9b}2J\u{7}\n\tb"), "a\u{fffd}[2J\u{fffd}2J\u{fffd}\n\tb");
    }
}
