//! What a publisher says to the machines of a fleet: which keys count, and which release a channel offers.
//!
//! Knows the two signed documents of a repository ([`root`], [`channel`]), what a client keeps of them
//! ([`trust`]) and which release is for this machine now ([`rollout`]). Refuses to know where bytes come
//! from, what the time is, and what a payload holds. Invariant: no value of a document exists before
//! enough keys of its role signed its bytes, and what a client has accepted never goes back. A client asks by
//! [`session::TrustSession`], which has the order right.
//!
//! The ideas are those of The Update Framework (theupdateframework.github.io/specification, 1.0.33): roles,
//! thresholds, a chain of roots, counters and expiry. TUF's snapshot and timestamp are one document here, the
//! channel: there is one file that changes, so nothing can be mixed between two of them.
//!
//! How the documents may grow: within a `format`, a reader ignores fields that it does not know. A field that an
//! old reader must not miss comes with the next number, which old readers refuse by name before they read
//! anything else. Keys and signatures of a kind that a reader does not know count for nothing, and harm nothing:
//! a fleet may move to another kind of key while its old machines still follow.

pub mod channel;
pub mod paths;
pub mod rollout;
pub mod root;
pub mod session;
pub mod time;
pub mod trust;
pub mod wave;

use serde::Deserialize;

/// What each document of a repository begins with.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    format: u32,
}

/// A format that is not read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it has format {given}, but format {known} is read here: it is for {} agents",
    if given > known { "later" } else { "earlier" }
)]
pub struct FormatError {
    given: u32,
    known: u32,
}

/// Compares the number before anything else is read: a later format may change what every other field means.
fn check_format(bytes: &[u8], known: u32) -> Result<Result<(), FormatError>, serde_json::Error> {
    let given = serde_json::from_slice::<Head>(bytes)?.format;
    Ok(if given == known { Ok(()) } else { Err(FormatError { given, known }) })
}
