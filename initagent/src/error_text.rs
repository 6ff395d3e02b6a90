//! An error and its causes as text, for whoever reports one.
//!
//! Knows chains of errors. Refuses to print: [`crate::report`] does, and needs to know every verb's errors, which the
//! modules that only want the text must not.

use std::error::Error;

/// An error and its causes in one line.
pub(crate) fn error_chain(error: &dyn Error) -> String {
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
    use super::error_chain;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open /dev/vda3")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_said_once() {
        let error = Outer(std::io::Error::other("permission denied"));

        assert_eq!(error_chain(&error), "cannot open /dev/vda3: permission denied");
    }
}
