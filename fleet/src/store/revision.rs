//! The two numbers by which etcd counts.
//!
//! Knows what etcd means by them. Refuses arithmetic: only etcd makes a new one. Invariant: a revision never stands
//! where a lease is meant, since both are the same `int64` on the wire.

use serde::{Deserialize, Serialize};

/// A state of the whole store: etcd counts one up with each transaction that changes something.
/// <https://etcd.io/docs/v3.6/learning/data_model/>
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Revision(pub i64);

impl Revision {
    /// What etcd says of a key that never was.
    pub const NEVER: Self = Self(0);

    /// The revision after this one, from which on a watch hears what this one does not show yet.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease: keys that live by it vanish when nobody renews it.
/// <https://etcd.io/docs/v3.6/learning/api/#lease-api>
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// What etcd says of a key that lives by no lease.
    pub const NONE: Self = Self(0);
}

impl std::fmt::Display for LeaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
