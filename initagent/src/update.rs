//! Replaces the system of the machine with a newer release, and brings the old one back when that one is bad.
//!
//! The phases of an update and what follows after a cut are pure ([`phase`], [`resume`]); the rest carries them
//! out. Refuses to touch the slot that runs.
//! Invariant: at every moment, after every prefix of every write, some good slot boots.

#![expect(dead_code, reason = "the verbs that carry the phases out come with the next commits")]

/// The slot that may be written.
mod idle_slot;
/// Brings a release into it.
mod install;
/// What the machine remembers of its updates.
mod journal;
/// The phases of an update.
mod phase;
/// What follows after a cut.
mod resume;
/// A slot, open past the page cache.
mod slot_device;
/// A slot somewhere else as a source.
mod slot_image;

#[cfg(test)]
mod tests;
