//! An error as one line, and foreign text as a terminal may get it.
//!
//! Knows how the causes of an error hang together. Refuses to know who reads the line: what a terminal must not see
//! is removed by who prints it, by [`printable`].

mod address;

use std::error::Error;

pub mod printable;

pub use address::redacted_address;

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

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Self>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    #[test]
    fn each_cause_is_said_once() {
        let cause = Layer("no such file", None);
        let library = Layer("i/o error: no such file", Some(Box::new(cause)));
        let own = Layer("cannot open /dev/vda3", Some(Box::new(library)));
        assert_eq!(error_chain(&own), "cannot open /dev/vda3: i/o error: no such file");
    }
}
