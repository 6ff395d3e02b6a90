//! Texts that people write: YAML in which every value has a place, and findings that point at it.
//!
//! Knows lines, columns, carets and near misses. Refuses to know any key: what a document means is its
//! reader's. Invariants: size, depth and count are bounded before anything is built; no finding shows
//! the value of a key that may be secret.

// serde_yaml is archived and keeps no places. In tests our trees are compared with its.
pub mod caret;
pub mod diagnostic;
pub mod source;
pub mod spelling;
pub mod yaml;
