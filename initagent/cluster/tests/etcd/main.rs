//! The life of a cluster with real members of etcd, on loopback addresses of their own.

#![expect(clippy::disallowed_methods, reason = "tests run programs and wait for them")]
#![expect(clippy::panic, clippy::unwrap_used, reason = "what prepares a test may fail it too")]
#![expect(clippy::print_stderr, reason = "tests say why they were skipped")]

mod access;
mod discovery;
mod keys;
mod machine;
mod replacement;
mod restoring;
