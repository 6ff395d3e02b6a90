//! The words of the cluster: units, their files and requirements, machines, states.
//!
//! Knows the meaning of every value that crosses a border; refuses to know where values are kept
//! ([`crate::store`]), how they are chosen ([`crate::plan`]) or shown. Invariant: a value that exists
//! is valid; text from outside becomes one of these types or an error, once.

pub mod glob;
pub mod machine;
pub mod moment;
pub mod requirements;
pub mod state;
pub mod unit_file;
pub mod unit_name;
pub mod url;
