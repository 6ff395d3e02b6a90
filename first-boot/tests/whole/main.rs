//! Whole runs on a machine that is a directory.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, reason = "this is a test")]

mod apply;
mod cases;
mod disks;
mod homes;
mod judge;
mod machine;
mod mounts;
mod nodes;
mod run;
mod secrets;
mod sources;
mod way_in;
