//! Reboot slots: who may reboot now, in which group.
//!
//! Knows the counting and the FleetLock protocol; refuses to know why a machine wants to reboot.
//! Invariant: a group never has a holder twice, and taking a slot never leaves more holders than slots.

pub mod semaphore;

use std::future::Future;

use semaphore::{GroupName, GroupSemaphore};

/// Why a slot operation had no effect.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum LockError {
    #[error("all {max} semaphore slots of group {group} are currently locked by {holders}")]
    Full { group: GroupName, max: u32, holders: String },
    #[error(
        "cannot {action} group {group}: others changed it at the same time, again and again; try once more"
    )]
    Contended { action: &'static str, group: GroupName },
    #[error("cannot {action} group {group}: the store did not take it")]
    Store { action: &'static str, group: GroupName, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Slots kept somewhere. Every operation is atomic and may be repeated without harm.
pub trait RebootLocks: Send + Sync + 'static {
    /// Takes a slot, or keeps the one already held.
    fn acquire(
        &self,
        group: &GroupName,
        id: &str,
        reason: &str,
    ) -> impl Future<Output = Result<(), LockError>> + Send;

    /// Gives the slot back; `false` when it was not held.
    fn release(&self, group: &GroupName, id: &str) -> impl Future<Output = Result<bool, LockError>> + Send;

    /// Sets the number of slots and returns the number there was.
    fn set_max(&self, group: &GroupName, max: u32) -> impl Future<Output = Result<u32, LockError>> + Send;

    /// One group; a group nobody used yet has one free slot.
    fn group(&self, group: &GroupName) -> impl Future<Output = Result<GroupSemaphore, LockError>> + Send;

    /// Every group that was ever used, by name.
    fn groups(&self) -> impl Future<Output = Result<Vec<(GroupName, GroupSemaphore)>, LockError>> + Send;
}
