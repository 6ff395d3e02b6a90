//! Every platform that is asked over HTTP, against services on this machine.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "the tests measure time and make networks")]

mod addresses;
mod faults;
mod service;
mod wire;
