//! When systemd reads its configuration anew.
//!
//! That takes it longer the more units it has, and it does nothing else meanwhile. Knows how long the last
//! time took; refuses to know what for. Invariant: for units that go, at most a fifth of the time is
//! spent on reloads, however many go; a single one never waits. Units that come and need one do not wait.

use std::time::{Duration, Instant};

/// So many times as long as the last reload took, none follows.
// One part reloading and four parts not are the fifth that the guide promises.
const REST: u32 = 4;
/// No unit waits longer than this: a machine that is starved for a moment must not wait for minutes.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How long to wait after a reload that failed.
// Like every first retry of the agent. A reload fails when systemd is overloaded or being re-executed.
const AGAIN: Duration = Duration::from_secs(5);

/// The reloads of an agent.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    next: Option<Instant>,
    owed: bool,
}

impl Reloads {
    /// One ended well.
    pub(super) fn note_success(&mut self, began: Instant, ended: Instant) {
        self.next = Some(ended + (ended.saturating_duration_since(began) * REST).min(LONGEST_REST));
        self.owed = false;
    }

    /// One failed: systemd still disagrees with the disk.
    pub(super) fn note_failure(&mut self, ended: Instant) {
        self.next = Some(ended + AGAIN);
        self.owed = true;
    }

    /// Whether systemd disagrees with the disk.
    pub(super) fn is_owed(&self) -> bool {
        self.owed
    }

    /// When the next one may come; `None` if it may come at any time.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an instant cannot be made in another way")]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_as_long_as_the_last_reload_deserves() {
        let began = Instant::now();
        let after = |millis: u64| began + Duration::from_millis(millis);
        let mut reloads = Reloads::default();
        assert_eq!(reloads.next(), None);

        reloads.note_success(began, after(20));
        assert_eq!(reloads.next(), Some(after(100)));
        reloads.note_success(began, after(60_000));
        assert_eq!(reloads.next(), Some(after(62_000)));
        reloads.note_failure(after(70_000));
        assert!(reloads.is_owed());
        assert_eq!(reloads.next(), Some(after(75_000)));
        reloads.note_success(after(75_000), after(75_010));
        assert!(!reloads.is_owed());
    }
}
