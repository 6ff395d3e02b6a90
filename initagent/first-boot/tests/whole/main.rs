//! Whole runs on a machine that is a directory.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "this file is a test")]

mod apply;
mod machine;
mod run;
mod way_in;
