//! Stories on real nodes: Debian 13 in containers, its systemd, its etcd, and the programs of this crate.
#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "stories report numbers and why they were skipped"
)]

mod bench;
mod commands;
mod demo;
mod failures;
mod nodes;
mod scheduling;
mod security;
mod traces;
mod ways;
