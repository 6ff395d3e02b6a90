//! Replaces the system of the machine with a newer release, and brings the old one back when that one is bad.
//!
//! The phases of an update and what follows after a cut are pure ([`phase`], [`resume`]); the rest carries them
//! out. Refuses to touch the slot that runs.
//! Invariant: at every moment, after every prefix of every write, some good slot boots.

#![expect(dead_code, reason = "the verbs that carry the phases out come with the next commits")]

/// What a lost boot left behind.
mod evidence;
/// Whether a machine is as well as it was.
mod health;
/// The slot that may be written.
mod idle_slot;
/// Brings a release into it.
mod install;
/// What the machine remembers of its updates.
mod journal;
/// The machine as an update sees it.
mod machine;
/// The phases of an update.
mod phase;
/// What follows after a cut.
mod resume;
/// How the machine is to update itself.
mod settings;
/// A slot, open past the page cache.
mod slot_device;
/// A slot somewhere else as a source.
mod slot_image;
/// Fetches files from mirrors.
mod transport;
/// The trial of a new slot.
mod trial;
/// The hours in which the machine may restart.
mod window;

#[cfg(test)]
mod tests;
